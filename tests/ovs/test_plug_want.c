/* What port a vif gets from what the toolstack wrote about it. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "lib/vswitch-idl.h"
#include "netback.h"
#include "openvswitch/shash.h"
#include "plug_want.h"
#include "util.h"

static struct ovsrec_bridge xenbr0 = {.name = "xenbr0"}, dotted = {.name = "br.5"};
static struct plug_bridge real = {&xenbr0, -1}, odd = {&dotted, -1}, fake = {&xenbr0, 100};
static struct shash bridges = SHASH_INITIALIZER(&bridges);
static char why[256];

static bool
resolve(const char *bridge, const char *mode, const char *tag, const char *trunks,
        struct plug_want *want)
{
    struct netback_vif_info vif = {.domid = 7, .handle = 1};

    ovs_strlcpy(vif.bridge, bridge, sizeof vif.bridge);
    ovs_strlcpy(vif.vlan_mode, mode, sizeof vif.vlan_mode);
    ovs_strlcpy(vif.vlan_tag, tag, sizeof vif.vlan_tag);
    ovs_strlcpy(vif.vlan_trunks, trunks, sizeof vif.vlan_trunks);
    why[0] = '\0';
    return plug_want(&vif, &bridges, want, why, sizeof why);
}

/* Checks the whole of what is wanted, as text. */
static bool
wants(const char *bridge, const char *mode, const char *tag, const char *trunks, const char *text)
{
    struct plug_want want;
    char *got;
    bool same;

    if (!resolve(bridge, mode, tag, trunks, &want)) {
        printf("# refused: %s\n", why);
        return false;
    }
    got = plug_want_format(&want);
    same = !strcmp(got, text);
    if (!same) {
        printf("# got: %s\n", got);
    }
    free(got);
    plug_want_destroy(&want);
    return same;
}

/* Checks that it is refused with 'text' in the reason. */
static bool
refuses(const char *bridge, const char *mode, const char *tag, const char *trunks, const char *text)
{
    struct plug_want want;

    if (resolve(bridge, mode, tag, trunks, &want)) {
        plug_want_destroy(&want);
        return false;
    }
    return strstr(why, text);
}

int
main(void)
{
    struct netback_vif_info vif = {.domid = 32751, .handle = UINT32_MAX};
    char name[PLUG_NAME_SIZE];

    shash_add(&bridges, "xenbr0", &real);
    shash_add(&bridges, "br.5", &odd);
    shash_add(&bridges, "xapi1", &fake);

    CASE("plug-port-name");
    plug_port_name(&vif, name);
    CHECK(!strcmp(name, "vif32751.4294967295"));

    CASE("plug-bridge-alone");
    CHECK(wants("xenbr0", "", "", "", "on xenbr0"));

    CASE("plug-bridge-with-vlan");
    CHECK(wants("xenbr0.20", "", "", "", "on xenbr0, tag 20"));
    CHECK(refuses("xenbr0.4095", "", "", "", "4095"));

    CASE("plug-bridge-with-dot");
    CHECK(wants("br.5", "", "", "", "on br.5"));

    CASE("plug-keys");
    CHECK(wants("xenbr0", "access", "30", "", "on xenbr0, access, tag 30"));
    CHECK(wants("xenbr0", "trunk", "", "10,20", "on xenbr0, trunk, trunks 10,20"));
    CHECK(wants("xenbr0", "native-untagged", "5", "5,6",
                "on xenbr0, native-untagged, tag 5, trunks 5,6"));
    CHECK(refuses("xenbr0", "access", "", "", "tag"));
    CHECK(refuses("xenbr0", "sideways", "", "", "sideways"));

    CASE("plug-name-and-keys-conflict");
    CHECK(refuses("xenbr0.20", "access", "30", "", "use one"));

    CASE("plug-fake-bridge");
    CHECK(wants("xapi1", "", "", "", "on xenbr0, tag 100"));
    CHECK(refuses("xapi1", "access", "30", "", "is VLAN 100 of xenbr0"));
    CHECK(refuses("xapi1.30", "", "", "", "is VLAN 100 of xenbr0"));

    CASE("plug-missing-bridge");
    CHECK(refuses("nowhere", "", "", "", "bridge nowhere does not exist"));
    CHECK(refuses("nowhere.7", "", "", "", "bridge nowhere does not exist"));

    shash_destroy(&bridges);
    return check_done();
}
