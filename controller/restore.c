#include <config.h>

#include "restore.h"

#include <stdlib.h>
#include <string.h>

#include "doc.h"
#include "model_impl.h"
#include "sset.h"
#include "util.h"

struct restoring {
    struct doc *doc;
    bool *left_out;      /* by item */
    struct sset gone;    /* what is left out, by kind and name */
    struct sset renamed; /* what has another name now, by kind and that */
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
}

/* What the commit left there and is there no more, or by another name. */
static void
look_up(struct restoring *r, const struct model *m)
{
    for (size_t i = 0; i < r->doc->n; i++) {
        struct doc_item *item = &r->doc->items[i];
        enum rec_kind kind = item->rec.kind;
        const struct model_obj *obj;
        struct uuid uuid;

        if (!item->uuid || !uuid_from_string(&uuid, item->uuid)) {
            continue;
        }
        obj = model_find(m, kind, &uuid);
        if (obj && strcmp(obj->name, item->rec.name)) {
            free(item->rename);
            item->rename = xstrdup(item->uuid);
            sset_add_and_free(&r->renamed, called(kind, obj->name));
        } else if (!obj && (kind == REC_VM || kind == REC_VIF)) {
            leave_out(r, i);
        }
    }
}

/* What the commit deleted is not what took its name. */
static void
mark_fresh(struct restoring *r)
{
    for (size_t i = 0; i < r->doc->n; i++) {
        struct doc_item *item = &r->doc->items[i];

        item->fresh = !item->uuid && has(&r->renamed, item->rec.kind, item->rec.name);
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
restore_prepare(const struct model *m, struct doc *doc)
{
    struct restoring r = {.doc = doc, .left_out = xcalloc(doc->n + 1, sizeof *r.left_out)};
    size_t before;

    sset_init(&r.gone);
    sset_init(&r.renamed);
    look_up(&r, m);
    mark_fresh(&r);
    do {
        before = sset_count(&r.gone);
        for (size_t i = 0; before && i < doc->n; i++) {
            if (!r.left_out[i] && needs_gone(&r, &doc->items[i].rec)) {
                leave_out(&r, i);
            }
        }
    } while (sset_count(&r.gone) != before);
    take_out(&r);
    sset_destroy(&r.gone);
    sset_destroy(&r.renamed);
    free(r.left_out);
}
