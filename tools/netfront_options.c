/* netfront_options: weft-netfront's command line.
 *
 * One table says name, value, help and how to store; the help text is made
 * of it. */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cli_opt.h"
#include "hex.h"
#include "netfront.h"

/* The key that most drivers use, from Microsoft's RSS documentation. */
static const uint8_t default_hash_key[40] = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
    0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
    0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

struct parser {
    struct nf_config *cfg;
    char why[256];
};

static int __attribute__((format(printf, 2, 3))) bad(struct parser *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->why, sizeof p->why, format, args);
    va_end(args);
    return EINVAL;
}

enum kind { HEADING, FLAG, UINT, STRING, CALL };

struct option {
    enum kind kind;
    const char *name, *arg, *help;
    size_t offset; /* into struct nf_config */
    unsigned min, max;
    int (*call)(struct parser *, const char *value);
};

/* --- values that need more than a number --------------------------------------------- */

static int
set_domid(struct parser *p, const char *value)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);
    if (!*value || *end || n < 1 || n > 0x7fef) {
        return bad(p, "--domid takes a number from 1 to %u, not \"%s\"", 0x7fef, value);
    }
    p->cfg->domid = (uint16_t)n;
    return 0;
}

static int
set_mode(struct parser *p, const char *value)
{
    static const struct nf_mode *const modes[] = {
        &nf_mode_tap, &nf_mode_blast, &nf_mode_sink, &nf_mode_echo, &nf_mode_idle,
    };

    for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (!strcmp(value, modes[i]->name)) {
            p->cfg->mode = modes[i];
            return 0;
        }
    }
    return bad(p, "--mode %s: the modes are tap, blast, sink, echo and idle", value);
}

static int
set_mac(struct parser *p, const char *value)
{
    if (!hex_mac(value, p->cfg->mac) || p->cfg->mac[0] & 1) {
        return bad(p, "--mac %s is not a unicast MAC address, as in 02:00:00:00:00:01", value);
    }
    p->cfg->has_mac = true;
    return 0;
}

static int
set_dst_mac(struct parser *p, const char *value)
{
    if (!hex_mac(value, p->cfg->stream.dst_mac)) {
        return bad(p, "--dst-mac %s is not a MAC address, as in 02:00:00:00:00:01", value);
    }
    p->cfg->has_dst_mac = true;
    return 0;
}

static int
add_mcast(struct parser *p, const char *value)
{
    struct nf_config *c = p->cfg;

    if (c->n_mcast_join == NF_MCAST_MAX) {
        return bad(p, "--mcast-join: at most %u addresses", NF_MCAST_MAX);
    }
    uint8_t *mac = c->mcast_join[c->n_mcast_join];
    if (!hex_mac(value, mac) || !(mac[0] & 1)) {
        return bad(p, "--mcast-join %s is not a multicast MAC, as in 01:00:5e:00:00:01", value);
    }
    c->n_mcast_join++;
    c->multicast = true;
    return 0;
}

static int
add_backend_key(struct parser *p, const char *value)
{
    struct nf_config *c = p->cfg;
    const char *eq = strchr(value, '=');

    if (!eq || eq == value) {
        return bad(p, "--backend-key takes KEY=VALUE, not \"%s\"", value);
    }
    if (c->n_backend_keys == NF_MAX_BACKEND_KEYS) {
        return bad(p, "--backend-key: at most %u of them", NF_MAX_BACKEND_KEYS);
    }
    char *name = c->backend_key_name[c->n_backend_keys];
    if ((size_t)(eq - value) >= NF_BACKEND_KEY_LEN) {
        return bad(p, "--backend-key: names have fewer than %u characters", NF_BACKEND_KEY_LEN);
    }
    memcpy(name, value, (size_t)(eq - value));
    c->backend_keys[c->n_backend_keys++] = (struct toolstack_key){name, eq + 1};
    return 0;
}

static int
set_hash_key(struct parser *p, const char *value)
{
    size_t len = strlen(value);

    if (len % 2 || len / 2 > sizeof p->cfg->hash_key) {
        return bad(p, "--hash-key takes up to %zu bytes in hexadecimal", sizeof p->cfg->hash_key);
    }
    if (!hex_bytes(value, p->cfg->hash_key, len / 2)) {
        return bad(p, "--hash-key: \"%s\" is not hexadecimal", value);
    }
    p->cfg->hash_key_len = (unsigned)(len / 2);
    p->cfg->hash = true;
    return 0;
}

