#include "record.h"

#include <stdlib.h>
#include <string.h>

static void *
need(void *p)
{
    if (!p) {
        abort();
    }
    return p;
}

/* --- life ----------------------------------------------------------------------- */

/* A string that nobody stated is the table's own, in no memory of the record's: of a record's
 * fields most are such, and of large pools many records are made and dropped. */
static char *
default_string(enum rec_kind kind, unsigned f)
{
    const char *def = rec_tables[kind].fields[f].def;

    return (char *)(def ? def : "");
}

static void
drop_string(const struct rec *r, unsigned f)
{
    char *s = r->v[f].s;

    if (s && s != default_string(r->kind, f)) {
        free(s);
    }
}

static int64_t
default_number(const char *digits)
{
    int64_t n = 0;

    while (*digits) {
        n = n * 10 + (*digits++ - '0');
    }
    return n;
}

void
rec_init(struct rec *r, enum rec_kind kind)
{
    const struct rec_table *t = &rec_tables[kind];

    memset(r, 0, sizeof *r);
    r->kind = kind;
    r->name = need(strdup(""));
    for (unsigned f = 0; f < t->n_fields; f++) {
        const struct rec_field *field = &t->fields[f];

        switch (field->type) {
        case REC_STRING:
        case REC_ENUM:
        case REC_REF:
            r->v[f].s = default_string(kind, f);
            break;
        case REC_INT:
        case REC_BOOL:
            r->v[f].i = field->def ? default_number(field->def) : 0;
            break;
        case REC_OPT_INT:
            r->v[f].i = -1;
            break;
        case REC_STRINGS:
        case REC_REFS:
            break;
        }
    }
}

static void
value_destroy(struct rec *r, unsigned f)
{
    struct rec_value *v = &r->v[f];

    drop_string(r, f);
    for (size_t i = 0; i < v->n; i++) {
        free(v->list[i]);
    }
    if (v->list) { /* mostly not: of 16 fields each a call adds up */
        free(v->list);
    }
}

void
rec_destroy(struct rec *r)
{
    if (!r) {
        return;
    }
    free(r->name);
    free(r->seen_host);
    free(r->resident_on);
    free(r->destination);
    for (unsigned f = 0; f < rec_tables[r->kind].n_fields; f++) {
        value_destroy(r, f);
    }
    memset(r, 0, sizeof *r);
}

static void
value_copy(struct rec *r, const struct rec *other, unsigned f)
{
    struct rec_value *to = &r->v[f];
    const struct rec_value *from = &other->v[f];

    to->s = from->s && from->s != default_string(r->kind, f) ? need(strdup(from->s)) : from->s;
    to->i = from->i;
    to->n = from->n;
    to->list = from->n ? need(calloc(from->n, sizeof *to->list)) : NULL;
    for (size_t i = 0; i < from->n; i++) {
        to->list[i] = need(strdup(from->list[i]));
    }
}

static char *
copy_or_null(const char *s)
{
    return s ? need(strdup(s)) : NULL;
}

void
rec_copy(struct rec *r, const struct rec *from)
{
    *r = *from;
    r->name = need(strdup(from->name));
    r->seen_host = copy_or_null(from->seen_host);
    r->resident_on = copy_or_null(from->resident_on);
    r->destination = copy_or_null(from->destination);
    for (unsigned f = 0; f < rec_tables[r->kind].n_fields; f++) {
        value_copy(r, from, f);
    }
}

void
rec_keep(struct rec *r, const struct rec *before)
{
    free(r->seen_host);
    free(r->resident_on);
    free(r->destination);
    r->key = before->key;
    r->zone = before->zone;
    r->seen_host = copy_or_null(before->seen_host);
    r->resident_on = copy_or_null(before->resident_on);
    r->destination = copy_or_null(before->destination);
}

void
rec_overlay(struct rec *r, const struct rec *over)
{
    for (unsigned f = 0; f < rec_tables[r->kind].n_fields; f++) {
        if (over->given & 1u << f) {
            value_destroy(r, f);
            value_copy(r, over, f);
            r->given |= 1u << f;
        }
    }
}

int
rec_field_index(enum rec_kind kind, const char *name)
{
    for (size_t f = 0; f < rec_tables[kind].n_fields; f++) {
        if (!strcmp(rec_tables[kind].fields[f].name, name)) {
            return f;
        }
    }
    return -1;
}

enum rec_kind
rec_kind_by_name(const char *name)
{
    enum rec_kind k;

    for (k = 0; k < REC_N_KINDS; k++) {
        const struct rec_table *t = &rec_tables[k];

        if (!strcmp(name, t->table) || !strcmp(name, t->member) || !strcmp(name, t->noun)) {
            break;
        }
    }
    return k;
}

/* --- values ------------------------------------------------------------------------ */

void
rec_set_string(struct rec *r, unsigned field, const char *s)
{
    char *copy = need(strdup(s));

    drop_string(r, field);
    r->v[field].s = copy;
    r->given |= 1u << field;
}

void
rec_set_int(struct rec *r, unsigned field, int64_t i)
{
    r->v[field].i = i;
    r->given |= 1u << field;
}

void
rec_add(struct rec *r, unsigned field, const char *s)
{
    struct rec_value *v = &r->v[field];

    /* Room doubles: it is full at each power of two. */
    if (!(v->n & (v->n - 1))) {
        v->list = need(realloc(v->list, (v->n ? 2 * v->n : 1) * sizeof *v->list));
    }
    v->list[v->n++] = need(strdup(s));
    r->given |= 1u << field;
}

static int
compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void
rec_normalize(struct rec *r)
{
    for (unsigned f = 0; f < rec_tables[r->kind].n_fields; f++) {
        struct rec_value *v = &r->v[f];
        size_t n = 0;

        if (v->n < 2) {
            continue;
        }
        qsort(v->list, v->n, sizeof *v->list, compare_strings);
        for (size_t i = 0; i < v->n; i++) {
            if (n && !strcmp(v->list[n - 1], v->list[i])) {
                free(v->list[i]);
            } else {
                v->list[n++] = v->list[i];
            }
        }
        /* Later additions count on the room that n members have. */
        v->list = need(realloc(v->list, 2 * v->n * sizeof *v->list));
        v->n = n;
    }
}

bool
rec_value_equal(enum rec_type type, const struct rec_value *a, const struct rec_value *b)
{
    switch (type) {
    case REC_STRING:
    case REC_ENUM:
    case REC_REF:
        return !strcmp(a->s, b->s);
    case REC_INT:
    case REC_OPT_INT:
    case REC_BOOL:
        return a->i == b->i;
    case REC_STRINGS:
    case REC_REFS:
        break;
    }
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (strcmp(a->list[i], b->list[i])) {
            return false;
        }
    }
    return true;
}
