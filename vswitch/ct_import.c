/* Records to connections: docs/conntrack-records.md. */
#include <config.h>

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "conntrack.h"
#include "ct.h"
#include "ct_entry.h"
#include "ct_format.h"
#include "cursor.h"
#include "packets.h"
#include "timeval.h"
#include "util.h"

/* --- reading --------------------------------------------------------------------- */

static void
get_tuple(struct ct_tuple *t, const uint8_t *p)
{
    memcpy(t->addr, p, 32);
    memcpy(t->l4, p + 32, 8);
}

static void
get_peer(struct ct_tcp_peer *peer, const uint8_t *p)
{
    peer->seqlo = get_le32(p);
    peer->seqhi = get_le32(p + 4);
    peer->max_win = get_le16(p + 8);
    peer->wscale = p[10];
    peer->state = p[11];
}

/* Each returns NULL, or what is wrong. */

static const char *
get_tuples(struct ct_entry *e, const uint8_t *p)
{
    if (p[0] != 4 && p[0] != 6) {
        return "neither IPv4 nor IPv6";
    }
    e->v6 = p[0] == 6;
    e->proto = p[1];
    e->zone = get_le16(p + 2);
    get_tuple(&e->orig, p + 4);
    get_tuple(&e->reply, p + 4 + TUPLE_LEN);
    return NULL;
}

static const char *
get_alg(struct ct_entry *e, const uint8_t *p, size_t len)
{
    if (!len || len > CT_ALG_MAX || memchr(p, 0, len)) {
        return "an ALG's name of a wrong length";
    }
    memcpy(e->alg, p, len);
    e->alg[len] = '\0';
    return NULL;
}

static const char *
get_attr(struct ct_entry *e, uint16_t type, const uint8_t *p, size_t len)
{
    static const uint8_t lengths[N_ATTRS] = {
        [ATTR_TUPLES] = TUPLES_LEN,
        [ATTR_LIFE] = LIFE_LEN,
        [ATTR_MARK] = 4,
        [ATTR_LABEL] = LABEL_LEN,
        [ATTR_TCP] = TCP_LEN,
        [ATTR_STATE] = 1,
        [ATTR_NAT] = 2,
        [ATTR_ALG] = 0 /* any */,
        [ATTR_PARENT] = PARENT_LEN,
        [ATTR_SEQ_SKEW] = SEQ_SKEW_LEN,
    };

    if (lengths[type] && len != lengths[type]) {
        return "an attribute of a wrong length";
    }
    switch (type) {
    case ATTR_TUPLES:
        return get_tuples(e, p);
    case ATTR_LIFE:
        e->left_ms = get_le32(p);
        e->timeout_policy = get_le32(p + 4);
        break;
    case ATTR_MARK:
        e->mark = get_le32(p);
        break;
    case ATTR_LABEL:
        memcpy(e->label, p, LABEL_LEN);
        break;
    case ATTR_TCP:
        get_peer(&e->tcp[0], p);
        get_peer(&e->tcp[1], p + TCP_PEER_LEN);
        break;
    case ATTR_STATE:
        e->state = p[0];
        break;
    case ATTR_NAT:
        e->has_nat = true;
        e->nat_action = get_le16(p);
        break;
    case ATTR_ALG:
        return get_alg(e, p, len);
    case ATTR_PARENT:
        e->related = true;
        e->parent_proto = p[0];
        get_tuple(&e->parent, p + 4);
        return is_all_zeros(p + 1, 3) ? NULL : "padding that is not 0";
    case ATTR_SEQ_SKEW:
        e->seq_skew = (int32_t)get_le32(p);
        e->seq_skew_reply = p[4];
        return p[4] <= 1 && is_all_zeros(p + 5, 3) ? NULL : "padding that is not 0";
    }
    return NULL;
}

/* --- is it a connection? ----------------------------------------------------------- */

