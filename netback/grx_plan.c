/* grx_plan: see grx_plan.h. */
#include "grx_plan.h"

/* False if there are too few slots. */
static bool
plan_piece(struct grx_plan *p, struct gtx_piece piece, bool divide)
{
    while (piece.len) {
        uint16_t room = HV_PAGE_SIZE - p->len[p->n_slots - 1];

        if (!room || (!divide && piece.len > room)) {
            if (p->n_slots == PLAN_SLOTS_MAX) {
                return false;
            }
            p->len[p->n_slots++] = 0;
            room = HV_PAGE_SIZE;
        }
        uint16_t *filled = &p->len[p->n_slots - 1], len = RTE_MIN(piece.len, room);
        p->copy[p->n_copies++] =
            (struct plan_copy){piece.ref, piece.offset, len, *filled, p->n_slots - 1};
        *filled += len;
        piece.offset += len;
        piece.len -= len;
    }
    return true;
}

static bool
plan_all(struct grx_plan *p, uint32_t head, const struct gtx_piece *pieces, unsigned n, bool divide)
{
    p->n_slots = 1;
    p->n_copies = 0;
    p->len[0] = head;
    for (unsigned i = 0; i < n; i++) {
        if (!plan_piece(p, pieces[i], divide)) {
            return false;
        }
    }
    return true;
}

void
grx_plan(struct grx_plan *p, uint32_t head, const struct gtx_piece *pieces, unsigned n,
         bool by_grant)
{
    uint32_t len = head;

    for (unsigned i = 0; i < n; i++) {
        len += pieces[i].len;
    }
    /* What fits one page stays in one: not every guest takes more. */
    if (!by_grant || len <= HV_PAGE_SIZE || !plan_all(p, head, pieces, n, false)) {
        plan_all(p, head, pieces, n, true);
    }
}
