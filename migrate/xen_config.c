#include "xen_config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hex.h"
#include "ovs/jansson_ns.h"

enum kind {
    DROP,   /* this host's own matter */
    FALSE,  /* may be there, and says no */
    BOOL,   /* libxl's defbool */
    NUMBER, /* min..max */
    MEMORY, /* KiB, at most what was announced */
    VCPUS,  /* numbers of vcpus */
    WORD,   /* a name out of libxl's, or of a bridge */
    LABEL,  /* the domain's name */
    UUID,
    MAC,
    OBJECT, /* its members have rules of their own */
    NICS,
};

enum { VCPUS_MAX = 512, WORD_MAX_BYTES = 64, LABEL_MAX_BYTES = 200, PATH_BYTES = 80 };

struct rule {
    const char *path;
    enum kind kind;
    json_int_t min, max;
};

static const struct rule rules[] = {
    {"c_info", OBJECT},
    {"c_info.type", WORD},
    {"c_info.name", LABEL},
    {"c_info.uuid", UUID},
    {"c_info.hap", BOOL},
    {"c_info.oos", BOOL},
    {"c_info.driver_domain", FALSE},
    {"c_info.ssidref", DROP},
    {"c_info.domid", DROP},
    {"c_info.poolid", DROP},
    {"c_info.pool_name", DROP},
    {"c_info.run_hotplug_scripts", DROP},
    {"c_info.passthrough", DROP},
    {"c_info.xend_suspend_evtchn_compat", FALSE},

    {"b_info", OBJECT},
    {"b_info.max_vcpus", NUMBER, 1, VCPUS_MAX},
    {"b_info.avail_vcpus", VCPUS},
    {"b_info.max_memkb", MEMORY},
    {"b_info.target_memkb", MEMORY},
    {"b_info.tsc_mode", WORD},
    {"b_info.timer_mode", WORD},
    {"b_info.rtc_timeoffset", NUMBER, 0, UINT32_MAX},
    {"b_info.localtime", BOOL},
    {"b_info.disable_migrate", FALSE},
    {"b_info.max_grant_frames", NUMBER, 0, 1 << 16},
    {"b_info.max_maptrack_frames", NUMBER, 0, 1 << 16},
    {"b_info.max_grant_version", NUMBER, -1, 2},
    {"b_info.event_channels", NUMBER, 0, 1 << 17},
    {"b_info.acpi", BOOL},
    {"b_info.apic", BOOL},
    {"b_info.nested_hvm", FALSE},
    {"b_info.vpmu", FALSE},
    {"b_info.vmtrace_buf_kb", NUMBER, 0, 0},
    {"b_info.exec_ssidref", DROP},
    {"b_info.arch_x86", OBJECT},
    {"b_info.arch_x86.msr_relaxed", BOOL},
    {"b_info.sched_params", OBJECT},
    {"b_info.sched_params.sched", DROP},
    {"b_info.sched_params.period", DROP},
    {"b_info.sched_params.budget", DROP},
    {"b_info.sched_params.extratime", DROP},
    {"b_info.sched_params.weight", NUMBER, 1, 65535},
    {"b_info.sched_params.cap", NUMBER, 0, 100 * VCPUS_MAX},
    {"b_info.type.pv", OBJECT},
    {"b_info.type.pv.e820_host", FALSE},
    {"b_info.type.pv.slack_memkb", MEMORY},
    {"b_info.type.pvh", OBJECT},
    {"b_info.type.pvh.pvshim", FALSE},
    {"b_info.cpumap", DROP},
    {"b_info.nodemap", DROP},
    {"b_info.vcpu_hard_affinity", DROP},
    {"b_info.vcpu_soft_affinity", DROP},
    {"b_info.numa_placement", DROP},
    {"b_info.video_memkb", DROP},
    {"b_info.shadow_memkb", DROP},
    {"b_info.iommu_memkb", DROP},
    {"b_info.stubdomain_memkb", DROP},
    {"b_info.claim_mode", DROP},
    {"b_info.cpuid", DROP}, /* the image has it */
    {"b_info.kernel", DROP},
    {"b_info.ramdisk", DROP},
    {"b_info.cmdline", DROP},
    {"b_info.bootloader", DROP},
    {"b_info.bootloader_args", DROP},
    {"b_info.blkdev_start", DROP},
    {"b_info.device_model_version", DROP},
    {"b_info.device_model_stubdomain", FALSE},
    {"b_info.device_model_ssidref", DROP},
    {"b_info.dm_restrict", DROP},
    {"b_info.altp2m", DROP},
    {"b_info.tee", DROP},
    {"b_info.arch_arm", DROP},

    {"nics", NICS},
    {"nics.backend_domid", NUMBER, 0, 0},
    {"nics.devid", NUMBER, 0, 255},
    {"nics.mtu", NUMBER, 0, 65535},
    {"nics.model", DROP}, /* of an emulated card */
    {"nics.mac", MAC},
    {"nics.ip", DROP},
    {"nics.bridge", WORD},
    {"nics.script", DROP},
    {"nics.nictype", WORD},
    {"nics.rate_bytes_per_interval", NUMBER, 0, INT64_MAX},
    {"nics.rate_interval_usecs", NUMBER, 0, UINT32_MAX},
    {"nics.trusted", BOOL},

    {"on_poweroff", WORD},
    {"on_reboot", WORD},
    {"on_watchdog", WORD},
    {"on_crash", WORD},
    {"on_soft_reset", WORD},
};

