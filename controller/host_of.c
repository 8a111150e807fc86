/* Theory of Operation
 * ===================
 *
 *   DOWN --> CONNECT --> ROLE --> READY <--> READ
 *                                   |
 *                                  ADD --> CLOSE --> COMMIT --> READY
 *
 * DOWN waits, longer after each failure and never exactly as long as another
 * host.  ROLE asks for MASTER with our epoch; a switch that knows a newer one
 * refuses, and we step back.  READY reads the switch's flows first
 * (host_read.c): what differs from the wanted table is pending, and so is from
 * then on every change of that table.  What is pending goes out as one ordered,
 * atomic bundle (host_push.c):
 *
 *   open, add ..., close | commit, barrier
 *
 * The reply to "close" is waited for, because Open vSwitch commits a bundle
 * without the messages that it refused to add.  Only a bundle of which nothing
 * was refused is committed, so that the switch has the old rules or the new,
 * wherever we die; an uncommitted bundle dies with its connection.
 *
 * Any failure leads to DOWN, a refused bundle to READY with nothing known: then
 * the switch is read again and the difference computed anew.  So there is no
 * bookkeeping of what was sent.
 *
 * Nothing piles up: no more than SEND_WINDOW bytes wait to be written, flows
 * are encoded when there is room, changes merge per flow while a bundle is
 * under way, and each turn handles a bounded number of messages. */
#include <config.h>

#include "host_priv.h"
#include "host_wire.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "byte-order.h"
#include "openflow/openflow-1.2.h"
#include "openvswitch/ofp-connection.h"
#include "openvswitch/ofp-errors.h"
#include "openvswitch/ofp-msgs.h"
#include "openvswitch/ofp-util.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/rconn.h"
#include "openvswitch/vconn.h"
#include "openvswitch/vlog.h"
#include "random.h"
#include "socket-util.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(host_of);

#define VERSIONS (1u << OFP13_VERSION | 1u << OFP15_VERSION)
#define PROBE_S 10
#define CONNECT_TIMEOUT_MS 5000
#define REPLY_TIMEOUT_MS 30000
#define BACKOFF_MIN_MS 200
#define BACKOFF_MAX_MS 8000
/* Messages handled per host and turn. */
#define RECV_BATCH 100
/* A connection that was of use for this long is followed by a quick one. */
#define STABLE_MS 2000

static unsigned audit_interval_s = 60;

void
host_set_audit_interval(unsigned seconds)
{
    audit_interval_s = seconds;
}

const char *
host_of_state_name(enum of_state state)
{
    static const char *const names[] = {
        [OF_DOWN] = "down",
        [OF_CONNECT] = "connecting",
        [OF_ROLE] = "asking for mastership",
        [OF_READY] = "ready",
        [OF_READ] = "reading flows",
        [OF_ADD] = "sending a bundle",
        [OF_CLOSE] = "closing a bundle",
        [OF_COMMIT] = "committing a bundle",
    };

    return names[state];
}

void
host_of_init(struct host *h)
{
    ftable_init(&h->of.have);
    fdelta_init(&h->of.pending);
    fdelta_init(&h->of.inflight);
    host_meter_init(h);
}

void
host_of_destroy(struct host *h)
{
    host_of_close(h);
    ftable_destroy(&h->of.have);
    fdelta_destroy(&h->of.pending);
    fdelta_destroy(&h->of.inflight);
    host_meter_destroy(h);
}

void
host_of_enter(struct host *h, enum of_state state, unsigned timeout_ms)
{
    h->of.state = state;
    h->of.deadline = timeout_ms ? time_msec() + timeout_ms : 0;
}

uint32_t
host_of_next_xid(struct host *h, size_t n)
{
    struct of_conn *of = &h->of;

    /* 0 is for what needs no answer. */
    if (!of->next_xid || of->next_xid > UINT32_MAX - n) {
        of->next_xid = 1;
    }
    of->xid = of->next_xid;
    of->next_xid += n;
    return of->xid;
}

/* Half to all of 'ms'. */
static unsigned
jitter(unsigned ms)
{
    return ms / 2 + random_range(ms / 2 + 1);
}

