/* The flow service above a store of which a part is damaged: the rest goes on. */
#include <errno.h>
#include <jansson.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "flow_answer.h"
#include "flow_service.h"
#include "flow_service_priv.h"

#define HOUR INT64_C(3600000)
enum { N = 100, PAGE = 8192 };

static char dir[] = "/tmp/weft-service-XXXXXX";
static char path[200];

static struct flow_service *
service(void)
{
    struct flow_service_config c = {
        .store = {.path = path, .raw_hours = 48, .keep_hours = {48, 48, 48}}};
    struct flow_service *s;
    char why[300];

    if (flow_service_open(&c, &s, why, sizeof why)) {
        printf("# %s\n", why);
        exit(1);
    }
    return s;
}

/* A record of each of the hours by turns. */
static void
put(struct flow_service *s, const int64_t *hours, size_t n_hours)
{
    const struct flow_sink *sink = flow_service_sink(s);
    struct flow_source from = {.address = {.s6_addr = {[10] = 0xff, [11] = 0xff, [15] = 1}}};
    struct flow_record r[N] = {{.packets = 1}};

    for (size_t i = 0; i < N; i++) {
        r[i].end_ms = (uint64_t)(hours[i % n_hours] * HOUR + (int64_t)i);
        r[i].packets = 1;
    }
    sink->records(sink->context, &from, r, N);
}

/* Of the store's file. */
static void
exec(const char *sql)
{
    sqlite3 *db = NULL;

    CHECK(!sqlite3_open(path, &db) && !sqlite3_exec(db, sql, NULL, NULL, NULL));
    sqlite3_close(db);
}

/* The beginning of the hour's table. */
static long
page_of(int64_t hour)
{
    char sql[100];
    sqlite3_stmt *q = NULL;
    sqlite3 *db = NULL;
    long page = 0;

    snprintf(sql, sizeof sql, "SELECT rootpage FROM sqlite_master WHERE name = 'blocks_%lld'",
             (long long)hour);
    CHECK(!sqlite3_open(path, &db) && !sqlite3_prepare_v2(db, sql, -1, &q, NULL));
    CHECK(sqlite3_step(q) == SQLITE_ROW && (page = (long)sqlite3_column_int64(q, 0)) > 1);
    sqlite3_finalize(q);
    sqlite3_close(db);
    return page;
}

/* Exchanges the page for another, of junk at first. */
static void
exchange(long page, char *other)
{
    char was[PAGE];
    FILE *f = fopen(path, "r+");

    CHECK(f && !fseek(f, (page - 1) * PAGE, SEEK_SET) && fread(was, PAGE, 1, f) == 1);
    CHECK(!fseek(f, (page - 1) * PAGE, SEEK_SET) && fwrite(other, PAGE, 1, f) == 1);
    CHECK(!fclose(f));
    memcpy(other, was, PAGE);
}

static void
damage(int64_t hour)
{
    char junk[PAGE];

    memset(junk, 0x5a, sizeof junk);
    exchange(page_of(hour), junk);
}

static const char *
get_arg(void *aux, const char *name)
{
    (void)aux, (void)name;
    return NULL;
}

static json_t *
status(struct flow_service *s)
{
    struct flow_args a = {get_arg, NULL};
    char *text = NULL;
    json_t *o;

    CHECK(flow_answer(s, "/v1/status", &a, &text) == 200);
    o = json_loads(text, 0, NULL);
    free(text);
    return o;
}

static json_int_t
number(const json_t *o, const char *of, const char *field)
{
    return json_integer_value(json_object_get(json_object_get(o, of), field));
}

static const char *
text(const json_t *o, const char *of, const char *field)
{
    const char *s = json_string_value(json_object_get(json_object_get(o, of), field));

    return s ? s : "";
}

static void
test_damaged_hour(void)
{
    int64_t hour = flow_now_ms() / HOUR;
    const int64_t hours[] = {hour - 1, hour - 2};
    struct flow_service *s;
    json_t *o;

    CASE("records of a damaged hour are lost and counted, and keep no others waiting");
    snprintf(path, sizeof path, "%s/hour", dir);
    s = service();
    put(s, hours, 2);
    CHECK(flow_service_flush(s, 20000) == 0);
    flow_service_close(s);
    damage(hour - 2);
    s = service();
    put(s, hours, 2);
    CHECK(flow_service_flush(s, 20000) == 0);
    put(s, hours, 1);
    CHECK(flow_service_flush(s, 20000) == 0);
    o = status(s);
    CHECK(number(o, "records", "taken") == 2 * N && number(o, "records", "waiting") == 0);
    CHECK(number(o, "records", "committed") == N + N / 2);
    CHECK(number(o, "records", "damaged") == N / 2);

    CASE("what is damaged is told, and is no refusal");
    CHECK(!*text(o, "store", "error") && strstr(text(o, "store", "upkeep"), "malformed"));
    json_decref(o);
    flow_service_close(s);
}

/* The first of the free pages says which others are. */
static void
test_damaged_free_pages(void)
{
    int64_t hour = flow_now_ms() / HOUR;
    const int64_t old[] = {hour - 1}, new[] = {hour - 2, hour - 3};
    unsigned char head[36];
    struct flow_service *s;
    char junk[PAGE];
    json_t *o;
    long page;
    FILE *f;

    CASE("damage to what all hours need is a refusal: no record is lost");
    snprintf(path, sizeof path, "%s/free", dir);
    s = service();
    put(s, old, 1);
    CHECK(flow_service_flush(s, 20000) == 0);
    flow_service_close(s);
    exec("CREATE TABLE a (x); INSERT INTO a VALUES (zeroblob(2000000)); DROP TABLE a");
    CHECK((f = fopen(path, "r")) && fread(head, sizeof head, 1, f) == 1 && !fclose(f));
    page = (long)head[32] << 24 | (long)head[33] << 16 | (long)head[34] << 8 | head[35];
    CHECK(page > 1);
    memset(junk, 0x5a, sizeof junk);
    exchange(page, junk);
    s = service();
    put(s, new, 2);
    CHECK(flow_service_flush(s, 20000) == EBADMSG);
    o = status(s);
    CHECK(number(o, "records", "damaged") == 0 && number(o, "records", "committed") == 0);
    CHECK(strstr(text(o, "store", "error"), "malformed"));
    json_decref(o);
    flow_service_close(s);
}

int
main(void)
{
    char command[100];

    if (!mkdtemp(dir)) {
        return 1;
    }
    test_damaged_hour();
    test_damaged_free_pages();
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return check_done() | (system(command) != 0);
}
