/* xenstore: watches and their events; see xenstore_impl.h.
 *
 * Watches hang on the path they watch, in a map.  A change of a path concerns
 * the watches on it and on each of its ancestors, so finding them takes one
 * look-up for each component of the path, however many watches there are. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "xenstore_impl.h"

/* A watched path. */
struct watch_point {
    struct xsmap_node node;
    struct xs_watch *first;
    struct xs_watch **end;
    char path[];
};

struct xs_watch {
    struct xs_watch *next;        /* of the point, oldest first */
    struct xs_watch *client_next; /* of the client */
    struct watch_point *point;
    struct xenstore_client *client;
    size_t skip; /* bytes of a path that are not shown: "/local/domain/N/" if relative */
    char token[];
};

/* A change that watchers are to be told. */
struct xs_event {
    struct xs_event *next;
    bool exact;
    bool special;
    struct xsperm *perms; /* permissions after and before the change */
    uint32_t n_perms, n_old;
    char path[];
};

/* --- registration ------------------------------------------------------------------ */

static struct watch_point *
point_of(struct xenstore *s, const char *path)
{
    size_t len = strlen(path);
    struct watch_point *p = (struct watch_point *)xsmap_find(&s->watches, path, len);

    if (!p) {
        p = xs_alloc(sizeof *p + len + 1);
        memcpy(p->path, path, len + 1);
        p->first = NULL;
        p->end = &p->first;
        xsmap_insert(&s->watches, &p->node, p->path, len);
    }
    return p;
}

static struct xs_watch *
find(struct xenstore_client *c, const char *path, const char *token)
{
    struct watch_point *p =
        (struct watch_point *)xsmap_find(&c->store->watches, path, strlen(path));
    struct xs_watch *w = p ? p->first : NULL;

    while (w && (w->client != c || strcmp(w->token, token))) {
        w = w->next;
    }
    return w;
}

static void
send_event(struct xs_watch *w, const char *path)
{
    const struct xsd_sockmsg hdr = {.type = XS_WATCH_EVENT};
    char payload[XENSTORE_PAYLOAD_MAX];
    size_t path_size, token_size = strlen(w->token) + 1;

    path += strlen(path) >= w->skip ? w->skip : 0;
    path_size = strlen(path) + 1;
    if (path_size + token_size <= sizeof payload) {
        memcpy(payload, path, path_size);
        memcpy(payload + path_size, w->token, token_size);
        xs_send(w->client, &hdr, payload, path_size + token_size, true);
    }
}

int
xs_watch_add(struct xenstore_client *c, const char *path, const char *token)
{
    struct xs_domain *d = &c->store->domains[c->domid];
    char full[XENSTORE_ABS_PATH_MAX + 1];
    struct watch_point *p;
    struct xs_watch *w;
    int error;

    error = xs_canonical(c, path, true, full);
    if (error) {
        return error;
    }
    /* The longest event is of the longest path below it: always fits. */
    if (strlen(token) + 1 + XENSTORE_ABS_PATH_MAX + 1 > XENSTORE_PAYLOAD_MAX) {
        return EINVAL;
    }
    if (find(c, full, token)) {
        return EEXIST;
    }
    if (!is_privileged(c) && d->n_watches >= QUOTA_WATCHES) {
        return E2BIG;
    }
    w = xs_alloc(sizeof *w + strlen(token) + 1);
    p = point_of(c->store, full);
    *w = (struct xs_watch){
        .client_next = c->watches, .point = p, .client = c, .skip = strlen(full) - strlen(path)};
    strcpy(w->token, token);
    *p->end = w;
    p->end = &w->next;
    c->watches = w;
    d->n_watches++;
    return 0;
}

/* Takes the watch off its point, and the point away with its last watch. */
static void
destroy(struct xs_watch *w)
{
    struct xenstore_client *c = w->client;
    struct watch_point *p = w->point;
    struct xs_watch **link = &p->first;

    while (*link != w) {
        link = &(*link)->next;
    }
    *link = w->next;
    if (p->end == &w->next) {
        p->end = link;
    }
    if (!p->first) {
        xsmap_remove(&c->store->watches, &p->node);
        free(p);
    }
    c->store->domains[c->domid].n_watches--;
    free(w);
}

