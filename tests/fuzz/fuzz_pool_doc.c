/* Reads a pool's document from hostile text.
 *
 * Beyond the sanitizers' own checks: a text is either accepted without an error
 * or refused with one; what is accepted and in form comes out as a document that
 * is accepted again and says the same. */
#include <stdlib.h>
#include <string.h>

#include "doc.h"
#include "ovs/jansson_ns.h"

static void
require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static bool
in_form(const struct doc *doc)
{
    bool all = true;

    for (size_t i = 0; i < doc->n; i++) {
        const char *field = NULL;
        char why[512] = "", label[300];

        if (!rec_check(&doc->items[i].rec, &field, why, sizeof why)) {
            require(field && *why);
            all = false;
        }
        doc_label(&doc->items[i].rec, label, sizeof label);
        require(strlen(label) < sizeof label);
    }
    return all;
}

static void
same(const struct doc *a, const struct doc *b)
{
    require(a->n == b->n && a->kinds == b->kinds);
    for (size_t i = 0; i < a->n; i++) {
        const struct rec *x = &a->items[i].rec, *y = NULL;

        for (size_t j = 0; j < b->n && !y; j++) {
            y = b->items[j].rec.kind == x->kind && !strcmp(b->items[j].rec.name, x->name) &&
                        (x->kind != REC_RULE ||
                         !strcmp(x->v[REC_RULE_POLICY].s, b->items[j].rec.v[REC_RULE_POLICY].s))
                    ? &b->items[j].rec
                    : NULL;
        }
        require(y);
        for (unsigned f = 0; f < rec_tables[x->kind].n_fields; f++) {
            require(rec_value_equal(rec_tables[x->kind].fields[f].type, &x->v[f], &y->v[f]));
        }
    }
}

/* Two of one name make no document that says the same. */
static bool
names_differ(const struct doc *doc)
{
    for (size_t i = 0; i < doc->n; i++) {
        for (size_t j = 0; j < i; j++) {
            const struct rec *a = &doc->items[i].rec, *b = &doc->items[j].rec;

            if (a->kind == b->kind && !strcmp(a->name, b->name) &&
                (a->kind != REC_RULE ||
                 !strcmp(a->v[REC_RULE_POLICY].s, b->v[REC_RULE_POLICY].s))) {
                return false;
            }
        }
    }
    return true;
}

static void
round_trip(const struct doc *doc)
{
    struct doc_errors errors = {NULL, 0, false};
    json_t *json = doc_to_json(doc);
    char *text = json_dumps(json, 0);
    struct doc *again = doc_parse(text, strlen(text), &errors);

    require(again && !errors.n);
    same(doc, again);
    doc_free(again);
    free(text);
    json_decref(json);
}

/* One object, as REST takes it: the first byte says of what kind. */
static void
fuzz_object(const char *text, size_t len)
{
    enum rec_kind kind = (unsigned char)text[0] % REC_N_KINDS;
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_create();
    json_t *body = json_loadb(text + 1, len - 1, JSON_REJECT_DUPLICATES, NULL);

    if (body) {
        bool ok = doc_add(doc, kind, len % 2 ? "p/r" : NULL, body, &errors);

        require(ok == !errors.n);
        in_form(doc);
        json_decref(body);
    }
    doc_errors_clear(&errors);
    doc_free(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct doc_errors errors = {NULL, 0, false};
    char *text = malloc(size + 1);
    struct doc *doc;

    memcpy(text, data, size);
    text[size] = '\0';
    if (size && data[0] < ' ') {
        fuzz_object(text, size);
        free(text);
        return 0;
    }
    doc = doc_parse(text, size, &errors);
    require(!doc == (errors.n > 0));
    if (doc && in_form(doc) && names_differ(doc)) {
        round_trip(doc);
    }
    doc_errors_clear(&errors);
    doc_free(doc);
    free(text);
    return 0;
}
