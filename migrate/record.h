/* record: the migration stream's header and records (docs/migration-stream.md).
 *
 * Each connection carries, in each direction, one hello and then records.  All of a
 * message is here: how it is written and how it is checked.  What comes from outside
 * is checked before it is used; a parsed message points into the bytes it was parsed
 * from.  No state, no threads. */
#ifndef MIG_RECORD_H
#define MIG_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "digest.h"
#include "page.h"

#define MIG_VERSION 1u
#define MIG_CONNECTIONS_MAX 64u
#define MIG_PAGES_MAX (1ull << 36) /* 256 TiB of guest */

/* --- hello: the first bytes of each direction ------------------------------------------ */

#define MIG_HELLO 128u      /* bytes */
#define MIG_HELLO_BOUND 96u /* of them, what the binder binds */
#define MIG_BINDER 32u
/* RFC 5705 / RFC 8446 7.5: exported with this label and, as context, the first
 * MIG_HELLO_BOUND bytes of the hello that carries it. */
#define MIG_BINDER_LABEL "EXPORTER-weft-migration"

enum {
    MIG_HELLO_SOURCE = 1,  /* sent by the source */
    MIG_HELLO_TLS = 2,     /* the binder is there */
    MIG_HELLO_CHUNKS = 4,  /* a stream driver's: chunks, no pages */
    MIG_HELLO_REFUSED = 8, /* destination: an ABORT with the reason follows, nothing else */
};

struct mig_hello {
    uint32_t version;
    uint32_t flags;
    uint16_t index, n_connections; /* 'index' < 'n_connections' */
    uint8_t migration[16], vm[16]; /* uuids */
    uint64_t epoch;                /* of the VM, before the migration */
    uint64_t n_pages;              /* of the guest; 0 with MIG_HELLO_CHUNKS */
    uint64_t key[2];               /* of the digest; the source's choice */
    uint8_t binder[MIG_BINDER];    /* zeros without MIG_HELLO_TLS */
};

void mig_hello_put(uint8_t out[MIG_HELLO], const struct mig_hello *);

/* 0, EPROTO, or EPROTONOSUPPORT for another version. */
int mig_hello_get(const uint8_t in[MIG_HELLO], struct mig_hello *, const char **why);

/* Is 'got', from the other end, about the migration of which 'own' is our hello on the
 * same connection?  (The binder is the caller's to check.)  n_pages and key are the
 * source's to say: compared when 'own' is the source's.  0 or EPROTO. */
int mig_hello_match(const struct mig_hello *own, const struct mig_hello *got, const char **why);

/* --- records --------------------------------------------------------------------------- */

#define MIG_RECORD_HEAD 16u
#define MIG_OPTIONAL 0x80000000u /* of a type: whoever does not know it skips it */

enum mig_type {
    MIG_CONFIG = 1,     /* source: what the guest needs; before all else */
    MIG_ACCEPT = 2,     /* destination: has made the guest, send */
    MIG_PAGES = 3,      /* source: a batch; page.h */
    MIG_BARRIER = 4,    /* source, every connection */
    MIG_ROUND = 5,      /* source: a pre-copy round begins */
    MIG_CHUNK = 6,      /* source: bytes of a stream driver */
    MIG_STATE = 7,      /* source: registers and devices */
    MIG_NETWORK = 8,    /* source, optional: the switch's state of the vifs */
    MIG_LATE = 9,       /* source, optional: a frame that came for a vif after it left */
    MIG_PENDING = 10,   /* source: pages that are still to come (post-copy) */
    MIG_FINAL = 11,     /* source: that was all; digest */
    MIG_READY = 12,     /* destination: loaded, digest equal */
    MIG_COMMITTED = 13, /* either: the row says the destination */
    MIG_ABORT = 14,     /* either */
    MIG_REQUEST = 15,   /* destination: pages it needs now (post-copy) */
    MIG_PLACED = 16,    /* destination: how far it is (flow control) */
    MIG_CLOCK = 17,     /* either, optional: sample of both clocks */
    MIG_RUNNING = 18,   /* destination: the guest runs */
    MIG_END = 19,       /* either, every connection: nothing follows */
    MIG_ARRIVED = 20,   /* destination, optional: blackouts of the vifs, what was lost */
    MIG_TYPES
};

