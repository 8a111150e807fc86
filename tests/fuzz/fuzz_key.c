/* Parses hostile frames for the exact-match cache, and edits them.
 *
 * Input: one byte that chooses a mask, then the frame, which is parsed in
 * memory of its own size.  Beyond the sanitizers' own checks: the vector
 * parsers agree with the scalar one, a mask takes from the key what it says
 * and never changes the shape, what is read is within the frame, and a tag
 * that is pushed can be popped again. */
#include <stdlib.h>

#include "fast/state.h"
#include "fast_frames.h"

static void
require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static struct key_mask
choose_mask(uint8_t from)
{
    uint64_t seed = from + 1;
    struct key_mask m = {0};

    for (unsigned i = 0; i < sizeof m; i++) {
        uint32_t r = frame_random(&seed);
        ((uint8_t *)&m)[i] = r & 1 ? 0xff : r >> 8;
    }
    return m;
}

static bool
same(const struct key_wide *a, const struct key_wide *b, enum shape shape)
{
    return !memcmp(&a->key, &b->key, sizeof a->key) &&
           (shape != SHAPE_IPV6 || !memcmp(&a->ip6, &b->ip6, sizeof a->ip6));
}

static void
fuzz_parse(const uint8_t *frame, size_t len, uint8_t chosen)
{
    struct key_mask chosen_mask = choose_mask(chosen), all_mask;
    struct key_masks all, masks;
    struct key_wide full, masked, common;
    uint16_t flags, masked_flags, common_flags;
    enum shape shape;

    memset(&all_mask, 0xff, sizeof all_mask);
    key_masks_init(&all, &all_mask);
    key_masks_init(&masks, &chosen_mask);
    shape = key_parse(frame, len, 3, &all, &full, &flags);
    require(key_parse(frame, len, 3, &masks, &masked, &masked_flags) == shape);
    if (key_parse_common(frame, len, key_port(3), masks.narrow.v, &common.key, &common_flags)) {
        require(shape == SHAPE_IPV4 && common_flags == flags && same(&common, &masked, shape));
        require(key_hash(&common.key) == key_hash(&masked.key));
    }
    if (key_parse_common6(frame, len, 3, &masks.wide, &common, &common_flags)) {
        require(shape == SHAPE_IPV6 && common_flags == flags && same(&common, &masked, shape));
        require(key_hash_wide(&common) == key_hash_wide(&masked));
    }
    if (shape == SHAPE_ODD) {
        return;
    }
    require(len >= 14 && masked_flags == flags && flags <= 0xfff);
    require(full.key.in_port == 3 && masked.key.in_port == 3);
    require(masked.key.eth_type == full.key.eth_type);
    if (shape == SHAPE_IPV6) {
        full.key.v &= masks.wide.key.v;
        full.ip6.v &= masks.wide.ip6.v;
    } else {
        full.key.v &= masks.narrow.v;
    }
    require(same(&full, &masked, shape));
}

static void
fuzz_edit(const uint8_t *frame, size_t len, uint8_t chosen)
{
    struct program *p = calloc(1, sizeof *p + 2 * sizeof p->edits[0]);
    uint8_t *room = malloc(ACT_TAG_LEN + len);
    struct rte_mbuf m = {.buf_addr = room,
                         .data_off = ACT_TAG_LEN,
                         .data_len = len,
                         .pkt_len = len,
                         .ol_flags = chosen & 1 ? RTE_MBUF_F_TX_TCP_CKSUM : 0};
    uint16_t before = chosen & 0x7f;

    memcpy(room + ACT_TAG_LEN, frame, len);
    m.l2_len = before;
    p->kind = PROGRAM_EDIT;
    p->n_edits = 1;
    p->edits[0].type = EDIT_PUSH_VLAN;
    p->edits[0].vlan.tpid = RTE_BE16(0x8100);
    p->edits[0].vlan.tci = chosen << 4;
    p->edits[1].type = EDIT_POP_VLAN;
    require(act_edit(&m, p) && m.data_len == len + 4 && m.pkt_len == len + 4 && m.data_off == 0);
    require(!act_edit(&m, p));
    p->edits[0] = p->edits[1];
    require(act_edit(&m, p) && m.data_len == len && m.pkt_len == len);
    require(!memcmp(rte_pktmbuf_mtod(&m, uint8_t *), frame, len));
    require(m.l2_len == before || m.l2_len == 0);
    act_edit(&m, p); /* perhaps one of its own */
    require(m.data_len == len || m.data_len == len - 4);
    free(room);
    free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *frame;

    if (size < 1 || size > UINT16_MAX - 8) {
        return 0;
    }
    frame = malloc(size > 1 ? size - 1 : 1);
    memcpy(frame, data + 1, size - 1);
    fuzz_parse(frame, size - 1, data[0]);
    if (size > 14) {
        fuzz_edit(frame, size - 1, data[0]);
    }
    free(frame);
    return 0;
}
