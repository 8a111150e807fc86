/* "weft flow watch": on a terminal the newest records, refreshed in place; else a
 * line for each. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "flow_cmd.h"

enum { LINES_KEPT = 200, REFRESH_MS = 250 };

static volatile sig_atomic_t stop, resized;

static void
on_signal(int number)
{
    if (number == SIGWINCH) {
        resized = 1;
    } else {
        stop = 1;
    }
}

struct watching {
    const struct flow_cli *cli;
    struct term term;
    char *text; /* of a line that is not whole yet */
    size_t n, cap;
    char *lines[LINES_KEPT]; /* a ring, the newest at 'next' - 1 */
    size_t next;
    uint64_t flows, packets, bytes, lost;
    int64_t begin_ms, drawn_ms;
    uint64_t limit; /* records; 0: any number */
};

static int64_t
now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

static const char *
string(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "";
}

static void
put_end(FILE *f, const json_t *o, bool dst)
{
    const char *vif = string(o, dst ? "dst_vif" : "src_vif");
    json_int_t port = json_integer_value(json_object_get(o, dst ? "dport" : "sport"));

    flow_put_text(f, string(o, dst ? "dst" : "src"));
    if (port) {
        fprintf(f, " %lld", (long long)port);
    }
    if (*vif) {
        fputs(" (", f);
        flow_put_text(f, vif);
        fputc(')', f);
    }
}

static char *
line_of(const struct watching *w, const json_t *o)
{
    time_t t = (time_t)(json_integer_value(json_object_get(o, "time")) / 1000);
    const char *drop = string(o, "drop"), *in = string(o, "rule_in"), *out = string(o, "rule_out");
    char *text = NULL, clock[16], a[24], b[24];
    size_t n;
    struct tm tm;
    FILE *f = open_memstream(&text, &n);

    if (!f) {
        return NULL;
    }
    strftime(clock, sizeof clock, "%H:%M:%S", gmtime_r(&t, &tm));
    fprintf(f, "%s %-6s ", clock, string(o, "proto"));
    put_end(f, o, false);
    fputs(" > ", f);
    put_end(f, o, true);
    fprintf(f, "  %s, %s packets",
            flow_human(json_number_value(json_object_get(o, "bytes")), "B", a),
            flow_human(json_number_value(json_object_get(o, "packets")), "", b));
    if (*drop) {
        fprintf(f, "  %sDROP ", term_red(&w->term));
        flow_put_text(f, drop);
        fputc(' ', f);
        flow_put_text(f, *out ? out : in);
        fputs(term_off(&w->term), f);
    }
    fclose(f);
    return text;
}

static void
draw(struct watching *w)
{
    int64_t now = now_ms();
    char *text = NULL, a[24], b[24];
    size_t n, rows = w->term.rows > 4 ? w->term.rows - 4 : 1;
    FILE *f;

    if (now - w->drawn_ms < REFRESH_MS && !resized) {
        return;
    }
    if (resized) {
        resized = 0;
        term_resize(&w->term);
    }
    w->drawn_ms = now;
    f = open_memstream(&text, &n);
    if (!f) {
        return;
    }
    fprintf(f, "%s%llu records%s, %s, %s packets in %lld s", term_bold(&w->term),
            (unsigned long long)w->flows, term_off(&w->term), flow_human((double)w->bytes, "B", a),
            flow_human((double)w->packets, "", b), (long long)(now - w->begin_ms) / 1000);
    if (w->lost) {
        fprintf(f, "  (%llu more came too fast)", (unsigned long long)w->lost);
    }
    fprintf(f, "  %s\n", *w->cli->filter ? w->cli->filter : "all flows");
    for (size_t i = 1; i <= rows && i <= LINES_KEPT; i++) {
        const char *line = w->lines[(w->next + LINES_KEPT - i) % LINES_KEPT];
        if (line) {
            fprintf(f, "%s\n", line);
        }
    }
    fclose(f);
    term_frame(&w->term, text);
    free(text);
}

