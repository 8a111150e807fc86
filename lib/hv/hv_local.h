/* hv_local: what the files of hv "local" share.
 *
 * hv_local.c        open, attaching domains, store, clock
 * hv_local_grant.c  grant copy and map
 * hv_local_evtchn.c event channels */
#ifndef HV_LOCAL_H
#define HV_LOCAL_H

#include "hv.h"
#include "local_proto.h"
#include "local_rpc.h"

/* A domain whose memory this process has mapped.  Lives while a grant handle
 * caches it or has grants of it mapped. */
struct attached_domain {
    struct attached_domain *next; /* in local_hv.domains */
    struct local_view view;
    uint16_t domid;
    uint32_t generation; /* tells it from others of the same id */
    unsigned refs;       /* guarded by local_hv.lock */
    int guest_fd;
};

struct local_hv {
    struct hv hv;
    char *dir;
    struct local_rpc rpc;
    const struct local_host *host; /* the broker's page, read-only */
    uint64_t cost_ns;              /* hv_grant_cost_ns() at open */

    pthread_mutex_t lock; /* guards the list and its reference counts */
    struct attached_domain *domains[64];
};

/* Finds or attaches the living domain 'domid' and takes a reference.  ENOENT
 * if there is none. */
int hv_local_attach(struct local_hv *, uint16_t domid, struct attached_domain **);
void hv_local_detach(struct local_hv *, struct attached_domain *);

uint64_t hv_local_now_ns(struct hv *);

int hv_local_grants_open(struct hv *, struct hv_grants **);
void hv_local_grants_close(struct hv_grants *);
int hv_local_grant_copy(struct hv_grants *, xengnttab_grant_copy_segment_t *, unsigned n);
int hv_local_grant_map(struct hv_grants *, uint16_t domid, const uint32_t *refs, unsigned n,
                       bool writable, void **addr);
void hv_local_grant_unmap(struct hv_grants *, void *addr, unsigned n);

int hv_local_evtchns_open(struct hv *, struct hv_evtchns **);
void hv_local_evtchns_close(struct hv_evtchns *);
int hv_local_evtchn_bind(struct hv_evtchns *, uint16_t domid, uint32_t remote_port, uint32_t *port);
void hv_local_evtchn_unbind(struct hv_evtchns *, uint32_t port);
void hv_local_evtchn_notify(struct hv_evtchns *, uint32_t port);
int hv_local_evtchn_fd(struct hv_evtchns *);
unsigned hv_local_evtchn_take(struct hv_evtchns *, uint32_t *ports, unsigned max);

#endif
