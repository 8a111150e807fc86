/* The table: VM and VIF. */
#include <config.h>

#include <ctype.h>
#include <string.h>

#include "hex.h"
#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "ovsdb-idl.h"
#include "util.h"
#include "xapi.h"

static struct json *
get_uuid(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return json_string_create(store_uuid(&row->uuid));
}

static const struct poolrec_vm *
vm_of(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return poolrec_vm_get_for_uuid(store_idl(x->store), &row->uuid);
}

static const struct poolrec_vif *
vif_of(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return poolrec_vif_get_for_uuid(store_idl(x->store), &row->uuid);
}

static const char *
power_state(const struct poolrec_vm *vm)
{
    return *vm->power_state ? vm->power_state : "Halted";
}

/* --- VM: fields ------------------------------------------------------------------------ */

static struct json *
vm_power_state(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return json_string_create(power_state(vm_of(x, row)));
}

static struct json *
host_ref(struct xapi *x, const char *name)
{
    const struct poolrec_host *host = *name ? store_host(x->store, name) : NULL;

    return host ? value_ref(&host->header_.uuid) : json_string_create(REF_NULL);
}

static struct json *
vm_resident_on(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return host_ref(x, vm_of(x, row)->resident_on);
}

static struct json *
vm_destination(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return host_ref(x, vm_of(x, row)->destination);
}

static struct json *
vm_vifs(struct xapi *x, const struct ovsdb_idl_row *row)
{
    struct json *set = json_array_create_empty();
    const struct poolrec_vif *vif;

    POOLREC_VIF_FOR_EACH(vif, store_idl(x->store))
    {
        if (vif->vm && !vif->parent && uuid_equals(&vif->vm->header_.uuid, &row->uuid)) {
            json_array_add(set, value_ref(&vif->header_.uuid));
        }
    }
    return set;
}

static struct json *
vm_allowed(struct xapi *x, const struct ovsdb_idl_row *row)
{
    struct json *set = json_array_create_empty();
    const struct poolrec_vm *vm = vm_of(x, row);

    if (task_of_vm(x->store, store_uuid(&row->uuid))) {
        return set;
    }
    if (!strcmp(power_state(vm), "Halted")) {
        value_add(set, "start");
        value_add(set, "start_on");
        value_add(set, "destroy");
    } else {
        value_add(set, "clean_shutdown");
        value_add(set, "hard_shutdown");
        value_add(set, "pool_migrate");
    }
    return set;
}

static struct json *
vm_current(struct xapi *x, const struct ovsdb_idl_row *row)
{
    const struct poolrec_task *task = task_of_vm(x->store, store_uuid(&row->uuid));
    struct json *map = json_object_create();
    const char *dot = task ? strrchr(task->name, '.') : NULL;
    char ref[REF_SIZE];

    if (dot) {
        snprintf(ref, sizeof ref, REF_PREFIX UUID_FMT, UUID_ARGS(&task->header_.uuid));
        json_object_put_string(map, ref, dot + 1);
    }
    return map;
}

