/* xenstore: access to nodes, with permissions and quotas, in or outside a
 * transaction; see xenstore_impl.h.
 *
 * Inside a transaction each access is noted, and the transaction's view is
 * read and changed instead of the store. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "xenstore_impl.h"

static struct xstree *
tree_of(struct xs_request *r)
{
    return r->txn ? &r->txn->view : &r->client->store->tree;
}

/* --- paths --------------------------------------------------------------------- */

static bool
is_well_formed(const char *path, size_t len)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789-/_@";

    return strspn(path, allowed) == len && !strstr(path, "//") &&
           (len == 1 || path[len - 1] != '/');
}

/* Longest path that a domain may name below its home. */
static bool
is_too_long(const char *path, size_t len)
{
    unsigned domid;
    int home = 0;

    if (len > XENSTORE_ABS_PATH_MAX) {
        return true;
    }
    return sscanf(path, "/local/domain/%5u/%n", &domid, &home) == 1 && home > 0 &&
           len - home > XENSTORE_REL_PATH_MAX;
}

int
xs_canonical(const struct xenstore_client *c, const char *path, bool special, char *out)
{
    size_t len = strlen(path);
    int n;

    if (path[0] == '@') {
        if (!special || len > XENSTORE_REL_PATH_MAX || !is_well_formed(path, len)) {
            return EINVAL;
        }
        memcpy(out, path, len + 1);
        return 0;
    }
    if (!len || len > XENSTORE_ABS_PATH_MAX) {
        return EINVAL;
    }
    if (path[0] == '/') {
        n = snprintf(out, XENSTORE_ABS_PATH_MAX + 1, "%s", path);
    } else {
        n = snprintf(out, XENSTORE_ABS_PATH_MAX + 1, "/local/domain/%u/%s", c->domid, path);
    }
    if (n > XENSTORE_ABS_PATH_MAX || is_too_long(out, n) || !is_well_formed(out, n)) {
        return EINVAL;
    }
    return 0;
}

/* --- permissions ------------------------------------------------------------------ */

uint8_t
xs_perms_for_list(const struct xenstore_client *c, const struct xsperm *perms, uint32_t n)
{
    const struct xs_domain *d = &c->store->domains[c->domid];

    if (is_privileged(c) || perms[0].domid == c->domid ||
        (d->target && perms[0].domid == d->target)) {
        return PERM_READ | PERM_WRITE | PERM_OWNER;
    }
    for (uint32_t i = 1; i < n; i++) {
        if (perms[i].domid == c->domid || (d->target && perms[i].domid == d->target)) {
            return perms[i].bits;
        }
    }
    return perms[0].bits;
}

uint8_t
xs_perms_for(const struct xenstore_client *c, const struct xsnode *n)
{
    return xs_perms_for_list(c, n->perms, n->n_perms);
}

const struct xsnode *
xs_peek(struct xs_request *r, const char *path)
{
    return xs_txn_note(r, path, strlen(path), ACCESS_READ) ? NULL : xstree_find(tree_of(r), path);
}

int
xs_get(struct xs_request *r, const char *path, uint8_t need, const struct xsnode **np)
{
    const struct xsnode *n;
    size_t len;
    int error;

    error = xs_txn_note(r, path, strlen(path), ACCESS_READ);
    if (error) {
        return error;
    }
    n = xstree_find(tree_of(r), path);
    if (n) {
        *np = n;
        return (xs_perms_for(r->client, n) & need) == need ? 0 : EACCES;
    }
    /* Whether it is missing is known to who would have the right on what is
     * nearest above it. */
    n = xstree_nearest(tree_of(r), path, &len);
    error = xs_txn_note(r, path, len, ACCESS_READ);
    if (error) {
        return error;
    }
    return xs_perms_for(r->client, n) & need ? ENOENT : EACCES;
}

int
xs_list(struct xs_request *r, const char *path, const struct xsnode **np)
{
    int error = xs_get(r, path, PERM_READ, np);

    return error ? error : xs_txn_note(r, path, strlen(path), ACCESS_LIST);
}

/* --- changes ------------------------------------------------------------------------ */

/* Notes a change that watchers are to be told, now or at the commit. */
static int
changed(struct xs_request *r, const char *path, unsigned access)
{
    if (r->txn) {
        return xs_txn_note(r, path, strlen(path), ACCESS_WRITE | ACCESS_FIRE | access);
    }
    xs_note_change(r->client->store, path, xstree_find(&r->client->store->tree, path), false, NULL,
                   0);
    return 0;
}

