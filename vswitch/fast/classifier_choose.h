/* classifier_choose: by what to split a list of rules. */
#ifndef CLASSIFIER_CHOOSE_H
#define CLASSIFIER_CHOOSE_H

#include "classifier_impl.h"

struct cls_split {
    enum cls_kind kind; /* HASH or PATH */
    struct cls_tuple tuple;
    struct cls_steps steps;
};

struct cls_chooser *cls_chooser_create(void);
void cls_chooser_destroy(struct cls_chooser *);

/* The table that tells these rules apart best.  False: none is worth its
 * probe. */
bool cls_choose(struct cls_chooser *, struct cls_node *const *, unsigned n, struct cls_split *);

#endif
