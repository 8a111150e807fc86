/* local: the guest's side; see local.h.
 *
 * The guest owns its memory, its grant table and its ends of the event
 * channels, and works on them without the broker; only creating, allocating
 * and closing, and what a toolstack would ask the hypervisor, are requests. */
#include "local.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "local_proto.h"
#include "local_rpc.h"

struct channel {
    int in;  /* readable when the remote side notified; -1 if closed */
    int out; /* written to notify the remote side */
};

struct local_domain {
    struct local_rpc rpc;
    char *dir;
    uint16_t domid;
    uint32_t n_pages;
    uint32_t n_entries;
    int memory_fd;

    uint8_t *guest; /* the whole memfd */
    grant_entry_v1_t *table;
    uint8_t *memory;

    pthread_mutex_t lock; /* guards what follows */
    uint32_t *free_refs;  /* stack of references not in use */
    uint32_t n_free;
    uint8_t *in_use; /* by reference: handed out */

    /* By port.  Written under 'lock', read by any thread that owns the port. */
    struct channel channels[LOCAL_MAX_PORTS];
};

static int
map_guest(struct local_domain *d, int fd)
{
    void *p = mmap(NULL, local_guest_bytes(d->n_pages, d->n_entries), PROT_READ | PROT_WRITE,
                   MAP_SHARED, fd, 0);

    d->memory_fd = fd;
    if (p == MAP_FAILED) {
        return errno;
    }
    d->guest = p;
    d->table = p;
    d->memory = d->guest + local_table_bytes(d->n_entries);
    return 0;
}

static int
init_refs(struct local_domain *d)
{
    d->free_refs = malloc(d->n_entries * sizeof *d->free_refs);
    d->in_use = calloc(d->n_entries, 1);
    if (!d->free_refs || !d->in_use) {
        return ENOMEM;
    }
    /* The lowest reference on top, so that they are handed out in order. */
    for (uint32_t ref = d->n_entries; ref-- > GNTTAB_NR_RESERVED_ENTRIES;) {
        d->free_refs[d->n_free++] = ref;
    }
    return 0;
}

static void
destroy_memory(struct local_domain *d)
{
    if (d->guest) {
        munmap(d->guest, local_guest_bytes(d->n_pages, d->n_entries));
    }
    if (d->memory_fd >= 0) {
        close(d->memory_fd);
    }
    free(d->free_refs);
    free(d->in_use);
    free(d->dir);
    free(d);
}

int
local_domain_create(const char *dir, uint16_t domid, uint32_t n_pages, uint32_t n_grants,
                    struct local_domain **dp)
{
    struct local_req req = {.op = LOCAL_OP_CREATE, .domid = domid, .a = n_pages, .b = n_grants};
    struct local_domain *d;
    struct local_rep rep;
    int error, fd;

    *dp = NULL;
    if (!n_pages || n_pages > LOCAL_MAX_PAGES || n_grants > LOCAL_MAX_GRANTS) {
        return EINVAL;
    }
    d = calloc(1, sizeof *d);
    if (!d) {
        return ENOMEM;
    }
    d->domid = domid;
    d->n_pages = n_pages;
    d->memory_fd = -1;
    d->n_entries = n_grants + GNTTAB_NR_RESERVED_ENTRIES;
    for (unsigned i = 0; i < LOCAL_MAX_PORTS; i++) {
        d->channels[i] = (struct channel){-1, -1};
    }
    d->dir = strdup(dir);
    error = d->dir ? init_refs(d) : ENOMEM;
    if (error) {
        goto err_memory;
    }
    error = local_rpc_open(&d->rpc, dir);
    if (error) {
        goto err_memory;
    }
    error = local_rpc_call(&d->rpc, &req, 0, &rep, &fd, 1);
    if (error) {
        goto err_rpc;
    }
    error = map_guest(d, fd);
    if (error) {
        goto err_rpc;
    }
    pthread_mutex_init(&d->lock, NULL);
    *dp = d;
    return 0;

err_rpc:
    local_rpc_close(&d->rpc);
err_memory:
    destroy_memory(d);
    return error;
}

void
local_domain_destroy(struct local_domain *d)
{
    struct local_req req = {.op = LOCAL_OP_DESTROY};
    struct local_rep rep;

    if (!d) {
        return;
    }
    /* Closing the connection would end the domain too, but some time later. */
    local_rpc_call(&d->rpc, &req, 0, &rep, NULL, 0);
    for (unsigned port = 0; port < LOCAL_MAX_PORTS; port++) {
        if (d->channels[port].in >= 0) {
            close(d->channels[port].in);
            close(d->channels[port].out);
        }
    }
    local_rpc_close(&d->rpc);
    pthread_mutex_destroy(&d->lock);
    destroy_memory(d);
}

uint16_t
local_domain_id(const struct local_domain *d)
{
    return d->domid;
}

void *
local_domain_memory(struct local_domain *d)
{
    return d->memory;
}

int
local_domain_memory_fd(const struct local_domain *d, uint64_t *offset)
{
    *offset = local_table_bytes(d->n_entries);
    return d->memory_fd;
}

/* --- grants --------------------------------------------------------------- */

