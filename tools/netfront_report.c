/* netfront_report: what a guest did, for people and for programs. */
#include <jansson.h>
#include <string.h>
#include <time.h>

#include "netfront.h"

void
nf_totals(struct nf_guest *g, struct nf_totals *t)
{
    uint64_t first = UINT64_MAX, last = 0;
    struct timespec cpu = {0};

    memset(t, 0, sizeof *t);
    for (unsigned i = 0; i < g->n_queues; i++) {
        struct nf_worker *w = &g->worker[i];
        const struct nf_stats *s = &g->queue[i].stats;
#define X(name) t->name += NF_GET(s->name);
        NF_STATS(X)
#undef X
        uint64_t w_first = NF_GET(w->first_ns), w_last = NF_GET(w->last_ns);
        first = w_first && w_first < first ? w_first : first;
        last = w_last > last ? w_last : last;
    }
    t->seconds = last > first ? (double)(last - first) / 1e9 : 0;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    t->cpu_seconds = (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9;
}

static double
per_second(uint64_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void
print_rate(FILE *out, const char *name, uint64_t packets, uint64_t bytes, double seconds)
{
    fprintf(out, "%s %.3f Mpps %.3f Gb/s", name, per_second(packets, seconds) / 1e6,
            per_second(bytes, seconds) * 8 / 1e9);
}

void
nf_report_progress(struct nf_guest *g)
{
    static struct nf_totals last;
    static uint64_t last_ns;
    struct nf_totals now;
    uint64_t now_ns = nf_now_ns();

    nf_totals(g, &now);
    if (last_ns) {
        double seconds = (double)(now_ns - last_ns) / 1e9;
        fprintf(stderr, "%6.1f s  ", (double)(now_ns - g->connected_ns) / 1e9);
        print_rate(stderr, "tx", now.tx_packets - last.tx_packets, now.tx_bytes - last.tx_bytes,
                   seconds);
        print_rate(stderr, "  rx", now.rx_packets - last.rx_packets, now.rx_bytes - last.rx_bytes,
                   seconds);
        fprintf(stderr, "  cpu %.0f %%\n", (now.cpu_seconds - last.cpu_seconds) / seconds * 100);
    }
    last = now;
    last_ns = now_ns;
}

static void
report_text(struct nf_guest *g, const struct nf_totals *t)
{
    FILE *out = stderr;

    fprintf(out, "sent:     %ju packets, %ju bytes, %ju refused; ", (uintmax_t)t->tx_packets,
            (uintmax_t)t->tx_bytes, (uintmax_t)t->tx_errors);
    print_rate(out, "", t->tx_packets, t->tx_bytes, t->seconds);
    fprintf(out, "\nreceived: %ju packets, %ju bytes, %ju bad; ", (uintmax_t)t->rx_packets,
            (uintmax_t)t->rx_bytes, (uintmax_t)t->rx_errors);
    print_rate(out, "", t->rx_packets, t->rx_bytes, t->seconds);
    fprintf(out, "\n%.3f s of traffic, %.3f s of CPU, %ju notifications sent, %ju wakeups\n",
            t->seconds, t->cpu_seconds, (uintmax_t)t->notifies, (uintmax_t)t->wakeups);
    if (g->cfg->mode->report_text) {
        g->cfg->mode->report_text(g, out);
    }
}

static json_t *
threads_json(struct nf_guest *g)
{
    json_t *threads = json_array();
    char name[16];

    for (unsigned i = 0; i < g->n_queues; i++) {
        snprintf(name, sizeof name, "q%u", i);
        json_array_append_new(
            threads, json_pack("{ss sf sI sI}", "name", name, "cpu_seconds",
                               (double)nf_worker_cpu_ns(&g->worker[i]) / 1e9, "tx_packets",
                               (json_int_t)NF_GET(g->queue[i].stats.tx_packets), "rx_packets",
                               (json_int_t)NF_GET(g->queue[i].stats.rx_packets)));
    }
    return threads;
}

static void
report_json(struct nf_guest *g, const struct nf_totals *t)
{
    json_t *root =
        json_pack("{ss si si sf sf si si si}", "mode", g->cfg->mode->name, "domid",
                  (int)g->cfg->domid, "handle", (int)g->cfg->handle, "seconds", t->seconds,
                  "cpu_seconds", t->cpu_seconds, "connects", (int)g->connects, "queues",
                  (int)g->link.n_queues, "static_grants", (int)nf_guest_mapped(g));
    const char *key;

#define X(name) json_object_set_new(root, #name, json_integer((json_int_t)t->name));
    NF_STATS(X)
#undef X
    json_object_set_new(root, "tx_pps", json_real(per_second(t->tx_packets, t->seconds)));
    json_object_set_new(root, "rx_pps", json_real(per_second(t->rx_packets, t->seconds)));
    json_object_set_new(root, "tx_bps", json_real(per_second(t->tx_bytes, t->seconds) * 8));
    json_object_set_new(root, "rx_bps", json_real(per_second(t->rx_bytes, t->seconds) * 8));
    json_object_set_new(root, "threads", threads_json(g));
    if (g->cfg->mode->report_json) {
        json_t *more = g->cfg->mode->report_json(g, &key);
        if (more) {
            json_object_set_new(root, key, more);
        }
    }
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    fputc('\n', stdout);
    fflush(stdout);
    json_decref(root);
}

void
nf_report_final(struct nf_guest *g)
{
    struct nf_totals t;

    nf_totals(g, &t);
    if (g->cfg->json) {
        report_json(g, &t);
    } else if (g->cfg->mode != &nf_mode_tap || g->cfg->verbose) {
        report_text(g, &t);
    }
}
