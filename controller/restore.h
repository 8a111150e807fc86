/* restore: the document of a pending commit, made to fit what has come and gone since.
 *
 * Changes are refused while a commit waits for its confirmation, but VMs and vifs come,
 * go and get names by way of weft-xapid, too.  So the document has the uuids of what the
 * commit did not delete: what has gone all the same is not to come back, and what has
 * another name is the same object.
 *
 * Threads: one. */
#ifndef RESTORE_H
#define RESTORE_H

struct doc;
struct model;

/* Takes VMs and vifs out of the document that have gone, and them out of what names
 * them: out of lists; what names one otherwise is taken out itself.  What has another
 * name by now is renamed.  May be done again. */
void restore_prepare(const struct model *, struct doc *);

#endif
