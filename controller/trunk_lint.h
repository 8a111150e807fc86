/* trunk_lint: trunks that leave connections behind when their VM moves.
 *
 * A parent whose trunk's vifs are not all locked or all unlocked, or more than a move has
 * room for, gets a warning; none of it is an error.  Threads: one. */
#ifndef TRUNK_LINT_H
#define TRUNK_LINT_H

struct model;
struct model_vif;

/* What looks wrong with the trunk of a live vif, the caller's to free; NULL: nothing. */
char *trunk_lint(const struct model_vif *);
/* Sets the warnings of all vifs. */
void trunk_lint_all(struct model *);

#endif
