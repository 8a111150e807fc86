/* local_broker_impl: what the files of the broker share.
 *
 * local_broker.c         directory, sockets, requests
 * local_broker_domain.c  domains, their memory and grants
 * local_broker_evtchn.c  event channels
 *
 * Everything belongs to the broker's one thread. */
#ifndef LOCAL_BROKER_IMPL_H
#define LOCAL_BROKER_IMPL_H

#include <stdbool.h>

#include "local_broker.h"
#include "local_loop.h"
#include "local_pin.h"
#include "local_proto.h"

struct xenstore_server;
struct xenstore_listener;

enum conn_kind { CONN_NEW, CONN_BACKEND, CONN_DOMAIN };

/* A client of DIR/broker. */
struct broker_conn {
    struct local_source source;
    struct local_broker *broker;
    struct broker_conn *next, **link;
    enum conn_kind kind;
    struct broker_domain *domain; /* of a CONN_DOMAIN */
    unsigned n_owners;            /* pin owners it has, idle ones included */
    /* Those it gave back.  Only it gets them again: should it have left a pin,
     * its death clears that up, and nobody else is taken for the culprit. */
    uint16_t *idle_owners;
    unsigned n_idle_owners;

    /* A CONN_BACKEND's grant mappings by id; NULL where free. */
    struct broker_mapping **maps;
    uint32_t n_maps;    /* size of the array */
    uint32_t free_hint; /* no free id below it */
};

/* Grants that a backend has mapped with one request. */
struct broker_mapping {
    struct broker_domain *domain; /* a reference */
    bool writable;
    uint32_t n;
    struct {
        uint32_t ref;
        uint32_t page;
    } grants[];
};

struct broker_domain {
    struct local_broker *broker;
    struct broker_conn *conn; /* NULL once dead */
    uint16_t domid;
    uint32_t generation;
    unsigned refs; /* its life, and each mapping */
    struct local_view view;
    int guest_fd, state_fd;
    uint32_t *n_read; /* by reference: mappings */
    uint32_t *n_written;
    struct broker_channel **channels; /* by port; [0] stays NULL */
    uint32_t n_channels;
    struct xenstore_listener *listener;
};

/* An event channel of a domain. */
struct broker_channel {
    uint16_t remote;     /* who may bind it */
    int to_domain;       /* eventfds */
    int to_backend;      /* ... */
    uint32_t local_port; /* of the backend that bound it; 0 if unbound */
};

/* A port of dom0. */
struct broker_port {
    struct broker_conn *conn;     /* NULL if free */
    struct broker_domain *domain; /* NULL if the other end was closed */
    uint32_t remote_port;
};

struct local_broker {
    struct local_loop loop;
    struct local_source listener;
    char *dir;
    bool made_dir;
    bool verbose;
    int lock_fd;
    int host_fd;
    struct local_host *host;
    struct broker_conn *conns;
    struct broker_domain *domains[LOCAL_MAX_DOMID + 1];
    struct broker_conn *owners[1 << LOCAL_OWNER_BITS]; /* by pin owner id */
    bool owner_is_idle[1 << LOCAL_OWNER_BITS];
    uint32_t next_owner;
    struct broker_port *ports; /* dom0's; [0] stays free */
    uint32_t n_ports;
    uint32_t next_port;
    struct xenstore_server *store;
    uint64_t log_second; /* of which 'n_logged' lines were written */
    unsigned n_logged;
};

/* What a request yields; descriptors stay the broker's. */
struct broker_reply {
    struct local_rep *rep;
    int fds[LOCAL_MAX_FDS];
    unsigned n_fds;
};

/* Carries out one request of 'len' bytes.  Sets the reply but not its 'seq'
 * and 'error'; returns the error. */
int broker_handle(struct broker_conn *, const struct local_req *, size_t len,
                  struct broker_reply *);
struct broker_conn *broker_conn_create(struct local_broker *, int fd);
/* Takes back all that the connection held; closes it. */
void broker_conn_destroy(struct broker_conn *);
/* Destroys it if its client is gone; true if so.  A death may be noticed only
 * after the request of a successor that wants what the dead one had. */
bool broker_conn_reap(struct broker_conn *);

/* One line on stderr, at most 10 a second. */
void broker_log(struct local_broker *, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

int broker_domain_create(struct broker_conn *, const struct local_req *, struct broker_reply *);
void broker_domain_destroy(struct broker_domain *);
/* The living domain, or NULL. */
struct broker_domain *broker_domain_find(struct local_broker *, uint32_t domid);
int broker_attach(struct broker_conn *, const struct local_req *, struct broker_reply *);
int broker_owner_new(struct broker_conn *, struct broker_reply *);
int broker_owner_free(struct broker_conn *, uint32_t owner);
int broker_map(struct broker_conn *, const struct local_req *, struct broker_reply *);
int broker_unmap(struct broker_conn *, uint32_t id);
int broker_dirty(struct broker_domain *, const struct local_req *, struct broker_reply *);
/* Unmaps, and strikes out the pins of all copies under way. */
void broker_release_grants(struct broker_conn *);

int broker_evtchn_alloc(struct broker_domain *, const struct local_req *, struct broker_reply *);
int broker_evtchn_close(struct broker_domain *, uint32_t port);
void broker_evtchn_close_all(struct broker_domain *);
int broker_evtchn_bind(struct broker_conn *, const struct local_req *, struct broker_reply *);
int broker_evtchn_unbind(struct broker_conn *, uint32_t port);
void broker_release_ports(struct broker_conn *);

#endif
