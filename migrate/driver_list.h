/* The hypervisors that this build knows (drivers.c looks them up by name). */
#ifndef WEFT_MIGRATE_DRIVER_LIST_H
#define WEFT_MIGRATE_DRIVER_LIST_H

#include "driver.h"

extern const struct mig_driver mig_driver_cell; /* driver_cell.c */
extern const struct mig_driver mig_driver_xen;  /* driver_xen.c */

#endif
