/* gtx_partial: packets whose payload stays with the guest that sends them.
 *
 * Theory of Operation
 * -------------------
 * Of a large frame with a blank checksum, which nobody needs to add up, only
 * the headers are copied into its buffer.  Where it goes from there to another
 * guest on the same thread, the rest is copied from one guest's pages to the
 * other's, once (grx.c).  In every other case the rest is brought into the
 * buffer, to where it belongs, before anybody may look: gtx_bring().  So a
 * partial packet is one whose tail nobody has read yet, and no more.
 *
 * Its headers end within its head, and the head is private: what was matched,
 * tracked and changed is what is delivered.  The payload, which no policy
 * looks at, may change under the guest's hand until its slots are answered,
 * as it may on any host until it is copied.
 *
 * Partial packets live from gtx_burst() to gtx_settle(), on one thread.  The
 * burst's answers wait so long, and the slots are there to say where the rest
 * is.  A process that dies between the two has answered nothing: its successor
 * takes the burst again, and a packet that had arrived arrives twice. */
#include "gtx_priv.h"

/* All of slot 0 if it is no more, as it is where a guest puts headers apart;
 * else enough of it for any usual headers. */
#define HEAD_WHOLE 512u
#define HEAD_PART 256u
/* The most large frames to be copied at once before the next is left. */
#define PAUSE_MAX 1023u

uint16_t
gtx_head(struct gtx *g, const struct gtx_packet *p)
{
    const struct gtx_request *r = &p->request;
    struct gtx_scratch *s = g->scratch;

    if (!g->may_defer || p->rest || !(r->csum_blank || r->gso_type != XEN_NETIF_GSO_TYPE_NONE)) {
        return 0;
    }
    if (s->pause_left) {
        s->pause_left--;
        return 0;
    }
    return p->first_size <= HEAD_WHOLE ? p->first_size : HEAD_PART;
}

/* Where the frame's first byte was put, whatever came in front of it or went since. */
static uint8_t *
base(const struct gtx_packet *p)
{
    return (uint8_t *)p->m->buf_addr + NETBACK_HEADROOM;
}

/* The data slot 'k' of a packet; '*len' bytes of it are the packet's. */
static const netif_tx_request_t *
data_slot(const struct gtx_scratch *s, const struct gtx_packet *p, unsigned k, uint16_t *len)
{
    const netif_tx_request_t *slot = slot_at(s, k ? p->first + p->n_extras + k : p->first);

    *len = k ? slot->size : p->first_size;
    return slot;
}

void
gtx_list_range(struct gtx_scratch *s, const struct gtx_packet *p, uint32_t from, uint32_t to)
{
    uint32_t ofs = 0;
    uint16_t len;

    for (unsigned k = 0; k < p->n_data; k++, ofs += len) {
        const netif_tx_request_t *slot = data_slot(s, p, k, &len);
        uint32_t begin = RTE_MAX(ofs, from), end = RTE_MIN(ofs + len, to);

        if (begin < end) {
            copy_from_guest(&s->batch, base(p) + begin, slot->gref, slot->offset + (begin - ofs),
                            end - begin, p - s->packets);
        }
    }
}

static struct gtx_packet *
packet_of(const struct gtx *g, const struct rte_mbuf *m)
{
    struct gtx_scratch *s = g->scratch;
    unsigned i = (uint16_t)(m->port - PKT_PARTIAL);

    /* Others may leave anything in a field that they do not use. */
    return g->n_partial && i < s->n_packets && s->packets[i].m == m && s->packets[i].head
               ? &s->packets[i]
               : NULL;
}

bool
gtx_is_partial(const struct gtx *g, const struct rte_mbuf *m)
{
    return packet_of(g, m);
}

unsigned
gtx_pieces(const struct gtx *g, const struct rte_mbuf *m, struct gtx_piece *pieces,
           const uint8_t **at)
{
    const struct gtx_packet *p = packet_of(g, m);
    unsigned n = 0;
    uint32_t ofs = 0;
    uint16_t len;

    for (unsigned k = 0; k < p->n_data; k++, ofs += len) {
        const netif_tx_request_t *slot = data_slot(g->scratch, p, k, &len);
        uint32_t there = ofs < p->head ? RTE_MIN(p->head - ofs, len) : 0;

        if (there < len) {
            pieces[n++] = (struct gtx_piece){slot->gref, slot->offset + there, len - there};
        }
    }
    *at = base(p) + p->head;
    return n;
}

