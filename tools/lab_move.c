#include "lab_move.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lab_build.h"
#include "lab_netns.h"
#include "lab_proc.h"
#include "lab_xapid.h"

/* For one that hangs. */
#define PATIENCE_MS 60000

/* A guest of the cell's network, or NULL. */
static const struct lab_guest *
neighbour(const struct lab *lab, const struct lab_cell *cell)
{
    for (unsigned i = 0; i < lab->n_guests; i++) {
        if (lab->guests[i].network == cell->network) {
            return &lab->guests[i];
        }
    }
    return NULL;
}

static void
start_traffic(struct lab_move *m)
{
    unsigned n = m->lab->n_cells < LAB_MOVE_TRAFFIC ? m->lab->n_cells : LAB_MOVE_TRAFFIC;

    for (unsigned i = 0; i < n; i++) {
        const struct lab_cell *cell = &m->lab->cells[i];
        const struct lab_guest *guest = neighbour(m->lab, cell);

        lab_traffic_init(&m->traffic[m->n_traffic++]);
        if (guest) {
            lab_traffic_start(&m->traffic[i], m->lab, guest, cell->ip);
        }
    }
}

void
lab_move_init(struct lab_move *m, struct lab *lab)
{
    memset(m, 0, sizeof *m);
    m->lab = lab;
    m->fd = m->ping_fd = -1;
    m->proc.pidfd = m->ping.pidfd = -1;
    m->last_ms = -1;
    m->possible = lab->n_cells && lab->config.n_hosts - lab->config.n_stock > 1;
    if (m->possible) {
        start_traffic(m);
    }
}

static void
close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void
lab_move_stop(struct lab_move *m)
{
    struct lab_proc *both[] = {&m->proc, &m->ping};

    lab_proc_end(both, 2, SIGKILL, 1000);
    close_fd(&m->fd);
    close_fd(&m->ping_fd);
}

bool
lab_move_traffic(struct lab_move *m)
{
    bool broke = false;

    for (unsigned i = 0; i < m->n_traffic; i++) {
        broke |= lab_traffic_event(&m->traffic[i]);
    }
    return broke;
}

void
lab_move_end_traffic(struct lab_move *m)
{
    for (unsigned i = 0; i < m->n_traffic; i++) {
        lab_traffic_stop(&m->traffic[i]);
    }
}

const struct lab_traffic_state *
lab_move_traffic_of(const struct lab_move *m, unsigned cell)
{
    bool any = cell < m->n_traffic && m->traffic[cell].state.connections;

    return any ? &m->traffic[cell].state : NULL;
}

static void
note(struct lab_move *m)
{
    snprintf(m->last, sizeof m->last, "%s %s > %s", m->lab->cells[m->cell].name, m->from, m->to);
}

static bool
fail(struct lab_move *m, const char *why)
{
    snprintf(m->error, sizeof m->error, "%s", why);
    note(m);
    m->n_failed++;
    lab_move_stop(m);
    return true;
}

/* --- starting ------------------------------------------------------------------ */

/* The host after that where the cell is, among ours. */
static bool
choose(struct lab_move *m)
{
    unsigned n = m->lab->config.n_hosts - m->lab->config.n_stock;
    json_t *vms = lab_cells_where(m->lab);
    const json_t *vm;
    const char *on;

    m->cell = m->next++ % m->lab->n_cells;
    vm = lab_cell_where(vms, &m->lab->cells[m->cell]);
    on = json_string_value(json_object_get(vm, "resident_on"));
    m->from[0] = '\0';
    for (unsigned i = 0; on && i < n; i++) {
        if (!strcmp(m->lab->hosts[i].name, on)) {
            snprintf(m->from, sizeof m->from, "%s", on);
            snprintf(m->to, sizeof m->to, "%s", m->lab->hosts[(i + 1) % n].name);
        }
    }
    json_decref(vms);
    return m->from[0];
}

static int
spawn_migrate(struct lab_move *m)
{
    const char *argv[] = {"weft", "vm",     "migrate", m->lab->cells[m->cell].name,
                          m->to,  "--json", NULL};
    char program[LAB_PATH_MAX * 2];
    struct lab_xapid_env env;

    lab_program(&m->lab->config, argv[0], program, sizeof program);
    lab_xapid_environment(m->lab, &env);
    m->report_len = 0;
    return lab_proc_spawn_read(&m->proc, &m->lab->pool.netns, program, argv, env.vars, &m->fd);
}

