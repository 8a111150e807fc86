/* Connections tracked by reference against connections tracked by
 * conntrack_execute(), and connections that travel as records.
 *
 * Two trackers see the same packets at the same time.  "Plain" passes each
 * through conntrack_execute(); "quick" through ct_ref_track() where it will
 * have them.  Both must say the same about every packet, and know the same
 * about every connection in the end. */
#include <config.h>

#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "conntrack.h"
#include "ct.h"
#include "ct_entry.h"
#include "ct_traffic.h"
#include "fatal-signal.h"
#include "ovs-rcu.h"
#include "ovs-thread.h"
#include "timeval.h"

#define N_TALKS 60u

/* --- both trackers ------------------------------------------------------------ */

struct pair {
    struct conntrack *plain, *quick;
    struct dp_packet *a, *b;
    struct talk talks[N_TALKS];
    struct {
        bool valid;
        struct ct_ref ref;
        struct ct_verdict said;
    } refs[N_TALKS][2];
    uint64_t seed;
    long long now;
    bool calm;                                  /* nothing expires by force */
    unsigned n_tracked[4], n_refused, n_differ; /* TCP, UDP, ICMP, other */
};

struct how {
    bool commit, force;
    uint16_t zone;
    const uint32_t *mark;
    const struct ovs_key_ct_labels *label;
    const struct nat_action_info_t *nat;
};

static void
execute(struct conntrack *ct, struct dp_packet *b, const struct how *how, long long now)
{
    struct dp_packet_batch batch;
    ovs_be16 dl_type;
    uint8_t frag;
    bool v6;

    parse_tcp_flags(b, &dl_type, &frag, NULL);
    v6 = dl_type == htons(ETH_TYPE_IPV6);
    dp_packet_batch_init_packet(&batch, b);
    conntrack_execute(ct, &batch, htons(v6 ? ETH_TYPE_IPV6 : ETH_TYPE_IP), how->force, how->commit,
                      how->zone, how->mark, how->label, 0, 0, NULL, how->nat, now, 0);
}

static bool
same_md(const struct dp_packet *a, const struct dp_packet *b)
{
    /* Not what pads them. */
    size_t tuple_len = a->md.ct_orig_tuple_ipv6
                           ? offsetof(struct ovs_key_ct_tuple_ipv6, ipv6_proto) + 1
                           : offsetof(struct ovs_key_ct_tuple_ipv4, ipv4_proto) + 1;

    return a->md.ct_state == b->md.ct_state && a->md.ct_zone == b->md.ct_zone &&
           a->md.ct_mark == b->md.ct_mark && ovs_u128_equals(a->md.ct_label, b->md.ct_label) &&
           a->md.ct_orig_tuple_ipv6 == b->md.ct_orig_tuple_ipv6 &&
           !memcmp(&a->md.ct_orig_tuple, &b->md.ct_orig_tuple, tuple_len);
}

static struct pair *
pair_create(uint64_t seed)
{
    struct pair *p = xzalloc(sizeof *p);

    p->plain = conntrack_init();
    p->quick = conntrack_init();
    p->a = dp_packet_new(2048);
    p->b = dp_packet_new(2048);
    p->seed = seed;
    p->now = time_msec();
    for (unsigned i = 0; i < N_TALKS; i++) {
        talk_init(&p->talks[i], i);
    }
    return p;
}

static void
pair_destroy(struct pair *p)
{
    conntrack_destroy(p->plain);
    conntrack_destroy(p->quick);
    dp_packet_delete(p->a);
    dp_packet_delete(p->b);
    free(p);
}

static unsigned
proto_index(uint8_t proto)
{
    return proto == IPPROTO_TCP ? 0 : proto == IPPROTO_UDP ? 1 : proto == IPPROTO_SCTP ? 3 : 2;
}

