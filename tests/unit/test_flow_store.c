/* The flow store: what goes in comes out, raw and added up; names are those of
 * the record's time; neither SIGKILL nor a full disk loses what was committed. */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "flow_answer.h"
#include "flow_service_priv.h"

static char dir[] = "/tmp/weft-store-XXXXXX";

static struct in6_addr
v4(const char *s)
{
    struct in6_addr a = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

    inet_pton(AF_INET, s, &a.s6_addr[12]);
    return a;
}

static struct flow_service *
service(const char *file, uint64_t max_bytes)
{
    static char path[200];
    struct flow_service_config c = {.store = {.path = path,
                                              .raw_hours = 48,
                                              .keep_hours = {48, 24 * 31, 24 * 400},
                                              .max_bytes = max_bytes}};
    struct flow_service *s;
    char why[300];

    snprintf(path, sizeof path, "%s/%s", dir, file);
    if (flow_service_open(&c, &s, why, sizeof why)) {
        printf("# %s\n", why);
        return NULL;
    }
    return s;
}

static void
put(struct flow_service *s, const char *exporter, const struct flow_record *r, size_t n)
{
    const struct flow_sink *sink = flow_service_sink(s);
    struct flow_source from = {.address = v4(exporter)};

    for (size_t i = 0; i < n; i += 256) {
        sink->records(sink->context, &from, r + i, n - i < 256 ? n - i : 256);
    }
}

static const char *
get_arg(void *aux, const char *name)
{
    const char *const *a = aux;

    for (; *a; a += 2) {
        if (!strcmp(*a, name)) {
            return a[1];
        }
    }
    return NULL;
}

/* The answer to the path with "name", "value" ..., NULL; '*status' if it matters. */
static json_t *
ask(struct flow_service *s, int *status, const char *path, const char *const *args)
{
    struct flow_args a = {get_arg, (void *)args};
    char *text;
    int got = flow_answer(s, path, &a, &text);
    json_t *o = json_loads(text ? text : "", 0, NULL);

    if (status) {
        *status = got;
    } else if (got != 200) {
        printf("# %s: %s\n", path, text);
    }
    free(text);
    return o;
}
#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL, NULL})

/* The i-th of o[list], its field. */
static json_int_t
number(const json_t *o, const char *list, size_t i, const char *field)
{
    return json_integer_value(json_object_get(json_array_get(json_object_get(o, list), i), field));
}

static const char *
text(const json_t *o, const char *list, size_t i, const char *field)
{
    const char *s =
        json_string_value(json_object_get(json_array_get(json_object_get(o, list), i), field));

    return s ? s : "";
}

static size_t
count(const json_t *o, const char *list)
{
    return json_array_size(json_object_get(o, list));
}

/* --- sums -------------------------------------------------------------------------- */

enum { N = 3000 };

/* N flows over the last five hours, of which each knows its numbers. */
static void
fill(struct flow_service *s, int64_t now)
{
    struct flow_record *r = calloc(N, sizeof *r);

    for (int i = 0; i < N; i++) {
        r[i] = (struct flow_record){.end_ms = (uint64_t)(now - i * 6000),
                                    .packets = (uint64_t)i % 7 + 1,
                                    .bytes = 100 * ((uint64_t)i % 7 + 1),
                                    .src = v4(i % 3 ? "10.0.0.1" : "10.0.0.2"),
                                    .dst = v4("10.9.0.1"),
                                    .proto = i % 2 ? 6 : 17,
                                    .sport = (uint16_t)(20000 + i),
                                    .dport = 80,
                                    .eth_type = 0x800,
                                    .sampling = i % 5 ? 1 : 10};
        r[i].start_ms = r[i].end_ms - 100;
    }
    put(s, "192.0.2.1", r, N);
    free(r);
}

