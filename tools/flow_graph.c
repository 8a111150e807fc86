/* "weft flow graph": lines of blocks here, or an SVG. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "flow_cmd.h"
#include "pool_cmd.h"

#define N(array) (sizeof(array) / sizeof(array)[0])

enum { CHART_ROWS = 8, WIDTH_MAX = 200 };

static const char *const blocks[] = {" ",      "\u2581", "\u2582", "\u2583", "\u2584",
                                     "\u2585", "\u2586", "\u2587", "\u2588"};
static const char plain[] = " .:-=+*#@";

static double
value(const json_t *points, size_t i)
{
    return json_number_value(json_array_get(points, i));
}

/* At most 'width' values out of the points: the largest of those that share one. */
static size_t
squeeze(const json_t *points, double *to, size_t width)
{
    size_t n = json_array_size(points), m = n < width ? n : width;

    for (size_t i = 0; i < m; i++) {
        to[i] = 0;
    }
    for (size_t i = 0; i < n; i++) {
        size_t at = i * m / n;
        to[at] = value(points, i) > to[at] ? value(points, i) : to[at];
    }
    return m;
}

static void
put_block(const struct term *t, double v, double max)
{
    int level = max > 0 && v > 0 ? (int)ceil(v / max * 8) : 0;

    level = level > 8 ? 8 : level < 0 ? 0 : level;
    if (t->utf8) {
        fputs(blocks[level], stdout);
    } else {
        putchar(plain[level]);
    }
}

/* Of one line a chart; of several a line each. */
static void
draw(const struct term *t, const json_t *line, double per_s, const char *unit, bool only)
{
    const json_t *points = json_object_get(line, "points");
    const char *name = json_string_value(json_object_get(line, "name"));
    double v[WIDTH_MAX], max = 0;
    size_t width = t->cols > 40 ? t->cols - 30 : 20;
    size_t n = squeeze(points, v, width < WIDTH_MAX ? width : WIDTH_MAX);
    char text[24];

    for (size_t i = 0; i < n; i++) {
        max = v[i] > max ? v[i] : max;
    }
    for (int row = only ? CHART_ROWS - 1 : 0; row >= 0; row--) {
        double step = max / (only ? CHART_ROWS : 1);
        if (!only) {
            printf("%-16.16s ", name && *name ? name : "-");
        }
        for (size_t i = 0; i < n; i++) {
            put_block(t, v[i] - step * row, step);
        }
        if (row == (only ? CHART_ROWS - 1 : 0)) {
            printf(" max %s/s", flow_human(max * per_s, unit, text));
        }
        putchar('\n');
    }
}

static void
print_time(int64_t ms, const char *form)
{
    time_t t = (time_t)(ms / 1000);
    char text[40];
    struct tm tm;

    strftime(text, sizeof text, form, gmtime_r(&t, &tm));
    fputs(text, stdout);
}

static void
print_graph(const struct flow_cli *c, const json_t *answer)
{
    const json_t *lines = json_object_get(answer, "series"), *line;
    const char *metric = json_string_value(json_object_get(answer, "metric"));
    int64_t from = json_integer_value(json_object_get(answer, "from"));
    int64_t step = json_integer_value(json_object_get(answer, "step"));
    bool bits = metric && !strcmp(metric, "bytes");
    struct term t;
    size_t i;

    term_open(&t, c->no_color);
    if (!json_array_size(lines)) {
        flow_cli_none(c);
        return;
    }
    json_array_foreach(lines, i, line)
    {
        draw(&t, line, (bits ? 8.0 : 1.0) / (double)step, bits ? "b" : "",
             json_array_size(lines) == 1);
    }
    line = json_array_get(lines, 0);
    print_time(from, "%Y-%m-%d %H:%M");
    printf(" to ");
    print_time(from + (int64_t)json_array_size(json_object_get(line, "points")) * step * 1000,
               "%Y-%m-%d %H:%M UTC");
    printf(", steps of %lld s\n", (long long)step);
}

static void
print_points(const json_t *answer)
{
    const json_t *lines = json_object_get(answer, "series");
    const char *metric = json_string_value(json_object_get(answer, "metric"));
    const char *const keys[] = {"time", "name", metric ? metric : "bytes"};
    json_t *rows = json_array(), *line;
    int64_t from = json_integer_value(json_object_get(answer, "from"));
    int64_t step = json_integer_value(json_object_get(answer, "step"));
    size_t i;

    json_array_foreach(lines, i, line)
    {
        const json_t *points = json_object_get(line, "points");
        for (size_t p = 0; p < json_array_size(points); p++) {
            json_array_append_new(rows, json_pack("{s:I, s:O, s:O}", "time",
                                                  (json_int_t)(from + (int64_t)p * step * 1000),
                                                  "name", json_object_get(line, "name"), keys[2],
                                                  json_array_get(points, p)));
        }
    }
    flow_print_csv_rows(keys, N(keys), rows);
    json_decref(rows);
}

static int
write_svg(const struct flow_cli *c, const char *path, const json_t *answer)
{
    FILE *f = strcmp(path, "-") ? fopen(path, "we") : stdout;
    char why[300];
    bool bad;

    if (f) {
        flow_svg(f, answer, *c->filter ? c->filter : "all flows");
    }
    bad = !f || ferror(f);
    bad |= f && f != stdout && fclose(f);
    if (bad) {
        snprintf(why, sizeof why, "%.200s: %s", path, strerror(errno));
        return flow_cli_failed(c, why);
    }
    return CLI_OK;
}

int
flow_graph_main(int argc, char **argv)
{
    const char *by = NULL, *step = NULL, *metric = NULL, *svg = NULL;
    const struct cli_opt more[] = {
        {"by", CLI_STRING, &by, "COLUMN", "a line for each: src_tenant, proto, host ..."},
        {"step", CLI_STRING, &step, "SECONDS", "a point each so many"},
        {"metric", CLI_STRING, &metric, "WHAT", "bytes, packets or flows (bytes)"},
        {"svg", CLI_STRING, &svg, "FILE", "a picture instead (-: to standard output)"},
    };
    struct flow_cli c;
    json_t *answer;
    int code;

    if (!flow_cli_open(&c, "graph", "Traffic over time; a record counts where it ends.",
                       "  weft flow graph --last 24h tenant red\n"
                       "  weft flow graph --by proto --last 7d --svg week.svg\n",
                       more, N(more), argc, argv, &code)) {
        return code;
    }
    c.metric = metric;
    answer = flow_cli_ask(&c, "/v1/series",
                          (const char *const[][2]){{"by", by}, {"step", step}, {NULL, NULL}});
    code = answer ? CLI_OK : CLI_FAILED;
    if (answer && svg) {
        code = write_svg(&c, svg, answer);
    } else if (answer && c.json) {
        pool_print_json(answer);
    } else if (answer && c.csv) {
        print_points(answer);
    } else if (answer) {
        print_graph(&c, answer);
    }
    json_decref(answer);
    flow_cli_close(&c);
    return code;
}
