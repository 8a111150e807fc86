#include "flow_answer_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

char *
flow_answer_error(const char *error, const char *field, const char *message)
{
    json_t *o = json_pack("{s:s, s:s}", "error", error, "message", message);
    char *text;

    if (!o) { /* the message quotes what is no UTF-8 */
        o = json_pack("{s:s, s:s}", "error", error, "message", "is not understood here");
    }

    if (field) {
        json_object_set_new(o, "field", json_string(field));
    }
    text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

bool
flow_refuse(struct asking *a, int status, const char *field, const char *message)
{
    a->status = status;
    *a->text = flow_answer_error(status == 404   ? "not_found"
                                 : status == 503 ? "unavailable"
                                                 : "invalid",
                                 field, message);
    return false;
}

const char *
flow_arg(const struct asking *a, const char *name)
{
    const char *s = a->args->get(a->args->aux, name);

    return s && *s ? s : NULL;
}

/* --- arguments ------------------------------------------------------------------------ */

bool
flow_number_arg(struct asking *a, const char *name, int64_t low, int64_t high, int64_t *v)
{
    const char *s = flow_arg(a, name);
    char *end, message[80];
    long long n;

    if (!s) {
        return true;
    }
    errno = 0;
    n = strtoll(s, &end, 10);
    if (errno || *end || end == s || n < low || n > high) {
        snprintf(message, sizeof message, "must be a number from %lld to %lld", (long long)low,
                 (long long)high);
        return flow_refuse(a, 400, name, message);
    }
    *v = n;
    return true;
}

/* Seconds since 1970, or "2026-11-20T20:00:00Z" and what is left of it from the right. */
static bool
parse_time(const char *s, int64_t *ms)
{
    static const char *const forms[] = {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M",
                                        "%Y-%m-%d"};
    char *end;
    double seconds = strtod(s, &end);

    if (!*end && seconds >= 0 && seconds < 1e10) {
        *ms = (int64_t)(seconds * 1000);
        return true;
    }
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct tm tm = {.tm_mday = 1};
        const char *rest = strptime(s, forms[i], &tm);
        if (rest && !*rest) {
            *ms = (int64_t)timegm(&tm) * 1000;
            return true;
        }
    }
    return false;
}

/* "90s", "10m", "24h", "7d". */
static bool
parse_span(const char *s, int64_t *ms)
{
    char *end;
    unsigned long n = strtoul(s, &end, 10);
    int64_t unit = *end == 's'   ? 1000
                   : *end == 'm' ? 60000
                   : *end == 'h' ? 3600000
                   : *end == 'd' ? 86400000
                                 : 0;

    *ms = (int64_t)n * unit;
    return *s >= '0' && *s <= '9' && unit && !end[1] && n && n <= 100000 && *ms <= 86400000LL * 800;
}

static bool
time_args(struct asking *a)
{
    const char *last = flow_arg(a, "last"), *from = flow_arg(a, "from"), *to = flow_arg(a, "to");
    int64_t span = 3600000;

    a->q.to_ms = flow_now_ms() + 1;
    if (to && !parse_time(to, &a->q.to_ms)) {
        return flow_refuse(a, 400, "to",
                           "must be a time such as 2026-11-20T20:00 (UTC), or seconds since 1970");
    }
    if (last && !parse_span(last, &span)) {
        return flow_refuse(a, 400, "last",
                           "must be a time such as 90s, 10m, 24h or 7d, at most 800d");
    }
    a->q.from_ms = a->q.to_ms - span;
    if (from && !parse_time(from, &a->q.from_ms)) {
        return flow_refuse(a, 400, "from",
                           "must be a time such as 2026-11-20T20:00 (UTC), or seconds since 1970");
    }
    if (a->q.from_ms >= a->q.to_ms || a->q.to_ms - a->q.from_ms > 86400000LL * 800) {
        return flow_refuse(a, 400, "from", "must be before the end, by at most 800 days");
    }
    return true;
}

struct flow_filter *
flow_answer_filter(struct flow_service *s, const struct flow_args *args, int *status, char **text)
{
    const char *filter = args->get(args->aux, "filter");
    struct flow_filter_error error;
    struct flow_filter *f = flow_filter_parse(filter ? filter : "", &error);

    if (f && flow_filter_resolve(f, s->names)) {
        flow_filter_free(f);
        f = NULL;
        snprintf(error.message, sizeof error.message, "out of memory");
    }
    if (!f) {
        json_t *o = json_pack("{s:s, s:s, s:I, s:s}", "error", "invalid", "field", "filter",
                              "column", (json_int_t)error.column, "message", error.message);
        if (!o) { /* a message that is no UTF-8 quotes what was asked */
            o = json_pack("{s:s, s:s, s:I, s:s}", "error", "invalid", "field", "filter", "column",
                          (json_int_t)error.column, "message", "is not understood here");
        }
        *status = 400;
        *text = json_dumps(o, JSON_COMPACT);
        json_decref(o);
    }
    return f;
}

