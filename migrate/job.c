#include "job.h"
#include "hex.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "end.h"
#include "ovs/jansson_ns.h"

enum { JOB_DEPTH_BYTES = 1 << 20 };

enum kind { TEXT, FIXED, U64, U32, BOOL };

/* One key of the job; in an object of the same name before the dot, if there is one.
 * As an option of the command line: --tls-private-key. */
struct key {
    const char *name;
    enum kind kind;
    size_t offset, size;
    uint64_t min, max;
};
#define AT(member) offsetof(struct mig_job, member)
#define ROOM(member) sizeof(((struct mig_job *)0)->member)

static const struct key keys[] = {
    {"driver", FIXED, AT(driver), ROOM(driver)},
    {"migration", FIXED, AT(migration), ROOM(migration)},
    {"vm", FIXED, AT(vm), ROOM(vm)},
    {"vm_name", TEXT, AT(vm_name)},
    {"from", FIXED, AT(from), ROOM(from)},
    {"to", FIXED, AT(to), ROOM(to)},
    {"epoch", U64, AT(epoch), 0, 0, INT64_MAX - 2},
    {"database", TEXT, AT(database)},
    {"private_key", TEXT, AT(database_tls.private_key)},
    {"certificate", TEXT, AT(database_tls.certificate)},
    {"ca_cert", TEXT, AT(database_tls.ca_cert)},
    {"claim_file", TEXT, AT(claim_file)},
    {"listen", TEXT, AT(listen)},
    {"connect", TEXT, AT(connect)},
    {"connections", U32, AT(connections), 0, 1, TRANSPORT_CONNECTIONS_MAX},
    {"plain", BOOL, AT(plain)},
    {"tls.private_key", TEXT, AT(tls.private_key)},
    {"tls.certificate", TEXT, AT(tls.certificate)},
    {"tls.ca_cert", TEXT, AT(tls.ca_cert)},
    {"tls.crl", TEXT, AT(tls.crl)},
    {"tls.peer_name", TEXT, AT(tls.peer_name)},
    {"limit_mbps", U64, AT(limit_mbps), 0, 0, 10000000},
    {"cpu_percent", U32, AT(cpu_percent), 0, 0, 100},
    {"max_blackout_ms", U32, AT(max_blackout_ms), 0, 1, 600000},
    {"max_rounds", U32, AT(max_rounds), 0, 1, 1000},
    {"max_throttle", U32, AT(max_throttle), 0, 0, 99},
    {"delta_cache_bytes", U64, AT(delta_cache_bytes), 0, 0, 1ull << 40},
    {"offline", BOOL, AT(offline)},
    {"postcopy", BOOL, AT(postcopy)},
    {"journal", TEXT, AT(journal)},
    {"capture", TEXT, AT(capture)},
    {"congestion", TEXT, AT(congestion)},
    {"answer_ms", U32, AT(answer_ms), 0, 1, 600000},
    {"accept_ms", U32, AT(accept_ms), 0, 1, 3600000},
    {"pause_at", TEXT, AT(pause_at)},
};
#define N_KEYS (sizeof keys / sizeof keys[0])

static int __attribute__((format(printf, 2, 3))) wrong(char why[MIG_WHY], const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, MIG_WHY, format, args);
    va_end(args);
    return EINVAL;
}

void
mig_job_init(struct mig_job *j)
{
    *j = (struct mig_job){.connections = 2,
                          .max_blackout_ms = 50,
                          .max_rounds = 30,
                          .max_throttle = 99,
                          .delta_cache_bytes = 64 << 20,
                          .answer_ms = 10000,
                          .accept_ms = 60000};
}

void
mig_job_destroy(struct mig_job *j)
{
    for (size_t i = 0; i < N_KEYS; i++) {
        if (keys[i].kind == TEXT) {
            free(*(char **)((char *)j + keys[i].offset));
        }
    }
    for (size_t i = 0; i < j->n_options; i++) {
        free((char *)j->options[i].key);
        free((char *)j->options[i].value);
    }
}

/* --- values -------------------------------------------------------------------------- */