struct mig_record {
    uint32_t type; /* without MIG_OPTIONAL */
    bool known;    /* false: optional and to be skipped */
    uint32_t length;
    uint32_t sequence; /* per connection and direction, from 0 */
    uint32_t check;
};

/* 'checked': of a body what the check covers: all of it, but of PAGES the head and the
 * descriptors (the payload is covered by the pages' hashes).  'length': of the body. */
void mig_record_put(uint8_t out[MIG_RECORD_HEAD], uint32_t type, uint32_t length, uint32_t sequence,
                    const void *checked, size_t n_checked);

/* Checks all but the check: EPROTO for a mandatory record it does not know, a length that is not
 * that type's, a sequence other than 'sequence', a type that this direction does not have. */
int mig_record_get(const uint8_t in[MIG_RECORD_HEAD], bool from_source, uint32_t sequence,
                   struct mig_record *, const char **why);
bool mig_record_check_ok(const uint8_t in[MIG_RECORD_HEAD], const void *checked, size_t n_checked);

/* The shortest and longest body of a type; whoever receives has room for that.  0, and a bound,
 * for a type that is not known. */
uint32_t mig_record_min(uint32_t type);
uint32_t mig_record_max(uint32_t type);
const char *mig_type_name(uint32_t type); /* "PAGES"; "?" */

#define MIG_MAX_PAGES (MIG_BATCH_HEAD_MAX + MIG_BATCH_PAGES * MIG_PAGE)
#define MIG_MAX_BLOB (1u << 20) /* bytes of a chunk or a part */
#define MIG_MAX_IDENTITY 4096u
#define MIG_MAX_LATE (65536u + 64u)
#define MIG_TEXT_MAX 512u
#define MIG_RANGES_MAX 4096u
#define MIG_REQUEST_MAX 256u
#define MIG_ARRIVED_MAX 16u /* vifs */
#define MIG_ARRIVED_TEXT_MAX 1024u

/* --- messages: the bodies of all records but PAGES -------------------------------------- */

/* Bytes inside the message they were parsed from. */
struct mig_bytes {
    const uint8_t *p;
    uint32_t n;
};

enum mig_abort_code {
    MIG_ABORT_CANCELLED = 1, /* somebody asked for it */
    MIG_ABORT_REFUSED = 2,   /* wrong VM, epoch, version, image, not enough memory */
    MIG_ABORT_PROTOCOL = 3,  /* the other end broke a rule of the stream */
    MIG_ABORT_DIGEST = 4,    /* memory differs */
    MIG_ABORT_LOAD = 5,      /* state could not be loaded */
    MIG_ABORT_LOST = 6,      /* the row went to the other end */
    MIG_ABORT_INTERNAL = 7,
    MIG_ABORT_DIED = 8, /* post-copy, destination: the guest has ended */
};

/* A part of something that may be longer than a record: 'data' belongs at 'offset' of
 * 'total' bytes.  Parts come in order, the next after the last one's end. */
struct mig_part {
    uint64_t total, offset;
    struct mig_bytes data;
};
#define MIG_STATE_TOTAL_MAX (16u << 20)
#define MIG_NETWORK_TOTAL_MAX (64u << 20)

