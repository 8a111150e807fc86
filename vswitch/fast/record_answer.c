/* record_answer: what became of packets that were counted before anybody knew.
 *
 * A packet without a flow is counted where it came in and then goes to ofproto,
 * whose thread decides, and executes or drops it.  That thread has no part in the
 * worker's table, so it leaves the answer here, by the record's key, and a record
 * that ends without a way takes it from here.
 *
 * A table of fixed size in which the oldest of a few gives way: 64 k answers
 * are kept, those older than a record are none of its.
 *
 * Threads: any; a lock, which workers never take. */
#include <stdlib.h>
#include <string.h>

#include "record.h"

#define SETS 16384u
#define WAYS 4u
/* Threads look at the clock once a turn: an answer may seem to be that much older
 * than its question. */
#define TURN_MS 1000

struct record_answer {
    struct key_wide k;
    struct record_way way;
    uint32_t when; /* ms of the workers' clock, low bits */
    bool used;
};

static struct record_answer *
set_of(struct record_answer *answers, uint32_t hash)
{
    return &answers[(size_t)(hash % SETS) * WAYS];
}

void
record_answers_prepare(struct recording *r)
{
    pthread_mutex_lock(&r->answers_lock);
    if (!r->answers) {
        r->answers = reserve(sizeof *r->answers * SETS * WAYS);
    }
    pthread_mutex_unlock(&r->answers_lock);
}

void
record_answers_done(struct recording *r)
{
    unreserve(r->answers, sizeof *r->answers * SETS * WAYS);
    pthread_mutex_destroy(&r->answers_lock);
}

void
record_answer(struct recording *r, const struct key_wide *k, const struct record_way *way,
              uint32_t now)
{
    struct record_answer *a, *to;

    pthread_mutex_lock(&r->answers_lock);
    if (r->answers) {
        to = a = set_of(r->answers, record_hash(k));
        for (unsigned i = 0; i < WAYS; i++) {
            if (!memcmp(&a[i].k, k, sizeof *k)) {
                to = &a[i];
                break;
            }
            if (!a[i].used || (to->used && now - a[i].when > now - to->when)) {
                to = &a[i];
            }
        }
        *to = (struct record_answer){*k, *way, now, true};
    }
    pthread_mutex_unlock(&r->answers_lock);
}

static void
find(struct recording *r, struct record *rec)
{
    struct record_answer *a = set_of(r->answers, rec->hash);
    struct key_wide k = {.key = rec->key, .ip6 = rec->ip6};

    for (unsigned i = 0; i < WAYS; i++) {
        if (a[i].used && !memcmp(&a[i].k, &k, sizeof k) &&
            (int32_t)(a[i].when - rec->first) >= -TURN_MS) {
            rec->status = a[i].way.status;
            rec->drop = a[i].way.drop;
            rec->out = a[i].way.out;
            rec->rule_out = rec->rule_out ? rec->rule_out : a[i].way.rule_out;
            rec->rule_in = rec->rule_in ? rec->rule_in : a[i].way.rule_in;
            return;
        }
    }
}

void
record_answer_block(struct recording *r, struct record_block *b)
{
    pthread_mutex_lock(&r->answers_lock);
    for (unsigned i = 0; r->answers && i < b->n; i++) {
        if (b->records[i].status == RECORD_UNKNOWN) {
            find(r, &b->records[i]);
        }
    }
    pthread_mutex_unlock(&r->answers_lock);
}
