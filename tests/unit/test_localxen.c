/* The memory-backed stand-in for Xen: domains and grants, with real processes
 * that are killed at bad moments. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "hv/hv_local.h"
#include "hv/local_pin.h"
#include "localxen_fixture.h"

#define PAGE HV_PAGE_SIZE

static char dir[64];

/* Copies 'len' bytes from a grant; returns the status. */
static int
copy_from(struct rig *r, uint16_t domid, uint32_t ref, uint16_t offset, void *to, uint16_t len)
{
    xengnttab_grant_copy_segment_t seg = {
        .source.foreign = {.ref = ref, .offset = offset, .domid = domid},
        .dest.virt = to,
        .len = len,
        .flags = GNTCOPY_source_gref,
        .status = 77,
    };
    int error = r->hv->ops->grant_copy(r->grants, &seg, 1);

    return error ? error : seg.status;
}

static int
copy_to(struct rig *r, uint16_t domid, uint32_t ref, uint16_t offset, void *from, uint16_t len)
{
    xengnttab_grant_copy_segment_t seg = {
        .dest.foreign = {.ref = ref, .offset = offset, .domid = domid},
        .source.virt = from,
        .len = len,
        .flags = GNTCOPY_dest_gref,
        .status = 77,
    };
    int error = r->hv->ops->grant_copy(r->grants, &seg, 1);

    return error ? error : seg.status;
}

/* The guest's own view of a grant's flags: the table comes before the memory. */
static grant_entry_v1_t *
entry_of(struct rig *r, uint32_t ref)
{
    return (grant_entry_v1_t *)(r->memory - local_table_bytes(RIG_GRANTS + 8)) + ref;
}

/* Waits until the broker has noticed a death. */
static bool
becomes_unused(struct local_domain *d)
{
    for (int i = 0; i < 1000; i++) {
        if (!local_grants_in_use(d)) {
            return true;
        }
        usleep(1000);
    }
    return false;
}

/* --- domains ------------------------------------------------------------------- */

static void
test_domains(void)
{
    struct local_domain *a, *b;
    struct rig r;
    char byte;

    CASE("domain: created, exclusive, made again");
    CHECK(!local_domain_create(dir, RIG_DOMID, RIG_PAGES, RIG_GRANTS, &a));
    CHECK(local_domain_id(a) == RIG_DOMID);
    CHECK(local_domain_create(dir, RIG_DOMID, RIG_PAGES, RIG_GRANTS, &b) == EEXIST && !b);
    CHECK(local_domain_create(dir, 0, RIG_PAGES, RIG_GRANTS, &b) == EINVAL);
    CHECK(local_domain_create(dir, 0x7ff0, RIG_PAGES, RIG_GRANTS, &b) == EINVAL);
    CHECK(local_domain_create(dir, RIG_DOMID + 1, 0, RIG_GRANTS, &b) == EINVAL);
    local_domain_destroy(a);
    local_domain_destroy(NULL);
    CHECK(!local_domain_create(dir, RIG_DOMID, RIG_PAGES, RIG_GRANTS, &a));
    local_domain_destroy(a);

    CASE("domain: its death and successor are seen by a backend");
    rig_open(&r, dir);
    uint32_t ref = local_grant_access(r.dom, 0, 0, false);
    r.memory[0] = 'a';
    CHECK(copy_from(&r, RIG_DOMID, ref, 0, &byte, 1) == GNTST_okay && byte == 'a');
    void *map;
    CHECK(!r.hv->ops->grant_map(r.grants, RIG_DOMID, &ref, 1, false, &map));
    local_domain_destroy(r.dom);
    CHECK(copy_from(&r, RIG_DOMID, ref, 0, &byte, 1) == GNTST_bad_domain);
    CHECK(copy_from(&r, RIG_DOMID, ref, 0, &byte, 1) == GNTST_bad_domain);
    CHECK(!local_domain_create(dir, RIG_DOMID, RIG_PAGES, RIG_GRANTS, &r.dom));
    r.memory = local_domain_memory(r.dom);
    r.memory[PAGE] = 'b';
    ref = local_grant_access(r.dom, 0, 1, false);
    CHECK(copy_from(&r, RIG_DOMID, ref, 0, &byte, 1) == GNTST_okay && byte == 'b');
    CHECK(*(char *)map == 'a'); /* a mapping outlives the domain, as on Xen */
    r.hv->ops->grant_unmap(r.grants, map, 1);
    rig_close(&r);
}

