/* xenstore: the requests of xen/io/xs_wire.h, one function each.
 *
 * A function gets a payload that is a private copy with a NUL behind it, and
 * returns 0, with the answer in the request, or the errno to report. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xenstore_impl.h"

/* --- arguments and answers -------------------------------------------------------- */

/* Splits the payload into exactly 'n' NUL-terminated strings. */
static bool
get_strings(const struct xs_request *r, const char **strings, unsigned n)
{
    const char *p = r->payload, *end = p + r->hdr.len;

    for (unsigned i = 0; i < n; i++) {
        if (p == end) {
            return false;
        }
        strings[i] = p;
        p += strlen(p);
        if (p >= end) {
            return false; /* ended by our NUL, not by the client's */
        }
        p++;
    }
    return p == end;
}

/* The only argument is a path. */
static int
get_path(const struct xs_request *r, char *path)
{
    const char *arg;

    return get_strings(r, &arg, 1) ? xs_canonical(r->client, arg, false, path) : EINVAL;
}

static int
get_domid(const struct xs_request *r, const char *arg, uint16_t *domid)
{
    char *end;
    unsigned long n = strtoul(arg, &end, 10);

    if (arg[0] < '0' || arg[0] > '9' || *end || n >= XS_N_DOMIDS) {
        return EINVAL;
    }
    *domid = n;
    return 0;
}

static int
answer(struct xs_request *r, const void *data, size_t len)
{
    if (len > XENSTORE_PAYLOAD_MAX) {
        return E2BIG;
    }
    if (len) {
        memcpy(r->reply, data, len);
    }
    r->n_reply = len;
    return 0;
}

static int __attribute__((format(printf, 2, 3)))
answer_string(struct xs_request *r, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(r->reply, XENSTORE_PAYLOAD_MAX, format, args);
    va_end(args);
    r->n_reply = n < XENSTORE_PAYLOAD_MAX ? n + 1 : XENSTORE_PAYLOAD_MAX;
    return 0;
}

static int
answer_ok(struct xs_request *r, int error)
{
    return error ? error : answer(r, "OK", sizeof "OK");
}

/* --- nodes ------------------------------------------------------------------------- */

static int
do_read(struct xs_request *r)
{
    char path[XENSTORE_ABS_PATH_MAX + 1];
    const struct xsnode *n;
    int error = get_path(r, path);

    if (!error) {
        error = xs_get(r, path, PERM_READ, &n);
    }
    return error ? error : answer(r, n->data, n->data_len);
}

static int
do_write(struct xs_request *r)
{
    char path[XENSTORE_ABS_PATH_MAX + 1];
    size_t len = strlen(r->payload) + 1;
    int error;

    if (len > r->hdr.len) {
        return EINVAL; /* no NUL after the path */
    }
    error = xs_canonical(r->client, r->payload, false, path);
    return answer_ok(r, error ? error : xs_write_node(r, path, r->payload + len, r->hdr.len - len));
}

static int
do_mkdir(struct xs_request *r)
{
    char path[XENSTORE_ABS_PATH_MAX + 1];
    int error = get_path(r, path);

    return answer_ok(r, error ? error : xs_get_or_create(r, path));
}

static int
do_rm(struct xs_request *r)
{
    char path[XENSTORE_ABS_PATH_MAX + 1];
    int error = get_path(r, path);

    return answer_ok(r, error ? error : xs_remove_node(r, path));
}

/* Appends the names of children from byte 'offset' of the whole list on, those
 * that fit in whole.  '*all' is set if none is left. */
static void
append_children(struct xs_request *r, const struct xsnode *n, size_t offset, size_t max, bool *all)
{
    size_t at = 0;

    *all = true;
    for (uint32_t i = 0; i < n->n_children; i++) {
        size_t size = strlen(n->children[i]->name) + 1;

        if (at >= offset) {
            if (r->n_reply + size > max) {
                *all = false;
                return;
            }
            memcpy(r->reply + r->n_reply, n->children[i]->name, size);
            r->n_reply += size;
        }
        at += size;
    }
}

