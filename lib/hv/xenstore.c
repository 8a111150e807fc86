/* xenstore: the store, its clients, and their input and output; see
 * xenstore.h. */
#include "xenstore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "xenstore_impl.h"

uint32_t xsmap_seed = 2166136261u;

/* --- the store ---------------------------------------------------------------- */

/* Makes a node with what is missing above it, unless it exists. */
static void
make_node(struct xenstore *s, const char *path, const char *value, const struct xsperm *perms,
          uint32_t n_perms)
{
    char part[128];
    size_t len;

    xstree_nearest(&s->tree, path, &len);
    if (!path[len]) {
        return;
    }
    while (path[len]) {
        len += path[len] == '/';
        len += strcspn(path + len, "/");
        snprintf(part, sizeof part, "%.*s", (int)len, path);
        xstree_create(&s->tree, part, 0);
    }
    xstree_set_data(&s->tree, path, value, strlen(value));
    xstree_set_perms(&s->tree, path, perms, n_perms);
    xs_note_change(s, path, xstree_find(&s->tree, path), false, NULL, 0);
}

struct xenstore *
xenstore_create(void (*wake)(void *))
{
    static const struct xsperm dom0_only = {.domid = 0, .bits = 0};
    struct xenstore *s = calloc(1, sizeof *s);
    uint32_t seed;

    if (!s) {
        return NULL;
    }
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == sizeof seed) {
        xsmap_seed = seed;
    }
    s->wake = wake;
    s->events_end = &s->events;
    xstree_init(&s->tree, &s->gen, s->counts);
    make_node(s, "/tool/xenstored", "", &dom0_only, 1);
    make_node(s, "/local/domain/0/domid", "0", &dom0_only, 1);
    make_node(s, "/local/domain/0/name", "Domain-0", &dom0_only, 1);
    s->domains[0].introduced = true;
    xs_tell_watchers(s);
    return s;
}

void
xenstore_destroy(struct xenstore *s)
{
    if (!s) {
        return;
    }
    xstree_destroy(&s->tree);
    free(s->watches.buckets);
    free(s);
}

/* What xl makes for a domain, as far as a guest here may look for it. */
void
xenstore_introduce(struct xenstore *s, uint16_t domid)
{
    static const struct {
        const char *name;
        bool guest_owns;
    } dirs[] = {{"device", false}, {"control", false}, {"control/shutdown", true},
                {"memory", false}, {"data", true},     {"drivers", true},
                {"feature", true}, {"attr", true},     {"error", true}};
    const struct xsperm readable[] = {{.domid = 0}, {.domid = domid, .bits = PERM_READ}};
    const struct xsperm owned = {.domid = domid};
    char path[64], value[16];

    if (domid >= XS_N_DOMIDS) {
        return;
    }
    snprintf(path, sizeof path, "/local/domain/%u", domid);
    make_node(s, path, "", readable, 2);
    snprintf(path, sizeof path, "/local/domain/%u/domid", domid);
    snprintf(value, sizeof value, "%u", domid);
    make_node(s, path, value, readable, 2);
    snprintf(path, sizeof path, "/local/domain/%u/name", domid);
    snprintf(value, sizeof value, "dom%u", domid);
    make_node(s, path, value, readable, 2);
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        snprintf(path, sizeof path, "/local/domain/%u/%s", domid, dirs[i].name);
        make_node(s, path, "", dirs[i].guest_owns ? &owned : readable, dirs[i].guest_owns ? 1 : 2);
    }
    s->domains[domid].introduced = true;
    xs_note_change(s, "@introduceDomain", NULL, true, NULL, 0);
    xs_tell_watchers(s);
}

void
xenstore_release(struct xenstore *s, uint16_t domid)
{
    if (domid >= XS_N_DOMIDS) {
        return;
    }
    s->domains[domid].introduced = false;
    s->domains[domid].target = 0;
    xs_note_change(s, "@releaseDomain", NULL, true, NULL, 0);
    xs_tell_watchers(s);
}

/* --- clients --------------------------------------------------------------------- */

struct xenstore_client *
xenstore_client_create(struct xenstore *s, uint16_t domid, void *ctx)
{
    struct xenstore_client *c = calloc(1, sizeof *c);

    if (c) {
        c->store = s;
        c->ctx = ctx;
        c->domid = domid;
        c->out_end = &c->out;
    }
    return c;
}

