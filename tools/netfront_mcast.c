/* netfront_mcast: see netfront_mcast.h. */
#include "netfront_mcast.h"
#include "hex.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void
nf_mcast_init(struct nf_mcast *m)
{
    memset(m, 0, sizeof *m);
    pthread_mutex_init(&m->lock, NULL);
}

static bool
set_has(const struct nf_mcast_set *set, const uint8_t mac[6])
{
    for (unsigned i = 0; i < set->n; i++) {
        if (!memcmp(set->mac[i], mac, 6)) {
            return true;
        }
    }
    return false;
}

static void
set_add(struct nf_mcast_set *set, const uint8_t mac[6])
{
    if (set->n < NF_MCAST_MAX && !set_has(set, mac)) {
        memcpy(set->mac[set->n++], mac, 6);
    }
}

bool
nf_mcast_set(struct nf_mcast *m, const struct nf_mcast_set *wanted)
{
    bool differs;

    pthread_mutex_lock(&m->lock);
    differs = wanted->n != m->wanted.n ||
              memcmp(wanted->mac, m->wanted.mac, wanted->n * sizeof wanted->mac[0]) != 0;
    if (differs) {
        m->wanted = *wanted;
        atomic_store_explicit(&m->changed, true, memory_order_relaxed);
    }
    pthread_mutex_unlock(&m->lock);
    return differs;
}

void
nf_mcast_reset(struct nf_mcast *m)
{
    m->told.n = 0;
    atomic_store_explicit(&m->changed, true, memory_order_relaxed);
}

/* Removals first, because the backend's list is short. */
static int
send_difference(struct nf_mcast *m, struct nf_queue *q, const struct nf_mcast_set *wanted)
{
    for (unsigned i = 0; i < m->told.n;) {
        if (set_has(wanted, m->told.mac[i])) {
            i++;
            continue;
        }
        int error = nf_tx_put_mcast(q, m->told.mac[i], false);
        if (error) {
            return error;
        }
        memmove(m->told.mac[i], m->told.mac[--m->told.n], 6);
    }
    for (unsigned i = 0; i < wanted->n; i++) {
        if (set_has(&m->told, wanted->mac[i])) {
            continue;
        }
        int error = nf_tx_put_mcast(q, wanted->mac[i], true);
        if (error) {
            return error;
        }
        set_add(&m->told, wanted->mac[i]);
    }
    return 0;
}

void
nf_mcast_flush(struct nf_mcast *m, struct nf_queue *q)
{
    struct nf_mcast_set wanted;

    pthread_mutex_lock(&m->lock);
    wanted = m->wanted;
    atomic_store_explicit(&m->changed, false, memory_order_relaxed);
    pthread_mutex_unlock(&m->lock);

    if (send_difference(m, q, &wanted)) {
        atomic_store_explicit(&m->changed, true, memory_order_relaxed);
    }
    nf_tx_push(q);
}

/* A line is "2 eth0 1 0 01005e000001": index, name, users, global users, address. */
static bool
parse_line(const char *line, const char *ifname, uint8_t mac[6])
{
    char name[32], hex[16];

    return sscanf(line, "%*d %31s %*d %*d %15s", name, hex) == 2 && !strcmp(name, ifname) &&
           hex_bytes(hex, mac, 6);
}

int
nf_mcast_read_proc(int fd, const char *ifname, struct nf_mcast_set *set)
{
    char text[16384];
    size_t len = 0;
    char *save = NULL;

    set->n = 0;
    if (lseek(fd, 0, SEEK_SET) < 0) {
        return errno;
    }
    for (;;) {
        ssize_t n = read(fd, text + len, sizeof text - 1 - len);
        if (n < 0) {
            return errno;
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    text[len] = '\0';
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        uint8_t mac[6];
        if (parse_line(line, ifname, mac)) {
            set_add(set, mac);
        }
    }
    return 0;
}