/* Without a guest in its network, or ping(8), the move is not watched. */
static void
spawn_ping(struct lab_move *m)
{
    const struct lab_cell *cell = &m->lab->cells[m->cell];
    const struct lab_guest *guest = neighbour(m->lab, cell);
    const char *argv[] = {"ping", "-q", "-i", "0.01", cell->ip, NULL};

    if (guest) {
        lab_proc_spawn_read(&m->ping, &guest->netns, argv[0], argv, NULL, &m->ping_fd);
    }
}

/* Has it say what it saw.  The last one was under way. */
static void
take_pings(struct lab_move *m)
{
    struct lab_proc *one = &m->ping;
    unsigned sent, received;
    char text[2048], *line;
    ssize_t n;

    lab_proc_end(&one, 1, SIGINT, 2000);
    n = m->ping_fd >= 0 ? read(m->ping_fd, text, sizeof text - 1) : 0;
    text[n > 0 ? n : 0] = '\0';
    line = strstr(text, "statistics ---\n");
    if (line && sscanf(line, "statistics ---\n%u packets transmitted, %u received", &sent,
                       &received) == 2) {
        m->pings += sent;
        m->lost += received + 1 < sent ? sent - 1 - received : 0;
    }
}

void
lab_move_start(struct lab_move *m)
{
    int error;

    if (!m->possible || m->fd >= 0) {
        return;
    }
    m->started_ms = lab_now_ms();
    if (!choose(m)) {
        snprintf(m->error, sizeof m->error, "%s runs nowhere", m->lab->cells[m->cell].name);
        return;
    }
    m->error[0] = '\0';
    spawn_ping(m);
    error = spawn_migrate(m);
    if (error) {
        fail(m, strerror(error));
    }
}

/* --- its end ---------------------------------------------------------------------- */

/* The last line: the task, with the migration's result as text in it. */
static bool
take_result(struct lab_move *m)
{
    const char *status = NULL, *text = NULL;
    json_t *task, *stats, *blackout;
    char *line;

    while (m->report_len && m->report[m->report_len - 1] == '\n') {
        m->report_len--;
    }
    m->report[m->report_len] = '\0';
    line = strrchr(m->report, '\n');
    task = json_loads(line ? line + 1 : m->report, 0, NULL);
    json_unpack(task, "{s:s}", "status", &status);
    json_unpack(task, "{s:{s:s}}", "other_config", "weft-stats", &text);
    stats = text ? json_loads(text, 0, NULL) : NULL;
    blackout = json_object_get(stats, "blackout_ms");
    if (!status || strcmp(status, "success") != 0) {
        char *info = json_dumps(json_object_get(task, "error_info"), JSON_COMPACT);

        fail(m, info ? info : "no answer");
        free(info);
    } else {
        note(m);
        take_pings(m);
        m->last_ms = blackout ? json_number_value(blackout) : -1;
        m->total_s = (double)(lab_now_ms() - m->started_ms) / 1000.0;
        if (blackout) {
            m->blackout_ms[m->n_done++ % LAB_MOVE_HISTORY] = m->last_ms;
        }
        lab_move_stop(m);
    }
    json_decref(stats);
    json_decref(task);
    return true;
}

bool
lab_move_event(struct lab_move *m)
{
    ssize_t n;

    if (m->fd < 0) {
        return false;
    }
    if (lab_now_ms() - m->started_ms > PATIENCE_MS) {
        return fail(m, "took more than a minute");
    }
    while ((n = read(m->fd, m->report + m->report_len, sizeof m->report - 1 - m->report_len)) > 0) {
        m->report_len += (size_t)n;
        if (m->report_len == sizeof m->report - 1) {
            /* The end is what counts. */
            size_t half = m->report_len / 2;

            memmove(m->report, m->report + m->report_len - half, half);
            m->report_len = half;
        }
    }
    return !n && take_result(m);
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

double
lab_move_quantile(const struct lab_move *m, double part)
{
    double sorted[LAB_MOVE_HISTORY];
    unsigned n = m->n_done < LAB_MOVE_HISTORY ? m->n_done : LAB_MOVE_HISTORY;
    unsigned i = (unsigned)(part * n + 0.999999);

    if (!n) {
        return -1;
    }
    memcpy(sorted, m->blackout_ms, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare);
    return sorted[i ? i - 1 : 0];
}
