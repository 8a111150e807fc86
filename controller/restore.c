#include <config.h>

#include "restore.h"

#include <stdlib.h>
#include <string.h>

#include "doc.h"
#include "model_impl.h"
#include "smap.h"
#include "sset.h"
#include "util.h"

struct restoring {
    const struct model *m;
    plan_read *read;
    void *aux;
    struct doc *doc;
    bool *left_out;      /* by item */
    struct sset uuids;   /* of its items */
    struct sset gone;    /* what is left out, by kind and name, and by kind and uuid */
    struct sset renamed; /* what has another name now, by kind and that */
    struct smap keeps;   /* uuids of what keeps that, by kind and what the document calls it */
    struct sset kept;    /* by kind and the name that it keeps */
};

static char *
called(enum rec_kind kind, const char *name)
{
    return xasprintf("%d %s", (int)kind, name);
}

static bool
has(const struct sset *set, enum rec_kind kind, const char *name)
{
    char *text = called(kind, name);
    bool has = sset_contains(set, text);

    free(text);
    return has;
}

static void
leave_out(struct restoring *r, size_t at)
{
    const struct rec *rec = &r->doc->items[at].rec;

    r->left_out[at] = true;
    if (rec->kind != REC_RULE) { /* nothing names a rule */
        sset_add_and_free(&r->gone, called(rec->kind, rec->name));
    }
    if (r->doc->items[at].uuid) {
        sset_add_and_free(&r->gone, called(rec->kind, r->doc->items[at].uuid));
    }
}

/* Now; NULL: it has gone, or the commit deleted it. */
static const struct model_obj *
object_of(const struct restoring *r, const struct doc_item *item)
{
    struct uuid uuid;

    return item->uuid && uuid_from_string(&uuid, item->uuid)
               ? model_find(r->m, item->rec.kind, &uuid)
               : NULL;
}

/* Whether what weft-xapid has made since, which stays, has the name. */
static bool
is_newcomers(const struct restoring *r, enum rec_kind kind, const char *name)
{
    const struct model_obj *obj =
        kind == REC_VM || kind == REC_VIF ? model_any_by_name(r->m, kind, name, NULL) : NULL;
    char uuid[UUID_LEN + 1];
    struct rec rec;
    bool made;

    if (!obj || !obj->present || sset_is_empty(&r->uuids)) {
        return false;
    }
    snprintf(uuid, sizeof uuid, UUID_FMT, UUID_ARGS(&obj->uuid));
    if (sset_contains(&r->uuids, uuid) || !r->read(r->aux, kind, &obj->uuid, &rec)) {
        return false;
    }
    made = rec.of_toolstack;
    rec_destroy(&rec);
    return made;
}

/* What the commit left there and is there no more, or by another name. */
static void
look_up(struct restoring *r)
{
    for (size_t i = 0; i < r->doc->n; i++) {
        struct doc_item *item = &r->doc->items[i];
        const struct model_obj *obj = object_of(r, item);
        enum rec_kind kind = item->rec.kind;

        if (!item->uuid) {
            continue;
        }
        sset_add(&r->uuids, item->uuid);
        if (obj && strcmp(obj->name, item->rec.name)) {
            free(item->rename);
            item->rename = xstrdup(item->uuid);
            sset_add_and_free(&r->renamed, called(kind, obj->name));
        } else if (!obj && (kind == REC_VM || kind == REC_VIF)) {
            leave_out(r, i);
        }
    }
}

/* Its old name is that of a newcomer, or of one that itself keeps its new name. */
static bool
keeps_name(struct restoring *r, const struct doc_item *item)
{
    const struct model_obj *obj = object_of(r, item);
    enum rec_kind kind = item->rec.kind;
    char *was = called(kind, item->rec.name);
    bool keeps = obj && strcmp(obj->name, item->rec.name) && !smap_get(&r->keeps, was) &&
                 (sset_contains(&r->kept, was) || is_newcomers(r, kind, item->rec.name));

    if (keeps) {
        smap_add(&r->keeps, was, item->uuid);
        sset_add_and_free(&r->kept, called(kind, obj->name));
    }
    free(was);
    return keeps;
}

static void
keep_names(struct restoring *r)
{
    bool more;

    do {
        more = false;
        for (size_t i = 0; i < r->doc->n; i++) {
            more = keeps_name(r, &r->doc->items[i]) || more;
        }
    } while (more);
}

