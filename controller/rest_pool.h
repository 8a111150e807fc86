/* rest_pool: the REST server in front of the pool's database and model.
 *
 * Also rolls an unconfirmed commit back when its time is over; what is needed
 * for that lives in the database, so a controller that is started in between
 * does it as well.
 *
 * Threads: the daemon's main loop.  Ownership: borrows what the options
 * name, database and model, which must outlive it. */
#ifndef REST_POOL_H
#define REST_POOL_H

#include <stddef.h>

struct capture;
struct compile;
struct fleet;
struct model;
struct pool_db;
struct rest_pool;
struct rule_log;
struct samples;

struct rest_pool_options {
    const char *const *listen; /* "unix:PATH", "ssl:PORT[:IP]" */
    size_t n_listen;
    const char *private_key, *certificate, *ca_cert, *crl; /* for ssl; crl may be NULL */
    const char *audit;                                     /* file of the audit log, or NULL */
    struct compile *compile;                               /* of the model */
    struct rule_log *log;
    struct samples *samples;
    struct capture *capture;
    struct fleet *fleet;
};

/* 0, or an errno with a sentence in 'why'. */
int rest_pool_create(const struct rest_pool_options *, struct pool_db *, struct model *,
                     struct rest_pool **, char *why, size_t why_size);
/* In each turn of the main loop, after pool_db_run() and what follows from it. */
void rest_pool_run(struct rest_pool *);
void rest_pool_wait(struct rest_pool *);
void rest_pool_destroy(struct rest_pool *);

#endif
