/* mig_both: both ends of a migration on mig_rig's rig, and what must hold when they are
 * done. */
#ifndef MIG_BOTH_H
#define MIG_BOTH_H

#include "check.h"
#include "mig_rig.h"

enum { RATE = 5 };

struct pair {
    struct party s, d;
    struct wire w;
};

/* Both ends ready to start, the destination listening. */
static inline struct pair
prepare(int index, unsigned int rate)
{
    rig_boot(index, rate);
    return (struct pair){.s = rig_party(0, index), .d = rig_party(1, index)};
}

static inline bool
start(struct pair *p)
{
    rig_start(&p->d);
    if (!rig_until(&p->d, MIG_EVENT_LISTENING, -1)) {
        return false;
    }
    rig_connect(&p->s, &p->d, &p->w);
    rig_start(&p->s);
    return true;
}

static inline void
finish(struct pair *p)
{
    rig_finish(&p->s);
    rig_finish(&p->d);
    rig_cut(&p->w);
}

/* Where it runs: one host, and its memory is right; -1: neither holds. */
static inline int
runs_at(int index)
{
    int mask = fake->running[index], host = mask == 1 ? 0 : mask == 2 ? 1 : -1;
    bool right;

    if (host < 0 || fake->violations) {
        return -1;
    }
    fake_lock(&fake->vms[host][index]);
    right = fake_memory_right(&fake->vms[host][index]);
    fake_unlock(&fake->vms[host][index]);
    return right ? host : -1;
}

/* It runs where the row says, and only there is something of it. */
static inline bool
settled(int index)
{
    uint64_t epoch;
    int host = runs_at(index);
    bool ok = host >= 0 && rig_row(index, &epoch) == host && !fake->vms[!host][index].exists &&
              fake->vms[host][index].epoch == epoch;

    if (!ok) {
        printf("# vm %d: runs at %d (mask %d), row %d epoch %llu, exists %d %d, violations %d\n",
               index, host, fake->running[index], rig_row(index, &epoch), (unsigned long long)epoch,
               fake->vms[0][index].exists, fake->vms[1][index].exists, fake->violations);
    }
    return ok;
}

static inline void
explain(const struct pair *p)
{
    if (check_failed_) {
        printf("# source: %s (%s); destination: %s (%s)\n", mig_status_name(p->s.result.status),
               p->s.result.why, mig_status_name(p->d.result.status), p->d.result.why);
    }
}

/* A guest that writes too fast for the wire, and the order to go on without. */
static inline struct pair
prepare_postcopy(void)
{
    struct pair p = prepare(0, 200);

    p.s.job.postcopy = p.d.job.postcopy = true;
    p.s.job.max_blackout_ms = 4;
    p.s.job.max_throttle = 0;
    p.s.job.max_rounds = 1000;
    p.s.job.limit_mbps = 200;
    p.w.heals = true;
    return p;
}

#endif
