/* store: where flow rows are kept, as an interface.
 *
 * Raw rows for a while, and sums of them by minute, 5 minutes and hour (rollups)
 * for longer; in rollups are the columns that flow_row.h says.  Sums are of what
 * passed: counters times the exporter's sampling.
 *
 * One thread writes (put, save_*, expire, close); list, sum and status may be
 * called from any number of threads meanwhile.  Functions return 0 or an errno
 * with a sentence in 'why': ENOSPC (full), EBADMSG (damaged), EIO; of queries
 * ETIME (took too long), ERANGE (asks for too much). */
#ifndef STORE_H
#define STORE_H

#include "flow_filter.h"
#include "flow_row.h"

struct store_options {
    const char *path;
    unsigned raw_hours;     /* raw rows are kept so long */
    unsigned keep_hours[3]; /* and rollups of a minute, 5 minutes, an hour */
    uint64_t max_bytes;     /* what the store may take; 0: no bound */
};

/* Something that named something else for a while (enrich.h). */
enum { STORE_KEY_SIZE = 20, STORE_BINDING_VALUES = 7 };
struct store_binding {
    uint8_t kind;
    uint8_t key[STORE_KEY_SIZE];
    int64_t since_ms, until_ms; /* until: INT64_MAX: now */
    int64_t value[STORE_BINDING_VALUES];
};

enum store_metric { STORE_BYTES, STORE_PACKETS, STORE_FLOWS };
enum { STORE_GROUPS = 8 };

struct store_query {
    int64_t from_ms, to_ms;           /* from <= time < to */
    const struct flow_filter *filter; /* resolved */
    bool again;                       /* what is counted elsewhere, too */
    unsigned limit;
    unsigned timeout_ms;

    /* list: rows before this one */
    int64_t cursor_time, cursor_row; /* 0: from the newest */

    /* sum */
    unsigned group[STORE_GROUPS], n_group; /* columns */
    unsigned step_s;                       /* a row for each step as well; 0: no */
    enum store_metric order;               /* the largest first; with step_s by time */
};

struct store_sum {
    int64_t time_ms; /* of the step */
    struct flow_value value[STORE_GROUPS];
    int64_t bytes, packets, flows;
};

/* Of what a sum was made. */
struct store_source {
    unsigned step_s;        /* of the rollup; 0: raw rows */
    int64_t from_ms, to_ms; /* rounded to the rollup's steps */
};

struct store_status {
    uint64_t bytes, max_bytes;
    int64_t oldest_ms; /* raw row's partition; 0: there is none */
    unsigned partitions;
};

struct store;
struct store_ops {
    void (*close)(struct store *);
    /* All of them or none; when it returns 0 they are on disk. */
    int (*put)(struct store *, const struct flow_row *, size_t n, char *why, size_t size);
    /* 0: a table can be made and written, so that what put() fails at is that of its rows. */
    int (*check)(struct store *, char *why, size_t size);
    /* Adds rows up into the rollups, at most about 'max'; '*more': there are more.
     * Needs only be called now and then: sums are right without it, if slower. */
    int (*roll)(struct store *, size_t max, bool *more, char *why, size_t size);
    int (*save_names)(struct store *, int64_t first_id, const struct flow_name *, size_t n,
                      char *why, size_t size);
    /* Replaces what has the same kind, key and since_ms; of until_ms < 'forget_ms' all go. */
    int (*save_bindings)(struct store *, const struct store_binding *, size_t n, int64_t forget_ms,
                         char *why, size_t size);
    /* In order of ids from 1. */
    int (*load_names)(struct store *, void (*name)(void *aux, const struct flow_name *), void *aux,
                      char *why, size_t size);
    int (*load_bindings)(struct store *, void (*binding)(void *aux, const struct store_binding *),
                         void *aux, char *why, size_t size);
    /* Removes what is too old or too much. */
    int (*expire)(struct store *, int64_t now_ms, char *why, size_t size);

    int (*list)(struct store *, const struct store_query *,
                void (*row)(void *aux, const struct flow_row *, int64_t row_id), void *aux,
                char *why, size_t size);
    int (*sum)(struct store *, const struct store_query *, struct store_source *,
               void (*sum)(void *aux, const struct store_sum *), void *aux, char *why, size_t size);
    void (*status)(struct store *, struct store_status *);
};

struct store {
    const struct store_ops *ops;
};

int store_sqlite_open(const struct store_options *, struct store **, char *why, size_t why_size);

#endif
