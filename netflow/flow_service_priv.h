/* flow_service_priv: what answers need of the service. */
#ifndef FLOW_SERVICE_PRIV_H
#define FLOW_SERVICE_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "enrich.h"
#include "flow_service.h"

enum {
    FLOW_QUEUE = 262144, /* records */
    FLOW_BATCH = 8192,
    FLOW_CHUNK = 1024,   /* a batch is a multiple of it */
    FLOW_BATCH_MS = 500, /* a record waits at most so long for its batch */
    FLOW_WATCHERS = 16,
    FLOW_WATCH_ROWS = 512,
};

/* Somebody who watches: rows that pass the filter, until they are taken. */
struct flow_watcher {
    struct flow_watcher *next;
    struct flow_filter *filter;
    int64_t names; /* with so many the filter was resolved */
    struct flow_row rows[FLOW_WATCH_ROWS];
    unsigned first, n;
    uint64_t lost; /* rows that found no room */
};

struct http_flow;

/* Of the queue, all but its last are full.  What is used again first is what was used
 * last: memory that is in the caches. */
struct flow_chunk {
    struct flow_chunk *next;
    unsigned n;
    struct flow_queued {
        struct flow_record r;
        struct in6_addr exporter;
    } records[FLOW_CHUNK];
};

/* What else than taking records the store has to do, and may fail at. */
enum upkeep { UPKEEP_ROLL, UPKEEP_EXPIRE, UPKEEP_DAMAGED, N_UPKEEP };

struct flow_service {
    struct flow_service_config config;
    struct flow_sink sink;
    struct store *store;
    struct flow_names *names;
    struct enrich *enrich;
    struct enrich_poll *poll; /* NULL: no controller */
    struct http_flow *http;
    pthread_t writer;
    bool writing; /* 'writer' runs */

    pthread_mutex_t mutex; /* guards the queue and the counters */
    pthread_cond_t more, done;
    struct flow_chunk *queue, **queue_end;
    struct flow_chunk *unused;
    unsigned n, n_unused;      /* records that wait; unused chunks */
    bool closing, hurry;       /* hurry: what waits is a batch, small as it may be */
    uint64_t taken, committed; /* records */
    uint64_t dropped_full;     /* found the queue full */
    uint64_t clock;            /* with a time that could not be */
    uint64_t refusals;         /* commits that the store refused */
    unsigned retry_ms;         /* so long after one */
    uint64_t damaged;          /* lost, as the tables that they belong to are damaged */
    int error;                 /* of the last commit */
    char why[200];
    char upkeep[N_UPKEEP][200]; /* what is wrong with it; empty: nothing */

    pthread_mutex_t watch_mutex; /* guards those below and the watchers */
    pthread_cond_t watched;
    struct flow_watcher *watchers;
    unsigned n_watchers;
    bool watch_closing;
    int64_t names_saved; /* writer only */
    atomic_uint querying;
};

/* Takes the filter (also if it fails).  EAGAIN: there are too many. */
int flow_watch_add(struct flow_service *, struct flow_filter *, struct flow_watcher **);
void flow_watch_remove(struct flow_service *, struct flow_watcher *);
/* Waits up to 'ms' for rows; copies at most 'max'.  '*lost': since the last call.
 * -1: the service closes. */
int flow_watch_take(struct flow_service *, struct flow_watcher *, unsigned ms, struct flow_row *,
                    unsigned max, uint64_t *lost);

int64_t flow_now_ms(void);

#endif
