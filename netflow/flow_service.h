/* flow_service: flowd's store and answers behind the collector.
 *
 * Records that the collector hands to the sink wait in a bounded queue for the
 * writer's thread, which gives them the names of their time (enrich.h), shows
 * them to who watches, and commits them in batches.  When the queue is full (the
 * disk is slow or full) records are dropped and counted; nothing waits.
 *
 * Threads: the sink's are the collector's; flush from any; open and close once. */
#ifndef FLOW_SERVICE_H
#define FLOW_SERVICE_H

#include "sink.h"
#include "store.h"

struct flow_service_config {
    struct store_options store;
    const char *const *listen; /* "unix:PATH" (for root and the own user), "ssl:PORT[:IP]" */
    size_t n_listen;
    const char *private_key, *certificate, *ca_cert, *crl; /* files, for ssl and https; or NULL */
    const char *controller; /* "unix:PATH" or "https://HOST:PORT": names come from there; or NULL */
    char *(*status)(void *aux); /* the collector's, malloc'ed JSON text, any thread; or NULL */
    void *aux;
};

struct flow_service;

/* 0, or an errno with a sentence in 'why'. */
int flow_service_open(const struct flow_service_config *, struct flow_service **, char *why,
                      size_t why_size);
/* Stops answering, commits what waits (unless the store refuses it), closes. */
void flow_service_close(struct flow_service *);

const struct flow_sink *flow_service_sink(struct flow_service *);
/* Waits until all that the sink has taken is committed: 0; ETIMEDOUT; of a store
 * that refuses its error. */
int flow_service_flush(struct flow_service *, unsigned timeout_ms);
/* Records that were lost, as the tables that they belong to are damaged. */
uint64_t flow_service_damaged(struct flow_service *);

#endif
