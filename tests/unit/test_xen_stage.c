/* Staged grant copies, with libxengnttab's and libxengntshr's calls replaced by ours. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "hv/xen_stage.h"

#define PAGE HV_PAGE_SIZE
#define GUEST 7u
#define US 0u
#define GUEST_PAGES 256u
#define SHARED_MAX 4096u
#define BAD_REF 999u

static uint8_t guest[GUEST_PAGES][PAGE];
static uint8_t ours[HV_COPY_MAX][PAGE];
static uint8_t *shared[SHARED_MAX];
static unsigned n_shared, share_limit, calls, pinned, fail_call;
static bool self_copies;

xengntshr_handle *
xengntshr_open(struct xentoollog_logger *logger, unsigned flags)
{
    (void)logger, (void)flags;
    return (void *)shared;
}

int
xengntshr_close(xengntshr_handle *h)
{
    (void)h;
    return 0;
}

void *
xengntshr_share_pages(xengntshr_handle *h, uint32_t domid, int count, uint32_t *refs, int writable)
{
    uint8_t *data;

    (void)h;
    CHECK(domid == US && writable);
    if (n_shared + count > share_limit) {
        errno = ENOSPC;
        return NULL;
    }
    data = aligned_alloc(PAGE, (size_t)count * PAGE);
    for (int i = 0; i < count; i++) {
        refs[i] = n_shared;
        shared[n_shared++] = data + (size_t)i * PAGE;
    }
    return data;
}

int
xengntshr_unshare(xengntshr_handle *h, void *start, uint32_t count)
{
    (void)h, (void)count;
    free(start);
    return 0;
}

static uint8_t *
page_of(uint16_t domid, uint32_t ref)
{
    if (domid == US) {
        return ref < n_shared ? shared[ref] : NULL;
    }
    return domid == GUEST && ref < GUEST_PAGES ? guest[ref] : NULL;
}

int
xengnttab_grant_copy(xengnttab_handle *h, uint32_t n, xengnttab_grant_copy_segment_t *segs)
{
    (void)h;
    if (++calls == fail_call) {
        errno = ENOMEM;
        return -1;
    }
    for (uint32_t i = 0; i < n; i++) {
        xengnttab_grant_copy_segment_t *s = &segs[i];
        bool from = s->flags & GNTCOPY_source_gref, to = s->flags & GNTCOPY_dest_gref;
        const uint8_t *source = s->source.virt;
        uint8_t *dest = s->dest.virt;

        pinned += !from || !to;
        if (from) {
            CHECK(s->source.foreign.offset + s->len <= PAGE);
            source = page_of(s->source.foreign.domid, s->source.foreign.ref);
            source = source ? source + s->source.foreign.offset : NULL;
        }
        if (to) {
            CHECK(s->dest.foreign.offset + s->len <= PAGE);
            dest = page_of(s->dest.foreign.domid, s->dest.foreign.ref);
            dest = dest ? dest + s->dest.foreign.offset : NULL;
        }
        s->status = GNTST_bad_gntref;
        if (source && dest &&
            (self_copies || !from || !to || s->source.foreign.domid != s->dest.foreign.domid)) {
            memcpy(dest, source, s->len);
            s->status = GNTST_okay;
        }
    }
    return 0;
}

static xengnttab_grant_copy_segment_t
to_guest(const void *from, uint32_t ref, uint16_t offset, uint16_t len)
{
    return (xengnttab_grant_copy_segment_t){
        .source.virt = (void *)from,
        .dest.foreign = {.ref = ref, .offset = offset, .domid = GUEST},
        .len = len,
        .flags = GNTCOPY_dest_gref,
        .status = GNTST_general_error,
    };
}

static xengnttab_grant_copy_segment_t
from_guest(void *to, uint32_t ref, uint16_t offset, uint16_t len)
{
    return (xengnttab_grant_copy_segment_t){
        .source.foreign = {.ref = ref, .offset = offset, .domid = GUEST},
        .dest.virt = to,
        .len = len,
        .flags = GNTCOPY_source_gref,
        .status = GNTST_general_error,
    };
}

static struct xen_stages *
begin(const char *name)
{
    CASE(name);
    for (unsigned i = 0; i < sizeof guest; i++) {
        guest[i / PAGE][i % PAGE] = i * 7 + (i >> 9);
        ours[i / PAGE][i % PAGE] = i * 13 + (i >> 11);
    }
    n_shared = calls = pinned = fail_call = 0;
    share_limit = SHARED_MAX;
    self_copies = true;
    return xen_stages_open(NULL, US);
}

/* Both ways in one call, of all lengths, more than a stage holds. */
static void
test_lengths(void)
{
    struct xen_stages *s = begin("stage/all lengths both ways, more than fit at once");
    xengnttab_grant_copy_segment_t segs[HV_COPY_MAX];
    static uint8_t was[GUEST_PAGES][PAGE];

    memcpy(was, guest, sizeof was);
    for (unsigned i = 0; i < HV_COPY_MAX; i++) {
        uint16_t len = i % 3 ? 1 + i * 97 % PAGE : PAGE, offset = PAGE - len;

        segs[i] = i % 2 ? from_guest(ours[i], i, offset, len) : to_guest(ours[i], i, offset, len);
    }
    CHECK(xen_staged_copy(s, NULL, segs, HV_COPY_MAX) == 0);
    CHECK(pinned == 0);
    for (unsigned i = 0; i < HV_COPY_MAX; i++) {
        uint16_t len = segs[i].len;

        CHECK(segs[i].status == GNTST_okay);
        CHECK(!memcmp(ours[i], guest[i] + PAGE - len, len));
        CHECK(!memcmp(was[i], guest[i], PAGE - len));
        if (i % 2) {
            CHECK(segs[i].dest.virt == ours[i]);
            CHECK(!memcmp(was[i], guest[i], PAGE));
        }
    }
    xen_stages_close(s);
}

