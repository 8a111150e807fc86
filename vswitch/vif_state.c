#include <config.h>

#include "vif_state.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "byte_buf.h"
#include "bytes.h"
#include "ct.h"
#include "ct_entry.h"
#include "cursor.h"
#include "meter_level.h"
#include "netback.h"
#include "util.h"

#define STATE_MAGIC "WEFTVIF\n"
#define STATE_VERSION 1u
#define STATE_HEADER 32u
#define RECORD_OPTIONAL 0x80000000u
enum {
    RECORD_CONNECTIONS = 1 | RECORD_OPTIONAL,
    RECORD_SETTINGS = 2 | RECORD_OPTIONAL,
    RECORD_COUNTERS = 3 | RECORD_OPTIONAL,
    RECORD_METERS = 4 | RECORD_OPTIONAL,
};
#define RECORD_HEADER 8u
#define RECORD_ALIGN 8u
#define COUNTERS_LEN 32u
#define METER_LEN 16u

/* --- scope ------------------------------------------------------------------- */

static bool
add_address(struct vif_scope *s, const char *text)
{
    bool v6 = strchr(text, ':');
    unsigned all = v6 ? 128 : 32, bits = all;
    const char *slash = strchr(text, '/');
    char address[INET6_ADDRSTRLEN];

    if (s->n_addresses >= VIF_SCOPE_ADDRESSES_MAX ||
        (slash && (!str_to_uint(slash + 1, 10, &bits) || bits > all)) ||
        snprintf(address, sizeof address, "%.*s", (int)strcspn(text, "/"), text) >=
            (int)sizeof address ||
        inet_pton(v6 ? AF_INET6 : AF_INET, address, s->addresses[s->n_addresses].bytes) != 1) {
        return false;
    }
    s->addresses[s->n_addresses].bits = bits;
    s->addresses[s->n_addresses++].v6 = v6;
    return true;
}

bool
vif_scope_add(struct vif_scope *s, const char *word)
{
    unsigned int n;

    if (!strncmp(word, "address=", 8)) {
        return add_address(s, word + 8);
    }
    if (!strncmp(word, "zone=", 5) && str_to_uint(word + 5, 10, &n) && n <= UINT16_MAX &&
        s->n_zones < VIF_SCOPE_ZONES_MAX) {
        s->zones[s->n_zones++] = n;
        return true;
    }
    if (!strncmp(word, "key=", 4) && str_to_uint(word + 4, 10, &n) && n &&
        s->n_keys < VIF_SCOPE_KEYS_MAX) {
        s->keys[s->n_keys++] = n;
        return true;
    }
    if (!strncmp(word, "ofport=", 7) && str_to_uint(word + 7, 10, &n) && n && n <= UINT16_MAX) {
        s->ofport = n;
        return true;
    }
    if (!strcmp(word, "unmark")) {
        s->unmark = true;
        return true;
    }
    return false;
}

static bool
in_zones(const struct vif_scope *s, uint16_t zone)
{
    for (unsigned i = 0; i < s->n_zones; i++) {
        if (s->zones[i] == zone) {
            return true;
        }
    }
    return false;
}

static bool
has_key(const struct vif_scope *s, const struct ct_entry *e)
{
    ovs_u128 label;

    memcpy(&label, e->label, sizeof label);
    for (unsigned i = 0; i < s->n_keys; i++) {
        if ((uint32_t)label.u64.hi == s->keys[i] || label.u64.hi >> 32 == s->keys[i]) {
            return true;
        }
    }
    return false;
}

static bool
same_prefix(const uint8_t a[16], const uint8_t b[16], unsigned bits)
{
    return !memcmp(a, b, bits / 8) &&
           (!(bits % 8) || !((a[bits / 8] ^ b[bits / 8]) >> (8 - bits % 8)));
}

static bool
has_address(const struct vif_scope *s, const struct ct_entry *e)
{
    for (unsigned i = 0; i < s->n_addresses; i++) {
        const uint8_t *a = s->addresses[i].bytes;
        unsigned bits = s->addresses[i].bits;

        if (s->addresses[i].v6 == e->v6 &&
            (same_prefix(a, e->orig.addr[0], bits) || same_prefix(a, e->orig.addr[1], bits) ||
             same_prefix(a, e->reply.addr[0], bits) || same_prefix(a, e->reply.addr[1], bits))) {
            return true;
        }
    }
    return false;
}

