/* dirty: see guest.h.
 *
 * The working set is walked with a stride that is coprime to its size, so that
 * the pages of one round lie apart.  Page i holds the number of the turn that wrote
 * it and 511 words made of that and i; the turn is noted beside the set, too.  So
 * a page that is torn, swapped with another, or older than it should be is told. */
#include "guest.h"

#define WORDS (4096u / 8u)
#define SLICE 128u /* pages written or checked between two looks at the interface */

struct dirty_stats dirty_stats;

static uint64_t (*set)[WORDS];
static uint32_t *turns; /* by page: when it was written last, 0: never */
static uint64_t at, stride, turn_now = 1;
static uint64_t started_ns, due_base; /* pages due: due_base + rate * (now - started) */
static uint64_t check_at;
static uint64_t filled; /* pages in front of the set */

static inline uint64_t
word_of(uint64_t page, uint64_t turn, unsigned i)
{
    return (page * UINT64_C(0x9e3779b97f4a7c15) ^ turn) * (2 * i + 1);
}

static void
write_page(uint64_t page, uint32_t turn)
{
    uint64_t *w = set[page], base = page * UINT64_C(0x9e3779b97f4a7c15) ^ turn, v = base * 3;

    w[0] = turn;
    for (unsigned i = 1; i < WORDS; i++, v += 2 * base) {
        w[i] = v;
    }
    turns[page] = turn;
}

static bool
page_is_right(uint64_t page)
{
    const volatile uint64_t *w = set[page];
    uint64_t wrong = 0;

    if (!turns[page]) {
        return true;
    }
    wrong |= w[0] ^ turns[page];
    for (unsigned i = 1; i < WORDS; i++) {
        wrong |= w[i] ^ word_of(page, turns[page], i);
    }
    return !wrong;
}

static uint64_t
gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Of ten pages three stay zero, four are text that compresses, three do not. */
void
dirty_fill(uint64_t mb)
{
    static const char text[] = "GET /index.html HTTP/1.1 200 OK, page ";
    uint64_t(*page)[WORDS] = (void *)(((uintptr_t)heap_start + 4095) & ~4095ull);
    uint64_t room = (CELL_BASE + cell_info.memory_bytes - (uintptr_t)page) / 4096;
    uint64_t n = mb * 1000000 / 4096 < room ? mb * 1000000 / 4096 : room;

    for (uint64_t i = 0; i < n; i++) {
        if (!(i % SLICE)) {
            guest_yield();
        }
        for (unsigned w = 0; i % 10 >= 7 && w < WORDS; w++) {
            page[i][w] = (uint64_t)guest_random() << 32 | guest_random();
        }
        for (unsigned at = 0; i % 10 >= 3 && i % 10 < 7 && at + 48 <= 4096; at += 48) {
            guest_format((char *)page[i] + at, 48, "%s%llu", text,
                         (unsigned long long)i + at / 500);
        }
    }
    filled = n;
}

uint64_t
dirty_set(uint64_t rate_mbps, uint64_t set_mb)
{
    uintptr_t start = (((uintptr_t)heap_start + 4095) & ~4095ull) + filled * 4096;
    uint64_t room = (CELL_BASE + cell_info.memory_bytes - start) / 4096;
    uint64_t max = room > 2 ? room * 4096 / (4096 + sizeof *turns) - 1 : 0;

    if (set_mb && max && !dirty_stats.set_pages) {
        uint64_t pages = set_mb * 1000000 / 4096;
        dirty_stats.set_pages = pages < max ? pages : max;
        /* The notes first, then whole pages. */
        turns = (uint32_t *)start;
        set = (void *)((start + dirty_stats.set_pages * sizeof *turns + 4095) & ~4095ull);
        stride = dirty_stats.set_pages * 5 / 8 | 1;
        while (gcd(stride, dirty_stats.set_pages) != 1) {
            stride += 2;
        }
    }
    dirty_stats.rate_mbps = dirty_stats.set_pages ? rate_mbps : 0;
    started_ns = guest_clock();
    due_base = dirty_stats.written;
    return dirty_stats.set_pages * 4096 / 1000000;
}

void
dirty_check(void)
{
    if (!dirty_stats.checking) {
        dirty_stats.checking = true;
        check_at = 0;
    }
}

/* Pages that should have been written by 'now'.  What could not be written in time
 * is not made up for later than a tenth of a second. */
static uint64_t
due(uint64_t now)
{
    uint64_t rate = dirty_stats.rate_mbps * 1000000 / 4096; /* pages per second */
    uint64_t pages = due_base + (now - started_ns) / 1000 * rate / 1000000;

    if (pages > dirty_stats.written + rate / 10 + SLICE) {
        started_ns = now;
        due_base = dirty_stats.written;
        pages = due_base + SLICE;
    }
    return pages;
}

static void
check_some(void)
{
    for (unsigned i = 0; i < SLICE && check_at < dirty_stats.set_pages; i++, check_at++) {
        if (!page_is_right(check_at)) {
            dirty_stats.first_bad = dirty_stats.corrupt ? dirty_stats.first_bad : check_at;
            dirty_stats.corrupt++;
        }
    }
    if (check_at == dirty_stats.set_pages) {
        dirty_stats.checking = false;
        dirty_stats.checks++;
        http_answer_checks();
    }
}

bool
dirty_poll(uint64_t now)
{
    if (dirty_stats.checking) {
        check_some();
    }
    if (!dirty_stats.rate_mbps) {
        return dirty_stats.checking;
    }
    uint64_t until = due(now);
    for (unsigned i = 0; i < SLICE && dirty_stats.written < until; i++) {
        write_page(at, (uint32_t)turn_now);
        dirty_stats.written++;
        at = (at + stride) % dirty_stats.set_pages;
        if (!at) {
            turn_now = (uint32_t)turn_now == UINT32_MAX ? 1 : turn_now + 1;
        }
    }
    return dirty_stats.checking || dirty_stats.written < until;
}

uint64_t
dirty_deadline(void)
{
    if (!dirty_stats.rate_mbps) {
        return UINT64_MAX;
    }
    /* Once a millisecond, unless a slice takes longer to come due. */
    uint64_t slice_ns = SLICE * 4096ull * 1000 / dirty_stats.rate_mbps;
    return guest_clock() + (slice_ns > 1000000 ? slice_ns / 8 : 1000000);
}