/* --- copies ----------------------------------------------------------------------- */

static void
test_copy(void)
{
    uint8_t buf[3 * PAGE], back[PAGE];
    struct rig r;

    rig_open(&r, dir);
    for (unsigned i = 0; i < sizeof buf; i++) {
        buf[i] = i * 7 + i / PAGE;
    }
    CASE("copy: both ways, local buffer across pages");
    uint32_t rw = local_grant_access(r.dom, 0, 3, false);
    CHECK(rw >= 8);
    CHECK(copy_to(&r, RIG_DOMID, rw, 0, buf + PAGE - 100, PAGE) == GNTST_okay);
    CHECK(!memcmp(r.memory + 3 * PAGE, buf + PAGE - 100, PAGE));
    CHECK(copy_from(&r, RIG_DOMID, rw, 1000, back, PAGE - 1000) == GNTST_okay);
    CHECK(!memcmp(back, buf + PAGE - 100 + 1000, PAGE - 1000));
    CHECK(copy_from(&r, RIG_DOMID, rw, PAGE, back, 0) == GNTST_okay);
    CHECK(!(entry_of(&r, rw)->flags & (GTF_reading | GTF_writing)));

    CASE("copy: statuses of bad grants");
    uint32_t ro = local_grant_access(r.dom, 0, 4, true);
    CHECK(copy_from(&r, RIG_DOMID, ro, 0, back, 8) == GNTST_okay);
    CHECK(copy_to(&r, RIG_DOMID, ro, 0, back, 8) == GNTST_general_error);
    uint32_t other = local_grant_access(r.dom, 5, 4, false);
    CHECK(copy_from(&r, RIG_DOMID, other, 0, back, 8) == GNTST_general_error);
    CHECK(copy_from(&r, RIG_DOMID, RIG_GRANTS + 8, 0, back, 8) == GNTST_bad_gntref);
    CHECK(copy_from(&r, RIG_DOMID, UINT32_MAX, 0, back, 8) == GNTST_bad_gntref);
    CHECK(copy_from(&r, RIG_DOMID, 0, 0, back, 8) == GNTST_general_error);
    uint32_t wild = local_grant_access(r.dom, 0, RIG_PAGES, false);
    CHECK(copy_from(&r, RIG_DOMID, wild, 0, back, 8) == GNTST_bad_page);
    entry_of(&r, wild)->frame = UINT32_MAX;
    CHECK(copy_to(&r, RIG_DOMID, wild, 0, back, 8) == GNTST_bad_page);
    CHECK(copy_from(&r, RIG_DOMID + 1, rw, 0, back, 8) == GNTST_bad_domain);
    CHECK(copy_from(&r, 0xffff, rw, 0, back, 8) == GNTST_bad_domain);
    CHECK(!local_grants_in_use(r.dom));
    rig_close(&r);
}

