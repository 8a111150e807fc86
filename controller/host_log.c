/* Packets that flows of ours report: rules with their log flag, and taps.
 *
 * A flood must not become one of messages: the switch's virtual meter for its
 * controllers bounds what flows may report, whatever their number, and nothing
 * is asked for before the switch has that meter.  A switch without meters
 * reports nothing.
 *
 *   async none, delete meter, add meter, barrier | ask for packets
 *
 * A tap is a flow with a timeout, so that it goes whatever happens to us; it is
 * none of the wanted table's, and comparisons leave it alone.
 *
 * The meter is not one of pmeter.h's: no flow refers to it. */
#include <config.h>

#include "host_priv.h"

#include "dp-packet.h"
#include "flow.h"
#include "openflow/openflow-1.3.h"
#include "openvswitch/match.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofp-connection.h"
#include "openvswitch/ofp-flow.h"
#include "openvswitch/ofp-meter.h"
#include "openvswitch/ofp-msgs.h"
#include "openvswitch/ofp-packet.h"
#include "openvswitch/ofp-switch.h"
#include "openvswitch/ofp-util.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/vlog.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(host_log);

/* Of one switch, a second and at once. */
#define PACKETS_PER_S 100
#define PACKETS_BURST 100
#define PACKET_BYTES 256

enum { XID_ASYNC, XID_DELETE, XID_ADD, XID_BARRIER, XID_N };

static void (*on_packet)(void *aux, struct host *, const struct host_packet *);
static void *on_packet_aux;

void
host_on_packet(void (*cb)(void *aux, struct host *, const struct host_packet *), void *aux)
{
    on_packet = cb;
    on_packet_aux = aux;
}

static void
send_async(struct host *h, bool packets, uint32_t xid)
{
    struct ofputil_async_cfg ac = OFPUTIL_ASYNC_CFG_INIT;

    ac.primary[OAM_PACKET_IN] = packets ? 1u << OFPR_ACTION : 0;
    host_of_send(h, ofputil_encode_set_async_config(&ac, 1u << OAM_PACKET_IN, h->of.version), xid);
}

static void
send_meter(struct host *h, uint16_t command, uint32_t xid)
{
    struct ofputil_meter_band band = {
        .type = OFPMBT13_DROP, .rate = PACKETS_PER_S, .burst_size = PACKETS_BURST};
    struct ofputil_meter_mod mm = {
        .command = command,
        .meter = {.meter_id = OFPM13_CONTROLLER,
                  .flags = OFPMF13_PKTPS | OFPMF13_BURST,
                  .n_bands = command == OFPMC13_DELETE ? 0 : 1,
                  .bands = &band},
    };

    host_of_send(h, ofputil_encode_meter_mod(h->of.version, &mm), xid);
}

void
host_log_start(struct host *h)
{
    uint32_t xid = host_of_next_xid(h, XID_N);

    h->of.log_xid = xid;
    h->of.reports = false;
    send_async(h, false, xid + XID_ASYNC);
    send_meter(h, OFPMC13_DELETE, xid + XID_DELETE);
    send_meter(h, OFPMC13_ADD, xid + XID_ADD);
    host_of_send(h, ofputil_encode_barrier_request(h->of.version), xid + XID_BARRIER);
}

bool
host_log_error(struct host *h, ovs_be32 xid_, const char *error)
{
    uint32_t which = ntohl(xid_) - h->of.log_xid;

    if (!h->of.log_xid || which >= XID_N) {
        return false;
    }
    if (which == XID_ADD || which == XID_ASYNC) {
        VLOG_WARN("%s: reports no packets, for it takes no meter for them: %s", h->name, error);
        h->of.log_xid = 0;
    }
    return true;
}

bool
host_log_barrier(struct host *h, ovs_be32 xid)
{
    struct ofputil_switch_config config = {.frag = OFPUTIL_FRAG_NORMAL,
                                           .invalid_ttl_to_controller = -1,
                                           .miss_send_len = PACKET_BYTES};

    if (!h->of.log_xid || ntohl(xid) != h->of.log_xid + XID_BARRIER) {
        return false;
    }
    h->of.log_xid = 0;
    h->of.reports = true;
    /* Without a length a switch sends nothing to its management socket. */
    host_of_send(h, ofputil_encode_set_config(&config, h->of.version), 0);
    send_async(h, true, 0);
    return true;
}

/* A switch that keeps to its meter stays below. */
static bool
is_too_many(struct host *h)
{
    long long int second = time_msec() / 1000;

    if (h->of.packets_s != second) {
        h->of.packets_s = second;
        h->of.n_packets = 0;
    }
    return ++h->of.n_packets > 2 * PACKETS_PER_S + PACKETS_BURST;
}

