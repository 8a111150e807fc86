/* What flows mean, in words. */
#include <config.h>

#include "compile_impl.h"
#include "flow.h"
#include "model.h"
#include "openvswitch/dynamic-string.h"
#include "pflow.h"
#include "record.h"
#include "trace.h"
#include "util.h"

static const char *
name_of(const struct model *m, uint32_t key)
{
    const struct model_obj *obj = model_by_key(m, key);

    return obj ? obj->name : "?";
}

static void
explain_scope(const struct model_policy *p, struct ds *ds)
{
    static const char *const names[] = {
        [MODEL_SCOPE_GLOBAL] = "global",   [MODEL_SCOPE_POOL] = "pool",
        [MODEL_SCOPE_NETWORK] = "network", [MODEL_SCOPE_GROUP] = "group",
        [MODEL_SCOPE_VM] = "VM",           [MODEL_SCOPE_VIF] = "vif",
    };

    ds_put_format(ds, "scope %s", names[p->scope]);
    if (p->object) {
        ds_put_format(ds, " %s", p->object->name);
    }
}

void
explain_rule(const struct model_rule *r, struct ds *ds)
{
    const struct model_policy *p = r->policy;

    ds_put_format(ds, "rule %s/%s of policy %s", p->obj.name, r->obj.name, p->obj.name);
    if (p->author && p->author[0]) {
        ds_put_format(ds, ", by %s", p->author);
    }
    ds_put_format(ds, "; %s part, ", r->mandatory ? "mandatory" : "default");
    explain_scope(p, ds);
}

void
explain_rule_key(const struct model *m, uint32_t key, struct ds *ds)
{
    const struct model_rule *r = model_rule(model_by_key(m, key));

    if (r) {
        explain_rule(r, ds);
    } else if (key) {
        ds_put_format(ds, "a rule that is gone (key %" PRIu32 ")", key);
    } else {
        ds_put_cstr(ds, "the pool's default action");
    }
}

void
explain_cookie(const struct model *m, uint64_t cookie, struct ds *ds)
{
    uint32_t key = cookie;

    switch (flow_cookie_kind(cookie)) {
    case FLOW_BASE:
        if (key) {
            ds_put_format(ds, "host %s", name_of(m, key));
        } else {
            ds_put_cstr(ds, "pipeline");
        }
        break;
    case FLOW_VIF:
        ds_put_format(ds, "vif %s", name_of(m, key));
        break;
    case FLOW_REMOTE:
        ds_put_format(ds, "vif %s, on another host", name_of(m, key));
        break;
    case FLOW_NETWORK:
        ds_put_format(ds, "network %s", name_of(m, key));
        break;
    case FLOW_RULE:
        if (key) {
            explain_rule_key(m, key, ds);
        } else {
            ds_put_cstr(ds, "clause of several rules");
        }
        break;
    case FLOW_DEFAULT:
        ds_put_cstr(ds, "the pool's default action");
        break;
    default:
        ds_put_format(ds, "not ours (cookie 0x%" PRIx64 ")", cookie);
    }
}

/* --- why a packet ends ---------------------------------------------------------------- */

static const char *
drop_classify(const struct model *m, const struct model_host *host, bool miss, uint64_t cookie,
              const struct flow *f, struct ds *ds)
{
    const struct model_port *port;

    if (!miss) {
        ds_put_format(ds, "vif %s is disabled", name_of(m, cookie));
        return "disabled";
    }
    LIST_FOR_EACH (port, host_node, &host->ports) {
        if (port->ofport == ofp_to_u16(f->in_port.ofp_port) && port->vif) {
            ds_put_format(ds, "vif %s has another port on this host", port->vif->obj.name);
            return "unknown_port";
        }
    }
    if (f->vlans[0].tci & htons(VLAN_CFI)) {
        ds_put_format(ds, "no network on this host has VLAN tag %d",
                      vlan_tci_to_vid(f->vlans[0].tci));
        return "unknown_tag";
    }
    ds_put_cstr(ds, "the port is no vif of the pool, nor does a host of the pool send this");
    return "unknown_port";
}

static bool
is_locked(const struct model *m, const struct flow *f)
{
    const struct model_vif *vif = model_vif(model_by_key(m, f->regs[REG_SRC]));

    return vif && vif->locking == MODEL_LOCKED;
}

static const char *
drop_spoof(const struct model *m, bool miss, uint16_t priority, uint64_t cookie,
           const struct flow *f, struct ds *ds)
{
    const struct model_vif *vif = model_vif(model_by_key(m, f->regs[REG_SRC]));
    const char *name = name_of(m, f->regs[REG_SRC]);

    if (!miss && flow_cookie_kind(cookie) == FLOW_NETWORK) {
        ds_put_format(ds, "network %s allows no DHCP servers among its vifs", name_of(m, cookie));
        return "dhcp_server";
    }
    if (!miss && flow_cookie_kind(cookie) == FLOW_BASE) {
        bool tag = f->vlans[0].tci & htons(VLAN_CFI);

        ds_put_cstr(ds, tag ? "a vif sends no VLAN tags" : "a vif speaks no protocols of bridges");
        return tag ? "tagged" : "bridge_protocol";
    }
    if (vif && !eth_addr_equals(vif->mac, f->dl_src)) {
        ds_put_format(ds, "vif %s sends from another MAC than its own", name);
        return "spoofed_mac";
    }
    ds_put_format(ds, "vif %s is %s: %s", name, is_locked(m, f) ? "locked" : "unlocked",
                  f->dl_type == htons(ETH_TYPE_ARP) ? "its ARP claims what is not its own"
                                                    : "the source address is not among its own");
    return "spoofed_address";
}

