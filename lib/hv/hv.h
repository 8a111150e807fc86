/* hv: the one seam between Weft's backends and a hypervisor.
 *
 * Grants, event channels, the store and the clock, seen from the backend's
 * domain.  Two implementations: "xen" (libxengnttab, libxenevtchn,
 * libxenstore) and "local" (memory-backed, any Linux machine; see local.h).
 * The ring code reaches the outside only through this table.
 *
 * Threads: an hv may be shared by all threads of a process.  A grant handle
 * and an event-channel handle belong to the thread that opened them, because
 * libxenevtchn forbids sharing one handle (xenevtchn.h).
 *
 * Errors: 0 or a positive errno unless said otherwise. */
#ifndef HV_H
#define HV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xen_abi.h"

#include <xengnttab.h>

#define HV_PAGE_SIZE 4096u
/* Segments a caller may hand to one grant_copy(). */
#define HV_COPY_MAX 256u
#define HV_PORTS_MAX 16u

struct hv;
struct hv_grants;  /* one thread's grant handle */
struct hv_evtchns; /* one thread's event-channel handle */
struct xs_handle;

struct hv_ops {
    const char *name;
    /* A grant copy costs by the pages of our memory that it touches: two for
     * a page of the guest's that comes to lie across two of ours. */
    bool copies_by_page;
    void (*close)(struct hv *);

    /* Grants (xengnttab.h, xen/grant_table.h). */
    int (*grants_open)(struct hv *, struct hv_grants **);
    void (*grants_close)(struct hv_grants *); /* accepts NULL */
    /* Copies 'n' <= HV_COPY_MAX segments in order.  Each segment's 'status'
     * becomes GNTST_okay or a negative GNTST_*.  As with Xen's gntdev, a
     * segment whose offset + len passes the page's end fails the whole call
     * with EINVAL and no status is valid: check lengths first. */
    int (*grant_copy)(struct hv_grants *, xengnttab_grant_copy_segment_t *, unsigned n);
    /* Maps 'n' grants of 'domid' at consecutive pages, all or none.  The
     * mapping lives until grant_unmap() or grants_close(). */
    int (*grant_map)(struct hv_grants *, uint16_t domid, const uint32_t *refs, unsigned n,
                     bool writable, void **addr);
    void (*grant_unmap)(struct hv_grants *, void *addr, unsigned n);

    /* Event channels (xenevtchn.h). */
    int (*evtchns_open)(struct hv *, struct hv_evtchns **);
    void (*evtchns_close)(struct hv_evtchns *); /* accepts NULL; unbinds all */
    /* Binds the unbound port 'remote_port' of 'domid'; '*port' is ours. */
    int (*evtchn_bind)(struct hv_evtchns *, uint16_t domid, uint32_t remote_port, uint32_t *port);
    void (*evtchn_unbind)(struct hv_evtchns *, uint32_t port);
    void (*evtchn_notify)(struct hv_evtchns *, uint32_t port);
    /* A pollable descriptor: readable when a bound port is pending. */
    int (*evtchn_fd)(struct hv_evtchns *);
    /* Takes pending ports, at most 'max' <= HV_PORTS_MAX, acknowledges and
     * unmasks them.  Returns how many.  Never blocks. */
    unsigned (*evtchn_take)(struct hv_evtchns *, uint32_t *ports, unsigned max);

    /* A libxenstore connection with the backend domain's rights. */
    int (*store_open)(struct hv *, struct xs_handle **);
    /* False if it is for the kernel's own backend to serve the vif.  'fresh':
     * no backend has begun to; 'script' is its hotplug script or NULL. */
    bool (*vif_is_ours)(struct hv *, uint16_t domid, uint32_t handle, bool fresh,
                        const char *script);

    /* Monotonic clock, nanoseconds. */
    uint64_t (*now_ns)(struct hv *);
};

/* Every implementation's hv starts with this. */
struct hv {
    const struct hv_ops *ops;
};

/* One pending port, or -1. */
static inline int
hv_evtchn_next(const struct hv_ops *ops, struct hv_evtchns *e)
{
    uint32_t port;

    return ops->evtchn_take(e, &port, 1) ? (int)port : -1;
}

/* Opens "xen", or "local:DIR" with DIR the directory of a running
 * weft-localxen.  On failure returns a positive errno and leaves a sentence
 * that says what to do next in 'why' (of 'why_size' bytes). */
int hv_open(const char *spec, struct hv **, char *why, size_t why_size);
void hv_close(struct hv *); /* accepts NULL */

/* What "local" charges for each segment of a grant copy and each mapped or
 * unmapped page, so that benchmarks can imitate hypercalls: the environment's
 * WEFT_GRANT_COST_NS, 0 if unset.  Print it beside every result. */
uint64_t hv_grant_cost_ns(void);

int hv_xen_open(struct hv **, char *why, size_t why_size);
int hv_local_open(const char *dir, struct hv **, char *why, size_t why_size);

#endif
