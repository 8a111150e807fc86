/* key: the parser against a second one, written from the text of key.h and
 * engine.h, on random frames; each in memory of its exact size. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "fast/key.h"
#include "fast_frames.h"

#define N_FRAMES 400000

/* --- the reference: a cursor that cannot pass the end ---------------------- */

struct cursor {
    const uint8_t *at;
    unsigned left;
    bool failed;
};

static unsigned
get(struct cursor *c, unsigned bytes)
{
    unsigned v = 0;

    for (unsigned i = 0; i < bytes; i++) {
        if (!c->left) {
            c->failed = true;
            return 0;
        }
        v = v << 8 | *c->at++;
        c->left--;
    }
    return v;
}

static void
get_bytes(struct cursor *c, uint8_t *to, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        to[i] = get(c, 1);
    }
}

static void
limit(struct cursor *c, unsigned bytes)
{
    c->failed |= bytes > c->left;
    c->left = bytes < c->left ? bytes : c->left;
}

static uint16_t
be(unsigned v)
{
    return __builtin_bswap16(v);
}

static bool
ref_l4(struct cursor c, unsigned proto, bool ip6, struct key_wide *k, uint16_t *flags)
{
    struct cursor start = c;
    unsigned a, b, ctl;

    if (proto == 2 || (proto == 1 && ip6) || (proto == 58 && !ip6)) {
        return false;
    }
    if (proto == 1 || proto == 58) {
        k->key.tp_src = be(get(&c, 1));
        k->key.tp_dst = be(get(&c, 1));
        return start.left >= 8;
    }
    if (proto != 6 && proto != 17 && proto != 132) {
        return true;
    }
    a = get(&c, 2);
    b = get(&c, 2);
    k->key.tp_src = be(a);
    k->key.tp_dst = be(b);
    if (proto == 17) {
        return start.left >= 8;
    }
    if (proto == 132) {
        return start.left >= 12;
    }
    get(&c, 4), get(&c, 4);
    ctl = get(&c, 2);
    *flags = ctl & 0xfff;
    return start.left >= 20 && ctl >> 12 >= 5 && start.left >= (ctl >> 12) * 4;
}

static bool
ref_ip4(struct cursor c, struct key_wide *k, uint16_t *flags)
{
    unsigned available = c.left, total, frag;

    if (available < 20 || get(&c, 1) != 0x45) {
        return false;
    }
    k->key.nw_tos = get(&c, 1);
    total = get(&c, 2);
    get(&c, 2);
    frag = get(&c, 2);
    get(&c, 1);
    k->key.nw_proto = get(&c, 1);
    get(&c, 2);
    get_bytes(&c, (uint8_t *)&k->key.ip4_src, 4);
    get_bytes(&c, (uint8_t *)&k->key.ip4_dst, 4);
    if (total < 20 || total > available || (frag & 0x2000) || (frag & 0x1fff)) {
        return false;
    }
    limit(&c, total - 20);
    return ref_l4(c, k->key.nw_proto, false, k, flags);
}

static bool
ref_ip6(struct cursor c, struct key_wide *k, uint16_t *flags)
{
    static const uint8_t extensions[] = {0, 43, 44, 50, 51, 60, 135};
    unsigned available = c.left, first, payload, next;

    first = get(&c, 4);
    payload = get(&c, 2);
    next = get(&c, 1);
    get(&c, 1);
    get_bytes(&c, k->ip6.src, 16);
    get_bytes(&c, k->ip6.dst, 16);
    if (c.failed || first >> 28 != 6 || payload + 40 > available) {
        return false;
    }
    for (unsigned i = 0; i < sizeof extensions; i++) {
        if (next == extensions[i]) {
            return false;
        }
    }
    k->key.nw_proto = next;
    k->key.nw_tos = first >> 20 & 0xff;
    k->key.ip6_label = __builtin_bswap32(first & 0xfffff);
    limit(&c, payload);
    return ref_l4(c, next, true, k, flags);
}

