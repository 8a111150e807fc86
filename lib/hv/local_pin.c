/* See local_pin.h for the theory of operation. */
#include "local_pin.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define COPIER_SHIFT(i) (LOCAL_OWNER_BITS + (i) * (LOCAL_OWNER_BITS + 1))
#define COPIER_WRITES ((uint64_t)1 << LOCAL_OWNER_BITS)
#define COPIER_MASK (LOCAL_PIN_LOCK | COPIER_WRITES)
#define ALL_COPIERS (((UINT64_C(1) << (LOCAL_N_COPIERS * (LOCAL_OWNER_BITS + 1))) - 1) << 14)

/* A v1 entry as the one word that it is. */
union grant_word {
    uint64_t raw;
    grant_entry_v1_t entry;
};
_Static_assert(sizeof(grant_entry_v1_t) == sizeof(uint64_t), "one word an entry");

static uint64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

static uint64_t
copier(uint64_t word, unsigned i)
{
    return word >> COPIER_SHIFT(i) & COPIER_MASK;
}

static bool
has_free_copier(uint64_t word)
{
    for (unsigned i = 0; i < LOCAL_N_COPIERS; i++) {
        if (!copier(word, i)) {
            return true;
        }
    }
    return false;
}

static bool
someone_writes(uint64_t word)
{
    for (unsigned i = 0; i < LOCAL_N_COPIERS; i++) {
        if (copier(word, i) & COPIER_WRITES) {
            return true;
        }
    }
    return word & LOCAL_PIN_MAP_W;
}

static bool
someone_uses(uint64_t word)
{
    return word & (ALL_COPIERS | LOCAL_PIN_MAP_R | LOCAL_PIN_MAP_W);
}

/* --- the lock of a pin word ---------------------------------------------- */

/* Waits for the lock, and for a free copier's place if 'need_place'.  Returns
 * false only if no place came free in a second. */
static bool __attribute__((noinline))
lock_slowly(uint64_t *pin, uint16_t owner, bool need_place, uint64_t *word)
{
    static const uint64_t patience_ns = 1000000000;
    uint64_t deadline = 0;

    for (unsigned spins = 0;; spins++) {
        uint64_t seen = __atomic_load_n(pin, __ATOMIC_RELAXED);
        bool late = deadline && now_ns() > deadline;
        bool no_place = need_place && !has_free_copier(seen);

        if (no_place && late) {
            return false;
        }
        if (!no_place && (!(seen & LOCAL_PIN_LOCK) || late)) {
            uint64_t base = seen & ~LOCAL_PIN_LOCK;

            if (__atomic_compare_exchange_n(pin, &seen, base | owner, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_RELAXED)) {
                *word = base;
                return true;
            }
        }
        if (spins < 64) {
            __builtin_ia32_pause();
            continue;
        }
        deadline = deadline ? deadline : now_ns() + patience_ns;
        sched_yield();
    }
}

/* 'expected' is the likely value; '*word' becomes the value found.  A full
 * barrier: what a copier wrote before is visible before the word changes. */
static inline bool
lock(uint64_t *pin, uint16_t owner, uint64_t expected, bool need_place, uint64_t *word)
{
    *word = expected;
    return __atomic_compare_exchange_n(pin, &expected, expected | owner, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_RELAXED) ||
           lock_slowly(pin, owner, need_place, word);
}

static inline void
unlock(uint64_t *pin, uint64_t word)
{
    __atomic_store_n(pin, word, __ATOMIC_RELEASE);
}

/* --- the guest's entry ----------------------------------------------------- */

