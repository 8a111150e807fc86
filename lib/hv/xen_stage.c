/* xen_stage: see xen_stage.h. */
#include "xen_stage.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define STAGES_MAX 12u
#define STAGE_PAGES 64u
#define STAGE_BYTES (STAGE_PAGES * HV_PAGE_SIZE)

struct stage {
    struct stage *next; /* of the free ones */
    uint8_t *data;
    uint32_t refs[STAGE_PAGES];
};

struct xen_stages {
    xengntshr_handle *gntshr;
    uint16_t own_domid;
    pthread_mutex_t lock; /* guards all below */
    struct stage *free;
    struct stage stages[STAGES_MAX];
    unsigned n;
    bool full; /* no more can be made */
};

struct xen_stages *
xen_stages_open(struct xentoollog_logger *logger, uint16_t own_domid)
{
    struct xen_stages *s = calloc(1, sizeof *s);

    if (!s) {
        return NULL;
    }
    s->own_domid = own_domid;
    s->gntshr = xengntshr_open(logger, 0);
    if (!s->gntshr) {
        free(s);
        return NULL;
    }
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void
xen_stages_close(struct xen_stages *s)
{
    if (!s) {
        return;
    }
    for (unsigned i = 0; i < s->n; i++) {
        xengntshr_unshare(s->gntshr, s->stages[i].data, STAGE_PAGES);
    }
    xengntshr_close(s->gntshr);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* Whether Xen copies between two pages of a stage. */
static bool
works(const struct xen_stages *s, const struct stage *stage, xengnttab_handle *gnttab)
{
    xengnttab_grant_copy_segment_t seg = {
        .source.foreign = {.ref = stage->refs[0], .domid = s->own_domid},
        .dest.foreign = {.ref = stage->refs[1], .domid = s->own_domid},
        .len = HV_PAGE_SIZE,
        .flags = GNTCOPY_source_gref | GNTCOPY_dest_gref,
        .status = GNTST_general_error,
    };

    memset(stage->data, 0xa5, HV_PAGE_SIZE);
    return !xengnttab_grant_copy(gnttab, 1, &seg) && seg.status == GNTST_okay &&
           !memcmp(stage->data, stage->data + HV_PAGE_SIZE, HV_PAGE_SIZE);
}

static struct stage *
make(struct xen_stages *s, xengnttab_handle *gnttab)
{
    struct stage *stage = &s->stages[s->n];

    if (s->full) {
        return NULL;
    }
    stage->data = xengntshr_share_pages(s->gntshr, s->own_domid, STAGE_PAGES, stage->refs, 1);
    if (stage->data && !works(s, stage, gnttab)) {
        xengntshr_unshare(s->gntshr, stage->data, STAGE_PAGES);
        stage->data = NULL;
    }
    if (!stage->data) {
        s->full = true;
        return NULL;
    }
    s->full = ++s->n == STAGES_MAX;
    return stage;
}

static struct stage *
take(struct xen_stages *s, xengnttab_handle *gnttab)
{
    struct stage *stage;

    pthread_mutex_lock(&s->lock);
    stage = s->free;
    if (stage) {
        s->free = stage->next;
    } else {
        stage = make(s, gnttab);
    }
    pthread_mutex_unlock(&s->lock);
    return stage;
}

static void
give_back(struct xen_stages *s, struct stage *stage)
{
    pthread_mutex_lock(&s->lock);
    stage->next = s->free;
    s->free = stage;
    pthread_mutex_unlock(&s->lock);
}

static bool
between_guests(const xengnttab_grant_copy_segment_t *seg)
{
    return (seg->flags & GNTCOPY_source_gref) && (seg->flags & GNTCOPY_dest_gref);
}

/* Where 'len' bytes find room in a page at or after '*at'; false if nowhere. */
static bool
place(uint32_t *at, uint16_t len)
{
    if (*at % HV_PAGE_SIZE + len > HV_PAGE_SIZE) {
        *at += HV_PAGE_SIZE - *at % HV_PAGE_SIZE;
    }
    return *at < STAGE_BYTES && *at + len <= STAGE_BYTES;
}

/* Stages what fits of 'n' segments, from the first; 'at' of each that is staged is where.
 * Returns how many. */
static unsigned
stage_in(const struct xen_stages *s, struct stage *stage, xengnttab_grant_copy_segment_t *segs,
         const xengnttab_grant_copy_segment_t *from, uint32_t *at, unsigned n)
{
    uint32_t end = 0;

    for (unsigned i = 0; i < n; i++) {
        xengnttab_grant_copy_segment_t *seg = &segs[i];

        *seg = from[i];
        if (between_guests(seg)) {
            continue;
        }
        if (!place(&end, seg->len)) {
            return i;
        }
        at[i] = end;
        end += seg->len;
        if (seg->flags & GNTCOPY_dest_gref) {
            memcpy(stage->data + at[i], from[i].source.virt, seg->len);
            seg->source.foreign.ref = stage->refs[at[i] / HV_PAGE_SIZE];
            seg->source.foreign.offset = at[i] % HV_PAGE_SIZE;
            seg->source.foreign.domid = s->own_domid;
        } else {
            seg->dest.foreign.ref = stage->refs[at[i] / HV_PAGE_SIZE];
            seg->dest.foreign.offset = at[i] % HV_PAGE_SIZE;
            seg->dest.foreign.domid = s->own_domid;
        }
        seg->flags = GNTCOPY_source_gref | GNTCOPY_dest_gref;
    }
    return n;
}

static void
stage_out(const struct stage *stage, const xengnttab_grant_copy_segment_t *done,
          xengnttab_grant_copy_segment_t *segs, const uint32_t *at, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        segs[i].status = done[i].status;
        if (!(segs[i].flags & GNTCOPY_dest_gref) && done[i].status == GNTST_okay) {
            memcpy(segs[i].dest.virt, stage->data + at[i], segs[i].len);
        }
    }
}

int
xen_staged_copy(struct xen_stages *s, xengnttab_handle *gnttab,
                xengnttab_grant_copy_segment_t *segs, unsigned n)
{
    xengnttab_grant_copy_segment_t staged[HV_COPY_MAX];
    uint32_t at[HV_COPY_MAX];
    struct stage *stage = s ? take(s, gnttab) : NULL;
    int error = 0;

    if (!stage) {
        return xengnttab_grant_copy(gnttab, n, segs);
    }
    for (unsigned i = 0; i < n && !error;) {
        unsigned k = stage_in(s, stage, staged, segs + i, at, n - i);

        error = xengnttab_grant_copy(gnttab, k, staged);
        if (!error) {
            stage_out(stage, staged, segs + i, at, k);
        }
        i += k;
    }
    give_back(s, stage);
    return error;
}
