/* flow_answer_priv: a question while it is being answered.
 *
 * Functions of type bool: false, and what is wrong is the answer. */
#ifndef FLOW_ANSWER_PRIV_H
#define FLOW_ANSWER_PRIV_H

#include "flow_answer.h"

enum {
    ROWS_MAX = 10000,
    TOP_MAX = 10000,
    PAIRS_MAX = 50000, /* that are added up here */
    STEPS_MAX = 1500,
    LINES_MAX = 12,
    QUERY_MS = 20000,
    QUERIES_MAX = 4,
};

struct asking {
    struct flow_service *s;
    const struct flow_args *args;
    struct store_query q;
    struct flow_filter *filter;
    json_t *out; /* what is being made */
    size_t n;
    int64_t cursor_time, cursor_row;
    int status;
    char **text;
};

/* The argument, or NULL. */
const char *flow_arg(const struct asking *, const char *name);
bool flow_number_arg(struct asking *, const char *name, int64_t low, int64_t high, int64_t *);
/* Columns, with commas between; adds them to the query's. */
bool flow_group_arg(struct asking *, const char *by);
bool flow_refuse(struct asking *, int status, const char *field, const char *message);
/* After an error of the store's. */
bool flow_store_failed(struct asking *, int error, const char *why);
/* The answer.  Takes 'o'. */
bool flow_put_answer(struct asking *, json_t *o);
/* Adds the column's value, and a rule's author. */
void flow_put_value(json_t *o, unsigned column, const struct flow_value *,
                    const struct flow_names *);

/* flow_answer_sum.c: after the common arguments. */
bool flow_answer_top(struct asking *);
bool flow_answer_drops(struct asking *);
bool flow_answer_matrix(struct asking *);
bool flow_answer_series(struct asking *);

#endif
