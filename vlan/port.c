/* port: VLAN settings of a port, from a toolstack's text and checked; see
 * vlan.h.
 *
 * The text comes out of xenstore.  A message quotes no more of it than fits a
 * log line, and only what is printable. */
#include "vlan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define N_VIDS 4096u

/* What a message shows of a text that somebody else wrote. */
struct excerpt {
    char text[32];
};

static struct excerpt
excerpt_of(const char *s, size_t n)
{
    struct excerpt e;
    size_t max = sizeof e.text - 1, i;

    for (i = 0; i < n && i < max; i++) {
        bool plain = s[i] >= ' ' && s[i] <= '~' && s[i] != '"';

        e.text[i] = plain ? s[i] : '?';
    }
    e.text[i] = '\0';
    if (n > max) {
        memcpy(e.text + max - 3, "...", 3);
    }
    return e;
}

/* Writes the sentence and returns false, which is what its caller returns. */
static bool __attribute__((format(printf, 3, 4)))
refuse(char *why, size_t why_size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, why_size, format, args);
    va_end(args);
    return false;
}

/* --- sets of VLANs -------------------------------------------------------- */

bool
vlan_set_has(const uint64_t bitmap[64], unsigned vid)
{
    return vid < N_VIDS && bitmap[vid / 64] >> vid % 64 & 1;
}

bool
vlan_set_empty(const uint64_t bitmap[64])
{
    for (int i = 0; i < 64; i++) {
        if (bitmap[i]) {
            return false;
        }
    }
    return true;
}

static void
set_add(uint64_t bitmap[64], unsigned first, unsigned last)
{
    for (unsigned vid = first; vid <= last; vid++) {
        bitmap[vid / 64] |= UINT64_C(1) << vid % 64;
    }
}

/* Takes the blanks off both ends of the 'n' bytes at '*s'; returns how many
 * are left. */
static size_t
trim(const char **s, size_t n)
{
    for (; n && (**s == ' ' || **s == '\t'); n--) {
        ++*s;
    }
    while (n && ((*s)[n - 1] == ' ' || (*s)[n - 1] == '\t')) {
        n--;
    }
    return n;
}

enum vid_result { VID_OK, VID_NOT_A_NUMBER, VID_OUT_OF_RANGE };

/* Reads all of the 'n' bytes at 's' as a VLAN id. */
static enum vid_result
parse_vid(const char *s, size_t n, unsigned *vid)
{
    unsigned value = 0;

    if (!n) {
        return VID_NOT_A_NUMBER;
    }
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return VID_NOT_A_NUMBER;
        }
        if (value <= VLAN_VID_MAX) { /* beyond that, larger is all we need to know */
            value = value * 10 + (s[i] - '0');
        }
    }
    *vid = value;
    return value <= VLAN_VID_MAX ? VID_OK : VID_OUT_OF_RANGE;
}

/* Adds one part of a list: "10" or "30-39". */
static bool
parse_part(uint64_t bitmap[64], const char *s, size_t n, char *why, size_t why_size)
{
    const char *dash = memchr(s, '-', n), *ends[2] = {s, s};
    size_t lens[2] = {n, n};
    unsigned vids[2];

    if (dash) {
        lens[0] = dash - s;
        ends[1] = dash + 1;
        lens[1] = n - lens[0] - 1;
    }
    for (int i = 0; i < 2; i++) {
        lens[i] = trim(&ends[i], lens[i]);
        switch (parse_vid(ends[i], lens[i], &vids[i])) {
        case VID_OK:
            break;
        case VID_NOT_A_NUMBER:
            return refuse(why, why_size,
                          "\"%s\" is not a VLAN: use numbers and ranges such as 10,20,30-39",
                          excerpt_of(s, n).text);
        case VID_OUT_OF_RANGE:
            return refuse(why, why_size, "VLAN %s is out of range: use 0 to %u",
                          excerpt_of(ends[i], lens[i]).text, VLAN_VID_MAX);
        }
    }
    if (vids[0] > vids[1]) {
        return refuse(why, why_size, "range %u-%u runs backwards: write %u-%u", vids[0], vids[1],
                      vids[1], vids[0]);
    }
    set_add(bitmap, vids[0], vids[1]);
    return true;
}

/* Reads the parts of 'text', up to its end, divided by 'divider'. */
static bool
parse_set(const char *text, char divider, uint64_t bitmap[64], char *why, size_t why_size)
{
    for (const char *s = text;;) {
        const char *end = strchr(s, divider), *part = s;
        size_t n = trim(&part, end ? (size_t)(end - s) : strlen(s));

        if (!n) {
            return refuse(why, why_size, "an entry of \"%s\" is empty: remove the extra '%c'",
                          excerpt_of(text, strlen(text)).text, divider);
        }
        if (!parse_part(bitmap, part, n, why, why_size)) {
            return false;
        }
        if (!end) {
            return true;
        }
        s = end + 1;
    }
}