struct mig_msg {
    uint32_t type; /* says which one */
    union {
        struct {
            char driver[17];       /* "cell", "xen" */
            uint64_t n_pages;      /* 0: a stream driver */
            struct mig_bytes data; /* the driver's describe() */
        } config;
        struct {
            uint64_t n_pages;
        } accept;
        struct {
            uint64_t number; /* from 1, one more each time */
            uint64_t pages;  /* descriptors sent over this connection so far */
        } barrier;
        struct {
            uint32_t round;       /* from 0 */
            uint64_t pages_dirty; /* to send in this round */
        } round;
        struct {
            uint64_t sequence; /* from 0, over all connections */
            struct mig_bytes data;
        } chunk;
        struct mig_part state;   /* the driver's state_save(), for its state_load() */
        struct mig_part network; /* docs/vif-move.md */
        struct {
            struct mig_bytes data; /* docs/vif-move.md */
        } late;
        struct {
            uint32_t n; /* ranges, ascending: see mig_range_get() */
            bool last;  /* no PENDING follows */
            struct mig_bytes data;
        } pending;
        struct {
            uint64_t epoch;     /* the hello's */
            uint8_t digest[16]; /* of the memory (mig_sum_put()), or the stream driver's */
            uint64_t n_chunks;  /* of a stream driver; else 0 */
            uint64_t n_pending; /* pages told by PENDING */
            uint64_t paused_ns; /* since the guest stopped */
        } final;
        struct {
            uint64_t epoch;
            uint8_t digest[16]; /* its own */
        } ready;
        struct {
            uint64_t epoch; /* the row's, now */
        } committed;
        struct {
            uint32_t code; /* enum mig_abort_code; others are as good */
            char text[MIG_TEXT_MAX + 1];
        } abort;
        struct {
            uint32_t n; /* page numbers: see mig_request_get() */
            struct mig_bytes data;
        } request;
        struct {
            uint64_t barrier; /* the last one that all connections passed */
            uint64_t pages;   /* placed over this connection */
            uint64_t chunks;  /* delivered in order, all connections */
        } placed;
        struct {
            bool answer;
            uint64_t asked_ns;    /* clock of whoever asked */
            uint64_t received_ns; /* clock of whoever answered; 0 in a question */
            uint64_t answered_ns;
        } clock;
        struct {
            uint64_t epoch;
            uint64_t waited_ns; /* from READY to running, destination's clock */
        } running;
        struct {
            uint32_t records; /* sent before this one: its sequence */
        } end;
        struct {
            uint32_t n;            /* vifs: see mig_arrival_get() */
            struct mig_bytes data; /* of each 24 bytes, then text: lines of printable ASCII */
        } arrived;
    };
};

/* Writes the body of 'm'.  Its bytes (data) come last in every body that has them, so
 * that whoever has them elsewhere may send the head, of mig_msg_head_len(), alone and
 * them behind it.  Returns the length, or 0 if 'm' breaks a rule or 'room' is too little. */
size_t mig_msg_head_len(const struct mig_msg *m);
size_t mig_msg_put(uint8_t *out, size_t room, const struct mig_msg *m);

/* 0 or EPROTO with 'why'.  'm' points into 'body'. */
int mig_msg_get(uint32_t type, const uint8_t *body, size_t length, struct mig_msg *m,
                const char **why);

/* Pages pfn..pfn+count-1; 'i' < n of a parsed PENDING. */
struct mig_range {
    uint64_t pfn, count;
};
struct mig_range mig_range_get(const struct mig_msg *, uint32_t i);
void mig_range_put(uint8_t out[16], struct mig_range);

/* Vif 'i' < n of a parsed ARRIVED; and what is behind them, not terminated. */
struct mig_arrival {
    uint8_t vif[16];      /* uuid */
    uint64_t blackout_ns; /* 0: not known */
};
struct mig_arrival mig_arrival_get(const struct mig_msg *, uint32_t i);
void mig_arrival_put(uint8_t out[24], const struct mig_arrival *);
struct mig_bytes mig_arrived_text(const struct mig_msg *);

/* Page number 'i' < n of a parsed REQUEST. */
uint64_t mig_request_get(const struct mig_msg *, uint32_t i);
void mig_request_put(uint8_t out[8], uint64_t pfn);

#endif