static void
test_bad_segments(void)
{
    uint8_t back[PAGE];
    struct rig r;

    rig_open(&r, dir);
    uint32_t rw = local_grant_access(r.dom, 0, 3, false);
    memset(r.memory + 3 * PAGE, 0x33, 2000);
    CASE("copy: a range past the page fails the whole call");
    xengnttab_grant_copy_segment_t segs[2] = {
        {.source.foreign = {.ref = rw, .domid = RIG_DOMID},
         .dest.virt = back,
         .len = 16,
         .flags = GNTCOPY_source_gref},
        {.source.foreign = {.ref = rw, .offset = 4000, .domid = RIG_DOMID},
         .dest.virt = back + 16,
         .len = 97,
         .flags = GNTCOPY_source_gref},
    };
    memset(back, 0xee, sizeof back);
    CHECK(r.hv->ops->grant_copy(r.grants, segs, 2) == EINVAL);
    CHECK(back[0] == 0xee);
    segs[1].len = 96;
    CHECK(r.hv->ops->grant_copy(r.grants, segs, 2) == 0);
    CHECK(segs[0].status == 0 && segs[1].status == 0 && back[0] == r.memory[3 * PAGE]);
    segs[1].flags = 0;
    CHECK(r.hv->ops->grant_copy(r.grants, segs, 2) == EINVAL);

    CASE("copy: status of each segment, grant to grant");
    segs[0].source.foreign.ref = 9999;
    segs[1] = (xengnttab_grant_copy_segment_t){
        .source.foreign = {.ref = rw, .offset = 5, .domid = RIG_DOMID},
        .dest.foreign = {.ref = rw, .offset = 2000, .domid = RIG_DOMID},
        .len = 64,
        .flags = GNTCOPY_source_gref | GNTCOPY_dest_gref,
    };
    CHECK(r.hv->ops->grant_copy(r.grants, segs, 2) == 0);
    CHECK(segs[0].status == GNTST_bad_gntref && segs[1].status == GNTST_okay);
    CHECK(!memcmp(r.memory + 3 * PAGE + 5, r.memory + 3 * PAGE + 2000, 64));
    CHECK(!local_grants_in_use(r.dom));
    rig_close(&r);
}

static void
test_full_table(void)
{
    uint8_t back[8];
    struct rig r;

    rig_open(&r, dir);
    CASE("grant table: full, revoked, used again");
    uint32_t n = 0, ref, last = 0;
    while ((ref = local_grant_access(r.dom, 0, 1, false))) {
        last = ref;
        n++;
    }
    CHECK(n == RIG_GRANTS && last == RIG_GRANTS + 7);
    CHECK(!local_grant_end(r.dom, last) && local_grant_end(r.dom, last) == EINVAL);
    CHECK(copy_from(&r, RIG_DOMID, last, 0, back, 8) == GNTST_general_error);
    CHECK(local_grant_end(r.dom, 3) == EINVAL && local_grant_end(r.dom, 1 << 30) == EINVAL);
    CHECK(local_grant_access(r.dom, 0, 1, false) == last);
    rig_close(&r);
}

/* Domains whose ids share a place in the handle's cache, in one segment. */
static void
test_copy_two_domains(void)
{
    struct local_domain *other;
    struct rig r;

    CASE("copy: between two domains of one cache place");
    rig_open(&r, dir);
    CHECK(!local_domain_create(dir, RIG_DOMID + 16, 4, 4, &other));
    uint32_t from = local_grant_access(r.dom, 0, 0, true);
    uint32_t to = local_grant_access(other, 0, 2, false);
    memset(r.memory, 0x5a, PAGE);
    for (int i = 0; i < 3; i++) {
        xengnttab_grant_copy_segment_t seg = {
            .source.foreign = {.ref = from, .domid = RIG_DOMID},
            .dest.foreign = {.ref = to, .domid = RIG_DOMID + 16},
            .len = PAGE,
            .flags = GNTCOPY_source_gref | GNTCOPY_dest_gref,
        };
        CHECK(!r.hv->ops->grant_copy(r.grants, &seg, 1) && seg.status == GNTST_okay);
    }
    CHECK(((uint8_t *)local_domain_memory(other))[3 * PAGE - 1] == 0x5a);
    CHECK(!local_grants_in_use(r.dom) && !local_grants_in_use(other));
    local_domain_destroy(other);
    rig_close(&r);
}

/* --- maps -------------------------------------------------------------------------- */

