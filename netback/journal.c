#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define JOURNAL_MAGIC 0x6a66697674666577ull /* "weftvifj" */
#define JOURNAL_VERSION 2u

static void
journal_path(char *buf, size_t size, const char *dir, uint16_t domid, uint32_t handle)
{
    snprintf(buf, size, "%s/vif-%u.%u", dir, domid, handle);
}

static bool
journal_valid(const struct journal *j)
{
    return j->magic == JOURNAL_MAGIC && j->version == JOURNAL_VERSION && j->size == sizeof *j;
}

int
journal_open(const char *dir, uint16_t domid, uint32_t handle, struct journal **journal)
{
    char path[512];
    struct stat st;
    int error = 0;

    journal_path(path, sizeof path, dir, domid, handle);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return errno;
    }
    if (fstat(fd, &st) ||
        (st.st_size != sizeof **journal && (ftruncate(fd, 0) || ftruncate(fd, sizeof **journal)))) {
        error = errno;
        goto out;
    }
    struct journal *j = mmap(NULL, sizeof *j, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (j == MAP_FAILED) {
        error = errno;
        goto out;
    }
    if (!journal_valid(j)) {
        /* Punching a hole also frees the pages. */
        if (ftruncate(fd, 0) || ftruncate(fd, sizeof *j)) {
            error = errno;
            munmap(j, sizeof *j);
            goto out;
        }
        j->version = JOURNAL_VERSION;
        j->size = sizeof *j;
        j->magic = JOURNAL_MAGIC;
    }
    j->hash.mapping = j->hash_mapping;
    *journal = j;
out:
    close(fd);
    return error;
}

void
journal_close(struct journal *j)
{
    if (j) {
        munmap(j, sizeof *j);
    }
}

void
journal_remove(const char *dir, uint16_t domid, uint32_t handle)
{
    char path[512];

    journal_path(path, sizeof path, dir, domid, handle);
    unlink(path);
}

static unsigned
gref_top(const struct journal *j, unsigned q)
{
    return j->gref_top[q] < JOURNAL_GREFS_MAX ? j->gref_top[q] : JOURNAL_GREFS_MAX;
}

static void
grefs_clear(struct journal *j)
{
    for (unsigned q = 0; q < NETBACK_MAX_QUEUES; q++) {
        for (unsigned i = 0; i < gref_top(j, q); i++) {
            j->grefs[q][i].state = JGREF_FREE;
        }
        j->gref_top[q] = 0;
    }
}

void
journal_reset(struct journal *j, const struct journal_connection *c)
{
    uint32_t mapped = j->hash.mapping_size;
    if (mapped > HASH_MAPPING_MAX) {
        mapped = HASH_MAPPING_MAX;
    }

    memset(&j->connection, 0, sizeof j->connection);
    grefs_clear(j);
    j->ctrl_log.under_way = false;
    for (unsigned q = 0; q < NETBACK_MAX_QUEUES; q++) {
        j->tx_log[q].from = j->tx_log[q].to = 0;
        j->rx_log[q].from = j->rx_log[q].to = 0;
    }
    for (unsigned i = 0; i < MCAST_MAX; i++) {
        j->mcast.addr[i] = 0;
    }
    j->mcast.enabled = false;
    j->hash.algorithm = 0;
    j->hash.flags = 0;
    j->hash.mapping_size = 0;
    for (unsigned i = 0; i < HASH_KEY_MAX / 4; i++) {
        j->hash.key[i] = 0;
    }
    for (unsigned i = 0; i < mapped; i++) {
        j->hash_mapping[i] = 0;
    }
    j->connection = *c;
}

bool
journal_matches(const struct journal *j, const struct journal_connection *c)
{
    return !memcmp(&j->connection, c, sizeof *c);
}

static struct jgref *
gref_find_mapped(struct journal *j, unsigned q, uint32_t ref)
{
    for (unsigned i = 0; i < gref_top(j, q); i++) {
        struct jgref *g = &j->grefs[q][i];
        if (g->state == JGREF_MAPPED && g->ref == ref) {
            return g;
        }
    }
    return NULL;
}

/* An entry that may be filled by 'request', or NULL.  What an earlier request
 * removed is gone for good, because requests are answered one by one. */
static struct jgref *
gref_find_free(struct journal *j, unsigned q, uint32_t request)
{
    for (unsigned i = 0; i < gref_top(j, q); i++) {
        struct jgref *g = &j->grefs[q][i];
        if (g->state == JGREF_FREE || (g->state == JGREF_REMOVING && g->request != request)) {
            return g;
        }
    }
    return NULL;
}

int
journal_gref_add(struct journal *j, unsigned q, uint32_t ref, bool readonly, uint32_t request)
{
    struct jgref *g = gref_find_free(j, q, request);

    if (!g) {
        if (gref_top(j, q) == JOURNAL_GREFS_MAX) {
            return ENOSPC;
        }
        g = &j->grefs[q][gref_top(j, q)];
        g->state = JGREF_FREE;
        atomic_signal_fence(memory_order_release);
        j->gref_top[q]++;
    }
    g->state = JGREF_FREE;
    atomic_signal_fence(memory_order_release);
    g->ref = ref;
    g->readonly = readonly;
    g->request = request;
    atomic_signal_fence(memory_order_release);
    g->state = JGREF_MAPPED;
    return 0;
}

void
journal_gref_removing(struct journal *j, unsigned q, uint32_t ref, uint32_t request)
{
    struct jgref *g = gref_find_mapped(j, q, ref);

    if (g) {
        g->request = request;
        atomic_signal_fence(memory_order_release);
        g->state = JGREF_REMOVING;
    }
}

void
journal_settle(struct journal *j, uint32_t answered)
{
    for (unsigned q = 0; q < NETBACK_MAX_QUEUES; q++) {
        for (unsigned i = 0; i < gref_top(j, q); i++) {
            struct jgref *g = &j->grefs[q][i];
            bool done = (int32_t)(answered - g->request) > 0;

            if (g->state == JGREF_MAPPED && !done) {
                g->state = JGREF_FREE;
            } else if (g->state == JGREF_REMOVING) {
                g->state = done ? JGREF_FREE : JGREF_MAPPED;
            }
        }
    }
}