bool
vlan_set_parse(const char *text, uint64_t bitmap[64], char *why, size_t why_size)
{
    const char *s = text ? text : "";

    memset(bitmap, 0, 64 * sizeof bitmap[0]);
    return !trim(&s, strlen(s)) || parse_set(text, ',', bitmap, why, why_size);
}

size_t
vlan_set_format(const uint64_t bitmap[64], char *text, size_t size)
{
    size_t len = 0;

    if (size) {
        text[0] = '\0';
    }
    for (unsigned first = 0; first < N_VIDS; first++) {
        unsigned last = first;
        size_t room = len < size ? size - len : 0;
        const char *comma = len ? "," : "";

        if (!vlan_set_has(bitmap, first)) {
            continue;
        }
        while (vlan_set_has(bitmap, last + 1)) {
            last++;
        }
        if (last > first + 1) {
            len += snprintf(room ? text + len : NULL, room, "%s%u-%u", comma, first, last);
            first = last;
        } else {
            len += snprintf(room ? text + len : NULL, room, "%s%u", comma, first);
        }
    }
    return len;
}

/* --- modes ---------------------------------------------------------------- */

static const char *const mode_names[] = {
    [VLAN_UNSET] = "",
    [VLAN_ACCESS] = "access",
    [VLAN_TRUNK] = "trunk",
    [VLAN_NATIVE_TAGGED] = "native-tagged",
    [VLAN_NATIVE_UNTAGGED] = "native-untagged",
    [VLAN_DOT1Q_TUNNEL] = "dot1q-tunnel",
};
#define N_MODES (sizeof mode_names / sizeof mode_names[0])
#define MODE_LIST "access, trunk, native-tagged, native-untagged or dot1q-tunnel"

bool
vlan_mode_parse(const char *name, enum vlan_mode *mode)
{
    for (size_t i = 0; i < N_MODES; i++) {
        if (!strcmp(name, mode_names[i])) {
            *mode = i;
            return true;
        }
    }
    return false;
}

const char *
vlan_mode_name(enum vlan_mode mode)
{
    return mode < N_MODES ? mode_names[mode] : "unknown";
}

void
vlan_port_init(struct vlan_port *port)
{
    memset(port, 0, sizeof *port);
    port->tag = -1;
}

static bool
check_ranges(const struct vlan_port *port, char *why, size_t why_size)
{
    if (port->mode >= N_MODES) {
        return refuse(why, why_size, "mode number %d is unknown: use " MODE_LIST, (int)port->mode);
    }
    if (port->tag < -1 || port->tag > (int)VLAN_VID_MAX) {
        return refuse(why, why_size, "tag %d is out of range: use 0 to %u", port->tag,
                      VLAN_VID_MAX);
    }
    if (vlan_set_has(port->trunks, VLAN_VID_MAX + 1)) {
        return refuse(why, why_size, "trunk %u is out of range: use 0 to %u", VLAN_VID_MAX + 1,
                      VLAN_VID_MAX);
    }
    if (vlan_set_has(port->cvlans, VLAN_VID_MAX + 1)) {
        return refuse(why, why_size, "customer VLAN %u is out of range: use 0 to %u",
                      VLAN_VID_MAX + 1, VLAN_VID_MAX);
    }
    return true;
}

/* Checks what a mode needs and what it cannot take.  ovs-vswitchd ignores a
 * setting that the mode has no use for; here it is refused, because whoever
 * wrote it expects it to do something. */
static bool
check_agreement(const struct vlan_port *port, char *why, size_t why_size)
{
    const char *name = vlan_mode_name(port->mode);
    bool has_trunks = !vlan_set_empty(port->trunks), has_cvlans = !vlan_set_empty(port->cvlans);

    if (port->mode == VLAN_TRUNK) {
        if (port->tag >= 0) {
            return refuse(why, why_size,
                          "mode trunk takes no tag: remove tag %d, or use mode native-tagged or "
                          "native-untagged to give untagged frames a VLAN",
                          port->tag);
        }
    } else if (port->tag < 0) {
        return refuse(why, why_size, "mode %s needs a tag: set one from 0 to %u", name,
                      VLAN_VID_MAX);
    }
    if (has_trunks && port->mode == VLAN_ACCESS) {
        return refuse(why, why_size,
                      "mode access takes no trunks: remove trunks or use mode trunk");
    }
    if (has_trunks && port->mode == VLAN_DOT1Q_TUNNEL) {
        return refuse(why, why_size,
                      "mode dot1q-tunnel takes no trunks: list customer VLANs in cvlans");
    }
    if (has_cvlans && port->mode != VLAN_DOT1Q_TUNNEL) {
        return refuse(why, why_size,
                      "mode %s takes no cvlans: remove cvlans or use mode dot1q-tunnel", name);
    }
    return true;
}

