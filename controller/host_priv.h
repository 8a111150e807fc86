/* host_priv: what the files of host share.  See host.h for threads. */
#ifndef CTL_HOST_PRIV_H
#define CTL_HOST_PRIV_H

#include "host.h"
#include "host_peer.h"
#include "openvswitch/hmap.h"
#include "pflow.h"

struct ovsdb_idl;
struct ovsdb_idl_txn;
struct ovsrec_bridge;
struct rconn;
struct rconn_packet_counter;

/* Of the OpenFlow connection; host_of.c says what leads from one to the next. */
enum of_state {
    OF_DOWN,    /* until 'retry_at' */
    OF_CONNECT, /* until the versions are agreed */
    OF_ROLE,    /* MASTER requested */
    OF_READY,   /* nothing under way */
    OF_READ,    /* the switch's flows are coming in */
    OF_ADD,     /* the bundle's flows are going out */
    OF_CLOSE,   /* the bundle is complete; has each of its flows been taken? */
    OF_COMMIT,  /* committed, waiting for the barrier */
};

struct of_conn {
    enum of_state state;
    struct rconn *rconn;
    struct rconn_packet_counter *queued; /* what waits to be written, in bytes */
    long long int retry_at;              /* OF_DOWN; OF_READY: no push or read before */
    long long int deadline;              /* of the state; 0: none */
    unsigned backoff_ms;
    unsigned hold_ms; /* after a refused bundle */
    uint32_t xid;     /* of the request under way, or of the bundle's "open" */
    uint32_t next_xid;
    enum ofp_version version;

    /* Reading. */
    struct ftable have;
    bool in_step; /* the switch has been read since it connected */
    bool audit;   /* the read under way is not the one after a connect */
    long long int audit_at;

    /* Pushing. */
    struct fdelta pending;  /* not sent yet, relative to 'inflight' */
    struct fdelta inflight; /* the bundle */
    struct hmap_position next;
    size_t n_sent;
    int64_t generation; /* of the bundle */
    uint32_t bundle_id;
    bool committed;
};

struct db_conn {
    struct ovsdb_idl *idl; /* NULL: not to be connected */
    struct ovsdb_idl_txn *txn;
    unsigned int seqno;
    long long int retry_at;
    bool dirty; /* the configuration changed */
    bool ready; /* the bridge is there and is as stated */
};

struct host {
    char *name;
    struct host_config cfg; /* its strings are ours */
    struct host_peer ovsdb_peer, openflow_peer;
    uint64_t epoch;
    struct host_status status;
    char db_error[256], of_error[256], target_error[256];

    struct host_port *ports; /* names are ours */
    size_t n_ports;
    uint64_t ports_seqno;

    struct ftable *want;
    int64_t want_generation;
    uint64_t want_ports_seqno; /* 0: no host_commit() yet */

    struct db_conn db;
    struct of_conn of;
};

/* host.c: for tests that kill the controller: with WEFT_TEST_KILL_AT=STEP[:N] in
 * the environment the process ends at the Nth such step. */
void host_step(const struct host *, const char *step);
void host_set_error(char *where, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* In external_ids of the rows that are ours: what the row is for. */
#define HOST_DB_OURS "weft-controller"

/* host_ovsdb.c */
void host_db_open(struct host *);
void host_db_close(struct host *);
void host_db_run(struct host *);
void host_db_wait(struct host *);
void host_db_free_ports(struct host_port *, size_t n);

/* host_db_want.c: one comparison of the bridge with what is stated.  Writes to
 * the open transaction; says in db_error what cannot be had. */
void host_db_apply(struct host *, const struct ovsrec_bridge *);

/* host_of.c */
void host_of_init(struct host *);
void host_of_destroy(struct host *);
void host_of_close(struct host *);
void host_of_run(struct host *);
void host_of_wait(struct host *);
/* Gives the connection up for now; 'why' becomes the host's error. */
void host_of_fail(struct host *, const char *format, ...) __attribute__((format(printf, 2, 3)));
int host_of_send(struct host *, struct ofpbuf *, uint32_t xid);
void host_of_enter(struct host *, enum of_state, unsigned timeout_ms);
/* The first of 'n' transaction ids in a row; also in of.xid. */
uint32_t host_of_next_xid(struct host *, size_t n);
const char *host_of_state_name(enum of_state);

/* host_read.c */
void host_read_start(struct host *, bool audit);
void host_read_cancel(struct host *);
/* Takes one part of the answer. */
void host_read_reply(struct host *, struct ofpbuf *);

/* host_push.c */
void host_push_start(struct host *);
/* Sends more of the bundle, if the connection takes more. */
void host_push_more(struct host *);
bool host_push_can_send(const struct host *);
void host_push_bundle_reply(struct host *, const struct ofp_header *);
void host_push_barrier_reply(struct host *, ovs_be32 xid);
void host_push_error(struct host *, ovs_be32 xid, const char *error);

#endif
