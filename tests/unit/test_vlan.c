/* vlan: the tag codec, and port settings with what is said of wrong ones. */
#include "vlan.h"

#include "check.h"

#include <stdlib.h>
#include <string.h>

/* --- codec ---------------------------------------------------------------- */

/* Addresses 0..11, then 'types' each as two bytes, then 'pad' bytes.  Returns
 * the length. */
static size_t
build(uint8_t *frame, const uint16_t *types, size_t n, size_t pad)
{
    size_t len = 12;

    for (uint8_t i = 0; i < 12; i++) {
        frame[i] = 0xa0 + i;
    }
    for (size_t i = 0; i < n; i++) {
        frame[len++] = types[i] >> 8;
        frame[len++] = types[i];
    }
    memset(frame + len, 0x5a, pad);
    return len + pad;
}

static void
test_tci(void)
{
    bool same = true;

    CASE("tci to tag and back, all values");
    for (unsigned tci = 0; tci <= 0xffff; tci++) {
        struct vlan_tag tag = vlan_from_tci(VLAN_TPID_8021AD, tci);

        same &= vlan_tci(tag) == tci && tag.tpid == VLAN_TPID_8021AD;
    }
    CHECK(same);
    CHECK(vlan_from_tci(VLAN_TPID_8021Q, 0xa00a).pcp == 5);
    CHECK(!vlan_from_tci(VLAN_TPID_8021Q, 0xa00a).dei);
    CHECK(vlan_from_tci(VLAN_TPID_8021Q, 0xb00a).dei);
    CHECK(vlan_from_tci(VLAN_TPID_8021Q, 0xb00a).vid == 10);
}

static void
test_read(void)
{
    static const uint16_t plain[] = {0x0800}, one[] = {0x8100, 0xa064, 0x86dd},
                          priority[] = {0x8100, 0xe000, 0x0806},
                          three[] = {0x88a8, 0x0001, 0x8100, 0x1002, 0x8100, 0x0fff, 0x0800};
    struct vlan_tag tags[2];
    uint16_t type;
    size_t ofs, len;
    uint8_t frame[64];

    CASE("read: no tag");
    len = build(frame, plain, 1, 0);
    CHECK(vlan_read(frame, len, tags, 2, &type, &ofs) == 0);
    CHECK(type == 0x0800 && ofs == 12);

    CASE("read: one tag");
    len = build(frame, one, 3, 0);
    CHECK(vlan_read(frame, len, tags, 2, &type, &ofs) == 1);
    CHECK(type == 0x86dd && ofs == 16);
    CHECK(tags[0].tpid == 0x8100 && tags[0].vid == 100 && tags[0].pcp == 5 && !tags[0].dei);

    CASE("read: priority tag");
    len = build(frame, priority, 3, 0);
    CHECK(vlan_read(frame, len, tags, 2, &type, &ofs) == 1);
    CHECK(tags[0].vid == 0 && tags[0].pcp == 7 && type == 0x0806);

    CASE("read: more tags than room");
    len = build(frame, three, 7, 0);
    CHECK(vlan_read(frame, len, tags, 2, &type, &ofs) == 3);
    CHECK(type == 0x0800 && ofs == 24);
    CHECK(tags[0].tpid == 0x88a8 && tags[0].vid == 1);
    CHECK(tags[1].tpid == 0x8100 && tags[1].vid == 2 && tags[1].dei);
    CHECK(vlan_read(frame, len, NULL, 0, &type, &ofs) == 3);

    CASE("read: every truncation");
    for (size_t n = 0; n < len; n++) {
        uint8_t *exact = malloc(n ? n : 1);

        memcpy(exact, frame, n);
        CHECK(vlan_read(exact, n, tags, 2, &type, &ofs) == -1);
        free(exact);
    }
}

