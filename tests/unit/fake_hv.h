/* fake_hv: a hypervisor inside the test, for the ring code.
 *
 * One guest with memory and a grant table; grants are copied and mapped with
 * Xen's statuses (bad reference, no right to write) and gntdev's whole-call
 * EINVAL.  Hooks let a test change guest memory at a chosen moment, counters
 * say what is held.
 *
 * Threads: one. */
#ifndef FAKE_HV_H
#define FAKE_HV_H

#include "hv/hv.h"

struct fake_grant {
    bool used, readonly;
    uint32_t page;
    unsigned maps; /* mappings that exist now */
};

#define FAKE_MAPPINGS_MAX 1024u

struct fake_mapping {
    void *addr; /* NULL: free */
    uint32_t ref;
};

struct fake_hv {
    struct hv hv;
    struct hv_grants *grants;
    uint16_t domid;
    int fd;
    uint8_t *memory;
    unsigned n_pages;
    struct fake_grant *table;
    unsigned n_grants, next_grant;
    struct fake_mapping mapping[FAKE_MAPPINGS_MAX];

    uint64_t now_ns;
    int fail_copy; /* the next grant_copy() fails with this errno */
    int maps_left; /* grant_map() fails with ENOMEM after so many; -1: never */
    unsigned copies, segments, maps_held, unmaps;
    unsigned einval;        /* whole calls refused: a caller's mistake */
    unsigned double_unmaps; /* unmapped what was not mapped */
    /* Called before each segment is copied, and after each call. */
    void (*before_segment)(void *aux, const xengnttab_grant_copy_segment_t *);
    void (*after_copy)(void *aux);
    void *aux;
};

/* Grant references are FAKE_FIRST_REF and up. */
#define FAKE_FIRST_REF 8u

struct fake_hv *fake_hv_new(unsigned n_pages, unsigned n_grants);
void fake_hv_free(struct fake_hv *);
uint8_t *fake_page(struct fake_hv *, uint32_t page);
/* Grants 'page'; never runs out in a test that counts its grants. */
uint32_t fake_grant(struct fake_hv *, uint32_t page, bool readonly);
/* EBUSY while it is mapped. */
int fake_revoke(struct fake_hv *, uint32_t ref);

#endif
