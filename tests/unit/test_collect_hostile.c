/* Reliability test 25: exporters that lie about lengths, flood with templates, identities and
 * records, or reach for what is another's. */
#include <malloc.h>

#include "check.h"
#include "collect_priv.h"
#include "flow_wire.h"

static struct kept kept;
static struct wire w;

static const struct collect_limits small = {
    .exporters = 64,
    .exporters_per_host = 8,
    .templates = 32,
    .fields = 64,
    .exporter_bytes = 64 << 10,
    .total_bytes = 1 << 20,
    .records_per_s = 1000,
    .template_ms = 60000,
    .idle_ms = 600000,
    .wait_ms = 10000,
    .wait_bytes = 8 << 10,
};

static void
simple_message(uint32_t sequence)
{
    wipfix(&w, sequence, 1);
    wsimple_template(&w, 2, 256);
    wsimple_data(&w, 256, 3, 1);
}

/* --- lengths -------------------------------------------------------------------- */

/* Cut at every byte, and with every byte changed; what is read ends where the memory does (the
 * sanitizers' builds see to it). */
static void
test_lengths(void)
{
    struct collect_peer peer = peer_of(0x0a000001, 4739, 0);
    struct collect *c = keep_in(&kept, &small);
    size_t whole;

    CASE("collect/hostile: messages cut at every byte");
    simple_message(0);
    whole = w.n;
    for (size_t n = 0; n < whole; n++) {
        uint8_t *exact = malloc(n + 1);

        simple_message(0);
        put_be16(w.b + 2, whole);
        memcpy(exact, w.b, n);
        CHECK(collect_message(c, &peer, NOW, exact, n) != 0);
        free(exact);
    }
    CHECK(kept.n == 0);

    CASE("collect/hostile: every length in a message at its extremes");
    for (size_t i = 16; i + 2 <= whole; i++) {
        static const uint16_t extremes[] = {0, 1, 3, 4, 0x7fff, 0x8000, 0xfffe, 0xffff};

        for (unsigned e = 0; e < sizeof extremes / sizeof extremes[0]; e++) {
            simple_message(0);
            put_be16(w.b + i, extremes[e]);
            wsend(&w, c, &peer, NOW);
        }
    }
    CHECK(total(c, "exporters") == 1 && counter(c, 0, "malformed") > 0);
    collect_destroy(c);
}

static void
one_template(unsigned id, unsigned n_fields, unsigned len)
{
    wipfix(&w, 0, 1);
    wset(&w, 2);
    w16(&w, id);
    w16(&w, n_fields);
    for (unsigned i = 0; i < n_fields && w.n < 60000; i++) {
        wfield(&w, i ? 9 : 1, len, 0);
    }
    wset_end(&w);
}

static void
test_templates_that_lie(void)
{
    struct collect_peer peer = peer_of(0x0a000001, 4739, 0);
    struct collect *c = keep_in(&kept, &small);

    CASE("collect/hostile: templates of no length, of too many fields, of too long records");
    one_template(256, 3, 0);
    wsend(&w, c, &peer, NOW);
    one_template(257, 65, 4);
    wsend(&w, c, &peer, NOW);
    one_template(258, 64, 65000);
    wsend(&w, c, &peer, NOW);
    one_template(2, 3, 4);
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "templates") == 0 && counter(c, 0, "refused") == 1);
    CHECK(counter(c, 0, "malformed") == 3);

    CASE("collect/hostile: more fields than there are bytes");
    wipfix(&w, 0, 1);
    wset(&w, 2);
    w16(&w, 256);
    w16(&w, 60);
    w32(&w, 8 << 16 | 4);
    wset_end(&w);
    wsend(&w, c, &peer, NOW);
    CHECK(counter(c, 0, "templates") == 0 && counter(c, 0, "malformed") == 4);

    CASE("collect/hostile: elements of lengths that they cannot have are not read");
    wipfix(&w, 0, 1);
    wset(&w, 2);
    w16(&w, 256);
    w16(&w, 6);
    wfield(&w, 8, 65535, 0);
    wfield(&w, 56, 2, 0);
    wfield(&w, 27, 4, 0);
    wfield(&w, 152, 16, 0);
    wfield(&w, 1, 65535, 0);
    wfield(&w, 2, 8, 0);
    wset_end(&w);
    wset(&w, 256);
    w8(&w, 200);
    memset(w.b + w.n, 0xff, 200 + 2 + 4 + 16);
    w.n += 200 + 2 + 4 + 16;
    w8(&w, 20); /* octets in 20 bytes */
    memset(w.b + w.n, 0xff, 20);
    w.n += 20;
    w64(&w, 5);
    wset_end(&w);
    CHECK(!wsend(&w, c, &peer, NOW) && kept.n == 1 && kept.packets == 5 && kept.bytes == 0);
    CHECK(IN6_IS_ADDR_UNSPECIFIED(&kept.r[0].src) && kept.r[0].end_ms == NOW);
    collect_destroy(c);
}

