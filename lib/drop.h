/* drop: every reason for which Weft drops a packet, by name.
 *
 * Each drop is counted under exactly one reason; the names appear in
 * counters, traces and flow records. */
#ifndef DROP_H
#define DROP_H

/* X(enumerator, name in counters, explanation) */
#define DROP_REASONS(X)                                                                            \
    /* guest transmit: the guest's packet never reached the switch */                              \
    X(DROP_GTX_BAD_SLOT, "gtx_bad_slot", "size or offset passes the page, or sizes disagree")      \
    X(DROP_GTX_TOO_MANY_SLOTS, "gtx_too_many_slots", "more slots than the protocol allows")        \
    X(DROP_GTX_BAD_EXTRA, "gtx_bad_extra", "extra-info chain malformed or endless")                \
    X(DROP_GTX_BAD_GSO, "gtx_bad_gso", "segmentation or checksum request contradicts frame")       \
    X(DROP_GTX_BAD_GRANT, "gtx_bad_grant", "grant copy refused")                                   \
    X(DROP_GTX_TOO_SHORT, "gtx_too_short", "shorter than an Ethernet header")                      \
    X(DROP_GTX_TOO_LONG, "gtx_too_long", "larger than the MTU and not segmentable")                \
    X(DROP_GTX_NO_BUFFER, "gtx_no_buffer", "packet buffers exhausted")                             \
    /* guest receive: the switch's packet never reached the guest */                               \
    X(DROP_GRX_NOT_CONNECTED, "grx_not_connected", "frontend not connected")                       \
    X(DROP_GRX_QUEUE_FULL, "grx_queue_full", "queue's memory bound reached")                       \
    X(DROP_GRX_EXPIRED, "grx_expired", "waited too long for the guest's buffers")                  \
    X(DROP_GRX_STALLED, "grx_stalled", "guest stopped offering buffers")                           \
    X(DROP_GRX_BAD_GRANT, "grx_bad_grant", "grant copy refused")                                   \
    X(DROP_GRX_TOO_LONG, "grx_too_long", "larger than the MTU and not segmentable")                \
    X(DROP_GRX_NO_BUFFER, "grx_no_buffer", "packet buffers exhausted")                             \
    X(DROP_GRX_MULTICAST, "grx_multicast", "not in the guest's multicast list")                    \
    X(DROP_GRX_DETACHED, "grx_detached", "queue torn down with the packet in it")                  \
    /* the datapath: in flow records */                                                            \
    X(DROP_DP_POLICY, "dp_policy", "a flow's actions, or that it has none")                        \
    X(DROP_DP_NO_PORT, "dp_no_port", "sent to a port that is gone")                                \
    X(DROP_DP_UPCALL, "dp_upcall", "no room in the queue to ofproto")                              \
    X(DROP_DP_METER, "dp_meter", "a meter's rate was exceeded")

enum drop_reason {
#define X(id, name, text) id,
    DROP_REASONS(X)
#undef X
        DROP_N_REASONS
};

/* "gtx_bad_slot" and the like; never NULL. */
static inline const char *
drop_reason_name(enum drop_reason r)
{
    static const char *const names[] = {
#define X(id, name, text) name,
        DROP_REASONS(X)
#undef X
    };
    return r < DROP_N_REASONS ? names[r] : "unknown";
}

#endif
