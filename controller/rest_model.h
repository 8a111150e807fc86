/* rest_model: what the REST server asks of the model and of the daemon's event
 * loop; here because one file cannot include both jansson's and Open vSwitch's
 * headers.  Threads: rest_model_log() any, the rest the main loop. */
#ifndef REST_MODEL_H
#define REST_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "record.h"
#include "rest.h"

struct model;

int64_t rest_model_generation(const struct model *);

struct rest_model_hosts {
    size_t n, connected, applied; /* enabled ones */
    size_t awaited;               /* not connected, but soon, or known not to be */
};
/* Calls 'late' (if not NULL) with the name of each connected or awaited,
 * enabled host that has not applied the generation. */
struct rest_model_hosts rest_model_hosts(const struct model *, int64_t generation,
                                         void (*late)(void *aux, const char *name), void *aux);
/* Names of enabled hosts that are not connected. */
void rest_model_absent(const struct model *, void (*absent)(void *, const char *), void *aux);
/* Each object that has an error or a warning; 'name' as in paths. */
void rest_model_faults(const struct model *,
                       void (*)(void *aux, enum rec_kind, const char *name, const char *error,
                                const char *warning),
                       void *aux);

void rest_model_log(enum rest_log, const char *line);
/* Wakes the main loop when 'fd' is readable, or after 'timeout_ms'. */
void rest_model_wait(int fd, int timeout_ms);
int64_t rest_model_wall_ms(void);
/* Goes when a signal ends the daemon. */
void rest_model_remove_at_exit(const char *path);

#endif
