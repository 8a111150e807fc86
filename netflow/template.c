#include "template.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "element.h"
#include "ie.h"

#define ENTERPRISE_BIT 0x8000u
#define NTP_TO_UNIX_S 2208988800u

/* --- parsing ------------------------------------------------------------------ */

struct head {
    uint16_t id;
    unsigned n_fields, n_scope;
};

static bool
take_head(struct cursor *c, enum template_dialect dialect, bool options, struct head *h)
{
    const uint8_t *p = cursor_take(c, 4);

    if (!p) {
        return false;
    }
    h->id = get_be16(p);
    h->n_fields = get_be16(p + 2);
    h->n_scope = 0;
    if (!options || (dialect == TEMPLATE_IPFIX && !h->n_fields)) {
        return true; /* an IPFIX withdrawal says no more */
    }
    if (!(p = cursor_take(c, 2))) {
        return false;
    }
    if (dialect == TEMPLATE_V9) { /* lengths in bytes: of the scopes, of the options */
        h->n_scope = h->n_fields / 4;
        h->n_fields = h->n_scope + get_be16(p) / 4;
    } else {
        h->n_scope = get_be16(p);
    }
    return h->n_scope <= h->n_fields;
}

static bool
take_field(struct cursor *c, enum template_dialect dialect, struct template_field *f)
{
    const uint8_t *p = cursor_take(c, 4);

    if (!p) {
        return false;
    }
    *f = (struct template_field){.element = get_be16(p), .len = get_be16(p + 2)};
    if (dialect == TEMPLATE_IPFIX && (f->element & ENTERPRISE_BIT)) {
        if (!(p = cursor_take(c, 4))) {
            return false;
        }
        f->element &= ~ENTERPRISE_BIT;
        f->enterprise = get_be32(p);
    }
    return true;
}

/* Whether a step can read a field of this length. */
static bool
length_fits(const struct element *e, uint16_t len)
{
    switch (e->op) {
    case ELEMENT_IP4:
        return len == 4;
    case ELEMENT_IP6:
        return len == 16;
    case ELEMENT_MAC:
        return len == 6;
    case ELEMENT_NTP:
    case ELEMENT_SEGMENT:
        return len == 8;
    case ELEMENT_SKIP:
        return false;
    default:
        return len >= 1 && len <= 8;
    }
}

/* Whether some element that is not second choice, or an earlier one, already fills 'e''s place. */
static bool
place_taken(const struct template *t, const struct element *e)
{
    for (unsigned i = 0; i < t->n_steps; i++) {
        const struct template_step *s = &t->steps[i];

        if (s->dst == e->dst && s->extra == e->extra && !e->extra &&
            !(s->op != e->op && (s->op == ELEMENT_IP4 || s->op == ELEMENT_IP6))) {
            return true;
        }
    }
    return false;
}

static bool
second_choice(const struct element *e)
{
    return e->role == ELEMENT_SECOND || e->role == ELEMENT_OTHER_COUNT || e->role == ELEMENT_UPTIME;
}

/* Numbers whose lengths here and there are the usual ones, and addresses. */
enum {
    QUICK_NONE,
    QUICK_8,
    QUICK_16,
    QUICK_32,
    QUICK_64,
    QUICK_8_16,
    QUICK_16_32,
    QUICK_32_64,
    QUICK_IP4,
    QUICK_IP6,
    QUICK_MAC,
};

static uint8_t
quick_of(const struct element *e, unsigned len)
{
    switch (e->op) {
    case ELEMENT_IP4:
        return QUICK_IP4;
    case ELEMENT_IP6:
        return QUICK_IP6;
    case ELEMENT_MAC:
        return QUICK_MAC;
    }
    if (e->op != ELEMENT_UINT || e->extra) {
        return QUICK_NONE;
    }
    switch (len << 4 | e->width) {
    case 0x11:
        return QUICK_8;
    case 0x22:
        return QUICK_16;
    case 0x44:
        return QUICK_32;
    case 0x88:
        return QUICK_64;
    case 0x12:
        return QUICK_8_16;
    case 0x24:
        return QUICK_16_32;
    case 0x48:
        return QUICK_32_64;
    default:
        return QUICK_NONE;
    }
}

