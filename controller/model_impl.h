/* model_impl: what the model's files share; nobody else includes it.
 *
 * Theory of operation.  A put parses the record into the object's fields (phase
 * one, model_parse.c): what is wrong with the record alone becomes 'fault'.  It
 * also restates two kinds of edges: *references* to other objects, kept under
 * the target's uuid ("want") whether the target is there or not, and *claims* to
 * what may be had once (a name, a tag, a MAC in a network, a key).  The object is
 * then dirty, and so are those whose claims it meets.
 *
 * model_settle() (model_link.c) takes dirty objects kind by kind, in the order
 * in which kinds refer to each other, and decides whether each is live.  When
 * that changes, those who want the object are dirty in turn.  A live object's
 * references are *linked*: they stand in their target's list.  Of the objects
 * that claim the same, the one with the lowest key has it: the oldest. */
#ifndef MODEL_IMPL_H
#define MODEL_IMPL_H

#include <string.h>

#include "fold_hash.h"
#include "index.h"
#include "model.h"
#include "openvswitch/compiler.h"
#include "packets.h"
#include "slab.h"
#include "uuid.h"

/* What the last look at an object said. */
enum model_state {
    NONE,  /* not looked at yet */
    GOOD,  /* live */
    WAITS, /* nothing is wrong: no key yet, disabled, gone, or what it needs waits */
    WRONG,
    SICK, /* wrong, but live for deny rules: see model_check.c */
};

enum model_field {
    FIELD_NETWORK_TENANT,
    FIELD_VM_TENANT,
    FIELD_GROUP_TENANT,
    FIELD_USER_TENANT,
    FIELD_VIF_VM,
    FIELD_VIF_NETWORK,
    FIELD_VIF_HOST,
    FIELD_VIF_PARENT,
    FIELD_GROUP_VIF,
    FIELD_GROUP_VM,
    FIELD_GROUP_GROUP,
    FIELD_POLICY_NETWORK,
    FIELD_POLICY_GROUP,
    FIELD_POLICY_VM,
    FIELD_POLICY_VIF,
    FIELD_RULE_POLICY,
    FIELD_RULE_REMOTE_GROUP,
    FIELD_MIRROR_VIF,
    FIELD_MIRROR_NETWORK,
    FIELD_MIRROR_OUTPUT_VIF,
    FIELD_EXPORTER_HOST,
    FIELD_EXPORTER_NETWORK,
    FIELD_BOND_HOST,
    FIELD_PIF_HOST,
    N_FIELDS
};
struct model_field_info {
    enum rec_kind kind;
    unsigned rec_field;
    bool member; /* the target is left out without harm to the one who names it */
};
extern const struct model_field_info model_fields[N_FIELDS];
const struct rec_field *model_field_of(enum model_field);
const char *model_field_name(enum model_field);

/* All that there is of one uuid: objects, of different kinds, and references. */
struct model_want {
    struct hmap_node node; /* in model->wants */
    struct uuid uuid;
    struct model_obj *objs; /* by next_alike */
    struct ovs_list refs;   /* struct model_ref by want_node */
};

struct model_claim {
    struct model_obj *obj;
    struct model_claim_set *set;
    const char *field;
    struct ovs_list set_node, obj_node;
};
/* All who claim the same: most often one. */
struct model_claim_set {
    struct hmap_node node;    /* in model->claims */
    struct ovs_list claims;   /* struct model_claim by set_node */
    struct model_claim first; /* of who came when there was no set */
    char what[];
};

/* --- model.c -------------------------------------------------------------------- */

void model_mark(struct model *, struct model_obj *, unsigned change);
void model_dirty(struct model *, struct model_obj *);
/* The database may lack something of the object's status. */
void model_note(struct model *, struct model_obj *);
/* Also objects that are not live; NULL if there is no row. */
struct model_obj *model_find(const struct model *, enum rec_kind, const struct uuid *);
struct model_claim_set *model_claim_find(const struct model *, const char *what);
/* The same, with model_claim_hash(what). */
struct model_claim_set *model_claim_find_hashed(const struct model *, const char *what,
                                                uint32_t hash);
