/* A Xen domain's configuration as a source states it: what of it is believed, and what libxl
 * is given. */
#include "bytes.h"
#include "driver_list.h"
#include "mig_toolstack.h"
#include "xen_config.h"

/* --- what a source may say of its domain -------------------------------------------------------
 */

#define NIC                                                                                        \
    "\"devid\":0,\"mac\":\"00:16:3e:00:00:0b\",\"bridge\":\"xenbr0.10\",\"mtu\":1500,"             \
    "\"script\":\"/bin/sh\",\"ip\":\"192.0.2.1/24\",\"nictype\":\"vif\",\"model\":\"rtl8139\""
#define C_INFO                                                                                     \
    "\"type\":\"pvh\",\"name\":\"g 1\",\"uuid\":\"" UUID "\",\"hap\":\"True\",\"domid\":7,"        \
    "\"run_hotplug_scripts\":\"True\",\"driver_domain\":\"False\",\"passthrough\":\"disabled\""
#define B_INFO                                                                                     \
    "\"max_vcpus\":2,\"avail_vcpus\":[0,1],\"max_memkb\":65536,\"target_memkb\":65536,"            \
    "\"tsc_mode\":\"native\",\"kernel\":\"/etc/shadow\",\"cmdline\":\"a b\",\"shadow_memkb\":99,"  \
    "\"sched_params\":{\"weight\":512},\"type.pvh\":{},\"arch_arm\":{},\"acpi\":\"<default>\""

/* The configuration with these members besides; they must not be among those above. */
static char *
config_with(const char *c_info, const char *b_info, const char *nic, const char *root)
{
    char *text;

    CHECK(asprintf(&text,
                   "{\"c_info\":{" C_INFO "%s},\"b_info\":{" B_INFO "%s},\"nics\":[{" NIC
                   "%s}],\"disks\":[],\"on_crash\":\"destroy\"%s}",
                   c_info, b_info, nic, root) > 0);
    return text;
}

static void
test_config_passes(void)
{
    char *text = config_with("", "", "", ""), *out, *again, why[XEN_CONFIG_WHY];
    json_t *o, *nic, *b;

    CASE("config_what_is_carried");
    CHECK(!xen_config_check(text, strlen(text), 65536, &out, why));
    o = json_loads(out, 0, NULL);
    b = json_object_get(o, "b_info");
    nic = json_array_get(json_object_get(o, "nics"), 0);
    CHECK(!json_object_get(nic, "script") && !json_object_get(nic, "ip"));
    CHECK(!strcmp(json_string_value(json_object_get(nic, "bridge")), "xenbr0.10"));
    CHECK(json_integer_value(json_object_get(b, "max_memkb")) == 65536);
    CHECK(json_array_size(json_object_get(b, "avail_vcpus")) == 2);
    CHECK(json_object_get(json_object_get(b, "sched_params"), "weight"));
    CHECK(json_object_get(b, "type.pvh")); /* libxl takes the kind from it */
    CHECK(!json_object_get(b, "kernel") && !json_object_get(b, "shadow_memkb"));
    CHECK(!json_object_get(json_object_get(o, "c_info"), "domid") && !json_object_get(o, "disks"));
    CHECK(!xen_config_check(out, strlen(out), 65536, &again, why) && !strcmp(out, again));
    json_decref(o);
    free(again);
    free(out);
    free(text);
}

