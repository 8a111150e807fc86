/* What the C code writes, read by somebody who has only read docs/migration-stream.md.
 *
 * A guest's memory goes over two connections, in rounds, in all kinds of pages, with
 * post-copy at the end; both directions are written to files as a capture of the transport
 * has them.  tests/migrate/stream_damage.py checks them, and damaged copies of them. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "check.h"
#include "record.h"

enum { PAGES = 48, CONNECTIONS = 2, ROUNDS = 4, LATE_PAGES = 4 };

static const uint64_t key[2] = {0xfedcba9876543210, 3};
static uint8_t memory[PAGES][MIG_PAGE] __attribute__((aligned(4096)));

struct out {
    FILE *file;
    uint32_t sequence;
    uint64_t descriptors;
};

struct stream {
    struct out source[CONNECTIONS], destination[CONNECTIONS];
    struct mig_digest digest;
    struct mig_encoder *encoder[CONNECTIONS];
    uint64_t barriers;
    bool wrote;
};

static void
put(struct stream *s, struct out *o, const void *p, size_t n)
{
    s->wrote &= fwrite(p, 1, n, o->file) == n;
}

static void
put_head(struct stream *s, struct out *o, uint32_t type, size_t length, const uint8_t *checked,
         size_t n)
{
    uint8_t head[MIG_RECORD_HEAD];

    mig_record_put(head, type, (uint32_t)length, o->sequence++, checked, n);
    put(s, o, head, sizeof head);
    put(s, o, checked, n);
}

static void
send_msg(struct stream *s, struct out *o, struct mig_msg m)
{
    uint8_t body[4096];
    size_t n = mig_msg_put(body, sizeof body, &m);

    s->wrote &= n > 0;
    put_head(s, o, m.type, n, body, n);
}

static void
open_out(struct stream *s, struct out *o, const char *dir, unsigned index, bool source)
{
    struct mig_hello hello = {
        .version = MIG_VERSION,
        .flags = source ? MIG_HELLO_SOURCE : 0,
        .index = index,
        .n_connections = CONNECTIONS,
        .vm = "fifteen letters",
        .migration = "another fifteen",
        .epoch = 7,
        .n_pages = PAGES,
        .key = {key[0], key[1]},
    };
    uint8_t wire[MIG_HELLO];
    char path[256];

    snprintf(path, sizeof path, "%s/conn%u.%s", dir, index, source ? "source" : "destination");
    o->file = fopen(path, "w");
    s->wrote &= o->file != NULL;
    if (o->file) {
        mig_hello_put(wire, &hello);
        put(s, o, wire, sizeof wire);
    }
}

/* --- pages ---------------------------------------------------------------------------------- */

static void
send_batch(struct stream *s, unsigned c, struct mig_batch *b, const void *const *payload)
{
    uint8_t head[MIG_BATCH_HEAD_MAX];
    size_t n = mig_batch_put(head, b);
    struct out *o = &s->source[c];

    put_head(s, o, MIG_PAGES, n + b->payload, head, n);
    for (uint32_t i = 0; i < b->n; i++) {
        put(s, o, payload[i], b->desc[i].length);
    }
    o->descriptors += b->n;
}

/* Pages first..last-1 of 'dirty', each over the connection it always goes. */
static void
send_pages(struct stream *s, const bool *dirty, uint32_t round, uint32_t flags)
{
    for (unsigned c = 0; c < CONNECTIONS; c++) {
        const void *payload[MIG_BATCH_PAGES];
        struct mig_batch b;

        mig_encoder_begin(s->encoder[c], &b, round, flags);
        for (unsigned pfn = 0; pfn < PAGES; pfn++) {
            if (!dirty[pfn] || pfn / 8 % CONNECTIONS != c) {
                continue;
            }
            mig_encode(s->encoder[c], &b, payload, pfn, memory[pfn]);
            if (b.n == 6) {
                send_batch(s, c, &b, payload);
                mig_encoder_begin(s->encoder[c], &b, round, flags);
            }
        }
        if (b.n) {
            send_batch(s, c, &b, payload);
        }
    }
}

static void
barrier(struct stream *s)
{
    s->barriers++;
    for (unsigned c = 0; c < CONNECTIONS; c++) {
        send_msg(s, &s->source[c],
                 (struct mig_msg){MIG_BARRIER, .barrier = {s->barriers, s->source[c].descriptors}});
    }
}

static void
fill(uint8_t *page, unsigned what)
{
    memset(page, 0, MIG_PAGE);
    for (unsigned i = 0; what && i < MIG_PAGE; i += 4) {
        put_le32(page + i, what == 1 ? (uint32_t)random() : (uint32_t)(random() & 0x01010101));
    }
}

static void
rounds(struct stream *s)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        bool dirty[PAGES], last = round == ROUNDS - 1;

        for (unsigned pfn = 0; pfn < PAGES; pfn++) {
            dirty[pfn] = round == 0 || random() % 3 == 0;
            if (dirty[pfn] && round && pfn % 3) {
                memory[pfn][random() % MIG_PAGE] ^= 1;
            } else if (dirty[pfn]) {
                fill(memory[pfn], random() % 3);
            }
        }
        send_msg(s, &s->source[0], (struct mig_msg){MIG_ROUND, .round = {round, PAGES}});
        send_pages(s, dirty, round, last ? MIG_BATCH_EXACT : 0);
        barrier(s);
    }
}

/* --- the rest ------------------------------------------------------------------------------- */

