/* record_answer: what became of packets that were counted before anybody knew.
 *
 * A packet without a flow is counted where it came in and then goes to ofproto,
 * whose thread decides, and executes or drops it.  That thread has no part in the
 * worker's table, so it leaves the answer here, by the record's key, and a record
 * that ends without a way takes it from here.
 *
 * A packet that comes back (from conntrack, say) may have lost a tag by then, and
 * ofproto's answer is about what is left of it: whoever sends it there leaves an
 * alias, from that key to the record's.
 *
 * A table of fixed size in which the oldest of a few gives way: 64 k answers
 * are kept, those older than a record are none of its.
 *
 * Threads: any; a lock, which workers take only on the way to ofproto. */
#include <stdlib.h>
#include <string.h>

#include "record.h"

#define SETS 16384u
#define WAYS 4u
/* Threads look at the clock once a turn: an answer may seem to be that much older
 * than its question. */
#define TURN_MS 1000
/* How long ofproto may take: what was said later is of another time, or the clock's low bits
 * have come round. */
#define ANSWER_MS 60000

struct record_answer {
    struct key_wide k;
    union {
        struct record_way way;
        struct key_wide of; /* an alias: the record's key */
    };
    uint32_t when; /* ms of the workers' clock, low bits */
    bool used, alias;
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

/* Where it is, or the place to put it. */
static struct record_answer *
place_for(struct recording *r, const struct key_wide *k, bool alias, uint32_t now)
{
    struct record_answer *a = set_of(r->answers, record_hash(k)), *to = a;

    for (unsigned i = 0; i < WAYS; i++) {
        if (a[i].used && a[i].alias == alias && !memcmp(&a[i].k, k, sizeof *k)) {
            return &a[i];
        }
        if (!a[i].used || (to->used && now - a[i].when > now - to->when)) {
            to = &a[i];
        }
    }
    return to;
}

static void
put(struct recording *r, const struct key_wide *k, const struct record_way *way, uint32_t now)
{
    *place_for(r, k, false, now) =
        (struct record_answer){.k = *k, .way = *way, .when = now, .used = true};
}

void
record_answer(struct recording *r, const struct key_wide *k, const struct record_way *way,
              uint32_t now)
{
    pthread_mutex_lock(&r->answers_lock);
    if (r->answers) {
        put(r, k, way, now);
    }
    pthread_mutex_unlock(&r->answers_lock);
}

void
record_alias(struct recording *r, const struct key_wide *k, const struct key_wide *of, uint32_t now)
{
    pthread_mutex_lock(&r->answers_lock);
    if (r->answers) {
        *place_for(r, k, true, now) =
            (struct record_answer){.k = *k, .of = *of, .when = now, .used = true, .alias = true};
    }
    pthread_mutex_unlock(&r->answers_lock);
}

bool
record_find_alias(struct recording *r, struct key_wide *k, uint32_t now)
{
    struct record_answer *a;
    bool found = false;

    pthread_mutex_lock(&r->answers_lock);
    if (r->answers) {
        a = place_for(r, k, true, now);
        found = a->used && a->alias && !memcmp(&a->k, k, sizeof *k) &&
                now - a->when + TURN_MS <= ANSWER_MS + TURN_MS;
        if (found) {
            *k = a->of;
        }
    }
    pthread_mutex_unlock(&r->answers_lock);
    return found;
}

static void
find(struct recording *r, struct record *rec)
{
    struct record_answer *a = set_of(r->answers, rec->hash);
    struct key_wide k = {.key = rec->key, .ip6 = rec->ip6};

    for (unsigned i = 0; i < WAYS; i++) {
        if (a[i].used && !a[i].alias && !memcmp(&a[i].k, &k, sizeof k) &&
            (int32_t)(a[i].when - rec->first) >= -TURN_MS &&
            (int32_t)(a[i].when - rec->last) <= ANSWER_MS) {
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