static void
expected(int every, int64_t *bytes, int64_t *flows)
{
    *bytes = *flows = 0;
    for (int i = 0; i < N; i++) {
        if (!every || (i % 3 == 0) == (every == 2)) {
            *bytes += 100 * (i % 7 + 1) * (i % 5 ? 1 : 10);
            *flows += 1;
        }
    }
}

static void
test_refusals(struct flow_service *s)
{
    int status;

    CASE("questions that make no sense are refused");
    json_decref(ask(s, &status, "/v1/top", ARGS("by", "nonsense\" FROM name; --")));
    CHECK(status == 400);
    json_decref(ask(s, &status, "/v1/flows", ARGS("cursor", "1-2; DROP TABLE name")));
    CHECK(status == 400);
    json_decref(ask(s, &status, "/v1/flows", ARGS("filter", "vif \"' OR 1=1 --\"")));
    CHECK(status == 200);
    json_t *o = ask(s, &status, "/v1/top", ARGS("filter", "src 10.0.0.1 or network nowhere"));
    CHECK(status == 200 && count(o, "unknown") == 1 && number(o, "unknown", 0, "column") == 24);
    CHECK(!strcmp(text(o, "unknown", 0, "name"), "nowhere"));
    json_decref(o);
    json_decref(ask(s, &status, "/v1/flows", ARGS("last", "0s")));
    CHECK(status == 400);
    json_decref(ask(s, &status, "/v1/series", ARGS("last", "7d", "step", "1")));
    CHECK(status == 400);
    json_decref(ask(s, &status, "/v1/nothing", ARGS("last", "1h")));
    CHECK(status == 404);
    o = ask(s, &status, "/v1/top", ARGS("by", "\xff\xfe"));
    CHECK(status == 400 && json_object_get(o, "message"));
    json_decref(o);
}

static void
test_sums(void)
{
    struct flow_service *s = service("sums", 0);
    int64_t now = flow_now_ms() - 10, bytes, flows, listed = 0;
    char cursor[60] = "";
    json_t *o;

    CASE("sums of raw rows and rollups are those of what was put");
    fill(s, now);
    CHECK(flow_service_flush(s, 20000) == 0);
    expected(2, &bytes, &flows);
    /* by sport: of raw rows; by src: of the 5-minute rollup, as it is more than a day */
    o = ask(s, NULL, "/v1/top",
            ARGS("last", "6h", "by", "sport", "limit", "1", "filter", "src 10.0.0.2", "metric",
                 "bytes"));
    CHECK(json_integer_value(json_object_get(o, "step")) == 0);
    CHECK(number(o, "top", 0, "bytes") == 7000);
    json_decref(o);
    for (int i = 0; i < 3; i++) {
        static const char *const spans[] = {"6h", "30h", "20d"};
        static const int steps[] = {60, 300, 3600};
        o = ask(s, NULL, "/v1/top", ARGS("last", spans[i], "by", "src"));
        CHECK(json_integer_value(json_object_get(o, "step")) == steps[i]);
        CHECK(count(o, "top") == 2 && !strcmp(text(o, "top", 1, "src"), "10.0.0.2"));
        CHECK(number(o, "top", 1, "bytes") == bytes && number(o, "top", 1, "flows") == flows);
        json_decref(o);
    }
    expected(0, &bytes, &flows);
    o = ask(s, NULL, "/v1/series", ARGS("last", "6h", "step", "300", "by", "proto"));
    CHECK(count(o, "series") == 2);
    CHECK(number(o, "series", 0, "bytes") + number(o, "series", 1, "bytes") == bytes);
    json_decref(o);

    CASE("pages of a list hold each row once, newest first");
    do {
        char next[60];
        o = ask(s, NULL, "/v1/flows",
                ARGS("last", "6h", "limit", "700", "filter", "proto tcp", "cursor", cursor));
        for (size_t i = 1; i < count(o, "flows"); i++) {
            CHECK(number(o, "flows", i - 1, "time") > number(o, "flows", i, "time"));
            CHECK(number(o, "flows", i, "sport") % 2);
        }
        listed += (int64_t)count(o, "flows");
        const char *n = json_string_value(json_object_get(o, "next"));
        snprintf(next, sizeof next, "%s", n ? n : "");
        strcpy(cursor, next);
        json_decref(o);
    } while (*cursor);
    CHECK(listed == N / 2);

    test_refusals(s);
    flow_service_close(s);
}
/* --- bad clocks, retention ------------------------------------------------------------- */

