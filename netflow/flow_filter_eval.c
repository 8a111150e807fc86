#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "flow_filter.h"

static int
by_id(const void *a_, const void *b_)
{
    const int64_t *a = a_, *b = b_;

    return *a < *b ? -1 : *a > *b;
}

int
flow_filter_resolve(struct flow_filter *f, const struct flow_names *names)
{
    for (unsigned i = 0; i < f->n; i++) {
        struct flow_node *n = &f->nodes[i];
        if (n->op != FLOW_OP_NAME) {
            continue;
        }
        if (!n->ids && !(n->ids = malloc(FLOW_FILTER_IDS * sizeof *n->ids))) {
            return ENOMEM;
        }
        n->n_ids =
            flow_names_find(names, flow_columns[n->column].class, n->text, n->ids, FLOW_FILTER_IDS);
        if (n->n_ids) {
            qsort(n->ids, n->n_ids, sizeof *n->ids, by_id);
        }
    }
    return 0;
}

static bool
test(const struct flow_node *n, const struct flow_row *row)
{
    struct flow_value v;

    flow_row_get(row, n->column, &v);
    switch (n->op) {
    case FLOW_OP_BITS:
        return (v.number & n->low.number) == n->low.number;
    case FLOW_OP_NAME:
        return n->n_ids && bsearch(&v.number, n->ids, n->n_ids, sizeof *n->ids, by_id);
    default:
        if (flow_columns[n->column].kind == FLOW_COL_ADDRESS) {
            return memcmp(&v.address, &n->low.address, sizeof v.address) >= 0 &&
                   memcmp(&v.address, &n->high.address, sizeof v.address) <= 0;
        }
        return v.number >= n->low.number && v.number <= n->high.number;
    }
}

/* The depth of a chain of "and" is that of the tree, at most its nodes. */
static bool
match(const struct flow_filter *f, unsigned i, const struct flow_row *row)
{
    const struct flow_node *n = &f->nodes[i];

    switch (n->op) {
    case FLOW_OP_AND:
        return match(f, n->left, row) && match(f, n->right, row);
    case FLOW_OP_OR:
        return match(f, n->left, row) || match(f, n->right, row);
    case FLOW_OP_NOT:
        return !match(f, n->left, row);
    default:
        return test(n, row);
    }
}

bool
flow_filter_match(const struct flow_filter *f, const struct flow_row *row)
{
    return !f->n || match(f, f->root, row);
}

bool
flow_filter_in_rollup(const struct flow_filter *f)
{
    for (unsigned i = 0; i < f->n; i++) {
        if (f->nodes[i].op >= FLOW_OP_RANGE && !flow_columns[f->nodes[i].column].rollup) {
            return false;
        }
    }
    return true;
}