/* --- floods --------------------------------------------------------------------- */

static void
flood_templates(struct collect *c, const struct collect_peer *peer, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        wipfix(&w, 0, 7);
        wset(&w, 2);
        for (unsigned i = 0; i < 200; i++) {
            w16(&w, 256 + (round * 200 + i) % 60000);
            w16(&w, 60);
            for (unsigned f = 0; f < 60; f++) {
                wfield(&w, 1 + (round + f) % 400, 4, 0);
            }
        }
        wset_end(&w);
        wsend(&w, c, peer, NOW);
    }
}

static void
test_template_flood(void)
{
    struct collect_peer good = peer_of(0x0a000001, 4739, 0), bad = peer_of(0x0a000002, 4739, 0);
    struct collect *c = keep_in(&kept, &small);

    CASE("collect/hostile: a flood of templates stays within its exporter's bounds");
    simple_message(0);
    wsend(&w, c, &good, NOW);
    flood_templates(c, &bad, 500);
    CHECK(counter(c, 0, "templates") <= 32 && counter(c, 0, "refused") > 90000);
    CHECK(counter(c, 0, "state_bytes") <= 64 << 10 && total(c, "state_bytes") <= 1 << 20);

    CASE("collect/hostile: ... and does not touch another's templates, of the same numbers");
    kept.n = 0;
    wipfix(&w, 3, 1);
    wsimple_data(&w, 256, 5, 1);
    wsend(&w, c, &good, NOW);
    CHECK(kept.n == 5 && counter(c, 0, "lost") == 0);

    CASE("collect/hostile: data that wait for templates that never come are bounded");
    for (unsigned i = 0; i < 1000; i++) {
        wipfix(&w, 0, 7);
        wsimple_data(&w, 50000 + i, 60, 1);
        wsend(&w, c, &bad, NOW);
    }
    CHECK(counter(c, 0, "waiting_bytes") <= 8 << 10 && counter(c, 0, "without_template") > 900);

    CASE("collect/hostile: ... in their number too: each template looks through them");
    wipfix(&w, 0, 8);
    for (unsigned i = 0; i < 5000; i++) {
        wset(&w, 300 + i);
        wset_end(&w);
    }
    wsend(&w, c, &bad, NOW);
    CHECK(counter(c, 0, "without_template") == 5000 - 64);
    collect_destroy(c);
}

/* The longest list of what an exporter keeps. */
static unsigned
longest(const struct collect *c)
{
    unsigned most = 0;

    for (unsigned i = 0; i <= c->table_mask; i++) {
        for (const struct exporter *e = c->table[i]; e; e = e->next) {
            for (unsigned b = 0; b < BUCKETS; b++) {
                unsigned n[3] = {0};

                for (const struct interface *f = e->interfaces[b]; f; f = f->next) {
                    n[0]++;
                }
                for (const struct sampler *s = e->samplers[b]; s; s = s->next) {
                    n[1]++;
                }
                for (const struct template *t = e->templates[b]; t; t = t->next) {
                    n[2]++;
                }
                for (unsigned k = 0; k < 3; k++) {
                    most = n[k] > most ? n[k] : most;
                }
            }
        }
    }
    return most;
}

static void
test_chosen_ids(void)
{
    struct collect_peer bad = peer_of(0x0a000002, 4739, 0);
    struct collect *c = keep_in(&kept, &collect_limits_default);

    CASE("collect/hostile: ids chosen to share a list do not, and samplers are bounded");
    wipfix(&w, 0, 1);
    wset(&w, 3);
    w16(&w, 300);
    w32(&w, 2 << 16 | 1);
    wfield(&w, 10, 4, 0);
    wfield(&w, 82, 1, 0);
    w16(&w, 301);
    w32(&w, 2 << 16 | 1);
    wfield(&w, 302, 4, 0);
    wfield(&w, 34, 1, 0);
    wset_end(&w);
    wsend(&w, c, &bad, NOW);
    for (unsigned i = 0; i < 900; i += 100) {
        wipfix(&w, 0, 1);
        for (unsigned t = 0; t < 100; t++) {
            wsimple_template(&w, 2, 320 + 64 * (i + t));
        }
        wsend(&w, c, &bad, NOW);
    }
    for (unsigned i = 0; i < 5000; i += 1000) {
        wipfix(&w, 0, 1);
        wset(&w, 300);
        for (unsigned n = 0; n < 1000; n++) {
            w32(&w, 64 * (i + n));
            w8(&w, 'x');
        }
        wset_end(&w);
        wset(&w, 301);
        for (unsigned n = 0; n < 1000; n++) {
            w32(&w, 64 * (i + n));
            w8(&w, 100);
        }
        wset_end(&w);
        wsend(&w, c, &bad, NOW);
    }
    CHECK(counter(c, 0, "templates") == 902 && counter(c, 0, "options") == 10000);
    CHECK(!strcmp(collect_interface(c, kept.last.id ? kept.last.id : 1, 64 * 4999), "x"));
    CHECK(counter(c, 0, "refused") == 5000 - 1024 && longest(c) < 400);
    collect_destroy(c);
}

