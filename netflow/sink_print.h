/* sink_print: flow records as lines of JSON.
 *
 * What an exporter did not say, and what is 0, is left out.  Threads: one at a
 * time. */
#ifndef SINK_PRINT_H
#define SINK_PRINT_H

#include <stdio.h>

#include "sink.h"

/* A sink that writes to 'out', which stays the caller's. */
struct flow_sink sink_print(FILE *out);

/* One that takes records and forgets them. */
struct flow_sink sink_discard(void);

#endif