/* What the commit deleted is not what took its name, and stays away if that keeps it. */
static void
mark_fresh(struct restoring *r)
{
    for (size_t i = 0; i < r->doc->n; i++) {
        struct doc_item *item = &r->doc->items[i];
        enum rec_kind kind = item->rec.kind;

        if (!item->uuid && !r->left_out[i]) {
            item->fresh = has(&r->renamed, kind, item->rec.name);
            if (has(&r->kept, kind, item->rec.name) || is_newcomers(r, kind, item->rec.name)) {
                leave_out(r, i);
            }
        }
    }
}

/* True: it names what is gone, but for members of lists, which are taken out, or is about
 * nothing without them. */
static bool
needs_gone(const struct restoring *r, struct rec *rec)
{
    for (unsigned f = 0; f < rec_tables[rec->kind].n_fields; f++) {
        const struct rec_field *field = &rec_tables[rec->kind].fields[f];
        struct rec_value *v = &rec->v[f];
        size_t n = 0;

        if (field->type == REC_REF && has(&r->gone, field->ref, v->s)) {
            return true;
        }
        for (size_t i = 0; field->type == REC_REFS && i < v->n; i++) {
            if (has(&r->gone, field->ref, v->list[i])) {
                free(v->list[i]);
            } else {
                v->list[n++] = v->list[i];
            }
        }
        v->n = field->type == REC_REFS ? n : v->n;
    }
    return rec->kind == REC_MIRROR && !rec->v[REC_MIRROR_VIFS].n && !rec->v[REC_MIRROR_NETWORKS].n;
}

/* By uuid what keeps another name than the document has for it. */
static void
name_kept(const struct restoring *r, struct rec *rec)
{
    for (unsigned f = 0; f < rec_tables[rec->kind].n_fields; f++) {
        const struct rec_field *field = &rec_tables[rec->kind].fields[f];
        const struct rec_value *v = &rec->v[f];
        bool one = field->type == REC_REF;

        for (size_t i = 0; i < (one ? 1 : field->type == REC_REFS ? v->n : 0); i++) {
            char *was = called(field->ref, one ? v->s : v->list[i]);
            const char *uuid = smap_get(&r->keeps, was);

            free(was);
            if (uuid && one) {
                rec_set_string(rec, f, uuid);
            } else if (uuid) {
                free(v->list[i]);
                v->list[i] = xstrdup(uuid);
            }
        }
    }
}

static void
write_kept(const struct restoring *r)
{
    for (size_t i = 0; !smap_is_empty(&r->keeps) && i < r->doc->n; i++) {
        struct doc_item *item = &r->doc->items[i];
        char *was = called(item->rec.kind, item->rec.name);

        name_kept(r, &item->rec);
        if (item->uuid && smap_get(&r->keeps, was)) {
            free(item->rec.name);
            item->rec.name = xstrdup(object_of(r, item)->name);
        }
        free(was);
    }
}

static void
take_out(struct restoring *r)
{
    struct doc *doc = r->doc;
    size_t n = 0;

    for (size_t i = 0; i < doc->n; i++) {
        if (r->left_out[i]) {
            rec_destroy(&doc->items[i].rec);
            free(doc->items[i].rename);
            free(doc->items[i].uuid);
        } else {
            doc->items[n++] = doc->items[i];
        }
    }
    doc->n = n;
}

void
restore_prepare(const struct model *m, struct doc *doc, plan_read *read, void *aux)
{
    struct restoring r = {
        .m = m,
        .read = read,
        .aux = aux,
        .doc = doc,
        .left_out = xcalloc(doc->n + 1, sizeof *r.left_out),
    };
    size_t before;

    sset_init(&r.uuids);
    sset_init(&r.gone);
    sset_init(&r.renamed);
    smap_init(&r.keeps);
    sset_init(&r.kept);
    look_up(&r);
    keep_names(&r);
    mark_fresh(&r);
    do {
        before = sset_count(&r.gone);
        for (size_t i = 0; before && i < doc->n; i++) {
            if (!r.left_out[i] && needs_gone(&r, &doc->items[i].rec)) {
                leave_out(&r, i);
            }
        }
    } while (sset_count(&r.gone) != before);
    write_kept(&r);
    take_out(&r);
    sset_destroy(&r.uuids);
    sset_destroy(&r.gone);
    sset_destroy(&r.renamed);
    smap_destroy(&r.keeps);
    sset_destroy(&r.kept);
    free(r.left_out);
}

bool
restore_has_uuids(const struct doc *doc)
{
    for (size_t i = 0; i < doc->n; i++) {
        if (doc->items[i].uuid) {
            return true;
        }
    }
    return false;
}
