/* The flow service above a store of which a part is damaged: the rest goes on. */
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
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

/* --- a disk of which a page cannot be read --------------------------------------------- */

static atomic_long bad_page; /* of the database; 0: none */
static sqlite3_vfs *real_vfs, bad_vfs;
static const sqlite3_io_methods *real_io[4];
static sqlite3_io_methods bad_io[4];

static int
bad_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
    long page = atomic_load(&bad_page);

    return page && n == PAGE && at == (page - 1) * PAGE
               ? SQLITE_IOERR_READ
               : real_io[f->pMethods - bad_io]->xRead(f, to, n, at);
}

/* The writer's and a query's thread may both come. */
static int
bad_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    int code = real_vfs->xOpen(vfs, name, f, flags, out), i = 0;

    if (code == SQLITE_OK && f->pMethods) {
        pthread_mutex_lock(&mutex);
        while (real_io[i] && real_io[i] != f->pMethods) {
            i++;
        }
        if (!real_io[i]) {
            real_io[i] = f->pMethods;
            bad_io[i] = *f->pMethods;
            bad_io[i].xRead = bad_read;
        }
        f->pMethods = &bad_io[i];
        pthread_mutex_unlock(&mutex);
    }
    return code;
}

static void
register_disk(void)
{
    real_vfs = sqlite3_vfs_find(NULL);
    bad_vfs = *real_vfs;
    bad_vfs.zName = "bad";
    bad_vfs.xOpen = bad_open;
    CHECK(sqlite3_vfs_register(&bad_vfs, 1) == SQLITE_OK);
}

/* --- a service ---------------------------------------------------------------------------- */

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
    CHECK(flow_service_damaged(s) == N / 2);

    CASE("what is damaged is told, and is no refusal");
    CHECK(!*text(o, "store", "error") && strstr(text(o, "store", "upkeep"), "malformed"));
    json_decref(o);
    flow_service_close(s);
}

static struct flow_service *
service_of_bad_hour(const char *name, const int64_t hours[2])
{
    struct flow_service *s;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    s = service();
    put(s, hours, 2);
    CHECK(flow_service_flush(s, 20000) == 0);
    flow_service_close(s);
    atomic_store(&bad_page, page_of(hours[1]));
    return service();
}

static void
test_unread_hour(void)
{
    int64_t hour = flow_now_ms() / HOUR;
    const int64_t hours[] = {hour - 1, hour - 2};
    struct flow_service *s = service_of_bad_hour("unread", hours);
    int error = EIO;
    json_t *o;

    CASE("records of an hour that cannot be read wait, and keep no others waiting");
    put(s, hours, 2);
    CHECK(flow_service_flush(s, 20000) == EIO);
    o = status(s);
    CHECK(number(o, "records", "committed") == N / 2 && number(o, "records", "damaged") == 0);
    json_decref(o);

    CASE("they are stored when it can be read again");
    pthread_mutex_lock(&s->mutex);
    s->retry_ms = 10;
    pthread_mutex_unlock(&s->mutex);
    atomic_store(&bad_page, 0);
    while (error == EIO) {
        error = flow_service_flush(s, 20000);
    }
    o = status(s);
    CHECK(!error && number(o, "records", "committed") == N);
    CHECK(number(o, "records", "damaged") == 0);
    json_decref(o);
    flow_service_close(s);

    CASE("they are lost and counted after a few tries");
    s = service_of_bad_hour("unread2", hours);
    pthread_mutex_lock(&s->mutex);
    s->retry_ms = 10;
    pthread_mutex_unlock(&s->mutex);
    put(s, hours, 2);
    do {
        error = flow_service_flush(s, 20000);
    } while (error == EIO);
    put(s, hours, 1);
    CHECK(!error && flow_service_flush(s, 20000) == 0);
    o = status(s);
    CHECK(number(o, "records", "committed") == N + N / 2);
    CHECK(number(o, "records", "damaged") == N / 2);
    CHECK(number(o, "records", "refusals") == 4);
    CHECK(strstr(text(o, "store", "upkeep"), "I/O"));
    json_decref(o);
    flow_service_close(s);
    atomic_store(&bad_page, 0);
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
    register_disk();
    test_damaged_hour();
    test_unread_hour();
    test_damaged_free_pages();
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return check_done() | (system(command) != 0);
}