static void
test_times(void)
{
    struct flow_service *s = service("times", 0);
    struct flow_record r[3] = {{.end_ms = UINT64_MAX, .bytes = UINT64_MAX, .packets = UINT64_MAX},
                               {.end_ms = 0, .bytes = UINT64_MAX, .packets = 1},
                               {.end_ms = 1000, .bytes = UINT64_MAX, .sampling = UINT32_MAX}};
    json_t *o;

    CASE("times and counters that cannot be do no harm");
    put(s, "192.0.2.1", r, 3);
    CHECK(flow_service_flush(s, 20000) == 0);
    o = ask(s, NULL, "/v1/top", ARGS("last", "1h", "by", "src"));
    CHECK(number(o, "top", 0, "flows") == 3);
    json_decref(o);
    o = ask(s, NULL, "/v1/top", ARGS("last", "20d", "by", "src"));
    CHECK(number(o, "top", 0, "flows") == 3);
    json_decref(o);
    for (int i = 0; i < 2; i++) { /* several sums of a label, each as large as can be */
        static const char *const paths[] = {"/v1/matrix", "/v1/top"};
        static const char *const lists[] = {"matrix", "top"};
        o = ask(s, NULL, paths[i], ARGS("last", "1h", "of", "vm", "by", "vm"));
        CHECK(number(o, lists[i], 0, "bytes") == INT64_MAX);
        json_decref(o);
    }
    o = ask(s, NULL, "/v1/series", ARGS("last", "1h", "step", "3600"));
    CHECK(number(o, "series", 0, "bytes") == INT64_MAX);
    json_decref(o);
    o = ask(s, NULL, "/v1/status", ARGS("last", "1h"));
    CHECK(json_integer_value(json_object_get(json_object_get(o, "records"), "wrong_time")) == 3);
    json_decref(o);
    flow_service_close(s);
}

static void
add_flows(void *flows, const struct store_sum *sum)
{
    *(int64_t *)flows += sum->flows;
}

/* What a rollup of that time's kind has. */
static int64_t
rollup_flows(struct store *store, int64_t now, int64_t hours, unsigned step_s)
{
    struct flow_filter_error e;
    struct store_query q = {.from_ms = now - hours * 3600000,
                            .to_ms = now + 3600000,
                            .filter = flow_filter_parse("", &e),
                            .limit = 10000,
                            .timeout_ms = 20000,
                            .group = {flow_column_find("src")},
                            .n_group = 1};
    struct store_source source;
    int64_t flows = 0;
    char why[200];
    int error = store->ops->sum(store, &q, &source, add_flows, &flows, why, sizeof why);

    flow_filter_free((struct flow_filter *)q.filter);
    return error || source.step_s != step_s ? -1 : flows;
}