struct check {
    uint64_t max_memkb;
    char *why;
};

static int
refuse(const struct check *c, const char *path)
{
    snprintf(c->why, XEN_CONFIG_WHY, "a configuration with %.*s", PATH_BYTES, path);
    for (char *p = c->why; *p; p++) { /* a key is whatever was sent */
        *p = *p < ' ' || *p > '~' ? '?' : *p;
    }
    return EINVAL;
}

/* --- values ---------------------------------------------------------------------------- */

/* 1, 0, -1 for libxl's "not set", 2 for none of them. */
static int
truth(const json_t *v)
{
    const char *s = json_string_value(v);

    if (json_is_boolean(v)) {
        return json_is_true(v);
    }
    return !s                        ? 2
           : !strcmp(s, "True")      ? 1
           : !strcmp(s, "False")     ? 0
           : !strcmp(s, "<default>") ? -1
                                     : 2;
}

static bool
is_number(const json_t *v, json_int_t min, json_int_t max)
{
    return json_is_integer(v) && json_integer_value(v) >= min && json_integer_value(v) <= max;
}

/* No quote, slash or the like: it may come before a shell. */
static bool
is_word(const json_t *v)
{
    const char *s = json_string_value(v);

    return s && strlen(s) <= WORD_MAX_BYTES && strlen(s) == json_string_length(v) && *s != '-' &&
           !s[strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:,-")];
}

static bool
is_label(const json_t *v)
{
    const char *s = json_string_value(v);
    bool good =
        s && *s && *s != '-' && strlen(s) <= LABEL_MAX_BYTES && strlen(s) == json_string_length(v);

    for (; good && *s; s++) {
        good = *s >= ' ' && *s <= '~' && *s != '/';
    }
    return good;
}

static bool
is_vcpus(const json_t *v)
{
    size_t n = json_array_size(v);
    bool good = json_is_array(v) && n <= VCPUS_MAX;

    for (size_t i = 0; good && i < n; i++) {
        good = is_number(json_array_get(v, i), 0, VCPUS_MAX - 1);
    }
    return good;
}

static bool
is_mac(const json_t *v)
{
    uint8_t mac[6];

    return json_is_string(v) && hex_mac(json_string_value(v), mac);
}

static bool
is_good(const struct check *c, const struct rule *r, const json_t *v)
{
    switch (r->kind) {
    case FALSE:
        return truth(v) <= 0;
    case BOOL:
        return truth(v) <= 1;
    case NUMBER:
        return is_number(v, r->min, r->max);
    case MEMORY:
        return is_number(v, 0, (json_int_t)c->max_memkb);
    case VCPUS:
        return is_vcpus(v);
    case WORD:
        return is_word(v);
    case LABEL:
        return is_label(v);
    case UUID:
        return is_word(v) && strlen(json_string_value(v)) == 36;
    case MAC:
        return is_mac(v);
    case DROP:
    case OBJECT:
    case NICS:
        break;
    }
    return false;
}

/* --- the tree --------------------------------------------------------------------------- */

static const struct rule *
find(const char *path)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (!strcmp(rules[i].path, path)) {
            return &rules[i];
        }
    }
    return NULL;
}

