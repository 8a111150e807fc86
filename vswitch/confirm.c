/* Theory of Operation
 * ===================
 *
 * A change of OpenFlow tables marks the datapath for revalidation.  The next
 * turn of the main loop (type_run()) acts on the mark: udpif_revalidate() bumps
 * a sequence number that wakes the revalidators, which dump the datapath's flows
 * and mend each.  A dump that started before the bump does not count.
 *
 * Dumps are numbered as they start.  After each udpif_revalidate(), 'needed' is
 * the number of the last dump started: every later one sees what changed.  A
 * reply that was held in turn k has had its revalidation triggered in turn k+1
 * at the latest, and goes out once a dump later than 'needed' is complete.
 *
 * Should the revalidators not come (paused by hand, say), it goes out all the
 * same after HOLD_MAX_MS, and is counted.
 *
 * With datapaths of several types in one process a dump of one may stand for
 * another's; hosts have one. */
#include <config.h>

#include "confirm.h"

#include <stdlib.h>
#include <string.h>

#include "coverage.h"
#include "hash.h"
#include "openvswitch/hmap.h"
#include "openvswitch/list.h"
#include "openvswitch/ofp-connection.h"
#include "openvswitch/ofp-msgs.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/rconn.h"
#include "ovs-atomic.h"
#include "ovs-thread.h"
#include "seq.h"
#include "timeval.h"
#include "util.h"
#include "wrap.h"

COVERAGE_DEFINE(confirm_revalidated);
COVERAGE_DEFINE(confirm_timeout);

#define HOLD_MAX_MS 1000

/* A connection whose role is MASTER. */
struct master {
    struct hmap_node node; /* by address of 'rconn' */
    struct rconn *rconn;
    unsigned int connection; /* rconn's, when it became master */
};

/* A barrier reply that waits. */
struct held {
    struct ovs_list node;
    struct rconn *rconn;
    unsigned int connection;
    struct ofpbuf *msg;
    struct rconn_packet_counter *counter;
    unsigned int counted_bytes; /* in 'counter' */
    long long int since_ms;
    unsigned long long int turn;
};

static struct hmap masters = HMAP_INITIALIZER(&masters);
static struct ovs_list waiting = OVS_LIST_INITIALIZER(&waiting); /* of struct held */
static unsigned long long int turn, needed;
static atomic_ullong dumps_started; /* written by revalidators' leaders */
static atomic_ullong dump_done;     /* the latest one complete */
static struct seq *done_seq;

void
confirm_init(void)
{
    done_seq = seq_create();
}

/* --- flow dumps ---------------------------------------------------------------------- */

static bool
is_revalidator(void)
{
    return !strncmp(get_subprogram_name(), "revalidator", strlen("revalidator"));
}

static __thread unsigned long long int this_dump;

struct dpif_flow_dump *
__wrap_dpif_flow_dump_create(const struct dpif *dpif, bool terse,
                             struct dpif_flow_dump_types *types)
{
    if (is_revalidator()) {
        atomic_add(&dumps_started, 1ULL, &this_dump);
        this_dump++;
    }
    return __real_dpif_flow_dump_create(dpif, terse, types);
}

int
__wrap_dpif_flow_dump_destroy(struct dpif_flow_dump *dump)
{
    int error = __real_dpif_flow_dump_destroy(dump);

    if (is_revalidator()) {
        atomic_store(&dump_done, this_dump);
        if (done_seq) {
            seq_change(done_seq);
        }
    }
    return error;
}

/* A dump that starts while the sequence number is bumped may have seen either
 * value; then it is bumped once more rather than waiting for the next dump to
 * come by itself. */
void
__wrap_udpif_revalidate(struct udpif *udpif)
{
    unsigned long long int before;

    for (int i = 0; i < 5; i++) {
        atomic_read(&dumps_started, &before);
        __real_udpif_revalidate(udpif);
        atomic_read(&dumps_started, &needed);
        if (needed == before) {
            break;
        }
    }
}

/* --- connections ------------------------------------------------------------------------ */

static struct master *
find_master(const struct rconn *rconn)
{
    struct master *m;

    HMAP_FOR_EACH_WITH_HASH (m, node, hash_pointer(rconn, 0), &masters) {
        if (m->rconn == rconn) {
            return m;
        }
    }
    return NULL;
}

