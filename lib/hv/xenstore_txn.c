/* xenstore: transactions.
 *
 * Theory of Operation
 * ===================
 * A transaction begins as two snapshots of the store: 'base', which stays as
 * it was, and 'view', which the transaction reads and changes.  Each path that
 * it touches is noted with what it depended on: the node itself (value,
 * permissions, existence), its list of children, or that it was changed.
 *
 * At the commit the generations of everything it depended on must be the same
 * in the store as in 'base'; if not, the client gets EAGAIN and starts over.
 * Then the changed paths, parents first, are brought from 'view' into the
 * store: as they are there now, not as the sequence of requests, so that what
 * a transaction holds is bounded by the number of its nodes.
 *
 * Making a child depends on the parent itself and not on its list of
 * children, so two transactions that make different children of one directory
 * do not disturb each other (in xenstored they do). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "xenstore_impl.h"

struct txn_access {
    struct xsmap_node node;
    unsigned access; /* ACCESS_* */
    char path[];
};

/* --- life -------------------------------------------------------------------- */

int
xs_txn_start(struct xenstore_client *c, uint32_t *id)
{
    struct xs_domain *d = &c->store->domains[c->domid];
    struct xs_txn *t;

    if (!is_privileged(c) && d->n_txns >= QUOTA_TXNS) {
        return ENOSPC;
    }
    t = xs_alloc(sizeof *t);
    memset(t, 0, sizeof *t);
    do {
        t->id = ++c->next_txn_id;
    } while (!t->id || xs_txn_find(c, t->id));
    xstree_snapshot(&t->base, &c->store->tree, c->domid);
    xstree_snapshot(&t->view, &c->store->tree, c->domid);
    t->next = c->txns;
    c->txns = t;
    d->n_txns++;
    *id = t->id;
    return 0;
}

struct xs_txn *
xs_txn_find(struct xenstore_client *c, uint32_t id)
{
    struct xs_txn *t = c->txns;

    while (t && t->id != id) {
        t = t->next;
    }
    return t;
}

static void
destroy(struct xenstore_client *c, struct xs_txn *t)
{
    struct xs_txn **link = &c->txns;

    while (*link != t) {
        link = &(*link)->next;
    }
    *link = t->next;
    c->store->domains[c->domid].n_txns--;
    for (uint32_t i = 0; i < t->accesses.n_buckets; i++) {
        for (struct xsmap_node *e = t->accesses.buckets[i], *next; e; e = next) {
            next = e->next;
            free(e); /* the first member of its access */
        }
    }
    free(t->accesses.buckets);
    xstree_destroy(&t->base);
    xstree_destroy(&t->view);
    free(t);
}

void
xs_txn_abort_all(struct xenstore_client *c)
{
    while (c->txns) {
        destroy(c, c->txns);
    }
}

int
xs_txn_note(struct xs_request *r, const char *path, size_t len, unsigned access)
{
    struct xsmap_node *e;
    struct txn_access *a;

    if (!r->txn) {
        return 0;
    }
    e = xsmap_find(&r->txn->accesses, path, len);
    if (e) {
        a = (struct txn_access *)e;
        a->access |= access;
        return 0;
    }
    if (!is_privileged(r->client) && r->txn->accesses.n >= QUOTA_TXN_NODES) {
        return ENOSPC;
    }
    a = xs_alloc(sizeof *a + len + 1);
    memcpy(a->path, path, len);
    a->path[len] = '\0';
    a->access = access;
    xsmap_insert(&r->txn->accesses, &a->node, a->path, len);
    return 0;
}

/* --- commit --------------------------------------------------------------------- */

static bool
is_disturbed(const struct xenstore *s, const struct xs_txn *t, const struct txn_access *a)
{
    const struct xsnode *then = xstree_find(&t->base, a->path);
    const struct xsnode *now = xstree_find(&s->tree, a->path);

    if (!then || !now) {
        return then != now;
    }
    return ((a->access & ACCESS_READ) && then->gen != now->gen) ||
           ((a->access & ACCESS_LIST) && then->gen_list != now->gen_list);
}

static int
compare_paths(const void *a_, const void *b_)
{
    const struct txn_access *const *a = a_, *const *b = b_;

    return strcmp((*a)->path, (*b)->path);
}

/* The changed paths, parents before children; '*n' of them.  NULL in 'changes'
 * and EAGAIN if the transaction was disturbed. */
static int
collect(const struct xenstore *s, const struct xs_txn *t, struct txn_access ***changes, size_t *n)
{
    struct txn_access **list = xs_alloc(t->accesses.n * sizeof *list);

    *n = 0;
    for (uint32_t i = 0; i < t->accesses.n_buckets; i++) {
        for (struct xsmap_node *e = t->accesses.buckets[i]; e; e = e->next) {
            struct txn_access *a = (struct txn_access *)e;

            if (is_disturbed(s, t, a)) {
                free(list);
                return EAGAIN;
            }
            if (a->access & ACCESS_WRITE) {
                list[(*n)++] = a;
            }
        }
    }
    qsort(list, *n, sizeof *list, compare_paths);
    *changes = list;
    return 0;
}

static void
note_removed(void *store, const char *path, const struct xsnode *n)
{
    xs_note_change(store, path, n, true, NULL, 0);
}

/* Brings one changed path from the view into the store. */
static void
apply(struct xenstore *s, const struct xs_txn *t, const struct txn_access *a)
{
    const struct xsnode *wanted = xstree_find(&t->view, a->path);
    const struct xsnode *now = xstree_find(&s->tree, a->path);
    bool fire = a->access & ACCESS_FIRE;

    if (now && (!wanted || a->access & ACCESS_REMOVED)) {
        if (fire) {
            xs_note_change(s, a->path, now, false, NULL, 0);
            fire = wanted;
        }
        xstree_remove(&s->tree, a->path, note_removed, s);
        now = NULL;
    }
    if (!wanted) {
        return;
    }
    if (!now) {
        xstree_create(&s->tree, a->path, -1);
    }
    struct xsnode *before = now ? xstree_ref(now) : NULL;
    xstree_set_data(&s->tree, a->path, wanted->data, wanted->data_len);
    xstree_set_perms(&s->tree, a->path, wanted->perms, wanted->n_perms);
    if (fire) {
        xs_note_change(s, a->path, wanted, false, before ? before->perms : NULL,
                       before ? before->n_perms : 0);
    }
    xstree_unref(before);
}

int
xs_txn_end(struct xenstore_client *c, struct xs_txn *t, bool commit)
{
    struct xenstore *s = c->store;
    struct txn_access **changes = NULL;
    size_t n = 0;
    int error = 0;

    if (commit) {
        error = collect(s, t, &changes, &n);
    }
    if (!error && !is_privileged(c) && t->view.n_added > 0 && n &&
        s->counts[c->domid] + t->view.n_added > QUOTA_NODES) {
        error = ENOSPC;
    }
    for (size_t i = 0; i < n && !error; i++) {
        apply(s, t, changes[i]);
    }
    free(changes);
    destroy(c, t);
    return error;
}
