/* ctl_big: large pools of a regular shape, for counting work and measuring time.
 *
 * Tenants of 4 networks; a VM of one vif per place; each network spans a few
 * hosts.  Rules by scope: a few global and pool-wide ones, most for networks,
 * groups, VMs and vifs, with groups, CIDRs and port ranges as remotes. */
#ifndef CTL_BIG_H
#define CTL_BIG_H

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "hex.h"
#include "model.h"
#include "openvswitch/types.h"
#include "util.h"
#include "uuid.h"

#define BIG_SPAN 8 /* hosts that a network has vifs on */

struct big {
    unsigned n_hosts, vifs_per_host, n_rules;
    unsigned n_nets, n_groups, n_policies; /* by big_state() */
};

/* The little of printf() that is needed here, %s, %u, %x and %02x: the real one would be a
 * good part of what is measured. */
static inline void OVS_PRINTF_FORMAT(2, 3) big_print(char *to, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    for (const char *f = format; *f; f++) {
        if (*f != '%') {
            *to++ = *f;
        } else if (*++f == 's') {
            to = stpcpy(to, va_arg(args, const char *));
        } else {
            unsigned n = va_arg(args, unsigned), base = strchr("0x", *f) ? 16 : 10, digits = 1;

            f += *f == '0' ? 2 : 0;
            for (unsigned rest = n / base; rest; rest /= base) {
                digits++;
            }
            digits = f[-1] == '2' ? 2 : digits;
            for (unsigned i = digits; i-- > 0; n /= base) {
                to[i] = "0123456789abcdef"[n % base];
            }
            to += digits;
        }
    }
    *to = '\0';
    va_end(args);
}

static inline struct uuid
big_uuid(enum rec_kind kind, unsigned i)
{
    /* Hashes look at the first part only. */
    return (struct uuid){.parts = {hash_2words(kind, i), kind, 0x80000000, i + 1}};
}

static inline const char *
big_ref(enum rec_kind kind, unsigned i)
{
    static char ref[UUID_LEN + 1];
    struct uuid uuid = big_uuid(kind, i);

    hex_put_uuid(ref, uuid.parts);
    return ref;
}

static inline uint32_t
big_key(enum rec_kind kind, unsigned i)
{
    return kind * 1000000 + i + 1;
}

static inline void
big_begin(struct rec *r, enum rec_kind kind, unsigned i)
{
    char name[32];

    rec_init(r, kind);
    big_print(name, "%s%u", rec_tables[kind].noun, i);
    free(r->name);
    r->name = xstrdup(name);
    r->key = big_key(kind, i);
}

static inline void
big_put(struct model *m, struct rec *r, unsigned i)
{
    struct uuid uuid = big_uuid(r->kind, i);

    rec_normalize(r);
    model_put(m, &uuid, r);
    rec_destroy(r);
}

/* --- shape --------------------------------------------------------------------------- */

static inline unsigned
big_n_vifs(const struct big *b)
{
    return b->n_hosts * b->vifs_per_host;
}

static inline unsigned
big_host_of(const struct big *b, unsigned vif)
{
    return vif / b->vifs_per_host;
}

/* A network per 128 vifs, 16 of them on each of BIG_SPAN neighbouring hosts. */
static inline unsigned
big_net_of(const struct big *b, unsigned vif)
{
    unsigned host = big_host_of(b, vif), slot = vif % b->vifs_per_host / 16;
    unsigned slots = (b->vifs_per_host + 15) / 16;

    return host / BIG_SPAN * slots + slot;
}

/* A group is the first 32 vifs of a network. */
static inline bool
big_in_group(const struct big *b, unsigned vif)
{
    return big_host_of(b, vif) % BIG_SPAN < 2;
}

