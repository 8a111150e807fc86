#include "lab_view.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "lab_cpu.h"
#include "lab_iperf.h"
#include "lab_move.h"
#include "lab_ping.h"
#include "lab_pool.h"
#include "lab_proc.h"
#include "lab_switch.h"
#include "lab_xapid.h"

#define TICK_MS 1000
#define BURST_SECONDS 2u
#define BURST_EVERY_TICKS 10u
#define MOVE_EVERY_TICKS 10u
#define LINE_EVERY_TICKS 5u /* without a terminal */
#define ONCE_ROUNDS 3u      /* good rounds in a row that --once wants */
#define ONCE_LIMIT_TICKS 60u
#define EVENTS 4u
#define ROWS_MAX 24u /* guests shown */

enum { FD_SIGNAL, FD_TELL, FD_IPERF, FD_MOVE, FD_PINGS };

struct view {
    struct lab *lab;
    struct term *term;
    struct lab_tell *tell;
    const struct lab_view_options *options;
    struct lab_ping ping;
    struct lab_ping_sum sum;
    struct lab_iperf iperf;
    unsigned iperf_shown; /* results already printed as a line */
    struct lab_move move;
    struct lab_cpu *cpu; /* one for each host */
    double burst_cpu;    /* most that the switches took in a second of the last burst */
    char events[EVENTS][256];
    unsigned n_events;
    unsigned ticks, good_rounds, leaks;
    int64_t started_ms;
    bool end;
};

/* --- drawing --------------------------------------------------------------- */

struct text {
    char *data;
    size_t size;
    FILE *stream;
};

static const char *
network_text(const struct lab *lab, const struct lab_guest *g, char *buf, size_t size)
{
    if (lab->config.pool) {
        snprintf(buf, size, "%s", lab_networks[g->network].name);
    } else if (g->vlan) {
        snprintf(buf, size, "%u", g->vlan);
    } else {
        snprintf(buf, size, "-");
    }
    return buf;
}

/* "g3 0.21 ms" of the first few peers on the guest's VLAN. */
static void
draw_same(struct view *v, FILE *f, unsigned guest)
{
    unsigned shown = 0;
    char cell[96] = "";
    bool lost = false;

    for (unsigned i = 0; i < v->ping.n_pairs && shown < 2; i++) {
        const struct lab_ping_pair *pair = &v->ping.pairs[i];
        size_t len = strlen(cell);
        if (pair->from != guest || !pair->same_network) {
            continue;
        }
        shown++;
        if (pair->rtt_ns >= 0) {
            snprintf(cell + len, sizeof cell - len, "%s%s %.2f ms", len ? ", " : "",
                     v->lab->guests[pair->to].name, (double)pair->rtt_ns / 1e6);
        } else {
            lost = true;
            snprintf(cell + len, sizeof cell - len, "%s%s no reply", len ? ", " : "",
                     v->lab->guests[pair->to].name);
        }
    }
    fprintf(f, "%s%-22s%s ", lost ? term_red(v->term) : term_green(v->term),
            shown ? cell : "(no peer)", term_off(v->term));
}

static void
draw_other(struct view *v, FILE *f, unsigned guest)
{
    unsigned silent = 0, leaks = 0;

    for (unsigned i = 0; i < v->ping.n_pairs; i++) {
        const struct lab_ping_pair *pair = &v->ping.pairs[i];
        if (pair->from == guest && !pair->same_network) {
            silent += pair->rtt_ns < 0;
            leaks += pair->rtt_ns >= 0;
        }
    }
    if (leaks) {
        fprintf(f, "%s%u REPLIED: networks leak%s", term_red(v->term), leaks, term_off(v->term));
    } else if (silent) {
        fprintf(f, "%s%u guests, no reply (as expected)%s", term_dim(v->term), silent,
                term_off(v->term));
    }
    fputc('\n', f);
}

