/* xenstore_impl: what the files of the xenstore share.
 *
 * xenstore.c          store, clients, their input and output
 * xenstore_request.c  requests, one function each
 * xenstore_node.c     access to nodes: permissions, quotas, in or outside a
 *                     transaction
 * xenstore_txn.c      transactions
 * xenstore_watch.c    watches and their events
 * xenstore_tree.c     the nodes */
#ifndef XENSTORE_IMPL_H
#define XENSTORE_IMPL_H

#include <errno.h> /* before xs_wire.h, which then has the names of errors */
#include <stdint.h>

#include <xen/io/xs_wire.h>

#include "xenstore.h"
#include "xenstore_map.h"
#include "xenstore_tree.h"

#define XS_N_DOMIDS 0x7ff0u

/* Permission bits, as xenstore_lib.h has them. */
#define PERM_READ 1u
#define PERM_WRITE 2u
#define PERM_OWNER 8u

/* What one domain may use (xenstored's defaults). */
#define QUOTA_NODES 1000u
#define QUOTA_ENTRY_BYTES 2048u
#define QUOTA_WATCHES 128u
#define QUOTA_TXNS 10u
#define QUOTA_TXN_NODES 1024u
#define QUOTA_PERMS 5u
/* Unsent bytes above which a client's requests wait. */
#define DOMAIN_PAUSE_BYTES (32u << 10)
#define DOM0_PAUSE_BYTES (1u << 20)
/* Unsent bytes above which a client is cut off. */
#define DOMAIN_MAX_BYTES (256u << 10)
#define DOM0_MAX_BYTES (64u << 20)

struct xs_domain {
    bool introduced;
    uint16_t target; /* whose nodes it may use as its own; 0 if none */
    unsigned n_watches;
    unsigned n_txns;
};

struct xenstore {
    struct xstree tree;
    uint64_t gen;
    uint32_t counts[65536]; /* nodes by owner */
    struct xs_domain domains[XS_N_DOMIDS];
    struct xsmap watches; /* struct watch_point, by path */
    void (*wake)(void *ctx);
    struct xs_event *events; /* changes not yet told to watchers, in order */
    struct xs_event **events_end;
};

/* A message on its way to a client. */
struct xs_message {
    struct xs_message *next;
    struct xsmap_node by_payload; /* if is_event: in client->pending_events */
    bool is_event;
    size_t len;
    uint8_t bytes[]; /* header and payload */
};

struct xenstore_client {
    struct xenstore *store;
    void *ctx;
    uint16_t domid;
    const char *fault; /* once set, nothing more is done for it */

    uint8_t in[2 * (sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX)];
    size_t n_in;

    struct xs_message *out;
    struct xs_message **out_end;
    size_t n_out;  /* bytes queued */
    size_t n_sent; /* of the first message */
    /* Events queued, by payload: one that is there need not be there twice. */
    struct xsmap pending_events;

    struct xs_watch *watches;
    struct xs_txn *txns;
    uint32_t next_txn_id;
};

/* One request being carried out. */
struct xs_request {
    struct xenstore_client *client;
    struct xsd_sockmsg hdr;
    const char *payload; /* 'hdr.len' bytes, and a NUL behind them */
    struct xs_txn *txn;  /* NULL outside a transaction */
    /* The answer: at most XENSTORE_PAYLOAD_MAX bytes. */
    char *reply;
    size_t n_reply;
};

static inline bool
is_privileged(const struct xenstore_client *c)
{
    return c->domid == 0;
}

/* --- xenstore.c */
void xs_send(struct xenstore_client *, const struct xsd_sockmsg *, const void *payload, size_t len,
             bool is_event);

/* --- xenstore_request.c */
/* Carries out one request and queues its reply. */
void xs_handle(struct xenstore_client *, const struct xsd_sockmsg *, const char *payload);

/* --- xenstore_node.c: all return 0 or an errno that the client is told. */
/* Makes 'path' absolute in 'out' (of XENSTORE_ABS_PATH_MAX + 1 bytes).  EINVAL
 * if it is not well-formed.  "@..." only if 'special'. */
int xs_canonical(const struct xenstore_client *, const char *path, bool special, char *out);
uint8_t xs_perms_for(const struct xenstore_client *, const struct xsnode *);
uint8_t xs_perms_for_list(const struct xenstore_client *, const struct xsperm *, uint32_t n);
/* Finds a node and checks that the client has all of 'need' on it.  If there
 * is none: ENOENT or, if the client may not know that, EACCES. */
int xs_get(struct xs_request *, const char *path, uint8_t need, const struct xsnode **);
/* Existence only, without permission. */
const struct xsnode *xs_peek(struct xs_request *, const char *path);
/* xs_get()'s node or a new one, with what is missing above it. */
int xs_get_or_create(struct xs_request *, const char *path);
int xs_write_node(struct xs_request *, const char *path, const void *, uint32_t len);
int xs_remove_node(struct xs_request *, const char *path);
int xs_change_perms(struct xs_request *, const char *path, const struct xsperm *, uint32_t n);
int xs_list(struct xs_request *, const char *path, const struct xsnode **);

/* --- xenstore_txn.c */
enum {
    ACCESS_READ = 1,    /* value, permissions or existence matter */
    ACCESS_LIST = 2,    /* the list of children matters */
    ACCESS_WRITE = 4,   /* changed by the transaction */
    ACCESS_REMOVED = 8, /* ... removed at some time, perhaps made again */
    ACCESS_FIRE = 16,   /* ... and watchers are to be told */
};

struct xs_txn {
    struct xs_txn *next;
    uint32_t id;
    struct xstree base;    /* the store when it began */
    struct xstree view;    /* ... with its changes */
    struct xsmap accesses; /* struct txn_access, by path */
};

int xs_txn_start(struct xenstore_client *, uint32_t *id);
/* Ends and frees it; EAGAIN if another's change stands in the way. */
int xs_txn_end(struct xenstore_client *, struct xs_txn *, bool commit);
struct xs_txn *xs_txn_find(struct xenstore_client *, uint32_t id);
void xs_txn_abort_all(struct xenstore_client *);
/* Notes an access to the first 'len' bytes of 'path'.  ENOSPC past the quota. */
int xs_txn_note(struct xs_request *, const char *path, size_t len, unsigned access);

/* --- xenstore_watch.c */
int xs_watch_add(struct xenstore_client *, const char *path, const char *token);
int xs_watch_remove(struct xenstore_client *, const char *path, const char *token);
void xs_watch_remove_all(struct xenstore_client *);
/* Notes that 'path' changed (NULL node: is special).  'exact': only watches on
 * that very path.  'old' permissions count as well for who may know. */
void xs_note_change(struct xenstore *, const char *path, const struct xsnode *, bool exact,
                    const struct xsperm *old, uint32_t n_old);
/* Tells the watchers of all changes noted.  After the reply, so that a client
 * has its answer before the events of it. */
void xs_tell_watchers(struct xenstore *);

#endif