static bool
in_scope(void *s_, const struct ct_entry *e)
{
    const struct vif_scope *s = s_;

    return (s->n_keys || s->n_addresses) && in_zones(s, e->zone) && (!s->n_keys || has_key(s, e)) &&
           (!s->n_addresses || has_address(s, e));
}

/* --- export -------------------------------------------------------------------- */

static void
put_record(struct byte_buf *b, uint32_t type, const uint8_t *body, size_t len)
{
    uint8_t *p = byte_buf_put(b, RECORD_HEADER + ROUND_UP(len, RECORD_ALIGN));

    put_le32(p, type);
    put_le32(p + 4, len);
    memcpy(p + RECORD_HEADER, body, len);
}

static void
put_connections(struct byte_buf *b, const struct vif_scope *s, struct vif_state_result *result)
{
    struct ct_filter filter = {.want = in_scope, .aux = CONST_CAST(struct vif_scope *, s)};
    struct conntrack *ct = ct_lookup(NULL);
    uint8_t *chunk;
    size_t len;

    if (!ct || !s->n_zones || (!s->n_keys && !s->n_addresses)) {
        return;
    }
    filter.zone = s->n_zones == 1 ? &s->zones[0] : NULL;
    result->connections = ct_export(ct, &filter, &chunk, &len);
    if (result->connections) {
        put_record(b, RECORD_CONNECTIONS, chunk, len);
    }
    free(chunk);
}

static void
put_vif(struct byte_buf *b, struct netback_vif *vif, struct vif_state_result *result)
{
    uint8_t settings[NETBACK_CARRY_MAX], counters[COUNTERS_LEN];
    struct netback_stats stats;
    size_t len = netback_export(vif, settings);

    if (len) {
        put_record(b, RECORD_SETTINGS, settings, len);
    }
    netback_stats(vif, &stats);
    put_le64(counters, stats.rx_packets);
    put_le64(counters + 8, stats.rx_bytes);
    put_le64(counters + 16, stats.tx_packets);
    put_le64(counters + 24, stats.tx_bytes);
    put_record(b, RECORD_COUNTERS, counters, sizeof counters);
    result->settings = len > 0;
    result->counters = true;
}

static void
put_meters(struct byte_buf *b, uint16_t ofport, struct vif_state_result *result)
{
    struct meter_level levels[VIF_STATE_METERS_MAX];
    uint8_t body[sizeof levels / sizeof levels[0] * METER_LEN] = {0};
    size_t n = ofport ? meter_levels_get(ofport, levels, ARRAY_SIZE(levels)) : 0;

    for (size_t i = 0; i < n; i++) {
        put_le32(body + i * METER_LEN, levels[i].id);
        put_le64(body + i * METER_LEN + 8, levels[i].level);
    }
    if (n) {
        put_record(b, RECORD_METERS, body, n * METER_LEN);
    }
    result->meters = n;
}

int
vif_state_export(struct netback_vif *vif, const struct vif_scope *scope, uint8_t **data,
                 size_t *len, struct vif_state_result *result)
{
    struct byte_buf b = {.data = NULL};

    memset(result, 0, sizeof *result);
    byte_buf_put(&b, STATE_HEADER);
    if (vif) {
        put_vif(&b, vif, result);
    }
    put_meters(&b, scope->ofport, result);
    put_connections(&b, scope, result);
    if (b.len > VIF_STATE_MAX) {
        free(b.data);
        return EFBIG;
    }
    memcpy(b.data, STATE_MAGIC, 8);
    put_le32(b.data + 8, STATE_VERSION);
    put_le64(b.data + 16, b.len);
    *data = b.data;
    *len = b.len;
    return 0;
}

/* --- import -------------------------------------------------------------------- */

struct importer {
    struct netback_vif *vif;
    const struct vif_scope *scope;
    struct vif_state_result *result;
    bool only_look;
};

static const char *
import_connections(struct importer *im, const uint8_t *body, size_t len)
{
    /* In a pool the mark says under which policy the connection passed: here that is
     * for this host's policy to say. */
    struct ct_filter filter = {.want = in_scope,
                               .aux = CONST_CAST(struct vif_scope *, im->scope),
                               .unmark = im->scope->n_keys || im->scope->unmark};
    struct conntrack *ct = ct_lookup(NULL);
    struct ct_import_result r = {0};
    static char why[256];
    int error;

    if (im->only_look || !ct) {
        error = ct_check(body, len, why, sizeof why);
    } else {
        error = ct_import_only(ct, &filter, body, len, &r, why, sizeof why);
    }
    im->result->connections += r.imported;
    im->result->existing += r.existing;
    im->result->refused += r.refused;
    return error ? why : NULL;
}