static void
draw_guests(struct view *v, FILE *f)
{
    const struct lab *lab = v->lab;
    char network[16];

    fprintf(f, "%s%-6s %-5s %-10s %-12s %-22s %s%s\n", term_bold(v->term), "guest", "host",
            lab->config.pool ? "network" : "vlan", "address", "ping, same network",
            "ping, other networks", term_off(v->term));
    for (unsigned i = 0; i < lab->n_guests && i < ROWS_MAX; i++) {
        const struct lab_guest *g = &lab->guests[i];
        fprintf(f, "%-6s %-5s %-10s %-12s ", g->name, lab->hosts[g->host].name,
                network_text(lab, g, network, sizeof network), g->ip);
        draw_same(v, f, i);
        draw_other(v, f, i);
    }
    if (lab->n_guests > ROWS_MAX) {
        fprintf(f, "... and %u more\n", lab->n_guests - ROWS_MAX);
    }
}

/* The history as a row of bars, tallest for the best burst. */
static void
draw_history(const struct view *v, FILE *f)
{
    static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    unsigned n = v->iperf.n_history < LAB_IPERF_HISTORY ? v->iperf.n_history : LAB_IPERF_HISTORY;
    double best = 0;

    for (unsigned i = 0; i < n; i++) {
        best = v->iperf.history[i] > best ? v->iperf.history[i] : best;
    }
    for (unsigned i = 0; v->term->utf8 && best > 0 && i < n; i++) {
        double value = v->iperf.history[(v->iperf.n_history - n + i) % LAB_IPERF_HISTORY];
        fputs(bars[(unsigned)(value / best * 7.0)], f);
    }
}

static void
draw_iperf(const struct view *v, FILE *f)
{
    const struct lab_iperf *m = &v->iperf;

    if (!m->possible) {
        return;
    }
    fprintf(f, "\n%-10s %s > %s   ", "iperf3", v->lab->guests[m->from].name,
            v->lab->guests[m->to].name);
    if (m->gbps >= 0) {
        fprintf(f, "%s%.2f Gb/s%s  ", term_bold(v->term), m->gbps, term_off(v->term));
    }
    draw_history(v, f);
    if (m->state != LAB_IPERF_IDLE) {
        fprintf(f, " %smeasuring%s", term_dim(v->term), term_off(v->term));
    } else if (m->error[0]) {
        fprintf(f, " %s%s%s", term_red(v->term), m->error, term_off(v->term));
    }
    fputc('\n', f);
}

/* What a cell's connections carried; nothing if it has none. */
static void
draw_traffic(const struct view *v, FILE *f, unsigned cell)
{
    const struct lab_traffic_state *s = lab_move_traffic_of(&v->move, cell);
    char text[320];

    if (s) {
        lab_traffic_text(s, text, sizeof text);
        fprintf(f, "%-10s   %s%s%s\n", "", s->why[0] ? term_red(v->term) : "", text,
                s->why[0] ? term_off(v->term) : "");
    }
}

/* Of cells: where each is, and how the last ones moved. */
static void
draw_cells(const struct view *v, FILE *f)
{
    const struct lab_move *m = &v->move;
    json_t *vms = v->lab->n_cells ? lab_cells_where(v->lab) : NULL;

    for (unsigned i = 0; i < v->lab->n_cells && i < ROWS_MAX; i++) {
        const struct lab_cell *cell = &v->lab->cells[i];
        const char *on =
            json_string_value(json_object_get(lab_cell_where(vms, cell), "resident_on"));

        fprintf(f, "%-10s %s %s (%s)%s", i ? "" : "cells", cell->name, cell->ip,
                lab_networks[cell->network].name, on && *on ? " on " : "");
        fprintf(f, "%s%s%s", on ? on : "?", m->fd >= 0 && m->cell == i ? " > " : "",
                m->fd >= 0 && m->cell == i ? m->to : "");
        fputc('\n', f);
        draw_traffic(v, f, i);
    }
    json_decref(vms);
    if (!m->possible) {
        return;
    }
    fprintf(f, "%-10s ", "migration");
    if (m->last_ms >= 0) {
        fprintf(f,
                "%s %sblackout %.1f ms%s in %.1f s; of %u: p50 %.1f ms, p99 %.1f ms; pings %u of "
                "%u lost",
                m->last, term_bold(v->term), m->last_ms, term_off(v->term), m->total_s, m->n_done,
                lab_move_quantile(m, 0.5), lab_move_quantile(m, 0.99), m->lost, m->pings);
    }
    if (m->n_failed) {
        fprintf(f, "  %s%u failed%s%s%s", term_red(v->term), m->n_failed, m->error[0] ? ": " : "",
                m->error, term_off(v->term));
    }
    fputc('\n', f);
}