#define NONE "\"" REF_NULL "\""
static const struct field vm_fields[] = {
    {"uuid", V_STRING, .get = get_uuid},
    {"allowed_operations", V_SET, .get = vm_allowed},
    {"current_operations", V_MAP, .get = vm_current},
    {"name_label", V_STRING, &poolrec_vm_col_name, .set = POOL_ROLE_OPERATOR},
    {"name_description", V_STRING, .literal = "\"\""},
    {"power_state", V_STRING, .get = vm_power_state},
    {"user_version", V_INT, .literal = "1"},
    {"is_a_template", V_BOOL, .literal = "false"},
    {"is_default_template", V_BOOL, .literal = "false"},
    {"suspend_VDI", V_REF, .literal = NONE},
    {"resident_on", V_REF, .get = vm_resident_on},
    {"scheduled_to_be_resident_on", V_REF, .get = vm_destination},
    {"affinity", V_REF, .literal = NONE},
    {"memory_overhead", V_INT, .literal = "0"},
    {"memory_target", V_INT, &poolrec_vm_col_memory_bytes},
    {"memory_static_max", V_INT, &poolrec_vm_col_memory_bytes, .set = POOL_ROLE_OPERATOR},
    {"memory_dynamic_max", V_INT, &poolrec_vm_col_memory_bytes},
    {"memory_dynamic_min", V_INT, &poolrec_vm_col_memory_bytes},
    {"memory_static_min", V_INT, &poolrec_vm_col_memory_bytes},
    {"VCPUs_params", V_MAP, .literal = "{}"},
    {"VCPUs_max", V_INT, .literal = "1"},
    {"VCPUs_at_startup", V_INT, .literal = "1"},
    {"actions_after_shutdown", V_STRING, .literal = "\"destroy\""},
    {"actions_after_reboot", V_STRING, .literal = "\"restart\""},
    {"actions_after_crash", V_STRING, .literal = "\"destroy\""},
    {"consoles", V_SET, .literal = "[]"},
    {"VIFs", V_SET, .get = vm_vifs},
    {"VBDs", V_SET, .literal = "[]"},
    {"VTPMs", V_SET, .literal = "[]"},
    {"crash_dumps", V_SET, .literal = "[]"},
    {"HVM_boot_policy", V_STRING, .literal = "\"\""},
    {"HVM_boot_params", V_MAP, .literal = "{}"},
    {"platform", V_MAP, .literal = "{}"},
    {"other_config", V_MAP, &poolrec_vm_col_config, .set = POOL_ROLE_OPERATOR},
    {"domid", V_INT, .literal = "-1"},
    {"domarch", V_STRING, .literal = "\"\""},
    {"is_control_domain", V_BOOL, .literal = "false"},
    {"metrics", V_REF, .literal = NONE},
    {"guest_metrics", V_REF, .literal = NONE},
    {"xenstore_data", V_MAP, .literal = "{}"},
    {"is_a_snapshot", V_BOOL, .literal = "false"},
    {"snapshot_of", V_REF, .literal = NONE},
    {"snapshots", V_SET, .literal = "[]"},
    {"tags", V_SET, .literal = "[]"},
    {"blobs", V_MAP, .literal = "{}"},
    {"blocked_operations", V_MAP, .literal = "{}"},
};

/* --- VM: methods ------------------------------------------------------------------------ */

static bool
in_state(struct request *q, const struct poolrec_vm *vm, const char *state)
{
    char wanted[20], is[20];

    if (!strcmp(power_state(vm), state)) {
        return true;
    }
    for (size_t i = 0; i < sizeof wanted; i++) { /* xapi says them in lower case */
        wanted[i] = i <= strlen(state) ? (char)tolower((unsigned char)state[i]) : '\0';
    }
    for (size_t i = 0; i < sizeof is; i++) {
        const char *s = power_state(vm);
        is[i] = i <= strlen(s) ? (char)tolower((unsigned char)s[i]) : '\0';
    }
    request_fail(q, "VM_BAD_POWER_STATE", q->args[0].s, wanted, is, NULL);
    return false;
}

static bool
at_rest(struct request *q, const struct poolrec_vm *vm)
{
    if (task_of_vm(q->xapi->store, store_uuid(&vm->header_.uuid)) || *vm->migration) {
        request_fail(q, "OTHER_OPERATION_IN_PROGRESS", "VM", q->args[0].s, NULL);
        return false;
    }
    return true;
}

/* An order without more to say. */
static void
order(struct request *q, const struct poolrec_vm *vm, const char *host)
{
    struct json *params = json_object_create();

    task_order(q, store_uuid(&vm->header_.uuid), host, params);
    json_destroy(params);
}

/* The live, enabled host with the fewest VMs. */
static const struct poolrec_host *
choose_host(struct xapi *x)
{
    const struct poolrec_host *host, *best = NULL;
    size_t best_n = SIZE_MAX;

    POOLREC_HOST_FOR_EACH(host, store_idl(x->store))
    {
        const struct poolrec_vm *vm;
        size_t n = 0;

        POOLREC_VM_FOR_EACH(vm, store_idl(x->store))
        {
            n += !strcmp(vm->resident_on, host->name);
        }
        if (host->enabled && coord_host_live(x, host) &&
            (n < best_n || (n == best_n && strcmp(host->name, best->name) < 0))) {
            best = host;
            best_n = n;
        }
    }
    return best;
}