static void
test_map(void)
{
    uint32_t refs[600];
    struct rig r;
    void *p, *q;

    rig_open(&r, dir);
    CASE("map: pages in order, shared with the guest");
    for (int i = 0; i < 4; i++) {
        refs[i] = local_grant_access(r.dom, 0, 10 - i, false);
    }
    CHECK(!r.hv->ops->grant_map(r.grants, RIG_DOMID, refs, 4, true, &p));
    for (int i = 0; i < 4; i++) {
        ((uint8_t *)p)[i * PAGE] = 0xa0 + i;
        CHECK(r.memory[(10 - i) * PAGE] == 0xa0 + i);
    }
    CHECK((entry_of(&r, refs[0])->flags & (GTF_reading | GTF_writing)) ==
          (GTF_reading | GTF_writing));
    CHECK(local_grants_in_use(r.dom) == 4);

    CASE("map: runs of consecutive pages between others");
    static const uint32_t pages[] = {30, 31, 32, 40, 31, 32, 33, 33, 63};
    uint32_t run[9];
    for (int i = 0; i < 9; i++) {
        run[i] = local_grant_access(r.dom, 0, pages[i], false);
        r.memory[pages[i] * PAGE + 17] = pages[i];
    }
    CHECK(!r.hv->ops->grant_map(r.grants, RIG_DOMID, run, 9, false, &q));
    for (int i = 0; i < 9; i++) {
        CHECK(((uint8_t *)q)[i * PAGE + 17] == pages[i]);
    }
    r.hv->ops->grant_unmap(r.grants, q, 9);
    CHECK(local_grants_in_use(r.dom) == 4);

    CASE("map: a grant in use is not revoked");
    CHECK(local_grant_end(r.dom, refs[0]) == EBUSY);
    CHECK(!r.hv->ops->grant_map(r.grants, RIG_DOMID, refs, 1, false, &q));
    r.hv->ops->grant_unmap(r.grants, p, 4);
    CHECK((entry_of(&r, refs[0])->flags & (GTF_reading | GTF_writing)) == GTF_reading);
    CHECK(local_grant_end(r.dom, refs[0]) == EBUSY);
    CHECK(!local_grant_end(r.dom, refs[1]));
    r.hv->ops->grant_unmap(r.grants, q, 1);
    CHECK(!local_grant_end(r.dom, refs[0]));
    CHECK(!local_grants_in_use(r.dom));
    rig_close(&r);
}

static void
test_map_all_or_none(void)
{
    uint32_t refs[600];
    struct rig r;
    void *p, *q;

    rig_open(&r, dir);
    for (int i = 0; i < 4; i++) {
        refs[i] = local_grant_access(r.dom, 0, i, false);
    }
    CHECK(!local_grant_end(r.dom, refs[1]));
    CASE("map: all or none");
    refs[0] = refs[1]; /* revoked */
    CHECK(r.hv->ops->grant_map(r.grants, RIG_DOMID, &refs[0], 4, true, &p) == EINVAL);
    CHECK(r.hv->ops->grant_map(r.grants, RIG_DOMID + 1, &refs[2], 1, true, &p) == EINVAL);
    CHECK(r.hv->ops->grant_map(r.grants, RIG_DOMID, &refs[2], 0, true, &p) == EINVAL);
    CHECK(!local_grants_in_use(r.dom));
    CHECK(!local_grant_end(r.dom, refs[2]) && !local_grant_end(r.dom, refs[3]));

    CASE("map: more than one request's worth");
    refs[0] = local_grant_access(r.dom, 0, 20, false);
    for (int i = 1; i < 600; i++) {
        refs[i] = refs[0];
    }
    CHECK(!r.hv->ops->grant_map(r.grants, RIG_DOMID, refs, 600, true, &p));
    ((uint8_t *)p)[599 * PAGE] = 0x77;
    CHECK(r.memory[20 * PAGE] == 0x77 && ((uint8_t *)p)[0] == 0x77);
    refs[599] = 9999;
    CHECK(r.hv->ops->grant_map(r.grants, RIG_DOMID, refs, 600, true, &q) == EINVAL);
    r.hv->ops->grant_unmap(r.grants, p, 600);
    CHECK(!local_grants_in_use(r.dom));

    CASE("map: grants_close unmaps");
    CHECK(!r.hv->ops->grant_map(r.grants, RIG_DOMID, refs, 5, true, &p));
    CHECK(local_grants_in_use(r.dom) == 1);
    r.hv->ops->grants_close(r.grants);
    CHECK(!local_grants_in_use(r.dom));
    r.grants = NULL;
    r.hv->ops->grants_close(NULL);
    rig_close(&r);
}