static void
test_roll(void)
{
    struct store_options o = {.raw_hours = 48, .keep_hours = {48, 48, 48}};
    struct flow_row *rows = calloc(600, sizeof *rows);
    int64_t hour = 3600000, now = flow_now_ms() / hour * hour;
    struct store *store, *second;
    char path[200], why[200];
    bool more = true;
    int steps = 0;

    CASE("rollups are right at each step of making them");
    snprintf(path, sizeof path, "%s/roll", dir);
    o.path = path;
    CHECK(store_sqlite_open(&o, &store, why, sizeof why) == 0);
    for (int i = 0; i < 600; i++) {
        rows[i].time_ms = (uint64_t)(now - i % 3 * 10 * hour);
        rows[i].r.src.s6_addr32[0] = (uint32_t)i % 50;
    }
    CHECK(store->ops->put(store, rows, 400, why, sizeof why) == 0);
    CHECK(store->ops->roll(store, 1000, &more, why, sizeof why) == 0 && !more);
    CHECK(store->ops->put(store, rows + 400, 200, why, sizeof why) == 0);
    for (more = true; more && steps < 20; steps++) {
        CHECK(rollup_flows(store, now, 15, 60) == 400);
        CHECK(rollup_flows(store, now, 30, 300) == 600);
        CHECK(rollup_flows(store, now, 24 * 20, 3600) == 600);
        CHECK(store->ops->roll(store, 40, &more, why, sizeof why) == 0);
    }
    CHECK(store_sqlite_open(&o, &second, why, sizeof why) == EBUSY);
    CHECK(steps == 4 && rollup_flows(store, now, 24 * 20, 3600) == 600);
    store->ops->close(store);
    free(rows);
}

/* Each batch is a full one, so that the writer never has nothing to do. */
static void
test_busy(void)
{
    static struct flow_record r[FLOW_BATCH];
    struct flow_service *s = service("busy", 0);
    int64_t end = flow_now_ms() + 60000, tables = 0;

    CASE("rollups are made under load, too");
    for (int i = 0; i < FLOW_BATCH; i++) {
        r[i].end_ms = (uint64_t)flow_now_ms();
    }
    while (tables < 4 && flow_now_ms() < end) {
        json_t *o;

        put(s, "192.0.2.1", r, FLOW_BATCH);
        CHECK(flow_service_flush(s, 20000) == 0);
        o = ask(s, NULL, "/v1/status", ARGS("last", "1h"));
        tables = json_integer_value(json_object_get(json_object_get(o, "store"), "partitions"));
        json_decref(o);
    }
    CHECK(tables >= 4);
    flow_service_close(s);
}

static void
test_retention(void)
{
    struct store_options o = {.path = "", .raw_hours = 48, .keep_hours = {48, 48, 48}};
    struct flow_row *rows = calloc(4000, sizeof *rows);
    struct store_status st;
    struct store *store;
    char path[200], why[200];
    int64_t hour = 3600000, now = flow_now_ms() / hour * hour;
    bool more;

    CASE("retention by age and by size");
    snprintf(path, sizeof path, "%s/retention", dir);
    o.path = path;
    CHECK(store_sqlite_open(&o, &store, why, sizeof why) == 0);
    for (int i = 0; i < 4000; i++) {
        rows[i].time_ms = (uint64_t)(now - i % 40 * hour);
        rows[i].r.src.s6_addr32[0] = (uint32_t)i;
    }
    CHECK(store->ops->put(store, rows, 4000, why, sizeof why) == 0);
    do {
        CHECK(store->ops->roll(store, 1000, &more, why, sizeof why) == 0);
    } while (more);
    store->ops->status(store, &st);
    unsigned before = st.partitions;
    uint64_t bytes = st.bytes;
    CHECK(st.oldest_ms == now - 39 * hour && before > 40);
    CHECK(store->ops->expire(store, now + 20 * hour, why, sizeof why) == 0);
    store->ops->status(store, &st);
    CHECK(st.oldest_ms == now - 28 * hour && st.partitions < before && st.bytes < bytes);
    store->ops->close(store);
    o.max_bytes = st.bytes * 3 / 4;
    CHECK(store_sqlite_open(&o, &store, why, sizeof why) == 0);
    CHECK(store->ops->expire(store, now, why, sizeof why) == 0);
    bytes = st.bytes;
    store->ops->status(store, &st);
    CHECK(st.bytes <= o.max_bytes && st.bytes > o.max_bytes / 2 && st.oldest_ms <= now);
    store->ops->close(store);
    free(rows);

    CASE("a file of something else is not touched");
    FILE *f = fopen(path, "w");
    fprintf(f, "something else entirely, long enough to be looked at: %0600d\n", 0);
    fclose(f);
    CHECK(store_sqlite_open(&o, &store, why, sizeof why) != 0);
}

