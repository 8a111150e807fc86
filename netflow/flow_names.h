/* flow_names: numbers for the names in stored flows.
 *
 * A name is of a class; a rule's has an author as well, so that the same rule by
 * another author is another name.  Ids are 1, 2, ... for as long as the store
 * lives.  A key of the pool's that nobody could name is the negative of it and
 * is printed "#KEY".
 *
 * Any thread.  Texts live as long as the dictionary. */
#ifndef FLOW_NAMES_H
#define FLOW_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum name_class {
    NAME_NONE,
    NAME_VIF,
    NAME_VM,
    NAME_TENANT,
    NAME_NETWORK,
    NAME_GROUPS, /* all groups of one, "db,web" */
    NAME_RULE,   /* POLICY/RULE */
    NAME_HOST,
    N_NAME_CLASSES
};

struct flow_name {
    enum name_class class;
    const char *text, *extra; /* extra: a rule's author, or "" */
};

struct flow_names;

struct flow_names *flow_names_create(void);
void flow_names_destroy(struct flow_names *);

/* Of "" the id 0.  Out of memory: 0. */
int64_t flow_names_id(struct flow_names *, enum name_class, const char *text, const char *extra);
/* False if there is none. */
bool flow_names_get(const struct flow_names *, int64_t id, struct flow_name *);
/* How many there are: the highest id. */
int64_t flow_names_count(const struct flow_names *);
/* The ids, at most 'max', of that name ("#KEY" as well); of NAME_GROUPS those
 * with the group among them.  Returns how many. */
size_t flow_names_find(const struct flow_names *, enum name_class, const char *text, int64_t *ids,
                       size_t max);

#endif
