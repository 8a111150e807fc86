/* Sums: top, drops, matrix, series. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flow_answer_priv.h"

/* Dimensions that are of either end: added up for both. */
static const struct {
    const char *name, *source, *destination;
} eithers[] = {
    {"address", "src", "dst"},
    {"vif", "src_vif", "dst_vif"},
    {"vm", "src_vm", "dst_vm"},
    {"tenant", "src_tenant", "dst_tenant"},
    {"rule", "rule_out", "rule_in"},
    {"group", "src_groups", "dst_groups"},
    {"network", "src_network", "dst_network"},
};

static int
find_either(const char *name)
{
    for (size_t i = 0; i < sizeof eithers / sizeof eithers[0]; i++) {
        if (!strcmp(eithers[i].name, name)) {
            return (int)i;
        }
    }
    return -1;
}

static void
group_by_either(struct asking *a, int either)
{
    a->q.group[0] = flow_column_find(eithers[either].source);
    a->q.group[1] = flow_column_find(eithers[either].destination);
    a->q.n_group = 2;
}

/* --- sums ---------------------------------------------------------------------------------- */

static void
put_sums(json_t *o, const struct store_sum *sum)
{
    json_object_set_new(o, "bytes", json_integer(sum->bytes));
    json_object_set_new(o, "packets", json_integer(sum->packets));
    json_object_set_new(o, "flows", json_integer(sum->flows));
}

static void
take_sum(void *asking, const struct store_sum *sum)
{
    struct asking *a = asking;
    json_t *o = json_object();

    for (unsigned g = 0; g < a->q.n_group; g++) {
        flow_put_value(o, a->q.group[g], &sum->value[g], a->s->names);
    }
    put_sums(o, sum);
    json_array_append_new(a->out, o);
}

static json_t *
head(const struct store_source *source)
{
    return json_pack("{s:I, s:I, s:I}", "from", (json_int_t)source->from_ms, "to",
                     (json_int_t)source->to_ms, "step", (json_int_t)source->step_s);
}

static bool
answer_sums(struct asking *a, const char *key)
{
    struct store_source source;
    char why[200];
    int error;

    a->out = json_array();
    error = a->s->store->ops->sum(a->s->store, &a->q, &source, take_sum, a, why, sizeof why);
    if (error) {
        return flow_store_failed(a, error, why);
    }
    json_t *o = head(&source);
    json_object_set(o, key, a->out);
    return flow_put_answer(a, o);
}

/* Adds to the counters of a->out[key]. */
static void
add_to(json_t *map, const char *key, const struct store_sum *sum)
{
    json_t *o = json_object_get(map, key);

    if (!o) {
        o = json_pack("{s:i, s:i, s:i}", "bytes", 0, "packets", 0, "flows", 0);
        json_object_set_new(map, key, o);
    }
    const struct {
        const char *name;
        int64_t v;
    } add[] = {{"bytes", sum->bytes}, {"packets", sum->packets}, {"flows", sum->flows}};
    for (int i = 0; i < 3; i++) {
        json_t *n = json_object_get(o, add[i].name);
        json_int_t total;

        /* Exporters may say any numbers. */
        if (__builtin_add_overflow(json_integer_value(n), (json_int_t)add[i].v, &total)) {
            total = INT64_MAX;
        }
        json_integer_set(n, total);
    }
}