static void
add_step(struct template *t, const struct element *e, unsigned field, unsigned ofs)
{
    t->steps[t->n_steps++] = (struct template_step){
        .src = ofs,
        .len = t->fields[field].len,
        .field = field,
        .dst = e->dst,
        .op = e->op,
        .width = e->width,
        .quick = quick_of(e, t->fields[field].len),
        .extra = e->extra,
    };
    t->is_flow |= e->role == ELEMENT_COUNT || e->role == ELEMENT_OTHER_COUNT;
    if (e->role == ELEMENT_UPTIME) {
        *(e->dst == offsetof(struct flow_record, start_ms) ? &t->start_uptime : &t->end_uptime) =
            true;
    }
    t->types |= e->role == ELEMENT_TYPE;
    t->extras |= e->extra;
    t->reverse |= e->extra && (e->dst == offsetof(struct template_extra, reverse_packets) ||
                               e->dst == offsetof(struct template_extra, reverse_bytes));
    t->ip4 |= e->op == ELEMENT_IP4;
    t->ip6 |= e->op == ELEMENT_IP6;
}

/* First choices first, so that second ones find their places taken. */
static void
compile(struct template *t)
{
    for (int second = 0; second < 2; second++) {
        unsigned ofs = 0;

        for (unsigned i = 0; i < t->n_fields; i++) {
            const struct template_field *f = &t->fields[i];
            const struct element *e = element_of(f->enterprise, f->element);

            if ((f->len == TEMPLATE_VARIABLE ? e->op == ELEMENT_UINT : length_fits(e, f->len)) &&
                second_choice(e) == second && !place_taken(t, e)) {
                add_step(t, e, i, ofs);
            }
            ofs += f->len == TEMPLATE_VARIABLE ? 0 : f->len;
        }
    }
}

/* Open vSwitch says interfaces' names in every record, behind their numbers. */
static void
find_names(struct template *t)
{
    for (unsigned i = 0, index = UINT16_MAX; i < t->n_fields; i++) {
        const struct template_field *f = &t->fields[i];

        if (f->enterprise) {
            continue;
        }
        if (f->element == IE_IN_IF || f->element == IE_OUT_IF) {
            index = i;
        } else if (f->element == IE_IF_NAME && index != UINT16_MAX && t->n_names < 2) {
            t->names[t->n_names].index = index;
            t->names[t->n_names++].name = i;
            index = UINT16_MAX;
        }
    }
}

static int
measure(struct template *t)
{
    uint32_t len = 0;

    for (unsigned i = 0; i < t->n_fields; i++) {
        t->variable |= t->fields[i].len == TEMPLATE_VARIABLE;
        len += t->fields[i].len == TEMPLATE_VARIABLE ? 1 : t->fields[i].len;
    }
    t->min_len = len;
    return len >= 1 && len <= UINT16_MAX ? 0 : EINVAL;
}

static void
skip_fields(struct cursor *c, enum template_dialect dialect, unsigned n)
{
    struct template_field f;

    while (n-- && take_field(c, dialect, &f)) {
    }
}

int
template_parse(struct cursor *c, enum template_dialect dialect, bool options, unsigned max_fields,
               struct template **out)
{
    struct head h;
    struct template *t;
    size_t bytes;
    int error;

    if (!take_head(c, dialect, options, &h)) {
        return EPROTO;
    }
    if (h.n_fields > max_fields || h.n_fields > TEMPLATE_FIELDS_MAX) {
        skip_fields(c, dialect, h.n_fields);
        return c->failed ? EPROTO : E2BIG;
    }
    bytes = sizeof *t + h.n_fields * (sizeof t->fields[0] + sizeof t->steps[0]);
    if (!(t = calloc(1, bytes))) {
        skip_fields(c, dialect, h.n_fields);
        return ENOMEM;
    }
    t->mem_bytes = bytes;
    t->id = h.id;
    t->options = options;
    t->n_fields = h.n_fields;
    t->n_scope = h.n_scope;
    t->steps = (struct template_step *)(t->fields + h.n_fields);
    for (unsigned i = 0; i < h.n_fields; i++) {
        if (!take_field(c, dialect, &t->fields[i])) {
            free(t);
            return EPROTO;
        }
    }
    error = h.n_fields ? measure(t) : dialect == TEMPLATE_V9 ? EINVAL : 0;
    if (error) {
        free(t);
        return error;
    }
    if (!options) {
        compile(t);
        find_names(t);
    }
    *out = t;
    return 0;
}

