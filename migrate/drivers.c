#include <string.h>

#include "driver_list.h"

static const struct mig_driver *const drivers[] = {&mig_driver_cell, &mig_driver_xen};

const struct mig_driver *
mig_driver_find(const char *name)
{
    for (size_t i = 0; i < sizeof drivers / sizeof drivers[0]; i++) {
        if (!strcmp(drivers[i]->name, name)) {
            return drivers[i];
        }
    }
    return NULL;
}
