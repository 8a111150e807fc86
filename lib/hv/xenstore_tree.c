/* See xenstore_tree.h. */
#include "xenstore_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *
xs_realloc(void *p, size_t size)
{
    p = realloc(p, size ? size : 1);
    if (!p) {
        fputs("xenstore: out of memory\n", stderr);
        abort();
    }
    return p;
}

void *
xs_alloc(size_t size)
{
    return xs_realloc(NULL, size);
}

static void *
copy_of(const void *data, size_t len)
{
    return len ? memcpy(xs_alloc(len), data, len) : NULL;
}

/* --- nodes ------------------------------------------------------------------- */

static struct xsnode *
new_node(const char *name, size_t name_len)
{
    struct xsnode *n = xs_alloc(sizeof *n + name_len + 1);

    memset(n, 0, sizeof *n);
    n->refs = 1;
    memcpy(n->name, name, name_len);
    n->name[name_len] = '\0';
    return n;
}

struct xsnode *
xstree_ref(const struct xsnode *n_)
{
    struct xsnode *n = (struct xsnode *)n_;

    n->refs++;
    return n;
}

void
xstree_unref(struct xsnode *n)
{
    if (!n || --n->refs) {
        return;
    }
    for (uint32_t i = 0; i < n->n_children; i++) {
        xstree_unref(n->children[i]);
    }
    free(n->children);
    free(n->perms);
    free(n->data);
    free(n);
}

/* Makes the node at '*slot' ours alone, by copying it if others share it. */
static struct xsnode *
own(struct xsnode **slot)
{
    struct xsnode *old = *slot, *n;

    if (old->refs == 1) {
        return old;
    }
    n = new_node(old->name, strlen(old->name));
    n->gen = old->gen;
    n->gen_list = old->gen_list;
    n->data_len = old->data_len;
    n->data = copy_of(old->data, old->data_len);
    n->n_perms = old->n_perms;
    n->perms = copy_of(old->perms, old->n_perms * sizeof *old->perms);
    n->n_children = n->cap_children = old->n_children;
    n->children = copy_of(old->children, old->n_children * sizeof *old->children);
    for (uint32_t i = 0; i < n->n_children; i++) {
        n->children[i]->refs++;
    }
    old->refs--;
    *slot = n;
    return n;
}

static int
compare_name(const char *name, size_t len, const struct xsnode *n)
{
    int c = strncmp(name, n->name, len);

    return c ? c : n->name[len] ? -1 : 0;
}