static void
test_config_refuses(void)
{
    static const struct {
        const char *c_info, *b_info, *nic, *root, *why;
    } bad[] = {
        {"", "", "", ",\"disks\":[{\"pdev_path\":\"/dev/sda\"}]", "JSON"}, /* a second one */
        {"", "", "", ",\"p9s\":[{\"path\":\"/\"}]", "p9s"},
        {"", "", "", ",\"pcidevs\":[{\"dev\":1}]", "pcidevs"},
        {"", "", "", ",\"channels\":[{\"name\":\"x\"}]", "channels"},
        {"", "", "", ",\"vfbs\":[{}]", "vfbs"},
        {"", "", "", ",\"on_reboot\":\"a;b\"", "on_reboot"},
        {",\"xsdata\":{\"a\":\"b\"}", "", "", "", "c_info.xsdata"},
        {",\"ssid_label\":\"dom0\"", "", "", "", "c_info.ssid_label"},
        {"", ",\"ioports\":[{\"first\":112}]", "", "", "b_info.ioports"},
        {"", ",\"iomem\":[{\"start\":0}]", "", "", "b_info.iomem"},
        {"", ",\"device_model\":\"/bin/sh\"", "", "", "b_info.device_model"},
        {"", ",\"extra\":[\"-drive\"]", "", "", "b_info.extra"},
        {"", ",\"event_channels\":999999999", "", "", "b_info.event_channels"},
        {"", ",\"nested_hvm\":\"True\"", "", "", "b_info.nested_hvm"},
        {"", ",\"video_memkb\":1,\"type.hvm\":{\"bios\":\"x\"}", "", "", "b_info.type.hvm"},
        {"", ",\"type.pv\":{}", "", "", "b_info.type.pv and"}, /* one of them is the kind */
        {"", "", ",\"backend_domid\":3", "", "nics.backend_domid"},
        {"", "", ",\"backend_domname\":\"other\"", "", "nics.backend_domname"},
        {"", "", ",\"ifname\":\"eth0\"", "", "nics.ifname"},
        {"", "", ",\"coloft_forwarddev\":\"eth0\"", "", "nics.coloft_forwarddev"},
        {"", "", ",\"vlan\":\"12\"", "", "nics.vlan"},
    };
    char *text, *out, why[XEN_CONFIG_WHY];

    CASE("config_what_is_refused");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        text = config_with(bad[i].c_info, bad[i].b_info, bad[i].nic, bad[i].root);
        CHECK(xen_config_check(text, strlen(text), 65536, &out, why) == EINVAL && !out);
        CHECK(strstr(why, bad[i].why));
        free(text);
    }
    text = config_with("", "", "", "");
    CHECK(xen_config_check(text, strlen(text), 65535, &out, why) == EINVAL);
    CHECK(strstr(why, "memkb"));
    CHECK(xen_config_check(text, strlen(text) - 1, 65536, &out, why) == EINVAL);
    free(text);
}

/* --- what libxl gets of it ------------------------------------------------------------------- */

/* A configuration comes for a PVH domain; 0 or the errno that refuses it, 'why'. */
static int
load_config(struct mig_option *options, size_t n_options, const char *json, char why[MIG_WHY])
{
    struct mig_guest_config config = {
        .vm = UUID, .epoch = 7, .options = options, .n_options = n_options};
    uint8_t identity[32] = {[0] = 1, [4] = XEN_DOMAIN_PVH};
    struct mig_guest *guest;
    struct xen_pack *pack;
    const uint8_t *chunk;
    size_t n;
    int error;

    put_le64(identity + 16, 65536);
    put_le64(identity + 24, 16384);
    CHECK(!xen_pack_create(MIG_COMPRESS_NONE, &pack));
    xen_pack_begin(pack);
    xen_pack_config(pack, json, strlen(json));
    chunk = xen_pack_bytes(pack, &n);
    error = mig_driver_xen.create(&config, identity, sizeof identity, &guest, why);
    CHECK(!error);
    error = mig_driver_xen.stream_open(guest, why);
    error = error ? error : mig_driver_xen.stream_put(guest, chunk, n, why);
    mig_driver_xen.detach(guest); /* which waits for libxl */
    xen_pack_destroy(pack);
    return error;
}

static void
test_load(void)
{
    struct mig_option own[] = {{"bridge", "weft-br"}, {"script", "vif-own"}};
    char *text = config_with("", "", "},{\"devid\":1,\"bridge\":\"b\"", ""), *wrong, why[MIG_WHY];

    begin("domain_load_vifs");
    CHECK(!load_config(NULL, 0, text, why));
    CHECK(!strcmp(xen->restored, "g 1" XEN_INCOMING " vif-weft xenbr0.10 vif-weft"));
    begin("domain_load_vifs_of_the_pool");
    CHECK(!load_config(own, 2, text, why));
    CHECK(!strcmp(xen->restored, "g 1" XEN_INCOMING " vif-own weft-br vif-own"));
    begin("domain_load_of_two_kinds");
    wrong = strstr(text, "type.pvh");
    CHECK(wrong);
    wrong[strlen("type.pv")] = '"';
    wrong[strlen("type.pvh")] = ' ';
    CHECK(load_config(NULL, 0, text, why) == EINVAL && strstr(why, "another domain"));
    CHECK(!xen->restored[0]);
    free(text);
}

int
main(void)
{
    setlinebuf(stdout);
    toolstack_setup();
    test_config_passes();
    test_config_refuses();
    test_load();
    return check_done();
}