static int
set_text(struct mig_job *j, const struct key *k, const char *text, char why[MIG_WHY])
{
    char *at = (char *)j + k->offset;

    if (k->kind == FIXED) {
        if (strlen(text) >= k->size) {
            return wrong(why, "\"%s\" is too long", k->name);
        }
        strcpy(at, text);
        return 0;
    }
    free(*(char **)at);
    *(char **)at = strdup(text);
    return *(char **)at ? 0 : ENOMEM;
}

static int
set_number(struct mig_job *j, const struct key *k, uint64_t n, char why[MIG_WHY])
{
    char *at = (char *)j + k->offset;

    if (n < k->min || n > k->max) {
        return wrong(why, "\"%s\" is %" PRIu64 " to %" PRIu64, k->name, k->min, k->max);
    }
    if (k->kind == U64) {
        *(uint64_t *)at = n;
    } else {
        *(uint32_t *)at = n;
    }
    return 0;
}

static const char *const compressions[] = {"auto", "none", "lz4", "zstd"};

static int
set_compress(struct mig_job *j, const char *text, char why[MIG_WHY])
{
    for (size_t i = 0; i < sizeof compressions / sizeof compressions[0]; i++) {
        if (!strcmp(text, compressions[i])) {
            j->compress = (enum mig_compress)i;
            return 0;
        }
    }
    return wrong(why, "\"compress\" is auto, none, lz4 or zstd");
}

static int
add_option(struct mig_job *j, const char *key, const char *value, char why[MIG_WHY])
{
    struct mig_option *o = &j->options[j->n_options];

    if (j->n_options == MIG_OPTIONS_MAX) {
        return wrong(why, "too many options for the driver");
    }
    o->key = strdup(key);
    o->value = strdup(value);
    j->n_options++;
    return o->key && o->value ? 0 : ENOMEM;
}

/* --- JSON ------------------------------------------------------------------------------ */

static const struct key *
find_key(const char *object, const char *name)
{
    char full[128];

    snprintf(full, sizeof full, "%s%s%s", object, *object ? "." : "", name);
    for (size_t i = 0; i < N_KEYS; i++) {
        if (!strcmp(keys[i].name, full)) {
            return &keys[i];
        }
    }
    return NULL;
}

static int
set_json(struct mig_job *j, const struct key *k, const json_t *v, char why[MIG_WHY])
{
    if ((k->kind == TEXT || k->kind == FIXED) && json_is_string(v)) {
        return set_text(j, k, json_string_value(v), why);
    }
    if ((k->kind == U64 || k->kind == U32) && json_is_integer(v) && json_integer_value(v) >= 0) {
        return set_number(j, k, json_integer_value(v), why);
    }
    if (k->kind == BOOL && json_is_boolean(v)) {
        *(bool *)((char *)j + k->offset) = json_is_true(v);
        return 0;
    }
    return wrong(why, "\"%s\" is of another kind", k->name);
}

static int
copy_text(char *out, size_t room, const json_t *v, const char *name, char why[MIG_WHY])
{
    if (!json_is_string(v) || json_string_length(v) >= room) {
        return wrong(why, "a vif's \"%s\" is a text of at most %zu bytes", name, room - 1);
    }
    strcpy(out, json_string_value(v));
    return 0;
}

static int
parse_zones(struct network_vif *vif, const json_t *v, char why[MIG_WHY])
{
    const json_t *zone;
    size_t i;

    if (!json_is_array(v) || json_array_size(v) > NETWORK_ZONES_MAX) {
        return wrong(why, "a vif's \"zones\" are at most %u numbers", NETWORK_ZONES_MAX);
    }
    json_array_foreach(v, i, zone)
    {
        if (!json_is_integer(zone) || json_integer_value(zone) < 0 ||
            json_integer_value(zone) > 65535) {
            return wrong(why, "a zone is 0 to 65535");
        }
        vif->zones[vif->n_zones++] = json_integer_value(zone);
    }
    return 0;
}

