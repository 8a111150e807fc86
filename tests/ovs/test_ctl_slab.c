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

int
main(void)
{
    random_set_seed(1);
    test_return();
    test_pieces();
    return check_done();
}
