/* Hello, record heads and messages: what is written is read back, and every rule of
 * docs/migration-stream.md that a hostile end could break is one that is refused. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "record.h"

static const char *why;

static struct mig_hello
hello_of(uint32_t flags)
{
    struct mig_hello h = {
        .version = MIG_VERSION,
        .flags = flags,
        .index = 2,
        .n_connections = 4,
        .epoch = 41,
        .n_pages = flags & MIG_HELLO_CHUNKS ? 0 : 1000,
        .key = {5, 6},
    };

    memset(h.vm, 0x11, 16);
    memset(h.migration, 0x22, 16);
    if (flags & MIG_HELLO_TLS) {
        memset(h.binder, 0x33, MIG_BINDER);
    }
    return h;
}

static void
test_hello(void)
{
    static const uint32_t flags[] = {MIG_HELLO_SOURCE, MIG_HELLO_TLS,
                                     MIG_HELLO_SOURCE | MIG_HELLO_TLS | MIG_HELLO_CHUNKS,
                                     MIG_HELLO_REFUSED};
    struct mig_hello h, got;
    uint8_t wire[MIG_HELLO];

    CASE("a hello is read as it was written");
    for (unsigned i = 0; i < 4; i++) {
        h = hello_of(flags[i]);
        mig_hello_put(wire, &h);
        memset(&got, 0, sizeof got);
        CHECK(!mig_hello_get(wire, &got, &why));
        CHECK(got.flags == h.flags && got.index == 2 && got.n_connections == 4);
        CHECK(got.epoch == 41 && got.n_pages == h.n_pages && got.key[0] == 5 && got.key[1] == 6);
        CHECK(!memcmp(got.vm, h.vm, 16) && !memcmp(got.migration, h.migration, 16));
        CHECK(!memcmp(got.binder, h.binder, MIG_BINDER));
    }

    CASE("another version is told apart from what is no hello");
    h = hello_of(MIG_HELLO_SOURCE);
    mig_hello_put(wire, &h);
    wire[8] = 2;
    CHECK(mig_hello_get(wire, &got, &why) == EPROTONOSUPPORT);
    wire[0] = 'w';
    CHECK(mig_hello_get(wire, &got, &why) == EPROTO);

    CASE("a hello that breaks a rule is refused");
    static const struct {
        unsigned at;
        uint8_t value;
    } faults[] = {{12, 127}, {16, 16 | 1}, {16, 8 | 1}, {16, 4 | 1}, {19, 1}, {20, 4}, {22, 0},
                  {22, 65},  {69, 1},      {88, 1},     {95, 1},     {96, 1}, {127, 1}};
    for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++) {
        h = hello_of(MIG_HELLO_SOURCE);
        mig_hello_put(wire, &h);
        wire[faults[i].at] = faults[i].value;
        CHECK(mig_hello_get(wire, &got, &why) == EPROTO);
    }
    h = hello_of(MIG_HELLO_SOURCE);
    h.n_pages = 0;
    mig_hello_put(wire, &h);
    CHECK(mig_hello_get(wire, &got, &why) == EPROTO);
}

static void
test_match(void)
{
    struct mig_hello source = hello_of(MIG_HELLO_SOURCE | MIG_HELLO_TLS);
    struct mig_hello destination = hello_of(MIG_HELLO_TLS), other;

    CASE("hellos of one migration match, in both directions");
    CHECK(!mig_hello_match(&source, &destination, &why));
    CHECK(!mig_hello_match(&destination, &source, &why));
    CASE("another VM, migration, epoch, end or kind does not");
    for (unsigned i = 0; i < 6; i++) {
        other = source;
        other.vm[15] ^= i == 0;
        other.migration[0] ^= i == 1;
        other.epoch += i == 2;
        other.flags ^= i == 3 ? MIG_HELLO_SOURCE : i == 4 ? MIG_HELLO_TLS : 0;
        other.flags ^= i == 5 ? MIG_HELLO_CHUNKS : 0;
        CHECK(mig_hello_match(&destination, &other, &why) == EPROTO);
    }
    CASE("the destination may not change connection, memory or key");
    for (unsigned i = 0; i < 4; i++) {
        other = destination;
        other.index += i == 0;
        other.n_connections += i == 1;
        other.n_pages += i == 2;
        other.key[1] += i == 3;
        CHECK(mig_hello_match(&source, &other, &why) == EPROTO);
    }
}

static void
test_heads(void)
{
    static const uint8_t body[40] = "ROUND's body";
    uint8_t head[MIG_RECORD_HEAD];
    struct mig_record r;

    CASE("a record's head is read as it was written");
    mig_record_put(head, MIG_BARRIER, 16, 7, body, 16);
    CHECK(!mig_record_get(head, true, 7, &r, &why));
    CHECK(r.type == MIG_BARRIER && r.known && r.length == 16 && r.sequence == 7);
    CHECK(mig_record_check_ok(head, body, 16));

    CASE("every bit of head and body is under the check");
    for (unsigned i = 0; i < (MIG_RECORD_HEAD + 16) * 8; i++) {
        uint8_t copy[MIG_RECORD_HEAD + 16];

        memcpy(copy, head, sizeof head);
        memcpy(copy + sizeof head, body, 16);
        copy[i / 8] ^= 1u << (i % 8);
        CHECK(!mig_record_check_ok(copy, copy + sizeof head, 16));
    }

    CASE("out of sequence, of the other direction, of a wrong length: refused");
    CHECK(mig_record_get(head, true, 8, &r, &why) == EPROTO);
    CHECK(mig_record_get(head, false, 7, &r, &why) == EPROTO);
    mig_record_put(head, MIG_BARRIER, 17, 0, body, 17);
    CHECK(mig_record_get(head, true, 0, &r, &why) == EPROTO);
    mig_record_put(head, MIG_BARRIER, 15, 0, body, 15);
    CHECK(mig_record_get(head, true, 0, &r, &why) == EPROTO);
    mig_record_put(head, MIG_READY, 24, 0, body, 24);
    CHECK(mig_record_get(head, true, 0, &r, &why) == EPROTO);
    CHECK(!mig_record_get(head, false, 0, &r, &why));

    CASE("unknown: mandatory refused, optional skipped, if not endless");
    put_le32(head, 1000);
    CHECK(mig_record_get(head, true, 0, &r, &why) == EPROTO);
    put_le32(head, 1000 | MIG_OPTIONAL);
    CHECK(!mig_record_get(head, true, 0, &r, &why) && !r.known && r.type == 1000);
    put_le32(head, MIG_OPTIONAL);
    CHECK(!mig_record_get(head, true, 0, &r, &why) && !r.known);
    put_le32(head + 4, mig_record_max(1000) + 1);
    CHECK(mig_record_get(head, true, 0, &r, &why) == EPROTO);

    CASE("optional or not is the type's, not the sender's");
    mig_record_put(head, MIG_LATE, 10, 0, body, 10);
    CHECK(get_le32(head) == (MIG_LATE | MIG_OPTIONAL));
    CHECK(!mig_record_get(head, true, 0, &r, &why) && r.known);
    put_le32(head, MIG_LATE);
    CHECK(mig_record_get(head, true, 0, &r, &why) == EPROTO);
    mig_record_put(head, MIG_END, 8, 0, body, 8);
    put_le32(head, MIG_END | MIG_OPTIONAL);
    CHECK(mig_record_get(head, true, 0, &r, &why) == EPROTO);
}

/* One of each message, filled so that no field is like another. */
static unsigned
examples(struct mig_msg *m)
{
    static const uint8_t data[32] = "0123456789abcdef0123456789abcde";
    static uint8_t ranges[32], pages[16], arrivals[60];
    unsigned n = 0;

    mig_range_put(ranges, (struct mig_range){3, 2});
    mig_range_put(ranges + 16, (struct mig_range){5, 100});
    mig_request_put(pages, 17);
    mig_request_put(pages + 8, 3);
    m[n++] = (struct mig_msg){MIG_CONFIG,
                              .config = {.driver = "cell", .n_pages = 12, .data = {data, 32}}};
    m[n++] = (struct mig_msg){MIG_CONFIG, .config = {.driver = "abcdefghijklmno9"}};
    m[n++] = (struct mig_msg){MIG_ACCEPT, .accept = {77}};
    m[n++] = (struct mig_msg){MIG_BARRIER, .barrier = {3, 1ull << 40}};
    m[n++] = (struct mig_msg){MIG_ROUND, .round = {9, 1234567}};
    m[n++] = (struct mig_msg){MIG_CHUNK, .chunk = {1ull << 33, {data, 7}}};
    m[n++] = (struct mig_msg){MIG_STATE, .state = {100, 68, {data, 32}}};
    m[n++] = (struct mig_msg){MIG_NETWORK, .network = {32, 0, {data, 32}}};
    m[n++] = (struct mig_msg){MIG_LATE, .late = {{data, 20}}};
    m[n++] = (struct mig_msg){MIG_PENDING, .pending = {2, true, {ranges, 32}}};
    m[n++] = (struct mig_msg){MIG_PENDING, .pending = {0, true, {data, 0}}};
    m[n++] = (struct mig_msg){MIG_FINAL, .final = {8, "0123456789abcde", 4, 5, 6}};
    m[n++] = (struct mig_msg){MIG_READY, .ready = {8, "abcdefghijklmno"}};
    m[n++] = (struct mig_msg){MIG_COMMITTED, .committed = {1ull << 60}};
    m[n++] = (struct mig_msg){MIG_ABORT, .abort = {MIG_ABORT_DIGEST, "pages differ"}};
    m[n++] = (struct mig_msg){MIG_ABORT, .abort = {99, ""}};
    m[n++] = (struct mig_msg){MIG_REQUEST, .request = {2, {pages, 16}}};
    m[n++] = (struct mig_msg){MIG_PLACED, .placed = {1, 2, 3}};
    m[n++] = (struct mig_msg){MIG_CLOCK, .clock = {false, 10, 0, 0}};
    m[n++] = (struct mig_msg){MIG_CLOCK, .clock = {true, 10, 11, 12}};
    m[n++] = (struct mig_msg){MIG_RUNNING, .running = {42, 1000}};
    m[n++] = (struct mig_msg){MIG_END, .end = {12}};
    mig_arrival_put(arrivals, &(struct mig_arrival){"one vif's uuid.", 25000000});
    mig_arrival_put(arrivals + 24, &(struct mig_arrival){"another's uuid.", 0});
    memcpy(arrivals + 48, "late frames\n", 12);
    m[n++] = (struct mig_msg){MIG_ARRIVED, .arrived = {2, {arrivals, 60}}};
    return n;
}

