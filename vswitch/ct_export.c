/* Connections to records: docs/conntrack-records.md. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "byte_buf.h"
#include "bytes.h"
#include "ct.h"
#include "ct_entry.h"
#include "ct_format.h"
#include "timeval.h"
#include "util.h"

/* --- writing --------------------------------------------------------------------- */

struct writer {
    struct byte_buf b;
    uint32_t n_records;
    size_t record; /* where the open one starts */
};

static void
begin_chunk(struct writer *w)
{
    w->b.len = 0;
    w->n_records = 0;
    byte_buf_put(&w->b, CT_CHUNK_HEADER);
}

static void
end_chunk(struct writer *w)
{
    memcpy(w->b.data, CT_MAGIC, 8);
    put_le32(w->b.data + 8, CT_VERSION);
    put_le64(w->b.data + 16, w->b.len);
    put_le32(w->b.data + 24, w->n_records);
}

static void
begin_record(struct writer *w, uint32_t type)
{
    w->record = w->b.len;
    put_le32(byte_buf_put(&w->b, RECORD_HEADER), type);
}

static void
end_record(struct writer *w)
{
    size_t len = w->b.len - w->record - RECORD_HEADER;

    put_le32(w->b.data + w->record + 4, len);
    byte_buf_put(&w->b, ROUND_UP(len, RECORD_ALIGN) - len);
    w->n_records++;
}

static uint8_t *
put_attr(struct writer *w, uint16_t type, uint16_t len)
{
    uint8_t *p = byte_buf_put(&w->b, ATTR_HEADER + ROUND_UP(len, ATTR_ALIGN));

    put_le16(p, type);
    put_le16(p + 2, len);
    return p + ATTR_HEADER;
}

static void
set_tuple(uint8_t *p, const struct ct_tuple *t)
{
    memcpy(p, t->addr, 32);
    memcpy(p + 32, t->l4, 8);
}

static void
set_peer(uint8_t *p, const struct ct_tcp_peer *peer)
{
    put_le32(p, peer->seqlo);
    put_le32(p + 4, peer->seqhi);
    put_le16(p + 8, peer->max_win);
    p[10] = peer->wscale;
    p[11] = peer->state;
}

static void
put_connection(struct writer *w, const struct ct_entry *e)
{
    uint8_t *p;

    begin_record(w, RECORD_CONNECTION);
    p = put_attr(w, ATTR_TUPLES, TUPLES_LEN);
    p[0] = e->v6 ? 6 : 4;
    p[1] = e->proto;
    put_le16(p + 2, e->zone);
    set_tuple(p + 4, &e->orig);
    set_tuple(p + 4 + TUPLE_LEN, &e->reply);

    p = put_attr(w, ATTR_LIFE, LIFE_LEN);
    put_le32(p, e->left_ms);
    put_le32(p + 4, e->timeout_policy);

    if (e->mark) {
        put_le32(put_attr(w, ATTR_MARK, 4), e->mark);
    }
    if (!is_all_zeros(e->label, sizeof e->label)) {
        memcpy(put_attr(w, ATTR_LABEL, LABEL_LEN), e->label, LABEL_LEN);
    }
    if (ct_entry_kind(e->proto) == CT_ENTRY_TCP) {
        p = put_attr(w, ATTR_TCP, TCP_LEN);
        set_peer(p, &e->tcp[0]);
        set_peer(p + TCP_PEER_LEN, &e->tcp[1]);
    } else {
        *put_attr(w, ATTR_STATE, 1) = e->state;
    }
    if (e->has_nat) {
        put_le16(put_attr(w, ATTR_NAT, 2), e->nat_action);
    }
    if (e->alg[0]) {
        memcpy(put_attr(w, ATTR_ALG, strlen(e->alg)), e->alg, strlen(e->alg));
    }
    if (e->related) {
        p = put_attr(w, ATTR_PARENT, PARENT_LEN);
        p[0] = e->parent_proto;
        set_tuple(p + 4, &e->parent);
    }
    if (e->seq_skew) {
        p = put_attr(w, ATTR_SEQ_SKEW, SEQ_SKEW_LEN);
        put_le32(p, e->seq_skew);
        p[4] = e->seq_skew_reply;
    }
    end_record(w);
}

/* --- export ---------------------------------------------------------------------- */

struct ct_exporter {
    struct conntrack *ct;
    struct ct_filter filter;
    uint16_t zone; /* filter.zone points here */
    unsigned next_list;
    size_t count;
    struct writer w;
};

struct ct_exporter *
ct_exporter_create(struct conntrack *ct, const struct ct_filter *filter)
{
    struct ct_exporter *x = xzalloc(sizeof *x);

    x->ct = ct;
    if (filter) {
        x->filter = *filter;
        if (filter->zone) {
            x->zone = *filter->zone;
            x->filter.zone = &x->zone;
        }
    }
    return x;
}

static void
export_one(const struct ct_entry *e, void *x_)
{
    struct ct_exporter *x = x_;

    if (!x->filter.want || x->filter.want(x->filter.aux, e)) {
        put_connection(&x->w, e);
        x->count++;
    }
}

static void
export_zone_limits(struct ct_exporter *x)
{
    struct cmap_position pos = {0, 0, 0};
    uint32_t limit;
    int32_t zone;

    while (ct_zone_limit_next(x->ct, &pos, &zone, &limit)) {
        if (!x->filter.zone || zone == x->zone) {
            uint8_t *p;

            begin_record(&x->w, RECORD_ZONE_LIMIT);
            p = byte_buf_put(&x->w.b, ZONE_LIMIT_LEN);
            put_le32(p, zone);
            put_le32(p + 4, limit);
            end_record(&x->w);
        }
    }
}

bool
ct_exporter_next(struct ct_exporter *x, size_t max_bytes, const uint8_t **data, size_t *len)
{
    if (x->next_list >= CT_ENTRY_LISTS) {
        return false;
    }
    begin_chunk(&x->w);
    if (!x->next_list) {
        export_zone_limits(x);
    }
    while (x->next_list < CT_ENTRY_LISTS && x->w.b.len < max_bytes) {
        ct_entry_visit(x->ct, x->next_list++, time_msec(), x->filter.zone, export_one, x);
    }
    end_chunk(&x->w);
    *data = x->w.b.data;
    *len = x->w.b.len;
    return true;
}

size_t
ct_exporter_count(const struct ct_exporter *x)
{
    return x->count;
}

void
ct_exporter_destroy(struct ct_exporter *x)
{
    if (x) {
        free(x->w.b.data);
        free(x);
    }
}

size_t
ct_export(struct conntrack *ct, const struct ct_filter *filter, uint8_t **out, size_t *out_len)
{
    struct ct_exporter *x = ct_exporter_create(ct, filter);
    const uint8_t *data;
    size_t count;

    ct_exporter_next(x, SIZE_MAX, &data, out_len);
    count = x->count;
    *out = x->w.b.data;
    x->w.b.data = NULL;
    ct_exporter_destroy(x);
    return count;
}