bool
flow_group_arg(struct asking *a, const char *by)
{
    char name[40], message[160];

    while (by && *by) {
        size_t n = strcspn(by, ",");
        snprintf(name, sizeof name, "%.*s", (int)n, by);
        const char *column = !strcmp(name, "port") ? "service" : name;
        unsigned c = flow_column_find(column);
        if (c == FLOW_COLUMN_NONE || a->q.n_group == STORE_GROUPS) {
            snprintf(message, sizeof message,
                     "\"%s\" is nothing to sum by, or too much; see \"weft flow help columns\"",
                     name);
            return flow_refuse(a, 400, "by", message);
        }
        a->q.group[a->q.n_group++] = c;
        by += n + (by[n] == ',');
    }
    return true;
}

static bool
metric_arg(struct asking *a)
{
    const char *m = flow_arg(a, "metric");

    if (!m || !strcmp(m, "bytes")) {
        a->q.order = STORE_BYTES;
    } else if (!strcmp(m, "packets")) {
        a->q.order = STORE_PACKETS;
    } else if (!strcmp(m, "flows")) {
        a->q.order = STORE_FLOWS;
    } else {
        return flow_refuse(a, 400, "metric", "must be bytes, packets or flows");
    }
    return true;
}

static bool
begin(struct asking *a)
{
    int64_t again = 0;

    if (!time_args(a) || !metric_arg(a) || !flow_number_arg(a, "again", 0, 1, &again)) {
        return false;
    }
    a->filter = flow_answer_filter(a->s, a->args, &a->status, a->text);
    a->q.filter = a->filter;
    a->q.again = again != 0;
    a->q.timeout_ms = QUERY_MS;
    return a->filter != NULL;
}

bool
flow_store_failed(struct asking *a, int error, const char *why)
{
    return flow_refuse(a, error == ERANGE ? 400 : 503, NULL, why);
}

/* Names in the filter that nothing has, or ever had: perhaps they are misspelt. */
static void
put_unknown(const struct flow_filter *f, json_t *o)
{
    json_t *list = json_array();
    int last = -1; /* of either end it is several tests */

    for (unsigned i = 0; i < f->n; i++) {
        const struct flow_node *n = &f->nodes[i];

        if (n->op == FLOW_OP_NAME && !n->n_ids && n->at != last) {
            last = n->at;
            json_array_append_new(list,
                                  json_pack("{s:i, s:s}", "column", (int)n->at, "name", n->text));
        }
    }
    if (json_array_size(list)) {
        json_object_set(o, "unknown", list);
    }
    json_decref(list);
}

bool
flow_put_answer(struct asking *a, json_t *o)
{
    if (a->filter) {
        put_unknown(a->filter, o);
    }
    *a->text = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(o);
    a->status = 200;
    return *a->text || flow_refuse(a, 503, NULL, "out of memory");
}

/* --- rows -------------------------------------------------------------------------------- */

static void
put_author(json_t *o, unsigned column, const struct flow_value *v, const struct flow_names *names)
{
    struct flow_name name;
    char key[60];

    if (flow_columns[column].class == NAME_RULE && flow_names_get(names, v->number, &name) &&
        *name.extra) {
        snprintf(key, sizeof key, "%s_author", flow_columns[column].name);
        json_object_set_new(o, key, json_string(name.extra));
    }
}

void
flow_put_value(json_t *o, unsigned column, const struct flow_value *v,
               const struct flow_names *names)
{
    const struct flow_column *c = &flow_columns[column];
    char text[FLOW_TEXT_MAX];
    bool words = c->kind != FLOW_COL_UINT || !strcmp(c->name, "proto") || !strcmp(c->name, "drop");

    if (!words) {
        json_object_set_new(o, c->name, json_integer(v->number));
        return;
    }
    flow_value_text(column, v, names, text);
    json_object_set_new(o, c->name, json_string(strcmp(c->name, "drop") || v->number ? text : ""));
    put_author(o, column, v, names);
}

json_t *
flow_answer_row(const struct flow_row *row, const struct flow_names *names)
{
    json_t *o = json_object();

    json_object_set_new(o, "time", json_integer((json_int_t)row->time_ms));
    for (unsigned c = 0; c < n_flow_columns; c++) {
        static const struct flow_value none;
        struct flow_value v;
        flow_row_get(row, c, &v);
        if (memcmp(&v, &none, sizeof v)) {
            flow_put_value(o, c, &v, names);
        }
    }
    if (row->dropped && !row->r.drop) {
        json_object_set_new(o, "drop", json_string("unknown"));
    }
    return o;
}

