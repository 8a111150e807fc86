/* Theory of Operation
 * ===================
 *
 * Open vSwitch takes no meters in a bundle, and a flow may only refer to a meter
 * that is there; a meter that goes takes its flows along.  So a push sets the
 * meters that are missing or have another rate first, then come the flows as one
 * bundle, and when that is confirmed the meters go that neither these flows nor
 * the wanted ones refer to.
 *
 * Three sets: what the switch has, what the push under way needs ("sent"), and
 * what is wanted by now. */
#include <config.h>

#include "host_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "openvswitch/dynamic-string.h"
#include "openvswitch/ofp-errors.h"
#include "openvswitch/ofp-meter.h"
#include "openvswitch/ofp-msgs.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/vlog.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(host_meter);

void
host_meter_init(struct host *h)
{
    mtable_init(&h->of.meters_have);
    mtable_init(&h->of.meters_read);
    mtable_init(&h->of.meters_sent);
}

void
host_meter_destroy(struct host *h)
{
    mtable_destroy(&h->of.meters_have);
    mtable_destroy(&h->of.meters_read);
    mtable_destroy(&h->of.meters_sent);
}

void
host_meter_forget(struct host *h)
{
    mtable_clear(&h->of.meters_have);
    mtable_clear(&h->of.meters_read);
    mtable_clear(&h->of.meters_sent);
    h->of.meters_seen = 0;
}

/* --- reading --------------------------------------------------------------------- */

void
host_meter_read(struct host *h, uint32_t xid)
{
    mtable_clear(&h->of.meters_read);
    host_of_send(h, ofputil_encode_meter_request(h->of.version, OFPUTIL_METER_CONFIG, OFPM13_ALL),
                 xid);
}

/* One that does something else than ours do has no rate that is wanted. */
static void
take_meter(struct host *h, const struct ofputil_meter_config *mc)
{
    bool ours = mc->n_bands == 1 && mc->flags == (OFPMF13_KBPS | OFPMF13_BURST) &&
                mc->bands[0].type == OFPMBT13_DROP;

    if (pmeter_is_ours(mc->meter_id)) {
        mtable_set(&h->of.meters_read, mc->meter_id, ours ? mc->bands[0].rate : 0,
                   ours ? mc->bands[0].burst_size : 0, 0);
    }
}

void
host_meter_reply(struct host *h, struct ofpbuf *msg)
{
    struct ofputil_meter_config mc;
    uint64_t stub[256 / 8];
    struct ofpbuf bands = OFPBUF_STUB_INITIALIZER(stub);

    while (!ofputil_decode_meter_config(msg, &mc, &bands)) {
        take_meter(h, &mc);
    }
    ofpbuf_uninit(&bands);
}

void
host_meter_take(struct host *h, size_t *n_missing, size_t *n_foreign)
{
    struct of_conn *of = &h->of;
    const struct pmeter *m;

    mtable_copy(&of->meters_have, &of->meters_read);
    of->meters_seen = 0;
    if (!h->meters) {
        return;
    }
    MTABLE_FOR_EACH(m, h->meters)
    {
        *n_missing += !mtable_has(&of->meters_have, m);
    }
    MTABLE_FOR_EACH(m, &of->meters_have)
    {
        *n_foreign += !mtable_find(h->meters, m->id);
    }
}

/* --- comparing ---------------------------------------------------------------------- */

bool
host_meter_behind(struct host *h)
{
    struct of_conn *of = &h->of;
    size_t n_same = 0;
    const struct pmeter *m;

    if (!h->meters || of->meters_seen == h->meters->version) {
        return false;
    }
    MTABLE_FOR_EACH(m, h->meters)
    {
        n_same += mtable_has(&of->meters_have, m);
    }
    if (n_same != mtable_count(h->meters) || n_same != mtable_count(&of->meters_have)) {
        return true;
    }
    of->meters_seen = h->meters->version;
    return false;
}

/* OpenFlow 1.3 has no meter inside of a clone. */
bool
host_meter_needs_15(const struct host *h)
{
    return h->meters && mtable_count(h->meters) && h->of.version < OFP15_VERSION;
}

/* --- pushing -------------------------------------------------------------------------- */

size_t
host_meter_start(struct host *h)
{
    struct of_conn *of = &h->of;
    const struct pmeter *m;
    size_t n = 0;

    mtable_clear(&of->meters_sent);
    if (h->meters) {
        mtable_copy(&of->meters_sent, h->meters);
    }
    MTABLE_FOR_EACH(m, &of->meters_sent)
    {
        n += !mtable_has(&of->meters_have, m);
    }
    return n;
}

static void
send_mod(struct host *h, const struct pmeter *m, uint16_t command, uint32_t xid)
{
    struct ofputil_meter_band band = {
        .type = OFPMBT13_DROP,
        .rate = m->kbps,
        .burst_size = m->burst,
    };
    struct ofputil_meter_mod mm = {
        .command = command,
        .meter = {.meter_id = m->id,
                  .flags = OFPMF13_KBPS | OFPMF13_BURST,
                  .n_bands = command == OFPMC13_DELETE ? 0 : 1,
                  .bands = &band},
    };

    host_of_send(h, ofputil_encode_meter_mod(h->of.version, &mm), xid);
}

void
host_meter_send(struct host *h, uint32_t xid)
{
    struct of_conn *of = &h->of;
    const struct pmeter *m;

    MTABLE_FOR_EACH(m, &of->meters_sent)
    {
        if (!mtable_has(&of->meters_have, m)) {
            bool there = mtable_find(&of->meters_have, m->id);

            send_mod(h, m, there ? OFPMC13_MODIFY : OFPMC13_ADD, xid++);
        }
    }
}

uint32_t
host_meter_owner(const struct host *h, uint32_t i, struct ds *ds)
{
    const struct pmeter *m;

    MTABLE_FOR_EACH(m, &h->of.meters_sent)
    {
        if (!mtable_has(&h->of.meters_have, m) && !i--) {
            ds_put_format(ds, "meter %" PRIu32 ", %" PRIu32 " kbit/s", m->id, m->kbps);
            return m->owner;
        }
    }
    return 0;
}

void
host_meter_confirmed(struct host *h)
{
    struct of_conn *of = &h->of;
    struct pmeter *m, *next;

    MTABLE_FOR_EACH(m, &of->meters_sent)
    {
        mtable_set(&of->meters_have, m->id, m->kbps, m->burst, 0);
    }
    HMAP_FOR_EACH_SAFE (m, next, node, &of->meters_have.meters) {
        if (h->meters && !mtable_find(&of->meters_sent, m->id) && !mtable_find(h->meters, m->id)) {
            VLOG_DBG("%s: meter %" PRIu32 " goes", h->name, m->id);
            send_mod(h, m, OFPMC13_DELETE, 0);
            mtable_remove(&of->meters_have, m->id, m->owner);
        }
    }
}