static enum shape
ref_parse(const uint8_t *d, unsigned len, uint16_t in_port, struct key_wide *k, uint16_t *flags)
{
    struct cursor c = {d, len, false};
    unsigned type;

    memset(k, 0, sizeof *k);
    *flags = 0;
    k->key.in_port = in_port;
    get_bytes(&c, k->key.eth_dst, 6);
    get_bytes(&c, k->key.eth_src, 6);
    type = get(&c, 2);
    if (type == 0x8100) {
        k->key.vlan_tci = be(get(&c, 2) | 0x1000);
        type = get(&c, 2);
    }
    k->key.eth_type = be(type);
    if (c.failed || type < 0x600 || type == 0x8100 || type == 0x88a8 || type == 0x8847 ||
        type == 0x8848 || type == 0x894f) {
        return SHAPE_ODD;
    }
    if (type == 0x0800) {
        return ref_ip4(c, k, flags) ? SHAPE_IPV4 : SHAPE_ODD;
    }
    if (type == 0x86dd) {
        return ref_ip6(c, k, flags) ? SHAPE_IPV6 : SHAPE_ODD;
    }
    return SHAPE_L2;
}

/* --- comparison -------------------------------------------------------------- */

static void
mask_bytes(void *p, const void *mask, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ((uint8_t *)p)[i] &= ((const uint8_t *)mask)[i];
    }
}

static void
ref_mask(struct key_wide *k, const struct key_mask *m, bool ip6)
{
    mask_bytes(k->key.eth_dst, m->eth_dst, 6);
    mask_bytes(k->key.eth_src, m->eth_src, 6);
    k->key.vlan_tci &= m->vlan_tci;
    k->key.tp_src &= m->tp_src;
    k->key.tp_dst &= m->tp_dst;
    k->key.nw_proto &= m->nw_proto;
    k->key.nw_tos &= m->nw_tos;
    if (ip6) {
        k->key.ip6_label &= m->ip6_label;
        mask_bytes(k->ip6.src, m->ip6_src, 16);
        mask_bytes(k->ip6.dst, m->ip6_dst, 16);
    } else {
        k->key.ip4_src &= m->ip4_src;
        k->key.ip4_dst &= m->ip4_dst;
    }
}

static struct key_mask
random_mask(uint64_t *s)
{
    struct key_mask m;

    memset(&m, frame_chance(s, 2) ? 0xff : 0, sizeof m);
    for (unsigned i = 0; i < sizeof m; i++) {
        if (frame_chance(s, 8)) {
            ((uint8_t *)&m)[i] = frame_random(s);
        }
    }
    return m;
}

struct tally {
    unsigned shapes[SHAPE_ODD + 1], common, common6, tcp;
    unsigned wrong_shape, wrong_key, wrong_flags, wrong_common;
};