static void
start(struct request *q, const struct poolrec_host *host, bool paused)
{
    const struct poolrec_vm *vm = vm_of(q->xapi, q->args[0].row);

    if (!in_state(q, vm, "Halted") || !at_rest(q, vm)) {
        return;
    }
    if (paused) {
        request_fail(q, "VALUE_NOT_SUPPORTED", "start_paused", "true", "VMs start running", NULL);
    } else if (strcmp(vm->driver, "cell") && strcmp(vm->driver, "xen")) {
        request_fail(q, "OPERATION_NOT_ALLOWED", "weft-xapid starts VMs with driver cell or xen",
                     NULL);
    } else if (!host) {
        request_fail(q, "NO_HOSTS_AVAILABLE", NULL);
    } else {
        order(q, vm, host->name);
    }
}

/* VM.start(session, vm, start_paused, force) */
static void
vm_start(struct request *q)
{
    start(q, choose_host(q->xapi), q->args[1].b);
}

static const struct poolrec_host *
host_arg(struct request *q, unsigned i)
{
    const struct poolrec_host *host =
        poolrec_host_get_for_uuid(store_idl(q->xapi->store), &q->args[i].row->uuid);

    if (!coord_host_live(q->xapi, host)) {
        request_fail(q, "HOST_OFFLINE", q->args[i].s, NULL);
        return NULL;
    }
    if (!host->enabled) {
        request_fail(q, "HOST_DISABLED", q->args[i].s, NULL);
        return NULL;
    }
    return host;
}

/* VM.start_on(session, vm, host, start_paused, force) */
static void
vm_start_on(struct request *q)
{
    const struct poolrec_host *host = host_arg(q, 1);

    if (host) {
        start(q, host, q->args[2].b);
    }
}

static void
vm_shutdown(struct request *q)
{
    const struct poolrec_vm *vm = vm_of(q->xapi, q->args[0].row);

    if (in_state(q, vm, "Running") && at_rest(q, vm)) {
        order(q, vm, vm->resident_on);
    }
}

static bool
is_among(const char *text, const char *const *words)
{
    while (*words && strcmp(*words, text) != 0) {
        words++;
    }
    return *words;
}

static bool
bad_option(struct request *q, const char *name, const char *value)
{
    request_fail(q, "INVALID_VALUE", name, value, NULL);
    return false;
}

/* Options of ours beside XenAPI's live, force, copy, compress: as weft-migrate takes them. */
static bool
options_ok(struct request *q, const struct json *options)
{
    static const struct {
        const char *name;
        long long int least, most;
    } numbers[] = {{"limit_mbps", 0, 1000000},
                   {"cpu_percent", 0, 100},
                   {"max_blackout_ms", 1, 600000},
                   {"max_rounds", 1, 1000},
                   {"connections", 1, 16}};
    static const char *const compress[] = {"",     "true", "false", "auto",
                                           "none", "lz4",  "zstd",  NULL};
    static const char *const yes_or_no[] = {"true", "false", NULL};
    const char *text = value_map(options, "compress", "");
    const char *postcopy = value_map(options, "postcopy", "false");
    long long int n;

    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        const char *s = value_map(options, numbers[i].name, NULL);

        if (s && (!str_to_llong(s, 10, &n) || n < numbers[i].least || n > numbers[i].most)) {
            return bad_option(q, numbers[i].name, s);
        }
    }
    return !is_among(text, compress)        ? bad_option(q, "compress", text)
           : !is_among(postcopy, yes_or_no) ? bad_option(q, "postcopy", postcopy)
                                            : true;
}

/* VM.pool_migrate(session, vm, host, options) */
static void
vm_pool_migrate(struct request *q)
{
    const struct poolrec_vm *vm = vm_of(q->xapi, q->args[0].row);
    const struct poolrec_host *host = host_arg(q, 1);
    struct json *params;

    if (!host || !in_state(q, vm, "Running") || !at_rest(q, vm) || !options_ok(q, q->args[2].j)) {
        return;
    }
    if (!strcmp(vm->resident_on, host->name)) {
        request_fail(q, "OPERATION_NOT_ALLOWED", "the VM is on that host already", NULL);
        return;
    }
    if (!strcmp(value_map(q->args[2].j, "postcopy", "false"), "true") &&
        strcmp(vm->driver, "cell") != 0) {
        request_fail(q, "VALUE_NOT_SUPPORTED", "postcopy", "true",
                     "the memory of this kind of VM cannot follow it", NULL);
        return;
    }
    params = json_object_create();
    json_object_put_string(params, "to", host->name);
    json_object_put(params, "options", json_clone(q->args[2].j));
    task_order(q, store_uuid(&vm->header_.uuid), vm->resident_on, params);
    json_destroy(params);
}