static void
pop_message(struct xenstore_client *c)
{
    struct xs_message *m = c->out;

    c->out = m->next;
    if (!c->out) {
        c->out_end = &c->out;
    }
    if (m->is_event) {
        xsmap_remove(&c->pending_events, &m->by_payload);
    }
    free(m);
}

void
xenstore_client_destroy(struct xenstore_client *c)
{
    if (!c) {
        return;
    }
    xs_watch_remove_all(c);
    xs_txn_abort_all(c);
    while (c->out) {
        pop_message(c);
    }
    free(c->pending_events.buckets);
    free(c);
}

const char *
xenstore_client_fault(const struct xenstore_client *c)
{
    return c->fault;
}

/* --- output ------------------------------------------------------------------------ */

void
xs_send(struct xenstore_client *c, const struct xsd_sockmsg *hdr, const void *payload, size_t len,
        bool is_event)
{
    struct xs_message *m;

    if (c->fault || (is_event && xsmap_find(&c->pending_events, payload, len))) {
        return;
    }
    if (c->n_out + sizeof *hdr + len > (is_privileged(c) ? DOM0_MAX_BYTES : DOMAIN_MAX_BYTES)) {
        c->fault = "it does not read what its watches send";
        c->store->wake(c->ctx);
        return;
    }
    m = xs_alloc(sizeof *m + sizeof *hdr + len);
    m->next = NULL;
    m->is_event = is_event;
    m->len = sizeof *hdr + len;
    memcpy(m->bytes, hdr, sizeof *hdr);
    ((struct xsd_sockmsg *)m->bytes)->len = len;
    memcpy(m->bytes + sizeof *hdr, payload, len);
    if (is_event) {
        xsmap_insert(&c->pending_events, &m->by_payload, (char *)m->bytes + sizeof *hdr, len);
    }
    *c->out_end = m;
    c->out_end = &m->next;
    c->n_out += m->len;
    c->store->wake(c->ctx);
}

const void *
xenstore_client_output(const struct xenstore_client *c, size_t *len)
{
    if (!c->out) {
        return NULL;
    }
    *len = c->out->len - c->n_sent;
    return c->out->bytes + c->n_sent;
}

/* --- input --------------------------------------------------------------------------- */

static bool
is_paused(const struct xenstore_client *c)
{
    return c->fault || c->n_out > (is_privileged(c) ? DOM0_PAUSE_BYTES : DOMAIN_PAUSE_BYTES);
}

/* Carries out what has come in whole, as long as the client takes the replies. */
static int
process(struct xenstore_client *c)
{
    char payload[XENSTORE_PAYLOAD_MAX + 1];
    struct xsd_sockmsg hdr;
    size_t done = 0;
    int error = 0;

    while (!is_paused(c) && c->n_in - done >= sizeof hdr) {
        memcpy(&hdr, c->in + done, sizeof hdr);
        if (hdr.len > XENSTORE_PAYLOAD_MAX) {
            c->fault = "its request is too long";
            error = EPROTO;
            break;
        }
        if (c->n_in - done < sizeof hdr + hdr.len) {
            break;
        }
        memcpy(payload, c->in + done + sizeof hdr, hdr.len);
        payload[hdr.len] = '\0';
        done += sizeof hdr + hdr.len;
        xs_handle(c, &hdr, payload);
        xs_tell_watchers(c->store);
    }
    c->n_in -= done;
    memmove(c->in, c->in + done, c->n_in);
    return error;
}

void *
xenstore_client_space(struct xenstore_client *c, size_t *room)
{
    *room = is_paused(c) ? 0 : sizeof c->in - c->n_in;
    return c->in + c->n_in;
}

int
xenstore_client_received(struct xenstore_client *c, size_t n)
{
    c->n_in += n;
    return process(c);
}

int
xenstore_client_sent(struct xenstore_client *c, size_t n)
{
    bool was_paused = is_paused(c);

    c->n_out -= n;
    c->n_sent += n;
    while (c->out && c->n_sent >= c->out->len) {
        c->n_sent -= c->out->len;
        pop_message(c);
    }
    return was_paused && !is_paused(c) ? process(c) : 0;
}
