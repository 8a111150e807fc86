/* Hello and record heads: written and checked.  The bodies are in message.c. */
#include "record.h"

#include <errno.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "bytes.h"

/* --- hello --------------------------------------------------------------------------------- */

static const char magic[8] = "WEFTMIG\n";

enum {
    HELLO_VERSION = 8,
    HELLO_LENGTH = 12,
    HELLO_FLAGS = 16,
    HELLO_INDEX = 20,
    HELLO_CONNECTIONS = 22,
    HELLO_MIGRATION = 24,
    HELLO_VM = 40,
    HELLO_EPOCH = 56,
    HELLO_PAGES = 64,
    HELLO_KEY = 72,
    HELLO_RESERVED = 88,
    HELLO_BINDER = MIG_HELLO_BOUND,
};
_Static_assert(HELLO_RESERVED + 8 == HELLO_BINDER && HELLO_BINDER + MIG_BINDER == MIG_HELLO,
               "the hello is as the document has it");

#define HELLO_FLAGS_KNOWN (MIG_HELLO_SOURCE | MIG_HELLO_TLS | MIG_HELLO_CHUNKS | MIG_HELLO_REFUSED)

static bool
all_zeros(const uint8_t *p, size_t n)
{
    uint8_t any = 0;

    for (size_t i = 0; i < n; i++) {
        any |= p[i];
    }
    return !any;
}

void
mig_hello_put(uint8_t out[MIG_HELLO], const struct mig_hello *h)
{
    memset(out, 0, MIG_HELLO);
    memcpy(out, magic, sizeof magic);
    put_le32(out + HELLO_VERSION, h->version);
    put_le32(out + HELLO_LENGTH, MIG_HELLO);
    put_le32(out + HELLO_FLAGS, h->flags);
    put_le16(out + HELLO_INDEX, h->index);
    put_le16(out + HELLO_CONNECTIONS, h->n_connections);
    memcpy(out + HELLO_MIGRATION, h->migration, 16);
    memcpy(out + HELLO_VM, h->vm, 16);
    put_le64(out + HELLO_EPOCH, h->epoch);
    put_le64(out + HELLO_PAGES, h->n_pages);
    put_le64(out + HELLO_KEY, h->key[0]);
    put_le64(out + HELLO_KEY + 8, h->key[1]);
    memcpy(out + HELLO_BINDER, h->binder, MIG_BINDER);
}

static const char *
hello_fault(const uint8_t in[MIG_HELLO], const struct mig_hello *h)
{
    if (h->flags & ~HELLO_FLAGS_KNOWN) {
        return "hello: unknown flags";
    }
    if ((h->flags & MIG_HELLO_SOURCE) && (h->flags & MIG_HELLO_REFUSED)) {
        return "hello: a source does not refuse";
    }
    if (!h->n_connections || h->n_connections > MIG_CONNECTIONS_MAX) {
        return "hello: number of connections";
    }
    if (h->index >= h->n_connections) {
        return "hello: connection beyond their number";
    }
    if (h->flags & MIG_HELLO_CHUNKS ? h->n_pages != 0 : !h->n_pages || h->n_pages > MIG_PAGES_MAX) {
        return "hello: number of pages";
    }
    if (!all_zeros(in + HELLO_RESERVED, 8)) {
        return "hello: reserved bytes are not zero";
    }
    if (!(h->flags & MIG_HELLO_TLS) && !all_zeros(h->binder, MIG_BINDER)) {
        return "hello: a binder without TLS";
    }
    return NULL;
}