static void
schedule_audit(struct host *h)
{
    h->of.audit_at = audit_interval_s ? time_msec() + jitter(2000 * audit_interval_s) : LLONG_MAX;
}

static void
disconnect(struct host *h)
{
    struct of_conn *of = &h->of;

    rconn_destroy(of->rconn);
    rconn_packet_counter_destroy(of->queued);
    of->rconn = NULL;
    of->queued = NULL;
    of->in_step = false;
    h->status.applied_revision = 0;
    of->log_xid = 0;
    of->reports = false;
    ftable_clear(&of->have);
    host_meter_forget(h);
    fdelta_clear(&of->pending);
    fdelta_clear(&of->inflight);
    host_of_enter(h, OF_DOWN, 0);
}

void
host_of_close(struct host *h)
{
    disconnect(h);
    h->of.retry_at = 0;
    h->of.backoff_ms = 0;
    h->of_error[0] = '\0';
}

void
host_of_fail(struct host *h, const char *format, ...)
{
    struct of_conn *of = &h->of;
    va_list args;

    va_start(args, format);
    vsnprintf(h->of_error, sizeof h->of_error, format, args);
    va_end(args);
    disconnect(h);
    of->backoff_ms = MAX(BACKOFF_MIN_MS, MIN(2 * of->backoff_ms, BACKOFF_MAX_MS));
    of->retry_at = time_msec() + jitter(of->backoff_ms);
    VLOG_INFO("%s: %s; next try in %lld ms", h->name, h->of_error, of->retry_at - time_msec());
}

int
host_of_send(struct host *h, struct ofpbuf *msg, uint32_t xid)
{
    ((struct ofp_header *)msg->data)->xid = htonl(xid);
    h->of.sent = true;
    return rconn_send(h->of.rconn, msg, h->of.queued);
}

/* --- connecting ----------------------------------------------------------------------- */

static void
start_connect(struct host *h)
{
    struct of_conn *of = &h->of;
    struct vconn *vconn;
    int error = host_wire_open(h->cfg.openflow, VERSIONS, DSCP_DEFAULT, &vconn);

    if (error) {
        host_of_fail(h, "openflow: %s: %s", h->cfg.openflow, ovs_retval_to_string(error));
        return;
    }
    of->rconn = rconn_create(PROBE_S, 0, DSCP_DEFAULT, VERSIONS);
    of->queued = rconn_packet_counter_create();
    rconn_connect_unreliably(of->rconn, vconn, h->name);
    host_of_enter(h, OF_CONNECT, CONNECT_TIMEOUT_MS);
}

static void
ask_for_mastership(struct host *h)
{
    struct of_conn *of = &h->of;
    struct ofp12_role_request *orr;
    struct ofpbuf *msg;

    of->version = rconn_get_version(of->rconn);
    msg = ofpraw_alloc(OFPRAW_OFPT12_ROLE_REQUEST, of->version, 0);
    orr = ofpbuf_put_zeros(msg, sizeof *orr);
    orr->role = htonl(OFPCR12_ROLE_PRIMARY);
    orr->generation_id = htonll(h->epoch);
    host_of_enter(h, OF_ROLE, REPLY_TIMEOUT_MS);
    host_of_send(h, msg, host_of_next_xid(h, 1));
}

static void
take_role(struct host *h, const struct ofp_header *oh)
{
    struct of_conn *of = &h->of;
    struct ofputil_role_request role;

    if (of->state != OF_ROLE || oh->xid != htonl(of->xid)) {
        return;
    }
    if (ofputil_decode_role_message(oh, &role) || role.role != OFPCR12_ROLE_PRIMARY) {
        host_of_fail(h, "openflow: the switch does not make us master");
        return;
    }
    VLOG_INFO("%s: connected, OpenFlow version 0x%02x, epoch %" PRIu64, h->name, of->version,
              h->epoch);
    h->status.stale = false;
    h->of_error[0] = '\0';
    of->retry_at = 0;
    of->hold_ms = 0;
    of->connected_at = time_msec();
    schedule_audit(h);
    host_of_enter(h, OF_READY, 0);
    host_log_start(h);
    host_step(h, "connected");
}

/* --- messages --------------------------------------------------------------------------- */