static int
set_ip(struct parser *p, const char *name, const char *value, uint8_t ip[16], bool *has)
{
    int family = strchr(value, ':') ? AF_INET6 : AF_INET;

    if (inet_pton(family, value, ip) != 1) {
        return bad(p, "%s %s is not an IP address", name, value);
    }
    if ((p->cfg->has_src_ip || p->cfg->has_dst_ip) && p->cfg->stream.family != family) {
        return bad(p, "--src-ip and --dst-ip must both be IPv4 or both IPv6");
    }
    p->cfg->stream.family = family;
    *has = true;
    return 0;
}

static int
set_src_ip(struct parser *p, const char *value)
{
    return set_ip(p, "--src-ip", value, p->cfg->stream.src_ip, &p->cfg->has_src_ip);
}

static int
set_dst_ip(struct parser *p, const char *value)
{
    return set_ip(p, "--dst-ip", value, p->cfg->stream.dst_ip, &p->cfg->has_dst_ip);
}

static int
set_port(struct parser *p, const char *name, const char *value, uint16_t *port)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);
    if (!*value || *end || n > UINT16_MAX) {
        return bad(p, "%s takes a port, not \"%s\"", name, value);
    }
    *port = (uint16_t)n;
    return 0;
}

static int
set_src_port(struct parser *p, const char *value)
{
    return set_port(p, "--src-port", value, &p->cfg->stream.src_port);
}

static int
set_dst_port(struct parser *p, const char *value)
{
    return set_port(p, "--dst-port", value, &p->cfg->stream.dst_port);
}

static int
set_gso(struct parser *p, const char *value)
{
    uint16_t mss = 0;
    if (set_port(p, "--gso", value, &mss) || mss < 88) {
        return bad(p, "--gso takes the bytes per segment, 88 to 65535, not \"%s\"", value);
    }
    p->cfg->stream.mss = mss;
    p->cfg->stream.csum = NF_CSUM_BLANK;
    return 0;
}

static int
set_frame_vlan(struct parser *p, const char *value)
{
    uint16_t vid = 0;
    if (set_port(p, "--frame-vlan", value, &vid) || vid < 1 || vid > 4094) {
        return bad(p, "--frame-vlan takes a VLAN id from 1 to 4094, not \"%s\"", value);
    }
    p->cfg->stream.vlan = vid;
    return 0;
}

static int
set_csum(struct parser *p, const char *value)
{
    static const char *const names[] = {
        [NF_CSUM_ZERO] = "zero", [NF_CSUM_BLANK] = "blank", [NF_CSUM_FULL] = "full"};

    for (unsigned i = 0; i < 3; i++) {
        if (!strcmp(value, names[i])) {
            p->cfg->stream.csum = (enum nf_csum_mode)i;
            return 0;
        }
    }
    return bad(p, "--csum %s: choose zero, blank or full", value);
}

static int
set_u64(struct parser *p, const char *name, const char *value, uint64_t *to)
{
    char *end;
    errno = 0;
    double n = strtod(value, &end); /* so that 1e6 works */
    if (errno || end == value || *end || n < 0 || n > 1e18) {
        return bad(p, "%s takes a number, not \"%s\"", name, value);
    }
    *to = (uint64_t)n;
    return 0;
}

static int
set_count(struct parser *p, const char *value)
{
    return set_u64(p, "--count", value, &p->cfg->count);
}

/* "BYTES,USECS" is the vif's rate limit, a number the generator's pace. */
static int
set_rate(struct parser *p, const char *value)
{
    if (strchr(value, ',')) {
        p->cfg->vif.rate = value;
        return 0;
    }
    return set_u64(p, "--rate", value, &p->cfg->rate_pps);
}

static int
set_double(struct parser *p, const char *name, const char *value, double *to)
{
    char *end;
    *to = strtod(value, &end);
    if (end == value || *end || !(*to >= 0 && *to < 1e9)) {
        return bad(p, "%s takes a number of seconds, not \"%s\"", name, value);
    }
    return 0;
}

static int
set_seconds(struct parser *p, const char *value)
{
    return set_double(p, "--seconds", value, &p->cfg->seconds);
}

static int
set_settle(struct parser *p, const char *value)
{
    return set_double(p, "--settle", value, &p->cfg->settle);
}

/* --- the table ------------------------------------------------------------------------ */

#define AT(member) offsetof(struct nf_config, member)
#define HEAD(text)                                                                                 \
    {                                                                                              \
        HEADING, text, NULL, NULL, 0, 0, 0, NULL                                                   \
    }
#define ON(name, member, help)                                                                     \
    {                                                                                              \
        FLAG, name, NULL, help, AT(member), 0, 0, NULL                                             \
    }
