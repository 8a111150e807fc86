/* The broker's domains, their memory, and who maps their grants; see
 * local_broker_impl.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "local_broker_impl.h"
#include "xenstore_sock.h"

/* --- life ------------------------------------------------------------------- */

/* A memfd of fixed size: nobody it is given to can shrink it under another's
 * feet. */
static int
sealed_memfd(const char *name, size_t size, int *fd)
{
    int f = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (f < 0) {
        return errno;
    }
    if (ftruncate(f, size) || fcntl(f, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
        int error = errno;

        close(f);
        return error;
    }
    *fd = f;
    return 0;
}

static void
unref_domain(struct broker_domain *d)
{
    if (--d->refs) {
        return;
    }
    local_view_unmap(&d->view);
    if (d->guest_fd >= 0) {
        close(d->guest_fd);
    }
    if (d->state_fd >= 0) {
        close(d->state_fd);
    }
    free(d->n_read);
    free(d->n_written);
    free(d);
}

static int
init_memory(struct broker_domain *d, uint32_t n_pages, uint32_t n_entries)
{
    char name[32];
    int error;

    d->n_read = calloc(n_entries, sizeof *d->n_read);
    d->n_written = calloc(n_entries, sizeof *d->n_written);
    if (!d->n_read || !d->n_written) {
        return ENOMEM;
    }
    snprintf(name, sizeof name, "dom%u-memory", d->domid);
    error = sealed_memfd(name, local_guest_bytes(n_pages, n_entries), &d->guest_fd);
    if (error) {
        return error;
    }
    snprintf(name, sizeof name, "dom%u-state", d->domid);
    error = sealed_memfd(name, local_state_bytes(n_pages, n_entries), &d->state_fd);
    if (error) {
        return error;
    }
    return local_view_map(&d->view, d->guest_fd, d->state_fd, n_pages, n_entries);
}

int
broker_domain_create(struct broker_conn *conn, const struct local_req *req, struct broker_reply *r)
{
    struct local_broker *b = conn->broker;
    struct broker_domain *d;
    int error;

    if (!req->domid || req->domid > LOCAL_MAX_DOMID || !req->a || req->a > LOCAL_MAX_PAGES ||
        req->b > LOCAL_MAX_GRANTS) {
        return EINVAL;
    }
    if (b->domains[req->domid] && !broker_conn_reap(b->domains[req->domid]->conn)) {
        return EEXIST;
    }
    d = calloc(1, sizeof *d);
    if (!d) {
        return ENOMEM;
    }
    d->broker = b;
    d->domid = req->domid;
    d->refs = 1;
    d->guest_fd = d->state_fd = -1;
    error = init_memory(d, req->a, req->b + GNTTAB_NR_RESERVED_ENTRIES);
    if (!error) {
        error = xenstore_domain_add(b->store, d->domid, &d->listener);
    }
    if (error) {
        unref_domain(d);
        return error;
    }
    d->generation = __atomic_add_fetch(&b->host->n_created, 1, __ATOMIC_RELEASE);
    b->domains[d->domid] = d;
    d->conn = conn;
    conn->kind = CONN_DOMAIN;
    conn->domain = d;
    r->fds[0] = d->guest_fd;
    r->n_fds = 1;
    if (b->verbose) {
        broker_log(b, "domain %u: created, %u pages, %u grants", d->domid, req->a, req->b);
    }
    return 0;
}

void
broker_domain_destroy(struct broker_domain *d)
{
    struct local_broker *b = d->broker;

    __atomic_store_n(&d->view.state->dead, 1, __ATOMIC_RELEASE);
    broker_evtchn_close_all(d);
    b->domains[d->domid] = NULL;
    d->conn->domain = NULL;
    d->conn->kind = CONN_NEW;
    d->conn = NULL;
    xenstore_domain_remove(b->store, d->domid, d->listener);
    d->listener = NULL;
    if (b->verbose) {
        broker_log(b, "domain %u: gone", d->domid);
    }
    unref_domain(d); /* mappings may keep its memory */
}

struct broker_domain *
broker_domain_find(struct local_broker *b, uint32_t domid)
{
    return domid <= LOCAL_MAX_DOMID ? b->domains[domid] : NULL;
}

int
broker_attach(struct broker_conn *conn, const struct local_req *req, struct broker_reply *r)
{
    struct broker_domain *d = broker_domain_find(conn->broker, req->domid);

    if (!d) {
        return ENOENT;
    }
    r->rep->a = d->view.n_pages;
    r->rep->b = d->view.n_entries;
    r->rep->generation = d->generation;
    r->fds[0] = d->guest_fd;
    r->fds[1] = d->state_fd;
    r->n_fds = 2;
    return 0;
}

int
broker_dirty(struct broker_domain *d, const struct local_req *req, struct broker_reply *r)
{
    size_t n_words = local_dirty_words(d->view.n_pages);

    if (req->n > LOCAL_DIRTY_MAX || req->a > n_words || req->n > n_words - req->a) {
        return EINVAL;
    }
    /* A page that is mapped writable may change at any time. */
    for (struct broker_conn *c = d->broker->conns; c; c = c->next) {
        for (uint32_t id = 0; id < c->n_maps; id++) {
            const struct broker_mapping *m = c->maps[id];

            for (uint32_t i = 0; m && m->domain == d && m->writable && i < m->n; i++) {
                local_mark_dirty(&d->view, m->grants[i].page);
            }
        }
    }
    for (uint32_t i = 0; i < req->n; i++) {
        r->rep->words[i] = __atomic_exchange_n(&d->view.dirty[req->a + i], 0, __ATOMIC_SEQ_CST);
    }
    r->rep->n = req->n;
    return 0;
}

/* --- pin owners ------------------------------------------------------------------ */

int
broker_owner_new(struct broker_conn *conn, struct broker_reply *r)
{
    struct local_broker *b = conn->broker;

    if (conn->n_idle_owners) {
        r->rep->a = conn->idle_owners[--conn->n_idle_owners];
        b->owner_is_idle[r->rep->a] = false;
        return 0;
    }
    for (uint32_t i = 0; i < LOCAL_OWNER_BROKER; i++) {
        uint32_t id = (b->next_owner + i) % LOCAL_OWNER_BROKER;

        if (id && !b->owners[id]) {
            b->owners[id] = conn;
            b->next_owner = id + 1;
            conn->n_owners++;
            r->rep->a = id;
            return 0;
        }
    }
    return ENOSPC;
}

int
broker_owner_free(struct broker_conn *conn, uint32_t owner)
{
    struct local_broker *b = conn->broker;
    uint16_t *bigger;

    if (owner >= LOCAL_OWNER_BROKER || b->owners[owner] != conn || b->owner_is_idle[owner]) {
        return EINVAL;
    }
    bigger = realloc(conn->idle_owners, (conn->n_idle_owners + 1) * sizeof *bigger);
    if (!bigger) {
        return ENOMEM;
    }
    conn->idle_owners = bigger;
    conn->idle_owners[conn->n_idle_owners++] = owner;
    b->owner_is_idle[owner] = true;
    return 0;
}

/* --- mappings -------------------------------------------------------------------- */

static int
new_map_id(struct broker_conn *conn, uint32_t *id)
{
    for (uint32_t i = conn->free_hint; i < conn->n_maps; i++) {
        if (!conn->maps[i]) {
            conn->free_hint = i + 1;
            *id = i;
            return 0;
        }
    }
    uint32_t n = conn->n_maps ? conn->n_maps * 2 : 64;
    struct broker_mapping **bigger = realloc(conn->maps, n * sizeof *bigger);
    if (!bigger) {
        return ENOMEM;
    }
    memset(bigger + conn->n_maps, 0, (n - conn->n_maps) * sizeof *bigger);
    *id = conn->n_maps;
    conn->free_hint = *id + 1;
    conn->maps = bigger;
    conn->n_maps = n;
    return 0;
}

/* Counts one mapping of a grant less and clears what that leaves unused. */
static void
unmap_grant(struct broker_mapping *m, uint32_t i)
{
    struct broker_domain *d = m->domain;
    uint32_t ref = m->grants[i].ref;

    if (m->writable) {
        local_mark_dirty(&d->view, m->grants[i].page);
        d->n_written[ref]--;
    } else {
        d->n_read[ref]--;
    }
    local_pin_unmap(&d->view, ref, d->n_read[ref], d->n_written[ref]);
}

static void
destroy_mapping(struct broker_mapping *m)
{
    for (uint32_t i = 0; i < m->n; i++) {
        unmap_grant(m, i);
    }
    unref_domain(m->domain);
    free(m);
}

/* Pins the grants of a mapping, each with its status in the reply.  Returns
 * how many were refused. */
static uint32_t
map_grants(struct broker_mapping *m, const struct local_req *req, struct local_rep *rep)
{
    struct broker_domain *d = m->domain;
    uint32_t n_failed = 0;

    for (uint32_t i = 0; i < req->n; i++) {
        uint32_t ref = req->refs[i], page = 0;
        int status = local_pin_map(&d->view, ref, LOCAL_BACKEND_DOMID, m->writable, &page);

        rep->maps[i] = (struct local_map_result){.status = status, .page = page};
        if (status != GNTST_okay) {
            n_failed++;
            continue;
        }
        m->grants[m->n].ref = ref;
        m->grants[m->n].page = page;
        m->n++;
        if (m->writable) {
            d->n_written[ref]++;
        } else {
            d->n_read[ref]++;
        }
    }
    return n_failed;
}

int
broker_map(struct broker_conn *conn, const struct local_req *req, struct broker_reply *r)
{
    struct broker_domain *d = broker_domain_find(conn->broker, req->domid);
    struct broker_mapping *m;
    uint32_t id;
    int error;

    if (!req->n || req->n > LOCAL_MAP_MAX) {
        return EINVAL;
    }
    if (!d || d->generation != req->b) {
        return ESRCH;
    }
    error = new_map_id(conn, &id);
    if (error) {
        return error;
    }
    m = malloc(sizeof *m + req->n * sizeof m->grants[0]);
    if (!m) {
        return ENOMEM;
    }
    m->domain = d;
    m->writable = req->a;
    m->n = 0;
    d->refs++;
    r->rep->n = req->n;
    r->rep->b = map_grants(m, req, r->rep);
    if (r->rep->b) {
        destroy_mapping(m); /* all or none */
        return 0;
    }
    conn->maps[id] = m;
    r->rep->a = id;
    return 0;
}

int
broker_unmap(struct broker_conn *conn, uint32_t id)
{
    if (id >= conn->n_maps || !conn->maps[id]) {
        return EINVAL;
    }
    destroy_mapping(conn->maps[id]);
    conn->maps[id] = NULL;
    conn->free_hint = id < conn->free_hint ? id : conn->free_hint;
    return 0;
}

/* --- the death of a backend -------------------------------------------------------- */

static bool
is_owned_by(void *conn_, uint16_t owner)
{
    struct broker_conn *conn = conn_;

    return conn->broker->owners[owner] == conn;
}

void
broker_release_grants(struct broker_conn *conn)
{
    struct local_broker *b = conn->broker;

    /* First the pins: a lock that the dead hold would delay the unmapping. */
    if (conn->n_owners) {
        for (uint32_t domid = 0; domid <= LOCAL_MAX_DOMID; domid++) {
            if (b->domains[domid]) {
                local_pin_heal(&b->domains[domid]->view, is_owned_by, conn);
            }
        }
        for (uint32_t id = 0; id < LOCAL_OWNER_BROKER; id++) {
            if (b->owners[id] == conn) {
                b->owners[id] = NULL;
                b->owner_is_idle[id] = false;
            }
        }
        conn->n_owners = 0;
    }
    free(conn->idle_owners);
    conn->idle_owners = NULL;
    conn->n_idle_owners = 0;
    for (uint32_t id = 0; id < conn->n_maps; id++) {
        if (conn->maps[id]) {
            destroy_mapping(conn->maps[id]);
        }
    }
    free(conn->maps);
    conn->maps = NULL;
    conn->n_maps = 0;
}
