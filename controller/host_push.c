/* One bundle: the difference goes to the switch, all of it or nothing. */
#include <config.h>

#include "host_priv.h"

#include "openvswitch/ofp-bundle.h"
#include "openvswitch/ofp-msgs.h"
#include "openvswitch/ofp-util.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/rconn.h"
#include "openvswitch/vlog.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(host_push);

#define REPLY_TIMEOUT_MS 30000
/* Bytes that may wait to be written, and flows per turn of the main loop. */
#define SEND_WINDOW (256 * 1024)
#define SEND_BATCH 1000
/* After a refused bundle, unless what is stated changes. */
#define HOLD_MIN_MS 1000
#define HOLD_MAX_MS 60000
#define FLAGS (OFPBF_ATOMIC | OFPBF_ORDERED)

/* xids of a bundle of n flows: xid for "open", then n for the flows, then these,
 * then one for each meter. */
enum { XID_CLOSE = 1, XID_COMMIT, XID_BARRIER, XID_N };

static uint32_t
xid_after(const struct of_conn *of, unsigned what)
{
    return of->xid + fdelta_count(&of->inflight) + what;
}

static int
send_control(struct host *h, uint16_t type, uint32_t xid)
{
    struct ofputil_bundle_ctrl_msg control = {
        .bundle_id = h->of.bundle_id,
        .type = type,
        .flags = FLAGS,
    };

    return host_of_send(h, ofputil_encode_bundle_ctrl_request(h->of.version, &control), xid);
}

void
host_push_start(struct host *h)
{
    struct of_conn *of = &h->of;

    fdelta_swap(&of->inflight, &of->pending);
    fdelta_clear(&of->pending);
    of->next = (struct hmap_position){0, 0};
    of->n_sent = 0;
    of->committed = false;
    of->generation = h->want_generation;
    of->revision = h->want_revision;
    of->bundle_id++;
    of->n_meters = host_meter_start(h);
    host_of_next_xid(h, fdelta_count(&of->inflight) + XID_N + of->n_meters);
    host_of_enter(h, OF_ADD, REPLY_TIMEOUT_MS);
    host_meter_send(h, xid_after(of, XID_N));
    host_step(h, "meters");
    send_control(h, OFPBCT_OPEN_REQUEST, of->xid);
    host_step(h, "open");
}

bool
host_push_can_send(const struct host *h)
{
    return rconn_packet_counter_n_bytes(h->of.queued) < SEND_WINDOW;
}

static void
send_change(struct host *h, const struct fchange *change)
{
    struct of_conn *of = &h->of;
    struct ofpbuf *mod = change->after ? pflow_encode_add(change->after, of->version)
                                       : pflow_encode_delete(change->before, true, of->version);
    struct ofputil_bundle_add_msg add = {
        .bundle_id = of->bundle_id,
        .flags = FLAGS,
        .msg = mod->data,
    };
    uint32_t xid = of->xid + 1 + of->n_sent++;

    ((struct ofp_header *)mod->data)->xid = htonl(xid);
    host_of_send(h, ofputil_encode_bundle_add(of->version, &add), xid);
    ofpbuf_delete(mod);
    h->status.n_flow_mods++;
    host_step(h, "add");
}

void
host_push_more(struct host *h)
{
    struct of_conn *of = &h->of;

    for (int i = 0; i < SEND_BATCH && host_push_can_send(h); i++) {
        struct hmap_node *node = hmap_at_position(&of->inflight.nodes, &of->next);

        if (!node) {
            host_of_enter(h, OF_CLOSE, REPLY_TIMEOUT_MS);
            send_control(h, OFPBCT_CLOSE_REQUEST, xid_after(of, XID_CLOSE));
            host_step(h, "close");
            return;
        }
        send_change(h, CONTAINER_OF(node, struct fchange, node));
        /* Progress. */
        host_of_enter(h, OF_ADD, REPLY_TIMEOUT_MS);
    }
}