#define NUM(name, arg, member, min, max, help)                                                     \
    {                                                                                              \
        UINT, name, arg, help, AT(member), min, max, NULL                                          \
    }
#define STR(name, arg, member, help)                                                               \
    {                                                                                              \
        STRING, name, arg, help, AT(member), 0, 0, NULL                                            \
    }
#define DO(name, arg, fn, help)                                                                    \
    {                                                                                              \
        CALL, name, arg, help, 0, 0, 0, fn                                                         \
    }

static const struct option options[] = {
    HEAD("The guest:"),
    STR("dir", "DIR", dir, "directory of a running weft-localxen (needed)"),
    DO("domid", "N", set_domid, "domain id, 1 to 32751 (needed)"),
    NUM("handle", "N", handle, 0, 65535, "number of the interface (0)"),
    DO("mode", "MODE", set_mode, "tap, blast, sink, echo or idle (needed)"),
    DO("mac", "MAC", set_mac, "default: the store's, else 00:16:3e and the ids"),
    NUM("mtu", "BYTES", mtu, 68, 65000, "default: the store's, else 1500"),

    HEAD("The interface:"),
    NUM("queues", "N", queues, 1, NF_MAX_QUEUES, "ring pairs, a thread each (1)"),
    ON("no-split", no_split, "one event channel per queue instead of two"),
    ON("no-sg", no_sg, "frames of one page only"),
    ON("no-gso", no_gso, "no segmentation offload"),
    ON("no-csum", no_csum, "no checksum offload"),
    ON("no-ipv6-csum", no_csum_v6, "none for IPv6"),
    ON("static-grants", static_grants, "have the backend keep all pages mapped"),
    ON("hash", hash, "Toeplitz hash and queue mapping by the control ring"),
    DO("hash-key", "HEX", set_hash_key, "its key, up to 40 bytes"),
    ON("multicast", multicast, "multicast control; tap: groups that were joined"),
    DO("mcast-join", "MAC", add_mcast, "one more multicast address (repeatable)"),
    NUM("poll-us", "USECS", poll_us, 0, 1000000,
        "poll this long before sleeping (tap, idle: 0; else 20)"),
    ON("poll", poll, "never sleep and ask for no event, as a poll mode driver"),

    HEAD("With --create, the toolstack's part:"),
    ON("create", create, "make the vif in the store, remove it at the end"),
    STR("bridge", "BR", vif.bridge, "bridge, as in xenbr0 or xenbr0.100"),
    STR("vlan", "VID", vif.vlan, "VLAN of the port"),
    STR("vlan-mode", "MODE", vif.vlan_mode, "access, trunk, native-tagged, ..."),
    STR("trunks", "VIDS", vif.trunks, "VLANs of a trunk, as in 10,20,30-39"),
    DO("rate", "BYTES,USECS", set_rate, "rate limit of the vif"),
    STR("vif-uuid", "UUID", vif.vif_uuid, "xs-vif-uuid of the port"),
    STR("vm-uuid", "UUID", vif.vm_uuid, "xs-vm-uuid"),
    STR("network-uuid", "UUID", vif.network_uuid, "xs-network-uuid"),
    STR("script", "NAME", vif.script, "hotplug script named in the store"),
    DO("backend-key", "K=V", add_backend_key, "one more key of the backend (repeatable)"),

    HEAD("Mode tap:"),
    STR("netns", "NAME", tap.netns, "network namespace of the TAP (ours)"),
    STR("ifname", "NAME", tap.ifname, "its name (eth0)"),
    STR("ip", "ADDR/LEN[,...]", tap.ip, "its addresses"),
    NUM("gso-max", "BYTES", tap.gso_max_bytes, 1500, 65535, "largest frame of its stack (65000)"),

    HEAD("Modes blast, sink and echo:"),
    DO("dst-mac", "MAC", set_dst_mac, "blast: where to (needed)"),
    NUM("size", "BYTES", stream.size, 60, 65535, "blast: frame without FCS (64)"),
    DO("gso", "MSS", set_gso, "blast: TCP, segments of MSS bytes"),
    DO("src-ip", "IP", set_src_ip, "blast: default from domain id"),
    DO("dst-ip", "IP", set_dst_ip, "blast: default 198.18.255.255 or 2001:2::ffff"),
    DO("src-port", "PORT", set_src_port, "blast: of flow 0 (1024)"),
    DO("dst-port", "PORT", set_dst_port, "blast, sink: of test frames (9)"),
    DO("csum", "HOW", set_csum, "blast: zero, blank or full"),
    DO("frame-vlan", "VID", set_frame_vlan, "blast: tag the frames"),
    NUM("flows", "N", flows, 1, 1 << 20, "blast: source ports in turn, beyond 60,000 MACs too (1)"),
    DO("rate", "PPS", set_rate, "blast: frames per second (as fast as possible)"),
    ON("ping", ping, "blast: one frame at a time, round trips to an echo"),
    DO("count", "N", set_count, "blast, sink: stop after N frames"),
    DO("seconds", "S", set_seconds, "run for S seconds"),
    DO("settle", "S", set_settle, "blast: pause after connecting, for the switch (0.2)"),
    ON("verify", verify, "sink: check order and content"),
    NUM("gaps", "MS", gaps_ms, 1, 1000000, "sink: print a line for each pause as long as this"),

    HEAD("Output:"),
    ON("json", json, "statistics as JSON on standard output"),
    ON("progress", progress, "a line each second"),
    ON("verbose", verbose, "say when connected and the like"),
    NUM("ready-fd", "FD", ready_fd, 0, 1023, "write \"connected\" there at each connection"),
};
#define N_OPTIONS (sizeof options / sizeof options[0])

