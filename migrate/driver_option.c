#include <string.h>

#include "driver.h"

const char *
mig_option(const struct mig_guest_config *c, const char *key)
{
    for (size_t i = 0; i < c->n_options; i++) {
        if (!strcmp(c->options[i].key, key)) {
            return c->options[i].value;
        }
    }
    return NULL;
}