static void
draw_switches(struct view *v, FILE *f)
{
    for (unsigned i = 0; i < v->lab->config.n_hosts; i++) {
        const struct lab_proc *p = &v->lab->hosts[i].vswitchd;
        fprintf(f, "%-10s %s weft-vswitchd pid %d  ", i ? "" : "switch", v->lab->hosts[i].name,
                (int)p->pid);
        if (p->failed) {
            fprintf(f, "%sfailed%s", term_red(v->term), term_off(v->term));
        } else if (v->cpu[i].total >= 0) {
            fprintf(f, "CPU %.0f %% (vif threads %.0f, polling threads %.0f)", v->cpu[i].total,
                    v->cpu[i].vif, v->cpu[i].pmd);
        }
        if (p->restarts) {
            fprintf(f, "  restarts %u", p->restarts);
        }
        fputc('\n', f);
    }
}

static void
draw_hints(const struct view *v, FILE *f)
{
    const struct lab *lab = v->lab;
    char where[LAB_DIR_MAX + 16] = "";

    if (strcmp(lab->config.name, "weft") != 0) {
        snprintf(where, sizeof where, " --name %s", lab->config.name);
    }
    fprintf(f, "\n%sIn another terminal, as root (%s/weft):%s\n", term_dim(v->term),
            lab->config.bin, term_off(v->term));
    if (lab->n_guests > 1) {
        fprintf(f, "  weft lab exec%s g1 -- ping %s\n", where,
                lab->guests[v->iperf.possible ? v->iperf.to : 1].ip);
    }
    fprintf(f, "  weft lab exec%s h1 -- ovs-vsctl show\n", where);
    fprintf(f, "  weft lab exec%s h1 -- ovs-ofctl dump-flows %s\n", where, LAB_BRIDGE);
    fprintf(f, "  weft lab exec%s h1 -- ovs-appctl dpctl/dump-flows\n", where);
    if (v->lab->config.pool) {
        fprintf(f, "  weft lab exec%s pool -- weft status\n", where);
        fprintf(f, "  weft lab exec%s pool -- weft policy --help\n", where);
    }
    if (v->move.possible) {
        fprintf(f, "  weft lab exec%s pool -- weft vm migrate %s h2\n", where, lab->cells[0].name);
    }
    if (lab->hosts[0].vswitchd.pid) {
        fprintf(f, "  kill -9 %d          # the switch comes back, guests keep their link\n",
                (int)lab->hosts[0].vswitchd.pid);
    }
}

static void
draw(struct view *v)
{
    int64_t up_s = (lab_now_ms() - v->started_ms) / 1000;
    struct text t = {0};

    t.stream = open_memstream(&t.data, &t.size);
    if (!t.stream) {
        return;
    }
    fprintf(t.stream, "\n%sweft lab%s  %u host%s, %u guests, up %lld:%02lld   Ctrl-C ends it\n\n",
            term_bold(v->term), term_off(v->term), v->lab->config.n_hosts,
            v->lab->config.n_hosts == 1 ? "" : "s", v->lab->n_guests, (long long)up_s / 60,
            (long long)up_s % 60);
    draw_guests(v, t.stream);
    draw_iperf(v, t.stream);
    draw_cells(v, t.stream);
    draw_switches(v, t.stream);
    draw_hints(v, t.stream);
    fputs(v->n_events ? "\n" : "", t.stream);
    for (unsigned i = v->n_events > EVENTS ? v->n_events - EVENTS : 0; i < v->n_events; i++) {
        fprintf(t.stream, "%s\n", v->events[i % EVENTS]);
    }
    fclose(t.stream);
    term_frame(v->term, t.data);
    free(t.data);
}