/* An address, or "192.0.2.0/24". */
static bool
is_prefix(const char *text)
{
    char address[INET6_ADDRSTRLEN], end;
    int n = strcspn(text, "/");
    struct in6_addr in;
    unsigned bits = 0;
    bool v4;

    if (n >= (int)sizeof address || (text[n] && sscanf(text + n, "/%3u%c", &bits, &end) != 1)) {
        return false;
    }
    snprintf(address, sizeof address, "%.*s", n, text);
    v4 = inet_pton(AF_INET, address, &in) == 1;
    return bits <= (v4 ? 32 : 128) && (v4 || inet_pton(AF_INET6, address, &in) == 1);
}

/* 'by': 0, or one more than the child's index. */
static int
parse_addresses(struct network_vif *vif, const json_t *v, unsigned by, char why[MIG_WHY])
{
    const json_t *address;
    size_t i;
    int error;

    if (!json_is_array(v) || json_array_size(v) > NETWORK_ADDRESSES_MAX - vif->n_addresses) {
        return wrong(why, "a vif's \"addresses\" are at most %u", NETWORK_ADDRESSES_MAX);
    }
    json_array_foreach(v, i, address)
    {
        char *out = vif->addresses[vif->n_addresses];

        error = copy_text(out, sizeof vif->addresses[0], address, "addresses", why);
        if (error) {
            return error;
        }
        if (!is_prefix(out)) {
            return wrong(why, "%s is no address", out);
        }
        vif->used_by[vif->n_addresses++] = by;
    }
    return 0;
}

static int
parse_mac(uint8_t mac[6], const json_t *v, char why[MIG_WHY])
{
    return json_is_string(v) && hex_mac(json_string_value(v), mac)
               ? 0
               : wrong(why, "a vif's \"mac\" is six bytes");
}

/* [{"tag": 100, "mac": "..", "addresses": [..]}] */
static int
parse_children(struct network_vif *vif, const json_t *v, char why[MIG_WHY])
{
    const json_t *child;
    size_t i;
    int error = 0;

    if (!json_is_array(v) || json_array_size(v) > NETWORK_CHILDREN_MAX - vif->n_children) {
        return wrong(why, "a vif's \"children\" are at most %u", NETWORK_CHILDREN_MAX);
    }
    json_array_foreach(v, i, child)
    {
        const json_t *addresses = json_object_get(child, "addresses");
        json_int_t tag = json_integer_value(json_object_get(child, "tag"));
        json_int_t key = json_integer_value(json_object_get(child, "pool_key"));
        struct network_child *c = &vif->children[vif->n_children++];

        if (tag < 1 || tag > 4094) {
            return wrong(why, "a child's \"tag\" is 1 to 4094");
        }
        c->tag = tag;
        c->key = key;
        error = parse_mac(c->mac, json_object_get(child, "mac"), why);
        if (!error && addresses) {
            error = parse_addresses(vif, addresses, vif->n_children, why);
        }
        if (error) {
            return error;
        }
    }
    return 0;
}

static int
parse_vif(struct mig_job *j, const json_t *v, char why[MIG_WHY])
{
    struct network_vif *vif = &j->vifs[j->n_vifs];
    const char *name;
    const json_t *value;
    uint8_t uuid[16];
    int error = 0;

    if (j->n_vifs == NETWORK_VIFS_MAX || !json_is_object(v)) {
        return wrong(why, "\"vifs\" are at most %u objects", NETWORK_VIFS_MAX);
    }
    memset(vif, 0, sizeof *vif);
    json_object_foreach((json_t *)v, name, value)
    {
        if (!strcmp(name, "uuid")) {
            error = copy_text(vif->uuid, sizeof vif->uuid, value, name, why);
        } else if (!strcmp(name, "port")) {
            error = copy_text(vif->port, sizeof vif->port, value, name, why);
        } else if (!strcmp(name, "switch_dir")) {
            error = copy_text(vif->switch_dir, sizeof vif->switch_dir, value, name, why);
        } else if (!strcmp(name, "mac")) {
            error = parse_mac(vif->mac, value, why);
        } else if (!strcmp(name, "zones")) {
            error = parse_zones(vif, value, why);
        } else if (!strcmp(name, "addresses")) {
            error = parse_addresses(vif, value, 0, why);
        } else if (!strcmp(name, "children")) {
            error = parse_children(vif, value, why);
        } else if (!strcmp(name, "pool_key") && json_is_integer(value)) {
            vif->key = json_integer_value(value);
        } else if (!strcmp(name, "any_address") && json_is_boolean(value)) {
            vif->any_address = json_is_true(value);
        } else if (!strcmp(name, "trunk") && json_is_boolean(value)) {
            vif->trunk = json_is_true(value);
        } else if (!strcmp(name, "stock") && json_is_boolean(value)) {
            vif->stock = json_is_true(value);
        } else {
            error = wrong(why, "a vif has no \"%s\" of that kind", name);
        }
        if (error) {
            return error;
        }
    }
    if (mig_uuid_parse(vif->uuid, uuid) || !*vif->port) {
        return wrong(why, "a vif needs a \"uuid\" and a \"port\"");
    }
    j->n_vifs++;
    return 0;
}

