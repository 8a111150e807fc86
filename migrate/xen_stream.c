/* xen_stream: the state machine, the cutting and the joining.
 *
 * State machine.  Names are of what comes next:
 *
 *   HEADER -> RECORD -- LIBXC_CONTEXT --> IMAGE_HEADER -> IMAGE_RECORD
 *               ^  ^                                       |   ^  ^
 *               |  +------------- libxc END ---------------+   |  |
 *               |                                              |  |
 *               +-- emulator's, optional: BODY                 |  |
 *               |                            other records: IMAGE_BODY
 *             END -> DONE                                         |
 *                                   PAGE_DATA: PAGE_COUNT -> PFNS -> PAGES */
#include "xen_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

enum state {
    HEADER,
    RECORD,
    BODY,
    IMAGE_HEADER,
    IMAGE_RECORD,
    IMAGE_BODY,
    PAGE_COUNT,
    PFNS,
    PAGES,
    DONE,
};

/* libxl's records. */
enum {
    XL_END = 0,
    XL_LIBXC_CONTEXT = 1,
};

/* libxc's records. */
enum {
    XC_END = 0,
    XC_PAGE_DATA = 1,
    XC_PV_INFO = 2,
    XC_PV_P2M_FRAMES = 3,
    XC_PV_VCPU_BASIC = 4,
    XC_PV_VCPU_EXTENDED = 5,
    XC_PV_VCPU_XSAVE = 6,
    XC_SHARED_INFO = 7,
    XC_TSC_INFO = 8,
    XC_HVM_CONTEXT = 9,
    XC_HVM_PARAMS = 10,
    XC_PV_VCPU_MSRS = 12,
    XC_STATIC_DATA_END = 16,
    XC_CPUID_POLICY = 17,
    XC_MSR_POLICY = 18,
    XC_KNOWN,
};
#define OPTIONAL 0x80000000u
#define BIT(type) (1u << (type))

enum {
    IMAGE_HEADER_BYTES = 24 + 16, /* image header and domain header */
    PAGE_COUNT_BYTES = 8,
    PAGE_SHIFT = 12,
};
_Static_assert(1 << PAGE_SHIFT == MIG_PAGE_BYTES, "a guest's page");
_Static_assert(XC_KNOWN <= 32, "a bit for each");

#define IMAGE_MARKER UINT64_MAX
#define IMAGE_ID 0x58454e46u
#define LIBXL_IDENT "LibxlFmt"

const uint8_t xen_stream_prologue[XEN_PROLOGUE_BYTES] = {
    'L', 'i', 'b', 'x', 'l', 'F', 'm', 't', 0, 0, 0, 2, 0, 0, 0, 0, XL_LIBXC_CONTEXT, 0,
};
const uint8_t xen_stream_end[XEN_RECORD_HEADER_BYTES] = {XL_END};

void
xen_stream_init(struct xen_stream *s, bool pv, uint64_t pfn_limit)
{
    memset(s, 0, offsetof(struct xen_stream, pfns));
    s->state = HEADER;
    s->pv = pv;
    s->pfn_limit = pfn_limit;
}

enum xen_want
xen_stream_want(const struct xen_stream *s, size_t *n)
{
    switch ((enum state)s->state) {
    case HEADER:
        *n = XEN_HEADER_BYTES;
        return XEN_WANT_FIXED;
    case RECORD:
    case IMAGE_RECORD:
        *n = XEN_RECORD_HEADER_BYTES;
        return XEN_WANT_FIXED;
    case IMAGE_HEADER:
        *n = IMAGE_HEADER_BYTES;
        return XEN_WANT_FIXED;
    case PAGE_COUNT:
        *n = PAGE_COUNT_BYTES;
        return XEN_WANT_FIXED;
    case PFNS:
        *n = s->n_pfns * sizeof *s->pfns;
        return XEN_WANT_FIXED;
    case BODY:
    case IMAGE_BODY:
        *n = s->left;
        return XEN_WANT_BODY;
    case PAGES:
        *n = s->n_pages - s->next_page;
        return XEN_WANT_PAGE;
    case DONE:
        break;
    }
    *n = 0;
    return XEN_WANT_END;
}

uint64_t
xen_stream_pfn(const struct xen_stream *s)
{
    return s->pfns[s->next_page];
}

static int
refuse(const char **why, const char *text)
{
    *why = text;
    return EBADMSG;
}

static int
take_header(struct xen_stream *s, const uint8_t *b, const char **why)
{
    if (memcmp(b, LIBXL_IDENT, 8) || get_be32(b + 8) != 2) {
        return refuse(why, "not a libxl stream of version 2");
    }
    if (get_be32(b + 12)) {
        return refuse(why, "big-endian, converted or unknown libxl stream");
    }
    s->state = RECORD;
    return 0;
}