int
xs_watch_remove(struct xenstore_client *c, const char *path, const char *token)
{
    char full[XENSTORE_ABS_PATH_MAX + 1];
    struct xs_watch **link = &c->watches, *w;
    int error;

    error = xs_canonical(c, path, true, full);
    if (error) {
        return error;
    }
    w = find(c, full, token);
    if (!w) {
        return ENOENT;
    }
    while (*link != w) {
        link = &(*link)->client_next;
    }
    *link = w->client_next;
    destroy(w);
    return 0;
}

void
xs_watch_remove_all(struct xenstore_client *c)
{
    while (c->watches) {
        struct xs_watch *w = c->watches;

        c->watches = w->client_next;
        destroy(w);
    }
}

/* --- changes ------------------------------------------------------------------------- */

void
xs_note_change(struct xenstore *s, const char *path, const struct xsnode *n, bool exact,
               const struct xsperm *old, uint32_t n_old)
{
    uint32_t n_perms = n ? n->n_perms : 0;
    struct xs_event *e;

    if (exact && !xsmap_find(&s->watches, path, strlen(path))) {
        return; /* a big subtree is removed node by node, most of them unwatched */
    }
    e = xs_alloc(sizeof *e + strlen(path) + 1);
    *e = (struct xs_event){
        .exact = exact, .special = path[0] == '@', .n_perms = n_perms, .n_old = n_old};
    strcpy(e->path, path);
    e->perms = xs_alloc((n_perms + n_old) * sizeof *e->perms);
    if (n_perms) {
        memcpy(e->perms, n->perms, n_perms * sizeof *e->perms);
    }
    if (n_old) {
        memcpy(e->perms + n_perms, old, n_old * sizeof *e->perms);
    }
    *s->events_end = e;
    s->events_end = &e->next;
}

/* May the client know of the change?  If it may read the node, or could before
 * the change, or may list the directory that it is in. */
static bool
may_know(const struct xenstore_client *c, const struct xs_event *e)
{
    char parent[XENSTORE_ABS_PATH_MAX + 1];

    if (is_privileged(c)) {
        return true;
    }
    if (e->special) {
        return false;
    }
    if ((e->n_perms && xs_perms_for_list(c, e->perms, e->n_perms) & PERM_READ) ||
        (e->n_old && xs_perms_for_list(c, e->perms + e->n_perms, e->n_old) & PERM_READ)) {
        return true;
    }
    size_t len = strrchr(e->path, '/') - e->path;
    memcpy(parent, e->path, len + 1);
    parent[len ? len : 1] = '\0';
    const struct xsnode *n = xstree_find(&c->store->tree, parent);
    return n && xs_perms_for(c, n) & PERM_READ;
}

/* Tells the watchers of the first 'len' bytes of the changed path. */
static void
tell_point(struct xenstore *s, const struct xs_event *e, size_t len)
{
    struct watch_point *p = (struct watch_point *)xsmap_find(&s->watches, e->path, len);

    for (struct xs_watch *w = p ? p->first : NULL; w; w = w->next) {
        if (may_know(w->client, e)) {
            send_event(w, e->path);
        }
    }
}

static void
tell(struct xenstore *s, const struct xs_event *e)
{
    size_t len = strlen(e->path);

    if (!e->exact && !e->special && len > 1) {
        tell_point(s, e, 1); /* "/" */
        for (size_t i = 1; i < len; i++) {
            if (e->path[i] == '/') {
                tell_point(s, e, i);
            }
        }
    }
    tell_point(s, e, len);
}

void
xs_tell_watchers(struct xenstore *s)
{
    while (s->events) {
        struct xs_event *e = s->events;

        s->events = e->next;
        tell(s, e);
        free(e->perms);
        free(e);
    }
    s->events_end = &s->events;
}
