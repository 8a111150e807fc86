/* samples: new connections that were seen in the pool, as flows that policy_shadow.h
 * scores.
 *
 * Gathered while switches report the first packets of connections (host_tap());
 * equal ones are counted.  Names are those of the moment.
 *
 * Threads: the main loop.  Ownership: borrows the model. */
#ifndef CTL_SAMPLES_H
#define CTL_SAMPLES_H

#define SAMPLES_MAX 10000u

struct host_packet;
struct model;
struct samples;

struct samples *samples_create(const struct model *);
void samples_destroy(struct samples *);
void samples_clear(struct samples *);
/* Nothing, if the packet is not from a tap. */
void samples_packet(struct samples *, const struct host_packet *);
/* A JSON array of flows; malloc'ed. */
char *samples_read(const struct samples *);

#endif