static void
print_line(struct view *v)
{
    const struct lab_ping_sum *sum = &v->sum;

    printf("ping: same VLAN %u of %u replied (slowest %.2f ms), other VLAN %u of %u%s",
           sum->same_ok, sum->same, (double)sum->worst_ns / 1e6, sum->other_ok, sum->other,
           sum->other_ok ? ": VLANs LEAK"
           : sum->other  ? " (as expected)"
                         : "");
    for (unsigned i = 0; i < v->lab->config.n_hosts; i++) {
        if (v->cpu[i].total >= 0) {
            printf("; %s CPU %.0f %%", v->lab->hosts[i].name, v->cpu[i].total);
        }
    }
    putchar('\n');
    fflush(stdout);
}

static void
print_iperf(struct view *v)
{
    struct lab_iperf *m = &v->iperf;

    if (m->n_history != v->iperf_shown) {
        v->iperf_shown = m->n_history;
        printf("iperf3: %s > %s %.2f Gb/s, switch CPU %.0f %%\n", v->lab->guests[m->from].name,
               v->lab->guests[m->to].name, m->gbps, v->burst_cpu);
    } else if (m->state == LAB_IPERF_IDLE && m->error[0]) {
        printf("iperf3: %s\n", m->error);
        m->error[0] = '\0';
    }
    fflush(stdout);
}

static void
print_traffic(const struct view *v, unsigned cell)
{
    const struct lab_traffic_state *s = lab_move_traffic_of(&v->move, cell);
    char text[320];

    if (s) {
        lab_traffic_text(s, text, sizeof text);
        printf("traffic: %s %s\n", v->lab->cells[cell].name, text);
        fflush(stdout);
    }
}

static void
print_move(const struct view *v)
{
    const struct lab_move *m = &v->move;

    if (m->error[0]) {
        printf("migration: %s failed: %s\n", m->last, m->error);
    } else {
        printf("migration: %s blackout %.1f ms in %.1f s; of %u: p50 %.1f ms, p99 %.1f ms; pings "
               "%u of %u lost\n",
               m->last, m->last_ms, m->total_s, m->n_done, lab_move_quantile(m, 0.5),
               lab_move_quantile(m, 0.99), m->lost, m->pings);
    }
    fflush(stdout);
}

/* --- events ---------------------------------------------------------------- */

static void
on_tell(void *v_, char kind, const char *text)
{
    struct view *v = v_;

    if (v->term->tty && !v->options->once) {
        snprintf(v->events[v->n_events++ % EVENTS], sizeof v->events[0], "%.250s", text);
    } else {
        printf("%s\n", text);
        fflush(stdout);
    }
}

/* What changes in the state while we look: pids and restarts. */
static void
refresh(struct view *v)
{
    struct lab *now;
    char why[200];
    double cpu = 0;

    if (lab_load(v->lab->config.dir, &now, why, sizeof why)) {
        return;
    }
    for (unsigned i = 0; i < v->lab->config.n_hosts; i++) {
        struct lab_proc *to = &v->lab->hosts[i].vswitchd;
        const struct lab_proc *from = &now->hosts[i].vswitchd;
        struct lab_switch sw = lab_switch_of(&now->config, &now->hosts[i]);
        to->pid = sw.pid;
        to->restarts = sw.restarts;
        to->failed = from->failed;
        lab_cpu_sample(&v->cpu[i], to->pid);
        cpu += v->cpu[i].total > 0 ? v->cpu[i].total : 0;
    }
    if (v->iperf.state == LAB_IPERF_SENDING && cpu > v->burst_cpu) {
        v->burst_cpu = cpu;
    }
    lab_free(now);
}