static uint64_t
padded(uint32_t length)
{
    return ((uint64_t)length + 7) & ~UINT64_C(7);
}

/* A record's body of any content is next, if it has one. */
static int
to_body(struct xen_stream *s, uint32_t length, enum state body)
{
    s->left = padded(length);
    s->state = s->left ? body : s->state;
    return 0;
}

static int
take_record(struct xen_stream *s, const uint8_t *b, const char **why)
{
    uint32_t type = get_le32(b), length = get_le32(b + 4);

    if (length > XEN_RECORD_BYTES) {
        return refuse(why, "libxl record too long");
    }
    if (type & OPTIONAL) {
        return to_body(s, length, BODY);
    }
    /* There is no device model whose records could come. */
    if (length || type > XL_LIBXC_CONTEXT || (type == XL_LIBXC_CONTEXT) == s->image_end) {
        return refuse(why, "libxl record that does not belong here");
    }
    s->state = type == XL_END ? DONE : IMAGE_HEADER;
    return 0;
}

static int
take_image_header(struct xen_stream *s, const uint8_t *b, const char **why)
{
    const uint8_t *domain = b + 24;
    uint32_t type = get_le32(domain);

    s->version = get_be32(b + 12);
    if (get_le64(b) != IMAGE_MARKER || get_be32(b + 8) != IMAGE_ID || s->version < 2 ||
        s->version > 3 || get_be16(b + 16)) {
        return refuse(why, "not a little-endian libxc image of version 2 or 3");
    }
    if (s->pv ? type != XEN_DOMAIN_PV : type != XEN_DOMAIN_HVM && type != XEN_DOMAIN_PVH) {
        return refuse(why, "image of another kind of domain");
    }
    if (get_le16(domain + 4) != PAGE_SHIFT) {
        return refuse(why, "image of another page size");
    }
    s->state = IMAGE_RECORD;
    return 0;
}

/* What a record may be long, and which records come before it and which not
 * after: bits by type. */
struct rule {
    bool pv, hvm;         /* in which domains */
    bool once;            /* at most one */
    uint32_t least, most; /* length */
    uint32_t after;
};
#define BEFORE_PAGES (BIT(XC_STATIC_DATA_END))
static const struct rule rules[XC_KNOWN] = {
    [XC_END] = {true, true, true, 0, 0, BIT(XC_PAGE_DATA)},
    [XC_PAGE_DATA] = {true, true, false, 16, XEN_RECORD_BYTES, BEFORE_PAGES},
    [XC_PV_INFO] = {true, false, true, 8, 8, 0},
    [XC_PV_P2M_FRAMES] = {true, false, true, 16, XEN_RECORD_BYTES, BEFORE_PAGES | BIT(XC_PV_INFO)},
    [XC_PV_VCPU_BASIC] = {true, false, false, 8, 1 << 20, BIT(XC_PAGE_DATA)},
    [XC_PV_VCPU_EXTENDED] = {true, false, false, 8, 1 << 20, BIT(XC_PAGE_DATA)},
    [XC_PV_VCPU_XSAVE] = {true, false, false, 8, 1 << 20, BIT(XC_PAGE_DATA)},
    [XC_PV_VCPU_MSRS] = {true, false, false, 8, 1 << 20, BIT(XC_PAGE_DATA)},
    [XC_SHARED_INFO] = {true, false, true, MIG_PAGE_BYTES, MIG_PAGE_BYTES, BIT(XC_PAGE_DATA)},
    [XC_TSC_INFO] = {true, true, true, 24, 24, 0},
    [XC_HVM_CONTEXT] = {false, true, true, 1, 16 << 20, BIT(XC_PAGE_DATA)},
    [XC_HVM_PARAMS] = {false, true, true, 8, 1 << 16, 0},
    [XC_STATIC_DATA_END] = {true, true, true, 0, 0, 0},
    [XC_CPUID_POLICY] = {true, true, true, 1, 1 << 20, 0},
    [XC_MSR_POLICY] = {true, true, true, 1, 1 << 20, 0},
};

/* Static data, whose end version 2 does not say, comes before all else. */
static uint32_t
must_precede(const struct xen_stream *s, const struct rule *r)
{
    return s->version < 3 ? r->after & ~BIT(XC_STATIC_DATA_END) : r->after;
}