uint32_t
local_grant_access(struct local_domain *d, uint16_t remote, uint32_t page, bool readonly)
{
    grant_entry_v1_t *e;
    uint32_t ref;

    pthread_mutex_lock(&d->lock);
    ref = d->n_free ? d->free_refs[--d->n_free] : 0;
    if (ref) {
        d->in_use[ref] = 1;
    }
    pthread_mutex_unlock(&d->lock);
    if (!ref) {
        return 0;
    }
    /* grant_table.h: frame and domid first, then the flags that make it valid. */
    e = &d->table[ref];
    e->domid = remote;
    e->frame = page;
    __atomic_store_n(&e->flags, GTF_permit_access | (readonly ? GTF_readonly : 0),
                     __ATOMIC_RELEASE);
    return ref;
}

int
local_grant_end(struct local_domain *d, uint32_t ref)
{
    uint16_t flags;

    if (ref < GNTTAB_NR_RESERVED_ENTRIES || ref >= d->n_entries) {
        return EINVAL;
    }
    flags = __atomic_load_n(&d->table[ref].flags, __ATOMIC_RELAXED);
    do {
        if (flags & (GTF_reading | GTF_writing)) {
            return EBUSY;
        }
    } while (!__atomic_compare_exchange_n(&d->table[ref].flags, &flags, 0, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
    int error = EINVAL;
    pthread_mutex_lock(&d->lock);
    if (d->in_use[ref]) {
        d->in_use[ref] = 0;
        d->free_refs[d->n_free++] = ref;
        error = 0;
    }
    pthread_mutex_unlock(&d->lock);
    return error;
}

/* --- event channels --------------------------------------------------------- */

int
local_evtchn_alloc(struct local_domain *d, uint16_t remote, uint32_t *port, int *fd)
{
    struct local_req req = {.op = LOCAL_OP_ALLOC, .domid = remote};
    struct local_rep rep;
    int fds[2];
    int error;

    error = local_rpc_call(&d->rpc, &req, 0, &rep, fds, 2);
    if (error) {
        return error;
    }
    if (rep.a >= LOCAL_MAX_PORTS) {
        close(fds[0]);
        close(fds[1]);
        return EPROTO;
    }
    pthread_mutex_lock(&d->lock);
    d->channels[rep.a] = (struct channel){.in = fds[0], .out = fds[1]};
    pthread_mutex_unlock(&d->lock);
    *port = rep.a;
    *fd = fds[0];
    return 0;
}

void
local_evtchn_close(struct local_domain *d, uint32_t port)
{
    struct local_req req = {.op = LOCAL_OP_CLOSE, .a = port};
    struct channel c = {-1, -1};
    struct local_rep rep;

    if (port >= LOCAL_MAX_PORTS) {
        return;
    }
    pthread_mutex_lock(&d->lock);
    c = d->channels[port];
    d->channels[port] = (struct channel){-1, -1};
    pthread_mutex_unlock(&d->lock);
    if (c.in >= 0) {
        close(c.in);
        close(c.out);
        /* Last, for the broker may hand the port out again at once. */
        local_rpc_call(&d->rpc, &req, 0, &rep, NULL, 0);
    }
}

void
local_evtchn_notify(struct local_domain *d, uint32_t port)
{
    const uint64_t one = 1;

    /* A full counter means that a notification is pending anyway. */
    if (port < LOCAL_MAX_PORTS && d->channels[port].out >= 0 &&
        write(d->channels[port].out, &one, sizeof one) < 0) {
        return;
    }
}

bool
local_evtchn_clear(struct local_domain *d, uint32_t port)
{
    uint64_t n;

    return port < LOCAL_MAX_PORTS && d->channels[port].in >= 0 &&
           read(d->channels[port].in, &n, sizeof n) == sizeof n;
}

/* --- the store ----------------------------------------------------------------- */

int
local_store_open(struct local_domain *d, struct xs_handle **xs)
{
    char name[32];

    snprintf(name, sizeof name, "dom%u-xenstored", d->domid);
    return local_xs_open(d->dir, name, xs);
}

void
local_store_path(const char *dir, char *buf, size_t size)
{
    snprintf(buf, size, "%s/xenstored", dir);
}

/* --- what a toolstack asks the hypervisor --------------------------------------- */

void
local_dirty_fetch_clear(struct local_domain *d, uint64_t *bitmap)
{
    size_t n_words = local_dirty_words(d->n_pages);
    struct local_rep rep;

    for (size_t done = 0; done < n_words;) {
        size_t n = n_words - done < LOCAL_DIRTY_MAX ? n_words - done : LOCAL_DIRTY_MAX;
        struct local_req req = {.op = LOCAL_OP_DIRTY, .a = done, .n = n};

        if (local_rpc_call(&d->rpc, &req, 0, &rep, NULL, 0) || rep.n != n) {
            /* Without the hypervisor's word every page may have changed. */
            memset(bitmap + done, 0xff, (n_words - done) * sizeof *bitmap);
            return;
        }
        memcpy(bitmap + done, rep.words, n * sizeof *bitmap);
        done += n;
    }
}

unsigned
local_grants_in_use(struct local_domain *d)
{
    struct local_req req = {.op = LOCAL_OP_IN_USE};
    struct local_rep rep;

    return local_rpc_call(&d->rpc, &req, 0, &rep, NULL, 0) ? 0 : rep.a;
}
