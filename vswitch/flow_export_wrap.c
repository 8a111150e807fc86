/* In front of Open vSwitch's own exporters of NetFlow and IPFIX.
 *
 * For a bridge of datapath "weft" ofproto never hears of collectors, as it
 * would make every flow a 5-tuple's and send packets to user space
 * (flow_export.h does their work).  What it gets instead, so that it translates
 * sample() actions, which name rules (dp_record.c), is an IPFIX
 * exporter without any settings: a list of none that is not NULL.
 *
 * Threads: the main thread. */
#include <config.h>

#include "ofproto/ofproto-provider.h"
#include "ofproto/ofproto.h"
#include "sset.h"
#include "wrap.h"

static struct sset with_netflow = SSET_INITIALIZER(&with_netflow);

static bool
is_ours(const struct ofproto *ofproto)
{
    return !strcmp(ofproto->type, "weft") || !strcmp(ofproto->type, "weft-dummy");
}

int
__wrap_ofproto_set_netflow(struct ofproto *ofproto, const struct netflow_options *options)
{
    if (!is_ours(ofproto)) {
        return __real_ofproto_set_netflow(ofproto, options);
    }
    sset_find_and_delete(&with_netflow, ofproto->name);
    if (options) {
        sset_add(&with_netflow, ofproto->name);
    }
    return __real_ofproto_set_netflow(ofproto, NULL);
}

int
__wrap_ofproto_set_ipfix(struct ofproto *ofproto,
                         const struct ofproto_ipfix_bridge_exporter_options *bridge,
                         const struct ofproto_ipfix_flow_exporter_options *flows, size_t n)
{
    static const struct ofproto_ipfix_flow_exporter_options nobody;

    if (!is_ours(ofproto)) {
        return __real_ofproto_set_ipfix(ofproto, bridge, flows, n);
    }
    if (!bridge && !flows && !sset_contains(&with_netflow, ofproto->name)) {
        return __real_ofproto_set_ipfix(ofproto, NULL, NULL, 0);
    }
    return __real_ofproto_set_ipfix(ofproto, NULL, &nobody, 0);
}