static void
test_push_pop(void)
{
    static const uint16_t plain[] = {0x0800};
    const struct vlan_tag customer = {VLAN_TPID_8021Q, 42, 3, true},
                          service = {VLAN_TPID_8021AD, 4094, 0, false};
    struct vlan_tag tags[2], popped;
    uint8_t room[72], before[64], *frame = room + 8;
    uint16_t type;
    size_t ofs, len = build(frame, plain, 1, 46);

    memcpy(before, frame, len);

    CASE("push two tags, pop them again");
    CHECK(vlan_push(frame, len, customer));
    frame -= 4;
    CHECK(vlan_push(frame, len + 4, service));
    frame -= 4;
    CHECK(vlan_read(frame, len + 8, tags, 2, &type, &ofs) == 2);
    CHECK(type == 0x0800 && ofs == 20);
    CHECK(tags[0].tpid == service.tpid && vlan_tci(tags[0]) == vlan_tci(service));
    CHECK(tags[1].tpid == customer.tpid && vlan_tci(tags[1]) == vlan_tci(customer));
    CHECK(vlan_pop(frame, len + 8, &popped) && popped.vid == 4094);
    frame += 4;
    CHECK(vlan_pop(frame, len + 4, &popped) && popped.vid == 42 && popped.pcp == 3 && popped.dei);
    frame += 4;
    CHECK(!memcmp(frame, before, len));

    CASE("pop: nothing to pop");
    CHECK(!vlan_pop(frame, len, &popped));
    CHECK(!memcmp(frame, before, len));

    CASE("push and pop: frame too short");
    CHECK(!vlan_push(frame, 13, customer));
    CHECK(!memcmp(frame, before, len));
    frame[12] = 0x81;
    frame[13] = 0x00;
    memcpy(before, frame, len);
    CHECK(!vlan_pop(frame, 17, &popped));
    CHECK(!memcmp(frame, before, len));
}

/* --- sets ----------------------------------------------------------------- */

static bool
set_is(const char *text, const char *formatted)
{
    uint64_t set[64];
    char why[160] = "", out[128];

    return vlan_set_parse(text, set, why, sizeof why) &&
           vlan_set_format(set, out, sizeof out) == strlen(formatted) && !strcmp(out, formatted);
}

static bool
set_refused(const char *text, const char *because)
{
    uint64_t set[64];
    char why[160] = "";

    return !vlan_set_parse(text, set, why, sizeof why) && !strcmp(why, because);
}

static void
test_sets(void)
{
    uint64_t set[64];
    char why[160], out[8];

    CASE("set: parse and format");
    CHECK(set_is("", ""));
    CHECK(set_is(NULL, ""));
    CHECK(set_is(" \t", ""));
    CHECK(set_is("10,20,30-39", "10,20,30-39"));
    CHECK(set_is(" 39 , 30 - 38,20,10,10 ", "10,20,30-39"));
    CHECK(set_is("0,1,4094,4093", "0,1,4093,4094"));
    CHECK(set_is("7-7,0009", "7,9"));
    CHECK(set_is("0-4094", "0-4094"));
    CHECK(set_is("63-65", "63-65"));

    CASE("set: refused, and why");
    CHECK(set_refused("4095", "VLAN 4095 is out of range: use 0 to 4094"));
    CHECK(set_refused("1,4000-4294967297", "VLAN 4294967297 is out of range: use 0 to 4094"));
    CHECK(set_refused("99999999999999999999999999999999999999999",
                      "VLAN 9999999999999999999999999999... is out of range: use 0 to 4094"));
    CHECK(set_refused("10,,20", "an entry of \"10,,20\" is empty: remove the extra ','"));
    CHECK(set_refused("10,", "an entry of \"10,\" is empty: remove the extra ','"));
    CHECK(set_refused(",", "an entry of \",\" is empty: remove the extra ','"));
    CHECK(set_refused("39-30", "range 39-30 runs backwards: write 30-39"));
    CHECK(
        set_refused("1,ten", "\"ten\" is not a VLAN: use numbers and ranges such as 10,20,30-39"));
    CHECK(set_refused("-5", "\"-5\" is not a VLAN: use numbers and ranges such as 10,20,30-39"));
    CHECK(set_refused("5-", "\"5-\" is not a VLAN: use numbers and ranges such as 10,20,30-39"));
    CHECK(set_refused("1-2-3", "\"1-2-3\" is not a VLAN: use numbers and ranges such as "
                               "10,20,30-39"));
    CHECK(set_refused("+5", "\"+5\" is not a VLAN: use numbers and ranges such as 10,20,30-39"));
    CHECK(set_refused("\n\"\x1b[31m", "\"???[31m\" is not a VLAN: use numbers and ranges such as "
                                      "10,20,30-39"));

    CASE("set: format into a small buffer");
    CHECK(vlan_set_parse("10,20,30-39", set, why, sizeof why));
    CHECK(vlan_set_format(set, out, sizeof out) == 11 && !strcmp(out, "10,20,3"));
    CHECK(vlan_set_format(set, out, 1) == 11 && !strcmp(out, ""));
    CHECK(vlan_set_format(set, NULL, 0) == 11);

    CASE("set: membership");
    CHECK(vlan_set_has(set, 10) && vlan_set_has(set, 39) && !vlan_set_has(set, 40));
    CHECK(!vlan_set_has(set, 4096) && !vlan_set_has(set, 0xffffffff));
    CHECK(!vlan_set_empty(set));

    CASE("set: a failed parse may be asked for no reason");
    CHECK(!vlan_set_parse("x", set, NULL, 0));
}

