/* classifier: the megaflow table, as lookups see it.
 *
 * A key is an array of 64-bit words; what they mean is the caller's matter
 * (vswitch/ lays OVS's struct flow over it).  A rule matches a key if
 * (key[idx[i]] & mask[i]) == value[i] for all of its words.  Rules have no
 * priorities: if several match, any may be returned (ofproto's megaflows
 * agree wherever they overlap).
 *
 * Lookups hold their speed with many masks: rules whose masks differ share
 * tables keyed by what their masks have in common (tuple merging), bounded
 * chains within a bucket, so that the number of probes depends on the bound
 * and not on the number of masks, also when an attacker picks the masks.
 *
 * Threads: insert and remove one at a time (caller's lock); lookups from any
 * number of threads that are online readers (epoch.h), without locks, at the
 * same time.  A lookup that runs while rules are moved between tables still
 * finds every rule that was there throughout. */
#ifndef FAST_CLASSIFIER_H
#define FAST_CLASSIFIER_H

#include <stddef.h>
#include <stdint.h>

#define CLS_WORDS_MAX 128u /* words of a key */

struct classifier;

/* Embedded in its owner's object.  The first group is set by the owner before
 * insertion and constant until an epoch after removal. */
struct cls_rule {
    uint16_t n_words;
    const uint16_t *idx;   /* n_words of them, ascending */
    const uint64_t *mask;  /* none is 0 */
    const uint64_t *value; /* value[i] == value[i] & mask[i] */
    struct cls_node *node; /* the classifier's */
};

/* Keys have 2 <= 'n_words' <= CLS_WORDS_MAX words.  NULL: no memory. */
struct classifier *cls_create(unsigned n_words);
void cls_destroy(struct classifier *); /* rules are not touched; accepts NULL */

/* ENOMEM.  Inserting a rule equal to another one is fine. */
int cls_insert(struct classifier *, struct cls_rule *);
/* The rule's memory may be reused an epoch later (epoch_defer()). */
void cls_remove(struct classifier *, struct cls_rule *);

/* A rule that matches, or NULL. */
struct cls_rule *cls_lookup(const struct classifier *, const uint64_t *key);
/* out[i] for each of 'n' <= 32 keys; faster than one by one. */
void cls_lookup_batch(const struct classifier *, const uint64_t *const keys[], unsigned n,
                      struct cls_rule *out[]);

struct cls_stats {
    size_t rules, masks;  /* distinct masks */
    size_t tables;        /* probes of tables that a lookup costs at most */
    size_t longest_chain; /* rules in the longest list that is searched linearly */
};
/* Walks the whole table.  For an online reader, or under the writers' lock. */
void cls_stats(const struct classifier *, struct cls_stats *);

#endif
