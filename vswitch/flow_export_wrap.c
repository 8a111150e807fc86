/* In front of Open vSwitch's own exporters of NetFlow and IPFIX.
 *
 * For a bridge of datapath "weft" ofproto never hears of collectors, as it
 * would make every flow a 5-tuple's and send packets to user space
 * (flow_export.h does their work).  Exporters of sample() actions, those of
 * Flow_Sample_Collector_Set, it has as ever, but for collectors by TCP and TLS,
 * which it cannot reach.  So that it translates sample() actions, which may
 * name rules (dp_record.c), it gets one without any settings if there is none.
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
    return !strcmp(ofproto->type, "weft");
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

/* Whether Open vSwitch understands its collectors' addresses. */
static bool
is_plain(const struct ofproto_ipfix_flow_exporter_options *flow)
{
    const char *target;

    SSET_FOR_EACH(target, &flow->targets)
    {
        if (!strncmp(target, "udp:", 4) || !strncmp(target, "tcp:", 4) ||
            !strncmp(target, "tls:", 4)) {
            return false;
        }
    }
    return true;
}

int
__wrap_ofproto_set_ipfix(struct ofproto *ofproto,
                         const struct ofproto_ipfix_bridge_exporter_options *bridge,
                         const struct ofproto_ipfix_flow_exporter_options *flows, size_t n)
{
    struct ofproto_ipfix_flow_exporter_options *some;
    size_t n_some = 0;
    int error;

    if (!is_ours(ofproto)) {
        return __real_ofproto_set_ipfix(ofproto, bridge, flows, n);
    }
    if (!bridge && !flows && !sset_contains(&with_netflow, ofproto->name)) {
        return __real_ofproto_set_ipfix(ofproto, NULL, NULL, 0);
    }
    /* Copies that own nothing: what they point to is the caller's. */
    some = xcalloc(n + 1, sizeof *some);
    for (size_t i = 0; i < n; i++) {
        if (is_plain(&flows[i])) {
            some[n_some++] = flows[i];
        }
    }
    error = __real_ofproto_set_ipfix(ofproto, NULL, some, n_some);
    free(some);
    return error;
}
