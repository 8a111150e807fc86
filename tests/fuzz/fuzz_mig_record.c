/* Feeds what a migration stream begins with and consists of to its parsers.
 *
 * Input: a byte (bit 0: from the source; bit 1: a hello instead of a record; bit 2: the
 * sequence is as expected), then a hello, or a record's head and body.  Beyond the
 * sanitizers' own checks: what is accepted is written again as it was read, and is
 * within the bounds that a receiver relies on. */
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "record.h"

static void
require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void
one_hello(const uint8_t *data, size_t len)
{
    struct mig_hello h, own;
    uint8_t in[MIG_HELLO] = {0}, out[MIG_HELLO];
    const char *why = NULL;

    memcpy(in, data, len < sizeof in ? len : sizeof in);
    if (mig_hello_get(in, &h, &why)) {
        require(why != NULL);
        return;
    }
    require(h.n_connections >= 1 && h.n_connections <= MIG_CONNECTIONS_MAX);
    require(h.index < h.n_connections && h.n_pages <= MIG_PAGES_MAX);
    mig_hello_put(out, &h);
    require(!memcmp(in, out, sizeof in));
    require(mig_hello_match(&h, &h, &why));
    own = h;
    own.flags ^= MIG_HELLO_SOURCE;
    require(!mig_hello_match(&own, &h, &why));
    own.epoch++;
    require(mig_hello_match(&own, &h, &why));
}

static void
look_inside(const struct mig_msg *m)
{
    uint64_t next = 0;

    switch (m->type) {
    case MIG_PENDING:
        for (uint32_t i = 0; i < m->pending.n; i++) {
            struct mig_range r = mig_range_get(m, i);

            require(r.pfn >= next && r.count && r.pfn + r.count <= MIG_PAGES_MAX);
            next = r.pfn + r.count;
        }
        break;
    case MIG_REQUEST:
        for (uint32_t i = 0; i < m->request.n; i++) {
            require(mig_request_get(m, i) < MIG_PAGES_MAX);
        }
        break;
    case MIG_STATE:
        require(m->state.offset + m->state.data.n <= m->state.total);
        require(m->state.total <= MIG_STATE_TOTAL_MAX);
        break;
    case MIG_NETWORK:
        require(m->network.offset + m->network.data.n <= m->network.total);
        require(m->network.total <= MIG_NETWORK_TOTAL_MAX);
        break;
    case MIG_ARRIVED:
        for (uint32_t i = 0; i < m->arrived.n; i++) {
            mig_arrival_get(m, i);
        }
        require(m->arrived.n <= MIG_ARRIVED_MAX && mig_arrived_text(m).n <= MIG_ARRIVED_TEXT_MAX);
        for (uint32_t i = 0; i < mig_arrived_text(m).n; i++) {
            require(mig_arrived_text(m).p[i] == '\n' ||
                    (mig_arrived_text(m).p[i] >= ' ' && mig_arrived_text(m).p[i] <= '~'));
        }
        break;
    case MIG_ABORT:
        for (const char *p = m->abort.text; *p; p++) {
            require(*p >= ' ' && *p <= '~');
        }
        break;
    }
}

static void
one_message(const struct mig_record *r, const uint8_t *body, size_t len)
{
    struct mig_msg m;
    const char *why = NULL;
    uint8_t *out;

    if (mig_msg_get(r->type, body, len, &m, &why)) {
        require(why != NULL);
        return;
    }
    look_inside(&m);
    out = malloc(len + 1);
    require(mig_msg_put(out, len, &m) == len);
    require(m.type == MIG_ABORT || !memcmp(out, body, len));
    free(out);
}

static void
one_batch(const uint8_t *body, size_t len, uint32_t length)
{
    static struct mig_batch b;
    const char *why = NULL;
    uint8_t out[MIG_BATCH_HEAD_MAX];
    uint64_t next = 0, n_pages = 1 << 20;
    size_t n = len < MIG_BATCH_HEAD ? 0 : mig_batch_peek(body, length, &why);

    if (!n || n > len || mig_batch_get(body, n, length, n_pages, &b, &why)) {
        require(n > len || len < MIG_BATCH_HEAD || why);
        return;
    }
    require(b.n >= 1 && b.n <= MIG_BATCH_PAGES && n + b.payload == length);
    for (uint32_t i = 0; i < b.n; i++) {
        const struct mig_desc *d = &b.desc[i];

        require(d->pfn >= next && d->count >= 1 && d->pfn + d->count <= n_pages);
        require(d->length <= MIG_PAGE && (d->count == 1 || d->kind == MIG_ZERO));
        next = d->pfn + d->count;
    }
    require(mig_batch_put(out, &b) == n && !memcmp(out, body, n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint8_t how, *copy;
    struct mig_record r;
    const char *why = NULL;
    size_t n;

    if (len < 1 + MIG_RECORD_HEAD) {
        return 0;
    }
    how = *data++;
    len--;
    if (how & 2) {
        one_hello(data, len);
        return 0;
    }
    if (mig_record_get(data, how & 1, how & 4 ? get_le32(data + 8) : 0, &r, &why)) {
        require(why != NULL);
        return 0;
    }
    require(r.length <= mig_record_max(r.type) && *mig_type_name(r.type));
    n = len - MIG_RECORD_HEAD;
    if (r.type != MIG_PAGES && n > r.length) {
        n = r.length;
    }
    copy = malloc(n ? n : 1); /* so that its end is watched */
    memcpy(copy, data + MIG_RECORD_HEAD, n);
    (void)mig_record_check_ok(data, copy, n);
    if (r.type == MIG_PAGES) {
        one_batch(copy, n, r.length);
    } else if (r.known) {
        one_message(&r, copy, n);
    }
    free(copy);
    return 0;
}