/* Would 'n_new' more nodes be too many for the client's domain? */
static bool
is_over_quota(const struct xs_request *r, unsigned n_new)
{
    const struct xenstore_client *c = r->client;
    int used = c->store->counts[c->domid] + (r->txn ? r->txn->view.n_added : 0);

    return !is_privileged(c) && used + (int)n_new > (int)QUOTA_NODES;
}

/* Makes 'path' and what is missing above it. */
static int
create(struct xs_request *r, const char *path)
{
    int owner = is_privileged(r->client) ? -1 : r->client->domid;
    struct xstree *t = tree_of(r);
    char part[XENSTORE_ABS_PATH_MAX + 1];
    size_t len;
    int error;

    xstree_nearest(t, path, &len);
    if (is_over_quota(r, xstree_n_components(path, len))) {
        return ENOSPC;
    }
    while (path[len]) {
        len += path[len] == '/';
        len += strcspn(path + len, "/");
        /* First the note: past its quota nothing is made. */
        error = xs_txn_note(r, path, len, ACCESS_READ | ACCESS_WRITE);
        if (error) {
            return error;
        }
        memcpy(part, path, len);
        part[len] = '\0';
        xstree_create(t, part, owner);
    }
    return 0;
}

/* For a change of 'path': is it there, or may it be made? */
static int
get_or_create(struct xs_request *r, const char *path, bool *created)
{
    const struct xsnode *n;
    int error = xs_get(r, path, PERM_WRITE, &n);

    *created = error == ENOENT;
    return *created ? create(r, path) : error;
}

int
xs_get_or_create(struct xs_request *r, const char *path)
{
    bool created;
    int error = get_or_create(r, path, &created);

    return !error && created ? changed(r, path, 0) : error;
}

int
xs_write_node(struct xs_request *r, const char *path, const void *data, uint32_t len)
{
    bool created;
    int error;

    if (!is_privileged(r->client) && len > QUOTA_ENTRY_BYTES) {
        return ENOSPC;
    }
    error = get_or_create(r, path, &created);
    if (error) {
        return error;
    }
    xstree_set_data(tree_of(r), path, data, len);
    return changed(r, path, 0);
}

static void
note_removed(void *store, const char *path, const struct xsnode *n)
{
    xs_note_change(store, path, n, true, NULL, 0);
}

int
xs_remove_node(struct xs_request *r, const char *path)
{
    struct xenstore *s = r->client->store;
    const struct xsnode *n;
    char parent[XENSTORE_ABS_PATH_MAX + 1];
    int error;

    if (!strcmp(path, "/")) {
        return EINVAL;
    }
    error = xs_get(r, path, PERM_WRITE, &n);
    if (error == ENOENT) {
        /* As xenstored: fine if its parent is there. */
        size_t len = strrchr(path, '/') - path;

        snprintf(parent, sizeof parent, "%.*s", len ? (int)len : 1, path);
        return xs_peek(r, parent) ? 0 : ENOENT;
    }
    if (error) {
        return error;
    }
    if (r->txn) {
        error = changed(r, path, ACCESS_REMOVED);
        if (!error) {
            xstree_remove(&r->txn->view, path, NULL, NULL);
        }
        return error;
    }
    xs_note_change(s, path, n, false, NULL, 0);
    xstree_remove(&s->tree, path, note_removed, s);
    return 0;
}

int
xs_change_perms(struct xs_request *r, const char *path, const struct xsperm *perms,
                uint32_t n_perms)
{
    struct xenstore *s = r->client->store;
    const struct xsnode *n;
    int error;

    if (!is_privileged(r->client) && n_perms > QUOTA_PERMS) {
        return ENOSPC;
    }
    error = xs_get(r, path, PERM_WRITE | PERM_OWNER, &n);
    if (error) {
        return error;
    }
    if (!is_privileged(r->client) && n->perms[0].domid != perms[0].domid) {
        return EPERM; /* only dom0 gives nodes away */
    }
    if (r->txn) {
        error = changed(r, path, 0);
        if (!error) {
            xstree_set_perms(&r->txn->view, path, perms, n_perms);
        }
        return error;
    }
    /* Who loses the right to read learns of that last. */
    struct xsnode *before = xstree_ref(n);
    xstree_set_perms(&s->tree, path, perms, n_perms);
    xs_note_change(s, path, xstree_find(&s->tree, path), false, before->perms, before->n_perms);
    xstree_unref(before);
    return 0;
}