static void
take_error(struct host *h, const struct ofp_header *oh)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(5, 10);
    enum ofperr error = ofperr_decode_msg(oh, NULL);

    if (host_log_error(h, oh->xid, ofperr_get_name(error))) {
        return;
    }
    switch (h->of.state) {
    case OF_ROLE:
        if (oh->xid == htonl(h->of.xid)) {
            h->status.stale = error == OFPERR_OFPRRFC_STALE;
            host_of_fail(h, "openflow: mastership refused: %s",
                         h->status.stale ? "the switch obeys a newer controller"
                                         : ofperr_get_name(error));
        }
        break;
    case OF_READ:
        if (oh->xid == htonl(h->of.xid)) {
            host_of_fail(h, "openflow: flows cannot be read: %s", ofperr_get_name(error));
        }
        break;
    case OF_ADD:
    case OF_CLOSE:
    case OF_COMMIT:
        if (error == OFPERR_OFPBRC_IS_SECONDARY) {
            host_of_fail(h, "openflow: another controller took the switch over");
        } else {
            host_push_error(h, oh->xid, ofperr_get_name(error));
        }
        break;
    case OF_DOWN:
    case OF_CONNECT:
    case OF_READY:
        /* To the discard of a bundle that is no more. */
        VLOG_DBG_RL(&rl, "%s: %s", h->name, ofperr_get_name(error));
        break;
    }
}

static void
take_role_status(struct host *h, const struct ofp_header *oh)
{
    struct ofputil_role_status status;

    if (!ofputil_decode_role_status(oh, &status) && status.role == OFPCR12_ROLE_SECONDARY) {
        host_of_fail(h, "openflow: another controller took the switch over");
    }
}

static void
take_message(struct host *h, struct ofpbuf *msg)
{
    const struct ofp_header *oh = msg->data;
    enum ofptype type;

    if (ofptype_decode(&type, oh)) {
        return;
    }
    switch ((int)type) {
    case OFPTYPE_ECHO_REQUEST:
        host_of_send(h, ofputil_encode_echo_reply(oh), ntohl(oh->xid));
        if (rconn_packet_counter_n_bytes(h->of.queued) > HOST_LIMIT_UNREAD) {
            host_of_fail(h, "openflow: the switch sends and does not read");
        }
        break;
    case OFPTYPE_ERROR:
        take_error(h, oh);
        break;
    case OFPTYPE_ROLE_REPLY:
        take_role(h, oh);
        break;
    case OFPTYPE_ROLE_STATUS:
        take_role_status(h, oh);
        break;
    case OFPTYPE_FLOW_STATS_REPLY:
        if (h->of.state == OF_READ && oh->xid == htonl(h->of.xid)) {
            host_of_enter(h, OF_READ, REPLY_TIMEOUT_MS);
            host_read_reply(h, msg);
        }
        break;
    case OFPTYPE_METER_CONFIG_STATS_REPLY:
        if (h->of.state == OF_READ && oh->xid == htonl(h->of.xid + 1)) {
            host_meter_reply(h, msg);
        }
        break;
    case OFPTYPE_BUNDLE_CONTROL:
        host_push_bundle_reply(h, oh);
        break;
    case OFPTYPE_BARRIER_REPLY:
        if (!host_log_barrier(h, oh->xid)) {
            host_push_barrier_reply(h, oh->xid);
        }
        break;
    case OFPTYPE_PACKET_IN:
        host_log_packet(h, oh);
        break;
    default:
        /* Ports and removed flows tell a controller that learns
         * ports by OVSDB and compares flows by itself nothing. */
        break;
    }
}

static void
receive(struct host *h)
{
    for (int i = 0; i < RECV_BATCH && h->of.state != OF_DOWN; i++) {
        struct ofpbuf *msg = rconn_recv(h->of.rconn);

        if (!msg) {
            break;
        }
        take_message(h, msg);
        ofpbuf_delete(msg);
    }
}

/* --- turns of the main loop -------------------------------------------------------------- */

/* The table is complete and reckons with the ports as the switch reported them. */
static bool
may_act(const struct host *h)
{
    return h->want && h->want_ports_seqno && time_msec() >= h->of.retry_at &&
           !host_meter_needs_15(h);
}

