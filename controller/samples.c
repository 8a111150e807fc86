#include <config.h>

#include "samples.h"

#include <stdlib.h>

#include "compile_impl.h"
#include "flow.h"
#include "hash.h"
#include "host.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "packets.h"
#include "util.h"

/* One kind of connection: a client's port does not count. */
struct sample_key {
    uint32_t from, to, network; /* keys of the model's objects */
    struct in6_addr src, dst;
    uint16_t port, icmp; /* icmp: type << 8 | code */
    uint8_t protocol;
};

struct sample {
    struct hmap_node node;
    struct sample_key key;
    char *from, *to, *network;
    uint64_t count;
};

struct samples {
    const struct model *model;
    struct hmap all;
};

struct samples *
samples_create(const struct model *m)
{
    struct samples *s = xmalloc(sizeof *s);

    s->model = m;
    hmap_init(&s->all);
    return s;
}

void
samples_clear(struct samples *s)
{
    struct sample *one;

    HMAP_FOR_EACH_POP (one, node, &s->all) {
        free(one->from);
        free(one->to);
        free(one->network);
        free(one);
    }
}

void
samples_destroy(struct samples *s)
{
    if (s) {
        samples_clear(s);
        hmap_destroy(&s->all);
        free(s);
    }
}

static char *
name_of(const struct samples *s, uint32_t key)
{
    const struct model_obj *obj = model_by_key(s->model, key);

    return xstrdup(obj ? obj->name : "");
}

/* 0: no vif of the network has this MAC. */
static uint32_t
vif_by_mac(const struct samples *s, uint32_t network, struct eth_addr mac)
{
    const struct model_network *n = model_network(model_by_key(s->model, network));
    const struct model_vif *vif = n ? model_vif_by_mac(s->model, n, mac) : NULL;

    return vif ? vif->obj.key : 0;
}

static bool
key_of(const struct samples *s, const struct host_packet *p, struct sample_key *k)
{
    const struct flow *f = p->packet, *meta = p->metadata;
    bool v6 = f->dl_type == htons(ETH_TYPE_IPV6);

    memset(k, 0, sizeof *k);
    if (!is_ip_any(f)) {
        return false;
    }
    k->network = ntohll(meta->metadata);
    k->from = meta->regs[REG_SRC];
    if (!k->from && vif_by_mac(s, k->network, f->dl_src)) {
        return false; /* its own host tells of it */
    }
    k->to = vif_by_mac(s, k->network, f->dl_dst);
    if (v6) {
        k->src = f->ipv6_src;
        k->dst = f->ipv6_dst;
    } else {
        in6_addr_set_mapped_ipv4(&k->src, f->nw_src);
        in6_addr_set_mapped_ipv4(&k->dst, f->nw_dst);
    }
    k->protocol = f->nw_proto;
    if (k->protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
        k->icmp = ntohs(f->tp_src) << 8 | (ntohs(f->tp_dst) & 0xff);
    } else {
        k->port = ntohs(f->tp_dst);
    }
    return k->from || k->to;
}

void
samples_packet(struct samples *s, const struct host_packet *p)
{
    struct sample_key key;
    struct sample *one;
    uint32_t hash;

    if (p->cookie != flow_cookie(FLOW_TAP, 0) || !key_of(s, p, &key)) {
        return;
    }
    hash = hash_bytes(&key, sizeof key, 0);
    HMAP_FOR_EACH_WITH_HASH (one, node, hash, &s->all) {
        if (!memcmp(&one->key, &key, sizeof key)) {
            one->count++;
            return;
        }
    }
    if (hmap_count(&s->all) < SAMPLES_MAX) {
        one = xzalloc(sizeof *one);
        one->key = key;
        one->from = name_of(s, key.from);
        one->to = name_of(s, key.to);
        one->network = name_of(s, key.network);
        one->count = 1;
        hmap_insert(&s->all, &one->node, hash);
    }
}

static void
put_address(struct json *json, const char *member, const struct in6_addr *addr)
{
    struct ds ds = DS_EMPTY_INITIALIZER;

    ipv6_format_mapped(addr, &ds);
    json_object_put_string(json, member, ds_cstr(&ds));
    ds_destroy(&ds);
}

static struct json *
sample_json(const struct sample *one)
{
    struct json *json = json_object_create();
    const struct sample_key *k = &one->key;
    const char *name = k->protocol == IPPROTO_TCP      ? "tcp"
                       : k->protocol == IPPROTO_UDP    ? "udp"
                       : k->protocol == IPPROTO_SCTP   ? "sctp"
                       : k->protocol == IPPROTO_ICMP   ? "icmp"
                       : k->protocol == IPPROTO_ICMPV6 ? "icmpv6"
                                                       : NULL;

    json_object_put_string(json, "from", one->from);
    json_object_put_string(json, "to", one->to);
    json_object_put_string(json, "network", one->network);
    put_address(json, "source", &k->src);
    put_address(json, "destination", &k->dst);
    if (name) {
        json_object_put_string(json, "protocol", name);
    } else {
        json_object_put_format(json, "protocol", "%u", k->protocol);
    }
    if (k->protocol == IPPROTO_ICMP || k->protocol == IPPROTO_ICMPV6) {
        json_object_put(json, "icmp_type", json_integer_create(k->icmp >> 8));
        json_object_put(json, "icmp_code", json_integer_create(k->icmp & 0xff));
    } else if (name) {
        json_object_put(json, "port", json_integer_create(k->port));
    }
    json_object_put(json, "count", json_integer_create(one->count));
    return json;
}

char *
samples_read(const struct samples *s)
{
    struct json *json = json_array_create_empty();
    const struct sample *one;
    char *said;

    HMAP_FOR_EACH (one, node, &s->all) {
        json_array_add(json, sample_json(one));
    }
    said = json_to_string(json, 0);
    json_destroy(json);
    return said;
}
