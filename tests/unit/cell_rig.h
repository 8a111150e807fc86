/* cell_rig: cells as processes of a test, which is the switch that their guests talk to.
 *
 *   weft-cell ==rings== netback ==bursts== the test
 *
 * Between rig_netback() and rig_end() (nb_rig.h); from one thread. */
#ifndef CELL_RIG_H
#define CELL_RIG_H

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "driver_list.h"
#include "nb_rig.h"

#define MAC "02:00:00:00:50:01"
#define ECHO 7
#define HTTP 80

static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0x50, 1}, our_mac[6] = {2, 0, 0, 0, 0, 1};
static const uint8_t guest_ip[4] = {10, 0, 0, 2}, our_ip[4] = {10, 0, 0, 1};

struct host {
    uint16_t domid;
    pid_t pid;
    char control[128];
    struct netback_vif *vif;
    struct mig_guest *guest;
};

static struct mig_option options[1];
static char why[MIG_WHY];

/* --- processes ---------------------------------------------------------------------- */

static inline const char *
weft_bin(void)
{
    const char *dir = getenv("WEFT_BIN");

    return dir ? dir : "build/bin";
}

static inline void
start_cell(struct host *h, uint16_t domid, const char *cmdline, const char *dirty_log,
           bool incoming)
{
    char program[256], id[8], log[128];
    const char *argv[] = {program,
                          "--image",
                          "build/share/cell.img",
                          "--dir",
                          rig_dir(),
                          "--domid",
                          id,
                          "--control",
                          h->control,
                          "--memory",
                          "64M",
                          "--vif",
                          "mac=" MAC ",ip=10.0.0.2/24",
                          "--cmdline",
                          cmdline,
                          "--run-log",
                          log,
                          "--dirty-log",
                          dirty_log,
                          incoming ? "--incoming" : NULL,
                          NULL};

    h->domid = domid;
    h->guest = NULL;
    snprintf(program, sizeof program, "%s/weft-cell", weft_bin());
    snprintf(id, sizeof id, "%u", domid);
    snprintf(h->control, sizeof h->control, "%s/cell%u.sock", rig_dir(), domid);
    snprintf(log, sizeof log, "%s/run.log", rig_dir());
    h->vif = rig_attach(domid);
    h->pid = fork();
    if (!h->pid) {
        execv(program, (char **)argv);
        _exit(127);
    }
}

static inline struct mig_guest_config
config_of(const struct host *h)
{
    options[0] = (struct mig_option){"control", h->control};
    return (struct mig_guest_config){.options = options, .n_options = 1, .vm = "vm"};
}

static inline bool
attach(struct host *h)
{
    struct mig_guest_config config = config_of(h);

    return RIG_UNTIL(!mig_driver_cell.attach(&config, &h->guest, why), RIG_PATIENCE_MS);
}

static inline bool
ended(const struct host *h)
{
    int status;

    return RIG_UNTIL(waitpid(h->pid, &status, WNOHANG) == h->pid, RIG_PATIENCE_MS) &&
           WIFEXITED(status) && !WEXITSTATUS(status);
}

static inline void
end_cell(struct host *h)
{
    if (h->guest) {
        CHECK(!mig_driver_cell.destroy(h->guest));
        mig_driver_cell.detach(h->guest);
        CHECK(ended(h));
    } else {
        kill(h->pid, SIGKILL);
        waitpid(h->pid, NULL, 0);
    }
    netback_detach(h->vif);
}

/* --- frames -------------------------------------------------------------------------- */

static inline void
put16(uint8_t *at, unsigned v)
{
    at[0] = (uint8_t)(v >> 8);
    at[1] = (uint8_t)v;
}

static inline uint16_t
ip_sum(const uint8_t *ip)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < 20; i += 2) {
        sum += (uint32_t)ip[i] << 8 | ip[i + 1];
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t) ~(sum + (sum >> 16));
}