/* --- ports ---------------------------------------------------------------- */

static bool
port_is(const char *mode, const char *tag, const char *trunks, enum vlan_mode want)
{
    struct vlan_port port;
    char why[160];

    return vlan_port_parse(&port, mode, tag, trunks, why, sizeof why) && port.mode == want &&
           vlan_port_check(&port, why, sizeof why) && port.mode == want;
}

static bool
port_refused(const char *mode, const char *tag, const char *trunks, const char *because)
{
    struct vlan_port port;
    char why[160] = "";

    return !vlan_port_parse(&port, mode, tag, trunks, why, sizeof why) && !strcmp(why, because);
}

static void
test_port_modes(void)
{
    struct vlan_port port;
    enum vlan_mode mode;
    char why[160];

    CASE("mode: names");
    for (int i = VLAN_UNSET; i <= VLAN_DOT1Q_TUNNEL; i++) {
        CHECK(vlan_mode_parse(vlan_mode_name(i), &mode) && (int)mode == i);
    }
    CHECK(!vlan_mode_parse("Access", &mode));
    CHECK(!vlan_mode_parse("trunk ", &mode));
    CHECK(!strcmp(vlan_mode_name(99), "unknown"));

    CASE("port: settings that agree");
    CHECK(port_is(NULL, NULL, NULL, VLAN_TRUNK));
    CHECK(port_is("", "", "", VLAN_TRUNK));
    CHECK(port_is("", "", "10,20", VLAN_TRUNK));
    CHECK(port_is("", "10", "", VLAN_ACCESS));
    CHECK(port_is("", " 0 ", "", VLAN_ACCESS));
    CHECK(port_is("access", "4094", NULL, VLAN_ACCESS));
    CHECK(port_is("trunk", "", "1-4094", VLAN_TRUNK));
    CHECK(port_is("native-tagged", "1", "", VLAN_NATIVE_TAGGED));
    CHECK(port_is("native-untagged", "1", "2,3", VLAN_NATIVE_UNTAGGED));
    CHECK(port_is("dot1q-tunnel", "100", "", VLAN_DOT1Q_TUNNEL));

    CASE("port: dot1q-tunnel takes cvlans");
    CHECK(vlan_port_parse(&port, "dot1q-tunnel", "100", "", why, sizeof why));
    CHECK(vlan_set_parse("5-9", port.cvlans, why, sizeof why));
    CHECK(vlan_port_check(&port, why, sizeof why));
    port.mode = VLAN_ACCESS;
    CHECK(!vlan_port_check(&port, why, sizeof why));
    CHECK(!strcmp(why, "mode access takes no cvlans: remove cvlans or use mode dot1q-tunnel"));
}

static void
test_port_conflicts(void)
{
    struct vlan_port port;
    char why[160];

    CASE("port: conflicts, and what is said of them");
    CHECK(port_refused("", "4095", "", "tag 4095 is out of range: use 0 to 4094"));
    CHECK(port_refused("", "ten", "", "tag \"ten\" is not a number: use 0 to 4094"));
    CHECK(port_refused("", "-1", "", "tag \"-1\" is not a number: use 0 to 4094"));
    CHECK(port_refused("", "1 2", "", "tag \"1 2\" is not a number: use 0 to 4094"));
    CHECK(port_refused("", "", "1,4095", "trunks: VLAN 4095 is out of range: use 0 to 4094"));
    CHECK(port_refused("hybrid", "", "",
                       "mode \"hybrid\" is unknown: use access, trunk, native-tagged, "
                       "native-untagged or dot1q-tunnel"));
    CHECK(port_refused("access", "", "", "mode access needs a tag: set one from 0 to 4094"));
    CHECK(port_refused("access", "10", "20",
                       "mode access takes no trunks: remove trunks or use mode trunk"));
    CHECK(port_refused("trunk", "10", "20",
                       "mode trunk takes no tag: remove tag 10, or use mode native-tagged or "
                       "native-untagged to give untagged frames a VLAN"));
    CHECK(port_refused("native-tagged", "", "20",
                       "mode native-tagged needs a tag: set one from 0 to 4094"));
    CHECK(port_refused("native-untagged", "", "",
                       "mode native-untagged needs a tag: set one from 0 to 4094"));
    CHECK(port_refused("dot1q-tunnel", "", "",
                       "mode dot1q-tunnel needs a tag: set one from 0 to 4094"));
    CHECK(port_refused("dot1q-tunnel", "100", "20",
                       "mode dot1q-tunnel takes no trunks: list customer VLANs in cvlans"));
    CHECK(port_refused("", "10", "20",
                       "tag 10 and trunks are both set, but no mode: set mode native-tagged or "
                       "native-untagged, or remove one of the two"));

    CASE("port: ranges of settings that were not text");
    vlan_port_init(&port);
    port.tag = 4095;
    CHECK(!vlan_port_check(&port, why, sizeof why));
    CHECK(!strcmp(why, "tag 4095 is out of range: use 0 to 4094"));
    port.tag = -2;
    CHECK(!vlan_port_check(&port, why, sizeof why));
    port.tag = -1;
    port.trunks[63] = UINT64_C(1) << 63;
    CHECK(!vlan_port_check(&port, why, sizeof why));
    CHECK(!strcmp(why, "trunk 4095 is out of range: use 0 to 4094"));
    port.trunks[63] = 0;
    port.mode = 77;
    CHECK(!vlan_port_check(&port, why, sizeof why));
    CHECK(port.mode == 77);
}