static void
test_map_readonly(void)
{
    struct rig r;
    int status;
    void *p;

    CASE("map: a read-only grant cannot be written");
    rig_open(&r, dir);
    uint32_t ref = local_grant_access(r.dom, 0, 2, true);
    CHECK(r.hv->ops->grant_map(r.grants, RIG_DOMID, &ref, 1, true, &p) == EINVAL);
    CHECK(!r.hv->ops->grant_map(r.grants, RIG_DOMID, &ref, 1, false, &p));
    pid_t pid = fork();
    if (!pid) {
        signal(SIGSEGV, SIG_DFL); /* a sanitizer would report it */
        close(2);
        *(volatile uint8_t *)p = 1;
        _exit(0);
    }
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    r.hv->ops->grant_unmap(r.grants, p, 1);
    rig_close(&r);
}

/* --- the dirty bitmap ------------------------------------------------------------------ */

static void
test_dirty(void)
{
    uint64_t bitmap[1] = {0};
    struct rig r;
    char byte = 1;
    void *p, *q;

    CASE("dirty bitmap: copies, maps, unmaps");
    rig_open(&r, dir);
    uint32_t rw = local_grant_access(r.dom, 0, 5, false);
    uint32_t ro = local_grant_access(r.dom, 0, 6, true);
    uint32_t mapped = local_grant_access(r.dom, 0, 63, false);
    local_dirty_fetch_clear(r.dom, bitmap);
    CHECK(bitmap[0] == 0);
    CHECK(!copy_from(&r, RIG_DOMID, rw, 0, &byte, 1) && !copy_from(&r, RIG_DOMID, ro, 0, &byte, 1));
    local_dirty_fetch_clear(r.dom, bitmap);
    CHECK(bitmap[0] == 0);
    CHECK(!copy_to(&r, RIG_DOMID, rw, 0, &byte, 1) && !copy_to(&r, RIG_DOMID, rw, 9, &byte, 1));
    local_dirty_fetch_clear(r.dom, bitmap);
    CHECK(bitmap[0] == UINT64_C(1) << 5);
    local_dirty_fetch_clear(r.dom, bitmap);
    CHECK(bitmap[0] == 0);
    CHECK(!r.hv->ops->grant_map(r.grants, RIG_DOMID, &mapped, 1, true, &p));
    CHECK(!r.hv->ops->grant_map(r.grants, RIG_DOMID, &ro, 1, false, &q));
    local_dirty_fetch_clear(r.dom, bitmap);
    CHECK(bitmap[0] == UINT64_C(1) << 63); /* written or not: who could tell */
    local_dirty_fetch_clear(r.dom, bitmap);
    CHECK(bitmap[0] == UINT64_C(1) << 63);
    r.hv->ops->grant_unmap(r.grants, p, 1);
    r.hv->ops->grant_unmap(r.grants, q, 1);
    local_dirty_fetch_clear(r.dom, bitmap);
    CHECK(bitmap[0] == UINT64_C(1) << 63);
    local_dirty_fetch_clear(r.dom, bitmap);
    CHECK(bitmap[0] == 0);
    rig_close(&r);

    CASE("dirty bitmap: more words than one request");
    const unsigned n_words = LOCAL_DIRTY_MAX + 3;
    uint64_t *big = malloc(n_words * sizeof *big);
    rig_open_backend(&r, dir);
    CHECK(!local_domain_create(dir, RIG_DOMID, n_words * 64 - 5, 8, &r.dom));
    r.memory = local_domain_memory(r.dom);
    rw = local_grant_access(r.dom, 0, n_words * 64 - 6, false);
    CHECK(!copy_to(&r, RIG_DOMID, rw, 0, &byte, 1));
    local_dirty_fetch_clear(r.dom, big);
    CHECK(big[n_words - 1] == UINT64_C(1) << 58 && !big[0] && !big[n_words - 2]);
    free(big);
    rig_close(&r);
}

/* --- killed backends --------------------------------------------------------------------- */

static void
die_mapping(void *ref)
{
    struct rig r;
    void *p;

    rig_open_backend(&r, dir);
    if (r.hv->ops->grant_map(r.grants, RIG_DOMID, ref, 1, true, &p)) {
        _exit(1);
    }
    *(uint8_t *)p = 0x42;
}

/* Stops in the middle of a copy for reading, of one for writing, and while it
 * holds the lock of a third grant. */
