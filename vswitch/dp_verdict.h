/* dp_verdict: memory of the verdicts that a worker's cache holds.
 *
 * A verdict is a struct ct_ref and takes a cache line.  They live in blocks
 * that belong to one worker, so that neither taking nor giving back one
 * touches anything shared.  The memory goes away with the last verdict.
 *
 * Threads: the worker's own, or any once that has ended. */
#ifndef DP_VERDICT_H
#define DP_VERDICT_H

struct ct_ref;
struct dp_worker;

/* To be filled in; given back by dp_verdict_free(). */
struct ct_ref *dp_verdict_alloc(struct dp_worker *);

#endif
