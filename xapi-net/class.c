/* The table: session, pool, host, network, task, event. */
#include <config.h>

#include <string.h>

#include "dispatch.h"
#include "openvswitch/json.h"
#include "ovsdb-idl.h"
#include "util.h"
#include "xapi.h"

#define FIELDS(F) .fields = F, .n_fields = ARRAY_SIZE(F)
#define METHODS(M) .methods = M, .n_methods = ARRAY_SIZE(M)

static struct json *
get_uuid(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return json_string_create(store_uuid(&row->uuid));
}

static struct json *
ref_or_null(const struct poolrec_host *host)
{
    return host ? value_ref(&host->header_.uuid) : json_string_create(REF_NULL);
}

/* --- session ------------------------------------------------------------------------ */

static enum pool_role
role_of_ou(const char *ou)
{
    return pool_role_from_name(ou); /* "tenant:NAME" is none */
}

enum pool_role
role_of_user(struct xapi *x, const char *name, enum pool_role otherwise)
{
    const struct poolrec_user *user;

    POOLREC_USER_FOR_EACH(user, store_idl(x->store))
    {
        if (!strcmp(user->name, name)) {
            return user->enabled ? pool_role_from_name(user->role) : POOL_ROLE_NONE;
        }
    }
    return otherwise;
}

/* Who it is; the reason why not, or NULL. */
static const char *
identify(struct request *q, const char *name, const char *password)
{
    const struct http_peer *peer = q->http->peer;
    const struct incoming *in = (const struct incoming *)q->http;

    if (peer->local) {
        ovs_strlcpy(q->user, *name ? name : "root", sizeof q->user);
        q->role = POOL_ROLE_ADMIN;
    } else if (in->login.verdict == PASSWORD_RIGHT) {
        ovs_strlcpy(q->user, name, sizeof q->user);
        q->role = role_of_user(q->xapi, name, in->login.role);
    } else if (!*password && *peer->cn && (!*name || !strcmp(name, peer->cn))) {
        ovs_strlcpy(q->user, peer->cn, sizeof q->user);
        q->role = role_of_user(q->xapi, peer->cn, role_of_ou(peer->ou));
    } else {
        return in->login.verdict == PASSWORD_TOO_OFTEN ? "too many attempts; try again in a while"
                                                       : "wrong user or password";
    }
    if (q->role == POOL_ROLE_NONE) {
        return "the user has no role, or is disabled";
    }
    return q->role == POOL_ROLE_TENANT ? "tenants' users have no sessions here" : NULL;
}

static void
login(struct request *q)
{
    const char *originator = q->n_args > 3 ? q->args[3].s : "";
    const char *why = identify(q, q->args[0].s, q->args[1].s);
    char ref[REF_SIZE];

    if (why) {
        if (!*q->user) { /* for the audit log */
            ovs_strlcpy(q->user, q->args[0].s, sizeof q->user);
        }
        request_fail(q, "SESSION_AUTHENTICATION_FAILED", q->args[0].s, why, NULL);
    } else {
        http_vouch(q->http);
        session_begin(q->xapi->sessions, q->user, q->role, originator, ref);
        request_answer(q, json_string_create(ref));
    }
}

static void
logout(struct request *q)
{
    session_end(q->xapi->sessions, q->session);
    request_answer(q, json_string_create(""));
}

/* Of one's own session, or as an admin of anybody's. */
static void
session_get_record(struct request *q)
{
    struct json *record = strcmp(q->args[0].s, q->session) && q->role < POOL_ROLE_ADMIN
                              ? NULL
                              : session_record(q->xapi, q->args[0].s);

    if (record) {
        request_answer(q, record);
    } else {
        request_fail(q, "HANDLE_INVALID", "session", q->args[0].s, NULL);
    }
}

static void
session_get_this_host(struct request *q)
{
    request_answer(q, ref_or_null(store_host(q->xapi->store, q->xapi->options->host)));
}

static void
session_get_all(struct request *q)
{
    request_answer(q, session_refs(q->xapi->sessions));
}

static const struct method session_methods[] = {
    {"login_with_password", "ss/ss", POOL_ROLE_NONE, false, login},
    {"logout", "", POOL_ROLE_VIEWER, false, logout},
    {"get_record", "s", POOL_ROLE_VIEWER, false, session_get_record},
    {"get_this_host", "s", POOL_ROLE_VIEWER, false, session_get_this_host},
    {"get_all", "", POOL_ROLE_ADMIN, false, session_get_all},
};