static bool
icmp_answer(const struct ct_entry *e, uint8_t request, uint8_t *answer)
{
    if (e->v6) {
        *answer = ICMP6_ECHO_REPLY;
        return request == ICMP6_ECHO_REQUEST;
    }
    switch (request) {
    case ICMP4_ECHO_REQUEST:
        *answer = ICMP4_ECHO_REPLY;
        return true;
    case ICMP4_TIMESTAMP:
        *answer = ICMP4_TIMESTAMPREPLY;
        return true;
    case ICMP4_INFOREQUEST:
        *answer = ICMP4_INFOREPLY;
        return true;
    }
    return false;
}

/* 'reply': which type of ICMP message the source sends. */
static const char *
check_l4(const struct ct_entry *e, uint8_t proto, const struct ct_tuple *t, bool reply)
{
    const uint8_t *src = t->l4[reply], *dst = t->l4[!reply];
    uint8_t answer;

    if (proto == IPPROTO_TCP || proto == IPPROTO_UDP) {
        return !(src[0] | src[1]) || !(dst[0] | dst[1]) || src[2] || src[3] || dst[2] || dst[3]
                   ? "ports that cannot be"
                   : NULL;
    }
    if (proto == (e->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
        return memcmp(src, dst, 2) || src[3] || dst[3] || !icmp_answer(e, src[2], &answer) ||
                       answer != dst[2]
                   ? "an ICMP type that makes no connection"
                   : NULL;
    }
    return is_all_zeros(t->l4, sizeof t->l4) ? NULL : "ports of a protocol that has none";
}

static const char *
check_tuple(const struct ct_entry *e, uint8_t proto, const struct ct_tuple *t, bool reply)
{
    if (!e->v6 && !(is_all_zeros(t->addr[0] + 4, 12) && is_all_zeros(t->addr[1] + 4, 12))) {
        return "an IPv4 address of more than 4 bytes";
    }
    return check_l4(e, proto, t, reply);
}

static bool
mirrored(const struct ct_tuple *a, const struct ct_tuple *b)
{
    return !memcmp(a->addr[0], b->addr[1], 16) && !memcmp(a->addr[1], b->addr[0], 16) &&
           !memcmp(a->l4[0], b->l4[1], 4) && !memcmp(a->l4[1], b->l4[0], 4);
}

static const char *
check_nat(const struct ct_entry *e)
{
    const uint16_t all =
        NAT_ACTION_SRC | NAT_ACTION_SRC_PORT | NAT_ACTION_DST | NAT_ACTION_DST_PORT;

    if (!e->has_nat) {
        return mirrored(&e->orig, &e->reply) ? NULL : "directions that differ without NAT";
    }
    return e->nat_action & ~all ? "an unknown kind of NAT" : NULL;
}

static const char *
check_alg(const struct ct_entry *e)
{
    const char *why;

    if (e->alg[0] && !(e->proto == IPPROTO_TCP && !strncmp(e->alg, "ftp", 3)) &&
        !(e->proto == IPPROTO_UDP && !strncmp(e->alg, "tftp", 4))) {
        return "an ALG that is unknown or of another protocol";
    }
    if (e->seq_skew &&
        (e->proto != IPPROTO_TCP || e->seq_skew > SEQ_SKEW_MAX || e->seq_skew < -SEQ_SKEW_MAX)) {
        return "a sequence number skew that cannot be";
    }
    if (e->related && (why = check_tuple(e, e->parent_proto, &e->parent, false))) {
        return why;
    }
    return NULL;
}

static const char *
check_state(const struct ct_entry *e)
{
    enum { ICMP_STATES = 2, OTHER_STATES = 3 };

    switch (ct_entry_kind(e->proto)) {
    case CT_ENTRY_TCP:
        for (int i = 0; i < 2; i++) {
            const struct ct_tcp_peer *p = &e->tcp[i];

            if (p->state > CT_DPIF_TCPS_TIME_WAIT ||
                (p->wscale & ~CT_ENTRY_WSCALE_FLAGS) > CT_ENTRY_WSCALE_MAX) {
                return "a state that TCP does not have";
            }
        }
        return NULL;
    case CT_ENTRY_ICMP:
        return e->state < ICMP_STATES ? NULL : "a state that ICMP does not have";
    case CT_ENTRY_OTHER:
        return e->state < OTHER_STATES ? NULL : "a state that the protocol does not have";
    }
    return "a protocol of no kind";
}

const char *
ct_entry_check(const struct ct_entry *e)
{
    const char *why;

    return (why = check_tuple(e, e->proto, &e->orig, false))   ? why
           : (why = check_tuple(e, e->proto, &e->reply, true)) ? why
           : (why = check_nat(e))                              ? why
           : (why = check_alg(e))                              ? why
                                                               : check_state(e);
}

static const char *
get_connection(struct ct_entry *e, struct cursor c)
{
    uint32_t seen = 0, must = 1u << ATTR_TUPLES | 1u << ATTR_LIFE;
    const char *why;

    memset(e, 0, sizeof *e);
    while (c.left) {
        const uint8_t *head = cursor_take(&c, ATTR_HEADER), *value;
        uint16_t type, len;

        if (!head) {
            return "a cut attribute";
        }
        type = get_le16(head);
        len = get_le16(head + 2);
        value = cursor_take_padded(&c, len, ATTR_ALIGN);
        if (!value) {
            return "a cut attribute";
        }
        if (!type || type >= N_ATTRS) {
            if (!(type & ATTR_OPTIONAL)) {
                return "an attribute that is not known";
            }
            continue;
        }
        if (seen & 1u << type) {
            return "the same attribute twice";
        }
        seen |= 1u << type;
        why = get_attr(e, type, value, len);
        if (why) {
            return why;
        }
    }
    must |= 1u << (ct_entry_kind(e->proto) == CT_ENTRY_TCP ? ATTR_TCP : ATTR_STATE);
    if ((seen & must) != must || seen & (1u << ATTR_TCP | 1u << ATTR_STATE) & ~must) {
        return "attributes that make no connection";
    }
    return ct_entry_check(e);
}

void
ct_entry_loosen(struct ct_entry *e)
{
    /* After the handshake there is nothing more to learn about scaling. */
    bool known = e->tcp[0].wscale & e->tcp[1].wscale & CT_ENTRY_WSCALE_KNOWN ||
                 (e->tcp[0].state == CT_DPIF_TCPS_ESTABLISHED &&
                  e->tcp[1].state == CT_DPIF_TCPS_ESTABLISHED);

    if (ct_entry_kind(e->proto) != CT_ENTRY_TCP || e->tcp[0].state >= CT_DPIF_TCPS_CLOSING ||
        e->tcp[1].state >= CT_DPIF_TCPS_CLOSING) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        struct ct_tcp_peer *p = &e->tcp[i];

        p->state = CT_DPIF_TCPS_CLOSED;
        p->seqlo = 0;
        p->seqhi = 1;
        p->max_win = MAX(p->max_win, 1);
        if (!known) {
            p->wscale = CT_ENTRY_WSCALE_UNKNOWN;
        }
    }
}

