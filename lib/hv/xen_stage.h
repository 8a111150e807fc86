/* xen_stage: grant copies without pinning pages.
 *
 * gntdev pins each page of ours that a copy reads or writes, one by one, and under
 * PV a walk through the page tables costs more than copying the page does.  A stage
 * is memory that this domain grants to itself (xengntshr): between two grants there
 * is nothing to pin.  Data takes one more copy, in the cache.
 *
 * Stages are made when they are needed, as many as threads copy at the same time,
 * up to STAGES_MAX, because gntalloc allows 1,024 pages in all.  Without one (no
 * gntalloc, or no more stages) pages are pinned.
 *
 * Any thread. */
#ifndef XEN_STAGE_H
#define XEN_STAGE_H

#include "hv.h"
#include <stdint.h>

struct xen_stages;
struct xentoollog_logger;

/* Never fails: without gntalloc it returns NULL, which the others accept. */
struct xen_stages *xen_stages_open(struct xentoollog_logger *, uint16_t own_domid);
void xen_stages_close(struct xen_stages *);

/* As xengnttab_grant_copy(): 0 or -1 with errno, a status for each segment.  At most
 * HV_COPY_MAX segments, all of them shorter than a page or as long. */
int xen_staged_copy(struct xen_stages *, xengnttab_handle *, xengnttab_grant_copy_segment_t *,
                    unsigned n);

#endif
