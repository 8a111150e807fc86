/* xenstore_tree: the nodes of a xenstore, as a tree that can be snapshot.
 *
 * Nodes are counted and shared between snapshots; a change copies the shared
 * nodes on its path and leaves other snapshots as they were.  So a transaction
 * is a snapshot that it may change, at the cost of one reference.
 *
 * Each node has two generations, taken from one counter that only grows: one
 * of its value and permissions, one of its list of children.  Equal
 * generations in two snapshots mean that nothing was changed between them.
 *
 * Paths here are absolute and valid: "/", or "/a/b" without a slash at the
 * end.  No permissions are checked here.  Memory exhaustion ends the process.
 *
 * Threads: one.  Ownership: a node pointer is good until the tree it was
 * found in changes, unless xstree_ref() was called. */
#ifndef XENSTORE_TREE_H
#define XENSTORE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xsperm {
    uint16_t domid;
    uint8_t bits; /* as XS_PERM_READ, XS_PERM_WRITE */
};

struct xsnode {
    uint32_t refs;
    uint32_t data_len;
    uint32_t n_children;
    uint32_t cap_children;
    uint32_t n_perms; /* >= 1; the first is the owner and what others may */
    uint64_t gen;
    uint64_t gen_list;
    struct xsperm *perms;
    uint8_t *data;
    struct xsnode **children; /* by name, in strcmp() order */
    char name[];              /* last component; "" for the root */
};

struct xstree {
    struct xsnode *root;
    uint64_t *gen;    /* shared by all snapshots of a store */
    uint32_t *counts; /* of the store itself: nodes by owner; NULL in a snapshot */
    uint16_t domid;   /* of a snapshot: whose nodes 'n_added' counts */
    int n_added;      /* nodes that 'domid' owns, less those in the original */
};

/* An empty store: a root that dom0 owns and no other may read.  'counts' has
 * 65536 elements, 'gen' one; both are the caller's. */
void xstree_init(struct xstree *, uint64_t *gen, uint32_t *counts);
void xstree_snapshot(struct xstree *, const struct xstree *of, uint16_t domid);
void xstree_destroy(struct xstree *); /* accepts one zeroed */

struct xsnode *xstree_ref(const struct xsnode *);
void xstree_unref(struct xsnode *); /* accepts NULL */

/* The node, or NULL. */
const struct xsnode *xstree_find(const struct xstree *, const char *path);
/* The node or its nearest existing ancestor; '*len' bytes of 'path' name it. */
const struct xsnode *xstree_nearest(const struct xstree *, const char *path, size_t *len);

/* Makes an empty node; its parent exists, it does not.  Permissions are the
 * parent's, but 'owner' becomes the owner unless it is negative. */
void xstree_create(struct xstree *, const char *path, int owner);
/* The node exists. */
void xstree_set_data(struct xstree *, const char *path, const void *, uint32_t len);
void xstree_set_perms(struct xstree *, const char *path, const struct xsperm *, uint32_t n);

/* Removes the node, which exists and is not the root, and what is below it.
 * 'removed' (or NULL) is called for each node below it, children first. */
void xstree_remove(struct xstree *, const char *path,
                   void (*removed)(void *ctx, const char *path, const struct xsnode *), void *ctx);

/* Number of components of 'path' after its first 'from' bytes. */
unsigned xstree_n_components(const char *path, size_t from);

/* malloc() and realloc() that do not return without memory. */
void *xs_alloc(size_t);
void *xs_realloc(void *, size_t);

#endif