const struct class class_session = {.name = "session", METHODS(session_methods)};

/* --- pool ---------------------------------------------------------------------------- */

static struct json *
pool_master(struct xapi *x, const struct ovsdb_idl_row *row)
{
    const struct poolrec_pool *pool = store_pool(x->store);

    return ref_or_null(pool ? store_host(x->store, pool->coordinator) : NULL);
}

static const struct field pool_fields[] = {
    {"uuid", V_STRING, .get = get_uuid},
    {"name_label", V_STRING, &poolrec_pool_col_name},
    {"name_description", V_STRING, .literal = "\"\""},
    {"master", V_REF, .get = pool_master},
    {"default_SR", V_REF, .literal = "\"" REF_NULL "\""},
    {"suspend_image_SR", V_REF, .literal = "\"" REF_NULL "\""},
    {"crash_dump_SR", V_REF, .literal = "\"" REF_NULL "\""},
    {"other_config", V_MAP, .literal = "{}"},
    {"ha_enabled", V_BOOL, .literal = "false"},
    {"ha_configuration", V_MAP, .literal = "{}"},
    {"ha_statefiles", V_SET, .literal = "[]"},
    {"ha_host_failures_to_tolerate", V_INT, .literal = "0"},
    {"ha_plan_exists_for", V_INT, .literal = "0"},
    {"ha_allow_overcommit", V_BOOL, .literal = "false"},
    {"ha_overcommitted", V_BOOL, .literal = "false"},
    {"tags", V_SET, .literal = "[]"},
    {"gui_config", V_MAP, .literal = "{}"},
    {"vswitch_controller", V_STRING, .literal = "\"\""},
    {"restrictions", V_MAP, .literal = "{}"},
    {"metadata_VDIs", V_SET, .literal = "[]"},
    {"allowed_operations", V_SET, .literal = "[]"},
    {"current_operations", V_MAP, .literal = "{}"},
};

const struct class class_pool = {
    .name = "pool", .letter = 'P', .table = &poolrec_table_pool, FIELDS(pool_fields)};

/* --- host ---------------------------------------------------------------------------- */

static const struct poolrec_host *
host_of(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return poolrec_host_get_for_uuid(store_idl(x->store), &row->uuid);
}

static struct json *
host_address(struct xapi *x, const struct ovsdb_idl_row *row)
{
    const char *from = strstr(host_of(x, row)->xapi_address, "://");
    struct json *value;
    char *ip;

    if (!from) {
        return json_string_create("");
    }
    from += 3 + (from[3] == '[');
    ip = xmemdup0(from, strcspn(from, strchr(from, ']') ? "]" : ":/"));
    value = json_string_create(ip);
    free(ip);
    return value;
}

static struct json *
host_residents(struct xapi *x, const struct ovsdb_idl_row *row)
{
    struct json *set = json_array_create_empty();
    const struct poolrec_vm *vm;

    POOLREC_VM_FOR_EACH(vm, store_idl(x->store))
    {
        if (!strcmp(vm->resident_on, host_of(x, row)->name)) {
            json_array_add(set, value_ref(&vm->header_.uuid));
        }
    }
    return set;
}

static struct json *
host_operations(struct xapi *x, const struct ovsdb_idl_row *row)
{
    struct json *set = json_array_create_empty();

    if (coord_host_live(x, host_of(x, row))) {
        value_add(set, "vm_start");
        value_add(set, "vm_migrate");
        value_add(set, "evacuate");
    }
    return set;
}

/* host.evacuate(session, host, network, evacuate_batch_size): the last two as
 * newer versions have them; the network is not used. */
static void
host_evacuate(struct request *q)
{
    const struct poolrec_host *host = host_of(q->xapi, q->args[0].row);
    int64_t at_once = q->n_args > 2 && q->args[2].i > 0 ? q->args[2].i : 3;
    const struct poolrec_task *task;
    struct json *params;

    if (!coord_host_live(q->xapi, host)) {
        request_fail(q, "HOST_OFFLINE", q->args[0].s, NULL);
        return;
    }
    POOLREC_TASK_FOR_EACH(task, store_idl(q->xapi->store))
    {
        if (task_open(task) && strstr(task->name, "host.evacuate") &&
            !strcmp(task->host, host->name)) {
            request_fail(q, "OTHER_OPERATION_IN_PROGRESS", "host", q->args[0].s, NULL);
            return;
        }
    }
    params = json_object_create();
    json_object_put(params, "at_once", json_integer_create(MIN(at_once, 32)));
    task_order(q, "", host->name, params);
    json_destroy(params);
}