static void
test_damage(void)
{
    struct flow_service_config c = {.store = {.raw_hours = 48, .keep_hours = {48, 48, 48}}};
    struct flow_service *s = service("damaged", 0);
    char path[200], why[300] = "", junk[8192];
    FILE *f;

    CASE("a damaged file is refused by its name");
    flow_service_close(s);
    snprintf(path, sizeof path, "%s/damaged", dir);
    memset(junk, 0x5a, sizeof junk);
    f = fopen(path, "r+");
    for (int i = 1; i < 5; i++) { /* pages behind the first */
        CHECK(!fseek(f, i * (long)sizeof junk, SEEK_SET));
        CHECK(fwrite(junk, sizeof junk, 1, f) == 1);
    }
    fclose(f);
    c.store.path = path;
    CHECK(flow_service_open(&c, &s, why, sizeof why) != 0 && strstr(why, path));
}

/* --- names ------------------------------------------------------------------------------- */

static json_t *
pool(const char *host, const char *red_vm, int red_key)
{
    char json[3000];

    snprintf(
        json, sizeof json,
        "{\"hosts\": [{\"name\": \"h1\", \"key\": 1, \"tunnel_ip\": \"192.0.2.1\"},"
        "            {\"name\": \"h2\", \"key\": 2, \"ovsdb\": \"ssl:192.0.2.2:6640\"}],"
        "\"networks\": [{\"name\": \"red-net\", \"key\": 10, \"type\": \"vlan\", \"tag\": 10,"
        "               \"tenant\": \"red\"},"
        "              {\"name\": \"blue-net\", \"key\": 11, \"type\": \"vlan\", \"tag\": 11,"
        "               \"tenant\": \"blue\"}],"
        "\"vms\": [{\"name\": \"%s\", \"key\": 20, \"tenant\": \"red\"},"
        "         {\"name\": \"blue-vm\", \"key\": 21, \"tenant\": \"blue\"}],"
        "\"vifs\": [{\"name\": \"%s-0\", \"key\": %d, \"vm\": \"%s\", \"network\": \"red-net\","
        "           \"mac\": \"02:00:00:00:00:01\", \"addresses\": [\"10.0.0.1\"],"
        "           \"seen_host\": \"%s\", \"ofport\": 5},"
        "          {\"name\": \"blue-0\", \"key\": 31, \"vm\": \"blue-vm\","
        "           \"network\": \"blue-net\", \"mac\": \"02:00:00:00:00:02\","
        "           \"ipv4_allowed\": [\"10.0.0.1/32\", \"10.0.0.0/24\"],"
        "           \"seen_host\": \"h2\", \"ofport\": 6}],"
        "\"groups\": [{\"name\": \"web\", \"vms\": [\"blue-vm\"]},"
        "            {\"name\": \"all\", \"groups\": [\"web\"], \"vifs\": [\"%s-0\"]}],"
        "\"policies\": [{\"name\": \"base\", \"author\": \"alice\"}],"
        "\"rules\": [{\"name\": \"no-ssh\", \"policy\": \"base\", \"key\": 40}]}",
        red_vm, red_vm, red_key, red_vm, host, red_vm);
    return json_loads(json, 0, NULL);
}

static struct flow_names *names;
static struct enrich *enrich;

static const char *
name(int64_t id)
{
    struct flow_name n;

    return flow_names_get(names, id, &n) ? n.text : "";
}

static struct flow_row
enriched(struct flow_record r, const char *exporter, int64_t ms)
{
    struct flow_row row = {.r = r, .exporter = v4(exporter), .time_ms = (uint64_t)ms};

    row.r.start_ms = row.r.end_ms = (uint64_t)ms;
    enrich_rows(enrich, &row, 1, ms);
    return row;
}