static bool
is_nothing(const json_t *v)
{
    const char *s = json_string_value(v);

    return json_is_null(v) || (json_is_array(v) && !json_array_size(v)) ||
           (json_is_object(v) && !json_object_size(v)) || (s && !*s);
}

static int copy_object(const struct check *, const char *path, json_t *from, json_t *to);

static int
copy_nics(const struct check *c, json_t *from, json_t *to)
{
    int error = json_is_array(from) && json_array_size(from) <= XEN_CONFIG_NICS
                    ? 0
                    : refuse(c, "too many nics");

    for (size_t i = 0; !error && i < json_array_size(from); i++) {
        json_t *nic = json_object();

        error = json_array_append_new(to, nic)
                    ? ENOMEM
                    : copy_object(c, "nics", json_array_get(from, i), nic);
    }
    return error;
}

/* Puts a copy of 'v' into 'to', if that is to be. */
static int
copy_member(const struct check *c, const char *path, const char *key, json_t *v, json_t *to)
{
    const struct rule *r = find(path);
    json_t *copy;
    int error = 0;

    if (r ? r->kind == DROP : is_nothing(v)) {
        return 0;
    }
    if (!r) {
        return refuse(c, path);
    }
    if (r->kind == OBJECT || r->kind == NICS) {
        copy = r->kind == NICS ? json_array() : json_object();
        error = r->kind == NICS ? copy_nics(c, v, copy) : copy_object(c, path, v, copy);
    } else if (!is_good(c, r, v)) {
        return refuse(c, path);
    } else {
        copy = json_deep_copy(v);
    }
    return json_object_set_new(to, key, copy) ? ENOMEM : error;
}

static int
copy_object(const struct check *c, const char *path, json_t *from, json_t *to)
{
    char inner[PATH_BYTES];
    const char *key;
    json_t *v;
    int error = json_is_object(from) ? 0 : refuse(c, path);

    json_object_foreach(from, key, v)
    {
        /* One that is cut is nobody's. */
        snprintf(inner, sizeof inner, "%s%s%s", path, *path ? "." : "", key);
        error = error ? error : copy_member(c, inner, key, v, to);
    }
    return error;
}

int
xen_config_check(const char *text, size_t n, uint64_t max_memkb, char **out,
                 char why[XEN_CONFIG_WHY])
{
    const struct check c = {max_memkb, why};
    json_t *from = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
    json_t *to = json_object(), *b_info;
    int error;

    *out = NULL;
    why[0] = '\0';
    if (!from) {
        snprintf(why, XEN_CONFIG_WHY, "a configuration that is no JSON");
        error = EINVAL;
    } else {
        error = copy_object(&c, "", from, to);
    }
    b_info = json_object_get(to, "b_info");
    if (!error && json_object_get(b_info, "type.pv") && json_object_get(b_info, "type.pvh")) {
        error = refuse(&c, "b_info.type.pv and b_info.type.pvh"); /* libxl would abort */
    }
    if (!error) {
        *out = json_dumps(to, JSON_COMPACT | JSON_ENSURE_ASCII);
        error = *out ? 0 : ENOMEM;
    }
    json_decref(from);
    json_decref(to);
    return error;
}
