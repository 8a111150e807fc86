/* shadow: the datapath's flows outlive the process.
 *
 * The flow table that ofproto sees begins empty: ofproto flushes it at start,
 * and gives out recirculation ids anew.  So what a killed switch was doing is
 * kept beside it: every megaflow and port also has a record in a file
 * (shadow_file.h), and a successor reads the file into a table of its own,
 * which packets that miss consult until the OpenFlow state is back and
 * ofproto's handlers take misses.  Then it is retired for good.
 *
 *   shadow.c        keeps the file
 *   shadow_table.c  the predecessor's flows
 *   shadow_file.c   records in a file
 *
 * Ports are known by name, type and options across processes: datapath port
 * numbers are not.  A flow is there from when all of its ports are.
 *
 * Threads: as stated. */
#ifndef SHADOW_H
#define SHADOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dp.h"

struct shadow;
struct shadow_image;
struct shadow_table;
struct smap;

/* What begins with this bit is a recirculation id of the shadow's.  ofproto
 * counts its own from 1. */
#define SHADOW_RECIRC (UINT32_C(1) << 31)

/* Before the datapath's first port.  Without a file there is no shadow, and
 * all else here does nothing. */
void shadow_open(struct dp *);
/* No other thread uses the datapath any more.  The file goes, unless
 * shadow_keep() was called. */
void shadow_close(struct dp *);
/* The switch exits for a successor: files stay as they are.  Main thread. */
void shadow_keep(void);
bool shadow_kept(void);
/* ofproto decides about misses from now on.  Main thread. */
void shadow_retire(struct dp *);

/* A flow was created or got other actions; is about to go.  flows_lock. */
void shadow_flow_put(struct dp *, struct dp_flow *);
void shadow_flow_del(struct dp *, struct dp_flow *);
/* A port is there and takes packets; is about to go.  Main thread. */
void shadow_port_add(struct dp *, const struct dp_port *);
void shadow_port_del(struct dp *, const struct dp_port *);

/* Packets that no flow of the datapath matches, with their keys: treats those
 * that the shadow knows, and moves the others, and their keys, to the front.
 * Returns how many those are.  Worker's thread. */
unsigned shadow_input(struct dp_worker *, struct dp_packet *packets[], const struct flow *flows[],
                      unsigned n);
/* Whether there is a table to ask. */
static inline bool
shadow_active(const struct dp *dp)
{
    return atomic_load_explicit(&CONST_CAST(struct dp *, dp)->shadow_table, memory_order_acquire) !=
           NULL;
}

/* The ports that the previous process's datapath of that name had.  Before
 * shadow_open(). */
void shadow_for_each_port(const char *dp_name,
                          void (*cb)(void *aux, const char *name, const char *type,
                                     const char *options),
                          void *aux);

/* --- within shadow*.c ----------------------------------------------------------- */

#define SHADOW_KIND_FLOWS 1u
/* Changes with what records contain: struct flow, actions. */
#define SHADOW_LAYOUT (FLOW_WC_SEQ << 16 | sizeof(struct flow))

enum shadow_record_type { SHADOW_PORT = 1, SHADOW_FLOW };

/* Times are those of a counter that moves when a port comes: a flow speaks of
 * the ports that were there when it was made. */
struct shadow_port_record {
    uint32_t type; /* SHADOW_PORT */
    uint32_t port_no;
    uint64_t born;
    char text[]; /* name, type, options as "key=value ...": a 0 ends each */
};

struct shadow_flow_record {
    uint32_t type; /* SHADOW_FLOW */
    uint16_t n_words, actions_len;
    uint64_t made;
    /* uint64_t mask[n_words], value[n_words]; uint16_t idx[n_words], padded to
     * 8 bytes; actions */
    uint64_t words[];
};

/* The three strings of a port's record of 'len' bytes; false if it is none. */
bool shadow_port_text(const struct shadow_port_record *, size_t len, const char **name,
                      const char **type, const char **options);
/* Options of a port as a record has them.  malloc'ed. */
char *shadow_port_options(const struct netdev *);

/* NULL if the image has no flows, which is freed in any case in the end. */
struct shadow_table *shadow_table_create(struct shadow_image *);
/* All of its threads are through with it. */
void shadow_table_destroy(void *);
size_t shadow_table_count(const struct shadow_table *); /* flows, those that wait included */
/* Main thread. */
void shadow_table_port_add(struct shadow_table *, const struct dp_port *);
void shadow_table_port_del(struct shadow_table *, const struct dp_port *);

#endif
