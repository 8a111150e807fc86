/* cls_shapes: rule sets for tests and benchmarks of the classifier.
 *
 * Keys are laid out roughly as OVS's struct flow: 84 words, of which a rule
 * touches few.  All rules have input port, recirculation id, packet type and
 * Ethernet type exact, as ofproto's megaflows do. */
#ifndef CLS_SHAPES_H
#define CLS_SHAPES_H

#include <stdbool.h>
#include <stdint.h>

#include "fast/classifier.h"

#define SHAPE_WORDS 84u
#define SHAPE_RULE_WORDS 20u
#define SHAPE_IN_PORT 46u /* the word that has it, in its second half */

enum cls_shape {
    CLS_SHAPE_RANDOM,     /* address prefixes of 8, 16, 24, 32 bits, ports or not; any values */
    CLS_SHAPE_STRUCTURED, /* the same masks, values as in one site's address plan */
    CLS_SHAPE_VIFS,       /* 64 ports; MAC addresses, and 5-tuples with prefixes, as tenants have */
    CLS_SHAPE_EXACT,      /* one mask: the whole 5-tuple */
    CLS_SHAPE_ATTACK,     /* what prefix unwildcarding makes of an attacker's packets when three
                           * fields are matched: cells that do not overlap, 8,192 masks */
    CLS_SHAPE_ATTACK_ACL, /* the same with 20 rules behind each field */
    CLS_SHAPE_ATTACK_IP6, /* the same over two IPv6 addresses and a port */
    CLS_SHAPE_BITS,       /* any bits of three words */
    CLS_N_SHAPES
};
extern const char *const cls_shape_names[CLS_N_SHAPES];

struct shape_rule {
    struct cls_rule rule; /* first */
    uint16_t idx[SHAPE_RULE_WORDS];
    uint64_t mask[SHAPE_RULE_WORDS], value[SHAPE_RULE_WORDS];
};

/* xorshift; never 0. */
static inline uint64_t
shape_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A rule of the set.  'n_masks' is how many RANDOM and STRUCTURED have (0: 80;
 * at most 800; with more than 80, of prefixes of any length). */
void shape_rule_make(struct shape_rule *, enum cls_shape, unsigned n_masks, uint64_t *seed);
/* A key that the rule matches; the bits it does not look at are random. */
void shape_key_of(uint64_t key[SHAPE_WORDS], const struct shape_rule *, uint64_t *seed);
bool shape_matches(const struct cls_rule *, const uint64_t *key);

#endif
