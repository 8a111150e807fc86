/* Parses, sums and cuts a hostile frame.
 *
 * Input: flags (bit 0 keep blank, bits 1-2 tunnel), mss (2 bytes), offset of
 * the inner frame (2 bytes), then the frame.  Beyond the sanitizers' own
 * checks: what was cut is whole again when put together, and each segment is
 * itself a frame with right checksums. */
#include "offload.h"

#include <stdlib.h>
#include <string.h>

#define INPUT_HEADER 5
#define MAX_SEGMENTS 512 /* keeps an input with a tiny mss from taking seconds */

static void
require(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* A copy with nothing behind it, so that a read past its end is seen. */
static uint8_t *
exact_copy(const uint8_t *p, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (len) {
        memcpy(copy, p, len);
    }
    return copy;
}

static void
check_layout(const struct frame_layout *l, size_t len)
{
    require(l->l3_end <= len && l->l3 <= l->l3_end);
    require(!l->l4 || (l->l4 > l->l3 && l->payload > l->l4 && l->payload <= l->l3_end));
    require((l->l4 == 0) == (l->payload == 0));
}

static void
fuzz_checksums(const uint8_t *data, size_t len)
{
    uint8_t *frame = exact_copy(data, len);
    struct frame_layout l;
    bool valid = frame_parse(frame, len, &l);

    check_layout(&l, len);
    if (valid && csum_fill(frame, &l)) {
        require(csum_verify(frame, &l));
        require(csum_set_pseudo(frame, &l));
    } else {
        require(!csum_verify(frame, &l) || !valid);
    }
    require(!memcmp(frame, data, l.l4));
    free(frame);
}

static void
check_segment(uint8_t *segment, size_t len, const struct gso_iter *it)
{
    struct frame_layout l;

    require(frame_parse(segment, len, &l) && l.l3_end == len);
    if (it->tunnel == GSO_TUNNEL_UDP && l.l4_proto == 17 && !it->keep_blank) {
        /* Over IPv6 a tunnel may do without (RFC 6935). */
        require((!segment[l.l4 + 6] && !segment[l.l4 + 7]) || csum_verify(segment, &l));
    }
    segment += it->inner_ofs;
    len -= it->inner_ofs;
    require(frame_parse(segment, len, &l) && l.l3_end == len && l.payload == it->inner.payload);
    if (it->keep_blank) {
        require(csum_fill(segment, &l));
    }
    require(csum_verify(segment, &l));
}

static void
fuzz_segments(const uint8_t *data, size_t len, uint16_t mss, enum gso_tunnel tunnel,
              uint16_t inner_ofs, bool keep_blank)
{
    uint8_t *frame = exact_copy(data, len), *joined = malloc(len + 1);
    size_t n, header, n_joined = 0;
    struct gso_iter it;
    unsigned count;

    if (!gso_begin(&it, frame, len, mss, tunnel, inner_ofs, keep_blank)) {
        goto out;
    }
    count = gso_count(&it);
    require(count > 0);
    header = inner_ofs + it.inner.payload;
    require(it.end_ofs <= len && it.next_ofs == header);
    for (unsigned i = 0; i < count && i < MAX_SEGMENTS; i++) {
        size_t cap = header + (mss < it.end_ofs - it.next_ofs ? mss : it.end_ofs - it.next_ofs);
        uint8_t *segment = malloc(cap);

        require(!gso_next(&it, segment, cap - 1));
        n = gso_next(&it, segment, cap);
        require(n == cap && n >= header);
        memcpy(joined + n_joined, segment + header, n - header);
        n_joined += n - header;
        check_segment(segment, n, &it);
        free(segment);
    }
    require(!memcmp(joined, data + header, n_joined));
    if (count <= MAX_SEGMENTS) {
        require(n_joined == it.end_ofs - header && !gso_next(&it, joined, len));
    }
    require(!memcmp(frame, data, len));
out:
    free(joined);
    free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < INPUT_HEADER) {
        return 0;
    }
    fuzz_checksums(data + INPUT_HEADER, size - INPUT_HEADER);
    fuzz_segments(data + INPUT_HEADER, size - INPUT_HEADER, data[1] << 8 | data[2],
                  data[0] >> 1 & 3, data[3] << 8 | data[4], data[0] & 1);
    return 0;
}