/* A packet that the datapath would only look up: by reference, if it can. */
static void
look_quick(struct pair *p, const struct spec *s)
{
    const struct how how = {.zone = s->conn % 3};
    struct ct_verdict said;
    bool any = one_in(&p->seed, 8);
    unsigned conn = any ? ct_rand(&p->seed) % N_TALKS : s->conn; /* mostly its own */
    unsigned dir = s->reply;

    if (p->refs[conn][dir].valid) {
        if (ct_ref_track(p->quick, &p->refs[conn][dir].ref, p->b, p->now)) {
            said = p->refs[conn][dir].said;
            p->n_differ += conn != s->conn || said.state != p->a->md.ct_state ||
                           said.mark != p->a->md.ct_mark ||
                           !ovs_u128_equals(said.label, p->a->md.ct_label);
            p->n_tracked[proto_index(s->proto)]++;
            return;
        }
        p->n_refused++;
    }
    execute(p->quick, p->b, &how, p->now);
    p->n_differ += !same_md(p->a, p->b);
    if (ct_ref_take(p->quick, p->b, how.zone, p->now, &p->refs[s->conn][dir].ref,
                    &p->refs[s->conn][dir].said)) {
        p->refs[s->conn][dir].valid = true;
    }
}

static void
step(struct pair *p)
{
    unsigned i = ct_rand(&p->seed) % N_TALKS;
    uint32_t mark[2] = {ct_rand(&p->seed) % 3, UINT32_MAX};
    struct ovs_key_ct_labels label[2];
    struct how how = {.zone = i % 3};
    struct spec s;

    if (p->calm && p->talks[i].proto == IPPROTO_TCP) {
        return;
    }
    talk_next(&p->talks[i], i, &s, &p->seed);
    build(p->a, &s);
    build(p->b, &s);
    how.commit = one_in(&p->seed, 3);
    how.force = how.commit && !p->calm && one_in(&p->seed, 20);
    memset(label, 0, sizeof label);
    if (how.commit && one_in(&p->seed, 4)) {
        how.mark = mark;
    }
    if (how.commit && one_in(&p->seed, 4)) {
        label[0].ct_labels[0] = label[0].ct_labels[15] = ct_rand(&p->seed) % 3;
        memset(&label[1], 0xff, sizeof label[1]);
        how.label = label;
    }
    execute(p->plain, p->a, &how, p->now);
    if (how.commit) {
        execute(p->quick, p->b, &how, p->now);
        p->n_differ += !same_md(p->a, p->b);
    } else {
        look_quick(p, &s);
    }
}

/* --- what trackers know ---------------------------------------------------------- */

struct known {
    struct ct_entry *e;
    size_t n, allocated;
};

static void
remember(const struct ct_entry *e, void *known_)
{
    struct known *known = known_;

    if (known->n == known->allocated) {
        known->e = x2nrealloc(known->e, &known->allocated, sizeof *known->e);
    }
    known->e[known->n++] = *e;
}

static int
compare_entries(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct ct_entry));
}

static void
know(struct conntrack *ct, long long now, struct known *known)
{
    memset(known, 0, sizeof *known);
    for (unsigned i = 0; i < CT_ENTRY_LISTS; i++) {
        ct_entry_visit(ct, i, now, NULL, remember, known);
    }
    if (known->n) {
        qsort(known->e, known->n, sizeof *known->e, compare_entries);
    }
}

static bool
know_the_same(struct conntrack *a, struct conntrack *b, long long now, size_t *n)
{
    struct known ka, kb;
    bool same;

    know(a, now, &ka);
    know(b, now, &kb);
    same = ka.n == kb.n && (!ka.n || !memcmp(ka.e, kb.e, ka.n * sizeof *ka.e));
    *n = ka.n;
    free(ka.e);
    free(kb.e);
    return same;
}

/* --- cases ------------------------------------------------------------------------ */

static unsigned
rounds(unsigned n)
{
    const char *more = getenv("CT_ROUNDS");

    return more ? n * strtoul(more, NULL, 10) : n;
}