/* VM.migrate_postcopy(session, vm), of ours: its migration, if it may, moves it after this
 * round, and the memory that is left behind it. */
static void
vm_migrate_postcopy(struct request *q)
{
    const struct poolrec_vm *vm = vm_of(q->xapi, q->args[0].row);
    const struct poolrec_task *task = task_of_vm(q->xapi->store, store_uuid(&vm->header_.uuid));
    struct json *params = task ? json_from_string(task->params) : NULL;
    const char *may = value_map(value_member(params, "options"), "postcopy", "false");
    struct ovsdb_idl_txn *txn;
    char *text;

    if (!task || !strstr(task->name, "VM.pool_migrate")) {
        request_fail(q, "OPERATION_NOT_ALLOWED", "no migration of the VM is under way", NULL);
    } else if (strcmp(may, "true") != 0) {
        request_fail(q, "OPERATION_NOT_ALLOWED", "the migration was begun without postcopy", NULL);
    } else if ((txn = request_begin(q))) {
        json_object_put(params, "postcopy", json_boolean_create(true));
        text = json_to_string(params, 0);
        poolrec_task_verify_status(task);
        poolrec_task_set_params(task, text);
        free(text);
        request_commit(q, txn, json_string_create(""));
    }
    json_destroy(params);
}

static const char *
record_string(const struct json *record, const char *name)
{
    return value_map(record, name, "");
}

/* VM.create(session, record): name_label, memory_static_max, other_config, and
 * "driver" ("cell", "xen") of ours. */
static void
vm_create(struct request *q)
{
    const struct json *record = q->args[0].j;
    const struct json *memory = shash_find_data(json_object(record), "memory_static_max");
    const struct json *config = shash_find_data(json_object(record), "other_config");
    const char *driver = value_map(record, "driver", "cell");
    struct ovsdb_idl_txn *txn;
    const struct poolrec_vm *vm;
    long long int bytes = 0;
    struct uuid uuid;

    if (!*record_string(record, "name_label") ||
        strlen(record_string(record, "name_label")) > NAME_MAX_BYTES) {
        request_fail(q, "FIELD_TYPE_ERROR", "name_label", NULL);
        return;
    }
    if (memory && memory->type == JSON_INTEGER) {
        bytes = json_integer(memory);
    } else if (memory &&
               (memory->type != JSON_STRING || !str_to_llong(json_string(memory), 10, &bytes))) {
        bytes = -1;
    }
    if (bytes < 0 || bytes > 1LL << 50) {
        request_fail(q, "FIELD_TYPE_ERROR", "memory_static_max", NULL);
        return;
    }
    if (config && !value_fits(config, V_MAP)) {
        request_fail(q, "FIELD_TYPE_ERROR", "other_config", NULL);
        return;
    }
    if (strcmp(driver, "cell") && strcmp(driver, "xen")) {
        request_fail(q, "VALUE_NOT_SUPPORTED", "driver", driver, "is cell or xen", NULL);
        return;
    }
    POOLREC_VM_FOR_EACH(vm, store_idl(q->xapi->store))
    {
        if (!strcmp(vm->name, record_string(record, "name_label"))) {
            request_fail(q, "OPERATION_NOT_ALLOWED", "there is a VM of that name", NULL);
            return;
        }
    }
    if (!(txn = request_begin(q))) {
        return;
    }
    uuid_generate(&uuid);
    vm = poolrec_vm_insert_persist_uuid(txn, &uuid);
    poolrec_vm_set_name(vm, record_string(record, "name_label"));
    poolrec_vm_set_memory_bytes(vm, bytes);
    poolrec_vm_set_driver(vm, driver);
    poolrec_vm_set_power_state(vm, "Halted");
    if (config) {
        value_write(&vm->header_, &poolrec_vm_col_config, config);
    }
    request_commit(q, txn, value_ref(&uuid));
}

