/* plan: what a document changes in what is there.
 *
 * A plan is a list of objects to create, change and delete, with references
 * resolved to uuids.  It can be tried on the model, which is then as before; or
 * be written to the database (pool_db.c); or be the model (model_load_doc()).
 *
 * Threads: one.  A plan owns its records. */
#ifndef PLAN_H
#define PLAN_H

#include "doc.h"
#include "model.h"

enum plan_what { PLAN_CREATE, PLAN_CHANGE, PLAN_DELETE };
struct plan_op {
    enum plan_what what;
    struct uuid uuid;
    struct rec before, after; /* as 'what' has them; references are uuids */
};
struct plan {
    struct plan_op *ops;
    size_t n, cap;
    uint32_t key_next, zone_next; /* where to look for the next free ones */
};

/* Reads what is stated of an object now (of the pool whatever the uuid is). */
typedef bool plan_read(void *aux, enum rec_kind, const struct uuid *, struct rec *);

/* What becomes of objects of the document's kinds that it does not state. */
enum plan_mode {
    PLAN_MERGE,   /* they stay, and so do fields that it does not state */
    PLAN_REPLACE, /* they go */
    PLAN_RESTORE, /* they go, but for VMs and vifs that weft-xapid has made (restore.h); its vifs
                   * go if they need what goes */
};

/* Compares.  NULL: see errors. */
struct plan *plan_create(struct model *m, const struct doc *doc, enum plan_mode mode,
                         plan_read *read, void *aux, struct doc_errors *errors);
void plan_free(struct plan *);
/* Gives keys and zones to what is created.  False: see errors. */
bool plan_give_keys(struct model *, struct plan *, struct doc_errors *);
/* Whether the pool would be in order.  The change set may afterwards show
 * objects that did not change.  'warnings' (or NULL) are of rules and trunks: for them all
 * rules are compared with each other at once. */
bool plan_try(struct model *, const struct plan *, struct doc_errors *,
              struct doc_errors *warnings);
/* A model of its own of what the pool would be, ports and all: what stands is read
 * with 'read'.  The caller's; its objects have the same keys and uuids. */
struct model *plan_model(struct model *, const struct plan *, plan_read *read, void *aux);
/* A free key or zone at or after '*next', which moves past it; 0: there is none. */
uint32_t model_free_key(const struct model *, uint32_t *next);
uint32_t model_free_zone(const struct model *, uint32_t *next);

/* Makes an empty model that of the document, without a database: keys are given
 * in order of kind, then of the document.  False: see errors. */
bool model_load_doc(struct model *, const struct doc *, struct doc_errors *);
/* The same from a file.  0 or errno; says what is wrong on stderr. */
int model_load_file(struct model *, const char *file);

#endif