static int
take_image_record(struct xen_stream *s, const uint8_t *b, const char **why)
{
    uint32_t type = get_le32(b), length = get_le32(b + 4);
    const struct rule *r = type < XC_KNOWN ? &rules[type] : NULL;

    if (type & OPTIONAL) {
        return length <= XEN_RECORD_BYTES ? to_body(s, length, IMAGE_BODY)
                                          : refuse(why, "libxc record too long");
    }
    if (!r || !(s->pv ? r->pv : r->hvm)) {
        return refuse(why, "libxc record that does not belong into this domain's image");
    }
    if (length < r->least || length > r->most) {
        return refuse(why, "libxc record of a wrong length");
    }
    if ((r->once && s->seen & BIT(type)) || must_precede(s, r) & ~s->seen) {
        return refuse(why, "libxc record out of order");
    }
    s->seen |= BIT(type);
    s->type = type;
    if (type == XC_PAGE_DATA) {
        s->left = length;
        s->state = PAGE_COUNT;
        return 0;
    }
    if (type == XC_END) {
        s->image_end = true;
        s->state = RECORD;
        return 0;
    }
    return to_body(s, length, IMAGE_BODY);
}

static int
take_page_count(struct xen_stream *s, const uint8_t *b, const char **why)
{
    s->n_pfns = get_le32(b);
    if (!s->n_pfns || s->n_pfns > XEN_BATCH_PAGES ||
        s->left < PAGE_COUNT_BYTES + (uint64_t)s->n_pfns * 8) {
        return refuse(why, "page batch of an impossible size");
    }
    s->left -= PAGE_COUNT_BYTES + (uint64_t)s->n_pfns * 8;
    s->state = PFNS;
    return 0;
}

/* Normal pages and page tables, pinned or not, have data; broken, allocated-only
 * and invalid ones have none. */
static bool
type_known(unsigned type, bool *has_data)
{
    *has_data = type <= 4 || (type >= 9 && type <= 12);
    return *has_data || type >= 13;
}

static int
take_pfns(struct xen_stream *s, const uint8_t *b, const char **why)
{
    s->n_pages = s->next_page = 0;
    for (uint32_t i = 0; i < s->n_pfns; i++) {
        uint64_t entry = get_le64(b + 8 * i), pfn = entry & ((UINT64_C(1) << 52) - 1);
        bool has_data;

        if (!type_known(entry >> 60, &has_data) || entry >> 52 & 0xff) {
            return refuse(why, "page of an unknown type");
        }
        if (pfn >= s->pfn_limit) {
            return refuse(why, "page beyond the domain's memory");
        }
        if (has_data) {
            s->pfns[s->n_pages++] = pfn;
        }
    }
    if (s->left != (uint64_t)s->n_pages * MIG_PAGE_BYTES) {
        return refuse(why, "page batch of another length than its pages");
    }
    s->state = s->n_pages ? PAGES : IMAGE_RECORD;
    return 0;
}

static int
take_body(struct xen_stream *s, size_t n)
{
    s->left -= n;
    if (!s->left) {
        s->state = s->state == BODY ? RECORD : IMAGE_RECORD;
    }
    return 0;
}

int
xen_stream_take(struct xen_stream *s, const uint8_t *b, size_t n, const char **why)
{
    size_t want;
    enum xen_want kind = xen_stream_want(s, &want);

    if (kind == XEN_WANT_END || (kind == XEN_WANT_FIXED && n != want) ||
        (kind == XEN_WANT_BODY && (n > want || !n)) ||
        (kind == XEN_WANT_PAGE && n != MIG_PAGE_BYTES)) {
        return refuse(why, "stream cut in a wrong place");
    }
    switch ((enum state)s->state) {
    case HEADER:
        return take_header(s, b, why);
    case RECORD:
        return take_record(s, b, why);
    case IMAGE_HEADER:
        return take_image_header(s, b, why);
    case IMAGE_RECORD:
        return take_image_record(s, b, why);
    case PAGE_COUNT:
        return take_page_count(s, b, why);
    case PFNS:
        return take_pfns(s, b, why);
    case PAGES:
        s->state = ++s->next_page == s->n_pages ? IMAGE_RECORD : PAGES;
        return 0;
    case BODY:
    case IMAGE_BODY:
        return take_body(s, n);
    case DONE:
        break;
    }
    return refuse(why, "bytes behind the end of the stream");
}

/* --- the source's side --------------------------------------------------------- */

enum { SPLIT_BYTES = 4 * XEN_PIECE_PAGES * MIG_PAGE_BYTES };
_Static_assert(SPLIT_BYTES > XEN_BATCH_PAGES * 8 + XEN_PIECE_PAGES * MIG_PAGE_BYTES,
               "the longest piece that must be whole fits behind another");
_Static_assert(XEN_PIECE_BYTES >= XEN_BATCH_PAGES * 8, "any piece that must be whole");

int
xen_split_init(struct xen_split *p, bool pv, uint64_t pfn_limit)
{
    xen_stream_init(&p->stream, pv, pfn_limit);
    p->size = SPLIT_BYTES;
    p->from = p->to = 0;
    p->buffer = malloc(p->size);
    return p->buffer ? 0 : ENOMEM;
}

void
xen_split_free(struct xen_split *p)
{
    free(p->buffer);
    p->buffer = NULL;
}