/* VM.destroy(session, vm), with its VIFs. */
static void
vm_destroy(struct request *q)
{
    const struct poolrec_vm *vm = vm_of(q->xapi, q->args[0].row);
    const struct poolrec_vif *vif;
    struct ovsdb_idl_txn *txn;

    if (!in_state(q, vm, "Halted") || !at_rest(q, vm) || !(txn = request_begin(q))) {
        return;
    }
    poolrec_vm_verify_power_state(vm);
    poolrec_vm_verify_resident_on(vm);
    POOLREC_VIF_FOR_EACH_SAFE(vif, store_idl(q->xapi->store))
    {
        if (vif->vm == vm) {
            poolrec_vif_delete(vif);
        }
    }
    poolrec_vm_delete(vm);
    request_commit(q, txn, json_string_create(""));
}

static const struct method vm_methods[] = {
    {"create", "o", POOL_ROLE_OPERATOR, false, vm_create},
    {"destroy", "V", POOL_ROLE_OPERATOR, false, vm_destroy},
    {"start", "Vbb", POOL_ROLE_OPERATOR, true, vm_start},
    {"start_on", "VHbb", POOL_ROLE_OPERATOR, true, vm_start_on},
    {"clean_shutdown", "V", POOL_ROLE_OPERATOR, true, vm_shutdown},
    {"hard_shutdown", "V", POOL_ROLE_OPERATOR, true, vm_shutdown},
    {"pool_migrate", "VHm", POOL_ROLE_OPERATOR, true, vm_pool_migrate},
    {"migrate_postcopy", "V", POOL_ROLE_OPERATOR, false, vm_migrate_postcopy},
};

const struct class class_vm = {.name = "VM",
                               .letter = 'V',
                               .table = &poolrec_table_vm,
                               .fields = vm_fields,
                               .n_fields = ARRAY_SIZE(vm_fields),
                               .methods = vm_methods,
                               .n_methods = ARRAY_SIZE(vm_methods)};

/* --- VIF: fields ------------------------------------------------------------------------- */

static bool
attached(const struct poolrec_vif *vif)
{
    return vif->vm && *vif->vm->resident_on && !strcmp(vif->seen_host, vif->vm->resident_on);
}

static struct json *
vif_attached(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return json_boolean_create(attached(vif_of(x, row)));
}

static struct json *
vif_allowed(struct xapi *x, const struct ovsdb_idl_row *row)
{
    const struct poolrec_vif *vif = vif_of(x, row);
    struct json *set = json_array_create_empty();

    if (!vif->vm || !*vif->vm->resident_on) {
        value_add(set, "attach");
    } else {
        value_add(set, attached(vif) ? "unplug" : "plug");
    }
    return set;
}

static struct json *
vif_mtu(struct xapi *x, const struct ovsdb_idl_row *row)
{
    const struct poolrec_vif *vif = vif_of(x, row);

    return json_integer_create(vif->network ? vif->network->mtu : 1500);
}

static struct json *
vif_qos_type(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return json_string_create(vif_of(x, row)->rate_out_kbps ? "ratelimit" : "");
}

static struct json *
vif_qos_params(struct xapi *x, const struct ovsdb_idl_row *row)
{
    struct json *map = json_object_create();

    if (vif_of(x, row)->rate_out_kbps) { /* XenAPI's are KiB/s */
        json_object_put_format(map, "kbps", "%" PRId64,
                               vif_of(x, row)->rate_out_kbps * 1000 / 8192);
    }
    return map;
}

static const char *const locking_modes[] = {"network_default", "locked", "unlocked", "disabled",
                                            NULL};