/* --- import ------------------------------------------------------------------------ */

struct importer {
    struct conntrack *ct;
    long long now;
    struct ct_import_result *result; /* NULL: only look */
    bool old;                        /* see ct_import_old() */
    const struct ct_filter *filter;  /* NULL: everything */
};

static void
import_connection(struct importer *im, struct ct_entry *e)
{
    int error;

    if (im->filter && !im->filter->want(im->filter->aux, e)) {
        im->result->refused++;
        return;
    }
    if (im->filter && im->filter->unmark) {
        e->mark = 0;
    }
    if (im->old) {
        ct_entry_loosen(e);
    }
    error = im->filter ? ct_entry_replace(im->ct, e, im->now, im->filter->want, im->filter->aux)
                       : ct_entry_create(im->ct, e, im->now);
    switch (error) {
    case 0:
        im->result->imported++;
        break;
    case EEXIST:
        im->result->existing++;
        break;
    default:
        im->result->refused++;
        break;
    }
}

static const char *
import_record(struct importer *im, uint32_t type, struct cursor body)
{
    struct ct_entry e;
    const char *why;
    int32_t zone;

    switch (type) {
    case RECORD_CONNECTION:
        why = get_connection(&e, body);
        if (!why && im->result) {
            import_connection(im, &e);
        }
        return why;
    case RECORD_ZONE_LIMIT:
        if (body.left != ZONE_LIMIT_LEN) {
            return "a zone limit of a wrong length";
        }
        zone = (int32_t)get_le32(body.p);
        if (zone < DEFAULT_ZONE || zone > MAX_ZONE) {
            return "a zone that cannot be";
        }
        if (im->result && !im->filter) {
            ct_zone_limit_create(im->ct, zone, get_le32(body.p + 4));
        }
        return NULL;
    default:
        return type & RECORD_OPTIONAL ? NULL : "a record that is not known";
    }
}