static int
do_directory(struct xs_request *r)
{
    char path[XENSTORE_ABS_PATH_MAX + 1];
    const struct xsnode *n;
    int error = get_path(r, path);
    bool all;

    if (!error) {
        error = xs_list(r, path, &n);
    }
    if (error) {
        return error;
    }
    append_children(r, n, 0, XENSTORE_PAYLOAD_MAX, &all);
    return all ? 0 : E2BIG; /* the client goes on with XS_DIRECTORY_PART */
}

/* Path and offset; the answer is the list's generation, names, and a further
 * NUL after the last name of all. */
static int
do_directory_part(struct xs_request *r)
{
    char path[XENSTORE_ABS_PATH_MAX + 1];
    const struct xsnode *n;
    const char *args[2];
    bool all;
    int error;

    if (!get_strings(r, args, 2)) {
        return EINVAL;
    }
    error = xs_canonical(r->client, args[0], false, path);
    if (!error) {
        error = xs_list(r, path, &n);
    }
    if (error) {
        return error;
    }
    answer_string(r, "%llu", (unsigned long long)n->gen_list);
    append_children(r, n, strtoul(args[1], NULL, 10), XENSTORE_PAYLOAD_MAX - 1, &all);
    if (all) {
        r->reply[r->n_reply++] = '\0';
    }
    return 0;
}

static const char perm_letters[] = "nrwb"; /* by bits */

static int
do_get_perms(struct xs_request *r)
{
    char path[XENSTORE_ABS_PATH_MAX + 1];
    const struct xsnode *n;
    int error = get_path(r, path);

    if (!error) {
        error = xs_get(r, path, PERM_READ, &n);
    }
    for (uint32_t i = 0; !error && i < n->n_perms; i++) {
        size_t room = XENSTORE_PAYLOAD_MAX - r->n_reply;
        size_t size = 1 + snprintf(r->reply + r->n_reply, room, "%c%u",
                                   perm_letters[n->perms[i].bits & 3], n->perms[i].domid);

        if (size > room) {
            return E2BIG;
        }
        r->n_reply += size;
    }
    return error;
}

static bool
parse_perm(const struct xs_request *r, const char *s, struct xsperm *p)
{
    const char *letter = s[0] ? strchr(perm_letters, s[0]) : NULL;

    if (!letter || get_domid(r, s + 1, &p->domid)) {
        return false;
    }
    p->bits = letter - perm_letters;
    return true;
}

static int
do_set_perms(struct xs_request *r)
{
    struct xsperm perms[XENSTORE_PAYLOAD_MAX / 3]; /* the shortest is "n0" and a NUL */
    char path[XENSTORE_ABS_PATH_MAX + 1];
    const char *p = r->payload, *end = p + r->hdr.len;
    uint32_t n = 0;
    int error;

    if (!r->hdr.len || end[-1]) {
        return EINVAL;
    }
    error = xs_canonical(r->client, p, false, path);
    if (error) {
        return error;
    }
    for (p += strlen(p) + 1; p < end; p += strlen(p) + 1) {
        if (n == sizeof perms / sizeof perms[0] || !parse_perm(r, p, &perms[n])) {
            return EINVAL;
        }
        n++;
    }
    return n ? answer_ok(r, xs_change_perms(r, path, perms, n)) : EINVAL;
}

/* --- watches -------------------------------------------------------------------------- */

/* xs_handle() sends the first event of a new watch, after the answer. */
static int
do_watch(struct xs_request *r)
{
    const char *args[2];

    return get_strings(r, args, 2) ? answer_ok(r, xs_watch_add(r->client, args[0], args[1]))
                                   : EINVAL;
}

static int
do_unwatch(struct xs_request *r)
{
    const char *args[2];

    return get_strings(r, args, 2) ? answer_ok(r, xs_watch_remove(r->client, args[0], args[1]))
                                   : EINVAL;
}