static void
state(const char *host, const char *vm, int key, int64_t ms)
{
    json_t *p = pool(host, vm, key);

    enrich_update(enrich, p, ms);
    json_decref(p);
}

static void
check_names(void)
{
    struct flow_record by_vlan = {.src = v4("10.0.0.1"), .dst = v4("10.0.0.9"), .vlan = 10};
    struct flow_record by_port = {.in_if = 5, .src = v4("10.0.0.1")};
    struct flow_record alone = {.src = v4("10.0.0.1")};
    struct flow_record by_mac = {.dst_mac = {2, 0, 0, 0, 0, 2}, .vlan = 11};
    struct flow_record by_key = {.in_vif = 30, .rule_in = 40, .rule_out = 999, .network = 10};
    struct flow_row row;

    CASE("names by key, port, VLAN and MAC; never by address alone");
    row = enriched(by_vlan, "198.51.100.1", 5000000);
    CHECK(!strcmp(name(row.src.vif), "old-0") && !strcmp(name(row.src.tenant), "red"));
    CHECK(!strcmp(name(row.src.groups), "all") && row.dst.vif == 0 && row.host == 0);
    by_vlan.vlan = 11;
    row = enriched(by_vlan, "198.51.100.1", 5000000);
    CHECK(!strcmp(name(row.src.vif), "blue-0") && !strcmp(name(row.network), "blue-net"));
    CHECK(!strcmp(name(row.src.groups), "all,web") || !strcmp(name(row.src.groups), "web,all"));
    row = enriched(alone, "192.0.2.1", 5000000);
    CHECK(row.src.vif == 0 && row.network == 0 && !strcmp(name(row.host), "h1"));
    row = enriched(by_port, "192.0.2.1", 5000000);
    CHECK(!strcmp(name(row.src.vif), "old-0") && !strcmp(name(row.network), "red-net"));
    row = enriched(by_port, "192.0.2.2", 5000000);
    CHECK(row.src.vif == 0);
    row = enriched(by_mac, "192.0.2.2", 5000000);
    CHECK(!strcmp(name(row.dst.vif), "blue-0"));
    row = enriched(by_key, "192.0.2.1", 5000000);
    CHECK(!strcmp(name(row.src.vm), "old") && !strcmp(name(row.rule_in), "base/no-ssh"));
    CHECK(row.rule_out == -999);

    CASE("a late record has the names of its time: migration, address reuse");
    row = enriched(by_port, "192.0.2.1", 6500000); /* the port is nobody's since it left */
    CHECK(row.src.vif == 0);
    row = enriched(by_port, "192.0.2.2", 6500000);
    CHECK(!strcmp(name(row.src.vif), "old-0"));
    by_vlan.vlan = 10;
    row = enriched(by_vlan, "192.0.2.2", 7500000);
    CHECK(!strcmp(name(row.src.vif), "new-0") && !strcmp(name(row.src.vm), "new"));
    row = enriched(by_vlan, "192.0.2.2", 6999999);
    CHECK(!strcmp(name(row.src.vif), "old-0"));
    by_port.in_if = 6;
    row = enriched(by_port, "192.0.2.2", 5000000 - ENRICH_FIRST_MS - 2000); /* heard of late */
    CHECK(!strcmp(name(row.src.vif), "blue-0"));
    row = enriched(by_port, "192.0.2.2", 5000000 - ENRICH_FIRST_MS - 4000);
    CHECK(row.src.vif == 0);
    row = enriched(by_key, "192.0.2.1", 7500000); /* keys are for ever */
    CHECK(!strcmp(name(row.src.vif), "old-0"));

    CASE("what an exporter with a wrong clock says has the names of when it arrived");
    row = (struct flow_row){.r = by_vlan, .exporter = v4("192.0.2.2"), .time_ms = 7500000};
    row.r.start_ms = 1000;
    row.r.end_ms = 2000;
    enrich_rows(enrich, &row, 1, 7500000);
    CHECK(!strcmp(name(row.src.vif), "new-0"));
}