static inline void
big_put_vif(const struct big *b, struct model *m, unsigned i, unsigned salt)
{
    char text[64];
    struct rec r;

    big_begin(&r, REC_VM, i);
    big_put(m, &r, i);

    big_begin(&r, REC_VIF, i);
    rec_set_string(&r, REC_VIF_VM, big_ref(REC_VM, i));
    rec_set_string(&r, REC_VIF_NETWORK, big_ref(REC_NETWORK, big_net_of(b, i)));
    big_print(text, "02:00:%02x:%02x:%02x:%02x", i >> 24, i >> 16 & 255, i >> 8 & 255, i & 255);
    rec_set_string(&r, REC_VIF_MAC, text);
    rec_set_string(&r, REC_VIF_LOCKING, i % 2 ? "locked" : "network_default");
    big_print(text, "10.%u.%u.%u", 100 + (i >> 16) + salt, i >> 8 & 255, i & 255);
    rec_add(&r, i % 2 ? REC_VIF_IPV4 : REC_VIF_ADDRESSES, text);
    big_print(text, "fd00::%x:%x", i >> 16, (i & 65535) + 1);
    rec_add(&r, i % 2 ? REC_VIF_IPV6 : REC_VIF_ADDRESSES, text);
    big_put(m, &r, i);
}

static inline void
big_put_rule(const struct big *b, struct model *m, unsigned i, unsigned salt)
{
    unsigned kind = i % 4;
    char text[64];
    struct rec r;

    big_begin(&r, REC_RULE, i);
    rec_set_string(&r, REC_RULE_POLICY, big_ref(REC_POLICY, i / 5));
    rec_set_string(&r, REC_RULE_PART, i % 3 ? "default" : "mandatory");
    rec_set_int(&r, REC_RULE_ORDER, i % 5);
    rec_set_string(&r, REC_RULE_DIRECTION, i % 2 ? "in" : "out");
    rec_set_string(&r, REC_RULE_ACTION, i % 7 ? "allow" : "deny");
    rec_set_string(&r, REC_RULE_PROTOCOL, kind == 3 ? "udp" : "tcp");
    big_print(text, "%u", 80 + salt);
    rec_add(&r, REC_RULE_PORTS, text);
    if (kind) {
        rec_add(&r, REC_RULE_PORTS, "1000-1999");
        rec_add(&r, REC_RULE_PORTS, "8443");
    }
    if (kind == 1) {
        rec_set_string(&r, REC_RULE_REMOTE_GROUP, big_ref(REC_GROUP, i % b->n_groups));
    } else {
        big_print(text, "10.%u.0.0/16", i % 250);
        rec_add(&r, REC_RULE_REMOTE_CIDRS, text);
        rec_add(&r, REC_RULE_REMOTE_CIDRS, "192.168.0.0/16");
        rec_add(&r, REC_RULE_REMOTE_CIDRS, "fd00:1::/32");
    }
    big_put(m, &r, i);
}

/* Five rules each: of 100 policies 2 are global or pool-wide, 30 for networks, 20 for
 * groups, 24 for VMs, 24 for vifs. */
static inline void
big_put_policy(const struct big *b, struct model *m, unsigned i)
{
    unsigned part = i % 100, vif = i * 37 % big_n_vifs(b);
    struct rec r;

    big_begin(&r, REC_POLICY, i);
    if (part < 2) {
        rec_set_string(&r, REC_POLICY_SCOPE, part ? "pool" : "global");
    } else if (part < 32) {
        rec_set_string(&r, REC_POLICY_SCOPE, "network");
        rec_set_string(&r, REC_POLICY_NETWORK, big_ref(REC_NETWORK, i % b->n_nets));
    } else if (part < 52) {
        rec_set_string(&r, REC_POLICY_SCOPE, "group");
        rec_set_string(&r, REC_POLICY_GROUP, big_ref(REC_GROUP, i % b->n_groups));
    } else if (part < 76) {
        rec_set_string(&r, REC_POLICY_SCOPE, "vm");
        rec_set_string(&r, REC_POLICY_VM, big_ref(REC_VM, vif));
    } else {
        rec_set_string(&r, REC_POLICY_SCOPE, "vif");
        rec_set_string(&r, REC_POLICY_VIF, big_ref(REC_VIF, vif));
    }
    big_put(m, &r, i);
}