static const struct field host_fields[] = {
    {"uuid", V_STRING, .get = get_uuid},
    {"name_label", V_STRING, &poolrec_host_col_name},
    {"name_description", V_STRING, .literal = "\"\""},
    {"memory_overhead", V_INT, .literal = "0"},
    {"allowed_operations", V_SET, .get = host_operations},
    {"current_operations", V_MAP, .literal = "{}"},
    {"API_version_major", V_INT, .literal = "2"},
    {"API_version_minor", V_INT, .literal = "21"},
    {"API_version_vendor", V_STRING, .literal = "\"Weft\""},
    {"API_version_vendor_implementation", V_MAP, .literal = "{}"},
    {"enabled", V_BOOL, &poolrec_host_col_enabled},
    {"software_version", V_MAP, .literal = "{\"product_brand\":\"Weft\"}"},
    {"other_config", V_MAP, .literal = "{}"},
    {"capabilities", V_SET, .literal = "[]"},
    {"cpu_configuration", V_MAP, .literal = "{}"},
    {"sched_policy", V_STRING, .literal = "\"\""},
    {"supported_bootloaders", V_SET, .literal = "[]"},
    {"resident_VMs", V_SET, .get = host_residents},
    {"logging", V_MAP, .literal = "{}"},
    {"PIFs", V_SET, .literal = "[]"},
    {"host_CPUs", V_SET, .literal = "[]"},
    {"cpu_info", V_MAP, .literal = "{}"},
    {"hostname", V_STRING, &poolrec_host_col_name},
    {"address", V_STRING, .get = host_address},
    {"metrics", V_REF, .literal = "\"" REF_NULL "\""},
    {"license_params", V_MAP, .literal = "{}"},
    {"tags", V_SET, .literal = "[]"},
    {"edition", V_STRING, .literal = "\"\""},
};

static const struct method host_methods[] = {
    {"evacuate", "H/si", POOL_ROLE_OPERATOR, true, host_evacuate},
};

const struct class class_host = {.name = "host",
                                 .letter = 'H',
                                 .table = &poolrec_table_host,
                                 FIELDS(host_fields),
                                 METHODS(host_methods)};

/* --- network --------------------------------------------------------------------------- */

static struct json *
network_vifs(struct xapi *x, const struct ovsdb_idl_row *row)
{
    struct json *set = json_array_create_empty();
    const struct poolrec_vif *vif;

    POOLREC_VIF_FOR_EACH(vif, store_idl(x->store))
    {
        if (vif->network && uuid_equals(&vif->network->header_.uuid, &row->uuid)) {
            json_array_add(set, value_ref(&vif->header_.uuid));
        }
    }
    return set;
}

static struct json *
network_bridge(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return json_string_create(x->options->bridge);
}

static const char *const network_modes[] = {"unlocked", "disabled", NULL};
static const struct field network_fields[] = {
    {"uuid", V_STRING, .get = get_uuid},
    {"name_label", V_STRING, &poolrec_network_col_name, .set = POOL_ROLE_OPERATOR},
    {"name_description", V_STRING, .literal = "\"\""},
    {"allowed_operations", V_SET, .literal = "[\"attaching\"]"},
    {"current_operations", V_MAP, .literal = "{}"},
    {"VIFs", V_SET, .get = network_vifs},
    {"PIFs", V_SET, .literal = "[]"},
    {"MTU", V_INT, &poolrec_network_col_mtu},
    {"other_config", V_MAP, .literal = "{}"},
    {"bridge", V_STRING, .get = network_bridge},
    {"managed", V_BOOL, .literal = "true"},
    {"blobs", V_MAP, .literal = "{}"},
    {"tags", V_SET, .literal = "[]"},
    {"default_locking_mode", V_STRING, &poolrec_network_col_default_locking_mode,
     .set = POOL_ROLE_OPERATOR, .among = network_modes},
    {"assigned_ips", V_MAP, .literal = "{}"},
    {"purpose", V_SET, .literal = "[]"},
};

const struct class class_network = {
    .name = "network", .letter = 'N', .table = &poolrec_table_network, FIELDS(network_fields)};

/* --- task -------------------------------------------------------------------------------- */

