/* A controller's side of a real pool database, turned by the test. */
#ifndef TESTS_CTL_SIDE_H
#define TESTS_CTL_SIDE_H

#include <stdlib.h>
#include <string.h>

#include "ctl_db.h"
#include "model.h"
#include "openvswitch/poll-loop.h"
#include "pool_db.h"
#include "timeval.h"
#include "util.h"

#define PATIENCE_MS 20000

static struct ctl_db server;

/* A controller's side. */
struct side {
    struct model *m;
    struct pool_db *db;
    unsigned changes; /* objects in change sets since it was last reset */
};

struct answer {
    bool done;
    int error;
    int64_t generation;
    size_t created, changed, deleted, n_warnings;
    char object[100], field[64], message[256];
};

static inline void
side_open(struct side *s)
{
    memset(s, 0, sizeof *s);
    s->m = model_create();
    s->db = pool_db_open(server.remote, s->m);
}

static inline void
side_close(struct side *s)
{
    pool_db_close(s->db);
    model_destroy(s->m);
}

static inline void
turn(struct side *s)
{
    struct model_obj *obj;

    pool_db_run(s->db);
    for (enum rec_kind k = 0; k < REC_N_KINDS; k++) {
        MODEL_FOR_EACH_CHANGED (obj, s->m, k) {
            s->changes++;
        }
    }
    model_changes_clear(s->m);
}

static inline bool
connected(struct side *s, const void *aux)
{
    return pool_db_ready(s->db) && pool_db_connected(s->db);
}

/* Runs both sides (or one) until it is so. */
static inline bool
until(struct side *a, struct side *b, bool (*so)(struct side *, const void *), const void *aux)
{
    long long int deadline = time_msec() + PATIENCE_MS;

    for (;;) {
        turn(a);
        if (b) {
            turn(b);
        }
        if (so(a, aux)) {
            return true;
        }
        if (time_msec() > deadline) {
            return false;
        }
        pool_db_wait(a->db);
        if (b) {
            pool_db_wait(b->db);
        }
        poll_timer_wait(100);
        poll_block();
    }
}

static inline bool
is_done(struct side *s, const void *answer)
{
    return ((const struct answer *)answer)->done;
}

static inline bool
never(struct side *s, const void *deadline)
{
    return time_msec() > *(const long long int *)deadline;
}

/* Lets it run for a while. */
static inline void
rest(struct side *s, int ms)
{
    long long int deadline = time_msec() + ms;

    until(s, NULL, never, &deadline);
}

static inline void
got(const struct pool_result *r, void *answer_)
{
    struct answer *a = answer_;

    a->done = true;
    a->error = r->error;
    a->generation = r->generation;
    a->created = r->n_created;
    a->changed = r->n_changed;
    a->deleted = r->n_deleted;
    a->n_warnings = r->warnings->n;
    if (r->errors->n) {
        ovs_strlcpy(a->object, r->errors->e[0].object, sizeof a->object);
        ovs_strlcpy(a->field, r->errors->e[0].field, sizeof a->field);
        ovs_strlcpy(a->message, r->errors->e[0].message, sizeof a->message);
    }
}

static inline void
start(struct side *s, const char *text, enum pool_apply_mode mode, struct answer *a)
{
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_parse(text, strlen(text), &errors);

    memset(a, 0, sizeof *a);
    if (!doc) {
        printf("# %s\n", errors.n ? errors.e[0].message : "?");
        abort();
    }
    pool_db_apply(s->db, doc, mode, false, NULL, got, a);
}

static inline struct answer
apply(struct side *s, const char *text, enum pool_apply_mode mode)
{
    struct answer a;

    start(s, text, mode, &a);
    until(s, NULL, is_done, &a);
    if (a.error) {
        printf("# [%s] [%s] %s\n", a.object, a.field, a.message);
    }
    return a;
}

#endif