static void
test_messages(void)
{
    struct mig_msg m[32], got;
    unsigned n = examples(m);
    uint8_t wire[256], again[256];

    CASE("every message is read as it was written, and bounds its own length");
    for (unsigned i = 0; i < n; i++) {
        size_t length = mig_msg_put(wire, sizeof wire, &m[i]);

        CHECK(length >= mig_record_min(m[i].type) && length <= mig_record_max(m[i].type));
        CHECK(!mig_msg_get(m[i].type, wire, length, &got, &why));
        CHECK(mig_msg_put(again, sizeof again, &got) == length && !memcmp(wire, again, length));
        CHECK(!length || !mig_msg_put(again, length - 1, &m[i]));
        CHECK(mig_msg_get(m[i].type, wire, mig_msg_head_len(&m[i]) - 1, &got, &why));
    }
    mig_msg_put(wire, sizeof wire, &m[0]);
    CHECK(!mig_msg_get(MIG_CONFIG, wire, 56, &got, &why));
    CHECK(!strcmp(got.config.driver, "cell") && got.config.n_pages == 12 &&
          got.config.data.n == 32);
    mig_msg_put(wire, sizeof wire, &m[9]);
    CHECK(!mig_msg_get(MIG_PENDING, wire, 40, &got, &why));
    CHECK(mig_range_get(&got, 1).pfn == 5 && mig_range_get(&got, 1).count == 100);
    mig_msg_put(wire, sizeof wire, &m[22]);
    CHECK(!mig_msg_get(MIG_ARRIVED, wire, 68, &got, &why));
    CHECK(mig_arrival_get(&got, 0).blackout_ns == 25000000 &&
          !memcmp(mig_arrival_get(&got, 1).vif, "another's uuid.", 16));
    CHECK(mig_arrived_text(&got).n == 12 && !memcmp(mig_arrived_text(&got).p, "late", 4));
    CHECK(!mig_msg_put(wire, sizeof wire, &(struct mig_msg){MIG_PAGES}));
    CHECK(!mig_msg_put(wire, sizeof wire, &(struct mig_msg){MIG_TYPES}));
    CHECK(!mig_msg_put(wire, sizeof wire, &(struct mig_msg){0}));

    CASE("the text of an ABORT cannot do anything to a terminal");
    m[0] = (struct mig_msg){MIG_ABORT, .abort = {1, "a\033[2Jb\n\xff"}};
    CHECK(!mig_msg_get(MIG_ABORT, wire, mig_msg_put(wire, sizeof wire, &m[0]), &got, &why));
    CHECK(!strcmp(got.abort.text, "a?[2Jb??"));
}