static inline uint32_t
model_claim_hash(const char *what)
{
    return fold_hash(what, strlen(what), 0);
}
/* What is claimed: "KIND OF BYTES", the bytes as hexadecimal digits. */
struct model_claimed {
    const char *kind, *of;
    const void *bytes;
    size_t n;
};
size_t model_claimed_size(const struct model_claimed *); /* of the text, with its end */
void model_claimed_put(char *text, const struct model_claimed *);
/* Of an object's name. */
struct model_claimed model_claimed_name(enum rec_kind, const char *name, const struct uuid *policy);
/* The texts of claims to a key or a zone, and to a name, for the caller to free. */
char *model_number_claim(const char *what, uint32_t number);
char *model_name_claim(enum rec_kind, const char *name, const struct uuid *policy);

/* --- model_parse.c ---------------------------------------------------------------- */

/* Fields from a record that passed rec_check().  References and claims too. */
void model_parse(struct model *, struct model_obj *, const struct rec *);
/* The same from one that did not pass, if a deny rule could go by it: without
 * what is in doubt, so that it says too much rather than too little.  False:
 * nothing was parsed. */
bool model_parse_widened(struct model *, struct model_obj *, const struct rec *);
void model_free_fields(struct model_obj *);
/* From the fields rate_in_kbps, rate_out_kbps and burst_kb, in this order. */
struct model_rates model_parse_rates(const struct rec *, unsigned first_field);

/* --- model_check.c ---------------------------------------------------------------------- */

/* What the object is now; WRONG and SICK: '*why' is its error, "field: message", for the
 * caller to free. */
enum model_state model_check(struct model *, struct model_obj *, char **why);
/* A tenant's group holds what is the tenant's, and pool-wide groups. */
bool model_may_hold(struct model *, struct model_obj *group, struct model_obj *member);

/* --- model_link.c ------------------------------------------------------------------- */

struct model_want *model_want_find(const struct model *, const struct uuid *);
/* The object of that kind, live or not; or NULL. */
struct model_obj *model_want_obj(const struct model_want *, enum rec_kind);
/* An object enters and leaves its uuid's want. */
void model_want_add(struct model *, struct model_obj *);
void model_want_remove(struct model *, struct model_obj *);

/* States the references of the field to be exactly 'targets' (sorted, none twice). */
struct model_edges {
    unsigned field;
    const struct uuid *targets;
    size_t n;
};
void model_set_refs(struct model *, struct model_obj *, const struct model_edges *, size_t n);
void model_drop_refs(struct model *, struct model_obj *);
/* What the reference names, or NULL; of the second, if it is live. */
struct model_obj *model_ref_any(const struct model_ref *);
struct model_obj *model_ref_live(const struct model_ref *);
void model_drop_claims(struct model *, struct model_obj *);
/* Claims are made together by model_claims_end(), so that they are looked up side by side: a
 * cold start waits for memory here more than anywhere else. */
void model_claim(struct model *, struct model_obj *, const char *field,
                 const struct model_claimed *);
void model_claim_number(struct model *, struct model_obj *, const char *field, uint32_t number);
/* Of a few: what is claimed is printed. */
void model_claim_printed(struct model *, struct model_obj *, const char *field, const char *format,
                         ...) OVS_PRINTF_FORMAT(4, 5);
void model_claims_end(struct model *, struct model_obj *);
void model_dirty_referrers(struct model *, struct model_obj *);
/* An object that is not live points to nothing any more. */
void model_forget(struct model_obj *);

/* --- model_group.c -------------------------------------------------------------------- */

/* What the group holds changed: so it did for all that nest it. */
void model_group_touch(struct model *, struct model_group *);
void model_vif_touch_groups(struct model *, struct model_vif *);
/* Whether the group holds itself; '*via' is the nested group that leads back. */
bool model_group_loops(struct model *, struct model_group *, struct model_group **via);
/* Sorts and removes what is inside another. */
void model_prefixes_reduce(struct model_prefixes *);
bool model_prefixes_equal(const struct model_prefixes *, const struct model_prefixes *);

/* --- model_extra.c ---------------------------------------------------------------------- */

void model_derive_limits(struct model *, struct model_vif *); /* it is live */

/* --- model_port.c ----------------------------------------------------------------------- */

void model_vif_prefetch(const struct model *, const struct model_vif *); /* it may soon enter */
void model_vif_enter(struct model *, struct model_vif *); /* it is live: finds its ports */
void model_vif_leave(struct model *, struct model_vif *);
void model_host_enter(struct model *); /* one is live, perhaps renamed */
void model_host_leave(struct model *, struct model_host *);

#endif