/* FINAL and its READY. */
static void
final(struct stream *s, uint64_t n_pending)
{
    struct mig_msg final = {MIG_FINAL, .final = {.epoch = 7, .n_pending = n_pending}};
    struct mig_msg ready = {MIG_READY, .ready = {.epoch = 7}};
    struct mig_sum sum;

    for (unsigned c = 0; c < CONNECTIONS; c++) {
        mig_digest_fold(&s->digest, mig_encoder_sum(s->encoder[c]));
    }
    sum = mig_digest_value(&s->digest);
    mig_sum_put(final.final.digest, &sum);
    mig_sum_put(ready.ready.digest, &sum);
    send_msg(s, &s->source[0], final);
    send_msg(s, &s->destination[0], ready);
}

static void
finish(struct stream *s)
{
    static const uint8_t state[100] = "registers", frame[60] = "a late frame";
    struct out *o = &s->source[0], *back = &s->destination[0];
    bool late[PAGES] = {false};
    struct mig_sum sum = {{0, 0}};
    uint8_t range[16];

    send_msg(s, o, (struct mig_msg){MIG_STATE, .state = {100, 0, {state, 60}}});
    send_msg(s, o, (struct mig_msg){MIG_STATE, .state = {100, 60, {state + 60, 40}}});
    send_msg(s, o, (struct mig_msg){MIG_NETWORK, .network = {60, 0, {frame, 60}}});
    mig_range_put(range, (struct mig_range){20, LATE_PAGES});
    send_msg(s, o, (struct mig_msg){MIG_PENDING, .pending = {1, true, {range, 16}}});
    for (unsigned pfn = 20; pfn < 20 + LATE_PAGES; pfn++) {
        late[pfn] = true;
        mig_digest_set(&s->digest, &sum, pfn, 0);
    }
    mig_digest_fold(&s->digest, &sum);
    final(s, LATE_PAGES);
    send_msg(s, o, (struct mig_msg){MIG_COMMITTED, .committed = {8}});
    send_msg(s, back, (struct mig_msg){MIG_RUNNING, .running = {8, 1000}});
    for (unsigned pfn = 20; pfn < 20 + LATE_PAGES; pfn++) {
        fill(memory[pfn], pfn % 3);
    }
    send_pages(s, late, ROUNDS, MIG_BATCH_EXACT | MIG_BATCH_POSTCOPY);
    send_msg(s, o, (struct mig_msg){MIG_LATE, .late = {{frame, 60}}});
    send_msg(s, o, (struct mig_msg){MIG_CLOCK, .clock = {false, 5, 0, 0}});
    barrier(s);
    final(s, 0);
    for (unsigned c = 0; c < 2 * CONNECTIONS; c++) {
        struct out *each = c < CONNECTIONS ? &s->source[c] : &s->destination[c - CONNECTIONS];

        send_msg(s, each, (struct mig_msg){MIG_END, .end = {each->sequence}});
        s->wrote &= !fclose(each->file);
    }
}

static bool
write_stream(const char *dir)
{
    static const enum mig_compress compress[CONNECTIONS] = {MIG_COMPRESS_LZ4, MIG_COMPRESS_ZSTD};
    struct stream s = {.wrote = true};
    uint64_t kinds[MIG_KINDS] = {0};

    if (mig_digest_init(&s.digest, PAGES, key)) {
        return false;
    }
    for (unsigned c = 0; c < CONNECTIONS; c++) {
        open_out(&s, &s.source[c], dir, c, true);
        open_out(&s, &s.destination[c], dir, c, false);
        s.wrote &= !mig_encoder_create(
            &(struct mig_encoder_options){&s.digest, compress[c], PAGES * MIG_PAGE}, &s.encoder[c]);
    }
    if (s.wrote) {
        send_msg(&s, &s.source[0],
                 (struct mig_msg){MIG_CONFIG, .config = {.driver = "cell", .n_pages = PAGES}});
        send_msg(&s, &s.destination[0], (struct mig_msg){MIG_ACCEPT, .accept = {PAGES}});
        rounds(&s);
        finish(&s);
    }
    for (unsigned c = 0; c < CONNECTIONS; c++) {
        for (unsigned k = 0; k < MIG_KINDS; k++) {
            kinds[k] += mig_encoder_stats(s.encoder[c])->pages[k];
        }
        mig_encoder_destroy(s.encoder[c]);
    }
    mig_digest_destroy(&s.digest);
    for (unsigned k = MIG_ZERO; k < MIG_KINDS; k++) {
        s.wrote &= kinds[k] > 0;
    }
    return s.wrote;
}

int
main(void)
{
    static const char reader[] = "tests/migrate/stream_damage.py";
    char dir[] = "/tmp/test_mig_stream.XXXXXX", path[64], command[256];
    int status;
    FILE *f;

    if (access(reader, X_OK) || system("command -v zstd >/dev/null")) {
        printf("skip streams read by another reader: %s or zstd is not there\n", reader);
        return 0;
    }
    srandom(3);
    CASE("a stream of every kind of page and record can be written");
    CHECK(mkdtemp(dir) != NULL);
    CHECK(write_stream(dir));
    snprintf(path, sizeof path, "%s/memory", dir);
    f = fopen(path, "w");
    CHECK(f && fwrite(memory, sizeof memory, 1, f) == 1 && !fclose(f));
    status = check_done();
    snprintf(command, sizeof command, "PYTHONDONTWRITEBYTECODE=1 %s %s %s", reader, dir, path);
    status |= system(command) != 0;
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) || status;
}
