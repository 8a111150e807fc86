/* Filters of flows: any text is refused with a column inside of it, or parsed
 * into a tree that can be evaluated and restricted. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "flow_filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct flow_names *names;
    static int64_t vif;
    struct flow_filter_error error;
    struct flow_filter *f;
    char text[FLOW_FILTER_LENGTH + 50];
    size_t n = size < sizeof text - 1 ? size : sizeof text - 1;

    if (!names) {
        names = flow_names_create();
        vif = flow_names_id(names, NAME_VIF, "web1", "");
    }
    memcpy(text, data, n);
    text[n] = '\0';
    f = flow_filter_parse(text, &error);
    if (!f) {
        if (error.column > strlen(text) || !*error.message) {
            abort();
        }
        return 0;
    }
    for (unsigned i = 0; i < f->n; i++) { /* children come before their parents */
        if ((f->nodes[i].op <= FLOW_OP_NOT && f->nodes[i].left >= i) ||
            (f->nodes[i].op <= FLOW_OP_OR && f->nodes[i].right >= i)) {
            abort();
        }
    }
    struct flow_row row = {.src.vif = vif, .r.proto = 6, .service = 443};
    if (flow_filter_resolve(f, names)) {
        abort();
    }
    bool before = flow_filter_match(f, &row);
    if (flow_filter_require(f, "proto", 6) && flow_filter_match(f, &row) != before) {
        abort();
    }
    flow_filter_free(f);
    return 0;
}