static void
take_record(struct watching *w, const json_t *o)
{
    char *line;

    if (json_object_get(o, "lost")) {
        w->lost += (uint64_t)json_integer_value(json_object_get(o, "lost"));
        return;
    }
    w->flows++;
    w->packets += (uint64_t)json_integer_value(json_object_get(o, "packets"));
    w->bytes += (uint64_t)json_integer_value(json_object_get(o, "bytes"));
    line = line_of(w, o);
    if (w->term.tty) {
        free(w->lines[w->next]);
        w->lines[w->next] = line;
        w->next = (w->next + 1) % LINES_KEPT;
    } else if (line) {
        puts(line);
        free(line);
    }
}

/* One line of the stream, an object or nothing. */
static bool
take_line(struct watching *w, const char *line, size_t n)
{
    json_t *o;

    if (!n) {
        return true;
    }
    if ((o = json_loadb(line, n, 0, NULL))) {
        if (w->cli->json) {
            fwrite(line, 1, n, stdout);
            putchar('\n');
            w->flows += json_object_get(o, "bytes") != NULL;
        } else if (!w->cli->csv) {
            take_record(w, o);
        } else if (json_object_get(o, "bytes")) {
            flow_print_csv(flow_record_keys, n_flow_record_keys, o);
            w->flows++;
        }
        json_decref(o);
    }
    return !w->limit || w->flows < w->limit;
}

static bool
take_piece(void *watching, const char *data, size_t n)
{
    struct watching *w = watching;
    bool more = true;

    if (w->n + n > w->cap) {
        size_t cap = (w->n + n) * 2;
        char *text = realloc(w->text, cap);
        if (!text) {
            return false;
        }
        w->text = text;
        w->cap = cap;
    }
    memcpy(w->text + w->n, data, n);
    w->n += n;
    size_t done = 0;
    for (char *end; more && (end = memchr(w->text + done, '\n', w->n - done));) {
        more = take_line(w, w->text + done, (size_t)(end - w->text) - done);
        done = (size_t)(end - w->text) + 1;
    }
    memmove(w->text, w->text + done, w->n - done);
    w->n -= done;
    if (w->term.tty && !w->cli->json && !w->cli->csv) {
        draw(w);
    }
    return more && !stop && !fflush(stdout);
}

int
flow_watch_main(int argc, char **argv)
{
    unsigned limit = 0;
    const struct cli_opt more[] = {
        {"limit", CLI_UINT, &limit, "N", "end after so many records", 1, 1000000000},
    };
    struct sigaction sa = {.sa_handler = on_signal};
    struct flow_cli c;
    struct watching w = {.cli = &c};
    char *query;
    int code, error;

    if (!flow_cli_open(&c, "watch", "Records as they come, until Ctrl-C.",
                       "  weft flow watch dropped and tenant red\n"
                       "  weft flow watch --json --limit 100\n",
                       more, 1, argc, argv, &code)) {
        return code;
    }
    w.limit = limit;
    w.begin_ms = now_ms();
    term_open(&w.term, c.no_color);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGWINCH, &sa, NULL);
    if (c.csv) {
        flow_print_csv_header(flow_record_keys, n_flow_record_keys);
    }
    query = flow_cli_query(&c, NULL);
    error = query ? pool_stream(c.client, "/v1/watch", query, take_piece, &w) : ENOMEM;
    term_frame_end(&w.term);
    if (!error && !stop) {
        code = flow_cli_failed(&c, "weft-flowd has ended");
    } else if (error && error != ECANCELED && !stop) {
        code = flow_cli_refused(&c);
    } else {
        code = CLI_OK;
    }
    for (size_t i = 0; i < LINES_KEPT; i++) {
        free(w.lines[i]);
    }
    free(w.text);
    free(query);
    flow_cli_close(&c);
    return code;
}