static void
die_copying(void *refs_)
{
    struct local_req req = {.op = LOCAL_OP_OWNER_NEW};
    uint32_t *refs = refs_;
    struct attached_domain *d;
    struct local_rep rep;
    struct local_pin pin;
    struct rig r;

    rig_open_backend(&r, dir);
    struct local_hv *l = (struct local_hv *)r.hv;
    if (hv_local_attach(l, RIG_DOMID, &d) || local_rpc_call(&l->rpc, &req, 0, &rep, NULL, 0) ||
        local_pin_acquire(&d->view, refs[0], 0, rep.a, false, &pin) ||
        local_pin_acquire(&d->view, refs[1], 0, rep.a, true, &pin)) {
        _exit(1);
    }
    d->view.pins[refs[2]] = rep.a;
    d->view.entries[refs[2]] |= GTF_reading | GTF_writing;
}

static void
die_as_guest(void *unused)
{
    struct local_domain *d;

    if (local_domain_create(dir, RIG_DOMID, RIG_PAGES, RIG_GRANTS, &d)) {
        _exit(1);
    }
}

static void
test_kill_mapping(void)
{
    uint64_t bitmap[1];
    uint32_t refs[1];
    struct rig r;

    CASE("SIGKILL of a backend that maps");
    rig_open(&r, dir);
    refs[0] = local_grant_access(r.dom, 0, 1, false);
    local_dirty_fetch_clear(r.dom, bitmap);
    CHECK(run_and_kill(die_mapping, refs));
    CHECK(becomes_unused(r.dom));
    CHECK(r.memory[PAGE] == 0x42);
    CHECK(!local_grant_end(r.dom, refs[0]));
    local_dirty_fetch_clear(r.dom, bitmap);
    CHECK(bitmap[0] == 2);

    CASE("SIGKILL of a guest: its domain can be made again at once");
    local_domain_destroy(r.dom);
    CHECK(run_and_kill(die_as_guest, NULL));
    int error = local_domain_create(dir, RIG_DOMID, RIG_PAGES, RIG_GRANTS, &r.dom);
    CHECK(!error);
    if (error) {
        return;
    }
    r.memory = local_domain_memory(r.dom);
    rig_close(&r);
}

static void
test_kill_copying(void)
{
    uint32_t refs[3];
    struct rig r;
    char byte = 1;

    rig_open(&r, dir);
    CASE("SIGKILL of a backend that copies, or holds a lock");
    for (int i = 0; i < 3; i++) {
        refs[i] = local_grant_access(r.dom, 0, 1 + i, false);
    }
    /* A live copier of the same grant, in this process, must stay. */
    CHECK(!copy_from(&r, RIG_DOMID, refs[0], 0, &byte, 1));
    CHECK(run_and_kill(die_copying, refs));
    CHECK(becomes_unused(r.dom));
    usleep(10000);
    for (int i = 0; i < 3; i++) {
        CHECK(!copy_to(&r, RIG_DOMID, refs[i], 0, &byte, 1));
        CHECK(!(entry_of(&r, refs[i])->flags & (GTF_reading | GTF_writing)));
        CHECK(!local_grant_end(r.dom, refs[i]));
    }
    rig_close(&r);

    CASE("SIGKILL leaves the pins of the living");
    struct attached_domain *d;
    struct local_pin pin;
    rig_open(&r, dir);
    struct local_hv *l = (struct local_hv *)r.hv;
    struct local_req req = {.op = LOCAL_OP_OWNER_NEW};
    struct local_rep rep;
    for (int i = 0; i < 3; i++) {
        refs[i] = local_grant_access(r.dom, 0, 1 + i, false);
    }
    CHECK(!hv_local_attach(l, RIG_DOMID, &d));
    CHECK(!local_rpc_call(&l->rpc, &req, 0, &rep, NULL, 0));
    CHECK(!local_pin_acquire(&d->view, refs[0], 0, rep.a, true, &pin));
    CHECK(run_and_kill(die_copying, refs));
    for (int i = 0; i < 1000 && local_grants_in_use(r.dom) > 1; i++) {
        usleep(1000);
    }
    CHECK(local_grants_in_use(r.dom) == 1);
    CHECK(local_grant_end(r.dom, refs[0]) == EBUSY && !local_grant_end(r.dom, refs[1]));
    local_pin_release(&d->view, &pin, rep.a);
    CHECK(!local_grant_end(r.dom, refs[0]));
    hv_local_detach(l, d);
    rig_close(&r);
}