static const struct poolrec_task *
task_of(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return poolrec_task_get_for_uuid(store_idl(x->store), &row->uuid);
}

static struct json *
task_operations(struct xapi *x, const struct ovsdb_idl_row *row)
{
    struct json *set = json_array_create_empty();

    if (!strcmp(task_of(x, row)->status, "pending")) {
        value_add(set, "cancel");
    }
    value_add(set, "destroy");
    return set;
}

static struct json *
task_host(struct xapi *x, const struct ovsdb_idl_row *row)
{
    return ref_or_null(store_host(x->store, task_of(x, row)->host));
}

static struct json *
task_error(struct xapi *x, const struct ovsdb_idl_row *row)
{
    const char *text = task_of(x, row)->error_info;

    return *text ? json_from_string(text) : json_array_create_empty();
}

/* What machines want besides: how a migration goes, or went. */
static struct json *
task_other_config(struct xapi *x, const struct ovsdb_idl_row *row)
{
    struct json *map = json_object_create();
    const struct poolrec_migration *m;
    char *uuid = xstrdup(store_uuid(&row->uuid));

    POOLREC_MIGRATION_FOR_EACH(m, store_idl(x->store))
    {
        if (!strcmp(m->task, uuid)) {
            json_object_put_string(map, "weft-migration", m->migration);
            json_object_put_string(map, "weft-phase", m->phase);
            json_object_put_string(map, "weft-stats", m->stats);
        }
    }
    free(uuid);
    return map;
}

static void
task_cancel(struct request *q)
{
    const struct poolrec_task *task = task_of(q->xapi, q->args[0].row);
    struct ovsdb_idl_txn *txn;

    if (strcmp(task->status, "pending")) {
        request_fail(q, "OPERATION_NOT_ALLOWED", "the task has ended, or is being cancelled", NULL);
    } else if ((txn = request_begin(q))) {
        poolrec_task_verify_status(task);
        poolrec_task_set_status(task, "cancelling");
        request_commit(q, txn, json_string_create(""));
    }
}

static void
task_destroy(struct request *q)
{
    const struct poolrec_task *task = task_of(q->xapi, q->args[0].row);
    struct ovsdb_idl_txn *txn;

    if (task_open(task)) {
        request_fail(q, "OPERATION_NOT_ALLOWED", "the task has not ended; cancel it first", NULL);
    } else if ((txn = request_begin(q))) {
        poolrec_task_delete(task);
        request_commit(q, txn, json_string_create(""));
    }
}

static const struct field task_fields[] = {
    {"uuid", V_STRING, .get = get_uuid},
    {"name_label", V_STRING, &poolrec_task_col_name},
    {"name_description", V_STRING, &poolrec_task_col_description},
    {"allowed_operations", V_SET, .get = task_operations},
    {"current_operations", V_MAP, .literal = "{}"},
    {"created", V_DATETIME, &poolrec_task_col_created},
    {"finished", V_DATETIME, &poolrec_task_col_finished},
    {"status", V_STRING, &poolrec_task_col_status},
    {"resident_on", V_REF, .get = task_host},
    {"progress", V_FLOAT, &poolrec_task_col_progress},
    {"type", V_STRING, .literal = "\"<none/>\""},
    {"result", V_STRING, &poolrec_task_col_result},
    {"error_info", V_SET, .get = task_error},
    {"other_config", V_MAP, .get = task_other_config},
    {"subtask_of", V_REF, .literal = "\"" REF_NULL "\""},
    {"subtasks", V_SET, .literal = "[]"},
    {"backtrace", V_STRING, .literal = "\"\""},
};

static const struct method task_methods[] = {
    {"cancel", "T", POOL_ROLE_OPERATOR, false, task_cancel},
    {"destroy", "T", POOL_ROLE_OPERATOR, false, task_destroy},
};

const struct class class_task = {.name = "task",
                                 .letter = 'T',
                                 .table = &poolrec_table_task,
                                 FIELDS(task_fields),
                                 METHODS(task_methods)};

/* --- event --------------------------------------------------------------------------------- */

static const struct method event_methods[] = {
    {"from", "lsf", POOL_ROLE_VIEWER, false, event_from},
};

const struct class class_event = {.name = "event", METHODS(event_methods)};

const struct class *const classes[] = {&class_session, &class_pool, &class_host, &class_network,
                                       &class_vm,      &class_vif,  &class_task, &class_event};
const size_t n_classes = ARRAY_SIZE(classes);
