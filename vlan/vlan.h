/* vlan: 802.1Q and 802.1ad tags.
 *
 * Two parts: the tag codec on frames, and a port's VLAN mode with its checks.
 * Pure functions; no thread rules.  Source: IEEE 802.1Q-2018 clauses 6 and 9,
 * ovs-vswitchd.conf.db(5) "VLAN Configuration". */
#ifndef VLAN_H
#define VLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VLAN_TPID_8021Q 0x8100u
#define VLAN_TPID_8021AD 0x88a8u
#define VLAN_VID_MAX 4094u

/* One tag, host order.  vid 0 is a priority tag. */
struct vlan_tag {
    uint16_t tpid;
    uint16_t vid; /* 0..4095 as on the wire */
    uint8_t pcp;  /* 0..7 */
    bool dei;
};

/* --- codec --------------------------------------------------------------- */

/* Reads the tags of an Ethernet frame, outermost first, at most 'cap'.
 * '*eth_type' becomes what follows them, '*eth_type_ofs' where it stands.
 * Returns the number of tags present (may exceed 'cap'), or -1 if the frame
 * is too short to say. */
int vlan_read(const uint8_t *frame, size_t len, struct vlan_tag *, unsigned cap, uint16_t *eth_type,
              size_t *eth_type_ofs);
/* Pushes a tag in front of the frame's others.  'frame' must have 4 writable bytes before
 * it; the frame then starts at 'frame' - 4.  False if it is shorter than 14. */
bool vlan_push(uint8_t *frame, size_t len, struct vlan_tag);
/* Pops the outermost tag: the frame then starts at 'frame' + 4.  False, frame
 * untouched, if there is none. */
bool vlan_pop(uint8_t *frame, size_t len, struct vlan_tag *);
uint16_t vlan_tci(struct vlan_tag);
struct vlan_tag vlan_from_tci(uint16_t tpid, uint16_t tci);

/* --- port modes ----------------------------------------------------------- */

enum vlan_mode {
    VLAN_UNSET, /* trunk for all, or access if only a tag is given (OVS's default) */
    VLAN_ACCESS,
    VLAN_TRUNK,
    VLAN_NATIVE_TAGGED,
    VLAN_NATIVE_UNTAGGED,
    VLAN_DOT1Q_TUNNEL,
};

struct vlan_port {
    enum vlan_mode mode;
    int tag;             /* 0..4094, or -1 for none */
    uint64_t trunks[64]; /* bitmap of 4,096 VIDs; all zero: every VLAN */
    uint64_t cvlans[64]; /* for dot1q-tunnel; all zero: every VLAN */
};

void vlan_port_init(struct vlan_port *);
/* "access", "trunk", "native-tagged", "native-untagged", "dot1q-tunnel", "". */
bool vlan_mode_parse(const char *, enum vlan_mode *);
const char *vlan_mode_name(enum vlan_mode);
/* "10,20,30-39" into a bitmap; blanks around numbers are allowed, no text or
 * NULL is the empty set.  On failure names the offending part in 'why'. */
bool vlan_set_parse(const char *, uint64_t bitmap[64], char *why, size_t why_size);
/* The shortest such text ("10,20,30-39"); returns its length as snprintf does. */
size_t vlan_set_format(const uint64_t bitmap[64], char *, size_t size);
bool vlan_set_has(const uint64_t bitmap[64], unsigned vid);
bool vlan_set_empty(const uint64_t bitmap[64]);

/* Checks that the settings agree with each other and are in range, and
 * resolves VLAN_UNSET.  On failure says in one sentence which setting is
 * wrong, why, and what would be right, and leaves the port as it was.  Stricter
 * than ovs-vswitchd, which ignores a setting that the mode has no use for. */
bool vlan_port_check(struct vlan_port *, char *why, size_t why_size);

/* Settings as a toolstack writes them: mode, tag and trunks as text, any
 * empty or NULL.  Checked as vlan_port_check() does. */
bool vlan_port_parse(struct vlan_port *, const char *mode, const char *tag, const char *trunks,
                     char *why, size_t why_size);

/* xl's bridge syntax "BRIDGE[.TAG][:TRUNK[:TRUNK...]]" (Xen's
 * tools/hotplug/Linux/vif-openvswitch): splits off the bridge's name and
 * fills the port.  A dot that is not followed by digits only belongs to the name.
 * Each TRUNK may be a range.  Tag and trunks together are refused: they need a
 * mode, and there ovs-vswitchd would ignore the trunks.  The mode stays
 * VLAN_UNSET, with which what was accepted passes vlan_port_check(). */
bool vlan_bridge_parse(const char *spec, char *bridge, size_t bridge_size, struct vlan_port *,
                       char *why, size_t why_size);

#endif
