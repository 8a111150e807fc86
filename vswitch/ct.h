/* ct: Open vSwitch's connection tracker, opened up.
 *
 * conntrack.h offers packets in, packets out.  Here are the things a datapath
 * needs beside it: the connection behind a packet, kept across packets and
 * checked by generation (so that established connections cost no lookup), and
 * export and import of connections with their protocol state.  Made by
 * compiling the library's own source as part of ct.c, unpatched, in place of
 * the library's object.
 *
 * Threads: as stated; "RCU" means inside OVS's RCU, not quiescent. */
#ifndef CT_H
#define CT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "openvswitch/types.h"

struct conn;
struct conntrack;
struct ct_entry;
struct dp_packet;

/* A connection found earlier, and what its packets of one direction look
 * like.  May be kept as long as its conntrack lives; the connection may not. */
struct ct_ref {
    struct conn *conn;
    uint32_t slot, seen; /* which generation, and its value when this was taken */
    uint8_t src[16], dst[16];
    ovs_be32 l4; /* the first four bytes of TCP, UDP and ICMP */
    ovs_be16 icmp_id;
    uint8_t proto;
    bool v6, reply;
    uint8_t kind; /* enum ref_kind */
};

/* What tracking says about a packet: the same for every packet that a
 * reference accepts. */
struct ct_verdict {
    uint8_t state; /* CS_* */
    uint32_t mark;
    ovs_u128 label;
};

/* Fills '*ref' and '*v' from the connection of a packet that
 * conntrack_execute() just passed as established.  False if the connection's
 * packets cannot be tracked by ct_ref_track(): NAT, ALG, a fragment, an ICMP
 * error, headers that the fast path's key does not hold, a connection that is
 * gone already.  RCU. */
bool ct_ref_take(struct conntrack *, const struct dp_packet *, uint16_t zone, long long now,
                 struct ct_ref *, struct ct_verdict *);

/* Passes one more packet through the connection, exactly as conntrack_execute()
 * would have (state machine, sequence window, checksums, expiry).  True if it
 * belongs to the reference's direction of the connection and the outcome is
 * the verdict that came with the reference.  False, with nothing changed, for
 * any other: conntrack_execute() shall see to it.
 *
 * Of the packet only the mbuf and the frame are read.  'now' in ms, of
 * time_msec()'s clock.  RCU. */
bool ct_ref_track(struct conntrack *, const struct ct_ref *, const struct dp_packet *,
                  long long now);

/* The low half of the connection's label; false if the connection has changed.
 * RCU. */
bool ct_ref_label(const struct ct_ref *, uint64_t *);

/* Starts fetching what ct_ref_track() will read.  RCU or not. */
void ct_ref_prefetch(const struct ct_ref *);

/* --- records ------------------------------------------------------------- */

/* Connections as they travel to another process or host: see
 * docs/conntrack-records.md.  Little-endian, self-describing, versioned. */

struct ct_filter {
    const uint16_t *zone; /* NULL: all */
    /* NULL: all.  See ct_entry.h. */
    bool (*want)(void *aux, const struct ct_entry *);
    void *aux;
    bool unmark; /* import: marks are not taken over */
};

/* Writes the connections chunk by chunk.  Each chunk is a whole stream that
 * ct_import() takes by itself.  A connection that lives throughout appears in
 * exactly one chunk.  Any thread of OVS's; may quiesce between chunks. */
struct ct_exporter;
struct ct_exporter *ct_exporter_create(struct conntrack *, const struct ct_filter *);
/* The next chunk, of about 'max_bytes', valid until the next call; false, if
 * there are no more.  The first chunk may be without connections. */
bool ct_exporter_next(struct ct_exporter *, size_t max_bytes, const uint8_t **, size_t *len);
size_t ct_exporter_count(const struct ct_exporter *); /* connections so far */
void ct_exporter_destroy(struct ct_exporter *);       /* accepts NULL */

/* All of it in one malloc'ed buffer; returns the number of connections. */
size_t ct_export(struct conntrack *, const struct ct_filter *, uint8_t **out, size_t *out_len);

struct ct_import_result {
    size_t imported, existing, refused; /* refused: table full, zone limit */
};

/* Creates what the chunks describe and adds to the result.  Hostile input: all
 * of it is checked first; EINVAL with a sentence in 'why' and nothing imported.
 * Connections that exist already are left alone and counted.  'data' may not
 * be shared with anybody who could change it meanwhile.  Any thread of OVS's. */
int ct_import(struct conntrack *, const uint8_t *data, size_t len, struct ct_import_result *,
              char *why, size_t why_size);

/* The same for a state of some time ago: what TCP has sent since is unknown,
 * so connections that were not closing get their sequence windows from the
 * next packet of each direction, like ones picked up in the middle. */
int ct_import_old(struct conntrack *, const uint8_t *data, size_t len, struct ct_import_result *,
                  char *why, size_t why_size);

/* The same, also of old, for the connections that the filter wants; others are refused
 * and counted, and limits of zones are left as they are.  Of old, since a guest that has
 * moved gets frames that came late past this tracker: what they acknowledge it goes on
 * from, and what they carry it acknowledges.  What is there already goes
 * if the filter wants it, too: it is of an earlier time, and its sequence windows
 * would make what comes now invalid. */
int ct_import_only(struct conntrack *, const struct ct_filter *, const uint8_t *data, size_t len,
                   struct ct_import_result *, char *why, size_t why_size);
/* Only looks whether ct_import() would take it.  Any thread. */
int ct_check(const uint8_t *data, size_t len, char *why, size_t why_size);

/* Length of the chunk whose first CT_CHUNK_HEADER bytes these are; 0 if they
 * are no chunk's. */
#define CT_CHUNK_HEADER 32u
uint64_t ct_chunk_length(const uint8_t header[CT_CHUNK_HEADER]);

/* Whole files.  0 or a positive errno with a sentence in 'why'.  The export
 * appears under its name at once and complete; the import handles a chunk at a
 * time, so that what precedes a bad chunk is there. */
int ct_export_file(struct conntrack *, const struct ct_filter *, const char *name, size_t *count,
                   char *why, size_t why_size);
int ct_import_file(struct conntrack *, const char *name, struct ct_import_result *, char *why,
                   size_t why_size);

/* Commands weft/ct-export and weft/ct-import.  'lookup' finds the conntrack of
 * the datapath of that name (NULL: of the only one), or NULL; it is called on
 * the main thread, and the result used before the main loop goes on. */
void ct_unixctl_init(struct conntrack *(*lookup)(const char *name));
/* What that 'lookup' finds; NULL before there is a datapath. */
struct conntrack *ct_lookup(const char *name);

#endif