int
mig_hello_get(const uint8_t in[MIG_HELLO], struct mig_hello *h, const char **why)
{
    if (memcmp(in, magic, sizeof magic)) {
        *why = "hello: not a migration stream";
        return EPROTO;
    }
    if (get_le32(in + HELLO_VERSION) != MIG_VERSION) {
        *why = "hello: another version of the stream";
        return EPROTONOSUPPORT;
    }
    if (get_le32(in + HELLO_LENGTH) != MIG_HELLO) {
        *why = "hello: length";
        return EPROTO;
    }
    *h = (struct mig_hello){
        .version = MIG_VERSION,
        .flags = get_le32(in + HELLO_FLAGS),
        .index = get_le16(in + HELLO_INDEX),
        .n_connections = get_le16(in + HELLO_CONNECTIONS),
        .epoch = get_le64(in + HELLO_EPOCH),
        .n_pages = get_le64(in + HELLO_PAGES),
        .key = {get_le64(in + HELLO_KEY), get_le64(in + HELLO_KEY + 8)},
    };
    memcpy(h->migration, in + HELLO_MIGRATION, 16);
    memcpy(h->vm, in + HELLO_VM, 16);
    memcpy(h->binder, in + HELLO_BINDER, MIG_BINDER);
    *why = hello_fault(in, h);
    return *why ? EPROTO : 0;
}

static const char *
mismatch(const struct mig_hello *own, const struct mig_hello *got)
{
    const uint32_t same = MIG_HELLO_TLS | MIG_HELLO_CHUNKS;

    if (!((own->flags ^ got->flags) & MIG_HELLO_SOURCE)) {
        return "hello: from the same end";
    }
    if (memcmp(own->vm, got->vm, 16)) {
        return "hello: another VM";
    }
    if (memcmp(own->migration, got->migration, 16)) {
        return "hello: another migration";
    }
    if (own->epoch != got->epoch) {
        return "hello: another epoch";
    }
    if ((own->flags ^ got->flags) & same) {
        return "hello: another kind of stream";
    }
    if (!(own->flags & MIG_HELLO_SOURCE)) {
        return NULL; /* what follows is the source's to say */
    }
    if (own->index != got->index || own->n_connections != got->n_connections) {
        return "hello: another connection";
    }
    if (own->n_pages != got->n_pages || memcmp(own->key, got->key, sizeof own->key)) {
        return "hello: another memory";
    }
    return NULL;
}

int
mig_hello_match(const struct mig_hello *own, const struct mig_hello *got, const char **why)
{
    *why = mismatch(own, got);
    return *why ? EPROTO : 0;
}

/* --- record heads --------------------------------------------------------------------------- */

enum { FROM_SOURCE = 1, FROM_DESTINATION = 2, FROM_EITHER = 3 };

/* What is known of each type; lengths of the body. */
static const struct {
    const char *name;
    uint32_t min, max;
    uint8_t from;
    bool optional;
} types[MIG_TYPES] = {
    [MIG_CONFIG] = {"CONFIG", 24, 24 + MIG_MAX_IDENTITY, FROM_SOURCE, false},
    [MIG_ACCEPT] = {"ACCEPT", 8, 8, FROM_DESTINATION, false},
    [MIG_PAGES] = {"PAGES", MIG_BATCH_HEAD + MIG_DESC, MIG_MAX_PAGES, FROM_SOURCE, false},
    [MIG_BARRIER] = {"BARRIER", 16, 16, FROM_SOURCE, false},
    [MIG_ROUND] = {"ROUND", 16, 16, FROM_SOURCE, false},
    [MIG_CHUNK] = {"CHUNK", 9, 8 + MIG_MAX_BLOB, FROM_SOURCE, false},
    [MIG_STATE] = {"STATE", 17, 16 + MIG_MAX_BLOB, FROM_SOURCE, false},
    [MIG_NETWORK] = {"NETWORK", 17, 16 + MIG_MAX_BLOB, FROM_SOURCE, true},
    [MIG_LATE] = {"LATE", 1, MIG_MAX_LATE, FROM_SOURCE, true},
    [MIG_PENDING] = {"PENDING", 8, 8 + 16 * MIG_RANGES_MAX, FROM_SOURCE, false},
    [MIG_FINAL] = {"FINAL", 48, 48, FROM_SOURCE, false},
    [MIG_READY] = {"READY", 24, 24, FROM_DESTINATION, false},
    [MIG_COMMITTED] = {"COMMITTED", 8, 8, FROM_EITHER, false},
    [MIG_ABORT] = {"ABORT", 4, 4 + MIG_TEXT_MAX, FROM_EITHER, false},
    [MIG_REQUEST] = {"REQUEST", 8, 8 * MIG_REQUEST_MAX, FROM_DESTINATION, false},
    [MIG_PLACED] = {"PLACED", 24, 24, FROM_DESTINATION, false},
    [MIG_CLOCK] = {"CLOCK", 32, 32, FROM_EITHER, true},
    [MIG_RUNNING] = {"RUNNING", 16, 16, FROM_DESTINATION, false},
    [MIG_END] = {"END", 8, 8, FROM_EITHER, false},
    [MIG_ARRIVED] = {"ARRIVED", 8, 8 + 24 * MIG_ARRIVED_MAX + MIG_ARRIVED_TEXT_MAX,
                     FROM_DESTINATION, true},
};

