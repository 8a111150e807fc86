/* model_lint: rules that look wrong though each is right by itself.
 *
 * By rule: unreachable (an earlier rule of the same or a wider scope decides all
 * it could match), in conflict (same band, same order, overlapping, another
 * action, or one stateful and one not), without effect (its remote group has no
 * address).  Only single earlier rules are looked at: what several together
 * shadow is not found.
 *
 * Compares pairs: done in steps, so that the main loop goes on.  Between create
 * and finish the model must not change; if it does, destroy and start over.
 * Threads: one. */
#ifndef MODEL_LINT_H
#define MODEL_LINT_H

#include "model.h"

struct model_lint;

struct model_lint *model_lint_create(struct model *);
void model_lint_destroy(struct model_lint *);
/* Compares at most about 'steps' pairs; true when all are compared. */
bool model_lint_run(struct model_lint *, size_t steps);
/* Sets the warnings of all rules and policies. */
void model_lint_finish(struct model_lint *);
/* The next rule with a warning, NULL when there is none; '*at' starts at 0. */
const char *model_lint_next(const struct model_lint *, size_t *at, const struct model_rule **);

#endif