uint8_t *
xen_split_room(struct xen_split *p, size_t *n)
{
    /* A piece is shorter than half the buffer: little is moved, and seldom. */
    if (p->from == p->to || p->size - p->to < p->size / 2) {
        memmove(p->buffer, p->buffer + p->from, p->to - p->from);
        p->to -= p->from;
        p->from = 0;
    }
    *n = p->size - p->to;
    return p->buffer + p->to;
}

void
xen_split_read(struct xen_split *p, size_t n)
{
    p->to += n;
}

/* Pages that follow each other: all that the record still has, or a piece full. */
static int
split_pages(struct xen_split *p, size_t n, struct xen_piece *piece, const char **why)
{
    int error = 0;

    n = n < XEN_PIECE_PAGES ? n : XEN_PIECE_PAGES;
    if (p->to - p->from < n * MIG_PAGE_BYTES) {
        return EAGAIN;
    }
    *piece = (struct xen_piece){
        .kind = XEN_PAGES,
        .bytes = p->buffer + p->from,
        .n_bytes = n * MIG_PAGE_BYTES,
        .pfns = p->pfns,
        .n_pages = n,
    };
    for (size_t i = 0; i < n && !error; i++) {
        p->pfns[i] = xen_stream_pfn(&p->stream);
        error = xen_stream_take(&p->stream, p->buffer + p->from, MIG_PAGE_BYTES, why);
        p->from += MIG_PAGE_BYTES;
    }
    return error;
}

int
xen_split_next(struct xen_split *p, struct xen_piece *piece, const char **why)
{
    size_t start = p->from, n, here;
    enum xen_want kind = xen_stream_want(&p->stream, &n);

    if (kind == XEN_WANT_PAGE) {
        return split_pages(p, n, piece, why);
    }
    while (kind == XEN_WANT_FIXED || kind == XEN_WANT_BODY) {
        size_t there = p->to - p->from, room = XEN_PIECE_BYTES - (p->from - start);

        here = there < room ? there : room;
        here = n < here ? n : here;
        if (!here || (kind == XEN_WANT_FIXED && here < n)) {
            break;
        }
        int error = xen_stream_take(&p->stream, p->buffer + p->from, here, why);
        if (error) {
            return error;
        }
        p->from += here;
        kind = xen_stream_want(&p->stream, &n);
    }
    if (p->from == start) {
        *piece = (struct xen_piece){.kind = XEN_END};
        return kind != XEN_WANT_END ? EAGAIN
               : p->from == p->to   ? 0
                                    : refuse(why, "bytes behind the end of the stream");
    }
    *piece = (struct xen_piece){
        .kind = XEN_BYTES, .bytes = p->buffer + start, .n_bytes = p->from - start};
    return 0;
}

/* --- the destination's side ---------------------------------------------------- */

static int
join_pages(struct xen_stream *s, const struct xen_piece *piece, const char **why)
{
    for (uint32_t i = 0; i < piece->n_pages; i++) {
        size_t n;

        if (xen_stream_want(s, &n) != XEN_WANT_PAGE || piece->pfns[i] != xen_stream_pfn(s)) {
            return refuse(why, "pages that no batch announced");
        }
        int error =
            xen_stream_take(s, piece->bytes + (size_t)i * MIG_PAGE_BYTES, MIG_PAGE_BYTES, why);
        if (error) {
            return error;
        }
    }
    return 0;
}

static int
join_bytes(struct xen_stream *s, const struct xen_piece *piece, const char **why)
{
    size_t at = 0, n;

    while (at < piece->n_bytes) {
        enum xen_want kind = xen_stream_want(s, &n);

        /* A page that is sent among bytes, or a piece that is not whole. */
        if (kind == XEN_WANT_PAGE || (kind == XEN_WANT_FIXED && n > piece->n_bytes - at)) {
            return refuse(why, "stream cut in a wrong place");
        }
        n = n < piece->n_bytes - at ? n : piece->n_bytes - at;
        int error = xen_stream_take(s, piece->bytes + at, n, why);
        if (error) {
            return error;
        }
        at += n;
    }
    return 0;
}

int
xen_join(struct xen_stream *s, const struct xen_piece *piece, size_t *n, const char **why)
{
    int error;

    switch (piece->kind) {
    case XEN_PAGES:
        error = join_pages(s, piece, why);
        *n = (size_t)piece->n_pages * MIG_PAGE_BYTES;
        return error;
    case XEN_BYTES:
        error = join_bytes(s, piece, why);
        /* The last record is its header and nothing else. */
        *n = piece->n_bytes - (!error && xen_join_complete(s) ? XEN_RECORD_HEADER_BYTES : 0);
        return error;
    case XEN_END:
        *n = 0;
        return xen_join_complete(s) ? 0 : refuse(why, "the stream ends before its end");
    }
    return EINVAL;
}
