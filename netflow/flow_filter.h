/* flow_filter: which flows, as an expression.
 *
 *     src 10.1.0.0/16 and dst port 443 and (proto tcp or proto udp) and vif web1
 *
 * Parsed into a tree of tests, each of one column of flow_row.h; what looks at
 * either end is two tests.  The tree is evaluated on rows in memory, and stores
 * make their own language of it.  The expression may come from anyone: its
 * length, tests and depth are bounded.
 *
 * One thread at a time; constant after flow_filter_resolve(). */
#ifndef FLOW_FILTER_H
#define FLOW_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flow_row.h"

enum {
    FLOW_FILTER_LENGTH = 2000, /* bytes */
    FLOW_FILTER_NODES = 200,
    FLOW_FILTER_DEPTH = 24,
    FLOW_FILTER_NAME = 128,
    FLOW_FILTER_IDS = 1000, /* of one name */
};

enum flow_op {
    FLOW_OP_AND,
    FLOW_OP_OR,
    FLOW_OP_NOT,   /* of 'left' */
    FLOW_OP_RANGE, /* low <= column <= high: a number or an address */
    FLOW_OP_BITS,  /* (column & low) == low */
    FLOW_OP_NAME,  /* column is one of 'ids' */
};

struct flow_node {
    enum flow_op op;
    uint16_t column;
    uint16_t left, right;        /* AND, OR, NOT: indices of nodes */
    struct flow_value low, high; /* RANGE, BITS */
    char text[FLOW_FILTER_NAME]; /* NAME */
    uint16_t at;                 /* NAME: where it stands, in bytes from the beginning */
    int64_t *ids;                /* NAME: after flow_filter_resolve() */
    size_t n_ids;
};

struct flow_filter {
    unsigned n, root;
    struct flow_node nodes[FLOW_FILTER_NODES];
};

struct flow_filter_error {
    size_t column; /* bytes from the beginning, at which the message is about something */
    char message[200];
};

/* NULL: why.  Of "" a filter that all flows pass. */
struct flow_filter *flow_filter_parse(const char *text, struct flow_filter_error *);
void flow_filter_free(struct flow_filter *);

/* Looks its names up.  Again when there are more names (flow_names_count()). */
int flow_filter_resolve(struct flow_filter *, const struct flow_names *);
/* After flow_filter_resolve(). */
bool flow_filter_match(const struct flow_filter *, const struct flow_row *);
/* Whether rollups have all its columns. */
bool flow_filter_in_rollup(const struct flow_filter *);
/* Adds "and COLUMN is NUMBER"; false: no room. */
bool flow_filter_require(struct flow_filter *, const char *column, int64_t number);

#endif
