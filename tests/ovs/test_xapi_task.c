/* Which migration is an order's: rows that hosts write, one that lies among them. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "util.h"
#include "uuid.h"
#include "xapi.h"

#define VM "11111111-1111-4111-8111-111111111111"
#define BEGUN "22222222-2222-4222-8222-222222222222"
#define OTHER "33333333-3333-4333-8333-333333333333"

static struct poolrec_task task;
static struct poolrec_migration migration;

static void
state(const char *result, const char *name)
{
    static char order[UUID_LEN + 1];

    memset(&task, 0, sizeof task);
    memset(&migration, 0, sizeof migration);
    task.header_.uuid = (struct uuid){.parts = {1, 2, 3, 4}};
    snprintf(order, sizeof order, UUID_FMT, UUID_ARGS(&task.header_.uuid));
    task.vm = migration.vm = (char *)VM;
    task.host = migration.from_host = (char *)"h1";
    task.result = (char *)result;
    migration.to_host = (char *)"h2";
    migration.task = order;
    migration.migration = (char *)name;
}

int
main(void)
{
    CASE("the migration that the order names");
    state(BEGUN, BEGUN);
    CHECK(task_begot(&task, &migration));

    CASE("an order that names none has begun none, whatever the migration says");
    state("", BEGUN);
    CHECK(!task_begot(&task, &migration));
    state("", "");
    CHECK(!task_begot(&task, &migration));

    CASE("another migration of the order's");
    state(BEGUN, OTHER);
    CHECK(!task_begot(&task, &migration));

    CASE("the same name, of another order, VM or host; or that is none");
    state(BEGUN, BEGUN);
    migration.task = (char *)OTHER;
    CHECK(!task_begot(&task, &migration));
    state(BEGUN, BEGUN);
    migration.vm = (char *)OTHER;
    CHECK(!task_begot(&task, &migration));
    state(BEGUN, BEGUN);
    migration.from_host = (char *)"h2";
    CHECK(!task_begot(&task, &migration));
    state("../x", "../x");
    CHECK(!task_begot(&task, &migration));
    return check_done();
}