static void
test_same(void)
{
    unsigned tracked[4] = {0}, refused = 0;

    CASE("by reference as by lookup");
    for (unsigned round = 0; round < rounds(12); round++) {
        struct pair *p = pair_create(round);
        size_t n = 0;

        for (unsigned i = 0; i < 20000; i++) {
            p->now += one_in(&p->seed, 2);
            if (one_in(&p->seed, 2000)) {
                p->now += ct_rand(&p->seed) % 40000;
            }
            if (one_in(&p->seed, 5000)) {
                uint16_t zone = ct_rand(&p->seed) % 3;

                conntrack_flush(p->plain, &zone);
                conntrack_flush(p->quick, &zone);
            }
            if (one_in(&p->seed, 5000)) {
                bool on = one_in(&p->seed, 2);

                conntrack_set_tcp_seq_chk(p->plain, on);
                conntrack_set_tcp_seq_chk(p->quick, on);
            }
            step(p);
            if (!(i % 2000)) {
                CHECK(know_the_same(p->plain, p->quick, p->now, &n));
                ovsrcu_quiesce();
            }
        }
        CHECK(!p->n_differ);
        CHECK(know_the_same(p->plain, p->quick, p->now, &n) && n > N_TALKS / 4);
        for (unsigned i = 0; i < ARRAY_SIZE(tracked); i++) {
            tracked[i] += p->n_tracked[i];
        }
        refused += p->n_refused;
        pair_destroy(p);
    }
    printf("# by reference: %u TCP, %u UDP, %u ICMP, %u other; refused: %u\n", tracked[0],
           tracked[1], tracked[2], tracked[3], refused);
    CHECK(tracked[0] > 5000 && tracked[1] > 5000 && tracked[2] > 1000 && tracked[3] > 1000);
    CHECK(refused > 1000);
}

/* An established connection of the pair's quick tracker, and a reference. */
static bool
establish(struct pair *p, unsigned i, struct spec *s)
{
    const struct how commit = {.commit = true};
    bool taken = false;

    memset(s, 0, sizeof *s);
    s->proto = IPPROTO_UDP;
    s->conn = i;
    s->payload = 18;
    for (int n = 0; n < 3; n++) {
        s->reply = n == 1;
        build(p->b, s);
        execute(p->quick, p->b, &commit, p->now);
        taken = ct_ref_take(p->quick, p->b, 0, p->now, &p->refs[i][0].ref, &p->refs[i][0].said);
    }
    build(p->b, s);
    return taken;
}

static void
test_stale(void)
{
    struct pair *p = pair_create(1);
    const uint32_t mark[2] = {5, UINT32_MAX}, unmark[2] = {0, UINT32_MAX};
    struct how marking = {.commit = true, .mark = mark};
    const uint16_t zone = 0, other_zone = 1;
    struct ct_ref *ref = &p->refs[1][0].ref;
    struct spec s, wrong;

    CASE("what makes a reference stale");
    CHECK(establish(p, 1, &s) && ct_ref_track(p->quick, ref, p->b, p->now));
    CHECK(p->refs[1][0].said.state == (CS_TRACKED | CS_ESTABLISHED));

    conntrack_flush(p->quick, &other_zone);
    CHECK(ct_ref_track(p->quick, ref, p->b, p->now));
    conntrack_flush(p->quick, &zone);
    CHECK(!ct_ref_track(p->quick, ref, p->b, p->now));

    CHECK(establish(p, 1, &s) && ct_ref_track(p->quick, ref, p->b, p->now));
    execute(p->quick, p->b, &marking, p->now);
    CHECK(p->b->md.ct_mark == 5);
    CHECK(!ct_ref_track(p->quick, ref, p->b, p->now));
    build(p->b, &s);
    execute(p->quick, p->b, &marking, p->now);
    CHECK(ct_ref_take(p->quick, p->b, 0, p->now, ref, &p->refs[1][0].said));
    CHECK(p->refs[1][0].said.mark == 5);
    build(p->b, &s);
    execute(p->quick, p->b, &marking, p->now); /* no change */
    CHECK(ct_ref_track(p->quick, ref, p->b, p->now));
    marking.mark = unmark;
    build(p->b, &s);
    execute(p->quick, p->b, &marking, p->now);
    CHECK(!ct_ref_track(p->quick, ref, p->b, p->now));

    CHECK(establish(p, 1, &s) && ct_ref_track(p->quick, ref, p->b, p->now));
    p->now += 29000;
    CHECK(ct_ref_track(p->quick, ref, p->b, p->now));
    p->now += 29000;
    CHECK(ct_ref_track(p->quick, ref, p->b, p->now));
    CHECK(!ct_ref_track(p->quick, ref, p->b, p->now + 30000));

    CASE("packets that are not the reference's");
    CHECK(establish(p, 2, &s));
    ref = &p->refs[2][0].ref;
    for (int i = 0; i < 9; i++) {
        wrong = s;
        wrong.conn += i == 0;
        wrong.reply ^= i == 1;
        wrong.port = i == 2 ? 54 : 0;
        wrong.proto = i == 3 ? IPPROTO_TCP : s.proto;
        wrong.v6 ^= i == 4;
        wrong.bad_l3 ^= i == 5;
        wrong.bad_l4 ^= i == 6;
        wrong.fragment ^= i == 7;
        build(p->b, &wrong);
        CHECK(ct_ref_track(p->quick, ref, p->b, p->now) == (i == 8));
    }
    pair_destroy(p);
}