bool
vlan_port_check(struct vlan_port *port, char *why, size_t why_size)
{
    struct vlan_port resolved = *port;

    if (!check_ranges(port, why, why_size)) {
        return false;
    }
    if (port->mode == VLAN_UNSET) {
        if (port->tag >= 0 && !vlan_set_empty(port->trunks)) {
            return refuse(why, why_size,
                          "tag %d and trunks are both set, but no mode: set mode native-tagged or "
                          "native-untagged, or remove one of the two",
                          port->tag);
        }
        resolved.mode = port->tag >= 0 ? VLAN_ACCESS : VLAN_TRUNK;
    }
    if (!check_agreement(&resolved, why, why_size)) {
        return false;
    }
    *port = resolved;
    return true;
}

/* --- a toolstack's text --------------------------------------------------- */

static bool
parse_tag(const char *s, size_t n, int *tag, char *why, size_t why_size)
{
    unsigned vid;

    switch (parse_vid(s, n, &vid)) {
    case VID_OK:
        *tag = vid;
        return true;
    case VID_OUT_OF_RANGE:
        return refuse(why, why_size, "tag %s is out of range: use 0 to %u", excerpt_of(s, n).text,
                      VLAN_VID_MAX);
    case VID_NOT_A_NUMBER:
        break;
    }
    return refuse(why, why_size, "tag \"%s\" is not a number: use 0 to %u", excerpt_of(s, n).text,
                  VLAN_VID_MAX);
}

/* Puts what 'why' complains of into the setting it was found in. */
static bool
refuse_in(const char *setting, const char *detail, char *why, size_t why_size)
{
    return refuse(why, why_size, "%s: %s", setting, detail);
}

bool
vlan_port_parse(struct vlan_port *port, const char *mode, const char *tag, const char *trunks,
                char *why, size_t why_size)
{
    char detail[160];
    size_t n;

    vlan_port_init(port);
    if (mode && !vlan_mode_parse(mode, &port->mode)) {
        return refuse(why, why_size, "mode \"%s\" is unknown: use " MODE_LIST,
                      excerpt_of(mode, strlen(mode)).text);
    }
    n = tag ? trim(&tag, strlen(tag)) : 0;
    if (n && !parse_tag(tag, n, &port->tag, why, why_size)) {
        return false;
    }
    if (!vlan_set_parse(trunks, port->trunks, detail, sizeof detail)) {
        return refuse_in("trunks", detail, why, why_size);
    }
    return vlan_port_check(port, why, why_size);
}

/* Where the name in "BRIDGE[.TAG]", 'n' bytes, ends: at the last dot if
 * nothing but digits follows it. */
static size_t
bridge_name_len(const char *spec, size_t n)
{
    size_t i = n;

    while (i && spec[i - 1] >= '0' && spec[i - 1] <= '9') {
        i--;
    }
    return i && i < n && spec[i - 1] == '.' ? i - 1 : n;
}

bool
vlan_bridge_parse(const char *spec, char *bridge, size_t bridge_size, struct vlan_port *port,
                  char *why, size_t why_size)
{
    size_t head = strcspn(spec, ":"), name_len = bridge_name_len(spec, head);
    char detail[160];

    vlan_port_init(port);
    if (!name_len) {
        return refuse(why, why_size, "\"%s\" names no bridge: write BRIDGE[.TAG][:TRUNK...]",
                      excerpt_of(spec, strlen(spec)).text);
    }
    if (name_len >= bridge_size) {
        return refuse(why, why_size, "bridge name \"%s\" is too long: use at most %zu characters",
                      excerpt_of(spec, name_len).text, bridge_size ? bridge_size - 1 : 0);
    }
    for (size_t i = 0; i < name_len; i++) {
        if (spec[i] <= ' ' || spec[i] > '~' || spec[i] == '/' || spec[i] == '\\') {
            return refuse(why, why_size,
                          "bridge name \"%s\" has a character that no bridge name may have: "
                          "remove blanks, slashes and control characters",
                          excerpt_of(spec, name_len).text);
        }
    }
    if (name_len < head &&
        !parse_tag(spec + name_len + 1, head - name_len - 1, &port->tag, why, why_size)) {
        return false;
    }
    if (spec[head] && !parse_set(spec + head + 1, ':', port->trunks, detail, sizeof detail)) {
        return refuse_in("trunks", detail, why, why_size);
    }
    if (port->tag >= 0 && spec[head]) {
        return refuse(why, why_size,
                      "\"%s\" has a tag and trunks, but no place for the mode that they need: "
                      "name the bridge alone and set vlan-mode, vlan and trunks",
                      excerpt_of(spec, strlen(spec)).text);
    }
    memcpy(bridge, spec, name_len);
    bridge[name_len] = '\0';
    return true;
}