static void
print_help(void)
{
    printf("Usage: weft-netfront --dir DIR --domid N --mode MODE [OPTION...]\n"
           "A guest's network interface: the frontend of Xen's netif protocol, as a\n"
           "domain of weft-localxen.\n");
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        char left[40];
        if (o->kind == HEADING) {
            printf("\n%s\n", o->name);
            continue;
        }
        snprintf(left, sizeof left, "--%s %s", o->name, o->arg ? o->arg : "");
        printf("  %-26s %s\n", left, o->help);
    }
    printf("\n"
           "SIGTERM closes cleanly and ends.  SIGUSR1 closes and connects again, as a\n"
           "guest that reboots.  SIGUSR2 takes static grants back, or asks for them.\n"
           "Exit status: 0, 1 if something failed, 2 for a wrong command line.\n\n"
           "Examples, with weft-localxen and a switch running:\n"
           "  weft-netfront --dir /run/xen --domid 1 --create --bridge br0 \\\n"
           "      --mode tap --netns g1 --ip 10.0.0.1/24\n"
           "  weft-netfront --dir /run/xen --domid 2 --create --bridge br0 --mode sink \\\n"
           "      --mac 02:00:00:00:00:02 --static-grants --progress\n"
           "  weft-netfront --dir /run/xen --domid 3 --create --bridge br0 --mode blast \\\n"
           "      --dst-mac 02:00:00:00:00:02 --static-grants --seconds 10\n");
}

static const struct option *
find_option(const char *name, size_t len)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        if (options[i].kind != HEADING && strlen(options[i].name) == len &&
            !memcmp(options[i].name, name, len)) {
            return &options[i];
        }
    }
    return NULL;
}

static int
store_number(struct parser *p, const struct option *o, const char *value)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);
    if (!*value || *value == '-' || *end || n < o->min || n > o->max) {
        return bad(p, "--%s takes a number from %u to %u, not \"%s\"", o->name, o->min, o->max,
                   value);
    }
    *(unsigned *)((char *)p->cfg + o->offset) = (unsigned)n;
    return 0;
}

static int
store(struct parser *p, const struct option *o, const char *value)
{
    switch (o->kind) {
    case FLAG:
        *(bool *)((char *)p->cfg + o->offset) = true;
        return 0;
    case UINT:
        return store_number(p, o, value);
    case STRING:
        *(const char **)((char *)p->cfg + o->offset) = value;
        return 0;
    case CALL:
        return o->call(p, value);
    case HEADING:
        break;
    }
    return EINVAL;
}

static int
unknown(struct parser *p, const char *name, size_t len)
{
    const char *names[N_OPTIONS];
    char word[40];
    size_t n = 0;

    for (size_t i = 0; i < N_OPTIONS; i++) {
        if (options[i].kind != HEADING) {
            names[n++] = options[i].name;
        }
    }
    snprintf(word, sizeof word, "%.*s", (int)len, name);
    const char *near = cli_nearest(word, names, n, sizeof names[0]);
    return bad(p, "unknown option --%s%s%s%s", word, near ? "; did you mean --" : "",
               near ? near : "", near ? "?" : "; --help lists them");
}

