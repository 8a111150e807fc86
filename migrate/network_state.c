#include "network_state.h"
#include "hex.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cursor.h"

#define MAGIC "WEFTNET\n"
#define VERSION 1u
#define HEADER 16u
#define RECORD_HEADER 16u
#define RECORD_ALIGN 8u
#define RECORD_OPTIONAL 0x80000000u
enum {
    RECORD_SWITCH = 1 | RECORD_OPTIONAL,
    RECORD_MACS = 2 | RECORD_OPTIONAL,
    RECORD_GROUPS = 3 | RECORD_OPTIONAL,
};
#define MAC_LEN 8u
#define GROUP_LEN 20u

void
vif_known_clear(struct vif_known *k)
{
    free(k->blob);
    *k = (struct vif_known){.n_macs = 0};
}

/* --- from the switch's words ------------------------------------------------------ */

static bool
add_mac(struct vif_known *k, uint16_t vlan, const uint8_t mac[6])
{
    if (k->n_macs >= NETWORK_MACS_MAX || mac[0] & 1 || vlan > 4095) {
        return false;
    }
    k->macs[k->n_macs].vlan = vlan;
    memcpy(k->macs[k->n_macs++].mac, mac, 6);
    return true;
}

static bool
add_group(struct vif_known *k, uint16_t vlan, const char *address)
{
    uint8_t ip[16];
    bool v4 = inet_pton(AF_INET, address, ip) == 1, v6 = inet_pton(AF_INET6, address, ip) == 1;

    if (k->n_groups >= NETWORK_GROUPS_MAX || vlan > 4095 ||
        !((v4 && (ip[0] & 0xf0) == 0xe0) || (v6 && ip[0] == 0xff))) {
        return false;
    }
    k->groups[k->n_groups].vlan = vlan;
    snprintf(k->groups[k->n_groups++].address, sizeof k->groups[0].address, "%s", address);
    return true;
}

static const char *
next_line(const char *p)
{
    p = strchr(p, '\n');
    return p ? p + 1 : NULL;
}

void
vif_known_add_macs(struct vif_known *k, const char *fdb, uint32_t ofport)
{
    for (const char *p = fdb; p && *p; p = next_line(p)) {
        unsigned port, vlan;
        char text[18];
        uint8_t mac[6];

        if (sscanf(p, "%u %u %17s", &port, &vlan, text) == 3 && hex_mac(text, mac) &&
            port == ofport) {
            add_mac(k, vlan, mac);
        }
    }
}

void
vif_known_add_groups(struct vif_known *k, const char *mdb, uint32_t ofport)
{
    for (const char *p = mdb; p && *p; p = next_line(p)) {
        unsigned port, vlan;
        char group[46];

        if (sscanf(p, "%u %u %45s", &port, &vlan, group) == 3 && port == ofport) {
            add_group(k, vlan, group); /* "querier" is none */
        }
    }
}

/* --- writing ---------------------------------------------------------------------- */

static size_t
record_len(size_t body)
{
    return body ? RECORD_HEADER + ((body + RECORD_ALIGN - 1) & ~(size_t)(RECORD_ALIGN - 1)) : 0;
}

static size_t
known_len(const struct vif_known *k)
{
    return record_len(k->blob_len) + record_len(k->n_macs * MAC_LEN) +
           record_len(k->n_groups * GROUP_LEN);
}

/* Begins a record; its body comes to '*at'. */
static uint8_t *
begin(uint8_t **at, uint32_t vif, uint32_t type, size_t body)
{
    uint8_t *p = *at;

    put_le32(p, type);
    put_le32(p + 4, vif);
    put_le32(p + 8, body);
    *at += record_len(body);
    return p + RECORD_HEADER;
}