void
host_log_packet(struct host *h, const struct ofp_header *oh)
{
    struct host_packet hp = {.cookie = 0};
    struct ofputil_packet_in pin;
    struct dp_packet packet;
    struct flow flow;

    if (!on_packet || is_too_many(h) ||
        ofputil_decode_packet_in(oh, true, NULL, NULL, &pin, NULL, NULL, NULL)) {
        return;
    }
    if (pin.packet_len >= ETH_HEADER_LEN && pin.packet_len <= UINT16_MAX) {
        dp_packet_use_const(&packet, pin.packet, pin.packet_len);
        flow_extract(&packet, &flow);
        hp.cookie = ntohll(pin.cookie);
        hp.table = pin.table_id;
        hp.metadata = &pin.flow_metadata.flow;
        hp.packet = &flow;
        on_packet(on_packet_aux, h, &hp);
    }
}

/* --- taps --------------------------------------------------------------------------------- */

/* Bits of the mark that a packet carries past a tap: it goes on as if it had not
 * been there. */
#define TAP_MARK MFF_REG10
enum { TAP_SAMPLE = 1, TAP_ENTRY = 2, TAP_STATE = 4 };

struct tap {
    uint8_t table;
    uint16_t priority;  /* above what decides */
    uint32_t key;       /* of the cookie */
    uint32_t seen, bit; /* bits that are set already, the one to be set */
};

static void
tap_actions(const struct tap *t, struct ofpbuf *acts)
{
    const ovs_be32 bit = htonl(t->bit);
    struct ofpact_controller *oc = ofpact_put_CONTROLLER(acts);
    struct ofpact_resubmit *again;

    oc->max_len = PACKET_BYTES;
    oc->reason = OFPR_ACTION;
    oc->meter_id = NX_CTLR_NO_METER;
    oc->provider_meter_id = UINT32_MAX;
    ofpact_put_set_field(acts, mf_from_id(TAP_MARK), &bit, &bit);
    again = ofpact_put_RESUBMIT(acts);
    again->in_port = OFPP_IN_PORT;
    again->table_id = t->table;
}

/* Changes 'match'. */
static void
send_tap(struct host *h, const struct tap *t, struct match *match, unsigned seconds)
{
    struct ofputil_flow_mod fm = {
        .priority = t->priority,
        .table_id = t->table,
        .command = seconds ? OFPFC_ADD : OFPFC_DELETE_STRICT,
        .new_cookie = htonll(flow_cookie(FLOW_TAP, t->key)),
        .hard_timeout = seconds,
        .buffer_id = UINT32_MAX,
        .out_port = OFPP_ANY,
        .out_group = OFPG_ANY,
    };
    uint64_t stub[256 / 8];
    struct ofpbuf acts = OFPBUF_STUB_INITIALIZER(stub);

    match_set_reg_masked(match, TAP_MARK - MFF_REG0, t->seen, t->seen | t->bit);
    minimatch_init(&fm.match, match);
    tap_actions(t, &acts);
    if (seconds) {
        fm.ofpacts = acts.data;
        fm.ofpacts_len = acts.size;
    }
    host_of_send(h, ofputil_encode_flow_mod(&fm, ofputil_protocol_from_ofp_version(h->of.version)),
                 0);
    minimatch_destroy(&fm.match);
    ofpbuf_uninit(&acts);
}

static bool
can_tap(const struct host *h)
{
    return h->of.state >= OF_READY && h->of.reports;
}

bool
host_tap(struct host *h, unsigned seconds)
{
    const struct tap tap = {TBL_STATE, 120, 0, 0, TAP_SAMPLE};
    struct match match = MATCH_CATCHALL_INITIALIZER;

    if (!can_tap(h)) {
        return false;
    }
    match_set_ct_state_masked(&match, CS_TRACKED | CS_NEW, CS_TRACKED | CS_NEW);
    send_tap(h, &tap, &match, seconds);
    return true;
}

bool
host_tap_port(struct host *h, uint32_t ofport, uint16_t tag, uint32_t key,
              const struct match *filter, unsigned seconds)
{
    const struct tap entry = {TBL_CLASSIFY, 2000, key, 0, TAP_ENTRY};
    const struct tap state = {TBL_STATE, 300, key, TAP_ENTRY, TAP_STATE};
    struct match match = *filter;

    if (!can_tap(h)) {
        return false;
    }
    match_set_in_port(&match, u16_to_ofp(ofport));
    if (tag) {
        match_set_vlan_vid(&match, htons(tag | VLAN_CFI));
    }
    send_tap(h, &entry, &match, seconds);
    match = *filter;
    match_set_in_port(&match, u16_to_ofp(ofport));
    match_set_ct_state_masked(&match, CS_TRACKED, CS_TRACKED);
    send_tap(h, &state, &match, seconds);
    return true;
}