static void
test_zone_limits(void)
{
    struct pair *p = pair_create(2);
    struct conntrack_zone_limit limit;
    uint16_t zone = 1;
    size_t n;

    CASE("zone limits count the same");
    p->calm = true; /* what was expired by force counts until it is swept */
    zone_limit_update(p->plain, DEFAULT_ZONE, 5);
    zone_limit_update(p->quick, DEFAULT_ZONE, 5);
    zone_limit_update(p->plain, 1, 3);
    zone_limit_update(p->quick, 1, 3);
    for (unsigned i = 0; i < 5000; i++) {
        step(p);
    }
    CHECK(!p->n_differ);
    CHECK(know_the_same(p->plain, p->quick, p->now, &n) && n == 8);
    limit = zone_limit_get(p->quick, 1);
    CHECK(atomic_count_get(&limit.count) == 3);
    conntrack_flush(p->quick, &zone);
    limit = zone_limit_get(p->quick, 1);
    CHECK(atomic_count_get(&limit.count) == 0);
    pair_destroy(p);
}

/* --- records ------------------------------------------------------------------------ */

static const struct nat_action_info_t *
nat_of(unsigned conn)
{
    static struct nat_action_info_t nats[3];

    nats[1].nat_action = NAT_ACTION_SRC | NAT_ACTION_SRC_PORT;
    nats[1].min_addr.ipv4 = htonl(0xc0a80001);
    nats[1].max_addr.ipv4 = htonl(0xc0a80003);
    nats[1].min_port = 2000;
    nats[1].max_port = 3000;
    nats[2].nat_action = NAT_ACTION_DST;
    nats[2].min_addr.ipv4 = nats[2].max_addr.ipv4 = htonl(0xc0a80101);
    return conn % 3 ? &nats[conn % 3] : NULL;
}

/* Passes packets with NAT, marks and labels. */
static void
run_nat(struct conntrack *ct, struct talk *talks, unsigned n, struct dp_packet *b, uint64_t *seed,
        long long now)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned conn = ct_rand(seed) % N_TALKS;
        struct how how = {.commit = true, .zone = conn % 3, .nat = nat_of(conn)};
        const uint32_t mark[2] = {conn, UINT32_MAX};
        const struct ovs_key_ct_labels label[2] = {{{{conn, 1}}}, {{{UINT8_MAX, UINT8_MAX}}}};
        struct spec s;

        talk_next(&talks[conn], conn, &s, seed);
        if (s.v6 || s.proto == IPPROTO_ICMP) {
            how.nat = NULL;
        }
        if (how.nat && s.reply) {
            continue; /* replies go to the changed address, see run_both() */
        }
        how.mark = one_in(seed, 2) ? mark : NULL;
        how.label = one_in(seed, 2) ? label : NULL;
        build(b, &s);
        execute(ct, b, &how, now);
    }
}

/* The packet after NAT, turned around: what the other end answers. */
static void
answer(struct dp_packet *to, struct dp_packet *from)
{
    uint8_t *d, *ip, tmp[4];

    dp_packet_clear(to);
    dp_packet_reserve(to, 128);
    dp_packet_put(to, dp_packet_data(from), dp_packet_size(from));
    dp_packet_reset_offsets(to);
    dp_packet_reset_offload(to);
    to->packet_type = htonl(PT_ETH);
    pkt_metadata_init(&to->md, u32_to_odp(2));
    d = dp_packet_data(to);
    ip = d + (tf_get16(d + 12) == 0x8100 ? 18 : 14);
    memcpy(tmp, ip + 12, 4);
    memcpy(ip + 12, ip + 16, 4);
    memcpy(ip + 16, tmp, 4);
    memcpy(tmp, ip + 20, 2);
    memcpy(ip + 20, ip + 22, 2);
    memcpy(ip + 22, tmp, 2);
}