static void
put_known(uint8_t **at, uint32_t vif, const struct vif_known *k)
{
    uint8_t *p;

    if (k->blob_len) {
        memcpy(begin(at, vif, RECORD_SWITCH, k->blob_len), k->blob, k->blob_len);
    }
    if (k->n_macs) {
        p = begin(at, vif, RECORD_MACS, k->n_macs * MAC_LEN);
        for (unsigned i = 0; i < k->n_macs; i++, p += MAC_LEN) {
            put_le16(p, k->macs[i].vlan);
            memcpy(p + 2, k->macs[i].mac, 6);
        }
    }
    if (k->n_groups) {
        p = begin(at, vif, RECORD_GROUPS, k->n_groups * GROUP_LEN);
        for (unsigned i = 0; i < k->n_groups; i++, p += GROUP_LEN) {
            bool v6 = strchr(k->groups[i].address, ':');

            put_le16(p, k->groups[i].vlan);
            p[2] = v6 ? 6 : 4;
            inet_pton(v6 ? AF_INET6 : AF_INET, k->groups[i].address, p + 4);
        }
    }
}

int
network_state_put(const struct vif_known *k, size_t n, uint8_t **data, size_t *len)
{
    uint8_t *at;

    *len = HEADER;
    for (size_t i = 0; i < n; i++) {
        *len += known_len(&k[i]);
    }
    if (*len > NETWORK_STATE_MAX) {
        return EFBIG;
    }
    *data = calloc(1, *len);
    if (!*data) {
        return ENOMEM;
    }
    memcpy(*data, MAGIC, 8);
    put_le32(*data + 8, VERSION);
    at = *data + HEADER;
    for (size_t i = 0; i < n; i++) {
        put_known(&at, i, &k[i]);
    }
    return 0;
}

/* --- reading ---------------------------------------------------------------------- */

static bool
get_macs(struct vif_known *k, struct cursor in)
{
    const uint8_t *p;

    while ((p = in.left ? cursor_take(&in, MAC_LEN) : NULL)) {
        if (!add_mac(k, get_le16(p), p + 2)) {
            return false;
        }
    }
    return !in.left;
}

static bool
get_groups(struct vif_known *k, struct cursor in)
{
    const uint8_t *p;

    while ((p = in.left ? cursor_take(&in, GROUP_LEN) : NULL)) {
        char text[INET6_ADDRSTRLEN];

        if ((p[2] != 4 && p[2] != 6) || p[3] ||
            !inet_ntop(p[2] == 6 ? AF_INET6 : AF_INET, p + 4, text, sizeof text) ||
            !add_group(k, get_le16(p), text)) {
            return false;
        }
    }
    return !in.left;
}

static bool
get_record(struct vif_known *k, uint32_t type, struct cursor body)
{
    switch (type) {
    case RECORD_SWITCH:
        if (k->blob || !body.left || !(k->blob = malloc(body.left))) {
            return false;
        }
        memcpy(k->blob, body.p, body.left);
        k->blob_len = body.left;
        return true;
    case RECORD_MACS:
        return get_macs(k, body);
    case RECORD_GROUPS:
        return get_groups(k, body);
    default:
        return type & RECORD_OPTIONAL;
    }
}

int
network_state_get(struct vif_known *k, size_t n, const uint8_t *data, size_t len)
{
    struct cursor in = cursor_on(data, len);
    const uint8_t *h = cursor_take(&in, HEADER);
    bool good = h && len <= NETWORK_STATE_MAX && !memcmp(h, MAGIC, 8) &&
                get_le32(h + 8) == VERSION && !get_le32(h + 12);

    while (good && in.left) {
        const uint8_t *r = cursor_take(&in, RECORD_HEADER), *body;
        uint32_t body_len = r ? get_le32(r + 8) : 0;

        body = r && !get_le32(r + 12) && get_le32(r + 4) < n
                   ? cursor_take_padded(&in, body_len, RECORD_ALIGN)
                   : NULL;
        good = body && get_record(&k[get_le32(r + 4)], get_le32(r), cursor_on(body, body_len));
    }
    for (size_t i = 0; !good && i < n; i++) {
        vif_known_clear(&k[i]);
    }
    return good ? 0 : EINVAL;
}