/* {"control": "..", "domid": 3}: text to the driver. */
static int
parse_driver(struct mig_job *j, const json_t *object, char why[MIG_WHY])
{
    const char *name;
    const json_t *v;
    char number[32];
    int error = 0;

    json_object_foreach((json_t *)object, name, v)
    {
        if (json_is_string(v)) {
            error = add_option(j, name, json_string_value(v), why);
        } else if (json_is_integer(v)) {
            snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
            error = add_option(j, name, number, why);
        } else if (json_is_boolean(v)) {
            error = add_option(j, name, json_is_true(v) ? "true" : "false", why);
        } else {
            error = wrong(why, "the driver's \"%s\" is neither text nor number", name);
        }
        if (error) {
            return error;
        }
    }
    return 0;
}

static int
parse_role(struct mig_job *j, const char *text, char why[MIG_WHY])
{
    static const char *const roles[] = {"", "send", "receive", "recover"};

    for (int i = MIG_SEND; i <= MIG_RECOVER; i++) {
        if (!strcmp(text, roles[i])) {
            j->role = i;
            return 0;
        }
    }
    return wrong(why, "the role is send, receive or recover");
}

static int
parse_object(struct mig_job *j, const char *object, const json_t *o, char why[MIG_WHY])
{
    const char *name;
    const json_t *v, *vif;
    const struct key *k;
    size_t i;
    int error = 0;

    json_object_foreach((json_t *)o, name, v)
    {
        k = find_key(object, name);
        if (k) {
            error = set_json(j, k, v, why);
        } else if (*object) {
            error = wrong(why, "\"%s\" has no \"%s\"", object, name);
        } else if (!strcmp(name, "role") && json_is_string(v)) {
            error = parse_role(j, json_string_value(v), why);
        } else if (!strcmp(name, "compress") && json_is_string(v)) {
            error = set_compress(j, json_string_value(v), why);
        } else if (!strcmp(name, "tls") && json_is_object(v)) {
            error = parse_object(j, name, v, why);
        } else if (!strcmp(name, "vifs") && json_is_array(v)) {
            json_array_foreach(v, i, vif)
            {
                error = error ? error : parse_vif(j, vif, why);
            }
        } else if (!json_is_object(v)) {
            error = wrong(why, "there is no \"%s\" of that kind", name);
        }
        if (error) {
            return error;
        }
    }
    return 0;
}

int
mig_job_parse(struct mig_job *j, const char *text, char why[MIG_WHY])
{
    json_error_t e;
    json_t *o;
    int error;

    if (strlen(text) > JOB_DEPTH_BYTES) {
        return wrong(why, "the job is too long");
    }
    o = json_loads(text, JSON_REJECT_DUPLICATES, &e);
    if (!o || !json_is_object(o)) {
        json_decref(o);
        return wrong(why, "the job is no JSON object: %s", e.text);
    }
    error = parse_object(j, "", o, why);
    if (!error && *j->driver && json_is_object(json_object_get(o, j->driver))) {
        error = parse_driver(j, json_object_get(o, j->driver), why);
    }
    json_decref(o);
    return error;
}