/* Any flow will do. */
static void
retouch(struct host *h)
{
    const struct pflow *flow;

    if (h->retouch) {
        h->retouch = false;
        FTABLE_FOR_EACH (flow, h->want) {
            fdelta_add(&h->of.pending, NULL, flow);
            break;
        }
    }
}

static void
run_ready(struct host *h)
{
    struct of_conn *of = &h->of;

    if (!may_act(h)) {
        return;
    }
    if (!of->in_step) {
        host_read_start(h, false);
        return;
    }
    ftable_take(h->want, &of->pending);
    retouch(h);
    if (!fdelta_is_empty(&of->pending) || host_meter_behind(h)) {
        host_push_start(h);
        return;
    }
    if (!host_db_is_settled(h)) {
        return;
    }
    h->status.applied_generation = h->want_generation;
    h->status.applied_revision = h->want_revision;
    if (time_msec() >= of->audit_at) {
        schedule_audit(h);
        host_read_start(h, true);
    }
}

static void
run_read(struct host *h)
{
    struct of_conn *of = &h->of;

    /* A change must not wait for an audit. */
    if (of->audit) {
        ftable_take(h->want, &of->pending);
        if (!fdelta_is_empty(&of->pending) ||
            (h->meters && of->meters_seen != h->meters->version)) {
            host_read_cancel(h);
            return;
        }
    }
    if (time_msec() >= of->read_until) {
        host_of_fail(h, "openflow: the switch does not come to an end of its flows");
    }
}

static void
run_state(struct host *h)
{
    switch (h->of.state) {
    case OF_CONNECT:
        if (rconn_is_connected(h->of.rconn)) {
            ask_for_mastership(h);
        }
        break;
    case OF_READ:
        run_read(h);
        break;
    case OF_READY:
        run_ready(h);
        break;
    case OF_ADD:
        host_push_more(h);
        break;
    case OF_DOWN:
    case OF_ROLE:
    case OF_CLOSE:
    case OF_COMMIT:
        break;
    }
}

void
host_of_run(struct host *h)
{
    struct of_conn *of = &h->of;
    enum of_state before;

    if (of->state == OF_DOWN) {
        if (h->db.ready && time_msec() >= of->retry_at) {
            start_connect(h);
        }
        return;
    }
    rconn_run(of->rconn);
    if (!rconn_is_alive(of->rconn)) {
        int error = rconn_get_last_error(of->rconn);

        host_of_fail(h, "openflow: %s: %s", h->cfg.openflow,
                     error ? host_peer_error(&h->openflow_peer, error) : "connection lost");
        return;
    }
    receive(h);
    do {
        before = of->state;
        run_state(h);
    } while (of->state != before && of->state != OF_DOWN);
    if (of->state == OF_READY && of->in_step && of->backoff_ms &&
        time_msec() - of->connected_at >= STABLE_MS) {
        of->backoff_ms = 0;
    }
    if (of->sent && of->state != OF_DOWN) {
        of->sent = false;
        rconn_run(of->rconn); /* writes it */
    }
    if (of->deadline && time_msec() >= of->deadline) {
        host_of_fail(h, "openflow: no answer while %s", host_of_state_name(of->state));
    }
}

void
host_of_wait(struct host *h)
{
    struct of_conn *of = &h->of;

    if (of->state == OF_DOWN) {
        if (h->db.ready) {
            poll_timer_wait_until(of->retry_at);
        }
        return;
    }
    rconn_run_wait(of->rconn);
    rconn_recv_wait(of->rconn);
    if (of->deadline) {
        poll_timer_wait_until(of->deadline);
    }
    if (of->state == OF_ADD && host_push_can_send(h)) {
        poll_immediate_wake();
    } else if (of->state == OF_READY && h->want && h->want_ports_seqno) {
        bool behind =
            of->in_step &&
            (!fdelta_is_empty(h->want->delta) || host_meter_behind(h) ||
             (h->status.applied_generation != h->want_generation && host_db_is_settled(h)));

        poll_timer_wait_until(of->retry_at ? of->retry_at : behind ? 0 : of->audit_at);
    }
}