static void
take_row(void *asking, const struct flow_row *row, int64_t row_id)
{
    struct asking *a = asking;

    json_array_append_new(a->out, flow_answer_row(row, a->s->names));
    a->cursor_time = (int64_t)row->time_ms;
    a->cursor_row = row_id;
}

static bool
answer_flows(struct asking *a)
{
    const char *cursor = flow_arg(a, "cursor");
    int64_t limit = 100;
    char why[200], next[60];
    long long t, row;
    int error, n = 0;

    if (!flow_number_arg(a, "limit", 1, ROWS_MAX, &limit)) {
        return false;
    }
    if (cursor) {
        if (sscanf(cursor, "%lld-%lld%n", &t, &row, &n) != 2 || cursor[n] || t <= 0) {
            return flow_refuse(a, 400, "cursor", "must be what an answer called \"next\"");
        }
        a->q.cursor_time = t;
        a->q.cursor_row = row;
    }
    a->q.again = true;
    a->q.limit = (unsigned)limit;
    a->out = json_array();
    error = a->s->store->ops->list(a->s->store, &a->q, take_row, a, why, sizeof why);
    if (error) {
        return flow_store_failed(a, error, why);
    }
    json_t *o = json_pack("{s:O}", "flows", a->out);
    if (json_array_size(a->out) == a->q.limit) {
        snprintf(next, sizeof next, "%lld-%lld", (long long)a->cursor_time,
                 (long long)a->cursor_row);
        json_object_set_new(o, "next", json_string(next));
    }
    return flow_put_answer(a, o);
}

/* --- status ------------------------------------------------------------------------------------
 */

static bool
answer_status(struct asking *a)
{
    struct flow_service *s = a->s;
    char *collector = s->config.status ? s->config.status(s->config.aux) : NULL;
    struct store_status st;
    const char *upkeep = "";
    json_t *o, *c;

    s->store->ops->status(s->store, &st);
    pthread_mutex_lock(&s->mutex);
    for (int i = 0; i < N_UPKEEP && !*upkeep; i++) {
        upkeep = s->upkeep[i];
    }
    o = json_pack("{s:{s:I, s:I, s:I, s:I, s:s, s:s}, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}}",
                  "store", "bytes", (json_int_t)st.bytes, "max_bytes", (json_int_t)st.max_bytes,
                  "oldest", (json_int_t)st.oldest_ms, "partitions", (json_int_t)st.partitions,
                  "error", s->why, "upkeep", upkeep, "records", "taken", (json_int_t)s->taken,
                  "committed", (json_int_t)s->committed, "waiting", (json_int_t)s->n, "dropped",
                  (json_int_t)s->dropped_full, "wrong_time", (json_int_t)s->clock, "refusals",
                  (json_int_t)s->refusals, "damaged", (json_int_t)s->damaged);
    pthread_mutex_unlock(&s->mutex);
    json_object_set_new(o, "names",
                        json_pack("{s:I, s:I}", "names", (json_int_t)flow_names_count(s->names),
                                  "bindings", (json_int_t)enrich_count(s->enrich)));
    if (s->poll) {
        json_object_set_new(o, "controller", enrich_poll_status(s->poll));
    }
    c = collector ? json_loads(collector, 0, NULL) : NULL;
    if (c) {
        json_object_set_new(o, "collector", c);
    }
    free(collector);
    return flow_put_answer(a, o);
}

/* ------------------------------------------------------------------------------------------------
 */

static const struct {
    const char *path;
    bool (*answer)(struct asking *);
} answers[] = {
    {"/v1/flows", answer_flows},        {"/v1/top", flow_answer_top},
    {"/v1/series", flow_answer_series}, {"/v1/matrix", flow_answer_matrix},
    {"/v1/drops", flow_answer_drops},   {"/v1/status", answer_status},
};

int
flow_answer(struct flow_service *s, const char *path, const struct flow_args *args, char **text)
{
    struct asking a = {.s = s, .args = args, .status = 500, .text = text};
    size_t i = 0;

    *text = NULL;
    while (i < sizeof answers / sizeof answers[0] && strcmp(answers[i].path, path) != 0) {
        i++;
    }
    if (i == sizeof answers / sizeof answers[0]) {
        flow_refuse(&a, 404, NULL, "there is no such path");
    } else if (atomic_fetch_add(&s->querying, 1) >= QUERIES_MAX) {
        atomic_fetch_sub(&s->querying, 1);
        flow_refuse(&a, 503, NULL, "too many questions at once; try again");
    } else {
        if (answers[i].answer == answer_status || begin(&a)) {
            answers[i].answer(&a);
        }
        atomic_fetch_sub(&s->querying, 1);
    }
    flow_filter_free(a.filter);
    json_decref(a.out);
    return a.status;
}