/* Sends the same packets through both; says how many came out different. */
static unsigned
run_both(struct conntrack *x, struct conntrack *y, struct pair *p, unsigned n, long long now)
{
    unsigned differ = 0;

    for (unsigned i = 0; i < n; i++) {
        unsigned conn = ct_rand(&p->seed) % N_TALKS;
        struct how how = {.zone = conn % 3};
        bool turn = one_in(&p->seed, 2);
        struct spec s;

        talk_next(&p->talks[conn], conn, &s, &p->seed);
        if (!s.v6 && s.proto != IPPROTO_ICMP) {
            how.nat = nat_of(conn);
        }
        s.reply = how.nat ? false : s.reply;
        build(p->a, &s);
        build(p->b, &s);
        execute(x, p->a, &how, now);
        execute(y, p->b, &how, now);
        differ += !same_md(p->a, p->b) || dp_packet_size(p->a) != dp_packet_size(p->b) ||
                  memcmp(dp_packet_data(p->a), dp_packet_data(p->b), dp_packet_size(p->a));
        if (how.nat && turn && !s.options && s.proto != IPPROTO_SCTP) {
            struct dp_packet *c = dp_packet_new(2048), *d = dp_packet_new(2048);

            answer(c, p->a);
            answer(d, p->b);
            execute(x, c, &how, now);
            execute(y, d, &how, now);
            differ +=
                !same_md(c, d) || memcmp(dp_packet_data(c), dp_packet_data(d), dp_packet_size(c));
            dp_packet_delete(c);
            dp_packet_delete(d);
        }
    }
    return differ;
}

static void
test_travel(void)
{
    struct ct_import_result result = {0};
    struct conntrack_zone_limit limit;
    struct pair *p = pair_create(3);
    struct conntrack *there = conntrack_init();
    struct known here_knows, there_knows;
    size_t len, count, n_nat = 0;
    uint32_t n_conns;
    uint8_t *data;
    char why[256];

    CASE("connections travel");
    zone_limit_update(p->plain, 1, 1000);
    run_nat(p->plain, p->talks, 5000, p->a, &p->seed, p->now);
    p->now = time_msec();
    count = ct_export(p->plain, NULL, &data, &len);
    CHECK(!ct_import(there, data, len, &result, why, sizeof why));
    CHECK(result.imported == count && count > N_TALKS / 2 && !result.existing && !result.refused);
    conntrack_get_nconns(there, &n_conns);
    CHECK(n_conns == count);
    limit = zone_limit_get(there, 1);
    CHECK(limit.limit == 1000 && atomic_count_get(&limit.count) > 3);

    know(p->plain, p->now, &here_knows);
    know(there, p->now, &there_knows);
    CHECK(here_knows.n == there_knows.n);
    for (size_t i = 0; i < MIN(here_knows.n, there_knows.n); i++) {
        struct ct_entry *h = &here_knows.e[i], *t = &there_knows.e[i];

        n_nat += h->has_nat;
        CHECK(h->left_ms > t->left_ms ? h->left_ms - t->left_ms < 3000
                                      : t->left_ms - h->left_ms < 3000);
        t->left_ms = h->left_ms;
        CHECK(!memcmp(h, t, sizeof *h));
    }
    CHECK(n_nat > 5);
    free(here_knows.e);
    free(there_knows.e);
    CHECK(!run_both(p->plain, there, p, 20000, p->now));

    CASE("a second import changes nothing");
    memset(&result, 0, sizeof result);
    CHECK(!ct_import(p->plain, data, len, &result, why, sizeof why));
    CHECK(result.existing + result.imported == count && result.existing > count / 2);

    CASE("limits hold for imports");
    memset(&result, 0, sizeof result);
    conntrack_flush(there, NULL);
    conntrack_set_maxconns(there, 7);
    CHECK(!ct_import(there, data, len, &result, why, sizeof why));
    CHECK(result.imported == 7 && result.refused == count - 7);
    free(data);
    conntrack_destroy(there);
    pair_destroy(p);
}

static bool
want_conn_12(void *aux OVS_UNUSED, const struct ct_entry *e)
{
    return e->orig.addr[0][0] == 10 && e->orig.addr[0][3] == 12 && e->reply.addr[1][3] == 12;
}

