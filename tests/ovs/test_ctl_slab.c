/* Memory of small things: pieces do not meet, and slabs come back. */
#include <config.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "random.h"
#include "slab.h"
#include "util.h"

#ifdef __SANITIZE_ADDRESS__
#define EACH_BY_MALLOC true
#else
#define EACH_BY_MALLOC false
#endif

#define N_PIECES 40000

static struct piece {
    uint8_t *p;
    size_t size;
    uint8_t mark;
} pieces[N_PIECES];

static bool
is_whole(const struct piece *x)
{
    for (size_t i = 0; i < x->size; i++) {
        if (x->p[i] != x->mark) {
            return false;
        }
    }
    return true;
}

static void
make_piece(struct piece *x, size_t size)
{
    x->size = size;
    x->mark = random_uint32();
    x->p = slab_alloc(size);
    memset(x->p, x->mark, size);
}

static void
drop_piece(struct piece *x)
{
    slab_free(x->p, x->size);
    x->p = NULL;
    x->size = 0;
}

static void
test_pieces(void)
{
    size_t n_bad = 0;

    CASE("pieces of all sizes keep what is written to them while others come and go");
    for (size_t i = 0; i < N_PIECES; i++) {
        make_piece(&pieces[i], 1 + random_range(SLAB_MAX + 100));
        n_bad += (uintptr_t)pieces[i].p % 16 != 0;
    }
    for (size_t i = 0; i < 4 * N_PIECES; i++) {
        struct piece *x = &pieces[random_range(N_PIECES)];

        n_bad += !is_whole(x);
        drop_piece(x);
        make_piece(x, 1 + random_range(SLAB_MAX + 100));
    }
    for (size_t i = 0; i < N_PIECES; i++) {
        n_bad += !is_whole(&pieces[i]);
        drop_piece(&pieces[i]);
    }
    CHECK(!n_bad);

    CASE("what is asked for in zeros is zero, though it was used before");
    uint8_t *p = slab_zalloc(200);
    static const uint8_t zeros[200];
    CHECK(!memcmp(p, zeros, sizeof zeros));
    slab_free(p, 200);
    slab_free(NULL, 200);
}

static void
test_return(void)
{
    size_t before = slab_bytes(), full;

    CASE("regions go back when nothing is in them, in whatever order");
    for (size_t i = 0; i < N_PIECES; i++) {
        make_piece(&pieces[i], 512);
    }
    full = slab_bytes();
    CHECK(EACH_BY_MALLOC ? !full : full >= before + N_PIECES * 512 - (4u << 20));
    for (size_t i = N_PIECES - 1; i > 0; i--) {
        struct piece x = pieces[i], *other = &pieces[random_range(i + 1)];

        pieces[i] = *other;
        *other = x;
    }
    for (size_t i = 0; i < N_PIECES; i++) {
        drop_piece(&pieces[i]);
    }
    CHECK(slab_bytes() <= before + (4u << 20));

    CASE("slabs of one size serve another");
    for (size_t i = 0; i < N_PIECES; i++) {
        make_piece(&pieces[i], 500);
    }
    for (size_t i = 0; i < N_PIECES; i++) {
        drop_piece(&pieces[i]);
    }
    for (size_t i = 0; i < N_PIECES; i++) {
        make_piece(&pieces[i], 300);
    }
    CHECK(slab_bytes() <= full);
    for (size_t i = 0; i < N_PIECES; i++) {
        drop_piece(&pieces[i]);
    }
}

/* Sizes around those where an array becomes pages of its own. */
static size_t
array_size(void)
{
    static const size_t ends[] = {100, 3000, 65536, 66000, 300000};

    return random_range(ends[random_range(5)]) + random_range(2) * 65536;
}

static void
resize_piece(struct piece *x, size_t size)
{
    size_t before = x->size;

    x->p = slab_resize(x->p, before, size);
    x->size = size;
    if (size > before) {
        memset(x->p + before, x->mark, size - before);
    }
}

static void
test_arrays(void)
{
    size_t before = slab_bytes(), n_bad = 0, n = 200;

    CASE("arrays keep what is in them as they grow and shrink");
    for (size_t i = 0; i < n; i++) {
        pieces[i] = (struct piece){.mark = i + 1};
    }
    for (size_t i = 0; i < 50 * n; i++) {
        struct piece *x = &pieces[random_range(n)];

        resize_piece(x, random_range(10) ? array_size() : 0);
        n_bad += !is_whole(x) || !x->p != !x->size;
    }
    for (size_t i = 0; i < n; i++) {
        n_bad += !is_whole(&pieces[i]);
    }
    CHECK(!n_bad);
    CHECK(EACH_BY_MALLOC || slab_bytes() > before);
    for (size_t i = 0; i < n; i++) {
        resize_piece(&pieces[i], 0);
    }
    CHECK(slab_bytes() == before);

    CASE("memory that is asked for at once has what was in it");
    for (size_t i = 0; i < 100; i++) {
        size_t size = 1 + array_size();
        uint8_t *p = xmalloc(size);

        memset(p, i, size / 2);
        slab_touch(p, size);
        for (size_t j = 0; j < size / 2; j++) {
            n_bad += p[j] != i;
        }
        free(p);
    }
    CHECK(!n_bad);
}

int
main(void)
{
    random_set_seed(1);
    test_return();
    test_pieces();
    test_arrays();
    return check_done();
}
