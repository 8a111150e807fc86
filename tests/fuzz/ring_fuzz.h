/* ring_fuzz: what the ring fuzz targets share.
 *
 * The input is a little program for a hostile guest: a stream of operations
 * and their arguments, taken byte by byte; past its end everything is 0 and
 * the target stops.  A rule that does not hold aborts. */
#ifndef RING_FUZZ_H
#define RING_FUZZ_H

#include <stdlib.h>
#include <string.h>

#include "ring_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: must: %s\n", __FILE__, __LINE__, #cond);                       \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct fuzz_input {
    const uint8_t *at, *end;
};

static inline uint8_t
fuzz_u8(struct fuzz_input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static inline uint16_t
fuzz_u16(struct fuzz_input *in)
{
    uint16_t high = fuzz_u8(in);

    return high << 8 | fuzz_u8(in);
}

static inline uint32_t
fuzz_u32(struct fuzz_input *in)
{
    uint32_t high = fuzz_u16(in);

    return high << 16 | fuzz_u16(in);
}

/* Frames with headers near to right, so that the deeper checks are reached. */
static inline uint32_t
fuzz_frame(struct fuzz_input *in, uint8_t *frame, unsigned max)
{
    uint8_t shape = fuzz_u8(in);
    struct frame_spec spec = {
        .v6 = shape & 1,
        .udp = shape & 2,
        .blank = shape & 4,
        .tags = shape >> 6,
        .payload = fuzz_u16(in),
        .tcp_flags = shape & 8 ? fuzz_u8(in) : 0,
        .seq = shape & 16 ? fuzz_u32(in) : 1,
    };
    unsigned headers = 14 + 4 * spec.tags + 60;

    if (spec.payload > max - headers) {
        spec.payload = max - headers;
    }
    uint32_t len = frame_build(frame, &spec);
    for (unsigned n = shape & 32 ? fuzz_u8(in) & 7 : 0; n; n--) {
        unsigned at = fuzz_u8(in);
        frame[at < len ? at : 0] = fuzz_u8(in);
    }
    return len;
}

#endif
