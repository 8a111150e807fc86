/* flow_answer: answers to questions about stored flows, as JSON.
 *
 * A question is a path and arguments, all from outside; see docs/flows.md.  Any
 * thread. */
#ifndef FLOW_ANSWER_H
#define FLOW_ANSWER_H

#include <jansson.h>

#include "flow_service_priv.h"

struct flow_args {
    /* NULL: not given. */
    const char *(*get)(void *aux, const char *name);
    void *aux;
};

/* The status of HTTP (200, 400, 404, 503), and the answer or what is wrong
 * ({"error", "field", "column", "message"}), malloc'ed. */
int flow_answer(struct flow_service *, const char *path, const struct flow_args *, char **text);
/* The filter of a question; NULL: '*status' and '*text' say why. */
struct flow_filter *flow_answer_filter(struct flow_service *, const struct flow_args *, int *status,
                                       char **text);
json_t *flow_answer_row(const struct flow_row *, const struct flow_names *);
/* {"error": ..., "message": ...}, malloc'ed. */
char *flow_answer_error(const char *error, const char *field, const char *message);

#endif