/* --- threads ---------------------------------------------------------------------------------- */

struct copier {
    pthread_t thread;
    struct hv *hv;
    uint32_t ref;
    bool write;
    bool stop; /* atomic */
    uint64_t n_done, n_refused, n_torn;
};

static void *
copy_all_the_time(void *copier_)
{
    struct copier *c = copier_;
    struct rig r = {.hv = c->hv};
    uint8_t buf[PAGE];

    r.hv->ops->grants_open(r.hv, &r.grants);
    while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
        memset(buf, 0x11, sizeof buf);
        int status = c->write ? copy_to(&r, RIG_DOMID, c->ref, 0, buf, sizeof buf)
                              : copy_from(&r, RIG_DOMID, c->ref, 0, buf, sizeof buf);

        c->n_done += status == GNTST_okay;
        c->n_refused += status != GNTST_okay;
        c->n_torn += status != GNTST_okay && status != GNTST_general_error;
        if (c->n_done % 4 == 0) {
            usleep(50); /* or the grant would never be free to revoke */
        }
    }
    r.hv->ops->grants_close(r.grants);
    return NULL;
}

static void
test_threads(void)
{
    struct copier copiers[3];
    struct rig r;

    CASE("revocation under use: never before the last copy ended");
    rig_open(&r, dir);
    uint32_t ref = local_grant_access(r.dom, 0, 1, false);
    for (int i = 0; i < 3; i++) {
        copiers[i] = (struct copier){.hv = r.hv, .ref = ref, .write = i % 2};
        pthread_create(&copiers[i].thread, NULL, copy_all_the_time, &copiers[i]);
    }
    unsigned n_busy = 0, n_changed = 0;
    for (int round = 0; round < 300; round++) {
        int error;

        while ((error = local_grant_end(r.dom, ref)) == EBUSY) {
            n_busy++;
            sched_yield();
        }
        CHECK(!error);
        /* Ours alone now: nobody may write what is no longer granted. */
        memset(r.memory + PAGE, 0x22, PAGE);
        usleep(100);
        for (unsigned i = 0; i < PAGE; i++) {
            n_changed += r.memory[PAGE + i] != 0x22;
        }
        CHECK(local_grant_access(r.dom, 0, 1, false) == ref);
        usleep(100);
    }
    CHECK(n_changed == 0);
    uint64_t done = 0;
    for (int i = 0; i < 3; i++) {
        __atomic_store_n(&copiers[i].stop, true, __ATOMIC_RELAXED);
        pthread_join(copiers[i].thread, NULL);
        CHECK(copiers[i].n_torn == 0);
        done += copiers[i].n_done;
    }
    CHECK(done > 100);
    CHECK(!local_grants_in_use(r.dom) && !local_grant_end(r.dom, ref));

    CASE("a guest that rewrites its entries all the time");
    ref = local_grant_access(r.dom, 0, 1, false);
    copiers[0] = (struct copier){.hv = r.hv, .ref = ref, .write = true};
    pthread_create(&copiers[0].thread, NULL, copy_all_the_time, &copiers[0]);
    for (int i = 0; i < 200000; i++) {
        grant_entry_v1_t *e = entry_of(&r, ref);

        __atomic_store_n(&e->frame, i % 3 ? 1 : i * 2654435761u, __ATOMIC_RELAXED);
        __atomic_store_n(&e->flags, i, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&copiers[0].stop, true, __ATOMIC_RELAXED);
    pthread_join(copiers[0].thread, NULL);
    CHECK(!local_grants_in_use(r.dom));
    rig_close(&r);
}

int
main(void)
{
    fixture_dir(dir, sizeof dir);
    if (!fixture_start(dir)) {
        return 1;
    }
    test_domains();
    test_copy();
    test_bad_segments();
    test_full_table();
    test_copy_two_domains();
    test_map();
    test_map_all_or_none();
    test_map_readonly();
    test_dirty();
    test_kill_mapping();
    test_kill_copying();
    test_threads();
    fixture_remove(dir);
    return check_done();
}
