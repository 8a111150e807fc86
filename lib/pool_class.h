/* pool_class: the pool's classes of objects as the REST interface and the
 * command line see them: names, JSON types, what is status, what is shown in a
 * list, and who may write it.
 *
 * In JSON an object is {"name": ..., FIELD: value, ...}.  References are by
 * name.  A rule's name is unique in its policy; outside of it, it is called
 * POLICY/RULE.  What values are in form is the controller's to say (record.h).
 *
 * Constant data: any thread may read it. */
#ifndef POOL_CLASS_H
#define POOL_CLASS_H

#include <stdbool.h>
#include <stddef.h>

enum pool_type {
    POOL_STRING,
    POOL_INTEGER,
    POOL_BOOLEAN,
    POOL_REF, /* a string: the name of an object of class 'ref' */
};

enum {
    POOL_SET = 1 << 0,      /* a JSON array, without duplicates or order */
    POOL_REQUIRED = 1 << 1, /* must be given when the object is made */
    POOL_STATUS = 1 << 2,   /* the controller writes it, nobody else */
    POOL_OWNER = 1 << 3,    /* POOL_REF: leads to the object's tenant */
    POOL_COLUMN = 1 << 4,   /* shown in the command line's lists */
    POOL_TENANT = 1 << 5,   /* role tenant may write it, too */
};

/* What somebody may do, from least to most.  A tenant sees and changes only
 * what leads to it by POOL_OWNER references. */
enum pool_role {
    POOL_ROLE_NONE,
    POOL_ROLE_VIEWER,
    POOL_ROLE_TENANT,
    POOL_ROLE_OPERATOR,
    POOL_ROLE_ADMIN
};

struct pool_field {
    const char *name;
    enum pool_type type;
    unsigned flags;
    const char *ref; /* POOL_REF: the class's noun */
    const char *help;
};

struct pool_class {
    const char *noun;   /* "network": in the command line and in errors */
    const char *plural; /* "networks": in documents and in REST paths */
    const char *about;
    const char *within;              /* the field that completes its name; NULL: none */
    bool single;                     /* one object without a name: the pool */
    enum pool_role read, write;      /* the least role that may; see POOL_TENANT */
    const struct pool_field *fields; /* besides "name", "uuid" and "key" */
    size_t n_fields;
};

extern const struct pool_class pool_classes[];
extern const size_t n_pool_classes;

/* NULL if there is none.  A "plural" of the pool itself is its noun. */
const struct pool_class *pool_class_by_noun(const char *);
const struct pool_class *pool_class_by_plural(const char *);
const struct pool_field *pool_field_find(const struct pool_class *, const char *name);
const char *pool_role_name(enum pool_role);
/* "admin", "operator", "viewer" or "tenant"; POOL_ROLE_NONE for others. */
enum pool_role pool_role_from_name(const char *);
bool pool_may_read(const struct pool_class *, enum pool_role);
/* 'field' NULL: some of the class, or making and removing objects of it. */
bool pool_may_write(const struct pool_class *, const struct pool_field *field, enum pool_role);

#endif
