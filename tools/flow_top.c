/* "weft flow top", "why-dropped" and "matrix". */
#include <stdlib.h>
#include <string.h>

#include "flow_cmd.h"
#include "pool_cmd.h"

#define N(array) (sizeof(array) / sizeof(array)[0])

enum { MATRIX_LABELS = 12 };

/* Prints as asked for.  Takes the answer. */
static int
finish(struct flow_cli *c, json_t *answer, const char *list, const struct flow_field *fields,
       size_t n)
{
    const char *keys[FLOW_FIELDS_MAX];

    if (answer && c->json) {
        pool_print_json(answer);
    } else if (answer && c->csv) {
        for (size_t i = 0; i < n; i++) {
            keys[i] = fields[i].key;
        }
        flow_print_csv_rows(keys, n, json_object_get(answer, list));
    } else if (answer && !json_array_size(json_object_get(answer, list))) {
        flow_cli_none(c);
    } else if (answer) {
        flow_print_table(fields, n, json_object_get(answer, list));
        if (json_is_true(json_object_get(answer, "incomplete"))) {
            fprintf(stderr, "too many pairs: the smallest ones are left out\n");
        }
    }
    json_decref(answer);
    flow_cli_close(c);
    return answer ? CLI_OK : CLI_FAILED;
}

/* A bar of the share, and "-" for who has no name. */
static void
add_share(json_t *rows, const char *metric, const char *const *keys, size_t n_keys)
{
    double largest = 0;
    json_t *row;
    size_t i;

    json_array_foreach(rows, i, row)
    {
        double v = json_number_value(json_object_get(row, metric));
        largest = v > largest ? v : largest;
    }
    json_array_foreach(rows, i, row)
    {
        char bar[24] = "";
        double v = json_number_value(json_object_get(row, metric));
        memset(bar, '#', largest > 0 ? (size_t)(v / largest * 20 + 0.5) : 0);
        json_object_set_new(row, "share", json_string(bar));
        for (size_t k = 0; k < n_keys; k++) {
            const char *s = json_string_value(json_object_get(row, keys[k]));
            if (s && !*s) {
                json_object_set_new(row, keys[k], json_string("-"));
            }
        }
    }
}

int
flow_top_main(int argc, char **argv)
{
    static char by_copy[200];
    const char *by = "address", *limit = NULL, *metric = NULL, *keys[8];
    bool again = false;
    const struct cli_opt more[] = {
        {"by", CLI_STRING, &by, "WHAT",
         "address, vif, vm, tenant, rule, port, src,dst ... (\"weft flow help columns\")"},
        {"limit", CLI_STRING, &limit, "N", "rows (20)"},
        {"metric", CLI_STRING, &metric, "WHAT", "bytes, packets or flows decide (bytes)"},
        {"again", CLI_FLAG, &again, NULL, "count what two switches saw twice"},
    };
    struct flow_field fields[FLOW_FIELDS_MAX];
    struct flow_cli c;
    size_t n = 0, n_keys;
    char *save = NULL;
    int code;

    if (!flow_cli_open(&c, "top", "Who sends most; each packet counts once, where it was sent.",
                       "  weft flow top --last 10m\n"
                       "  weft flow top --by vm --metric packets tenant red\n"
                       "  weft flow top --by src,dst,port --last 24h network blue\n",
                       more, N(more), argc, argv, &code)) {
        return code;
    }
    c.metric = metric;
    by = *by ? by : "address";
    snprintf(by_copy, sizeof by_copy, "%s", by);
    for (char *p = strtok_r(by_copy, ",", &save); p && n < N(keys);
         p = strtok_r(NULL, ",", &save)) {
        keys[n] = !strcmp(p, "port") ? "service" : p;
        fields[n] = (struct flow_field){keys[n], p, FLOW_TEXT};
        n++;
    }
    n_keys = n;
    fields[n++] = (struct flow_field){"bytes", "bytes", FLOW_BYTES};
    fields[n++] = (struct flow_field){"packets", "packets", FLOW_COUNT};
    fields[n++] = (struct flow_field){"flows", "flows", FLOW_COUNT};
    json_t *answer = flow_cli_ask(
        &c, "/v1/top",
        (const char *const[][2]){
            {"by", by}, {"limit", limit}, {"again", again ? "1" : NULL}, {NULL, NULL}});
    if (answer && !c.json && !c.csv) {
        add_share(json_object_get(answer, "top"), metric ? metric : "bytes", keys, n_keys);
        fields[n++] = (struct flow_field){"share", "", FLOW_TEXT};
    }
    return finish(&c, answer, "top", fields, n);
}

static const struct flow_field why_fields[] = {
    {"drop", "REASON", FLOW_TEXT},
    {"rule_out", "RULE AT SOURCE", FLOW_TEXT},
    {"rule_out_author", "AUTHOR", FLOW_TEXT},
    {"rule_in", "RULE AT DESTINATION", FLOW_TEXT},
    {"rule_in_author", "AUTHOR", FLOW_TEXT},
    {"src", "SRC", FLOW_TEXT},
    {"dst", "DST", FLOW_TEXT},
    {"src_vif", "FROM", FLOW_TEXT},
    {"dst_vif", "TO", FLOW_TEXT},
    {"service", "PORT", FLOW_INT},
    {"host", "HOST", FLOW_TEXT},
};
static const struct flow_field why_sums[] = {
    {"packets", "PACKETS", FLOW_INT},
    {"bytes", "BYTES", FLOW_INT},
    {"flows", "FLOWS", FLOW_INT},
};