static void
test_filters(void)
{
    struct ct_import_result result = {0};
    struct pair *p = pair_create(4);
    struct conntrack *there = conntrack_init();
    struct ct_filter filter = {.want = want_conn_12};
    char name[] = "/tmp/test_ct.XXXXXX", why[256] = "";
    const uint8_t *chunk;
    struct ct_exporter *x;
    size_t len, count, all, n_chunks = 0;
    const uint16_t zone = 2;
    uint8_t *data;
    int fd = mkstemp(name);

    CASE("parts of a tracker");
    for (unsigned i = 0; i < 5000; i++) {
        step(p);
    }
    all = ct_export(p->plain, NULL, &data, &len);
    free(data);
    CHECK(ct_export(p->plain, &filter, &data, &len) == 1);
    free(data);
    filter = (struct ct_filter){.zone = &zone};
    count = ct_export(p->plain, &filter, &data, &len);
    CHECK(count > 3 && count < all);
    free(data);

    CASE("chunk by chunk");
    x = ct_exporter_create(p->plain, NULL);
    while (ct_exporter_next(x, 500, &chunk, &len)) {
        CHECK(!ct_import(there, chunk, len, &result, why, sizeof why));
        CHECK(ct_chunk_length(chunk) == len);
        n_chunks++;
    }
    CHECK(ct_exporter_count(x) == all && result.imported == all && n_chunks > 3);
    ct_exporter_destroy(x);

    CASE("files");
    conntrack_flush(there, NULL);
    memset(&result, 0, sizeof result);
    CHECK(fd >= 0 && !close(fd));
    CHECK(!ct_export_file(p->plain, NULL, name, &count, why, sizeof why) && count == all);
    CHECK(!ct_import_file(there, name, &result, why, sizeof why));
    CHECK(result.imported == all);
    CHECK(!truncate(name, 100));
    CHECK(ct_import_file(there, name, &result, why, sizeof why) == EINVAL && why[0]);
    unlink(name);
    CHECK(ct_import_file(there, name, &result, why, sizeof why) == ENOENT);
    conntrack_destroy(there);
    pair_destroy(p);
}

/* Records as an enemy would write them.  Whatever is accepted must be
 * harmless: it meets traffic, is exported again, and goes. */
static void
test_hostile(void)
{
    struct pair *p = pair_create(5);
    struct conntrack *there = conntrack_init();
    size_t len, n_good = 0, n_bad = 0;
    uint8_t *data, *copy;
    uint32_t before, after;
    char why[256];

    CASE("hostile records");
    run_nat(p->plain, p->talks, 3000, p->a, &p->seed, p->now);
    ct_export(p->plain, NULL, &data, &len);
    copy = xmalloc(len + 64);
    for (unsigned i = 0; i < rounds(4000); i++) {
        struct ct_import_result result = {0};
        size_t n = len, start = ct_rand(&p->seed) % len;
        uint8_t *again;
        int error;

        memcpy(copy, data, len);
        for (unsigned k = ct_rand(&p->seed) % 4; k > 0; k--) {
            size_t at = one_in(&p->seed, 4) ? start % 32 : (start + ct_rand(&p->seed) % 300) % len;

            copy[at] = one_in(&p->seed, 2) ? ct_rand(&p->seed) : copy[at] ^ 1 << i % 8;
        }
        if (one_in(&p->seed, 8)) {
            n = ct_rand(&p->seed) % len;
        } else if (one_in(&p->seed, 8)) {
            n = len + ct_rand(&p->seed) % 64;
            memset(copy + len, ct_rand(&p->seed), n - len);
        }
        conntrack_get_nconns(there, &before);
        again = xmemdup(copy, MAX(n, 1)); /* its end is the allocation's */
        error = ct_import(there, again, n, &result, why, sizeof why);
        free(again);
        conntrack_get_nconns(there, &after);
        CHECK(after - before == result.imported && (!error || !result.imported));
        CHECK(error == 0 || error == EINVAL);
        n_good += !error;
        n_bad += !!error;
        if (!error) {
            size_t n_again;

            run_nat(there, p->talks, 20, p->a, &p->seed, time_msec());
            ct_export(there, NULL, &again, &n_again);
            CHECK(!ct_import(p->quick, again, n_again, &result, why, sizeof why));
            free(again);
            conntrack_flush(p->quick, NULL);
        }
        if (one_in(&p->seed, 10)) {
            conntrack_flush(there, NULL);
        }
        ovsrcu_quiesce();
    }
    printf("# accepted: %zu, rejected: %zu\n", n_good, n_bad);
    CHECK(n_good > 100 && n_bad > 500);
    free(copy);
    free(data);
    conntrack_destroy(there);
    pair_destroy(p);
}

