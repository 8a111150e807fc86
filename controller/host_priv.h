/* host_priv: what the files of host share.  See host.h for threads. */
#ifndef CTL_HOST_PRIV_H
#define CTL_HOST_PRIV_H

#include "host.h"
#include "host_limit.h"
#include "host_peer.h"
#include "openvswitch/hmap.h"
#include "openvswitch/token-bucket.h"
#include "pflow.h"
#include "pmeter.h"

struct ovsdb_idl;
struct ovsdb_idl_txn;
struct host_extra;
struct ovsrec_bridge;
struct ovsrec_port;
struct rconn;
struct rconn_packet_counter;
struct smap;

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
    bool sent;                           /* something that may not be written yet */
    long long int retry_at;              /* OF_DOWN; OF_READY: no push or read before */
    long long int deadline;              /* of the state; 0: none */
    unsigned backoff_ms;
    unsigned hold_ms; /* after a refused bundle */
    uint32_t xid;     /* of the request under way, or of the bundle's "open" */
    uint32_t next_xid;
    uint32_t log_xid;   /* host_log.c: the first of its requests under way; 0: none */
    bool reports;       /* it has the meter for packets */
    unsigned n_packets; /* reported in the second "packets_s" */
    long long int packets_s;
    enum ofp_version version;

    /* Reading. */
    struct ftable have;
    bool in_step; /* the switch has been read since it connected */
    bool audit;   /* the read under way is not the one after a connect */
    long long int audit_at;
    size_t read_bytes;          /* of the answer so far */
    long long int read_until;   /* it must have ended */
    long long int connected_at; /* as master */

    /* Pushing. */
    struct fdelta pending;  /* not sent yet, relative to 'inflight' */
    struct fdelta inflight; /* the bundle */
    struct hmap_position next;
    size_t n_sent;
    size_t n_meters;    /* set with the bundle */
    int64_t generation; /* of the bundle */
    uint64_t revision;
    uint32_t bundle_id;
    bool committed;

    /* Meters (host_meter.c). */
    struct mtable meters_have, meters_read, meters_sent;
    uint64_t meters_seen; /* version of the wanted ones that is there; 0: none */
};

struct db_conn {
    struct ovsdb_idl *idl; /* NULL: not to be connected */
    struct ovsdb_idl_txn *txn;
    unsigned int seqno;
    long long int retry_at;
    bool dirty;           /* the configuration changed */
    bool ready;           /* the bridge is there and is as stated */
    bool mirrors_changed; /* with the transaction under way */
    int64_t cfg_awaited;  /* the switch has not come to this configuration; 0: it has */
    struct host_limit limit;
    struct token_bucket looks; /* comparisons, each for a token */
    long long int opened_at;
    long long int reopen_at; /* not run before: the host sent too much */
    unsigned reopen_ms;
};

struct host {
    char *name;
    struct host_config cfg; /* its strings are ours */
    struct host_peer ovsdb_peer, openflow_peer;
    uint64_t epoch;
    bool watch;
    struct host_status status;
    char db_error[256], of_error[256], target_error[256];

    struct host_port *ports; /* names are ours */
    size_t n_ports;
    uint64_t ports_seqno;
    struct host_pif *pifs; /* in order of host_extra.pifs */
    size_t n_pifs;
    uint64_t pifs_seqno; /* 0: not read yet */

    struct ftable *want;
    const struct mtable *meters; /* or NULL: the switch's are left alone */
    bool limits;                 /* there are some */
    struct host_extra *extra;    /* or NULL: none */
    bool retouch;                /* a flow is to be sent again, so that all are translated anew */
    int64_t want_generation;
    uint64_t want_revision;
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
/* What is under way counts no more: compares anew, if we lead. */
void host_db_again(struct host *);
void host_db_run(struct host *);
void host_db_wait(struct host *);
/* The switch's database is as stated, and has said so. */
bool host_db_is_settled(const struct host *);
void host_db_free_ports(struct host_port *, size_t n);

/* host_db_want.c: one comparison of the bridge with what is stated.  Writes to
 * the open transaction; says in db_error what cannot be had. */
void host_db_apply(struct host *, const struct ovsrec_bridge *);
/* The port of that name, and its bridge; NULL if there is none. */
const struct ovsrec_port *host_db_find_port(const struct host *, const char *name,
                                            const struct ovsrec_bridge **);
const struct ovsrec_port *host_db_add_port(struct host *, const struct ovsrec_bridge *,
                                           const char *name, const char *type,
                                           const struct smap *options, const char *role);

/* host_db_bond.c: part of it: the uplink as a bond. */
#define HOST_DB_BOND_PORT "weft-uplink-in" /* of the managed bridge, in the uplink's place */
struct host_bond;
const struct host_bond *host_db_bond(const struct host *); /* NULL: the uplink is none */
/* host_db_pif.c */
void host_db_read_pifs(struct host *);
void host_db_free_pifs(struct host_pif *, size_t n);

void host_db_apply_bond(struct host *, const struct ovsrec_bridge *);

/* host_db_extra.c: part of it: mirrors and exporters. */
void host_db_apply_extra(struct host *, const struct ovsrec_bridge *);
bool host_db_extra_wants(const struct host *, const char *port);
bool host_db_extra_has_ports(const struct host *);

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

/* host_meter.c */
void host_meter_init(struct host *);
void host_meter_destroy(struct host *);
void host_meter_forget(struct host *); /* what the switch has */
/* Asks for the switch's meters; what is asked next is answered after it. */
void host_meter_read(struct host *, uint32_t xid);
void host_meter_reply(struct host *, struct ofpbuf *);
/* All have been read: adds how many are missing or different, and how many
 * should not be there. */
void host_meter_take(struct host *, size_t *n_missing, size_t *n_foreign);
/* The switch's are not the wanted ones. */
bool host_meter_behind(struct host *);
/* They need a newer OpenFlow than that of the connection. */
bool host_meter_needs_15(const struct host *);
/* A push: how many are to be set; sets them, with transaction ids from 'xid'. */
size_t host_meter_start(struct host *);
void host_meter_send(struct host *, uint32_t xid);
/* The vif whose meter the message 'i' of these was to set; 0: none. */
uint32_t host_meter_owner(const struct host *, uint32_t i, struct ds *);
void host_meter_confirmed(struct host *); /* removes what is not wanted any more */

/* host_log.c */
void host_log_start(struct host *);
/* Whether it was about the log. */
bool host_log_error(struct host *, ovs_be32 xid, const char *error);
bool host_log_barrier(struct host *, ovs_be32 xid);
void host_log_packet(struct host *, const struct ofp_header *);

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