/* --- xl's bridge syntax ----------------------------------------------------- */

static bool
bridge_is(const char *spec, const char *bridge, int tag, const char *trunks)
{
    struct vlan_port port;
    char why[160], name[16], set[128];

    return vlan_bridge_parse(spec, name, sizeof name, &port, why, sizeof why) &&
           port.mode == VLAN_UNSET && !strcmp(name, bridge) && port.tag == tag &&
           vlan_set_format(port.trunks, set, sizeof set) < sizeof set && !strcmp(set, trunks) &&
           vlan_port_check(&port, why, sizeof why);
}

static bool
bridge_refused(const char *spec, const char *because)
{
    struct vlan_port port;
    char why[160] = "", name[16];

    return !vlan_bridge_parse(spec, name, sizeof name, &port, why, sizeof why) &&
           !strcmp(why, because);
}

static void
test_bridge(void)
{
    struct vlan_port port;
    char why[160], name[16];

    CASE("bridge: what xl accepts");
    CHECK(bridge_is("xenbr0", "xenbr0", -1, ""));
    CHECK(bridge_is("xenbr0.10", "xenbr0", 10, ""));
    CHECK(bridge_is("xenbr0:10", "xenbr0", -1, "10"));
    CHECK(bridge_is("xenbr0:10:20:30", "xenbr0", -1, "10,20,30"));
    CHECK(bridge_is("xenbr0:20:30-39", "xenbr0", -1, "20,30-39"));
    CHECK(bridge_is("br.eth0", "br.eth0", -1, ""));
    CHECK(bridge_is("br.eth0.7", "br.eth0", 7, ""));
    CHECK(bridge_is("10", "10", -1, ""));
    CHECK(bridge_is("br.", "br.", -1, ""));
    CHECK(bridge_is("a.b1", "a.b1", -1, ""));
    CHECK(bridge_is("fifteen-chars-x", "fifteen-chars-x", -1, ""));

    CASE("bridge: refused, and why");
    CHECK(bridge_refused("", "\"\" names no bridge: write BRIDGE[.TAG][:TRUNK...]"));
    CHECK(bridge_refused(".10", "\".10\" names no bridge: write BRIDGE[.TAG][:TRUNK...]"));
    CHECK(bridge_refused(":10", "\":10\" names no bridge: write BRIDGE[.TAG][:TRUNK...]"));
    CHECK(bridge_refused("xenbr0.4095", "tag 4095 is out of range: use 0 to 4094"));
    CHECK(bridge_refused("xenbr0:4095", "trunks: VLAN 4095 is out of range: use 0 to 4094"));
    CHECK(bridge_refused("xenbr0:", "trunks: an entry of \"\" is empty: remove the extra ':'"));
    CHECK(bridge_refused("xenbr0:1::2",
                         "trunks: an entry of \"1::2\" is empty: remove the extra ':'"));
    CHECK(bridge_refused("sixteen-chars-xx",
                         "bridge name \"sixteen-chars-xx\" is too long: use at most 15 "
                         "characters"));
    CHECK(bridge_refused("../x", "bridge name \"../x\" has a character that no bridge name may "
                                 "have: remove blanks, slashes and control characters"));
    CHECK(bridge_refused("a\nb", "bridge name \"a?b\" has a character that no bridge name may "
                                 "have: remove blanks, slashes and control characters"));
    CHECK(!vlan_bridge_parse("x", name, 0, &port, why, sizeof why));
    CHECK(bridge_refused("xenbr0.10:20",
                         "\"xenbr0.10:20\" has a tag and trunks, but no place for the mode that "
                         "they need: name the bridge alone and set vlan-mode, vlan and trunks"));
}

int
main(void)
{
    test_tci();
    test_read();
    test_push_pop();
    test_sets();
    test_port_modes();
    test_port_conflicts();
    test_bridge();
    return check_done();
}
