/* A chart as SVG, without scripts or anything from elsewhere. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "flow_cmd.h"

enum { WIDTH = 960, HEIGHT = 400, LEFT = 90, RIGHT = 180, TOP = 40, BOTTOM = 50 };
#define PLOT_WIDTH (WIDTH - LEFT - RIGHT)
#define PLOT_HEIGHT (HEIGHT - TOP - BOTTOM)

static const char *const colors[] = {"#1f77b4", "#ff7f0e", "#2ca02c", "#d62728",
                                     "#9467bd", "#8c564b", "#e377c2", "#7f7f7f",
                                     "#bcbd22", "#17becf", "#393b79", "#637939"};

static void
put_xml(FILE *f, const char *s)
{
    for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
        if (*p == '<') {
            fputs("&lt;", f);
        } else if (*p == '>') {
            fputs("&gt;", f);
        } else if (*p == '&') {
            fputs("&amp;", f);
        } else if (*p == '"') {
            fputs("&quot;", f);
        } else {
            fputc(*p < ' ' || *p == 0x7f ? '?' : *p, f);
        }
    }
}

/* 1, 2 or 5 times a power of ten, not below 'v'. */
static double
round_up(double v)
{
    double power = v > 0 ? pow(10, floor(log10(v))) : 1;

    for (int i = 0; i < 3; i++) {
        static const double steps[] = {1, 2, 5};
        if (steps[i] * power >= v) {
            return steps[i] * power;
        }
    }
    return 10 * power;
}

static void
put_axes(FILE *f, double max, const char *unit, int64_t from_ms, int64_t to_ms)
{
    char text[40];

    for (int i = 0; i <= 4; i++) {
        double y = TOP + PLOT_HEIGHT - PLOT_HEIGHT * i / 4.0;
        fprintf(f,
                "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#ddd\"/>"
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s/s</text>\n",
                LEFT, y, LEFT + PLOT_WIDTH, y, LEFT - 8, y + 4,
                flow_human(max * i / 4, unit, text));
    }
    for (int i = 0; i <= 4; i++) {
        time_t t = (time_t)((from_ms + (to_ms - from_ms) * i / 4) / 1000);
        struct tm tm;
        strftime(text, sizeof text, "%m-%d %H:%M", gmtime_r(&t, &tm));
        fprintf(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                LEFT + PLOT_WIDTH * i / 4.0, TOP + PLOT_HEIGHT + 20, text);
    }
}

static void
put_line(FILE *f, const json_t *line, size_t i, double per_s, double max)
{
    const json_t *points = json_object_get(line, "points");
    const char *color = colors[i % (sizeof colors / sizeof colors[0])];
    const char *name = json_string_value(json_object_get(line, "name"));
    size_t n = json_array_size(points);

    fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"", color);
    for (size_t p = 0; p < n; p++) {
        double v = json_number_value(json_array_get(points, p)) * per_s;
        fprintf(f, "%.1f,%.1f ", LEFT + PLOT_WIDTH * (n > 1 ? (double)p / (double)(n - 1) : 0.5),
                TOP + PLOT_HEIGHT - v / max * PLOT_HEIGHT);
    }
    fprintf(f, "\"/>\n<text x=\"%d\" y=\"%zu\" fill=\"%s\">", LEFT + PLOT_WIDTH + 12,
            TOP + 12 + 18 * i, color);
    put_xml(f, name && *name ? name : "all");
    fprintf(f, "</text>\n");
}

void
flow_svg(FILE *f, const json_t *answer, const char *title)
{
    const json_t *lines = json_object_get(answer, "series");
    const char *metric = json_string_value(json_object_get(answer, "metric"));
    int64_t from = json_integer_value(json_object_get(answer, "from"));
    int64_t step = json_integer_value(json_object_get(answer, "step"));
    bool bits = metric && !strcmp(metric, "bytes");
    double per_s = (bits ? 8.0 : 1.0) / (double)(step > 0 ? step : 1), max = 0;
    json_t *line, *v;
    size_t i, p, n = 0;

    json_array_foreach(lines, i, line)
    {
        const json_t *points = json_object_get(line, "points");
        n = json_array_size(points);
        json_array_foreach(points, p, v)
        {
            max = json_number_value(v) * per_s > max ? json_number_value(v) * per_s : max;
        }
    }
    max = round_up(max);
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n"
            "<text x=\"%d\" y=\"24\" font-size=\"15\">",
            WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT);
    put_xml(f, title);
    fprintf(f, "</text>\n");
    put_axes(f, max, bits ? "b" : "", from, from + (int64_t)n * step * 1000);
    json_array_foreach(lines, i, line)
    {
        put_line(f, line, i, per_s, max);
    }
    fprintf(f, "</svg>\n");
}