uint64_t
ct_chunk_length(const uint8_t h[CT_CHUNK_HEADER])
{
    uint64_t len = get_le64(h + 16);

    return !memcmp(h, CT_MAGIC, 8) && len >= CT_CHUNK_HEADER && !(len % RECORD_ALIGN) ? len : 0;
}

static const char *
import_chunk(struct importer *im, struct cursor *in)
{
    const uint8_t *h = cursor_take(in, CT_CHUNK_HEADER);
    struct cursor c;
    uint32_t n_records = 0;
    uint64_t len;

    if (!h) {
        return "a cut header";
    }
    len = ct_chunk_length(h);
    if (!len) {
        return "no header of connection records";
    }
    if (get_le32(h + 8) != CT_VERSION) {
        return "a version that is not known";
    }
    if (get_le32(h + 12) || get_le32(h + 28)) {
        return "flags that are not known";
    }
    c = cursor_on(cursor_take(in, len - CT_CHUNK_HEADER), len - CT_CHUNK_HEADER);
    if (!c.p) {
        return "a cut chunk";
    }
    while (c.left) {
        const uint8_t *head = cursor_take(&c, RECORD_HEADER), *body;
        const char *why;

        if (!head) {
            return "a cut record";
        }
        body = cursor_take_padded(&c, get_le32(head + 4), RECORD_ALIGN);
        if (!body) {
            return "a cut record";
        }
        why = import_record(im, get_le32(head), cursor_on(body, get_le32(head + 4)));
        if (why) {
            return why;
        }
        n_records++;
    }
    return n_records == get_le32(h + 24) ? NULL : "fewer or more records than announced";
}

/* Once to look, and with 'result' once to do it. */
static int
import(struct importer im, const uint8_t *data, size_t len, struct ct_import_result *result,
       char *why, size_t why_size)
{
    for (int pass = 0; pass < (result ? 2 : 1); pass++) {
        struct cursor in = cursor_on(data, len);

        while (in.left) {
            const uint8_t *at = in.p;
            const char *wrong = import_chunk(&im, &in);

            if (wrong) {
                snprintf(why, why_size, "%s, in the chunk at byte %" PRIuSIZE, wrong,
                         (size_t)(at - data));
                return EINVAL;
            }
        }
        im.result = result;
    }
    return 0;
}

int
ct_import(struct conntrack *ct, const uint8_t *data, size_t len, struct ct_import_result *result,
          char *why, size_t why_size)
{
    return import((struct importer){.ct = ct, .now = time_msec()}, data, len, result, why,
                  why_size);
}

int
ct_import_old(struct conntrack *ct, const uint8_t *data, size_t len,
              struct ct_import_result *result, char *why, size_t why_size)
{
    return import((struct importer){.ct = ct, .now = time_msec(), .old = true}, data, len, result,
                  why, why_size);
}

int
ct_import_only(struct conntrack *ct, const struct ct_filter *filter, const uint8_t *data,
               size_t len, struct ct_import_result *result, char *why, size_t why_size)
{
    return import((struct importer){.ct = ct, .now = time_msec(), .filter = filter, .old = true},
                  data, len, result, why, why_size);
}

int
ct_check(const uint8_t *data, size_t len, char *why, size_t why_size)
{
    return import((struct importer){.ct = NULL}, data, len, NULL, why, why_size);
}
