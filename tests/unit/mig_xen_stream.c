/* mig_xen_stream: making and damaging streams. */
#include "mig_xen_stream.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "xen_stream.h"

static void
add(struct stream *s, const void *bytes, size_t n)
{
    if (n > STREAM_MAX - s->n) {
        abort();
    }
    memcpy(s->bytes + s->n, bytes, n);
    s->n += n;
}

static void
add_le(struct stream *s, uint64_t value, size_t n)
{
    uint8_t b[8];

    put_le64(b, value);
    add(s, b, n);
}

static uint32_t
next_random(struct stream *s)
{
    s->seed = s->seed * 1664525u + 1013904223u;
    return s->seed >> 8;
}

static void
add_record(struct stream *s, uint32_t type, uint32_t length)
{
    static const uint8_t zeros[8];

    add_le(s, type, 4);
    add_le(s, length, 4);
    for (uint32_t i = 0; i < length; i++) {
        add_le(s, next_random(s), 1);
    }
    add(s, zeros, -length & 7);
}

void
stream_begin(struct stream *s, bool pv)
{
    s->pv = pv;
    s->seed = 1;
    s->n = 0;
    add(s, xen_stream_prologue, XEN_PROLOGUE_BYTES);
    s->image = s->n;
    add(s, "\xff\xff\xff\xff\xff\xff\xff\xffXENF\0\0\0\3\0\0\0\0\0\0\0\0", 24);
    add_le(s, pv ? XEN_DOMAIN_PV : XEN_DOMAIN_HVM, 4);
    add_le(s, 12, 4);
    add_le(s, 4, 4);
    add_le(s, 17, 4);
    s->statics = s->n;
    if (pv) {
        add_record(s, 2, 8);
    }
    add_record(s, 17, 1237);
    add_record(s, 18, 64);
    add_record(s, 0x80001234, 21);
    add_record(s, 16, 0);
    if (pv) {
        add_record(s, 3, 8 + 8 * 128);
    }
}

static void
add_page(struct stream *s, enum page_content content)
{
    uint8_t page[MIG_PAGE_BYTES] = {0};
    uint32_t seed = next_random(s);

    for (size_t i = 0; i < sizeof page && content != PAGE_ZERO; i++) {
        page[i] = content == PAGE_TEXT ? "to be or not to be "[(i + seed) % 19] : next_random(s);
    }
    add(s, page, sizeof page);
}

static void
begin_batch(struct stream *s, unsigned n, unsigned n_data)
{
    s->batch = s->n;
    add_le(s, 1, 4);
    add_le(s, 8 + 8 * n + n_data * MIG_PAGE_BYTES, 4);
    add_le(s, n, 8);
}

void
stream_pages(struct stream *s, uint64_t pfn, unsigned n, enum page_content content)
{
    begin_batch(s, n, n);
    for (unsigned i = 0; i < n; i++) {
        add_le(s, pfn + i, 8);
    }
    for (unsigned i = 0; i < n; i++) {
        add_page(s, content);
    }
}

void
stream_pages_down(struct stream *s, uint64_t last, unsigned n)
{
    begin_batch(s, n, n);
    for (unsigned i = 0; i < n; i++) {
        add_le(s, last - i, 8);
    }
    for (unsigned i = 0; i < n; i++) {
        add_page(s, PAGE_RANDOM);
    }
}

void
stream_again(struct stream *s, uint64_t pfn, unsigned n)
{
    size_t at = s->batch;

    begin_batch(s, n, n);
    for (unsigned i = 0; i < n; i++) {
        add_le(s, pfn + i, 8);
    }
    for (unsigned i = 0; i < n; i++) {
        size_t there = at + 16 + 8 * get_le32(s->bytes + at + 8) + (size_t)i * MIG_PAGE_BYTES;

        add(s, s->bytes + there, MIG_PAGE_BYTES);
        if (i % 3 == 0) { /* some changed a little */
            put_le32(s->bytes + s->n - MIG_PAGE_BYTES + i, next_random(s));
        }
    }
}