/* --- threads ------------------------------------------------------------------------- */

struct shared {
    struct conntrack *ct;
    atomic_bool stop;
    atomic_uint n_tracked, n_taken;
};

static void *
tracking_thread(void *shared_)
{
    struct shared *shared = shared_;
    struct dp_packet *b = dp_packet_new(2048);
    struct ct_ref refs[16][2];
    bool valid[16][2] = {{false}};
    struct ct_verdict said;
    uint64_t seed = (uintptr_t)b;
    unsigned orig;
    bool stop = false;

    while (!stop) {
        unsigned conn = ct_rand(&seed) % 16;
        struct spec s = {.proto = conn % 2 ? IPPROTO_UDP : IPPROTO_TCP,
                         .conn = conn,
                         .reply = one_in(&seed, 2),
                         .flags = TCP_ACK,
                         .seq = 1000,
                         .ack = 1000,
                         .win = 1000};
        struct how how = {.commit = true};

        build(b, &s);
        if (valid[conn][s.reply] &&
            ct_ref_track(shared->ct, &refs[conn][s.reply], b, time_msec())) {
            atomic_add(&shared->n_tracked, 1, &orig);
        } else {
            execute(shared->ct, b, &how, time_msec());
            valid[conn][s.reply] =
                ct_ref_take(shared->ct, b, 0, time_msec(), &refs[conn][s.reply], &said);
            atomic_add(&shared->n_taken, valid[conn][s.reply], &orig);
        }
        if (one_in(&seed, 50)) {
            ovsrcu_quiesce();
        }
        atomic_read(&shared->stop, &stop);
    }
    dp_packet_delete(b);
    return NULL;
}

static void *
marking_thread(void *shared_)
{
    struct shared *shared = shared_;
    struct dp_packet *b = dp_packet_new(2048);
    uint64_t seed = 7;
    bool stop = false;

    while (!stop) {
        unsigned conn = ct_rand(&seed) % 16;
        uint32_t mark[2] = {ct_rand(&seed) % 2, UINT32_MAX};
        struct how how = {.commit = true, .mark = mark};
        struct spec s = {.proto = IPPROTO_UDP, .conn = conn};

        build(b, &s);
        execute(shared->ct, b, &how, time_msec());
        ovsrcu_quiesce();
        atomic_read(&shared->stop, &stop);
    }
    dp_packet_delete(b);
    return NULL;
}

static void
test_threads(void)
{
    struct shared shared = {.ct = conntrack_init()};
    struct ct_import_result result = {0};
    long long end = time_msec() + 1000 * rounds(1);
    unsigned n_tracked, n_taken;
    pthread_t threads[3];
    uint64_t seed = 1;
    char why[256];

    CASE("threads");
    atomic_init(&shared.stop, false);
    atomic_init(&shared.n_tracked, 0);
    atomic_init(&shared.n_taken, 0);
    threads[0] = ovs_thread_create("track", tracking_thread, &shared);
    threads[1] = ovs_thread_create("track", tracking_thread, &shared);
    threads[2] = ovs_thread_create("mark", marking_thread, &shared);
    while (time_msec() < end) {
        uint8_t *data;
        size_t len;

        ct_export(shared.ct, NULL, &data, &len);
        if (one_in(&seed, 4)) {
            conntrack_flush(shared.ct, NULL);
            ct_import(shared.ct, data, len, &result, why, sizeof why);
        }
        free(data);
        ovsrcu_quiesce();
        usleep(2000);
    }
    atomic_store(&shared.stop, true);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        xpthread_join(threads[i], NULL);
    }
    atomic_read(&shared.n_tracked, &n_tracked);
    atomic_read(&shared.n_taken, &n_taken);
    printf("# tracked %u, taken %u, imported %zu\n", n_tracked, n_taken, result.imported);
    CHECK(n_tracked > 100 && n_taken > 20 && result.imported > 0);
    conntrack_destroy(shared.ct);
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    ovs_set_program_name(argv[0], "1");
    fatal_signal_init();
    test_same();
    test_stale();
    test_zone_limits();
    test_travel();
    test_filters();
    test_hostile();
    test_threads();
    ovsrcu_exit();
    return check_done();
}
