/* Trunks that leave connections behind when their VM moves: their parents say so, also in
 * the database, if that has a place for it. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ctl_db.h"
#include "ctl_rig.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "plan.h"
#include "pool_db.h"
#include "pool_row.h"
#include "timeval.h"
#include "trunk_lint.h"

#define PATIENCE_MS 20000

/* --- what is said ------------------------------------------------------------------------- */

/* vif 1 is the parent, vif 10 + n in its trunk, in network 3 + n. */
static void
child(unsigned n, const char *mode, const char *address)
{
    struct rec *r = vif_rec(10 + n, 1, 3 + n, 10 + n);

    rec_set_string(r, REC_VIF_PARENT, ref(REC_VIF, 1));
    rec_set_int(r, REC_VIF_TAG, 100 + n);
    rec_set_string(r, REC_VIF_LOCKING, mode);
    if (address) {
        rec_add(r, REC_VIF_IPV4, address);
    }
    put(r);
}

static void
parent(const char *mode)
{
    struct rec *r = vif_rec(1, 1, 1, 1);

    rec_set_string(r, REC_VIF_LOCKING, mode);
    put(r);
}

static const char *
warning(unsigned n)
{
    model_settle(m);
    trunk_lint_all(m);
    return any(REC_VIF, n)->warning ? any(REC_VIF, n)->warning : "";
}

static void
test_mixed(void)
{
    begin();
    for (unsigned n = 3; n < 16; n++) {
        network(n, 100 + n, "");
    }
    CASE("trunk/lint: none is locked, or all are");
    CHECK(!*warning(1));
    child(0, "unlocked", NULL);
    child(1, "network_default", NULL);
    CHECK(!*warning(1));
    parent("locked");
    child(0, "locked", "10.0.0.10");
    child(1, "locked", "10.0.0.11");
    CHECK(!*warning(1) && !*warning(10));

    CASE("trunk/lint: some are: the parent says so, and names one");
    child(1, "network_default", NULL);
    CHECK(strstr(warning(1), "trunk: when the VM moves") && strstr(warning(1), "\"vif11\""));
    CHECK(!strchr(warning(1), ';') && !*warning(10) && !*warning(11) && !*warning(2));
    child(0, "unlocked", NULL);
    CHECK(strstr(warning(1), "\"vif10\""));
    parent("unlocked");
    CHECK(!*warning(1));
    child(1, "locked", "10.0.0.11");
    CHECK(strstr(warning(1), "\"vif1\""));

    CASE("trunk/lint: one that is disabled has nothing to lose");
    parent("disabled");
    child(0, "locked", "10.0.0.10");
    CHECK(!*warning(1));

    CASE("trunk/lint: what goes or is in error takes it along");
    child(0, "unlocked", NULL);
    CHECK(*warning(1));
    take(REC_VIF, 10);
    CHECK(!*warning(1));

    CASE("trunk/lint: more than a move has room for");
    parent("unlocked");
    for (unsigned n = 0; n < 9; n++) {
        child(n, "unlocked", NULL);
    }
    CHECK(strstr(warning(1), "only 8 of the 9 vifs"));
    take(REC_VIF, 18);
    CHECK(!*warning(1));
    end();
}

static void
test_addresses(void)
{
    struct rec *r;
    char text[32];

    begin();
    network(3, 103, "");
    CASE("trunk/lint: more addresses than a move has room for, where one is locked");
    child(0, "unlocked", NULL);
    r = vif_rec(1, 1, 1, 1);
    rec_set_string(r, REC_VIF_LOCKING, "locked");
    for (unsigned i = 0; i < 32; i++) {
        snprintf(text, sizeof text, "10.1.0.%u", i + 1);
        rec_add(r, REC_VIF_IPV4, text);
    }
    rec_normalize(r);
    put(r);
    CHECK(strstr(warning(1), "\"vif10\"") && strstr(warning(1), "; only 32 of its 33 addresses"));
    end();
}

/* --- in the database ---------------------------------------------------------------------- */

static struct ctl_db server;

static const char document[] =
    "{\"version\":1,\"hosts\":[{\"name\":\"h1\",\"ovsdb\":\"unix:/run/h1\"}],"
    "\"networks\":[{\"name\":\"n1\",\"type\":\"vlan\",\"tag\":10},"
    "{\"name\":\"n2\",\"type\":\"vlan\",\"tag\":20}],\"vms\":[{\"name\":\"a\"}],"
    "\"vifs\":[{\"name\":\"a0\",\"vm\":\"a\",\"network\":\"n1\",\"mac\":\"02:00:00:00:00:01\"},"
    "{\"name\":\"a1\",\"vm\":\"a\",\"network\":\"n2\",\"mac\":\"02:00:00:00:00:02\","
    "\"parent\":\"a0\",\"tag\":5,\"locking_mode\":\"%s\",\"ipv4_allowed\":[\"10.0.0.1\"]}]}";

struct applied {
    bool done;
    int error;
    size_t n_warnings;
};

static void
got(const struct pool_result *r, void *applied_)
{
    struct applied *a = applied_;

    *a = (struct applied){true, r->error, r->warnings->n};
}