static int
do_reset_watches(struct xs_request *r)
{
    xs_watch_remove_all(r->client);
    xs_txn_abort_all(r->client);
    return answer_ok(r, 0);
}

/* --- transactions ------------------------------------------------------------------------ */

static int
do_transaction_start(struct xs_request *r)
{
    uint32_t id;
    int error;

    if (r->txn) {
        return EBUSY; /* they do not nest */
    }
    error = xs_txn_start(r->client, &id);
    return error ? error : answer_string(r, "%u", id);
}

static int
do_transaction_end(struct xs_request *r)
{
    struct xs_txn *t = r->txn;
    const char *arg;

    if (!get_strings(r, &arg, 1) || (strcmp(arg, "T") && strcmp(arg, "F"))) {
        return EINVAL;
    }
    if (!t) {
        return ENOENT;
    }
    r->txn = NULL;
    return answer_ok(r, xs_txn_end(r->client, t, arg[0] == 'T'));
}

/* --- domains ------------------------------------------------------------------------------- */

static int
do_get_domain_path(struct xs_request *r)
{
    const char *arg;
    uint16_t domid;

    if (!get_strings(r, &arg, 1) || get_domid(r, arg, &domid)) {
        return EINVAL;
    }
    return answer_string(r, "/local/domain/%u", domid);
}

/* Domains here are introduced by the broker when they are created; a toolstack
 * that does it as well finds it done. */
static int
do_introduce(struct xs_request *r)
{
    const char *args[3]; /* domid, frame, event channel */
    uint16_t domid;

    if (!get_strings(r, args, 3) || get_domid(r, args[0], &domid)) {
        return EINVAL;
    }
    return answer_ok(r, r->client->store->domains[domid].introduced ? 0 : EINVAL);
}

static int
get_introduced(struct xs_request *r, uint16_t *domid)
{
    const char *arg;

    if (!get_strings(r, &arg, 1) || get_domid(r, arg, domid)) {
        return EINVAL;
    }
    return r->client->store->domains[*domid].introduced ? 0 : ENOENT;
}

static int
do_release(struct xs_request *r)
{
    uint16_t domid;
    int error = get_introduced(r, &domid);

    if (!error && !domid) {
        error = EINVAL;
    }
    if (!error) {
        r->client->store->domains[domid].introduced = false;
        xs_note_change(r->client->store, "@releaseDomain", NULL, true, NULL, 0);
    }
    return answer_ok(r, error);
}

static int
do_resume(struct xs_request *r)
{
    uint16_t domid;

    return answer_ok(r, get_introduced(r, &domid));
}

static int
do_is_introduced(struct xs_request *r)
{
    uint16_t domid;
    int error = get_introduced(r, &domid);

    return error == EINVAL ? error : answer_string(r, error ? "F" : "T");
}

static int
do_set_target(struct xs_request *r)
{
    struct xs_domain *domains = r->client->store->domains;
    const char *args[2];
    uint16_t domid, target;

    if (!get_strings(r, args, 2) || get_domid(r, args[0], &domid) ||
        get_domid(r, args[1], &target)) {
        return EINVAL;
    }
    if (!domains[domid].introduced || !domains[target].introduced) {
        return ENOENT;
    }
    domains[domid].target = target;
    return answer_ok(r, 0);
}

/* --- control ---------------------------------------------------------------------------------- */

static int
print_quotas(struct xs_request *r)
{
    const struct xenstore *s = r->client->store;

    return answer_string(r,
                         "quota         used by a domain at most\n"
                         "nodes         %u\nentry-size    %u\nwatches       %u\n"
                         "transactions  %u\ntrans-nodes   %u\npermissions   %u\n"
                         "dom0 owns %u nodes; %u paths are watched\n",
                         QUOTA_NODES, QUOTA_ENTRY_BYTES, QUOTA_WATCHES, QUOTA_TXNS, QUOTA_TXN_NODES,
                         QUOTA_PERMS, s->counts[0], s->watches.n);
}