static void
restore(void *aux, const struct store_binding *b)
{
    enrich_restore(aux, b);
}

static void
restore_name(void *aux, const struct flow_name *n)
{
    flow_names_id(aux, n->class, n->text, n->extra);
}

static void
test_names(void)
{
    struct store_options o = {.raw_hours = 1, .keep_hours = {1, 1, 1}};
    static struct store_binding b[200];
    struct flow_name all[100];
    struct store *store;
    char path[200], why[200];
    size_t n;

    names = flow_names_create();
    enrich = enrich_create(names);
    state("h1", "old", 30, 5000000);
    state("h2", "old", 30, 6000000);
    state("h2", "new", 33, 7000000);
    check_names();

    CASE("names outlive a restart");
    snprintf(path, sizeof path, "%s/names", dir);
    o.path = path;
    CHECK(store_sqlite_open(&o, &store, why, sizeof why) == 0);
    for (n = 0; flow_names_get(names, (int64_t)n + 1, &all[n]); n++) {
    }
    CHECK(store->ops->save_names(store, 1, all, n, why, sizeof why) == 0);
    n = enrich_changed(enrich, b, 200);
    CHECK(n > 20 && n < 200 && enrich_changed(enrich, b, 0) == 0);
    CHECK(store->ops->save_bindings(store, b, n, 0, why, sizeof why) == 0);
    enrich_destroy(enrich);
    flow_names_destroy(names);
    names = flow_names_create();
    enrich = enrich_create(names);
    CHECK(store->ops->load_names(store, restore_name, names, why, sizeof why) == 0);
    CHECK(store->ops->load_bindings(store, restore, enrich, why, sizeof why) == 0);
    store->ops->close(store);
    check_names();

    CASE("what another exporter counts is known as such");
    enriched((struct flow_record){.in_vif = 33}, "192.0.2.2", 7500000); /* h2 exports */
    CHECK(enriched((struct flow_record){.src = v4("10.0.0.1"), .vlan = 10}, "192.0.2.1", 7500000)
              .again);
    CHECK(!enriched((struct flow_record){.in_vif = 33}, "192.0.2.2", 7500000).again);
    CHECK(!enriched((struct flow_record){.src = v4("10.0.0.77"), .vlan = 10}, "192.0.2.1", 7500000)
               .again);
    enrich_destroy(enrich);
    flow_names_destroy(names);
}

/* --- faults --------------------------------------------------------------------------------- */

static int64_t
stored(const char *file)
{
    struct flow_service *s = service(file, 0);
    json_t *o;
    int64_t flows;

    if (!s) {
        return -1;
    }
    o = ask(s, NULL, "/v1/top", ARGS("last", "1h", "by", "domain", "limit", "1"));
    flows = number(o, "top", 0, "flows");
    json_decref(o);
    /* The rollups have the same. */
    o = ask(s, NULL, "/v1/top", ARGS("last", "20d", "by", "exporter", "limit", "1"));
    flows = number(o, "top", 0, "flows") == flows ? flows : -2;
    json_decref(o);
    flow_service_close(s);
    return flows;
}

/* Puts batches for ever; writes how many records are committed to the pipe. */
static void
put_until_killed(int fd)
{
    struct flow_service *s = service("killed", 0);
    struct flow_record r[200] = {{0}};
    int64_t n = 0;

    for (;;) {
        for (int i = 0; i < 200; i++) {
            r[i].end_ms = (uint64_t)flow_now_ms();
            r[i].sport = (uint16_t)(n + i);
        }
        put(s, "192.0.2.1", r, 200);
        if (flow_service_flush(s, 20000)) {
            _exit(1);
        }
        n += 200;
        if (write(fd, &n, sizeof n) != sizeof n) {
            _exit(1);
        }
    }
}

