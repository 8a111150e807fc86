/* Reading the switch's flows and comparing them with the wanted ones. */
#include <config.h>

#include "host_priv.h"

#include <errno.h>
#include <stdio.h>

#include "byte-order.h"
#include "openvswitch/match.h"
#include "openvswitch/ofp-flow.h"
#include "openvswitch/ofp-group.h"
#include "openvswitch/ofp-msgs.h"
#include "openvswitch/ofp-port.h"
#include "openvswitch/ofp-protocol.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/vlog.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(host_read);

/* To the next part of the answer, and to its end. */
#define REPLY_TIMEOUT_MS 30000
#define READ_TIMEOUT_MS 120000

void
host_read_start(struct host *h, bool audit)
{
    struct of_conn *of = &h->of;
    struct ofputil_flow_stats_request request = {
        .out_port = OFPP_ANY,
        .out_group = OFPG_ANY,
        .table_id = 0xff,
    };

    of->audit = audit;
    of->retry_at = 0;
    of->read_bytes = 0;
    of->read_until = time_msec() + READ_TIMEOUT_MS;
    ftable_clear(&of->have);
    match_init_catchall(&request.match);
    host_of_enter(h, OF_READ, REPLY_TIMEOUT_MS);
    host_of_next_xid(h, 2);
    host_meter_read(h, of->xid + 1);
    host_of_send(
        h,
        ofputil_encode_flow_stats_request(&request, ofputil_protocol_from_ofp_version(of->version)),
        of->xid);
    host_step(h, "read");
}

void
host_read_cancel(struct host *h)
{
    ftable_clear(&h->of.have);
    h->of.audit_at = time_msec() + REPLY_TIMEOUT_MS;
    host_of_enter(h, OF_READY, 0);
}

/* --- the comparison --------------------------------------------------------------------- */

/* What stands out in the first few differences, for the log. */
static void
log_drift(const struct host *h)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(10, 10);
    const struct fchange *c;
    int n = 0;

    FDELTA_FOR_EACH (c, &h->of.pending) {
        struct ds ds = DS_EMPTY_INITIALIZER;

        pflow_format(c->after ? c->after : c->before, &ds);
        VLOG_WARN_RL(&rl, "%s: %s: %s", h->name,
                     !c->after   ? "is there and should not be"
                     : c->before ? "does something else"
                                 : "is missing",
                     ds_cstr(&ds));
        ds_destroy(&ds);
        if (++n == 5) {
            break;
        }
    }
}

/* Whether differences are drift: this controller had confirmed the wanted
 * table, or one before it left flows there.  What is sent to a switch for the
 * first time, or changed while it was away, is not. */
static bool
is_drift(const struct host *h)
{
    const struct pflow *flow;

    if (h->of.audit) {
        return true;
    }
    if (h->status.applied_generation && h->status.applied_generation != h->want_generation) {
        return false;
    }
    FTABLE_FOR_EACH (flow, &h->of.have) {
        if ((flow->cookie & FLOW_COOKIE_MASK) == FLOW_COOKIE_OURS) {
            return true;
        }
    }
    return false;
}

static void
compare(struct host *h)
{
    struct of_conn *of = &h->of;
    struct host_drift *drift = &h->status.drift;
    size_t n_missing = 0, n_foreign, n_meters, n_meters_missing = 0, n_meters_foreign = 0;
    const struct fchange *c;
    struct fdelta seen;

    /* The wanted table as it is now is the measure: what was recorded on the
     * way there is in it. */
    fdelta_init(&seen);
    ftable_take(h->want, &seen);
    fdelta_destroy(&seen);
    fdelta_clear(&of->pending);
    fdelta_diff(&of->pending, &of->have, h->want);

    FDELTA_FOR_EACH (c, &of->pending) {
        n_missing += c->after != NULL;
    }
    n_foreign = fdelta_count(&of->pending) - n_missing;
    host_meter_take(h, &n_meters_missing, &n_meters_foreign);
    n_meters = n_meters_missing + n_meters_foreign;
    n_missing += n_meters_missing;
    n_foreign += n_meters_foreign;
    drift->at_ms = time_msec();
    drift->missing = is_drift(h) ? n_missing : 0;
    drift->foreign = is_drift(h) ? n_foreign : 0;
    if (of->audit && n_missing + n_foreign) {
        VLOG_WARN("%s: %" PRIuSIZE " flows and meters were missing or changed and %" PRIuSIZE
                  " foreign without our doing",
                  h->name, n_missing, n_foreign);
        log_drift(h);
        h->status.n_drift += fdelta_count(&of->pending) + n_meters;
    } else if (!of->audit) {
        VLOG_INFO("%s: has %" PRIuSIZE " flows in our tables; %" PRIuSIZE " to set, %" PRIuSIZE
                  " to remove",
                  h->name, ftable_count(&of->have), n_missing, n_foreign);
    }
    ftable_clear(&of->have);
    of->in_step = true;
    host_of_enter(h, OF_READY, 0);
    host_step(h, "compared");
}

/* A switch that says it has more is not believed. */
static bool
is_too_much(const struct host *h)
{
    return h->of.read_bytes >
           HOST_LIMIT_FLOW_BYTES + ftable_count(h->want) * (size_t)HOST_LIMIT_PER_FLOW;
}

/* --- the answer ---------------------------------------------------------------------------- */

static void
take_flow(struct host *h, const struct ofputil_flow_stats *fs)
{
    struct pflow *flow;

    if (!flow_table_is_ours(fs->table_id)) {
        return;
    }
    if (flow_cookie_kind(ntohll(fs->cookie)) == FLOW_TAP && fs->hard_timeout) {
        return; /* it goes by itself */
    }
    flow = pflow_from_stats(fs);
    if (!flow) {
        /* A cookie that no flow of ours has: never equal to a wanted one. */
        flow =
            pflow_create(fs->table_id, fs->priority, 0, &fs->match, fs->ofpacts, fs->ofpacts_len);
    }
    ftable_set(&h->of.have, flow);
    pflow_unref(flow);
}

void
host_read_reply(struct host *h, struct ofpbuf *msg)
{
    bool more = ofpmp_more(msg->data);
    struct ofputil_flow_stats fs;
    uint64_t stub[1024 / 8];
    struct ofpbuf ofpacts = OFPBUF_STUB_INITIALIZER(stub);
    const struct pflow *wanted;
    enum ofpraw raw;
    int error;

    h->of.read_bytes += msg->size;
    if (is_too_much(h)) {
        host_of_fail(h, "openflow: the switch has too many flows");
        return;
    }
    error = ofpraw_pull(&raw, msg);
    while (!error) {
        /* Nearly all of a switch that has kept its flows, with nothing decoded or copied. */
        while (raw == OFPRAW_OFPST15_FLOW_REPLY && (wanted = ftable_pull(h->want, msg))) {
            ftable_set(&h->of.have, wanted);
        }
        error = ofputil_decode_flow_stats_reply(&fs, msg, false, &ofpacts);
        if (!error) {
            take_flow(h, &fs);
        }
    }
    ofpbuf_uninit(&ofpacts);
    if (error != EOF) {
        host_of_fail(h, "openflow: the switch's flows cannot be read: %s",
                     ovs_retval_to_string(error));
    } else if (!more) {
        compare(h);
    }
}
