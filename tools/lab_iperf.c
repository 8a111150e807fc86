#include "lab_iperf.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lab_netns.h"
#include "lab_proc.h"

/* Beyond the burst itself: connecting, reporting. */
#define SLACK_MS 8000

void
lab_iperf_init(struct lab_iperf *m, struct lab *lab)
{
    memset(m, 0, sizeof *m);
    m->lab = lab;
    m->fd = -1;
    m->gbps = -1;
    m->server.pidfd = m->client.pidfd = -1;
    for (unsigned a = 0; a < lab->n_guests; a++) {
        for (unsigned b = a + 1; b < lab->n_guests; b++) {
            bool apart = lab->guests[a].host != lab->guests[b].host;
            if (lab_same_network(&lab->guests[a], &lab->guests[b]) && (!m->possible || apart)) {
                m->from = a;
                m->to = b;
                m->possible = true;
                if (apart) {
                    return;
                }
            }
        }
    }
}

void
lab_iperf_stop(struct lab_iperf *m)
{
    struct lab_proc *both[] = {&m->client, &m->server};

    lab_proc_end(both, 2, SIGKILL, 1000);
    if (m->fd >= 0) {
        close(m->fd);
        m->fd = -1;
    }
    m->state = LAB_IPERF_IDLE;
}

static void
fail(struct lab_iperf *m, const char *why)
{
    snprintf(m->error, sizeof m->error, "%s", why);
    lab_iperf_stop(m);
}

/* Runs iperf3 in a guest with its stdout in m->fd. */
static int
spawn(struct lab_iperf *m, struct lab_proc *p, const struct lab_guest *g, const char *const *argv)
{
    int fd, error = lab_proc_spawn_read(p, &g->netns, "iperf3", argv, NULL, &fd);

    if (!error) {
        if (m->fd >= 0) {
            close(m->fd);
        }
        m->fd = fd;
        m->report_len = 0;
    }
    return error;
}

void
lab_iperf_start(struct lab_iperf *m)
{
    const char *argv[] = {"iperf3", "-s", "-1", "--forceflush", NULL};
    int error;

    if (!m->possible || m->state != LAB_IPERF_IDLE) {
        return;
    }
    m->error[0] = '\0';
    m->started_ms = lab_now_ms();
    error = spawn(m, &m->server, &m->lab->guests[m->to], argv);
    if (error == ENOENT) {
        fail(m, "iperf3 is not installed");
    } else if (error) {
        fail(m, strerror(error));
    } else {
        m->state = LAB_IPERF_LISTENING;
    }
}

static void
start_client(struct lab_iperf *m, unsigned seconds)
{
    char time[12];
    const char *argv[] = {"iperf3", "-c", m->lab->guests[m->to].ip, "-t", time, "-J", NULL};

    snprintf(time, sizeof time, "%u", seconds);
    int error = spawn(m, &m->client, &m->lab->guests[m->from], argv);
    if (error) {
        fail(m, strerror(error));
    } else {
        m->state = LAB_IPERF_SENDING;
    }
}

static void
take_report(struct lab_iperf *m)
{
    json_error_t json_error;
    json_t *root = json_loadb(m->report, m->report_len, 0, &json_error);
    const char *why = NULL;
    double bits = 0;

    if (json_unpack(root, "{s:{s:{s:F}}}", "end", "sum_received", "bits_per_second", &bits)) {
        if (json_unpack(root, "{s:s}", "error", &why)) {
            why = "no report";
        }
        fail(m, why);
    } else {
        m->gbps = bits / 1e9;
        m->history[m->n_history++ % LAB_IPERF_HISTORY] = m->gbps;
        lab_iperf_stop(m);
    }
    json_decref(root);
}

void
lab_iperf_event(struct lab_iperf *m, unsigned seconds)
{
    ssize_t n;

    if (m->state == LAB_IPERF_IDLE) {
        return;
    }
    if (lab_now_ms() - m->started_ms > (int64_t)seconds * 1000 + SLACK_MS) {
        fail(m, "took too long");
        return;
    }
    do {
        size_t room = sizeof m->report - m->report_len;
        n = read(m->fd, m->report + m->report_len, room);
        m->report_len += n > 0 ? (size_t)n : 0;
    } while (n > 0 && m->report_len < sizeof m->report);
    bool ended = n == 0 || m->report_len == sizeof m->report;
    if (m->state == LAB_IPERF_SENDING) {
        if (ended) {
            take_report(m);
        }
    } else if (memmem(m->report, m->report_len, "listening", 9)) {
        start_client(m, seconds);
    } else if (ended) {
        fail(m, "the server did not start");
    }
}
