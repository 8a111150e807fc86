/* compile: from the model to each host's flows.
 *
 * Flows are computed in units: what one object needs on one host.  Each unit's
 * flows are kept, a change recomputes the units that it touches and no others,
 * and the host's flow table (pflow.h) changes by the difference.
 * docs/controller.md describes the tables, registers, priorities and cookies.
 *
 * Threads: one, that of the model.  Ownership: the compiler owns the tables; it
 * keeps pointers into the model only during compile_run(), and identifies
 * objects by their keys between runs. */
#ifndef CTL_COMPILE_H
#define CTL_COMPILE_H

#include <stddef.h>
#include <stdint.h>

struct compile;
struct ds;
struct ftable;
struct mtable;
struct model;
struct model_host;

/* The ports of a host that carry overlay networks, by enum model_encap. */
#define COMPILE_TUNNEL_NAMES                                                                       \
    {                                                                                              \
        "weft-vxlan", "weft-geneve", "weft-gre"                                                    \
    }

/* Packets that deny and stateless rules decide are samples of this set: the
 * observation point is the rule's key, the domain says whose side it decided. */
#define COMPILE_COLLECTOR_SET 1
enum { COMPILE_DOMAIN_OUT = 1, COMPILE_DOMAIN_IN = 2 };

/* A compiler that has seen nothing yet: its first compile_run() computes
 * everything that is in the model then. */
struct compile *compile_create(struct model *);
void compile_destroy(struct compile *);

/* Takes in the model's change set: call it after model_settle(), and
 * model_changes_clear() after it. */
void compile_run(struct compile *);

/* The flows wanted on a host; NULL: the host is not live or compile_run() has
 * not seen it.  Good until a compile_run() that sees the host go. */
struct ftable *compile_host_flows(struct compile *, uint32_t host_key);
/* The meters that these flows go through; likewise. */
const struct mtable *compile_host_meters(struct compile *, uint32_t host_key);

/* The ct_mark of connections that the present policy has passed in a network on
 * a host; 0: the network is not there. */
uint32_t compile_network_epoch(const struct compile *, uint32_t network_key, uint32_t host_key);

/* Work done since compile_create(). */
struct compile_stats {
    uint64_t runs;
    uint64_t units; /* computed */
    uint64_t flows; /* made */
    uint64_t moves; /* flows put into, or taken out of, a host's table */
};
const struct compile_stats *compile_get_stats(const struct compile *);

/* Appends the flows of the host of this name, or of all hosts with a heading
 * each, as ovs-ofctl prints them.  0, or ENOENT if there is no such host. */
int compile_print(struct compile *, const char *host_name, struct ds *);

#endif