static void
forget_master(struct master *m)
{
    if (m) {
        hmap_remove(&masters, &m->node);
        free(m);
    }
}

/* Every change of role is answered. */
static void
note_role(struct rconn *rconn, const struct ofp_header *oh)
{
    struct ofputil_role_request role;

    if (ofputil_decode_role_message(oh, &role)) {
        return;
    }
    forget_master(find_master(rconn));
    if (role.role == OFPCR12_ROLE_PRIMARY) {
        struct master *m = xmalloc(sizeof *m);

        m->rconn = rconn;
        m->connection = rconn_get_connection_seqno(rconn);
        hmap_insert(&masters, &m->node, hash_pointer(rconn, 0));
    }
}

static void
hold(struct rconn *rconn, struct ofpbuf *msg, struct rconn_packet_counter *counter)
{
    struct held *h = xmalloc(sizeof *h);

    h->rconn = rconn;
    h->connection = rconn_get_connection_seqno(rconn);
    h->msg = msg;
    h->counter = counter;
    h->counted_bytes = counter ? msg->size : 0;
    if (counter) {
        /* Who sends barriers without end is read no further, as if they had been
         * answered and not taken. */
        rconn_packet_counter_inc(counter, h->counted_bytes);
    }
    h->since_ms = time_msec();
    h->turn = turn;
    ovs_list_push_back(&waiting, &h->node);
}

/* Before the counter may go. */
static void
uncount(struct held *h)
{
    if (h->counted_bytes) {
        rconn_packet_counter_dec(h->counter, h->counted_bytes);
        h->counted_bytes = 0;
    }
}

static void
drop(struct held *h)
{
    uncount(h);
    ovs_list_remove(&h->node);
    ofpbuf_delete(h->msg);
    free(h);
}

int
__wrap_rconn_send(struct rconn *rconn, struct ofpbuf *msg, struct rconn_packet_counter *counter)
{
    const struct ofp_header *oh = msg->data;
    const struct master *m;
    enum ofptype type;

    if (!done_seq || ofptype_decode(&type, oh)) {
        return __real_rconn_send(rconn, msg, counter);
    }
    if (type == OFPTYPE_ROLE_REPLY) {
        note_role(rconn, oh);
    } else if (type == OFPTYPE_BARRIER_REPLY && (m = find_master(rconn)) &&
               m->connection == rconn_get_connection_seqno(rconn)) {
        hold(rconn, msg, counter);
        return 0;
    }
    return __real_rconn_send(rconn, msg, counter);
}

void
__wrap_rconn_destroy(struct rconn *rconn)
{
    struct held *h, *next;

    LIST_FOR_EACH_SAFE (h, next, node, &waiting) {
        if (h->rconn == rconn) {
            drop(h);
        }
    }
    forget_master(find_master(rconn));
    __real_rconn_destroy(rconn);
}

/* --- turns of the main loop ----------------------------------------------------------------- */

/* Since 'h' was held a whole bridge_run() has been, and a dump after what it
 * triggered is complete. */
static bool
is_confirmed(const struct held *h)
{
    unsigned long long int done;

    atomic_read(&dump_done, &done);
    return turn >= h->turn + 2 && done > needed;
}

void
confirm_run(void)
{
    struct held *h, *next;

    turn++;
    LIST_FOR_EACH_SAFE (h, next, node, &waiting) {
        bool confirmed = is_confirmed(h);

        if (h->connection != rconn_get_connection_seqno(h->rconn)) {
            drop(h);
        } else if (confirmed || time_msec() >= h->since_ms + HOLD_MAX_MS) {
            if (confirmed) {
                COVERAGE_INC(confirm_revalidated);
            } else {
                COVERAGE_INC(confirm_timeout);
            }
            __real_rconn_send(h->rconn, h->msg, h->counter);
            h->msg = NULL;
            drop(h);
        }
    }
}

void
confirm_wait(void)
{
    const struct held *h;

    LIST_FOR_EACH (h, node, &waiting) {
        if (turn < h->turn + 2) {
            poll_immediate_wake();
        }
        poll_timer_wait_until(h->since_ms + HOLD_MAX_MS);
    }
    if (!ovs_list_is_empty(&waiting)) {
        seq_wait(done_seq, seq_read(done_seq));
    }
}
