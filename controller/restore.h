/* restore: the document of a pending commit, made to fit what has come and gone since.
 *
 * Changes are refused while a commit waits for its confirmation, but VMs and vifs come,
 * go and get names by way of weft-xapid, too.  So the document has the uuids of what the
 * commit did not delete: what has gone all the same is not to come back, and what has
 * another name is the same object.  A VM of the name of one that the commit deleted is
 * not that one: it stays as it is, and the other one away.  Documents of older
 * controllers have no uuids.
 *
 * Threads: one. */
#ifndef RESTORE_H
#define RESTORE_H

#include "plan.h"

/* Takes VMs and vifs out of the document that have gone, and them out of what names
 * them: out of lists; what names one otherwise is taken out itself.  What has another
 * name by now is renamed, unless one that weft-xapid has made since has its old name:
 * then it keeps the new one.  May be done again. */
void restore_prepare(const struct model *m, struct doc *doc, plan_read *read, void *aux);
/* It is not an older controller's. */
bool restore_has_uuids(const struct doc *);

#endif