static const struct field vif_fields[] = {
    {"uuid", V_STRING, .get = get_uuid},
    {"allowed_operations", V_SET, .get = vif_allowed},
    {"current_operations", V_MAP, .literal = "{}"},
    {"device", V_STRING, &poolrec_vif_col_device},
    {"network", V_REF, &poolrec_vif_col_network},
    {"VM", V_REF, &poolrec_vif_col_vm},
    {"MAC", V_STRING, &poolrec_vif_col_mac},
    {"MTU", V_INT, .get = vif_mtu},
    {"other_config", V_MAP, .literal = "{}"},
    {"currently_attached", V_BOOL, .get = vif_attached},
    {"status_code", V_INT, .literal = "0"},
    {"status_detail", V_STRING, &poolrec_vif_col_error},
    {"runtime_properties", V_MAP, .literal = "{}"},
    {"qos_algorithm_type", V_STRING, .get = vif_qos_type},
    {"qos_algorithm_params", V_MAP, .get = vif_qos_params},
    {"qos_supported_algorithms", V_SET, .literal = "[\"ratelimit\"]"},
    {"metrics", V_REF, .literal = NONE},
    {"MAC_autogenerated", V_BOOL, .literal = "false"},
    {"locking_mode", V_STRING, &poolrec_vif_col_locking_mode, .set = POOL_ROLE_OPERATOR,
     .among = locking_modes},
    {"ipv4_allowed", V_SET, &poolrec_vif_col_ipv4_allowed, .set = POOL_ROLE_OPERATOR},
    {"ipv6_allowed", V_SET, &poolrec_vif_col_ipv6_allowed, .set = POOL_ROLE_OPERATOR},
    {"ipv4_configuration_mode", V_STRING, .literal = "\"None\""},
    {"ipv6_configuration_mode", V_STRING, .literal = "\"None\""},
};

/* --- VIF: methods -------------------------------------------------------------------------- */

static bool
record_ref(struct request *q, const struct class *class, const char *name,
           const struct ovsdb_idl_row **row)
{
    const char *ref = record_string(q->args[0].j, name);

    *row = class_find(q->xapi, class, ref);
    if (!*row) {
        request_fail(q, "HANDLE_INVALID", class->name, ref, NULL);
    }
    return *row != NULL;
}

static bool
is_unicast_mac(const char *text)
{
    uint8_t mac[6];

    return hex_mac(text, mac) && !(mac[0] & 1);
}

/* A locally administered one, from the VIF's own uuid. */
static void
make_mac(const struct uuid *uuid, char mac[18])
{
    uint32_t a = uuid->parts[0], b = uuid->parts[1];

    snprintf(mac, 18, "%02x:%02x:%02x:%02x:%02x:%02x", (a >> 24 & 0xfc) | 2, a >> 16 & 0xff,
             a >> 8 & 0xff, a & 0xff, b >> 8 & 0xff, b & 0xff);
}

static bool
device_free(struct request *q, const struct poolrec_vm *vm, const char *device)
{
    const struct poolrec_vif *vif;

    POOLREC_VIF_FOR_EACH(vif, store_idl(q->xapi->store))
    {
        if (vif->vm == vm && !vif->parent && !strcmp(*vif->device ? vif->device : "0", device)) {
            request_fail(q, "DEVICE_ALREADY_EXISTS", device, NULL);
            return false;
        }
    }
    return true;
}

/* VIF.create(session, record): device, network, VM, MAC ("": one is made),
 * locking_mode, ipv4_allowed, ipv6_allowed. */
static void
vif_create(struct request *q)
{
    const struct json *record = q->args[0].j;
    const char *device = value_map(record, "device", "0"), *mac = record_string(record, "MAC");
    const char *mode = value_map(record, "locking_mode", "network_default");
    static const char *const sets[] = {"ipv4_allowed", "ipv6_allowed"};
    const struct ovsdb_idl_row *vm_row, *network_row;
    const struct poolrec_vif *vif;
    struct ovsdb_idl_txn *txn;
    char made[18], *name;
    struct uuid uuid;
    unsigned n;

    if (!record_ref(q, &class_vm, "VM", &vm_row) ||
        !record_ref(q, &class_network, "network", &network_row)) {
        return;
    }
    const struct poolrec_vm *vm = vm_of(q->xapi, vm_row);
    if (*device < '0' || *device > '6' || device[1]) { /* one way to write each */
        request_fail(q, "INVALID_DEVICE", device, NULL);
        return;
    }
    if (*mac && !is_unicast_mac(mac)) {
        request_fail(q, "MAC_INVALID", mac, NULL);
        return;
    }
    for (n = 0; locking_modes[n] && strcmp(locking_modes[n], mode); n++) {
    }
    if (!locking_modes[n]) {
        request_fail(q, "VALUE_NOT_SUPPORTED", "locking_mode", mode, "is no locking mode", NULL);
        return;
    }
    if (!device_free(q, vm, device) || !(txn = request_begin(q))) {
        return;
    }
    uuid_generate(&uuid);
    make_mac(&uuid, made);
    vif = poolrec_vif_insert_persist_uuid(txn, &uuid);
    name = xasprintf("%s-%s", vm->name, device);
    poolrec_vif_set_name(vif, name);
    free(name);
    poolrec_vif_set_xs_uuid(vif, store_uuid(&uuid));
    poolrec_vif_set_device(vif, device);
    poolrec_vif_set_vm(vif, vm);
    poolrec_vif_set_network(
        vif, poolrec_network_get_for_uuid(store_idl(q->xapi->store), &network_row->uuid));
    poolrec_vif_set_mac(vif, *mac ? mac : made);
    poolrec_vif_set_locking_mode(vif, mode);
    for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
        const struct json *set = shash_find_data(json_object(record), sets[i]);
        if (set && value_fits(set, V_SET)) {
            value_write(&vif->header_,
                        i ? &poolrec_vif_col_ipv6_allowed : &poolrec_vif_col_ipv4_allowed, set);
        }
    }
    request_commit(q, txn, value_ref(&uuid));
}