static void
on_move(struct view *v)
{
    bool lines = !v->term->tty || v->options->once;
    bool broke = lab_move_traffic(&v->move), ended = lab_move_event(&v->move);

    if (ended && lines) {
        print_move(v);
    }
    for (unsigned i = 0; lines && i < v->lab->n_cells; i++) {
        if (broke || (ended && i == v->move.cell)) {
            print_traffic(v, i);
        }
    }
}

/* Of every cell's connections. */
static bool
traffic_is(const struct view *v, bool (*is)(const struct lab_traffic_state *))
{
    for (unsigned i = 0; i < v->lab->n_cells; i++) {
        const struct lab_traffic_state *s = lab_move_traffic_of(&v->move, i);

        if (s && !is(s)) {
            return false;
        }
    }
    return true;
}

/* All is open, or broken: something that --once can judge. */
static bool
traffic_told(const struct view *v)
{
    return traffic_is(v, lab_traffic_good) || !traffic_is(v, lab_traffic_whole);
}

/* The end of a ping round and the beginning of the next. */
static void
tick(struct view *v)
{
    const struct lab_view_options *o = v->options;

    lab_ping_sum(&v->ping, &v->sum);
    if (v->ticks) {
        bool good = v->sum.same_ok == v->sum.same && !v->sum.other_ok;
        v->good_rounds = good ? v->good_rounds + 1 : 0;
        v->leaks += v->sum.other_ok;
    }
    refresh(v);
    lab_iperf_event(&v->iperf, BURST_SECONDS);
    if (v->ticks % BURST_EVERY_TICKS == 2) {
        v->burst_cpu = 0;
        lab_iperf_start(&v->iperf);
    }
    on_move(v);
    if (o->once ? v->ticks && !v->move.n_done && !v->move.n_failed && traffic_told(v)
                : v->ticks % MOVE_EVERY_TICKS == 6) {
        lab_move_start(&v->move);
    }
    if (v->term->tty && !o->once) {
        draw(v);
    } else if (!o->once) {
        print_iperf(v);
        if (v->ticks % LINE_EVERY_TICKS == 1) {
            print_line(v);
        }
    }
    v->ticks++;
    bool measured = !v->iperf.possible || v->iperf.n_history || v->iperf.error[0];
    measured &= !v->move.possible || v->move.n_done || v->move.n_failed;
    measured &= traffic_told(v);
    v->end |=
        o->once && ((v->good_rounds >= ONCE_ROUNDS && measured) || v->ticks >= ONCE_LIMIT_TICKS);
    v->end |= o->seconds && lab_now_ms() - v->started_ms >= (int64_t)o->seconds * 1000;
    lab_ping_send(&v->ping);
}

static void
on_signal(struct view *v)
{
    struct signalfd_siginfo info;

    if (read(v->options->signal_fd, &info, sizeof info) != sizeof info) {
        return;
    }
    if (info.ssi_signo == SIGWINCH) {
        term_resize(v->term);
    } else {
        v->end = true;
    }
}

static void
watch(struct view *v, struct pollfd *fds)
{
    int64_t next_tick = lab_now_ms();

    while (!v->end) {
        int64_t left = next_tick - lab_now_ms();
        if (left <= 0) {
            tick(v);
            next_tick += TICK_MS;
            continue;
        }
        fds[FD_SIGNAL] = (struct pollfd){.fd = v->options->signal_fd, .events = POLLIN};
        fds[FD_TELL] = (struct pollfd){.fd = v->tell->fd, .events = POLLIN};
        fds[FD_IPERF] = (struct pollfd){.fd = v->iperf.fd, .events = POLLIN};
        fds[FD_MOVE] = (struct pollfd){.fd = v->move.fd, .events = POLLIN};
        memcpy(fds + FD_PINGS, v->ping.fds, v->ping.n_fds * sizeof *fds);
        if (poll(fds, FD_PINGS + v->ping.n_fds, (int)left) <= 0) {
            continue;
        }
        if (fds[FD_SIGNAL].revents) {
            on_signal(v);
        }
        if (fds[FD_TELL].revents && !lab_tell_read(v->tell, on_tell, v)) {
            v->end = true;
        }
        if (fds[FD_IPERF].revents) {
            lab_iperf_event(&v->iperf, BURST_SECONDS);
        }
        if (fds[FD_MOVE].revents) {
            on_move(v);
        }
        for (unsigned i = 0; i < v->ping.n_fds; i++) {
            if (fds[FD_PINGS + i].revents) {
                lab_ping_receive(&v->ping, i);
            }
        }
    }
}