static void
compare(uint64_t *s, struct tally *t)
{
    struct key_mask mask = random_mask(s);
    struct key_masks masks;
    struct key_wide want, have;
    struct key common;
    uint16_t want_flags, have_flags, common_flags, in_port = frame_random(s) % ENGINE_PORTS_MAX;
    uint8_t room[FRAME_MAX], *frame;
    unsigned len = frame_build_random(s, room);
    enum shape want_shape, have_shape;

    frame = malloc(len ? len : 1);
    memcpy(frame, room, len);
    key_masks_init(&masks, &mask);
    want_shape = ref_parse(frame, len, in_port, &want, &want_flags);
    ref_mask(&want, &mask, want_shape == SHAPE_IPV6);
    have_shape = key_parse(frame, len, in_port, &masks, &have, &have_flags);
    t->shapes[want_shape]++;
    t->wrong_shape += want_shape != have_shape;
    if (want_shape != SHAPE_ODD && want_shape == have_shape) {
        t->wrong_key +=
            memcmp(&want, &have, want_shape == SHAPE_IPV6 ? sizeof want : sizeof want.key) != 0;
        t->wrong_flags += want_flags != have_flags;
        t->tcp += want_flags != 0;
    }
    if (key_parse_common(frame, len, key_port(in_port), masks.narrow.v, &common, &common_flags)) {
        t->common++;
        t->wrong_common += want_shape != SHAPE_IPV4 || memcmp(&common, &want.key, sizeof common) ||
                           common_flags != want_flags;
    } else if (len >= 58 && want_shape == SHAPE_IPV4) {
        /* It may leave others to key_parse(), but not TCP and UDP. */
        const uint8_t *ip = frame + (frame[12] == 0x81 ? 18 : 14);
        t->wrong_common += ip[9] == 6 || ip[9] == 17;
    }
    if (key_parse_common6(frame, len, in_port, &masks.wide, &have, &common_flags)) {
        t->common6++;
        t->wrong_common += want_shape != SHAPE_IPV6 || memcmp(&have, &want, sizeof have) ||
                           common_flags != want_flags;
    } else if (len >= 72 && want_shape == SHAPE_IPV6) {
        const uint8_t *ip = frame + (frame[12] == 0x81 ? 18 : 14);
        t->wrong_common += ip[6] == 6 || ip[6] == 17;
    }
    free(frame);
}

static void
test_reference(void)
{
    struct tally t = {0};
    uint64_t seed = 1;

    CASE("random frames: shape, key and flags as the reference has them");
    for (unsigned i = 0; i < N_FRAMES; i++) {
        compare(&seed, &t);
    }
    CHECK(!t.wrong_shape);
    CHECK(!t.wrong_key);
    CHECK(!t.wrong_flags);
    CASE("random frames: the vector parsers agree, and take all TCP and UDP");
    CHECK(!t.wrong_common);
    CASE("random frames: enough of each kind");
    for (unsigned i = 0; i <= SHAPE_ODD; i++) {
        CHECK(t.shapes[i] > N_FRAMES / 50);
    }
    CHECK(t.common > N_FRAMES / 30);
    CHECK(t.common6 > N_FRAMES / 100);
    CHECK(t.tcp > N_FRAMES / 50);
}

static enum shape
shape_of(const uint8_t *d, unsigned len)
{
    struct key_masks masks;
    struct key_wide k;
    uint16_t flags;

    key_masks_init(&masks, &(struct key_mask){0});
    return key_parse(d, len, 1, &masks, &k, &flags);
}

static void
test_examples(void)
{
    uint8_t d[FRAME_MAX];
    unsigned len;

    CASE("a UDP frame is IPv4 with or without a tag, odd with two");
    len = frame_build_udp(d, &(struct frame_udp){.src = 1, .dst = 2, .sport = 3, .dport = 4});
    CHECK(shape_of(d, len) == SHAPE_IPV4);
    len = frame_build_udp(d, &(struct frame_udp){.src = 1, .dst = 2, .tci = 100});
    CHECK(shape_of(d, len) == SHAPE_IPV4);
    memmove(d + 16, d + 12, FRAME_MAX - 16);
    CHECK(shape_of(d, len + 4) == SHAPE_ODD);

    CASE("a TCP header that passes the packet's end is odd");
    len = frame_build_udp(d, &(struct frame_udp){.proto = 6});
    CHECK(shape_of(d, len) == SHAPE_IPV4);
    d[14 + 20 + 12] = 0x70; /* 28 bytes, of which there are 24 */
    CHECK(shape_of(d, len) == SHAPE_ODD);
    d[14 + 20 + 12] = 0x40;
    CHECK(shape_of(d, len) == SHAPE_ODD);

    CASE("a frame of 13 bytes is odd, an ARP of 14 is L2");
    memset(d, 0, sizeof d);
    frame_put16(d + 12, 0x0806);
    CHECK(shape_of(d, 13) == SHAPE_ODD);
    CHECK(shape_of(d, 14) == SHAPE_L2);
}

/* Keys in sequence are spread over buckets as by chance, whatever the secret
 * of this run. */