bool
template_same(const struct template *a, const struct template *b)
{
    return a->id == b->id && a->options == b->options && a->n_fields == b->n_fields &&
           a->n_scope == b->n_scope &&
           !memcmp(a->fields, b->fields, a->n_fields * sizeof a->fields[0]);
}

/* --- reading ------------------------------------------------------------------ */

static inline uint64_t
get_be64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return be64toh(v);
}

uint64_t
template_uint(const uint8_t *p, size_t len)
{
    uint64_t v = 0;

    switch (len) {
    case 1:
        return *p;
    case 2:
        return get_be16(p);
    case 4:
        return get_be32(p);
    case 8:
        return get_be64(p);
    case 3:
    case 5:
    case 6:
    case 7:
        for (size_t i = 0; i < len; i++) {
            v = v << 8 | p[i];
        }
        return v;
    default:
        return 0;
    }
}

static inline void
put(uint8_t *to, unsigned width, uint64_t v)
{
    uint32_t v32 = v;
    uint16_t v16 = v;

    switch (width) {
    case 1:
        *to = v;
        break;
    case 2:
        memcpy(to, &v16, sizeof v16);
        break;
    case 4:
        memcpy(to, &v32, sizeof v32);
        break;
    default:
        memcpy(to, &v, sizeof v);
    }
}

static inline void
put_ip4(uint8_t *to, const uint8_t *p, bool unless_zero)
{
    if (!unless_zero || get_be32(p)) {
        put_be16(to + 10, 0xffff);
        memcpy(to + 12, p, 4);
    }
}

static inline void
put_ip6(uint8_t *to, const uint8_t *p)
{
    static const uint8_t zeros[16];

    if (memcmp(p, zeros, 16)) {
        memcpy(to, p, 16);
    }
}

static uint64_t
ntp_ms(const uint8_t *p)
{
    uint64_t fraction = get_be32(p + 4);

    /* Seconds before 1970 belong to NTP's next era, from 2036 on. */
    return (uint64_t)(uint32_t)(get_be32(p) - NTP_TO_UNIX_S) * 1000 + (fraction * 1000 >> 32);
}

static inline void
do_step(const struct template *t, const struct template_step *s, const uint8_t *p, size_t len,
        uint64_t export_ms, uint8_t *to)
{
    uint64_t v;

    switch (s->op) {
    case ELEMENT_UINT:
        v = template_uint(p, len);
        /* What is aside may be said twice, by the element that applies and by one that does not. */
        if (v || !s->extra) {
            put(to, s->width, v);
        }
        break;
    case ELEMENT_IP4:
        put_ip4(to, p, t->ip6);
        break;
    case ELEMENT_IP6:
        put_ip6(to, p);
        break;
    case ELEMENT_MAC:
        memcpy(to, p, 6);
        break;
    case ELEMENT_SECONDS:
        put(to, s->width, template_uint(p, len) * 1000);
        break;
    case ELEMENT_NTP:
        put(to, s->width, ntp_ms(p));
        break;
    case ELEMENT_DELTA_US:
        put(to, s->width, export_ms - template_uint(p, len) / 1000);
        break;
    case ELEMENT_VID:
        put(to, s->width, template_uint(p, len) & 0x0fff);
        break;
    case ELEMENT_SEGMENT:
        put(to, s->width, template_uint(p, len) & 0x00ffffffffffffff);
        break;
    }
}