/* Index of the child called 'name', or of where it would be. */
static uint32_t
child_index(const struct xsnode *n, const char *name, size_t len, bool *found)
{
    uint32_t low = 0, high = n->n_children;

    *found = false;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        int c = compare_name(name, len, n->children[mid]);

        if (!c) {
            *found = true;
            return mid;
        }
        if (c < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return low;
}

/* --- paths --------------------------------------------------------------------- */

/* Steps to the next component; returns NULL after the last. */
static const char *
next_component(const char **path, size_t *len)
{
    const char *name = *path;

    name += *name == '/';
    if (!*name) {
        return NULL;
    }
    *len = strcspn(name, "/");
    *path = name + *len;
    return name;
}

unsigned
xstree_n_components(const char *path, size_t from)
{
    const char *rest = path + from;
    unsigned n = 0;
    size_t len;

    while (next_component(&rest, &len)) {
        n++;
    }
    return n;
}

const struct xsnode *
xstree_nearest(const struct xstree *t, const char *path, size_t *len)
{
    const struct xsnode *n = t->root;
    const char *rest = path, *name;
    size_t name_len;
    bool found;

    *len = 1;
    while ((name = next_component(&rest, &name_len))) {
        uint32_t i = child_index(n, name, name_len, &found);

        if (!found) {
            break;
        }
        n = n->children[i];
        *len = rest - path;
    }
    return n;
}

const struct xsnode *
xstree_find(const struct xstree *t, const char *path)
{
    size_t len;
    const struct xsnode *n = xstree_nearest(t, path, &len);

    return path[len] && path[1] ? NULL : n;
}

/* Makes the first 'len' bytes of 'path', all of which exist, ours alone. */
static struct xsnode *
own_path(struct xstree *t, const char *path, size_t len)
{
    struct xsnode *n = own(&t->root);
    const char *rest = path, *name;
    size_t name_len;
    bool found;

    while (rest < path + len && (name = next_component(&rest, &name_len))) {
        uint32_t i = child_index(n, name, name_len, &found);

        n = own(&n->children[i]);
    }
    return n;
}

/* Length of the parent's path, without the slash at its end ("/": 0). */
static size_t
parent_len(const char *path)
{
    return strrchr(path, '/') - path;
}

/* --- changes --------------------------------------------------------------------- */

static void
count(struct xstree *t, uint16_t owner, int change)
{
    if (t->counts) {
        t->counts[owner] += change;
    } else if (owner == t->domid) {
        t->n_added += change;
    }
}

void
xstree_init(struct xstree *t, uint64_t *gen, uint32_t *counts)
{
    static const struct xsperm dom0_only = {.domid = 0, .bits = 0};

    *t = (struct xstree){.root = new_node("", 0), .gen = gen, .counts = counts};
    t->root->perms = copy_of(&dom0_only, sizeof dom0_only);
    t->root->n_perms = 1;
    t->root->gen = t->root->gen_list = ++*gen;
    count(t, 0, 1);
}

void
xstree_snapshot(struct xstree *t, const struct xstree *of, uint16_t domid)
{
    *t = (struct xstree){.root = xstree_ref(of->root), .gen = of->gen, .domid = domid};
}

void
xstree_destroy(struct xstree *t)
{
    xstree_unref(t->root);
    t->root = NULL;
}

void
xstree_create(struct xstree *t, const char *path, int owner)
{
    struct xsnode *parent = own_path(t, path, parent_len(path));
    const char *name = path + parent_len(path) + 1;
    struct xsnode *n = new_node(name, strlen(name));
    bool found;
    uint32_t i = child_index(parent, name, strlen(name), &found);

    n->perms = copy_of(parent->perms, parent->n_perms * sizeof *parent->perms);
    n->n_perms = parent->n_perms;
    if (owner >= 0) {
        n->perms[0].domid = owner;
    }
    if (parent->n_children == parent->cap_children) {
        parent->cap_children = parent->cap_children ? parent->cap_children * 2 : 4;
        parent->children =
            xs_realloc(parent->children, parent->cap_children * sizeof *parent->children);
    }
    memmove(&parent->children[i + 1], &parent->children[i],
            (parent->n_children - i) * sizeof *parent->children);
    parent->children[i] = n;
    parent->n_children++;
    n->gen = n->gen_list = parent->gen_list = ++*t->gen;
    count(t, n->perms[0].domid, 1);
}

void
xstree_set_data(struct xstree *t, const char *path, const void *data, uint32_t len)
{
    struct xsnode *n = own_path(t, path, strlen(path));
    uint8_t *copy = copy_of(data, len);

    free(n->data);
    n->data = copy;
    n->data_len = len;
    n->gen = ++*t->gen;
}

void
xstree_set_perms(struct xstree *t, const char *path, const struct xsperm *perms, uint32_t n_perms)
{
    struct xsnode *n = own_path(t, path, strlen(path));
    struct xsperm *copy = copy_of(perms, n_perms * sizeof *perms);

    count(t, n->perms[0].domid, -1);
    count(t, copy[0].domid, 1);
    free(n->perms);
    n->perms = copy;
    n->n_perms = n_perms;
    n->gen = ++*t->gen;
}

struct removal {
    struct xstree *tree;
    void (*removed)(void *, const char *, const struct xsnode *);
    void *ctx;
    char *path; /* of the node in hand; grows and shrinks */
    size_t cap;
};

/* Tells of all nodes below 'n', whose path is 'len' bytes long. */
static void
remove_below(struct removal *r, const struct xsnode *n, size_t len)
{
    for (uint32_t i = 0; i < n->n_children; i++) {
        const struct xsnode *child = n->children[i];
        size_t name_len = strlen(child->name);

        if (len + name_len + 2 > r->cap) {
            r->cap = (len + name_len + 2) * 2;
            r->path = xs_realloc(r->path, r->cap);
        }
        r->path[len] = '/';
        memcpy(r->path + len + 1, child->name, name_len + 1);
        remove_below(r, child, len + 1 + name_len);
        r->path[len + 1 + name_len] = '\0';
        count(r->tree, child->perms[0].domid, -1);
        if (r->removed) {
            r->removed(r->ctx, r->path, child);
        }
    }
}

void
xstree_remove(struct xstree *t, const char *path,
              void (*removed)(void *, const char *, const struct xsnode *), void *ctx)
{
    struct xsnode *parent = own_path(t, path, parent_len(path));
    const char *name = path + parent_len(path) + 1;
    bool found;
    uint32_t i = child_index(parent, name, strlen(name), &found);
    struct xsnode *n = parent->children[i];
    struct removal r = {.tree = t, .removed = removed, .ctx = ctx, .cap = strlen(path) + 64};

    r.path = xs_alloc(r.cap);
    strcpy(r.path, path);
    remove_below(&r, n, strlen(path));
    free(r.path);
    count(t, n->perms[0].domid, -1);
    parent->n_children--;
    memmove(&parent->children[i], &parent->children[i + 1],
            (parent->n_children - i) * sizeof *parent->children);
    parent->gen_list = ++*t->gen;
    xstree_unref(n);
}