/* Calls 'each' for the value, or for each member of a set of groups. */
static void
each_label(struct asking *a, unsigned column, const struct flow_value *v,
           void (*each)(void *aux, const char *label), void *aux)
{
    char text[FLOW_TEXT_MAX];
    char *save = NULL;

    flow_value_text(column, v, a->s->names, text);
    if (flow_columns[column].class != NAME_GROUPS || !*text) {
        each(aux, text);
        return;
    }
    for (char *p = strtok_r(text, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        each(aux, p);
    }
}

struct pairing {
    struct asking *a;
    const struct store_sum *sum;
    char source[FLOW_TEXT_MAX];
    json_t *seen; /* labels of this pair that are counted */
};

static void
count_label(void *pairing, const char *label)
{
    struct pairing *p = pairing;

    if (!json_object_get(p->seen, label)) {
        json_object_set_new(p->seen, label, json_true());
        add_to(p->a->out, label, p->sum);
    }
}

/* Of either end: each label once. */
static void
take_either(void *asking, const struct store_sum *sum)
{
    struct asking *a = asking;
    struct pairing p = {.a = a, .sum = sum, .seen = json_object()};

    a->n++;
    each_label(a, a->q.group[0], &sum->value[0], count_label, &p);
    each_label(a, a->q.group[1], &sum->value[1], count_label, &p);
    json_decref(p.seen);
}

static const char *const metric_names[] = {"bytes", "packets", "flows"};
static _Thread_local const char *sort_metric;

static int
larger_first(const void *a_, const void *b_)
{
    json_t *const *a = a_, *const *b = b_;
    json_int_t x = json_integer_value(json_object_get(*a, sort_metric));
    json_int_t y = json_integer_value(json_object_get(*b, sort_metric));

    return x < y ? 1 : x > y ? -1 : 0;
}

/* The first 'limit' of the array's objects. */
static json_t *
sorted(struct asking *a, json_t *array, size_t limit)
{
    size_t n = json_array_size(array);
    json_t **v = calloc(n + 1, sizeof *v), *out = json_array();

    for (size_t i = 0; v && i < n; i++) {
        v[i] = json_array_get(array, i);
    }
    if (v) {
        sort_metric = metric_names[a->q.order];
        qsort(v, n, sizeof *v, larger_first);
        for (size_t i = 0; i < n && i < limit; i++) {
            json_array_append(out, v[i]);
        }
    }
    free(v);
    json_decref(array);
    return out;
}

static bool
answer_either(struct asking *a, int either, size_t limit)
{
    struct store_source source;
    json_t *list, *sums, *o;
    const char *label;
    char why[200];
    int error;

    group_by_either(a, either);
    a->q.limit = PAIRS_MAX;
    a->out = json_object();
    error = a->s->store->ops->sum(a->s->store, &a->q, &source, take_either, a, why, sizeof why);
    if (error) {
        return flow_store_failed(a, error, why);
    }
    list = json_array();
    json_object_foreach(a->out, label, sums)
    {
        json_t *row = json_pack("{s:s}", eithers[either].name, label);
        json_object_update(row, sums);
        json_array_append_new(list, row);
    }
    o = head(&source);
    json_object_set_new(o, "top", sorted(a, list, limit));
    if (a->n == PAIRS_MAX) {
        json_object_set_new(o, "incomplete", json_true());
    }
    return flow_put_answer(a, o);
}

bool
flow_answer_top(struct asking *a)
{
    const char *by = flow_arg(a, "by");
    int64_t limit = 20;
    int either;

    if (!flow_number_arg(a, "limit", 1, TOP_MAX, &limit)) {
        return false;
    }
    either = find_either(by ? by : "address");
    if (either >= 0) {
        return answer_either(a, either, (size_t)limit);
    }
    a->q.limit = (unsigned)limit;
    return flow_group_arg(a, by) && answer_sums(a, "top");
}

bool
flow_answer_drops(struct asking *a)
{
    int64_t limit = 50;

    if (!flow_number_arg(a, "limit", 1, TOP_MAX, &limit)) {
        return false;
    }
    if (!flow_filter_require(a->filter, "dropped", 1)) {
        return flow_refuse(a, 400, "filter", "has too many tests");
    }
    a->q.again = true; /* a packet is dropped once */
    a->q.limit = (unsigned)limit;
    return flow_group_arg(a, "drop,rule_out,rule_in") && flow_group_arg(a, flow_arg(a, "by")) &&
           answer_sums(a, "drops");
}

/* --- matrix -------------------------------------------------------------------------------- */

static void
count_pair(void *pairing, const char *label)
{
    struct pairing *p = pairing;
    json_t *row = json_object_get(p->a->out, p->source);

    if (!row) {
        row = json_object();
        json_object_set_new(p->a->out, p->source, row);
    }
    add_to(row, label, p->sum);
}

static void
count_source(void *pairing, const char *label)
{
    struct pairing *p = pairing;

    snprintf(p->source, sizeof p->source, "%s", label);
    each_label(p->a, p->a->q.group[1], &p->sum->value[1], count_pair, p);
}

static void
take_pair(void *asking, const struct store_sum *sum)
{
    struct pairing p = {.a = asking, .sum = sum};

    p.a->n++;
    each_label(p.a, p.a->q.group[0], &sum->value[0], count_source, &p);
}

bool
flow_answer_matrix(struct asking *a)
{
    const char *of = flow_arg(a, "of"), *from, *to;
    int either = find_either(of ? of : "tenant");
    struct store_source source;
    json_t *list, *row, *sums, *o;
    char why[200];
    int error;

    if (either < 0) {
        return flow_refuse(a, 400, "of", "must be tenant, network, group, vm, vif or address");
    }
    group_by_either(a, either);
    a->q.limit = PAIRS_MAX;
    a->out = json_object();
    error = a->s->store->ops->sum(a->s->store, &a->q, &source, take_pair, a, why, sizeof why);
    if (error) {
        return flow_store_failed(a, error, why);
    }
    list = json_array();
    json_object_foreach(a->out, from, row)
    {
        json_object_foreach(row, to, sums)
        {
            json_t *cell = json_pack("{s:s, s:s}", "from", from, "to", to);
            json_object_update(cell, sums);
            json_array_append_new(list, cell);
        }
    }
    o = head(&source);
    json_object_set_new(o, "of", json_string(eithers[either].name));
    json_object_set_new(o, "matrix", sorted(a, list, PAIRS_MAX));
    if (a->n == PAIRS_MAX) {
        json_object_set_new(o, "incomplete", json_true());
    }
    return flow_put_answer(a, o);
}

/* --- series ---------------------------------------------------------------------------------- */

/* a->out: label -> {"total", "points": {time: sums}}. */
static void
take_point(void *asking, const struct store_sum *sum)
{
    struct asking *a = asking;
    char label[FLOW_TEXT_MAX] = "", key[24];
    const int64_t of[] = {sum->bytes, sum->packets, sum->flows};
    json_t *line;

    a->n++;
    if (a->q.n_group) {
        flow_value_text(a->q.group[0], &sum->value[0], a->s->names, label);
    }
    line = json_object_get(a->out, label);
    if (!line) {
        line = json_pack("{s:s, s:i, s:i, s:i, s:{}}", "name", label, "bytes", 0, "packets", 0,
                         "flows", 0, "points");
        json_object_set_new(a->out, label, line);
    }
    snprintf(key, sizeof key, "%lld", (long long)sum->time_ms);
    json_object_set_new(json_object_get(line, "points"), key, json_integer(of[a->q.order]));
    json_t *wrap = json_pack("{s:O}", "line", line);
    add_to(wrap, "line", sum);
    json_decref(wrap);
}

static int64_t
choose_step(int64_t span_ms)
{
    static const int64_t steps[] = {1, 5, 10, 60, 300, 900, 3600, 3 * 3600, 86400};

    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        if (span_ms / 1000 / steps[i] <= 120) {
            return steps[i];
        }
    }
    return 7 * 86400;
}

