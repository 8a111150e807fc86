/* offload: parsing, checksums and TCP segmentation, against a reference that
 * is slow and knows only the offsets with which the frames were built. */
#include "offload.h"

#include "check.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum { TCP = 6, UDP = 17, GRE = 47 };
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32, CWR = 128 };

/* --- reference -------------------------------------------------------------- */

static uint32_t
be(const uint8_t *p, int n)
{
    uint32_t v = 0;

    for (int i = 0; i < n; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

static void
put(uint8_t *p, int n, uint32_t v)
{
    for (int i = n - 1; i >= 0; i--, v >>= 8) {
        p[i] = v;
    }
}

/* One's complement sum as RFC 1071 words it, byte by byte. */
static uint32_t
slow_sum(uint32_t sum, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

static uint64_t rng_state = 0x9e3779b97f4a7c15;

static uint32_t
rnd(uint32_t n)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (rng_state >> 32) % n;
}

static void
rnd_bytes(uint8_t *p, size_t n)
{
    while (n--) {
        *p++ = rnd(256);
    }
}

/* --- frames ------------------------------------------------------------------ */

struct built {
    uint8_t *bytes;
    size_t len, l3, l4, payload;
    size_t end; /* of the IP packet; padding follows */
    int ip, proto;
    const uint8_t *final_dst; /* as the pseudo-header names it */
};

struct recipe {
    int vlans, ip, exts; /* 'exts': IPv6 extension headers, or 32-bit words of IPv4 options */
    int proto, tcp_options;
    uint8_t tcp_flags;
    size_t payload, padding;
    bool routing; /* with exts: the first is a routing header with segments left */
};

static size_t
build_ethernet(uint8_t *p, const struct recipe *r)
{
    size_t n = 12;

    rnd_bytes(p, 12);
    for (int i = 0; i < r->vlans; i++, n += 4) {
        put(p + n, 2, i + 1 < r->vlans ? 0x88a8 : 0x8100);
        put(p + n + 2, 2, rnd(0x10000));
    }
    put(p + n, 2, r->ip == 4 ? 0x0800 : 0x86dd);
    return n + 2;
}

/* The header for 'len' bytes behind it; returns its length. */
static size_t
build_ipv4(uint8_t *ip, const struct recipe *r, size_t len)
{
    size_t n = 20 + r->exts * 4;

    rnd_bytes(ip, n);
    ip[0] = 0x40 | n / 4;
    put(ip + 2, 2, n + len);
    put(ip + 6, 2, rnd(2) << 14); /* DF or not */
    ip[9] = r->proto;
    put(ip + 10, 2, 0);
    put(ip + 10, 2, ~slow_sum(0, ip, n));
    return n;
}

static size_t
build_ipv6(uint8_t *ip, const struct recipe *r, size_t len, const uint8_t **final_dst)
{
    static const uint8_t kinds[] = {0, 60, 44, 60};
    size_t n = 40;
    uint8_t *next = &ip[6];

    rnd_bytes(ip, 40);
    ip[0] = 0x60 | (ip[0] & 0x0f);
    *final_dst = ip + 24;
    for (int i = 0; i < r->exts; i++) {
        uint8_t *ext = ip + n, kind = r->routing && !i ? 43 : kinds[i % 4];
        size_t ext_len = kind == 43 ? 8 + 2 * 16 : kind == 44 ? 8 : 8 * (1 + rnd(3));

        rnd_bytes(ext, ext_len);
        *next = kind;
        next = &ext[0];
        ext[1] = ext_len / 8 - 1;
        if (kind == 44) {
            put(ext + 2, 2, 0); /* an atomic fragment */
        } else if (kind == 43) {
            ext[2] = 4; /* segment routing: the last segment comes first */
            ext[3] = 1;
            *final_dst = ext + 8;
        }
        n += ext_len;
    }
    *next = r->proto;
    put(ip + 4, 2, n - 40 + len);
    return n;
}

/* Builds 'r' into memory of its own, after 'reserve' bytes that the caller
 * fills in (built.bytes points behind them), checksums right. */
static struct built
build(const struct recipe *r, size_t reserve)
{
    struct built b = {.ip = r->ip, .proto = r->proto};
    size_t l4_len = (r->proto == TCP ? 20 + r->tcp_options * 4 : 8) + r->payload;
    uint8_t *p = calloc(1, reserve + 14 + 16 + 400 + l4_len + r->padding), *l4;
    uint32_t sum;

    b.bytes = p += reserve;
    b.l3 = build_ethernet(p, r);
    b.l4 = b.l3 + (r->ip == 4 ? build_ipv4(p + b.l3, r, l4_len)
                              : build_ipv6(p + b.l3, r, l4_len, &b.final_dst));
    if (r->ip == 4) {
        b.final_dst = p + b.l3 + 16;
    }
    b.payload = b.l4 + l4_len - r->payload;
    b.end = b.l4 + l4_len;
    b.len = b.end + r->padding;
    l4 = p + b.l4;
    rnd_bytes(l4, l4_len + r->padding);
    if (r->proto == TCP) {
        l4[12] = (5 + r->tcp_options) << 4;
        l4[13] = r->tcp_flags;
    } else {
        put(l4 + 4, 2, l4_len);
    }
    sum = slow_sum(r->proto + l4_len, p + b.l3 + (r->ip == 4 ? 12 : 8), r->ip == 4 ? 4 : 16);
    sum = slow_sum(sum, b.final_dst, r->ip == 4 ? 4 : 16);
    put(l4 + (r->proto == TCP ? 16 : 6), 2, 0);
    sum = slow_sum(sum, l4, l4_len);
    put(l4 + (r->proto == TCP ? 16 : 6), 2, r->proto == UDP && sum == 0xffff ? 0xffff : ~sum);
    return b;
}

static struct recipe
random_recipe(int proto, size_t max_payload)
{
    struct recipe r = {
        .vlans = rnd(5),
        .ip = rnd(2) ? 4 : 6,
        .exts = rnd(9),
        .proto = proto,
        .tcp_options = rnd(11),
        .tcp_flags = rnd(256) & ~(SYN | RST),
        .payload = rnd(max_payload + 1),
        .padding = rnd(20),
        .routing = rnd(4) == 0,
    };

    return r;
}

/* --- sums -------------------------------------------------------------------- */

static void
test_csum_add(void)
{
    static const uint8_t rfc1071[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    static uint8_t bytes[66000];
    bool right = true;

    CASE("csum: the example of RFC 1071");
    CHECK(ntohs(csum_fold(csum_add(0, rfc1071, 8))) == (uint16_t)~0xddf2);
    CHECK(csum_fold(csum_add(0, rfc1071, 0)) == 0xffff);

    CASE("csum: lengths, alignments, start values");
    rnd_bytes(bytes, sizeof bytes);
    for (size_t len = 0; len < 600; len++) {
        for (size_t ofs = 0; ofs < 9; ofs++) {
            uint16_t start = rnd(0x10000);
            uint16_t want = ~slow_sum(start, bytes + ofs, len);

            right &= ntohs(csum_fold(csum_add(htons(start), bytes + ofs, len))) == want;
        }
    }
    CHECK(right);

    CASE("csum: cut at any even place");
    for (int i = 0; i < 3000; i++) {
        size_t len = rnd(sizeof bytes), cut = rnd(len + 1) & ~1u;
        uint32_t whole = csum_add(0, bytes, len);
        uint32_t parts = csum_add(csum_add(0, bytes, cut), bytes + cut, len - cut);

        right &= csum_fold(whole) == csum_fold(parts) && whole <= 0x1fffe && parts <= 0x1fffe;
    }
    CHECK(right);

    CASE("csum: 64 KiB of ones on top of the largest start");
    memset(bytes, 0xff, sizeof bytes);
    CHECK(csum_fold(csum_add(0xffffffff, bytes, 65536)) == 0);
    CHECK(csum_fold(0xffffffff) == 0);
}

static void
test_csum_frames(void)
{
    bool filled = true, verified = true, flipped = true, pseudo = true;

    CASE("csum of TCP and UDP frames against the reference");
    for (int i = 0; i < 4000; i++) {
        struct recipe r = random_recipe(i % 2 ? TCP : UDP, 1500);
        struct built b = build(&r, 0);
        struct frame_layout l;
        size_t field = b.l4 + (b.proto == TCP ? 16 : 6), l4_len;
        uint16_t right = be(b.bytes + field, 2);
        uint8_t *any;
        uint32_t sum;

        filled &= frame_parse(b.bytes, b.len, &l) && l.l4 == b.l4;
        verified &= csum_verify(b.bytes, &l);
        any = b.bytes + b.l4 + rnd(l.l3_end - l.l4);
        if (any < b.bytes + b.l4 + 4 || any >= b.bytes + b.payload) {
            *any ^= 1u << rnd(8);
            flipped &= !csum_verify(b.bytes, &l);
            filled &= csum_fill(b.bytes, &l) && csum_verify(b.bytes, &l);
            free(b.bytes);
            continue;
        }
        put(b.bytes + field, 2, rnd(0x10000));
        filled &= csum_fill(b.bytes, &l) && be(b.bytes + field, 2) == right;

        l4_len = l.l3_end - l.l4;
        sum = slow_sum(b.proto + l4_len, b.bytes + b.l3 + (b.ip == 4 ? 12 : 8), b.ip == 4 ? 4 : 16);
        sum = slow_sum(sum, b.final_dst, b.ip == 4 ? 4 : 16);
        pseudo &= csum_set_pseudo(b.bytes, &l) && be(b.bytes + field, 2) == sum;
        free(b.bytes);
    }
    CHECK(filled);
    CHECK(verified);
    CHECK(flipped);
    CHECK(pseudo);
}

static void
test_csum_udp_zero(void)
{
    const struct recipe v4 = {.ip = 4, .proto = UDP, .payload = 2},
                        v6 = {.ip = 6, .proto = UDP, .payload = 2};
    struct built a = build(&v4, 0), b = build(&v6, 0);
    struct frame_layout l;
    uint16_t old;

    CASE("csum: UDP without one is right over IPv4 only");
    CHECK(frame_parse(a.bytes, a.len, &l));
    old = be(a.bytes + a.l4 + 6, 2);
    put(a.bytes + a.l4 + 6, 2, 0);
    CHECK(csum_verify(a.bytes, &l));
    CHECK(frame_parse(b.bytes, b.len, &l));
    put(b.bytes + b.l4 + 6, 2, 0);
    CHECK(!csum_verify(b.bytes, &l));

    CASE("csum: UDP that sums to 0 says 0xffff");
    CHECK(frame_parse(a.bytes, a.len, &l));
    put(a.bytes + a.payload, 2,
        slow_sum(be(a.bytes + a.payload, 2), (uint8_t[]){old >> 8, old}, 2));
    CHECK(csum_fill(a.bytes, &l) && be(a.bytes + a.l4 + 6, 2) == 0xffff);
    CHECK(csum_verify(a.bytes, &l));
    free(a.bytes);
    free(b.bytes);
}

/* --- parsing ------------------------------------------------------------------ */

static void
test_parse_layout(void)
{
    bool right = true, truncated = true;

    CASE("parse: random frames, and every truncation of them");
    for (int i = 0; i < 1500; i++) {
        struct recipe r = random_recipe(i % 2 ? TCP : UDP, 64);
        struct built b = build(&r, 0);
        struct frame_layout l;

        right &= frame_parse(b.bytes, b.len, &l) && l.l3 == b.l3 && l.l4 == b.l4 &&
                 l.payload == b.payload && l.l3_end == b.end && l.ip_version == r.ip &&
                 l.l4_proto == r.proto && !l.fragment &&
                 l.eth_type == (r.ip == 4 ? 0x0800 : 0x86dd);
        for (size_t n = rnd(4); n < b.end; n += 1 + rnd(6)) {
            uint8_t *exact = malloc(n ? n : 1);

            memcpy(exact, b.bytes, n);
            truncated &= !frame_parse(exact, n, &l);
            free(exact);
        }
        free(b.bytes);
    }
    CHECK(right);
    CHECK(truncated);
}

static void
test_parse_limits(void)
{
    struct recipe r = {.ip = 4, .proto = TCP, .payload = 100, .vlans = 1};
    struct built b = build(&r, 0);
    struct frame_layout l;
    uint8_t *ip = b.bytes + b.l3, tags[14 + 5 * 4] = {0};

    CASE("parse: lengths that contradict each other");
    put(ip + 2, 2, 141);
    CHECK(!frame_parse(b.bytes, b.len, &l)); /* total past the frame */
    put(ip + 2, 2, 39);
    CHECK(!frame_parse(b.bytes, b.len, &l)); /* no room for TCP */
    put(ip + 2, 2, 19);
    CHECK(!frame_parse(b.bytes, b.len, &l)); /* no room for IP */
    put(ip + 2, 2, 140);
    ip[0] = 0x44;
    CHECK(!frame_parse(b.bytes, b.len, &l)); /* header below 20 */
    ip[0] = 0x65;
    CHECK(!frame_parse(b.bytes, b.len, &l)); /* not version 4 */
    CHECK(l.eth_type == 0x0800 && !l.l3 && !l.ip_version);
    ip[0] = 0x45;
    b.bytes[b.l4 + 12] = 0x40;
    CHECK(!frame_parse(b.bytes, b.len, &l)); /* TCP header below 20 */
    b.bytes[b.l4 + 12] = 0xf0;
    CHECK(frame_parse(b.bytes, b.len, &l) && l.payload == b.l4 + 60);

    CASE("parse: fragments");
    put(ip + 6, 2, 0x2000);
    CHECK(frame_parse(b.bytes, b.len, &l) && l.fragment && l.l4 == b.l4);
    CHECK(!csum_fill(b.bytes, &l) && !csum_set_pseudo(b.bytes, &l) && !csum_verify(b.bytes, &l));
    put(ip + 6, 2, 0x2001);
    CHECK(frame_parse(b.bytes, b.len, &l) && l.fragment && !l.l4 && !l.payload);
    CHECK(l.l4_proto == TCP && l.l3 == b.l3);
    CHECK(!csum_fill(b.bytes, &l));

    CASE("parse: another protocol, no IP, five tags");
    put(ip + 6, 2, 0);
    ip[9] = 1;
    CHECK(frame_parse(b.bytes, b.len, &l) && !l.l4 && l.l4_proto == 1);
    put(b.bytes + b.l3 - 2, 2, 0x0806);
    CHECK(frame_parse(b.bytes, b.len, &l) && l.eth_type == 0x0806 && !l.l3 && !l.ip_version);
    for (int i = 0; i < 5; i++) {
        put(tags + 12 + 4 * i, 2, 0x8100);
    }
    CHECK(frame_parse(tags, sizeof tags, &l) && l.eth_type == 0x8100 && !l.l3);
    CHECK(!frame_parse(tags, 27, &l));
    free(b.bytes);
}

static void
test_parse_ipv6_limits(void)
{
    struct recipe r = {.ip = 6, .proto = UDP, .payload = 100, .exts = 8};
    struct built b = build(&r, 0);
    struct frame_layout l;

    CASE("parse: eight extension headers, not nine");
    CHECK(frame_parse(b.bytes, b.len, &l) && l.l4 == b.l4);
    free(b.bytes);
    r.exts = 9;
    b = build(&r, 0);
    CHECK(!frame_parse(b.bytes, b.len, &l));
    free(b.bytes);

    CASE("parse: IPv6 fragments");
    r.exts = 3;
    b = build(&r, 0);
    put(b.bytes + b.l4 - 6, 2, 1);
    CHECK(frame_parse(b.bytes, b.len, &l) && l.fragment && l.l4 == b.l4);
    put(b.bytes + b.l4 - 6, 2, 8);
    CHECK(frame_parse(b.bytes, b.len, &l) && l.fragment && !l.l4 && l.l4_proto == UDP);
    free(b.bytes);

    CASE("parse: extension headers cut short by the IPv6 length");
    for (size_t n = 0; n < 24; n++) {
        uint8_t *exact = calloc(1, 54 + n);

        put(exact + 12, 2, 0x86dd);
        exact[14] = 0x60;
        exact[14 + 5] = n;
        memset(exact + 54, 1, n < 2 ? n : 2); /* an ICMP header behind 16 bytes of options */
        CHECK(frame_parse(exact, 54 + n, &l) == (n >= 16));
        CHECK(l.l3_end == 54 + n && !l.l4);
        free(exact);
    }

    CASE("parse: UDP length, and an unreadable routing header");
    r.exts = 1;
    r.routing = true;
    b = build(&r, 0);
    put(b.bytes + b.l4 + 4, 2, 7);
    CHECK(!frame_parse(b.bytes, b.len, &l));
    put(b.bytes + b.l4 + 4, 2, 109);
    CHECK(!frame_parse(b.bytes, b.len, &l));
    put(b.bytes + b.l4 + 4, 2, 107); /* less than IP says is allowed */
    CHECK(frame_parse(b.bytes, b.len, &l) && csum_fill(b.bytes, &l) && csum_verify(b.bytes, &l));
    b.bytes[b.l3 + 42] = 99;
    CHECK(frame_parse(b.bytes, b.len, &l) && !csum_fill(b.bytes, &l));
    b.bytes[b.l3 + 43] = 0; /* used up: the header's own destination counts */
    CHECK(csum_fill(b.bytes, &l));
    free(b.bytes);
}

/* --- segmentation --------------------------------------------------------------- */

struct tunnel {
    enum gso_tunnel kind;
    size_t len; /* bytes before the inner frame */
    size_t l3, l4;
    int ip;
    bool summed;
    size_t seq_ofs; /* of GRE's sequence number; 0 if none */
};

/* Writes outer headers for 'inner_len' bytes, random in all that is free, so
 * that they end at 'end'. */
static struct tunnel
build_tunnel(uint8_t *end, size_t inner_len)
{
    struct tunnel t = {.kind = rnd(2) ? GSO_TUNNEL_UDP : GSO_TUNNEL_GRE, .ip = rnd(2) ? 4 : 6};
    struct recipe r = {.vlans = rnd(2), .ip = t.ip, .exts = rnd(3)};
    uint8_t p[400], *l4;
    const uint8_t *unused;
    uint16_t flags = rnd(8) << 12;
    size_t l4_len;

    flags = (flags & 0x4000 ? 0x8000 : 0) | (flags & 0x3000);
    l4_len = t.kind == GSO_TUNNEL_UDP
                 ? 16 + 4 * rnd(4)
                 : 4 + 4 * (flags >> 15) + 4 * (flags >> 13 & 1) + 4 * (flags >> 12 & 1);
    r.proto = t.kind == GSO_TUNNEL_UDP ? UDP : GRE;
    t.l3 = build_ethernet(p, &r);
    t.l4 = t.l3 + (t.ip == 4 ? build_ipv4(p + t.l3, &r, l4_len + inner_len)
                             : build_ipv6(p + t.l3, &r, l4_len + inner_len, &unused));
    t.len = t.l4 + l4_len;
    l4 = p + t.l4;
    rnd_bytes(l4, l4_len);
    if (t.kind == GSO_TUNNEL_UDP) {
        t.summed = rnd(2);
        put(l4 + 4, 2, l4_len + inner_len);
        put(l4 + 6, 2, t.summed ? 1 + rnd(0xffff) : 0);
    } else {
        t.summed = flags & 0x8000;
        put(l4, 2, flags);
        put(l4 + 2, 2, 0x6558);
        t.seq_ofs = flags & 0x1000 ? t.len - 4 : 0;
    }
    memcpy(end - t.len, p, t.len);
    return t;
}

/* Checks the IP header at 's'; 'whole' is that of the frame before the cut. */
static bool
ip_is_right(const uint8_t *s, const uint8_t *whole, int ip, size_t len, unsigned index)
{
    size_t n = (s[0] & 15) * 4;

    if (ip == 4) {
        return be(s + 2, 2) == len && be(s + 4, 2) == (uint16_t)(be(whole + 4, 2) + index) &&
               slow_sum(0, s, n) == 0xffff && !memcmp(s + 6, whole + 6, 4) &&
               !memcmp(s + 12, whole + 12, n - 12) && !memcmp(s, whole, 2);
    }
    return be(s + 4, 2) == len - 40 && !memcmp(s, whole, 4) && !memcmp(s + 6, whole + 6, 34);
}

static bool
tcp_is_right(const uint8_t *s, const uint8_t *whole, size_t ofs, bool last)
{
    uint8_t flags = whole[13] & ~(last ? 0 : FIN | PSH) & ~(ofs ? CWR : 0);
    uint16_t urgent = be(whole + 18, 2);

    if (flags & URG && ofs) {
        flags &= urgent > ofs ? 0xff : (uint8_t)~URG;
        urgent = urgent > ofs ? urgent - ofs : 0;
    }
    return be(s + 4, 4) == be(whole + 4, 4) + (uint32_t)ofs && s[13] == flags &&
           be(s + 18, 2) == urgent && !memcmp(s, whole, 4) && !memcmp(s + 8, whole + 8, 5) &&
           !memcmp(s + 14, whole + 14, 2) && !memcmp(s + 20, whole + 20, (s[12] >> 4) * 4 - 20);
}

/* Checks the outer headers of segment 'index', 'len' bytes. */
static bool
outer_is_right(const uint8_t *s, const uint8_t *whole, const struct tunnel *t, size_t len,
               unsigned index)
{
    const uint8_t *l4 = s + t->l4;
    size_t l4_len = len - t->l4;

    if (!ip_is_right(s + t->l3, whole + t->l3, t->ip, len - t->l3, index)) {
        return false;
    }
    if (t->kind == GSO_TUNNEL_UDP) {
        uint32_t sum =
            slow_sum(UDP + l4_len, s + t->l3 + (t->ip == 4 ? 12 : 8), t->ip == 4 ? 8 : 32);

        return be(l4 + 4, 2) == l4_len &&
               (t->summed ? be(l4 + 6, 2) && slow_sum(sum, l4, l4_len) == 0xffff
                          : !be(l4 + 6, 2)) &&
               !memcmp(l4 + 8, whole + t->l4 + 8, t->len - t->l4 - 8);
    }
    return (!t->summed || slow_sum(0, l4, l4_len) == 0xffff) &&
           (!t->seq_ofs || be(s + t->seq_ofs, 4) == be(whole + t->seq_ofs, 4) + index);
}

/* Cuts the frame at 'whole' and checks each segment; 'b' is its inner frame,
 * which the tunnel of 't->len' bytes precedes. */
static bool
cut_and_check(const uint8_t *whole, size_t len, const struct built *b, const struct tunnel *t,
              uint16_t mss, bool keep_blank)
{
    size_t data = b->payload, total = b->end - data, ofs = 0, n, cap = t->len + data + mss;
    uint8_t *out = malloc(cap);
    struct gso_iter it;
    bool right = gso_begin(&it, whole, len, mss, t->kind, t->len, keep_blank);
    unsigned index = 0, count = right ? gso_count(&it) : 0;

    right &= count == (total ? (total + mss - 1) / mss : 1);
    while (right && (n = gso_next(&it, out, cap))) {
        uint8_t *in = out + t->len;
        size_t body = n - t->len - data;
        struct frame_layout l;

        right &= ip_is_right(in + b->l3, b->bytes + b->l3, b->ip, n - t->len - b->l3, index);
        right &= tcp_is_right(in + b->l4, b->bytes + b->l4, ofs, ofs + body == total);
        right &= !memcmp(in, b->bytes, b->l3);
        right &= !memcmp(in + data, b->bytes + data + ofs, body);
        right &= frame_parse(in, n - t->len, &l) && l.l3_end == n - t->len;
        if (keep_blank) {
            uint8_t *blank = malloc(n - t->len);

            memcpy(blank, in, n - t->len);
            right &= csum_set_pseudo(blank, &l) && !memcmp(blank, in, n - t->len);
            right &= csum_fill(in, &l);
            free(blank);
        }
        right &= csum_verify(in, &l);
        right &= t->kind == GSO_TUNNEL_NONE || outer_is_right(out, whole, t, n, index);
        right &= body == (index + 1 < count ? mss : total - ofs);
        ofs += body;
        index++;
    }
    free(out);
    return right && ofs == total && index == count;
}

static void
test_gso_round_trip(void)
{
    const struct tunnel none = {0};
    bool plain = true, tunneled = true;

    CASE("gso: random frames cut, checked, put together");
    for (int i = 0; i < 3000; i++) {
        struct recipe r = random_recipe(TCP, i % 10 ? 6000 : 60000);
        struct built b = build(&r, 0);
        uint16_t mss = 1 + rnd(i % 10 ? 3000 : 9000);

        plain &= cut_and_check(b.bytes, b.len, &b, &none, mss, i / 10 % 2);
        free(b.bytes);
    }
    CHECK(plain);

    CASE("gso: random frames in UDP and GRE tunnels");
    for (int i = 0; i < 3000; i++) {
        struct recipe r = random_recipe(TCP, i % 10 ? 6000 : 60000);
        uint16_t mss = 1 + rnd(i % 10 ? 3000 : 9000);
        struct built b;
        struct tunnel t;

        r.padding = 0;
        b = build(&r, 400);
        t = build_tunnel(b.bytes, b.len);
        tunneled &= cut_and_check(b.bytes - t.len, b.len + t.len, &b, &t, mss, i / 10 % 2);
        free(b.bytes - 400);
    }
    CHECK(tunneled);
}

static void
test_gso_edges(void)
{
    struct recipe r = {.ip = 4, .proto = TCP, .tcp_flags = ACK | PSH | FIN | CWR};
    struct tunnel none = {0};
    struct built b = build(&r, 0);
    struct gso_iter it;
    uint8_t *out;

    CASE("gso: no payload is one segment");
    CHECK(cut_and_check(b.bytes, b.len, &b, &none, 1000, false));
    free(b.bytes);

    CASE("gso: the largest frame, the smallest mss");
    r.payload = 65535 - 54;
    b = build(&r, 0);
    CHECK(b.len == 65535);
    CHECK(cut_and_check(b.bytes, b.len, &b, &none, 1, false));
    CHECK(cut_and_check(b.bytes, b.len, &b, &none, 1448, false));
    CHECK(cut_and_check(b.bytes, b.len, &b, &none, 65535, false));

    CASE("gso: no room for a segment");
    out = malloc(1053);
    CHECK(gso_begin(&it, b.bytes, b.len, 1000, GSO_TUNNEL_NONE, 0, false));
    CHECK(gso_next(&it, out, 1053) == 0 && it.n_done == 0);
    CHECK(gso_next(&it, out, 0) == 0);
    free(out);

    CASE("gso: one byte past 65,535");
    b.bytes = realloc(b.bytes, b.len + 4);
    memmove(b.bytes + 16, b.bytes + 12, b.len - 12);
    put(b.bytes + 12, 4, 0x81000001);
    CHECK(!gso_begin(&it, b.bytes, b.len + 4, 1000, GSO_TUNNEL_NONE, 0, false));
    free(b.bytes);
}

static void
test_gso_refused(void)
{
    struct recipe r = {.ip = 4, .proto = TCP, .payload = 3000, .tcp_flags = ACK};
    struct built b = build(&r, 0), u;
    struct gso_iter it;

    CASE("gso: what is refused");
    CHECK(!gso_begin(&it, b.bytes, b.len, 0, GSO_TUNNEL_NONE, 0, false));
    CHECK(!gso_begin(&it, b.bytes, b.len - 1, 1000, GSO_TUNNEL_NONE, 0, false));
    CHECK(!gso_begin(&it, b.bytes, b.len, 1000, GSO_TUNNEL_NONE, 14, false));
    CHECK(!gso_begin(&it, b.bytes, b.len, 1000, GSO_TUNNEL_UDP, 50, false));
    CHECK(!gso_begin(&it, b.bytes, b.len, 1000, GSO_TUNNEL_GRE, 42, false));
    CHECK(!gso_begin(&it, b.bytes, b.len, 1000, GSO_TUNNEL_UDP, 0, false));
    put(b.bytes + b.l3 + 6, 2, 0x2000);
    CHECK(!gso_begin(&it, b.bytes, b.len, 1000, GSO_TUNNEL_NONE, 0, false));
    put(b.bytes + b.l3 + 6, 2, 0);
    b.bytes[b.l4 + 13] = SYN;
    CHECK(!gso_begin(&it, b.bytes, b.len, 1000, GSO_TUNNEL_NONE, 0, false));
    CHECK(gso_begin(&it, b.bytes, b.len, 3000, GSO_TUNNEL_NONE, 0, false));
    b.bytes[b.l4 + 13] = RST;
    CHECK(!gso_begin(&it, b.bytes, b.len, 1000, GSO_TUNNEL_NONE, 0, false));
    r.proto = UDP;
    u = build(&r, 0);
    CHECK(!gso_begin(&it, u.bytes, u.len, 1000, GSO_TUNNEL_NONE, 0, false));
    free(u.bytes);
    free(b.bytes);

    CASE("gso: an inner frame that is not where it should be");
    r.proto = TCP;
    for (int i = 0; i < 200; i++) {
        struct tunnel t;

        b = build(&r, 400);
        t = build_tunnel(b.bytes, b.len);
        for (size_t ofs = 0; ofs < t.len + 60; ofs++) {
            /* Between UDP's least header and its real end, anything may parse. */
            if (ofs < t.l4 + (t.kind == GSO_TUNNEL_UDP ? 16 : t.len - t.l4) || (ofs - t.len) % 2) {
                CHECK(!gso_begin(&it, b.bytes - t.len, b.len + t.len, 1000, t.kind, ofs, false));
            }
        }
        CHECK(!gso_begin(&it, b.bytes - t.len, b.len + t.len, 1000, 3 - t.kind, t.len, false));
        CHECK(!gso_begin(&it, b.bytes - t.len, b.len + t.len, 1000, t.kind, 65535, false));
        free(b.bytes - 400);
    }
}

static void
test_gso_urgent(void)
{
    static const uint16_t urgents[] = {0, 1, 999, 1000, 1001, 2000, 2001, 65535};
    struct recipe r = {.ip = 6, .proto = TCP, .payload = 3000, .tcp_flags = ACK | URG};
    struct tunnel none = {0};

    CASE("gso: urgent pointer at, before and behind each cut");
    for (size_t i = 0; i < sizeof urgents / sizeof urgents[0]; i++) {
        struct built b = build(&r, 0);

        put(b.bytes + b.l4 + 18, 2, urgents[i]);
        CHECK(cut_and_check(b.bytes, b.len, &b, &none, 1000, false));
        free(b.bytes);
    }
}

/* Puts Ethernet, IPv4 and 'l4', 'l4_len' bytes of protocol 'proto', before 'b'. */
static uint8_t *
encapsulate(const struct built *b, int proto, const uint8_t *l4, size_t l4_len)
{
    const struct recipe r = {.ip = 4, .proto = proto};
    uint8_t *whole = b->bytes - 34 - l4_len;

    build_ethernet(whole, &r);
    build_ipv4(whole + 14, &r, l4_len + b->len);
    memcpy(whole + 34, l4, l4_len);
    if (proto == UDP) {
        put(whole + 34 + 4, 2, l4_len + b->len);
    }
    return whole;
}

static void
test_gso_tunnel_headers(void)
{
    const struct recipe r = {.ip = 4, .proto = TCP, .payload = 3000, .tcp_flags = ACK};
    struct built b = build(&r, 400);
    uint8_t l4[20] = {0}, *whole, *out = malloc(4000);
    struct gso_iter it;
    size_t n;

    CASE("gso: UDP tunnel header too short, odd, right");
    for (n = 10; n <= 20; n++) {
        whole = encapsulate(&b, UDP, l4, n);
        CHECK(gso_begin(&it, whole, 34 + n + b.len, 1000, GSO_TUNNEL_UDP, 34 + n, false) ==
              (n >= 16 && n % 2 == 0));
    }

    CASE("gso: GRE header too short, with routing, of version 1");
    for (unsigned flags = 0; flags < 16; flags++) {
        put(l4, 2, flags << 12);
        whole = encapsulate(&b, GRE, l4, 8);
        CHECK(gso_begin(&it, whole, 42 + b.len, 1000, GSO_TUNNEL_GRE, 42, false) ==
              (!(flags & 4) && (flags >> 3) + (flags >> 1 & 1) + (flags & 1) <= 1));
    }
    put(l4, 2, 1);
    whole = encapsulate(&b, GRE, l4, 4);
    CHECK(!gso_begin(&it, whole, 38 + b.len, 1000, GSO_TUNNEL_GRE, 38, false));

    CASE("gso: outer fragment; inner frame that passes the outer one's end");
    put(l4, 2, 0);
    whole = encapsulate(&b, GRE, l4, 4);
    put(whole + 14 + 6, 2, 0x2000);
    CHECK(!gso_begin(&it, whole, 38 + b.len, 1000, GSO_TUNNEL_GRE, 38, false));
    whole = encapsulate(&b, UDP, l4, 16);
    put(whole + 34 + 4, 2, 16 + b.len - 1);
    CHECK(!gso_begin(&it, whole, 50 + b.len, 1000, GSO_TUNNEL_UDP, 50, false));

    CASE("gso: outer UDP that sums to 0 says 0xffff");
    put(l4, 4, 0);
    put(l4 + 6, 2, 1);
    whole = encapsulate(&b, UDP, l4, 16);
    CHECK(gso_begin(&it, whole, 50 + b.len, 5000, GSO_TUNNEL_UDP, 50, false));
    n = gso_next(&it, out, 4000);
    CHECK(n == 50 + b.len);
    memcpy(whole + 42, out + 40, 2); /* the sum found goes into the first word of VXLAN */
    CHECK(gso_begin(&it, whole, 50 + b.len, 5000, GSO_TUNNEL_UDP, 50, false));
    CHECK(gso_next(&it, out, 4000) == n && be(out + 40, 2) == 0xffff);
    free(out);
    free(b.bytes - 400);
}

int
main(void)
{
    test_csum_add();
    test_csum_frames();
    test_csum_udp_zero();
    test_parse_layout();
    test_parse_limits();
    test_parse_ipv6_limits();
    test_gso_round_trip();
    test_gso_edges();
    test_gso_refused();
    test_gso_urgent();
    test_gso_tunnel_headers();
    return check_done();
}