/* Lists the copies of what is missing. */
static void
fill_begin(struct gtx_scratch *s, const struct gtx_packet *p)
{
    if (!copy_has_room(&s->batch, COPIES_MAX)) {
        copy_run(&s->batch, s->failed);
    }
    gtx_list_range(s, p, p->head, p->request.size);
}

/* After the copies: the packet is whole, or false. */
static bool
fill_end(struct gtx_scratch *s, struct gtx_packet *p)
{
    bool failed = s->failed[p - s->packets];

    p->head = 0;
    p->m->port = RTE_MBUF_PORT_INVALID;
    s->spoilt |= failed;
    return !failed;
}

static bool
fill(struct gtx *g, struct gtx_packet *p)
{
    struct gtx_scratch *s = g->scratch;

    copy_begin(&s->batch, g->port);
    fill_begin(s, p);
    copy_run(&s->batch, s->failed);
    return fill_end(s, p);
}

enum drop_reason
gtx_head_offloads(struct gtx *g, struct gtx_packet *p, struct frame_layout *layout)
{
    struct gtx_scratch *s = g->scratch;
    /* The parser follows headers one by one: if they end in the head, it has
     * looked at nothing else. */
    enum drop_reason reason = gtx_frame_offloads(p->m, &p->request, s->mtu, layout);

    if (reason == DROP_N_REASONS && layout->payload <= p->head) {
        return reason;
    }
    if (!fill(g, p)) {
        return DROP_GTX_BAD_GRANT;
    }
    p->m->ol_flags = 0;
    return gtx_frame_offloads(p->m, &p->request, s->mtu, layout);
}

bool
gtx_bring(struct gtx *g, struct rte_mbuf *m)
{
    struct gtx_packet *p = packet_of(g, m);

    if (!p) {
        return true;
    }
    g->scratch->n_brought++;
    if (!fill(g, p)) {
        gtx_drop(g, p, DROP_GTX_BAD_GRANT);
        return false;
    }
    return true;
}

unsigned
gtx_complete(struct gtx *g, struct rte_mbuf **pkts, unsigned n)
{
    struct gtx_scratch *s = g->scratch;
    unsigned kept = 0;

    if (!g->n_partial) {
        return n;
    }
    copy_begin(&s->batch, g->port);
    for (unsigned i = 0; i < n; i++) {
        struct gtx_packet *p = packet_of(g, pkts[i]);

        if (p) {
            fill_begin(s, p);
        }
    }
    copy_run(&s->batch, s->failed);
    for (unsigned i = 0; i < n; i++) {
        struct gtx_packet *p = packet_of(g, pkts[i]);

        s->n_brought += p != NULL;
        if (p && !fill_end(s, p)) {
            gtx_drop(g, p, DROP_GTX_BAD_GRANT);
            pkt_free(g->port->pool, pkts[i]);
        } else {
            pkts[kept++] = pkts[i];
        }
    }
    return kept;
}

/* Where most packets had to be brought after all, the next bursts are copied at
 * once: each time it is so, twice as many.  A guest whose grants fail, at the cost of
 * another's buffers, does not soon get another chance. */
static void
learn(struct gtx_scratch *s, unsigned n_partial)
{
    if (s->spoilt) {
        s->pause = PAUSE_MAX;
    } else if (s->n_brought * 2 <= n_partial) {
        s->pause = 0;
    } else {
        s->pause = RTE_MIN(s->pause * 2 + 1, PAUSE_MAX);
    }
    s->pause_left = s->pause;
    s->n_brought = 0;
    s->spoilt = false;
}

void
gtx_settle(struct gtx *g, bool *notify)
{
    if (g->n_partial) {
        learn(g->scratch, g->n_partial);
        g->n_partial = 0;
        gtx_answer_burst(g, notify);
    }
}