static bool
verdict_line(bool good, const char *text)
{
    printf("%s %s\n", good ? "ok" : "not ok", text);
    return good;
}

static bool
print_verdict(struct view *v)
{
    char text[320];
    bool good;

    snprintf(text, sizeof text, "ping inside a network: %u of %u replied", v->sum.same_ok,
             v->sum.same);
    good = verdict_line(v->sum.same_ok == v->sum.same, text);
    snprintf(text, sizeof text, "ping across networks: %u of %u replied, none expected", v->leaks,
             v->sum.other);
    good &= verdict_line(v->leaks == 0, text);
    if (v->iperf.possible) {
        snprintf(text, sizeof text, "iperf3 %s > %s: %.2f Gb/s%s%s",
                 v->lab->guests[v->iperf.from].name, v->lab->guests[v->iperf.to].name,
                 v->iperf.gbps > 0 ? v->iperf.gbps : 0.0, v->iperf.error[0] ? ": " : "",
                 v->iperf.error);
        good &= verdict_line(v->iperf.gbps > 0, text);
    }
    if (v->move.possible) {
        snprintf(text, sizeof text, "migration %s: blackout %.1f ms%s%s", v->move.last,
                 v->move.last_ms, v->move.error[0] ? ": " : "", v->move.error);
        good &= verdict_line(v->move.n_done && !v->move.n_failed, text);
    }
    for (unsigned i = 0; i < v->lab->n_cells; i++) {
        const struct lab_traffic_state *s = lab_move_traffic_of(&v->move, i);
        size_t len = (size_t)snprintf(text, sizeof text, "traffic %s: ", v->lab->cells[i].name);

        if (s) {
            lab_traffic_text(s, text + len, sizeof text - len);
            good &= verdict_line(lab_traffic_good(s), text);
        }
    }
    return good;
}

bool
lab_view(struct lab *lab, struct term *term, struct lab_tell *tell,
         const struct lab_view_options *options)
{
    struct view *v = calloc(1, sizeof *v);
    struct pollfd *fds = calloc(FD_PINGS + lab->n_guests, sizeof *fds);
    bool good = false;

    if (!v || !fds || !(v->cpu = calloc(lab->config.n_hosts, sizeof *v->cpu))) {
        lab_fail(lab, ENOMEM, "no memory");
        goto out;
    }
    v->lab = lab;
    v->term = term;
    v->tell = tell;
    v->options = options;
    v->started_ms = lab_now_ms();
    for (unsigned i = 0; i < lab->config.n_hosts; i++) {
        lab_cpu_init(&v->cpu[i]);
    }
    if (lab_ping_open(&v->ping, lab)) {
        goto out;
    }
    lab_iperf_init(&v->iperf, lab);
    lab_move_init(&v->move, lab);
    watch(v, fds);
    lab_move_end_traffic(&v->move);
    good = tell->fd >= 0 && v->leaks == 0 && traffic_is(v, lab_traffic_whole);
    term_frame_end(term);
    if (options->once) {
        good = print_verdict(v) && good;
    }
    lab_iperf_stop(&v->iperf);
    lab_move_stop(&v->move);
    lab_ping_close(&v->ping);
out:
    free(fds);
    if (v) {
        free(v->cpu);
    }
    free(v);
    return good;
}