/* What is waited for; the members that are set. */
struct wanted {
    const struct applied *applied;
    const struct model_obj *warned;
    const char *column, *text; /* of a0's row: begins with it, or, empty, is it */
};

static bool
is_there(struct model *model, struct pool_db *db, const struct wanted *w)
{
    const struct model_obj *vif = model_any_by_name(model, REC_VIF, "a0", NULL);
    const struct ovsdb_idl_row *row =
        vif ? pool_row_find(pool_db_idl(db), REC_VIF, &vif->uuid) : NULL;

    return (!w->applied || w->applied->done) && (!w->warned || w->warned->warning) &&
           (!w->column || (row && !strncmp(pool_row_get_string(row, REC_VIF, w->column), w->text,
                                           MAX(strlen(w->text), 1))));
}

static bool
until(struct model *model, struct pool_db *db, const struct wanted *w)
{
    long long int deadline = time_msec() + PATIENCE_MS;

    while (!pool_db_ready(db) || !pool_db_connected(db) || !is_there(model, db, w)) {
        if (time_msec() > deadline) {
            return false;
        }
        pool_db_run(db);
        model_changes_clear(model);
        pool_db_wait(db);
        poll_timer_wait(50);
        poll_block();
    }
    return true;
}

static bool
reads(struct model *model, struct pool_db *db, const char *column, const char *text)
{
    return until(model, db, &(struct wanted){.column = column, .text = text});
}

static struct applied
apply(struct model *model, struct pool_db *db, const char *mode, bool check_only)
{
    struct doc_errors errors = {NULL, 0, false};
    struct applied a = {.done = false};
    char *text = xasprintf(document, mode);

    until(model, db, &(struct wanted){NULL});
    pool_db_apply(db, doc_parse(text, strlen(text), &errors), POOL_MERGE, check_only, NULL, got,
                  &a);
    until(model, db, &(struct wanted){.applied = &a});
    free(text);
    return a;
}

/* The database as it was before vifs had warnings. */
static bool
make_old(void)
{
    static const char column[] = ",\n        \"warning\": {\"type\": \"string\"}";
    char text[65536], path[128], remote[96], *from, *at, *version;
    char *argv[] = {CTL_DB_BIN "ovsdb-client", "convert", remote, path, NULL};
    FILE *f = fopen("controller/pool.ovsschema", "r");
    size_t n = fread(text, 1, sizeof text - 1, f);
    int status;

    fclose(f);
    text[n] = '\0';
    from = strstr(text, "\"VIF\": {");
    at = from ? strstr(from, column) : NULL;
    version = strstr(text, "\"version\": \"1.");
    if (!at || strstr(from, "\"isRoot\"") < at || !version || version > from) {
        return false;
    }
    version[strlen("\"version\": \"")] = '0';
    memmove(at, at + strlen(column), strlen(at + strlen(column)) + 1);
    snprintf(path, sizeof path, "%s/old", server.dir);
    snprintf(remote, sizeof remote, "%s", server.remote);
    f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    status = ctl_db_exec(NULL, argv);
    unlink(path);
    ctl_db_kill(&server);
    ctl_db_run(&server); /* which then tells its clients of this schema */
    return !status;
}

static void
test_database(void)
{
    struct model *model = model_create();
    struct pool_db *db;
    struct applied a;

    CASE("trunk/database: a parent's warning comes and goes");
    ovs_assert(!ctl_db_start(&server));
    db = pool_db_open(server.remote, model);
    a = apply(model, db, "locked", false);
    CHECK(a.done && !a.error);
    CHECK(reads(model, db, "warning", "trunk: when the VM moves"));
    a = apply(model, db, "unlocked", false);
    CHECK(a.done && !a.error && reads(model, db, "warning", ""));

    CASE("trunk/database: a check of a document says it before");
    a = apply(model, db, "locked", true);
    CHECK(a.done && !a.error && a.n_warnings == 1);
    pool_db_close(db);
    model_destroy(model);
    ctl_db_stop(&server);
}

static void
test_old_database(void)
{
    struct model *model = model_create();
    const struct model_obj *vif;
    struct model_host *host;
    struct pool_db *db;
    struct applied a;

    CASE("trunk/database: one that has no place for it takes all else");
    ovs_assert(!ctl_db_start(&server));
    CHECK(make_old());
    db = pool_db_open(server.remote, model);
    a = apply(model, db, "locked", false);
    CHECK(a.done && !a.error);
    vif = model_any_by_name(model, REC_VIF, "a0", NULL);
    if (!vif) {
        CHECK(!"there is a vif");
        return;
    }
    CHECK(until(model, db, &(struct wanted){.warned = vif}));
    host = model_host(model_by_name(model, REC_HOST, "h1"));
    model_port_report(model, host, "vif1.0", NULL, &model_vif(vif)->mac, 7);
    CHECK(reads(model, db, "seen_host", "h1"));
    CHECK(reads(model, db, "warning", ""));
    pool_db_close(db);
    model_destroy(model);
    ctl_db_stop(&server);
}

int
main(int argc, char *argv[])
{
    set_program_name(argv[0]);
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, getenv("V") ? VLL_DBG : VLL_OFF);
    test_mixed();
    test_addresses();
    rec_destroy(new_rec(REC_TENANT, 0));
    test_database();
    test_old_database();
    return check_done();
}
