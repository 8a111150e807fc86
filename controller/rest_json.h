/* rest_json: JSON from strangers.
 *
 * Looks over the text before anything is built from it: well-formed UTF-8,
 * bounded depth, bounded number of values; so a text that is refused costs no
 * memory.  No state; any thread. */
#ifndef REST_JSON_H
#define REST_JSON_H

#include "ovs/jansson_ns.h"
#include <stddef.h>

/* At most so many values, or as many as there are times ten bytes. */
enum { REST_JSON_DEPTH = 32, REST_JSON_VALUES = 1000000 };

/* A new reference to the object in the n bytes at 'text', or NULL with a
 * sentence in 'why'.  Duplicate keys and anything but an object are refused. */
json_t *rest_json_parse(const char *text, size_t n, char *why, size_t why_size);

#endif