static int
do_control(struct xs_request *r)
{
    const char *command = r->payload;
    size_t len = strlen(command) + 1;

    if (!r->hdr.len || len > r->hdr.len) {
        return EINVAL;
    }
    if (!strcmp(command, "print")) {
        fprintf(stderr, "xenstore: print: %.200s\n", r->payload + (len < r->hdr.len ? len : 0));
        return answer_ok(r, 0);
    }
    if (!strcmp(command, "quota")) {
        return print_quotas(r);
    }
    if (!strcmp(command, "help")) {
        return answer_string(r, "help\nprint STRING\nquota");
    }
    return EINVAL;
}

/* --- dispatch ------------------------------------------------------------------------------------
 */

static const struct {
    int (*handle)(struct xs_request *);
    bool privileged;
    bool no_txn; /* the transaction in the header does not matter */
} requests[XS_TYPE_COUNT] = {
    [XS_CONTROL] = {do_control, true, true},
    [XS_DIRECTORY] = {do_directory, false, false},
    [XS_READ] = {do_read, false, false},
    [XS_GET_PERMS] = {do_get_perms, false, false},
    [XS_WATCH] = {do_watch, false, true},
    [XS_UNWATCH] = {do_unwatch, false, true},
    [XS_TRANSACTION_START] = {do_transaction_start, false, false},
    [XS_TRANSACTION_END] = {do_transaction_end, false, false},
    [XS_INTRODUCE] = {do_introduce, true, true},
    [XS_RELEASE] = {do_release, true, true},
    [XS_GET_DOMAIN_PATH] = {do_get_domain_path, false, true},
    [XS_WRITE] = {do_write, false, false},
    [XS_MKDIR] = {do_mkdir, false, false},
    [XS_RM] = {do_rm, false, false},
    [XS_SET_PERMS] = {do_set_perms, false, false},
    [XS_IS_DOMAIN_INTRODUCED] = {do_is_introduced, true, true},
    [XS_RESUME] = {do_resume, true, true},
    [XS_SET_TARGET] = {do_set_target, true, true},
    [XS_RESET_WATCHES] = {do_reset_watches, false, true},
    [XS_DIRECTORY_PART] = {do_directory_part, false, false},
};

static int
dispatch(struct xs_request *r)
{
    uint32_t type = r->hdr.type;

    if (type >= XS_TYPE_COUNT || !requests[type].handle) {
        return ENOSYS;
    }
    if (requests[type].privileged && !is_privileged(r->client)) {
        return EACCES;
    }
    if (r->hdr.tx_id && !requests[type].no_txn) {
        r->txn = xs_txn_find(r->client, r->hdr.tx_id);
        if (!r->txn) {
            return ENOENT;
        }
    }
    return requests[type].handle(r);
}

static const char *
error_name(int error)
{
    for (size_t i = 0; i < sizeof xsd_errors / sizeof xsd_errors[0]; i++) {
        if (xsd_errors[i].errnum == error) {
            return xsd_errors[i].errstring;
        }
    }
    return "EINVAL";
}

void
xs_handle(struct xenstore_client *c, const struct xsd_sockmsg *hdr, const char *payload)
{
    char reply[XENSTORE_PAYLOAD_MAX];
    struct xs_request r = {.client = c, .hdr = *hdr, .payload = payload, .reply = reply};
    struct xsd_sockmsg out = *hdr;
    int error = dispatch(&r);

    if (error) {
        const char *name = error_name(error);

        out.type = XS_ERROR;
        xs_send(c, &out, name, strlen(name) + 1, false);
        return;
    }
    xs_send(c, &out, reply, r.n_reply, false);
    if (hdr->type == XS_WATCH) {
        /* The first event says that the watch is there; its payload is the
         * request's, path as the client wrote it and token. */
        out = (struct xsd_sockmsg){.type = XS_WATCH_EVENT};
        xs_send(c, &out, payload, hdr->len, true);
    }
}
