/* enrich: what a record's numbers were called when it was made.
 *
 * A binding says: from 'since' until 'until', this (a vif's key; a port of a
 * host's switch; an address or a MAC in a network; a VLAN; an exporter's address)
 * was that.  A state of the pool is a set of bindings; what the next one no
 * longer says is ended, never changed, so that a late record gets the names of
 * its own time.  An address counts only within a network that the record shows
 * (by key, port, VLAN or VNI): tenants may use the same ones.
 *
 * Any thread. */
#ifndef ENRICH_H
#define ENRICH_H

#include <jansson.h>

#include "flow_row.h"
#include "store.h"

struct enrich;

struct enrich *enrich_create(struct flow_names *);
void enrich_destroy(struct enrich *);

/* The pool's objects as the controller's REST interface gives them
 * (docs/rest.md): {"hosts": [...], "networks": [...], "vms": [...], "vifs":
 * [...], "groups": [...], "policies": [...], "rules": [...]}.  What differs from
 * the state before is so since 'now_ms'; the first state ever, since
 * ENRICH_FIRST_MS before. */
enum { ENRICH_FIRST_MS = 600000 };
int enrich_update(struct enrich *, const json_t *pool, int64_t now_ms);

/* Fills in the rows' names from their records and exporters. */
void enrich_rows(struct enrich *, struct flow_row *, size_t n, int64_t now_ms);

/* To and from the store.  enrich_changed() copies at most 'max' bindings that
 * have changed since they were last taken; enrich_changed_again() takes that
 * back when they could not be stored. */
void enrich_restore(struct enrich *, const struct store_binding *);
size_t enrich_changed(struct enrich *, struct store_binding *, size_t max);
void enrich_changed_again(struct enrich *);
/* Forgets what ended before. */
void enrich_forget(struct enrich *, int64_t before_ms);
size_t enrich_count(struct enrich *);

/* --- enrich_poll.c --------------------------------------------------------------- */

/* Asks a controller for its state, in a thread of its own: once a second whether
 * its generation is another, and then for all. */
struct enrich_poll;
struct enrich_poll_config {
    const char *controller; /* "unix:PATH" or "https://HOST:PORT" */
    const char *private_key, *certificate, *ca_cert;
};
int enrich_poll_start(const struct enrich_poll_config *, struct enrich *, struct enrich_poll **,
                      char *why, size_t why_size);
void enrich_poll_stop(struct enrich_poll *);
/* {"controller": ..., "connected": ..., "generation": ..., "error": ...} */
json_t *enrich_poll_status(struct enrich_poll *);

#endif