/* A line's points as an array from 'from', a number for each step. */
static void
straighten(json_t *line, int64_t from, int64_t step_ms, int64_t steps)
{
    json_t *points = json_object_get(line, "points"), *values = json_array(), *v;
    char key[24];

    for (int64_t i = 0; i < steps; i++) {
        snprintf(key, sizeof key, "%lld", (long long)(from + i * step_ms));
        v = json_object_get(points, key);
        json_array_append_new(values, json_integer(json_integer_value(v)));
    }
    json_object_set_new(line, "points", values);
}

bool
flow_answer_series(struct asking *a)
{
    int64_t step = choose_step(a->q.to_ms - a->q.from_ms), steps, from;
    struct store_source source;
    json_t *lines, *line, *o;
    const char *label;
    char why[200];
    size_t i;
    int error;

    const char *by = flow_arg(a, "by");
    int either = by ? find_either(by) : -1;
    if (!flow_number_arg(a, "step", 1, 30 * 86400, &step) ||
        !flow_group_arg(a, either < 0 ? by : eithers[either].source)) { /* who sent it */
        return false;
    }
    from = a->q.from_ms / (step * 1000) * step * 1000;
    steps = (a->q.to_ms - from + step * 1000 - 1) / (step * 1000);
    if (steps > STEPS_MAX || a->q.n_group > 1) {
        return a->q.n_group > 1 ? flow_refuse(a, 400, "by", "takes one column here")
                                : flow_refuse(a, 400, "step", "makes too many steps: at most 1500");
    }
    a->q.step_s = (unsigned)step;
    a->q.limit = PAIRS_MAX;
    a->out = json_object();
    error = a->s->store->ops->sum(a->s->store, &a->q, &source, take_point, a, why, sizeof why);
    if (error) {
        return flow_store_failed(a, error, why);
    }
    lines = json_array();
    json_object_foreach(a->out, label, line)
    {
        json_array_append(lines, line);
    }
    lines = sorted(a, lines, LINES_MAX);
    json_array_foreach(lines, i, line)
    {
        straighten(line, from, step * 1000, steps);
    }
    o = json_pack("{s:I, s:I, s:s, s:o}", "from", (json_int_t)from, "step", (json_int_t)step,
                  "metric", metric_names[a->q.order], "series", lines);
    if (a->n == PAIRS_MAX) {
        json_object_set_new(o, "incomplete", json_true());
    }
    return flow_put_answer(a, o);
}