/* A UDP datagram to the guest, without a checksum. */
static inline uint32_t
make_udp(uint8_t *f, unsigned port, const void *data, size_t n)
{
    memset(f, 0, 42);
    memcpy(f, guest_mac, 6);
    memcpy(f + 6, our_mac, 6);
    put16(f + 12, 0x0800);
    f[14] = 0x45;
    put16(f + 16, (unsigned)(28 + n));
    f[22] = 64;
    f[23] = 17;
    memcpy(f + 26, our_ip, 4);
    memcpy(f + 30, guest_ip, 4);
    put16(f + 24, ip_sum(f + 14));
    put16(f + 34, 4000);
    put16(f + 36, port);
    put16(f + 38, (unsigned)(8 + n));
    memcpy(f + 42, data, n);
    return (uint32_t)(42 + n);
}

static inline void
send_udp(struct netback_vif *v, unsigned port, const void *data, size_t n)
{
    uint8_t f[1514];
    uint32_t len = make_udp(f, port, data, n);
    struct rte_mbuf *m = rig_mbuf(f, len < 60 ? 60 : len);

    netback_tx_burst(v, &m, 1);
}

/* Answers the guest's ARP requests for us; true if it was one. */
static inline bool
answer_arp(struct netback_vif *v, const uint8_t *f)
{
    uint8_t r[60] = {0};
    struct rte_mbuf *m;

    if (f[12] != 8 || f[13] != 6 || f[21] != 1 || memcmp(f + 38, our_ip, 4)) {
        return false;
    }
    memcpy(r, f + 6, 6);
    memcpy(r + 6, our_mac, 6);
    memcpy(r + 12, f + 12, 9);
    r[21] = 2;
    memcpy(r + 22, our_mac, 6);
    memcpy(r + 28, our_ip, 4);
    memcpy(r + 32, f + 22, 10);
    m = rig_mbuf(r, sizeof r);
    netback_tx_burst(v, &m, 1);
    return true;
}

/* Takes what the guest sends; true if a datagram from 'port' is among it that begins
 * with 'with', and is copied to 'text' then. */
static inline bool
take_udp(struct netback_vif *v, unsigned port, const char *with, char *text, size_t size)
{
    struct rte_mbuf *pkts[32];
    bool found = false;
    unsigned n = rig_collect(v, pkts, NULL, 32, 0);

    for (unsigned i = 0; i < n; i++) {
        const uint8_t *f = rte_pktmbuf_mtod(pkts[i], uint8_t *);
        uint32_t len = pkts[i]->pkt_len;

        if (len >= 42 && !answer_arp(v, f) && f[12] == 8 && f[13] == 0 && f[23] == 17 &&
            (f[34] << 8 | f[35]) == (int)port &&
            !strncmp((const char *)f + 42, with, strlen(with))) {
            size_t data = (size_t)(f[38] << 8 | f[39]) - 8;
            data = data < size - 1 ? data : size - 1;
            memcpy(text, f + 42, data);
            text[data] = '\0';
            found = true;
        }
    }
    rig_free(pkts, n);
    return found;
}

/* Sends until the guest answers (it may not be connected yet), in words that begin
 * with 'with': what it still says to others does not count. */
static inline bool
ask(struct netback_vif *v, unsigned port, const char *text, const char *with, char *answer,
    size_t size)
{
    for (unsigned i = 0; i < 200; i++) {
        send_udp(v, port, text, strlen(text));
        if (RIG_UNTIL(take_udp(v, port, with, answer, size), RIG_PATIENCE_MS / 200)) {
            return true;
        }
    }
    return false;
}

static inline bool
echoes(struct netback_vif *v)
{
    char answer[64];

    return ask(v, ECHO, "are you there", "are you there", answer, sizeof answer);
}

/* A number of the guest's statistics. */
static inline unsigned long long
stat_of(struct netback_vif *v, const char *request, const char *key)
{
    char json[1400], name[32];

    snprintf(name, sizeof name, "\"%s\": ", key);
    if (!ask(v, HTTP, request, "{", json, sizeof json) || !strstr(json, name)) {
        return ~0ull;
    }
    /* The dirtier's come last. */
    const char *at = json, *last = json;
    while ((at = strstr(at, name))) {
        last = at++;
    }
    return strtoull(last + strlen(name), NULL, 10);
}

#endif
