/* A migration's bytes: mig_stream.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "mig_stream.h"

enum { PAGES = STREAM_PAGES, CONNECTIONS = STREAM_CONNECTIONS, ROUNDS = 4, LATE_PAGES = 4 };

const uint8_t stream_vm[16] = "fifteen letters", stream_migration[16] = "another fifteen";
static const uint64_t key[2] = {0xfedcba9876543210, 3};

struct out {
    FILE *file;
    uint32_t sequence;
    uint64_t descriptors;
};

struct stream {
    struct out source[CONNECTIONS], destination[CONNECTIONS];
    struct mig_digest digest;
    struct mig_encoder *encoder[CONNECTIONS];
    uint8_t (*memory)[MIG_PAGE];
    uint64_t barriers;
    bool wrote;
};

static void
put(struct stream *s, struct out *o, const void *p, size_t n)
{
    s->wrote &= !n || fwrite(p, 1, n, o->file) == n;
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
open_out(struct stream *s, struct out *o, char **p, size_t *n, unsigned index, bool source)
{
    struct mig_hello hello = {
        .version = MIG_VERSION,
        .flags = source ? MIG_HELLO_SOURCE : 0,
        .index = index,
        .n_connections = CONNECTIONS,
        .epoch = STREAM_EPOCH,
        .n_pages = PAGES,
        .key = {key[0], key[1]},
    };
    uint8_t wire[MIG_HELLO];

    memcpy(hello.vm, stream_vm, 16);
    memcpy(hello.migration, stream_migration, 16);
    o->file = open_memstream(p, n);
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
            mig_encode(s->encoder[c], &b, payload, pfn, s->memory[pfn]);
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
                s->memory[pfn][random() % MIG_PAGE] ^= 1;
            } else if (dirty[pfn]) {
                fill(s->memory[pfn], random() % 3);
            }
        }
        send_msg(s, &s->source[0], (struct mig_msg){MIG_ROUND, .round = {round, PAGES}});
        send_pages(s, dirty, round, last ? MIG_BATCH_EXACT : 0);
        barrier(s);
        send_msg(s, &s->destination[0],
                 (struct mig_msg){MIG_PLACED, .placed = {s->barriers, PAGES * (round + 1), 0}});
    }
}

/* --- the rest ------------------------------------------------------------------------------- */

/* FINAL and its READY. */
static void
final(struct stream *s, uint64_t n_pending)
{
    struct mig_msg final = {MIG_FINAL, .final = {.epoch = STREAM_EPOCH, .n_pending = n_pending}};
    struct mig_msg ready = {MIG_READY, .ready = {.epoch = STREAM_EPOCH}};
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

/* PENDING, and what follows when the guest runs at the destination. */
static void
promise(struct stream *s, bool late[PAGES])
{
    struct mig_sum sum = {{0, 0}};
    uint8_t range[16];

    mig_range_put(range, (struct mig_range){20, LATE_PAGES});
    send_msg(s, &s->source[0], (struct mig_msg){MIG_PENDING, .pending = {1, true, {range, 16}}});
    for (unsigned pfn = 20; pfn < 20 + LATE_PAGES; pfn++) {
        late[pfn] = true;
        fill(s->memory[pfn], pfn % 3);
        mig_digest_set(&s->digest, &sum, pfn, 0);
    }
    mig_digest_fold(&s->digest, &sum);
}

static void
finish(struct stream *s, bool postcopy)
{
    static const uint8_t state[100] = "registers", frame[60] = "a late frame";
    struct out *o = &s->source[0], *d = &s->destination[0];
    uint8_t page[8], arrival[31];
    bool late[PAGES] = {false};

    send_msg(s, o, (struct mig_msg){MIG_STATE, .state = {100, 0, {state, 60}}});
    send_msg(s, o, (struct mig_msg){MIG_STATE, .state = {100, 60, {state + 60, 40}}});
    send_msg(s, o, (struct mig_msg){MIG_NETWORK, .network = {60, 0, {frame, 60}}});
    if (postcopy) {
        promise(s, late);
    }
    final(s, postcopy ? LATE_PAGES : 0);
    send_msg(s, o, (struct mig_msg){MIG_COMMITTED, .committed = {STREAM_EPOCH + 1}});
    send_msg(s, d, (struct mig_msg){MIG_RUNNING, .running = {STREAM_EPOCH + 1, 1000}});
    send_msg(s, o, (struct mig_msg){MIG_LATE, .late = {{frame, 60}}});
    send_msg(s, o, (struct mig_msg){MIG_CLOCK, .clock = {false, 5, 0, 0}});
    send_msg(s, d, (struct mig_msg){MIG_CLOCK, .clock = {true, 5, 6, 7}});
    mig_arrival_put(arrival, &(struct mig_arrival){"fifteen letters", 25000000});
    memcpy(arrival + 24, "groups\n", 7);
    send_msg(s, d, (struct mig_msg){MIG_ARRIVED, .arrived = {1, {arrival, 31}}});
    if (postcopy) {
        mig_request_put(page, 21);
        send_msg(s, d, (struct mig_msg){MIG_REQUEST, .request = {1, {page, 8}}});
        send_pages(s, late, ROUNDS, MIG_BATCH_EXACT | MIG_BATCH_POSTCOPY);
        barrier(s);
        final(s, 0);
    }
    for (unsigned c = 0; c < 2 * CONNECTIONS; c++) {
        struct out *each = c < CONNECTIONS ? &s->source[c] : &s->destination[c - CONNECTIONS];

        send_msg(s, each, (struct mig_msg){MIG_END, .end = {each->sequence}});
        s->wrote &= !fclose(each->file);
    }
}

static bool
open_all(struct stream *s, struct mig_stream *out)
{
    static const enum mig_compress compress[CONNECTIONS] = {MIG_COMPRESS_LZ4, MIG_COMPRESS_ZSTD};

    if (mig_digest_init(&s->digest, PAGES, key)) {
        return false;
    }
    for (unsigned c = 0; c < CONNECTIONS; c++) {
        open_out(s, &s->source[c], &out->source[c].p, &out->source[c].n, c, true);
        open_out(s, &s->destination[c], &out->destination[c].p, &out->destination[c].n, c, false);
        s->wrote &= !mig_encoder_create(
            &(struct mig_encoder_options){&s->digest, compress[c], PAGES * MIG_PAGE},
            &s->encoder[c]);
    }
    return s->wrote;
}

bool
mig_stream_make(struct mig_stream *out, bool postcopy, unsigned seed)
{
    struct stream s = {.memory = out->memory, .wrote = true};
    uint64_t kinds[MIG_KINDS] = {0};

    srandom(seed);
    memset(out, 0, sizeof *out);
    if (!open_all(&s, out)) {
        return false;
    }
    send_msg(&s, &s.source[0],
             (struct mig_msg){MIG_CONFIG, .config = {.driver = "cell", .n_pages = PAGES}});
    send_msg(&s, &s.destination[0], (struct mig_msg){MIG_ACCEPT, .accept = {PAGES}});
    rounds(&s);
    finish(&s, postcopy);
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

void
mig_stream_free(struct mig_stream *s)
{
    for (unsigned c = 0; c < CONNECTIONS; c++) {
        free(s->source[c].p);
        free(s->destination[c].p);
    }
}
