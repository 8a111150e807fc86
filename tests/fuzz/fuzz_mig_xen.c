/* Feeds the xen driver's receiving end with hostile chunks.
 *
 * Input: a byte (bit 0: a PV domain; bit 1: the stream comes as it is, through the
 * sending end, not as chunks; bit 2: a domain's configuration), then the chunks, each
 * behind its length (le16), or the stream, or the configuration.  Beyond the sanitizers' own
 * checks: what is handed on is a stream that another state machine takes, and after a refusal
 * nothing is; of what is taken from a configuration, all is taken again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "xen_chunk.h"
#include "xen_config.h"

enum { PFNS = 1 << 16 };

static void
require(bool holds)
{
    if (!holds) {
        abort();
    }
}

struct far_end {
    struct xen_stream check;
    unsigned int n_configs;
    bool refused;
};

static int
got_config(void *f_, const char *json, size_t n)
{
    struct far_end *f = f_;

    require(!f->refused && !f->n_configs++ && n && n <= XEN_CONFIG_MAX && !memchr(json, 0, n));
    return 0;
}

static int
got_bytes(void *f_, const uint8_t *bytes, size_t n)
{
    struct far_end *f = f_;
    const char *why;
    size_t want;

    require(!f->refused && f->n_configs == 1);
    while (n) {
        enum xen_want kind = xen_stream_want(&f->check, &want);

        require(kind != XEN_WANT_END);
        want = kind == XEN_WANT_PAGE ? MIG_PAGE_BYTES : want;
        require(n >= want || kind == XEN_WANT_BODY);
        want = want < n ? want : n;
        require(xen_stream_take(&f->check, bytes, want, &why) == 0);
        bytes += want;
        n -= want;
    }
    /* The end is kept back. */
    require(!xen_join_complete(&f->check));
    return 0;
}

static void
chunks(struct xen_unpack *u, struct far_end *f, const uint8_t *data, size_t size)
{
    const char *why;

    while (size >= 2 && !f->refused) {
        size_t n = get_le16(data);

        data += 2;
        size -= 2;
        n = n < size ? n : size;
        f->refused = xen_unpack_chunk(u, data, n, &why) != 0;
        require(!f->refused || why[0]);
        data += n;
        size -= n;
    }
}

/* What the sending end makes of a stream, the receiving end takes. */
static void
stream(struct xen_unpack *u, struct far_end *f, bool pv, const uint8_t *data, size_t size)
{
    struct xen_split split;
    struct xen_pack *pack;
    struct xen_piece piece = {XEN_BYTES};
    uint8_t digest[MIG_DIGEST_BYTES];
    const char *why;
    size_t n;
    int error = 0;

    require(!xen_split_init(&split, pv, PFNS) && !xen_pack_create(MIG_COMPRESS_AUTO, &pack));
    xen_pack_begin(pack);
    xen_pack_config(pack, "{}", 2);
    while (!error && piece.kind != XEN_END) {
        const uint8_t *chunk = xen_pack_bytes(pack, &n);

        require(n <= MIG_CHUNK_MAX && !xen_unpack_chunk(u, chunk, n, &why));
        xen_pack_begin(pack);
        while ((error = xen_split_next(&split, &piece, &why)) == EAGAIN && size) {
            uint8_t *room = xen_split_room(&split, &n);

            require(n > 0);
            n = n < size ? n : size;
            memcpy(room, data, n);
            xen_split_read(&split, n);
            data += n;
            size -= n;
        }
        if (!error) {
            xen_pack_piece(pack, &piece);
        }
    }
    xen_pack_digest(pack, digest);
    require(error || !xen_unpack_finish(u, digest, &why));
    xen_pack_destroy(pack);
    xen_split_free(&split);
}

static void
config(const uint8_t *data, size_t size)
{
    char *out, *again, why[XEN_CONFIG_WHY];

    if (xen_config_check((const char *)data, size, 1 << 20, &out, why)) {
        require(why[0] && !out);
        return;
    }
    require(!xen_config_check(out, strlen(out), 1 << 20, &again, why) && !strcmp(out, again));
    free(again);
    free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct far_end far;
    struct xen_unpack *u;
    struct xen_sink sink = {got_config, got_bytes, &far};
    bool pv = size && data[0] & 1;

    if (!size) {
        return 0;
    }
    if (data[0] & 4) {
        config(data + 1, size - 1);
        return 0;
    }
    far = (struct far_end){.refused = false};
    xen_stream_init(&far.check, pv, PFNS);
    require(!xen_unpack_create(pv, PFNS, &sink, &u));
    if (data[0] & 2) {
        stream(u, &far, pv, data + 1, size - 1);
    } else {
        chunks(u, &far, data + 1, size - 1);
    }
    xen_unpack_destroy(u);
    return 0;
}