static const char *
drop_nd(const struct model *m, bool miss, uint64_t cookie, const struct flow *f, struct ds *ds)
{
    if (!miss && flow_cookie_kind(cookie) == FLOW_NETWORK) {
        ds_put_format(ds, "network %s allows no router advertisements or redirects from its vifs",
                      name_of(m, cookie));
        return "router_advertisement";
    }
    if (f->nw_frag & FLOW_NW_FRAG_ANY) {
        ds_put_cstr(ds, "neighbour discovery in fragments (RFC 6980)");
        return "fragmented_nd";
    }
    ds_put_format(ds, "neighbour discovery of vif %s claims what is not its own",
                  name_of(m, f->regs[REG_SRC]));
    return "spoofed_nd";
}

static const char *
drop_lookup(const struct model *m, const struct flow *f, struct ds *ds)
{
    const struct model_network *n = model_network(model_by_key(m, ntohll(f->metadata)));
    const struct model_vif *vif = n ? model_vif_by_mac(m, n, f->dl_dst) : NULL;

    if (vif) {
        ds_put_format(ds, "vif %s %s", vif->obj.name,
                      vif->locking == MODEL_DISABLED ? "is disabled"
                      : !vif->host                   ? "is on no host"
                                                     : "cannot be reached from this host");
        return vif->locking == MODEL_DISABLED ? "disabled" : "unreachable";
    }
    ds_put_format(ds, "network %s has no vif with this MAC, and no way out of this host",
                  n ? n->obj.name : "?");
    return "unknown_destination";
}

static const char *
drop_isolate(const struct model *m, bool miss, uint16_t priority, const struct flow *f,
             struct ds *ds)
{
    if (miss) {
        ds_put_cstr(ds, "not a packet that connection tracking takes");
        return "untracked";
    }
    if (priority == 400) {
        ds_put_cstr(ds, "what came from another host does not go to others again");
        return "split_horizon";
    }
    ds_put_cstr(ds, "both vifs are isolated");
    return "isolated";
}

static const char *
drop_verdict(const struct model *m, const struct flow *f, struct ds *ds)
{
    static const unsigned verdicts[] = {REG_OUT, REG_IN}, rules[] = {REG_OUT_RULE, REG_IN_RULE};

    for (unsigned i = 0; i < 2; i++) {
        if (f->regs[verdicts[i]] == REFUSED) {
            ds_put_format(ds, "denied on the %s side by ", i ? "destination's" : "source's");
            explain_rule_key(m, f->regs[rules[i]], ds);
            return "denied";
        }
    }
    ds_put_cstr(ds, "policy came to no verdict (too many rules share a clause)");
    return "no_verdict";
}

const char *
explain_drop(const struct model *m, const struct model_host *host, uint8_t table, bool miss,
             uint16_t priority, uint64_t cookie, const struct flow *f, struct ds *ds)
{
    switch ((enum flow_table)table) {
    case TBL_CLASSIFY:
        return drop_classify(m, host, miss, cookie, f, ds);
    case TBL_TUNNEL_IN:
        ds_put_format(ds, "no network on this host has VNI %" PRIu64, ntohll(f->tunnel.tun_id));
        return "unknown_vni";
    case TBL_SPOOF:
        return drop_spoof(m, miss, priority, cookie, f, ds);
    case TBL_SPOOF_ND:
        return drop_nd(m, miss, cookie, f, ds);
    case TBL_KIND:
        ds_put_cstr(ds, "a VLAN tag inside a network");
        return "tagged";
    case TBL_LOOKUP:
        return drop_lookup(m, f, ds);
    case TBL_FLOOD:
        ds_put_cstr(ds, miss ? "the network has nobody else on this host" : "denied by ");
        if (!miss) {
            explain_rule_key(m, f->regs[REG_OUT_RULE], ds);
        }
        return miss ? "nobody" : "denied";
    case TBL_ISOLATE:
        return drop_isolate(m, miss, priority, f, ds);
    case TBL_STATE:
        ds_put_cstr(ds, "connection tracking calls it invalid");
        return "invalid";
    case TBL_SENDER:
    case TBL_RECEIVER:
    case TBL_REJUDGE:
    case TBL_POLICY_OUT:
    case TBL_POLICY_IN:
    case TBL_VERDICT:
        return drop_verdict(m, f, ds);
    case TBL_OUTPUT:
    case TBL_TUNNEL_OUT:
        ds_put_cstr(ds, "no port leads there");
        return "no_output";
    }
    ds_put_format(ds, "table %u is not ours", table);
    return "foreign";
}