static void
test_kill(void)
{
    int64_t total = 0;

    CASE("SIGKILL in the middle of inserts loses nothing committed");
    for (int round = 0; round < 5; round++) {
        int64_t n = 0, last = 0;
        int fds[2];
        CHECK(pipe(fds) == 0);
        pid_t pid = fork();
        if (pid == 0) {
            put_until_killed(fds[1]);
        }
        close(fds[1]);
        for (int i = 0; i < 4 + round && read(fds[0], &n, sizeof n) == sizeof n; i++) {
            last = n;
        }
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        while (read(fds[0], &n, sizeof n) == sizeof n) {
            last = n;
        }
        close(fds[0]);
        int64_t now = stored("killed");
        /* One batch may have been committed without our having heard of it. */
        CHECK(last > 0 && now >= total + last && now <= total + last + 200);
        total = now;
    }
}

static void
fill_disk(const char *file)
{
    char block[65536];
    FILE *f = fopen(file, "w");

    memset(block, 1, sizeof block);
    while (f && fwrite(block, 1, sizeof block, f) == sizeof block && !fflush(f)) {
    }
    if (f) {
        fclose(f);
    }
}

/* In a mount namespace of its own; the exit status says what failed. */
static int
on_full_disk(void)
{
    static struct flow_record r[2000];
    struct flow_service *s;
    char ballast[200];
    int error, step = 0;
    json_t *o;

    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", dir, "tmpfs", 0, "size=6m")) {
        return 77;
    }
    s = service("full", 0);
    for (int i = 0; i < 2000; i++) {
        r[i].end_ms = (uint64_t)flow_now_ms();
        r[i].sport = (uint16_t)i;
        r[i].src.s6_addr32[0] = (uint32_t)i;
    }
    put(s, "192.0.2.1", r, 2000);
    if (flow_service_flush(s, 20000)) {
        return 1;
    }
    snprintf(ballast, sizeof ballast, "%s/ballast", dir);
    fill_disk(ballast);
    do { /* what pages SQLite has are filled first */
        put(s, "192.0.2.1", r, 2000);
        error = flow_service_flush(s, 20000);
    } while (!error && ++step < 50);
    if (error != ENOSPC) {
        printf("# %s after %d\n", strerror(error), step);
        return 2;
    }
    o = ask(s, NULL, "/v1/status", ARGS("last", "1h"));
    if (!*json_string_value(json_object_get(json_object_get(o, "store"), "error"))) {
        return 3;
    }
    json_decref(o);
    /* Who asks is answered meanwhile, with what is there. */
    o = ask(s, NULL, "/v1/top", ARGS("last", "1h", "by", "domain"));
    if (number(o, "top", 0, "flows") != 2000 * (1 + step)) {
        return 4;
    }
    json_decref(o);
    unlink(ballast);
    for (int i = 0; i < 100 && flow_service_flush(s, 20000); i++) {
        usleep(100000);
    }
    if (flow_service_flush(s, 20000)) {
        return 5;
    }
    flow_service_close(s);
    return stored("full") == 2000 * (2 + step) ? 0 : 6;
}

static void
test_full(void)
{
    int status;

    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        status = on_full_disk();
        fflush(stdout);
        _exit(status);
    }
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        CASE(NULL);
        printf("skip a full disk: needs root for a file system of its own\n");
        return;
    }
    CASE("a full disk is refused loudly; what was committed stays, what waits comes after");
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    if (WEXITSTATUS(status)) {
        printf("# step %d\n", WEXITSTATUS(status));
    }
}

int
main(void)
{
    char command[100];

    if (!mkdtemp(dir)) {
        return 1;
    }
    test_kill(); /* forks: before there are threads */
    test_full();
    test_sums();
    test_times();
    test_roll();
    test_busy();
    test_retention();
    test_damage();
    test_names();
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return check_done() | (system(command) != 0);
}