/* Every type, with and without data. */
static void
add_types(struct stream *s)
{
    static const uint8_t types[] = {0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15};

    begin_batch(s, sizeof types, 9);
    for (size_t i = 0; i < sizeof types; i++) {
        add_le(s, (uint64_t)types[i] << 60 | (40000 + i), 8);
    }
    for (size_t i = 0; i < 9; i++) {
        add_page(s, PAGE_TEXT);
    }
    begin_batch(s, 2, 0); /* none has any */
    add_le(s, UINT64_C(15) << 60 | 50000, 8);
    add_le(s, UINT64_C(14) << 60 | 50001, 8);
}

void
stream_finish(struct stream *s)
{
    s->state = s->n;
    add_record(s, 8, 24);
    if (s->pv) {
        add_record(s, 7, MIG_PAGE_BYTES);
        add_record(s, 4, 8 + 5168);
        add_record(s, 5, 8 + 128);
        add_record(s, 6, 8 + 1000);
        add_record(s, 12, 8);
    } else {
        add_record(s, 10, 8 + 16 * 7);
        add_record(s, 9, 300001);
    }
    s->end = s->n;
    add_record(s, 0, 0);
    add(s, xen_stream_end, XEN_RECORD_HEADER_BYTES);
}

void
stream_typical(struct stream *s, bool pv)
{
    size_t batch;

    stream_begin(s, pv);
    stream_pages(s, 0, 200, PAGE_ZERO);
    add_types(s);
    stream_pages(s, 300, 700, PAGE_TEXT);
    batch = s->n;
    stream_pages(s, 1000, 300, PAGE_RANDOM);
    stream_again(s, 1000, 100);
    stream_finish(s);
    s->batch = batch;
}

/* --- damage ---------------------------------------------------------------------------- */

static bool
set8(struct stream *s, size_t at, uint8_t value)
{
    bool other = s->bytes[at] != value;

    s->bytes[at] = value;
    return other;
}

static bool
set32(struct stream *s, size_t at, uint32_t value)
{
    bool other = get_le32(s->bytes + at) != value;

    put_le32(s->bytes + at, value);
    return other;
}

/* Takes n bytes out at 'at', or puts a record there. */
static bool
remove_at(struct stream *s, size_t at, size_t n)
{
    memmove(s->bytes + at, s->bytes + at + n, s->n - at - n);
    s->n -= n;
    return n > 0;
}
static bool
insert_record(struct stream *s, size_t at, uint32_t type, uint32_t length)
{
    size_t old = s->n, n;

    add_record(s, type, length);
    n = s->n - old;

    uint8_t *record = malloc(n);
    if (!record) {
        abort();
    }
    memcpy(record, s->bytes + old, n);
    memmove(s->bytes + at + n, s->bytes + at, old - at);
    memcpy(s->bytes + at, record, n);
    free(record);
    return true;
}
static size_t
record_bytes(const struct stream *s, size_t at)
{
    return 8 + ((get_le32(s->bytes + at + 4) + 7) & ~7u);
}

#define DAMAGE(name, expression)                                                                   \
    static bool name(struct stream *s)                                                             \
    {                                                                                              \
        return expression;                                                                         \
    }
DAMAGE(bad_ident, set8(s, 0, 'l'))
DAMAGE(bad_version, set8(s, 11, 3))
DAMAGE(big_endian, set8(s, 15, 1))
DAMAGE(legacy, set8(s, 15, 2))
DAMAGE(context_body, set32(s, 20, 8))
DAMAGE(emulator_first, set8(s, 16, 3))
DAMAGE(end_first, set8(s, 16, 0))
DAMAGE(image_marker, set8(s, s->image + 3, 0))
DAMAGE(image_id, set8(s, s->image + 8, 'x'))
DAMAGE(image_version, set8(s, s->image + 15, 4))
DAMAGE(image_endian, set8(s, s->image + 17, 1))
DAMAGE(other_kind, set8(s, s->image + 24, s->pv ? 2 : 1))
DAMAGE(unknown_kind, set8(s, s->image + 24, 9))
DAMAGE(page_shift, set8(s, s->image + 28, 13))
DAMAGE(no_static_end, remove_at(s, s->statics, record_bytes(s, s->statics)) &&
                          set8(s, s->statics + record_bytes(s, s->statics) + 32, 0x7f))
