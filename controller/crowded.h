/* crowded: policies that have more rules of one order than a switch's flow can tell apart.
 *
 * Rules that state the same remote, port or vif at the same order share a flow, and one flow
 * holds FTABLE_CLAUSES_MAX of them.  Of more, what they share is dropped, and each policy that
 * has such rules says so in its error (model_set_error()).
 *
 * Threads: none of this locks. */
#ifndef CROWDED_H
#define CROWDED_H

#include <stddef.h>
#include <stdint.h>

struct compile;
struct model;

struct crowded_rule {
    uint32_t rule, host; /* keys; one host that has it */
};

/* All zeros at first. */
struct crowded {
    uint64_t runs;              /* of the compiler, that it has seen */
    uint64_t crowd;             /* of all hosts' tables, when these were looked through */
    struct crowded_rule *rules; /* that they have */
    size_t n_rules;
    uint64_t walks;     /* of a table, so far */
    uint32_t *policies; /* keys of those that say so, in order */
    size_t n;
};

/* After compile_run().  Costs nothing unless that has run; if it has, a number of each host's
 * and the rules that are crowded.  Tables are looked through when one of the numbers is new. */
void crowded_run(struct crowded *, struct model *, struct compile *);
void crowded_destroy(struct crowded *);

#endif
