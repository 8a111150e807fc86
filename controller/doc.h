/* doc: the stated configuration of a pool, or part of it, as a JSON document,
 * version 1.  The form is described in docs/policy.md.
 *
 *     { "version": 1, "pool": {...}, "hosts": [ {...}, ... ], ...,
 *       "policies": [ { "name": ..., "rules": [ {...}, ... ] } ] }
 *
 * Hostile by default: nesting, sizes and numbers are bounded, members nobody
 * knows are errors.  References are names or uuids and are not followed here.
 *
 * Pure functions over jansson, without Open vSwitch's headers.  A document owns
 * its records. */
#ifndef DOC_H
#define DOC_H

#include <stdbool.h>
#include <stddef.h>

#include "record.h"

#define DOC_VERSION 1
#define DOC_MAX_BYTES (64u << 20)
#define DOC_MAX_DEPTH 16u
#define DOC_MAX_ERRORS 100u

struct json_t;

struct doc_error {
    char *object;  /* "network web", "rule base/ssh", or "" for the document */
    char *field;   /* or "" */
    char *message; /* a sentence without the two above */
};
struct doc_errors {
    struct doc_error *e;
    size_t n;  /* at most DOC_MAX_ERRORS */
    bool more; /* there were more */
};
void doc_errors_add(struct doc_errors *, const char *object, const char *field, const char *format,
                    ...) __attribute__((format(printf, 4, 5)));
void doc_errors_clear(struct doc_errors *);
/* What an error calls the record. */
void doc_label(const struct rec *, char *label, size_t size);

/* A record of the document.  A rule's REC_RULE_POLICY names its policy. */
struct doc_item {
    struct rec rec;
    bool remove;    /* the object is to go; fields but the name do not count */
    bool all_rules; /* a policy: the document states all its rules */
    char *rename;   /* or NULL: the object of this name gets rec.name */
    bool fresh;     /* it is a new one, though another has its name */
    char *uuid;     /* or NULL: of the object as it was written; restore.h has a use for it */
};
struct doc {
    struct doc_item *items;
    size_t n, cap;
    /* bit kind: the document states all objects of the kind; what it leaves out
     * goes when it replaces. */
    uint32_t kinds;
};

/* NULL when there are errors: each one that was found is in 'errors'. */
struct doc *doc_parse(const char *text, size_t len, struct doc_errors *);
/* From JSON that is already parsed (depth is checked). */
struct doc *doc_from_json(const struct json_t *, struct doc_errors *);
void doc_free(struct doc *);

/* --- one object at a time, for REST -------------------------------------------------- */

struct doc *doc_create(void);
/* Adds the object in 'body' (its fields as in the document; "name" may be left
 * out if 'name' is given and differs if it renames).  For a rule 'name' is
 * "POLICY/RULE".  False: see errors. */
bool doc_add(struct doc *, enum rec_kind, const char *name, const struct json_t *body,
             struct doc_errors *);
/* Adds the removal of an object (and, of a policy, of its rules; of a VM, of its vifs). */
bool doc_add_removal(struct doc *, enum rec_kind, const char *name, struct doc_errors *);

/* --- writing -------------------------------------------------------------------------- */

/* The whole; a rule's policy comes before it.  The caller's reference. */
struct json_t *doc_to_json(const struct doc *);
/* Appends an item of the kind with its defaults. */
struct doc_item *doc_append(struct doc *, enum rec_kind);
/* Stated fields of a record; those at their default too if 'all'. */
struct json_t *doc_record_json(const struct rec *, bool all);

#endif
