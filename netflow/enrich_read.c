#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "enrich_priv.h"
#include "hex.h"

struct reading {
    struct enrich *e;
    struct flow_names *names;
    const json_t *pool;
    json_t *networks, *vms, *policies; /* by name */
    json_t *vifs_of;                   /* VM -> names of its vifs */
    json_t *groups_of;                 /* vif -> "db,web" */
    int64_t since_ms, now_ms;
    int error;
};

static const char *
text(const json_t *o, const char *field)
{
    const char *s = json_string_value(json_object_get(o, field));

    return s ? s : "";
}

static int64_t
number(const json_t *o, const char *field)
{
    return json_integer_value(json_object_get(o, field));
}

static int64_t
id(struct reading *r, enum name_class class, const char *name)
{
    return flow_names_id(r->names, class, name, "");
}

static void
say(struct reading *r, enum enrich_kind kind, const uint8_t key[STORE_KEY_SIZE],
    const int64_t value[STORE_BINDING_VALUES])
{
    int error = enrich_say(r->e, kind, key, value, r->since_ms, r->now_ms);

    r->error = r->error ? r->error : error;
}

static void
say_number(struct reading *r, enum enrich_kind kind, uint64_t high, uint64_t low,
           const int64_t value[STORE_BINDING_VALUES])
{
    uint8_t key[STORE_KEY_SIZE];

    enrich_key_numbers(key, high, low);
    say(r, kind, key, value);
}

/* A single address; a prefix shorter than that names nobody. */
static void
say_address(struct reading *r, enum enrich_kind kind, uint32_t network, const char *s,
            const int64_t value[STORE_BINDING_VALUES])
{
    char address[INET6_ADDRSTRLEN];
    uint8_t key[STORE_KEY_SIZE];
    struct in6_addr a;
    size_t n = strcspn(s, "/");

    if (n >= sizeof address) {
        return;
    }
    memcpy(address, s, n);
    address[n] = '\0';
    memset(&a, 0, sizeof a);
    if (inet_pton(AF_INET, address, &a.s6_addr[12]) == 1 && (!s[n] || !strcmp(s + n, "/32"))) {
        a.s6_addr[10] = a.s6_addr[11] = 0xff;
    } else if (inet_pton(AF_INET6, address, &a) != 1 || (s[n] && strcmp(s + n, "/128") != 0)) {
        return;
    }
    enrich_key_address(key, network, &a);
    say(r, kind, key, value);
}

static json_t *
by_name(const json_t *pool, const char *plural)
{
    json_t *map = json_object(), *o;
    size_t i;

    json_array_foreach(json_object_get(pool, plural), i, o)
    {
        json_object_set(map, text(o, "name"), o);
    }
    return map;
}

/* --- groups --------------------------------------------------------------------- */

static void
join_group(struct reading *r, const char *vif, const char *group)
{
    const char *before = text(r->groups_of, vif), *last = strrchr(before, ',');
    char list[512];
    int n = snprintf(list, sizeof list, "%s%s%s", before, *before ? "," : "", group);

    if (!strcmp(last ? last + 1 : before, group)) {
        return; /* by another way */
    }
    if (n < (int)sizeof list) { /* of very many groups the first ones */
        json_object_set_new(r->groups_of, vif, json_string(list));
    }
}

/* The members of 'group' are in the group 'name': itself or one around it. */
static void
read_group(struct reading *r, const json_t *groups, const json_t *group, const char *name,
           unsigned depth)
{
    json_t *member, *vif;
    size_t i, j;

    json_array_foreach(json_object_get(group, "vifs"), i, member)
    {
        if (json_is_string(member)) {
            join_group(r, json_string_value(member), name);
        }
    }
    json_array_foreach(json_object_get(group, "vms"), i, member)
    {
        json_array_foreach(json_object_get(r->vifs_of, json_string_value(member)), j, vif)
        {
            join_group(r, json_string_value(vif), name);
        }
    }
    json_array_foreach(json_object_get(group, "groups"), i, member)
    {
        const json_t *inner = json_object_get(groups, json_string_value(member));
        if (inner && depth < 8) {
            read_group(r, groups, inner, name, depth + 1);
        }
    }
}

static void
read_groups(struct reading *r)
{
    json_t *groups = by_name(r->pool, "groups"), *o;
    const char *name;
    size_t i;

    json_array_foreach(json_object_get(r->pool, "vifs"), i, o)
    {
        json_t *vifs = json_object_get(r->vifs_of, text(o, "vm"));
        if (!vifs) {
            vifs = json_array();
            json_object_set_new(r->vifs_of, text(o, "vm"), vifs);
        }
        json_array_append(vifs, json_object_get(o, "name"));
    }
    json_object_foreach(groups, name, o)
    {
        read_group(r, groups, o, name, 0);
    }
    json_decref(groups);
}

/* --- classes ---------------------------------------------------------------------- */

static void
read_networks(struct reading *r)
{
    json_t *o;
    size_t i;

    json_array_foreach(json_object_get(r->pool, "networks"), i, o)
    {
        int64_t value[STORE_BINDING_VALUES] = {
            [ENRICH_NAME] = id(r, NAME_NETWORK, text(o, "name")),
            [ENRICH_TENANT] = id(r, NAME_TENANT, text(o, "tenant")),
            [ENRICH_NETWORK_KEY] = number(o, "key"),
        };
        say_number(r, ENRICH_NET, 0, (uint64_t)number(o, "key"), value);
        if (!strcmp(text(o, "type"), "vlan") && number(o, "tag") > 0) {
            say_number(r, ENRICH_TAG, 0, (uint64_t)number(o, "tag"), value);
        } else if (number(o, "vni") > 0) {
            say_number(r, ENRICH_VNI, 0, (uint64_t)number(o, "vni"), value);
        }
    }
}