DAMAGE(twice, insert_record(s, s->statics, 17, 16))
DAMAGE(pv_record, insert_record(s, s->statics, 2, 8))
DAMAGE(hvm_record, insert_record(s, s->state, 10, 24))
DAMAGE(toolstack, insert_record(s, s->state, 11, 16))
DAMAGE(verify, insert_record(s, s->state, 13, 0))
DAMAGE(checkpoint, insert_record(s, s->state, 14, 0))
DAMAGE(unknown_record, insert_record(s, s->state, 19, 8))
DAMAGE(long_optional, set32(s, s->state, 0x80000000) && set32(s, s->state + 4, UINT32_MAX))
DAMAGE(tsc_length, set32(s, s->state + 4, 32))
DAMAGE(state_first, insert_record(s, s->statics, s->pv ? 4 : 9, 64))
DAMAGE(no_pages, set32(s, s->batch + 8, 0))
DAMAGE(many_pages, set32(s, s->batch + 8, XEN_BATCH_PAGES + 1))
DAMAGE(more_pages, set32(s, s->batch + 8, 299))
DAMAGE(short_batch, set32(s, s->batch + 4, 8 + 300 * 8 + 299 * MIG_PAGE_BYTES))
DAMAGE(long_batch, set32(s, s->batch + 4, UINT32_MAX - 7))
DAMAGE(tiny_batch, set32(s, s->batch + 4, 16))
DAMAGE(far_page, set8(s, s->batch + 16 + 3, 1))
DAMAGE(page_type, set8(s, s->batch + 16 + 7, 0x50))
DAMAGE(reserved_bits, set8(s, s->batch + 16 + 6, 0x10))
DAMAGE(typed_as_empty, set8(s, s->batch + 16 + 7, 0xf0))
DAMAGE(early_end, insert_record(s, s->statics, 0, 0))
DAMAGE(two_images, insert_record(s, s->n - 8, 1, 0))
DAMAGE(emulator_last, insert_record(s, s->n - 8, 2, 16))
DAMAGE(trailing, insert_record(s, s->n, 0x80000001, 8))
DAMAGE(truncated, remove_at(s, s->end, 8))

const struct damage stream_damages[] = {
    {"damaged: ident", false, bad_ident},
    {"damaged: version", false, bad_version},
    {"damaged: big-endian", false, big_endian},
    {"damaged: converted", false, legacy},
    {"damaged: a context with a body", false, context_body},
    {"damaged: a device model's record", false, emulator_first},
    {"damaged: an end without an image", false, end_first},
    {"damaged: image marker", false, image_marker},
    {"damaged: image id", false, image_id},
    {"damaged: image version", true, image_version},
    {"damaged: image byte order", true, image_endian},
    {"damaged: image of another kind", true, other_kind},
    {"damaged: pv image for a pvh domain", false, other_kind},
    {"damaged: image of no kind", false, unknown_kind},
    {"damaged: page size", false, page_shift},
    {"damaged: static data without end", false, no_static_end},
    {"damaged: a policy twice", false, twice},
    {"damaged: pv's record in pvh", false, pv_record},
    {"damaged: pvh's record in pv", true, hvm_record},
    {"damaged: toolstack record", false, toolstack},
    {"damaged: verify record", false, verify},
    {"damaged: checkpoint record", false, checkpoint},
    {"damaged: unknown record", false, unknown_record},
    {"damaged: optional record without end", false, long_optional},
    {"damaged: length of a fixed record", false, tsc_length},
    {"damaged: registers before memory", true, state_first},
    {"damaged: context before memory", false, state_first},
    {"damaged: batch of no pages", false, no_pages},
    {"damaged: batch of too many pages", false, many_pages},
    {"damaged: batch of fewer pages", false, more_pages},
    {"damaged: batch too short", false, short_batch},
    {"damaged: batch without end", false, long_batch},
    {"damaged: batch shorter than its frames", false, tiny_batch},
    {"damaged: page beyond memory", false, far_page},
    {"damaged: page type", false, page_type},
    {"damaged: reserved bits", true, reserved_bits},
    {"damaged: page without the data it has", false, typed_as_empty},
    {"damaged: image that ends early", false, early_end},
    {"damaged: two images", false, two_images},
    {"damaged: a device model's record at the end", true, emulator_last},
    {"damaged: bytes behind the end", false, trailing},
    {"damaged: image without its end", false, truncated, true},
    {NULL, false, NULL},
};