static const char *
import_settings(struct importer *im, const uint8_t *body, size_t len)
{
    int error;

    if (im->only_look) {
        return netback_import_check(body, len) ? NULL : "settings that no guest can have made";
    }
    error = im->vif ? netback_import(im->vif, body, len) : ENOTCONN;
    im->result->settings = !error;
    /* A guest that is connected has told its new backend itself. */
    return NULL;
}

static const char *
import_counters(struct importer *im, const uint8_t *body, size_t len)
{
    struct netback_stats stats = {.rx_packets = 0};

    if (len != COUNTERS_LEN) {
        return "counters of a wrong length";
    }
    if (!im->only_look && im->vif) {
        stats.rx_packets = get_le64(body);
        stats.rx_bytes = get_le64(body + 8);
        stats.tx_packets = get_le64(body + 16);
        stats.tx_bytes = get_le64(body + 24);
        netback_continue_stats(im->vif, &stats);
        im->result->counters = true;
    }
    return NULL;
}

/* What they hold is less, if anything: who lies gets nothing by it. */
static const char *
import_meters(struct importer *im, const uint8_t *body, size_t len)
{
    struct meter_level levels[VIF_STATE_METERS_MAX];
    size_t n = len / METER_LEN;

    if (len % METER_LEN || n > VIF_STATE_METERS_MAX) {
        return "meters of a wrong length";
    }
    for (size_t i = 0; i < n; i++) {
        levels[i].id = get_le32(body + i * METER_LEN);
        levels[i].level = get_le64(body + i * METER_LEN + 8);
        if (levels[i].id < METER_LEVEL_FIRST || (uint16_t)levels[i].id ||
            get_le32(body + i * METER_LEN + 4)) {
            return "a meter that is no vif's";
        }
    }
    if (!im->only_look && im->scope->ofport) {
        im->result->meters = meter_levels_lower(im->scope->ofport, levels, n);
    }
    return NULL;
}

static const char *
import_record(struct importer *im, uint32_t type, const uint8_t *body, size_t len)
{
    switch (type) {
    case RECORD_CONNECTIONS:
        return import_connections(im, body, len);
    case RECORD_SETTINGS:
        return import_settings(im, body, len);
    case RECORD_COUNTERS:
        return import_counters(im, body, len);
    case RECORD_METERS:
        return import_meters(im, body, len);
    default:
        return type & RECORD_OPTIONAL ? NULL : "a record that is not known";
    }
}

static const char *
import_all(struct importer *im, const uint8_t *data, size_t len)
{
    struct cursor in = cursor_on(data, len);
    const uint8_t *h = cursor_take(&in, STATE_HEADER);
    const char *why = NULL;

    if (!h || memcmp(h, STATE_MAGIC, 8) || get_le64(h + 16) != len) {
        return "no header of a vif's state";
    }
    if (get_le32(h + 8) != STATE_VERSION || get_le32(h + 12) || !is_all_zeros(h + 24, 8)) {
        return "a version that is not known";
    }
    while (in.left && !why) {
        const uint8_t *head = cursor_take(&in, RECORD_HEADER);
        const uint8_t *body =
            head ? cursor_take_padded(&in, get_le32(head + 4), RECORD_ALIGN) : NULL;

        why = body ? import_record(im, get_le32(head), body, get_le32(head + 4)) : "a cut record";
    }
    return why;
}

int
vif_state_import(struct netback_vif *vif, const struct vif_scope *scope, const uint8_t *data,
                 size_t len, struct vif_state_result *result, char *why, size_t why_size)
{
    struct importer im = {.vif = vif, .scope = scope, .result = result, .only_look = true};
    const char *wrong;

    memset(result, 0, sizeof *result);
    wrong = len <= VIF_STATE_MAX ? import_all(&im, data, len) : "too much";
    if (!wrong) {
        im.only_look = false;
        wrong = import_all(&im, data, len);
    }
    if (wrong) {
        snprintf(why, why_size, "%s", wrong);
    }
    return wrong ? EINVAL : 0;
}