static void
test_identity_flood(void)
{
    struct collect_peer good = peer_of(0x0a000001, 4739, 0);
    struct collect *c = keep_in(&kept, &small);

    size_t before = mallinfo2().uordblks;

    CASE("collect/hostile: a new address a message: whoever lasted stays, memory is bounded");
    for (unsigned i = 0; i < 20; i++) {
        simple_message(3 * i);
        wsend(&w, c, &good, NOW + i * 10000);
    }
    for (unsigned i = 0; i < 20000; i++) {
        struct collect_peer one = peer_of(0x0b000000 + i, 4739, 0);

        simple_message(0);
        wsend(&w, c, &one, NOW + 200000);
    }
    CHECK(total(c, "exporters") <= 64 && total(c, "state_bytes") <= 1 << 20);
    CHECK(total(c, "evicted") > 19000);
    CHECK(mallinfo2().uordblks <= before + (1 << 20) + (64 << 10)); /* by the allocator's word */
    kept.n = 0;
    wipfix(&w, 60, 1);
    wsimple_data(&w, 256, 4, 1);
    wsend(&w, c, &good, NOW + 200000);
    CHECK(kept.n == 4 && counter(c, 0, "lost") == 0);

    CASE("collect/hostile: domains and ports of one address push out only its own");
    for (unsigned i = 0; i < 5000; i++) {
        struct collect_peer bad = peer_of(0x0c000001, 1000 + i % 7, 0);

        wipfix(&w, 0, i);
        wsimple_template(&w, 2, 256);
        wsend(&w, c, &bad, NOW + 200000);
    }
    kept.n = 0;
    wipfix(&w, 64, 1);
    wsimple_data(&w, 256, 4, 1);
    wsend(&w, c, &good, NOW + 200000);
    CHECK(kept.n == 4 && total(c, "exporters") <= 64);
    collect_destroy(c);
}

static void
test_record_flood(void)
{
    struct collect_peer good = peer_of(0x0a000001, 4739, 0), bad = peer_of(0x0a000002, 4739, 0);
    struct collect *c = keep_in(&kept, &small);

    CASE("collect/hostile: records of one byte each, 65,000 a message: only so many a second");
    wipfix(&w, 0, 1);
    wset(&w, 2);
    w32(&w, 256 << 16 | 1);
    wfield(&w, 2, 1, 0);
    wset_end(&w);
    wset(&w, 256);
    memset(w.b + w.n, 1, 65000);
    w.n += 65000;
    wset_end(&w);
    wsend(&w, c, &bad, NOW);
    CHECK(kept.n == 1000 && counter(c, 0, "limited") == 64000);
    simple_message(0);
    wsend(&w, c, &good, NOW);
    CHECK(kept.n == 1003);

    CASE("collect/hostile: ... and after half a second half as many again");
    wipfix(&w, 65000, 1);
    wset(&w, 256);
    memset(w.b + w.n, 1, 65000);
    w.n += 65000;
    wset_end(&w);
    wsend(&w, c, &bad, NOW + 500);
    CHECK(kept.n == 1503);
    collect_destroy(c);
}

static void
test_names_flood(void)
{
    struct collect_peer bad = peer_of(0x0a000002, 4739, 0);
    struct collect *c = keep_in(&kept, &small);

    CASE("collect/hostile: names of interfaces and types without end are bounded");
    for (unsigned i = 0; i < 20000; i++) {
        wipfix(&w, 0, 1);
        if (!i) {
            wset(&w, 3);
            w16(&w, 300);
            w32(&w, 3 << 16 | 1);
            wfield(&w, 10, 4, 0);
            wfield(&w, 82, 4, 0);
            wfield(&w, 303, 2, 0);
            wset_end(&w);
        }
        wset(&w, 300);
        w32(&w, i);
        wbytes(&w, "\x1b[2J", 4); /* that a terminal would obey */
        w16(&w, i);
        wset_end(&w);
        wsend(&w, c, &bad, NOW);
    }
    CHECK(counter(c, 0, "state_bytes") <= 64 << 10 && counter(c, 0, "refused") > 19000);
    CHECK(!strcmp(kept.name, "?[2J"));
    collect_destroy(c);
}

int
main(void)
{
    test_lengths();
    test_templates_that_lie();
    test_template_flood();
    test_identity_flood();
    test_record_flood();
    test_names_flood();
    test_chosen_ids();
    return check_done();
}
