/* Reads tags from a hostile frame, and port settings from hostile text.
 *
 * Input: one byte that says what the rest is, then the frame or the text.
 * Several texts are divided by line ends.  Beyond the sanitizers' own checks:
 * what is accepted is in range and reads back from its own formatted form. */
#include "vlan.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TAGS 3
#define MAX_TEXTS 3

static void
require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void
fuzz_codec(const uint8_t *data, size_t len)
{
    uint8_t *room = malloc(len + 4), *frame = room + 4;
    struct vlan_tag tags[MAX_TAGS], popped;
    uint16_t type;
    size_t ofs;
    int n;

    memcpy(frame, data, len);
    n = vlan_read(frame, len, tags, MAX_TAGS, &type, &ofs);
    if (n < 0) {
        vlan_pop(frame, len, &popped);
        goto out;
    }
    require(ofs == 12 + 4u * n && ofs + 2 <= len);
    if (n > 0) {
        require(vlan_pop(frame, len, &popped));
        require(vlan_tci(popped) == vlan_tci(tags[0]) && popped.tpid == tags[0].tpid);
        require(vlan_push(frame + 4, len - 4, popped));
    } else {
        require(!vlan_pop(frame, len, &popped));
        require(vlan_push(frame, len, vlan_from_tci(VLAN_TPID_8021Q, 0xffff)));
        require(vlan_pop(frame - 4, len + 4, &popped) && vlan_tci(popped) == 0xffff);
    }
    require(!memcmp(frame, data, len));
out:
    free(room);
}

/* Every message is a sentence of printable text that fits. */
static void
check_message(const char *why, size_t size)
{
    size_t len = strnlen(why, size);

    require(len > 0 && len < size);
    for (size_t i = 0; i < len; i++) {
        require(why[i] >= ' ' && why[i] <= '~');
    }
}

static void
check_set(const uint64_t set[64])
{
    char text[4096 * 5], why[256];
    uint64_t again[64];

    require(vlan_set_format(set, text, sizeof text) < sizeof text);
    require(vlan_set_parse(text, again, why, sizeof why));
    require(!memcmp(set, again, sizeof again));
    require(!vlan_set_has(set, VLAN_VID_MAX + 1));
}

static void
check_port(struct vlan_port *port)
{
    char why[256];

    require(port->tag >= -1 && port->tag <= (int)VLAN_VID_MAX);
    check_set(port->trunks);
    require(vlan_port_check(port, why, sizeof why));
    require(port->mode != VLAN_UNSET && (port->mode == VLAN_TRUNK) == (port->tag < 0));
}

static void
fuzz_text(const uint8_t *data, size_t len, bool bridge_syntax)
{
    char *texts[MAX_TEXTS + 1] = {NULL}, *copy = malloc(len + 1), *rest = copy;
    char why[256] = "", bridge[16];
    struct vlan_port port;
    bool accepted;

    memcpy(copy, data, len);
    copy[len] = '\0';
    if (bridge_syntax) {
        accepted = vlan_bridge_parse(copy, bridge, sizeof bridge, &port, why, sizeof why);
        require(!accepted || (*bridge && !strncmp(bridge, copy, strlen(bridge))));
    } else {
        for (int i = 0; i < MAX_TEXTS && rest; i++) {
            texts[i] = strsep(&rest, "\n");
        }
        accepted = vlan_port_parse(&port, texts[0], texts[1], texts[2], why, sizeof why);
    }
    if (accepted) {
        check_port(&port);
    } else {
        check_message(why, sizeof why);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) {
        return 0;
    }
    switch (data[0] % 3) {
    case 0:
        fuzz_codec(data + 1, size - 1);
        break;
    case 1:
        fuzz_text(data + 1, size - 1, false);
        break;
    case 2:
        fuzz_text(data + 1, size - 1, true);
        break;
    }
    return 0;
}
