/* pflow_bytes: matches and actions to their canonical bytes, quickly.
 *
 * libopenvswitch's encoders ask of each field that there is whether it is in a
 * match.  These know the fields that nearly all of our flows have, and the
 * actions they have seen before; everything else goes to libopenvswitch, with
 * the same bytes as result.
 *
 * Threads: one. */
#ifndef PFLOW_BYTES_H
#define PFLOW_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* More than all the fields take with their masks. */
#define PFLOW_MATCH_BYTES 512

struct fmatch;
struct match;
struct ofpact;
struct ofpbuf;

/* Appends the OXM fields, without padding. */
void pflow_put_match(struct ofpbuf *, const struct match *);
/* The same from the compiler's form; how many bytes. */
size_t pflow_encode_fmatch(uint8_t[PFLOW_MATCH_BYTES], const struct fmatch *);
/* Appends the instructions to a buffer whose size is a multiple of 8. */
void pflow_put_instructions(struct ofpbuf *, const struct ofpact *, size_t len);

#endif