static void
test_spread(void)
{
    static uint8_t buckets[8192];
    unsigned worst = 0, overfull;

    CASE("hashes of keys in sequence fill buckets evenly");
    for (unsigned pattern = 0; pattern < 4; pattern++) {
        memset(buckets, 0, sizeof buckets);
        overfull = 0;
        for (unsigned i = 0; i < 4 * 8192; i++) {
            struct key k = {.eth_type = 8};
            k.tp_dst = pattern == 0 ? be(i) : pattern == 1 ? be(i % 256) : 0;
            k.tp_src = pattern == 1 ? be(i / 256) : 0;
            k.ip4_src = pattern == 2 ? __builtin_bswap32(0x0a000000 + i) : 0;
            k.ip4_dst = pattern == 3 ? i : 0;
            unsigned n = ++buckets[key_hash(&k) % 8192];
            worst = n > worst ? n : worst;
            overfull += n > 8;
        }
        /* By chance: 236 that are beyond the eighth of their bucket. */
        CHECK(overfull > 100 && overfull < 500);
    }
    CHECK(worst < 32);
}

static void
test_hash(void)
{
    struct key_wide k = {0};
    unsigned same = 0, low[256] = {0};

    CASE("hashes: top bit set, low bits even, fields of both halves count");
    for (unsigned i = 0; i < 65536; i++) {
        k.key.ip4_src = i;
        uint32_t h = key_hash(&k.key);
        CHECK(h >> 31);
        low[h & 255]++;
        k.key.tp_dst = 1;
        same += key_hash(&k.key) == h;
        k.key.tp_dst = 0;
    }
    CHECK(same < 8);
    for (unsigned i = 0; i < 256; i++) {
        CHECK(low[i] > 128 && low[i] < 512);
    }
    CASE("hashes of IPv6: addresses count");
    same = 0;
    for (unsigned i = 0; i < 1000; i++) {
        uint32_t h = key_hash_wide(&k);
        k.ip6.dst[i % 16]++;
        same += h == key_hash_wide(&k);
    }
    CHECK(same < 4);
}

/* --- the secret -------------------------------------------------------------- */

enum { STATUS_STEADY = 1, STATUS_NO_FILTERS = 2 };

/* From now on, and in what is executed, getrandom() is not there; nor are reads of
 * as many bytes as the secret has, if 'reads'. */
static bool
deny(bool reads)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, reads ? SYS_read : SYS_getrandom, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, sizeof key_secret, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog p = {.len = sizeof filter / sizeof *filter, .filter = filter};

    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
           !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p);
}

/* Whether each word of this process's secret follows from the one before. */
static bool
is_steady(void)
{
    uint64_t w[16];
    bool steady = true;

    _Static_assert(sizeof w == sizeof key_secret, "all of it");
    memcpy(w, key_secret, sizeof w);
    for (unsigned i = 2; i < 16; i++) {
        steady &= w[i] - w[i - 1] == w[1] - w[0];
    }
    return steady;
}

/* Returns what became of a process like this one. */
static int
run_denied(bool reads)
{
    pid_t pid = fork();
    int status = -1;

    if (!pid) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        close(STDERR_FILENO); /* where it says why */
        if (!deny(reads)) {
            _exit(STATUS_NO_FILTERS);
        }
        execl("/proc/self/exe", "test_fast_key", "secret", NULL);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    return status;
}

static void
test_secret(void)
{
    int status = run_denied(false);

    if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_NO_FILTERS) {
        printf("skip the secret: this kernel filters no system calls\n");
        return;
    }
    CASE("the secret: random without getrandom()");
    CHECK(!is_steady());
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CASE("the secret: no process without one");
    status = run_denied(true);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int
main(int argc, char *argv[])
{
    if (argc == 2 && !strcmp(argv[1], "secret")) {
        _exit(is_steady() ? STATUS_STEADY : 0);
    }
    test_reference();
    test_examples();
    test_hash();
    test_spread();
    test_secret();
    return check_done();
}