/* VIF.destroy(session, vif) */
static void
vif_destroy(struct request *q)
{
    const struct poolrec_vif *vif = vif_of(q->xapi, q->args[0].row);
    struct ovsdb_idl_txn *txn;

    if (vif->vm && *vif->vm->resident_on) {
        request_fail(q, "OPERATION_NOT_ALLOWED", "the VIF's VM is running", NULL);
    } else if ((txn = request_begin(q))) {
        poolrec_vif_delete(vif);
        request_commit(q, txn, json_string_create(""));
    }
}

static bool
may_plug(struct request *q, bool plug)
{
    const struct poolrec_vif *vif = vif_of(q->xapi, q->args[0].row);
    const struct poolrec_vm *vm = vif->vm;

    if (!vm || !*vm->resident_on) {
        char *ref =
            xasprintf(REF_PREFIX UUID_FMT, UUID_ARGS(vm ? &vm->header_.uuid : &vif->header_.uuid));
        request_fail(q, "VM_BAD_POWER_STATE", ref, "running", "halted", NULL);
        free(ref);
        return false;
    }
    if (task_of_vm(q->xapi->store, store_uuid(&vm->header_.uuid))) {
        request_fail(q, "OTHER_OPERATION_IN_PROGRESS", "VIF", q->args[0].s, NULL);
        return false;
    }
    if (strcmp(vm->driver, "cell")) {
        request_fail(q, "OPERATION_NOT_ALLOWED", "weft-xapid plugs cells' VIFs only", NULL);
        return false;
    }
    if (plug == attached(vif)) {
        request_fail(q, plug ? "DEVICE_ALREADY_ATTACHED" : "DEVICE_ALREADY_DETACHED", q->args[0].s,
                     NULL);
        return false;
    }
    return true;
}

/* VIF.plug(session, vif), VIF.unplug(session, vif): at the switch. */
static void
vif_plug(struct request *q)
{
    const struct poolrec_vif *vif = vif_of(q->xapi, q->args[0].row);
    bool plug = !strcmp(q->method->name, "plug");
    struct json *params;

    if (!may_plug(q, plug)) {
        return;
    }
    params = json_object_create();
    json_object_put_string(params, "vif", store_uuid(&vif->header_.uuid));
    json_object_put(params, "plug", json_boolean_create(plug));
    task_order(q, store_uuid(&vif->vm->header_.uuid), vif->vm->resident_on, params);
    json_destroy(params);
}

static const struct method vif_methods[] = {
    {"create", "o", POOL_ROLE_OPERATOR, false, vif_create},
    {"destroy", "I", POOL_ROLE_OPERATOR, false, vif_destroy},
    {"plug", "I", POOL_ROLE_OPERATOR, true, vif_plug},
    {"unplug", "I", POOL_ROLE_OPERATOR, true, vif_plug},
};

const struct class class_vif = {.name = "VIF",
                                .letter = 'I',
                                .table = &poolrec_table_vif,
                                .fields = vif_fields,
                                .n_fields = ARRAY_SIZE(vif_fields),
                                .methods = vif_methods,
                                .n_methods = ARRAY_SIZE(vif_methods)};