static bool
refused(uint32_t type, uint8_t *wire, size_t length, unsigned at, uint8_t value)
{
    struct mig_msg got;
    uint8_t old = wire[at];
    int error;

    wire[at] = value;
    why = NULL;
    error = mig_msg_get(type, wire, length, &got, &why);
    wire[at] = old;
    return error == EPROTO && why;
}

static void
test_hostile(void)
{
    struct mig_msg m[32];
    unsigned n = examples(m);
    uint8_t wire[23][128];
    size_t length[23];

    for (unsigned i = 0; i < n; i++) {
        length[i] = mig_msg_put(wire[i], sizeof wire[i], &m[i]);
    }
    CASE("names, numbers, reserved bytes, ranges out of bounds: refused");
    CHECK(refused(MIG_CONFIG, wire[0], length[0], 0, 0)); /* no name */
    CHECK(refused(MIG_CONFIG, wire[0], length[0], 0, '/'));
    CHECK(refused(MIG_CONFIG, wire[0], length[0], 15, 'x')); /* behind its end */
    CHECK(refused(MIG_CONFIG, wire[0], length[0], 23, 1));   /* pages */
    CHECK(refused(MIG_ACCEPT, wire[2], length[2], 7, 1));
    CHECK(refused(MIG_BARRIER, wire[3], length[3], 0, 0));
    CHECK(refused(MIG_ROUND, wire[4], length[4], 4, 1));
    CHECK(refused(MIG_ROUND, wire[4], length[4], 15, 1));
    CHECK(refused(MIG_STATE, wire[6], length[6], 8, 69)); /* beyond the whole */
    CHECK(refused(MIG_STATE, wire[6], length[6], 15, 0xff));
    CHECK(refused(MIG_STATE, wire[6], length[6], 3, 2)); /* > 16 MiB */
    CHECK(refused(MIG_NETWORK, wire[7], length[7], 0, 31));
    CHECK(refused(MIG_NETWORK, wire[7], length[7], 3, 5));    /* > 64 MiB */
    CHECK(refused(MIG_PENDING, wire[9], length[9], 0, 1));    /* count */
    CHECK(refused(MIG_PENDING, wire[9], length[9], 3, 0x10)); /* 2 + 2^28 */
    CHECK(refused(MIG_PENDING, wire[9], length[9], 4, 2));
    CHECK(refused(MIG_PENDING, wire[9], length[9], 24, 4)); /* overlap */
    CHECK(refused(MIG_PENDING, wire[9], length[9], 32, 0)); /* empty */
    CHECK(refused(MIG_PENDING, wire[9], length[9], 39, 0xff));
    CHECK(refused(MIG_PENDING, wire[10], length[10], 4, 0)); /* nothing, and more */
    CHECK(refused(MIG_FINAL, wire[11], length[11], 39, 1));
    CHECK(refused(MIG_REQUEST, wire[16], length[16], 7, 1));
    CHECK(refused(MIG_REQUEST, wire[16], length[16] - 1, 0, 17));
    CHECK(refused(MIG_CLOCK, wire[18], length[18], 0, 2));
    CHECK(refused(MIG_CLOCK, wire[18], length[18], 4, 1));
    CHECK(refused(MIG_CLOCK, wire[18], length[18], 16, 1)); /* a question with an answer */
    CHECK(refused(MIG_CLOCK, wire[19], length[19], 24, 1)); /* answered before received */
    CHECK(refused(MIG_END, wire[21], length[21], 4, 1));
    CHECK(refused(MIG_ARRIVED, wire[22], length[22], 0, 3)); /* vifs */
    CHECK(refused(MIG_ARRIVED, wire[22], length[22], 4, 1));
    CHECK(refused(MIG_ARRIVED, wire[22], length[22], 60, 27)); /* its text */
    CHECK(refused(MIG_PAGES, wire[0], length[0], 0, 0));
    CHECK(refused(0, wire[0], length[0], 0, 0));
    CHECK(refused(~0u, wire[0], length[0], 0, 0));
}

int
main(void)
{
    test_hello();
    test_match();
    test_heads();
    test_messages();
    test_hostile();
    return check_done();
}