/* --- options of the command line ----------------------------------------------------------- */

/* "tls-private-key" is "tls.private_key", "max-rounds" is "max_rounds". */
static bool
is_option(const struct key *k, const char *option)
{
    const char *a = k->name;

    for (; *a && *option; a++, option++) {
        if (*a != *option && !((*a == '.' || *a == '_') && *option == '-')) {
            return false;
        }
    }
    return !*a && !*option;
}

int
mig_job_option(struct mig_job *j, const char *option, const char *value, char why[MIG_WHY])
{
    const char *eq;
    char *end, name[64];
    json_t *o;
    int error;

    for (size_t i = 0; i < N_KEYS; i++) {
        const struct key *k = &keys[i];

        if (!is_option(k, option)) {
            continue;
        }
        if (k->kind == BOOL) {
            *(bool *)((char *)j + k->offset) = true;
            return 0;
        }
        if (!value) {
            return wrong(why, "--%s needs a value", option);
        }
        if (k->kind == TEXT || k->kind == FIXED) {
            return set_text(j, k, value, why);
        }
        errno = 0;
        uint64_t n = strtoull(value, &end, 10);

        return errno || end == value || *end || *value == '-'
                   ? wrong(why, "--%s: not a number", option)
                   : set_number(j, k, n, why);
    }
    if (!value) {
        return wrong(why, "there is no --%s", option);
    }
    if (!strcmp(option, "compress")) {
        return set_compress(j, value, why);
    }
    if (!strcmp(option, "option") && (eq = strchr(value, '=')) &&
        eq - value < (ptrdiff_t)sizeof name) {
        snprintf(name, sizeof name, "%.*s", (int)(eq - value), value);
        return add_option(j, name, eq + 1, why);
    }
    if (!strcmp(option, "vif")) {
        o = json_loads(value, JSON_REJECT_DUPLICATES, NULL);
        error = parse_vif(j, o, why);
        json_decref(o);
        return error;
    }
    return wrong(why, "there is no --%s", option);
}

bool
mig_job_option_is_flag(const char *option)
{
    for (size_t i = 0; i < N_KEYS; i++) {
        if (keys[i].kind == BOOL && is_option(&keys[i], option)) {
            return true;
        }
    }
    return false;
}

/* --- whole? ------------------------------------------------------------------------------------
 */

int
mig_job_check(const struct mig_job *j, char why[MIG_WHY])
{
    const struct mig_tls_files *t = &j->tls;
    uint8_t uuid[16];

    if (!j->role) {
        return wrong(why, "no role: send, receive or recover");
    }
    if (mig_uuid_parse(j->vm, uuid) || mig_uuid_parse(j->migration, uuid)) {
        return wrong(why, "\"vm\" and \"migration\" are UUIDs, in lower case");
    }
    if (!*j->driver || !*j->from || !*j->to || !strcmp(j->from, j->to)) {
        return wrong(why, "\"driver\", \"from\" and \"to\" are needed, and two hosts");
    }
    if (!j->database == !j->claim_file) {
        return wrong(why, "one of \"database\" and \"claim_file\" is needed");
    }
    if (!j->listen == !j->connect || (j->role == MIG_SEND && !j->connect) ||
        (j->role == MIG_RECEIVE && !j->listen)) {
        return wrong(why, "the source needs \"connect\", the destination \"listen\"");
    }
    if (!j->plain && (!t->private_key || !t->certificate || !t->ca_cert || !t->peer_name)) {
        return wrong(why,
                     "\"tls\" with private_key, certificate, ca_cert and peer_name is needed, or "
                     "\"plain\"");
    }
    if (j->role == MIG_RECOVER && !j->journal) {
        return wrong(why, "recover needs a \"journal\"");
    }
    if (j->pause_at && mig_phase_find(j->pause_at) == MIG_PHASES) {
        return wrong(why, "there is no phase \"%s\"", j->pause_at);
    }
    return 0;
}