/* Of an optional record that is not known. */
#define UNKNOWN_MAX MIG_MAX_PAGES

enum { RECORD_TYPE = 0, RECORD_LENGTH = 4, RECORD_SEQUENCE = 8, RECORD_CHECK = 12 };
_Static_assert(RECORD_CHECK + 4 == MIG_RECORD_HEAD, "the head is as the document has it");

/* Over the head but the check itself, and the body. */
static uint32_t
check_of(const uint8_t head[MIG_RECORD_HEAD], const void *checked, size_t n)
{
    return (uint32_t)(XXH3_64bits(head, RECORD_CHECK) ^ XXH3_64bits(checked, n));
}

void
mig_record_put(uint8_t out[MIG_RECORD_HEAD], uint32_t type, uint32_t length, uint32_t sequence,
               const void *checked, size_t n_checked)
{
    bool optional = type < MIG_TYPES && types[type].optional;

    put_le32(out + RECORD_TYPE, optional ? type | MIG_OPTIONAL : type);
    put_le32(out + RECORD_LENGTH, length);
    put_le32(out + RECORD_SEQUENCE, sequence);
    put_le32(out + RECORD_CHECK, check_of(out, checked, n_checked));
}

bool
mig_record_check_ok(const uint8_t in[MIG_RECORD_HEAD], const void *checked, size_t n_checked)
{
    return get_le32(in + RECORD_CHECK) == check_of(in, checked, n_checked);
}

static const char *
record_fault(const struct mig_record *r, bool optional, bool from_source)
{
    if (!r->known) {
        return !optional                 ? "record: of an unknown mandatory type"
               : r->length > UNKNOWN_MAX ? "record: too long"
                                         : NULL;
    }
    if (optional != types[r->type].optional) {
        return "record: optional or not, against its type";
    }
    if (!(types[r->type].from & (from_source ? FROM_SOURCE : FROM_DESTINATION))) {
        return "record: of a type of the other direction";
    }
    if (r->length < types[r->type].min || r->length > types[r->type].max) {
        return "record: length";
    }
    return NULL;
}

int
mig_record_get(const uint8_t in[MIG_RECORD_HEAD], bool from_source, uint32_t sequence,
               struct mig_record *r, const char **why)
{
    uint32_t type = get_le32(in + RECORD_TYPE);

    *r = (struct mig_record){
        .type = type & ~MIG_OPTIONAL,
        .length = get_le32(in + RECORD_LENGTH),
        .sequence = get_le32(in + RECORD_SEQUENCE),
        .check = get_le32(in + RECORD_CHECK),
    };
    r->known = r->type < MIG_TYPES && types[r->type].name;
    *why = r->sequence != sequence ? "record: out of sequence"
                                   : record_fault(r, type & MIG_OPTIONAL, from_source);
    return *why ? EPROTO : 0;
}

uint32_t
mig_record_min(uint32_t type)
{
    return type < MIG_TYPES ? types[type].min : 0;
}

uint32_t
mig_record_max(uint32_t type)
{
    return type < MIG_TYPES && types[type].name ? types[type].max : UNKNOWN_MAX;
}

const char *
mig_type_name(uint32_t type)
{
    return type < MIG_TYPES && types[type].name ? types[type].name : "?";
}