static void
read_vif(struct reading *r, const json_t *o)
{
    static const char *const lists[] = {"ipv4_allowed", "ipv6_allowed", "addresses"};
    const json_t *vm = json_object_get(r->vms, text(o, "vm"));
    const json_t *network = json_object_get(r->networks, text(o, "network")), *a;
    const char *host = *text(o, "seen_host") ? text(o, "seen_host") : text(o, "host");
    int64_t value[STORE_BINDING_VALUES] = {
        [ENRICH_NAME] = id(r, NAME_VIF, text(o, "name")),
        [ENRICH_VM] = id(r, NAME_VM, text(o, "vm")),
        [ENRICH_TENANT] = id(r, NAME_TENANT, text(vm, "tenant")),
        [ENRICH_NETWORK] = id(r, NAME_NETWORK, text(o, "network")),
        [ENRICH_GROUPS] = id(r, NAME_GROUPS, text(r->groups_of, text(o, "name"))),
        [ENRICH_HOST] = id(r, NAME_HOST, host),
        [ENRICH_NETWORK_KEY] = number(network, "key"),
    };
    uint32_t network_key = (uint32_t)number(network, "key");
    uint8_t mac[6];
    size_t i;

    say_number(r, ENRICH_VIF, 0, (uint64_t)number(o, "key"), value);
    if (value[ENRICH_HOST] && number(o, "ofport") > 0) {
        say_number(r, ENRICH_PORT, (uint64_t)value[ENRICH_HOST], (uint64_t)number(o, "ofport"),
                   value);
    }
    for (int l = 0; l < 3 && network_key; l++) {
        json_array_foreach(json_object_get(o, lists[l]), i, a)
        {
            if (json_is_string(a)) {
                say_address(r, ENRICH_ADDRESS, network_key, json_string_value(a), value);
            }
        }
    }
    if (network_key && hex_mac(text(o, "mac"), mac)) {
        say_number(r, ENRICH_MAC, network_key, hex_mac_number(mac), value);
    }
}

static void
read_rules(struct reading *r)
{
    json_t *o;
    size_t i;

    json_array_foreach(json_object_get(r->pool, "rules"), i, o)
    {
        const json_t *policy = json_object_get(r->policies, text(o, "policy"));
        int64_t value[STORE_BINDING_VALUES] = {0};
        char name[300];
        const char *own = strrchr(text(o, "name"), '/');
        snprintf(name, sizeof name, "%s/%s", text(o, "policy"), own ? own + 1 : text(o, "name"));
        value[ENRICH_NAME] = flow_names_id(r->names, NAME_RULE, name, text(policy, "author"));
        say_number(r, ENRICH_RULE, 0, (uint64_t)number(o, "key"), value);
    }
}

/* "ssl:IP:PORT": the IP, without brackets. */
static void
remote_ip(const char *remote, char *ip, size_t size)
{
    const char *begin = strchr(remote, ':'), *end = strrchr(remote, ':');

    *ip = '\0';
    if (begin && end > begin && strncmp(remote, "unix:", 5) != 0) {
        begin++;
        if (*begin == '[' && end[-1] == ']') {
            begin++;
            end--;
        }
        snprintf(ip, size, "%.*s", (int)(end - begin), begin);
    }
}

static void
read_hosts(struct reading *r)
{
    json_t *o;
    size_t i;

    json_array_foreach(json_object_get(r->pool, "hosts"), i, o)
    {
        int64_t value[STORE_BINDING_VALUES] = {[ENRICH_NAME] = id(r, NAME_HOST, text(o, "name"))};
        char ip[INET6_ADDRSTRLEN];
        say_address(r, ENRICH_EXPORTER, 0, text(o, "tunnel_ip"), value);
        remote_ip(text(o, "ovsdb"), ip, sizeof ip);
        say_address(r, ENRICH_EXPORTER, 0, ip, value);
        remote_ip(text(o, "openflow"), ip, sizeof ip);
        say_address(r, ENRICH_EXPORTER, 0, ip, value);
    }
}

int
enrich_read(struct enrich *e, struct flow_names *names, const json_t *pool, int64_t since_ms,
            int64_t now_ms)
{
    struct reading r = {
        .e = e, .names = names, .pool = pool, .since_ms = since_ms, .now_ms = now_ms};
    json_t *o;
    size_t i;

    r.networks = by_name(pool, "networks");
    r.vms = by_name(pool, "vms");
    r.policies = by_name(pool, "policies");
    r.groups_of = json_object();
    r.vifs_of = json_object();
    read_groups(&r);
    read_networks(&r);
    read_rules(&r);
    read_hosts(&r);
    json_array_foreach(json_object_get(pool, "vifs"), i, o)
    {
        read_vif(&r, o);
    }
    json_decref(r.networks);
    json_decref(r.vms);
    json_decref(r.policies);
    json_decref(r.groups_of);
    json_decref(r.vifs_of);
    return r.error;
}