static inline void
big_put_net(struct model *m, unsigned i)
{
    struct rec r;

    big_begin(&r, REC_NETWORK, i);
    r.zone = i + 1;
    if (i % 2 && i / 2 < 4000) {
        rec_set_string(&r, REC_NETWORK_TYPE, "vlan");
        rec_set_int(&r, REC_NETWORK_TAG, 1 + i / 2);
    } else {
        rec_set_string(&r, REC_NETWORK_TYPE, "overlay");
        rec_set_int(&r, REC_NETWORK_VNI, 1 + i);
    }
    big_put(m, &r, i);
}

static inline void
big_put_group(const struct big *b, struct model *m, unsigned i)
{
    struct rec r;

    big_begin(&r, REC_GROUP, i);
    for (unsigned h = 0; h < 2 && i / ((b->vifs_per_host + 15) / 16) * BIG_SPAN + h < b->n_hosts;
         h++) {
        unsigned slots = (b->vifs_per_host + 15) / 16;
        unsigned host = i / slots * BIG_SPAN + h;

        for (unsigned s = 0; s < 16 && i % slots * 16 + s < b->vifs_per_host; s++) {
            rec_add(&r, REC_GROUP_VIFS,
                    big_ref(REC_VIF, host * b->vifs_per_host + i % slots * 16 + s));
        }
    }
    big_put(m, &r, i);
}

/* --- ports --------------------------------------------------------------------------------- */

static inline struct model_host *
big_host(struct model *m, unsigned i)
{
    struct uuid uuid = big_uuid(REC_HOST, i);

    return model_host(model_by_uuid(m, REC_HOST, &uuid));
}

static inline void
big_plug(struct model *m, unsigned vif, unsigned host, uint32_t ofport)
{
    struct uuid uuid = big_uuid(REC_VIF, vif);
    char name[16];

    big_print(name, "vif%u.0", vif);
    model_port_report(m, big_host(m, host), name, &uuid, NULL, ofport);
}

static inline void
big_unplug(struct model *m, unsigned vif, unsigned host)
{
    char name[16];

    big_print(name, "vif%u.0", vif);
    model_port_gone(m, big_host(m, host), name);
}

/* --- the whole ------------------------------------------------------------------------------ */

static inline void
big_state(struct big *b, struct model *m)
{
    char text[32];
    struct rec r;

    b->n_nets = (b->n_hosts + BIG_SPAN - 1) / BIG_SPAN * ((b->vifs_per_host + 15) / 16);
    b->n_groups = b->n_nets;
    b->n_policies = (b->n_rules + 4) / 5;
    for (unsigned i = 0; i < b->n_hosts; i++) {
        big_begin(&r, REC_HOST, i);
        rec_set_string(&r, REC_HOST_OVSDB, "unix:/nowhere");
        rec_set_string(&r, REC_HOST_UPLINK, "eth1");
        big_print(text, "192.0.2.%u", i + 1);
        rec_set_string(&r, REC_HOST_TUNNEL_IP, text);
        big_put(m, &r, i);
    }
    for (unsigned i = 0; i < b->n_nets; i++) {
        big_put_net(m, i);
    }
    for (unsigned i = 0; i < big_n_vifs(b); i++) {
        big_put_vif(b, m, i, 0);
    }
    for (unsigned i = 0; i < b->n_groups; i++) {
        big_put_group(b, m, i);
    }
    for (unsigned i = 0; i < b->n_policies; i++) {
        big_put_policy(b, m, i);
    }
    for (unsigned i = 0; i < b->n_rules; i++) {
        big_put_rule(b, m, i, 0);
    }
    model_settle(m);
    for (unsigned i = 0; i < b->n_hosts; i++) {
        model_port_report(m, big_host(m, i), "eth1", NULL, NULL, 1);
        model_port_report(m, big_host(m, i), "weft-vxlan", NULL, NULL, 2);
    }
    for (unsigned i = 0; i < big_n_vifs(b); i++) {
        big_plug(m, i, big_host_of(b, i), 10 + i % b->vifs_per_host);
    }
    model_settle(m);
}

#endif