/* Checks the guest's entry and sets the flags of a use in it.  Lock held. */
static inline int
claim_entry(const struct local_view *v, uint32_t ref, uint16_t domid, bool write,
            uint16_t type_mask, uint32_t *page)
{
    const uint16_t use = write ? GTF_reading | GTF_writing : GTF_reading;
    uint64_t *where = &v->entries[ref];
    union grant_word seen = {.raw = __atomic_load_n(where, __ATOMIC_RELAXED)};

    /* A guest that changes the entry all the time shall not hold us. */
    for (int tries = 0; tries < 5; tries++) {
        union grant_word claimed = seen;

        if ((seen.entry.flags & type_mask) != GTF_permit_access || seen.entry.domid != domid ||
            (write && seen.entry.flags & GTF_readonly)) {
            return GNTST_general_error;
        }
        if (seen.entry.frame >= v->n_pages) {
            return GNTST_bad_page;
        }
        claimed.entry.flags |= use;
        if (__atomic_compare_exchange_n(where, &seen.raw, claimed.raw, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
            *page = seen.entry.frame;
            return GNTST_okay;
        }
    }
    return GNTST_general_error;
}

/* Clears the flags that the users left in 'word' do not need.  Lock held. */
static inline void
settle_flags(const struct local_view *v, uint32_t ref, uint64_t word)
{
    uint16_t *flags = (uint16_t *)&v->entries[ref];
    uint16_t surplus = !someone_uses(word)     ? GTF_reading | GTF_writing
                       : !someone_writes(word) ? GTF_writing
                                               : 0;

    if (surplus) {
        __atomic_and_fetch(flags, (uint16_t)~surplus, __ATOMIC_RELEASE);
    }
}

void
local_mark_dirty(const struct local_view *v, uint32_t page)
{
    uint64_t *word = &v->dirty[page / 64];
    uint64_t bit = UINT64_C(1) << page % 64;

    __atomic_or_fetch(word, bit, __ATOMIC_SEQ_CST);
}

/* --- copies ------------------------------------------------------------------ */

int
local_pin_acquire(const struct local_view *v, uint32_t ref, uint16_t domid, uint16_t owner,
                  bool write, struct local_pin *p)
{
    uint64_t *pin, word;
    unsigned i = 0;
    int status;

    if (ref >= v->n_entries) {
        return GNTST_bad_gntref;
    }
    pin = &v->pins[ref];
    if (!lock(pin, owner, 0, true, &word)) {
        return GNTST_eagain;
    }
    status = claim_entry(v, ref, domid, write, GTF_type_mask, &p->page);
    if (status == GNTST_okay) {
        while (copier(word, i)) {
            i++;
        }
        p->copier = ((uint64_t)owner | (write ? COPIER_WRITES : 0)) << COPIER_SHIFT(i);
        p->ref = ref;
        p->write = write;
        word |= p->copier;
    }
    unlock(pin, word);
    return status;
}

void
local_pin_release(const struct local_view *v, const struct local_pin *p, uint16_t owner)
{
    uint64_t *pin = &v->pins[p->ref];
    uint64_t word;

    lock(pin, owner, p->copier, false, &word);
    if (p->write) {
        /* After the write, so that whoever clears the bit first sees the bytes.
         * Locking was a full barrier: a bit found set here is cleared later. */
        uint64_t bit = UINT64_C(1) << p->page % 64;

        if (!(__atomic_load_n(&v->dirty[p->page / 64], __ATOMIC_SEQ_CST) & bit)) {
            local_mark_dirty(v, p->page);
        }
    }
    word &= ~p->copier;
    settle_flags(v, p->ref, word);
    unlock(pin, word);
}

/* --- the broker's side ---------------------------------------------------------- */

int
local_pin_map(const struct local_view *v, uint32_t ref, uint16_t domid, bool write, uint32_t *page)
{
    uint64_t word;
    int status;

    if (ref >= v->n_entries) {
        return GNTST_bad_gntref;
    }
    lock(&v->pins[ref], LOCAL_OWNER_BROKER, 0, false, &word);
    status = claim_entry(v, ref, domid, write, GTF_type_mask | GTF_sub_page, page);
    if (status == GNTST_okay) {
        word |= write ? LOCAL_PIN_MAP_W : LOCAL_PIN_MAP_R;
    }
    unlock(&v->pins[ref], word);
    return status;
}

void
local_pin_unmap(const struct local_view *v, uint32_t ref, bool still_read, bool still_written)
{
    uint64_t word;

    lock(&v->pins[ref], LOCAL_OWNER_BROKER, 0, false, &word);
    word &= ~(LOCAL_PIN_MAP_R | LOCAL_PIN_MAP_W);
    word |= (still_read ? LOCAL_PIN_MAP_R : 0) | (still_written ? LOCAL_PIN_MAP_W : 0);
    settle_flags(v, ref, word);
    unlock(&v->pins[ref], word);
}

/* Heals one word; see the top of local_pin.h. */
static void
heal_word(const struct local_view *v, uint32_t ref, bool (*dead)(void *, uint16_t), void *ctx)
{
    uint64_t *pin = &v->pins[ref];
    uint64_t word = __atomic_load_n(pin, __ATOMIC_ACQUIRE);
    uint16_t holder = word & LOCAL_PIN_LOCK;
    bool dead_holder = holder && dead(ctx, holder);
    bool dead_copier = false;

    for (unsigned i = 0; i < LOCAL_N_COPIERS; i++) {
        uint16_t who = copier(word, i) & LOCAL_PIN_LOCK;

        dead_copier |= who && dead(ctx, who);
    }
    if (!dead_holder && !dead_copier) {
        return;
    }
    if (dead_holder) {
        /* Nobody else changes a locked word, the dead do not either. */
        word &= ~LOCAL_PIN_LOCK;
        __atomic_store_n(pin, word | LOCAL_OWNER_BROKER, __ATOMIC_RELAXED);
    } else {
        lock(pin, LOCAL_OWNER_BROKER, word, false, &word);
    }
    for (unsigned i = 0; i < LOCAL_N_COPIERS; i++) {
        uint64_t who = copier(word, i);

        if (!who || !dead(ctx, who & LOCAL_PIN_LOCK)) {
            continue;
        }
        if (who & COPIER_WRITES) {
            /* It may have written and not said so. */
            union grant_word e = {.raw = __atomic_load_n(&v->entries[ref], __ATOMIC_RELAXED)};

            if (e.entry.frame < v->n_pages) {
                local_mark_dirty(v, e.entry.frame);
            }
        }
        word &= ~(COPIER_MASK << COPIER_SHIFT(i));
    }
    settle_flags(v, ref, word);
    unlock(pin, word);
}

void
local_pin_heal(const struct local_view *v, bool (*dead)(void *, uint16_t), void *ctx)
{
    for (uint32_t ref = 0; ref < v->n_entries; ref++) {
        if (__atomic_load_n(&v->pins[ref], __ATOMIC_RELAXED)) {
            heal_word(v, ref, dead, ctx);
        }
    }
}

uint32_t
local_pin_count(const struct local_view *v)
{
    uint32_t n = 0;

    for (uint32_t ref = 0; ref < v->n_entries; ref++) {
        n += someone_uses(__atomic_load_n(&v->pins[ref], __ATOMIC_RELAXED));
    }
    return n;
}

/* --- mapping a domain -------------------------------------------------------------- */

int
local_view_map(struct local_view *v, int guest_fd, int state_fd, uint32_t n_pages,
               uint32_t n_entries)
{
    const int prot = PROT_READ | PROT_WRITE;
    void *guest, *state;

    guest = mmap(NULL, local_guest_bytes(n_pages, n_entries), prot, MAP_SHARED, guest_fd, 0);
    if (guest == MAP_FAILED) {
        return errno;
    }
    state = mmap(NULL, local_state_bytes(n_pages, n_entries), prot, MAP_SHARED, state_fd, 0);
    if (state == MAP_FAILED) {
        int error = errno;

        munmap(guest, local_guest_bytes(n_pages, n_entries));
        return error;
    }
    v->guest = guest;
    v->entries = guest;
    v->memory = v->guest + local_table_bytes(n_entries);
    v->state = state;
    v->pins = (uint64_t *)((uint8_t *)state + LOCAL_PAGE);
    v->dirty = v->pins + n_entries;
    v->n_entries = n_entries;
    v->n_pages = n_pages;
    return 0;
}

void
local_view_unmap(struct local_view *v)
{
    if (v->guest) {
        munmap(v->guest, local_guest_bytes(v->n_pages, v->n_entries));
        munmap(v->state, local_state_bytes(v->n_pages, v->n_entries));
        memset(v, 0, sizeof *v);
    }
}