static int
parse_args(struct parser *p, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2)) {
            return bad(p, "unexpected argument \"%s\"", argv[i]);
        }
        const char *name = argv[i] + 2;
        size_t len = strcspn(name, "=");
        const char *value = name[len] ? name + len + 1 : NULL;
        const struct option *o = find_option(name, len);
        if (!o) {
            return unknown(p, name, len);
        }
        if (o->kind == FLAG && value) {
            return bad(p, "--%s takes no value", o->name);
        }
        if (o->kind != FLAG && !value) {
            if (++i == argc) {
                return bad(p, "--%s needs a value: --%s %s", o->name, o->name, o->arg);
            }
            value = argv[i];
        }
        int error = store(p, o, value);
        if (error) {
            return error;
        }
    }
    return 0;
}

/* --- what the options mean together ----------------------------------------------------- */

static void
set_defaults(struct nf_config *c)
{
    memset(c, 0, sizeof *c);
    c->queues = 1;
    c->poll_us = NF_POLL_DEFAULT;
    c->flows = 1;
    c->settle = 0.2;
    c->ready_fd = -1;
    c->tap.gso_max_bytes = 65000;
    c->stream.family = AF_INET;
    c->stream.src_port = 1024;
    c->stream.dst_port = NF_STREAM_PORT;
    c->stream.csum = NF_CSUM_ZERO;
    memcpy(c->hash_key, default_hash_key, sizeof default_hash_key);
    c->hash_key_len = sizeof default_hash_key;
}

/* Addresses of the benchmarking ranges, RFC 2544 and RFC 5180. */
static void
default_addresses(struct nf_config *c)
{
    struct nf_stream *s = &c->stream;
    char text[INET6_ADDRSTRLEN];

    if (s->family == AF_INET6 && s->csum == NF_CSUM_ZERO) {
        s->csum = NF_CSUM_BLANK;
    }
    if (!c->has_src_ip) {
        const char *format = s->family == AF_INET ? "198.18.%u.%u" : "2001:2::%x:%x";
        snprintf(text, sizeof text, format, c->domid >> 8, c->domid & 255);
        inet_pton(s->family, text, s->src_ip);
    }
    if (!c->has_dst_ip) {
        inet_pton(s->family, s->family == AF_INET ? "198.18.255.255" : "2001:2::ffff", s->dst_ip);
    }
    if (!s->size) {
        uint32_t min = nf_stream_min_size(s);
        s->size = min < 64 ? 64 : min;
    }
}

static int
check_blast(struct parser *p)
{
    struct nf_config *c = p->cfg;
    struct nf_template tpl;

    if (!c->has_dst_mac) {
        return bad(p, "--mode blast needs --dst-mac, the MAC of the guest to send to");
    }
    if (c->ping) {
        if (c->queues > 1) {
            return bad(p, "--ping uses one queue: leave --queues out");
        }
        c->mode = &nf_mode_ping;
    }
    if (c->no_sg && c->stream.size > HV_PAGE_SIZE - NF_TX_OFFSET) {
        return bad(p, "--size %u does not fit one page: leave --no-sg out", c->stream.size);
    }
    return nf_template_init(&tpl, &c->stream, c->domid, 0, 0, p->why, sizeof p->why);
}

static int
check(struct parser *p)
{
    struct nf_config *c = p->cfg;

    if (!c->dir) {
        return bad(p, "--dir is needed: the directory given to weft-localxen --dir");
    }
    if (!c->domid) {
        return bad(p, "--domid is needed: a number that no other guest has");
    }
    if (!c->mode) {
        return bad(p, "--mode is needed: tap, blast, sink, echo or idle");
    }
    if (c->create && !c->vif.bridge) {
        return bad(p, "--create needs --bridge, the bridge to plug the interface into");
    }
    c->vif.domid = c->domid;
    c->vif.handle = c->handle;
    c->vif.mtu = c->mtu;
    c->vif.hotplug_connected = true;
    c->vif.backend_keys = c->backend_keys;
    c->vif.n_backend_keys = c->n_backend_keys;
    default_addresses(c);
    if (c->poll && c->poll_us != NF_POLL_DEFAULT) {
        return bad(p, "--poll never sleeps: leave --poll-us out");
    }
    if (c->poll_us == NF_POLL_DEFAULT) {
        c->poll_us = c->mode->poll_us;
    }
    if (c->mode != &nf_mode_blast) {
        c->settle = 0;
        return 0;
    }
    return check_blast(p);
}

int
nf_options_parse(struct nf_config *cfg, int argc, char **argv)
{
    struct parser p = {.cfg = cfg};

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_help();
            return 0;
        }
    }
    set_defaults(cfg);
    int error = parse_args(&p, argc, argv);
    error = error ? error : check(&p);
    if (error) {
        fprintf(stderr, "weft-netfront: %s\nTry: weft-netfront --help\n", p.why);
        return 2;
    }
    return -1;
}