static void
commit(struct host *h)
{
    struct of_conn *of = &h->of;

    host_of_enter(h, OF_COMMIT, REPLY_TIMEOUT_MS);
    host_step(h, "closed");
    send_control(h, OFPBCT_COMMIT_REQUEST, xid_after(of, XID_COMMIT));
    host_step(h, "commit");
    host_of_send(h, ofputil_encode_barrier_request(of->version), xid_after(of, XID_BARRIER));
    host_step(h, "barrier");
}

void
host_push_bundle_reply(struct host *h, const struct ofp_header *oh)
{
    struct of_conn *of = &h->of;
    struct ofputil_bundle_ctrl_msg reply;

    if (ofputil_decode_bundle_ctrl(oh, &reply) || reply.bundle_id != of->bundle_id) {
        return;
    }
    if (of->state == OF_CLOSE && reply.type == OFPBCT_CLOSE_REPLY) {
        commit(h);
    } else if (of->state == OF_COMMIT && reply.type == OFPBCT_COMMIT_REPLY) {
        of->committed = true;
        host_step(h, "committed");
    }
}

void
host_push_barrier_reply(struct host *h, ovs_be32 xid)
{
    struct of_conn *of = &h->of;

    if (of->state != OF_COMMIT || xid != htonl(xid_after(of, XID_BARRIER))) {
        return;
    }
    if (!of->committed) {
        host_push_error(h, htonl(xid_after(of, XID_COMMIT)), "no reply to the commit");
        return;
    }
    if (host_db_is_settled(h)) {
        h->status.applied_generation = of->generation;
        h->status.applied_revision = of->revision;
    }
    h->status.n_pushes++;
    h->status.refused_cookie = 0;
    h->of_error[0] = '\0';
    of->hold_ms = 0;
    VLOG_DBG("%s: %" PRIuSIZE " flows confirmed, generation %" PRId64, h->name,
             fdelta_count(&of->inflight), of->generation);
    fdelta_clear(&of->inflight);
    host_meter_confirmed(h);
    host_of_enter(h, OF_READY, 0);
    host_step(h, "confirmed");
}

/* --- refused -------------------------------------------------------------------------------- */

/* The flow that was sent with 'xid'; NULL if it was none. */
static const struct pflow *
flow_of_xid(const struct of_conn *of, uint32_t xid)
{
    uint32_t i = xid - of->xid - 1;
    const struct fchange *c;

    FDELTA_FOR_EACH (c, &of->inflight) {
        if (!i--) {
            return c->after ? c->after : c->before;
        }
    }
    return NULL;
}

void
host_push_error(struct host *h, ovs_be32 xid_, const char *error)
{
    struct of_conn *of = &h->of;
    uint32_t xid = ntohl(xid_);
    const struct pflow *flow;
    struct ds ds = DS_EMPTY_INITIALIZER;

    if (xid - of->xid >= fdelta_count(&of->inflight) + XID_N + of->n_meters) {
        return;
    }
    flow = flow_of_xid(of, xid);
    if (flow) {
        pflow_format(flow, &ds);
        h->status.refused_cookie = flow->cookie;
    } else if (xid - xid_after(of, XID_N) < of->n_meters) {
        uint32_t vif = host_meter_owner(h, xid - xid_after(of, XID_N), &ds);

        h->status.refused_cookie = flow_cookie(FLOW_VIF, vif);
    }
    host_set_error(h->of_error, sizeof h->of_error,
                   "openflow: the switch refused the change: %s%s%s", error, ds.length ? ": " : "",
                   ds_cstr(&ds));
    VLOG_WARN("%s: %s", h->name, h->of_error);
    ds_destroy(&ds);

    /* What the switch has is what it had; it is read again. */
    of->hold_ms = MAX(HOLD_MIN_MS, MIN(2 * of->hold_ms, HOLD_MAX_MS));
    of->retry_at = time_msec() + of->hold_ms;
    of->in_step = false;
    h->status.n_refused++;
    fdelta_clear(&of->inflight);
    fdelta_clear(&of->pending);
    send_control(h, OFPBCT_DISCARD_REQUEST, 0);
    host_of_enter(h, OF_READY, 0);
}