/* The fields of an answer by these columns, which may be any; 'by' is cut up. */
static size_t
why_columns(char *by, struct flow_field fields[FLOW_FIELDS_MAX])
{
    size_t n = N(why_fields), i;
    char *save = NULL;

    memcpy(fields, why_fields, sizeof why_fields);
    for (char *p = strtok_r(by, ",", &save); p && n < FLOW_FIELDS_MAX - N(why_sums);
         p = strtok_r(NULL, ",", &save)) {
        const char *key = !strcmp(p, "port") ? "service" : p;
        for (i = 0; i < n && strcmp(fields[i].key, key) != 0; i++) {
        }
        if (i == n) {
            fields[n++] = (struct flow_field){key, key, FLOW_TEXT};
        }
    }
    memcpy(fields + n, why_sums, sizeof why_sums);
    return n + N(why_sums);
}

int
flow_why_main(int argc, char **argv)
{
    static char by_copy[200];
    const char *by = NULL, *limit = NULL;
    const struct cli_opt more[] = {
        {"by", CLI_STRING, &by, "COLUMNS", "more detail: src, dst, src_vif, dst_vif, port, host"},
        {"limit", CLI_STRING, &limit, "N", "rows (50)"},
    };
    struct flow_field fields[FLOW_FIELDS_MAX];
    struct flow_cli c;
    size_t n;
    int code;

    if (!flow_cli_open(&c, "why-dropped",
                       "What was dropped: the reason, the rule that denied it, who wrote that.",
                       "  weft flow why-dropped --last 10m\n"
                       "  weft flow why-dropped --by src_vif,dst_vif,port vm web1\n",
                       more, N(more), argc, argv, &code)) {
        return code;
    }
    c.metric = "packets";
    snprintf(by_copy, sizeof by_copy, "%s", by ? by : "");
    n = why_columns(by_copy, fields);
    return finish(
        &c,
        flow_cli_ask(&c, "/v1/drops",
                     (const char *const[][2]){{"by", by}, {"limit", limit}, {NULL, NULL}}),
        "drops", fields, n);
}

/* --- matrix -------------------------------------------------------------------------- */

static size_t
label_index(const char **labels, size_t *n, const char *label)
{
    for (size_t i = 0; i < *n; i++) {
        if (!strcmp(labels[i], label)) {
            return i;
        }
    }
    if (*n < MATRIX_LABELS) {
        labels[*n] = label;
        return (*n)++;
    }
    return MATRIX_LABELS;
}

/* The largest pairs come first, so that the labels are those of the largest. */
static void
print_matrix(const json_t *cells, const char *metric)
{
    const char *labels[MATRIX_LABELS] = {NULL};
    double sums[MATRIX_LABELS][MATRIX_LABELS] = {{0}};
    size_t n = 0, left_out = 0, i, width = 8;
    json_t *cell;
    char text[24];

    json_array_foreach(cells, i, cell)
    {
        const char *from = json_string_value(json_object_get(cell, "from"));
        const char *to = json_string_value(json_object_get(cell, "to"));
        size_t f = label_index(labels, &n, from), t = label_index(labels, &n, to);
        if (f < MATRIX_LABELS && t < MATRIX_LABELS) {
            sums[f][t] += json_number_value(json_object_get(cell, metric));
        } else {
            left_out++;
        }
    }
    for (i = 0; i < n; i++) {
        size_t w = strlen(*labels[i] ? labels[i] : "outside");
        width = w > width ? w : width;
    }
    width = width > 16 ? 16 : width;
    printf("%-*s", (int)width, "FROM\\TO");
    for (i = 0; i < n; i++) {
        printf("  %*.*s", (int)width, (int)width, *labels[i] ? labels[i] : "outside");
    }
    putchar('\n');
    for (size_t f = 0; f < n; f++) {
        printf("%-*.*s", (int)width, (int)width, *labels[f] ? labels[f] : "outside");
        for (size_t t = 0; t < n; t++) {
            printf("  %*s", (int)width,
                   sums[f][t] > 0
                       ? flow_human(sums[f][t], !strcmp(metric, "bytes") ? "B" : "", text)
                       : ".");
        }
        putchar('\n');
    }
    if (left_out) {
        fprintf(stderr, "%zu smaller pairs are left out; --csv has them\n", left_out);
    }
}

int
flow_matrix_main(int argc, char **argv)
{
    static const struct flow_field fields[] = {
        {"from", "FROM", FLOW_TEXT},  {"to", "TO", FLOW_TEXT},
        {"bytes", "BYTES", FLOW_INT}, {"packets", "PACKETS", FLOW_INT},
        {"flows", "FLOWS", FLOW_INT},
    };
    const char *of = "tenant", *metric = NULL;
    const struct cli_opt more[] = {
        {"of", CLI_STRING, &of, "WHAT", "tenant, network, group, vm, vif, address (tenant)"},
        {"metric", CLI_STRING, &metric, "WHAT", "bytes, packets or flows (bytes)"},
    };
    struct flow_cli c;
    int code;

    if (!flow_cli_open(&c, "matrix", "Who talks to whom; \"outside\" is what has no such name.",
                       "  weft flow matrix --last 24h\n"
                       "  weft flow matrix --of group --metric flows --csv dropped\n",
                       more, N(more), argc, argv, &code)) {
        return code;
    }
    c.metric = metric;
    json_t *answer =
        flow_cli_ask(&c, "/v1/matrix", (const char *const[][2]){{"of", of}, {NULL, NULL}});
    if (answer && !c.json && !c.csv && json_array_size(json_object_get(answer, "matrix"))) {
        print_matrix(json_object_get(answer, "matrix"), metric ? metric : "bytes");
        json_decref(answer);
        flow_cli_close(&c);
        return CLI_OK;
    }
    return finish(&c, answer, "matrix", fields, N(fields));
}