#define EACH(DO)                                                                                   \
    for (unsigned i = 0; i < n; i++, p += t->min_len, to += stride) {                              \
        DO;                                                                                        \
    }
#define EACH_UINT(BITS, FROM) EACH(uint##BITS##_t v = (FROM); memcpy(to, &v, sizeof v))

/* One step of 'n' records of fixed length. */
static void
do_step_many(const struct template *t, const struct template_step *s, const uint8_t *p, unsigned n,
             uint64_t export_ms, uint8_t *to, size_t stride)
{
    switch (s->quick) {
    case QUICK_8:
        EACH_UINT(8, *p);
        break;
    case QUICK_16:
        EACH_UINT(16, get_be16(p));
        break;
    case QUICK_32:
        EACH_UINT(32, get_be32(p));
        break;
    case QUICK_64:
        EACH_UINT(64, get_be64(p));
        break;
    case QUICK_8_16:
        EACH_UINT(16, *p);
        break;
    case QUICK_16_32:
        EACH_UINT(32, get_be16(p));
        break;
    case QUICK_32_64:
        EACH_UINT(64, get_be32(p));
        break;
    case QUICK_IP4:
        EACH(put_ip4(to, p, t->ip6));
        break;
    case QUICK_IP6:
        EACH(put_ip6(to, p));
        break;
    case QUICK_MAC:
        EACH(memcpy(to, p, 6));
        break;
    default:
        EACH(do_step(t, s, p, s->len, export_ms, to));
    }
}

/* A length in a record: one byte, or 255 and two (RFC 7011, 7). */
static bool
take_length(struct cursor *c, unsigned *len)
{
    const uint8_t *p = cursor_take(c, 1);

    if (!p) {
        return false;
    }
    *len = *p;
    if (*p == 255) {
        if (!(p = cursor_take(c, 2))) {
            return false;
        }
        *len = get_be16(p);
    }
    return true;
}

bool
template_layout(const struct template *t, struct cursor *c, struct template_layout *at)
{
    const uint8_t *base = c->p, *p;
    unsigned len;

    for (unsigned i = 0; i < t->n_fields; i++) {
        len = t->fields[i].len;
        if (len == TEMPLATE_VARIABLE && !take_length(c, &len)) {
            return false;
        }
        if (!(p = cursor_take(c, len))) {
            return false;
        }
        at->ofs[i] = p - base;
        at->len[i] = len;
    }
    return true;
}

unsigned
template_read_many(const struct template *t, struct cursor *c, uint64_t export_ms,
                   struct flow_record *r, struct template_extra *extra, unsigned max)
{
    size_t n = c->left / t->min_len;
    const uint8_t *base;

    n = n < max ? n : max;
    base = cursor_take(c, n * t->min_len);
    if (!base) {
        return 0;
    }
    memset(r, 0, n * sizeof *r);
    if (t->extras) {
        memset(extra, 0, n * sizeof *extra);
    }
    for (unsigned i = 0; i < t->n_steps; i++) {
        const struct template_step *s = &t->steps[i];

        do_step_many(t, s, base + s->src, n, export_ms,
                     (s->extra ? (uint8_t *)extra : (uint8_t *)r) + s->dst,
                     s->extra ? sizeof *extra : sizeof *r);
    }
    return n;
}

bool
template_read(const struct template *t, struct cursor *c, uint64_t export_ms, struct flow_record *r,
              struct template_extra *extra)
{
    const uint8_t *base = c->p;
    struct template_layout at;

    memset(extra, 0, sizeof *extra);
    if (!t->variable) {
        return template_read_many(t, c, export_ms, r, extra, 1) == 1;
    }
    memset(r, 0, sizeof *r);
    if (!template_layout(t, c, &at)) {
        return false;
    }
    for (unsigned i = 0; i < t->n_steps; i++) {
        const struct template_step *s = &t->steps[i];
        uint8_t *to = s->extra ? (uint8_t *)extra : (uint8_t *)r;

        do_step(t, s, base + at.ofs[s->field], at.len[s->field], export_ms, to + s->dst);
    }
    return true;
}