static void
test_between_guests(void)
{
    struct xen_stages *s = begin("stage/between guests nothing is staged");
    xengnttab_grant_copy_segment_t seg = to_guest(NULL, 3, 0, PAGE);

    seg.source.foreign.ref = 4;
    seg.source.foreign.offset = 0;
    seg.source.foreign.domid = GUEST;
    seg.flags |= GNTCOPY_source_gref;
    CHECK(xen_staged_copy(s, NULL, &seg, 1) == 0);
    CHECK(seg.status == GNTST_okay && !memcmp(guest[3], guest[4], PAGE));
    xen_stages_close(s);
}

static void
test_errors(void)
{
    struct xen_stages *s = begin("stage/a bad grant, a failed call");
    xengnttab_grant_copy_segment_t segs[2] = {
        from_guest(ours[0], BAD_REF, 0, 100),
        from_guest(ours[1], 1, 0, 100),
    };
    uint8_t before[100];

    memcpy(before, ours[0], sizeof before);
    CHECK(xen_staged_copy(s, NULL, segs, 2) == 0);
    CHECK(segs[0].status == GNTST_bad_gntref && segs[1].status == GNTST_okay);
    CHECK(!memcmp(before, ours[0], sizeof before) && !memcmp(ours[1], guest[1], 100));
    fail_call = calls + 1;
    CHECK(xen_staged_copy(s, NULL, segs, 2) == -1 && errno == ENOMEM);
    CHECK(xen_staged_copy(s, NULL, segs, 2) == 0);
    CHECK(n_shared == 64); /* the stage has come back each time */
    xen_stages_close(s);
}

/* Pages are pinned then. */
static void
test_without(void)
{
    xengnttab_grant_copy_segment_t seg = to_guest(ours[5], 5, 0, PAGE);
    struct xen_stages *s = begin("stage/no pages to be had, no copies within a domain");

    share_limit = 0;
    CHECK(xen_staged_copy(s, NULL, &seg, 1) == 0);
    CHECK(pinned == 1 && seg.status == GNTST_okay && !memcmp(guest[5], ours[5], PAGE));
    xen_stages_close(s);

    s = begin("stage/no copies within a domain");
    self_copies = false;
    CHECK(xen_staged_copy(s, NULL, &seg, 1) == 0);
    CHECK(pinned == 1 && seg.status == GNTST_okay && !memcmp(guest[5], ours[5], PAGE));
    CHECK(xen_staged_copy(s, NULL, &seg, 1) == 0 && n_shared == 64); /* not tried again */
    xen_stages_close(s);

    CHECK(xen_staged_copy(NULL, NULL, &seg, 1) == 0 && pinned == 3);
}

int
main(void)
{
    test_lengths();
    test_between_guests();
    test_errors();
    test_without();
    return check_done();
}
