#include "network.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "network_priv.h"
#include "ovs/appctl.h"

#define DAEMON "ovs-vswitchd"
#define CALL_MS 5000
/* What can be done without is not waited for while the guest stands still. */
#define LOOK_MS 1000
#define SCOPE_WORDS (NETWORK_ZONES_MAX + NETWORK_CHILDREN_MAX + NETWORK_ADDRESSES_MAX + 4)

/* --- life -------------------------------------------------------------------------- */

static int
by_uuid(const void *a, const void *b)
{
    return strcmp(((const struct end_vif *)a)->is.uuid, ((const struct end_vif *)b)->is.uuid);
}

/* One that does not know our commands is a stock Open vSwitch.  Who does not answer is taken
 * for ours: it may be about to start again. */
static bool
is_stock(const char *switch_dir)
{
    char *text = NULL;
    bool stock =
        !appctl(switch_dir, DAEMON, "list-commands", (const char *const[]){NULL}, LOOK_MS, &text) &&
        strstr(text, "fdb/show") && !strstr(text, "weft/vif-hold");

    free(text);
    return stock;
}

int
network_open(const struct network_vif *vifs, size_t n, struct network **out)
{
    struct network *net;

    if (n > NETWORK_VIFS_MAX) {
        return EINVAL;
    }
    net = calloc(1, sizeof *net);
    if (!net) {
        return ENOMEM;
    }
    net->n = n;
    pthread_mutex_init(&net->lost_lock, NULL);
    net->epoll = net->all_closed = -1;
    for (size_t i = 0; i < n; i++) {
        net->vifs[i].is = vifs[i];
        net->vifs[i].given = i;
        net->vifs[i].socket = -1;
        if (i && !strcmp(vifs[i].switch_dir, vifs[i - 1].switch_dir)) {
            net->vifs[i].is.stock |= net->vifs[i - 1].is.stock;
        } else {
            net->vifs[i].is.stock = vifs[i].stock || is_stock(vifs[i].switch_dir);
        }
    }
    /* Records speak of a vif by its rank. */
    qsort(net->vifs, n, sizeof net->vifs[0], by_uuid);
    *out = net;
    return 0;
}

void
network_name_ports(struct network *net, uint32_t domid)
{
    static const char prefix[] = "vifDOMID.";

    for (size_t i = 0; i < net->n; i++) {
        char *port = net->vifs[i].is.port, name[32];
        const char *handle = port + strlen(prefix);

        if (!strncmp(port, prefix, strlen(prefix)) && strlen(handle) < 8) {
            snprintf(name, sizeof name, "vif%u.%s", domid, handle);
            memcpy(port, name, strlen(name) + 1);
        }
    }
}

const char *
network_why(const struct network *net)
{
    return net->why;
}

int
network_fail(struct network *net, const struct end_vif *v, int error, const char *what)
{
    snprintf(net->why, sizeof net->why, "%s: %s", v->is.port, what);
    return error;
}

void
network_lose(struct network *net, const struct end_vif *v, const char *what)
{
    char text[sizeof net->lost[0]];
    size_t i = 0;

    snprintf(text, sizeof text, "%s: %s", v->is.port, what);
    pthread_mutex_lock(&net->lost_lock);
    while (i < net->n_lost && strcmp(net->lost[i], text)) {
        i++;
    }
    if (i == net->n_lost && i < LOST_MAX) {
        memcpy(net->lost[net->n_lost++], text, sizeof text);
    }
    pthread_mutex_unlock(&net->lost_lock);
}

const char *
network_lost(struct network *net, size_t i)
{
    const char *text;

    pthread_mutex_lock(&net->lost_lock);
    text = i < net->n_lost ? net->lost[i] : NULL; /* written once */
    pthread_mutex_unlock(&net->lost_lock);
    return text;
}

/* --- commands ------------------------------------------------------------------------ */

/* One command about a vif; '*reply' (or NULL) is malloc'ed. */
static int
ask(struct network *net, struct end_vif *v, const char *command, const char *const *args,
    char **reply)
{
    char *text = NULL;
    int error = appctl(v->is.switch_dir, DAEMON, command, args, CALL_MS, &text);

    if (error) {
        network_fail(net, v, error, text && text[0] ? text : strerror(error));
    }
    if (reply && !error) {
        *reply = text;
    } else {
        free(text);
    }
    return error;
}

static int
simple(struct network *net, struct end_vif *v, const char *command)
{
    return ask(net, v, command, (const char *const[]){v->is.port, NULL}, NULL);
}

int
network_watch(struct network *net)
{
    int first = 0;

    net->why[0] = '\0';
    for (size_t i = 0; i < net->n; i++) {
        struct end_vif *v = &net->vifs[i];
        int error = 0;

        if (v->is.stock) {
            network_lose(net, v, "Open vSwitch does not tell when it moved the last packet");
        } else {
            error = simple(net, v, "weft/vif-watch");
        }
        first = first ? first : error;
    }
    return first;
}

int
network_hold(struct network *net)
{
    net->why[0] = '\0';
    for (size_t i = 0; i < net->n; i++) {
        struct end_vif *v = &net->vifs[i];
        int error = 0;

        if (v->is.stock) {
            network_lose(net, v, "frames that came for the guest while it moved");
        } else {
            error = simple(net, v, "weft/vif-hold");
        }
        if (error) {
            return error;
        }
    }
    return 0;
}

static int
for_ours(struct network *net, const char *command)
{
    int first = 0;

    net->why[0] = '\0';
    for (size_t i = 0; i < net->n; i++) {
        int error = net->vifs[i].is.stock ? 0 : simple(net, &net->vifs[i], command);

        first = first ? first : error;
    }
    return first;
}

int
network_release(struct network *net)
{
    return for_ours(net, "weft/vif-release");
}

int
network_keep(struct network *net)
{
    net->keeps = true;
    return for_ours(net, "weft/vif-keep");
}

void
network_close(struct network *net)
{
    if (!net) {
        return;
    }
    late_close(net);
    if (net->keeps) {
        for_ours(net, "weft/vif-release");
    }
    for (size_t i = 0; i < net->n; i++) {
        vif_known_clear(&net->vifs[i].known);
    }
    pthread_mutex_destroy(&net->lost_lock);
    free(net);
}

/* --- what is known of the guest --------------------------------------------------------- */

static int
find_port(struct network *net, struct end_vif *v)
{
    int error =
        v->where.bridge[0] ? 0 : switch_port_find(v->is.switch_dir, v->is.port, CALL_MS, &v->where);

    return error ? network_fail(net, v, error, "cannot be found in the switch's database") : 0;
}

/* Finds what can be done without.  A database that does not answer is not asked again. */
static void
look(struct network *net, struct end_vif *v)
{
    if (!net->mute && !v->where.bridge[0]) {
        net->mute = switch_port_find(v->is.switch_dir, v->is.port, LOOK_MS, &v->where) == ETIMEDOUT;
    }
}

void
network_find(struct network *net)
{
    for (size_t i = 0; i < net->n; i++) {
        look(net, &net->vifs[i]);
    }
}

static int
gather(struct network *net, struct end_vif *v)
{
    const char *args[] = {v->where.bridge, NULL};
    char *text = NULL;
    int error = find_port(net, v);

    if (error) {
        return error;
    }
    v->known.n_macs = v->known.n_groups = 0;
    error = ask(net, v, "fdb/show", args, &text);
    if (!error) {
        vif_known_add_macs(&v->known, text, v->where.ofport);
    }
    free(text);
    text = NULL;
    /* Refused where multicast snooping is off. */
    if (!appctl(v->is.switch_dir, DAEMON, "mdb/show", args, CALL_MS, &text)) {
        vif_known_add_groups(&v->known, text, v->where.ofport);
    }
    free(text);
    v->gathered = true;
    return error;
}

int
network_gather(struct network *net)
{
    int first = 0;

    net->why[0] = '\0';
    for (size_t i = 0; i < net->n; i++) {
        int error = gather(net, &net->vifs[i]);

        first = first ? first : error;
    }
    return first;
}

/* "PORT FILE zone=.. key=.. address=..". */
struct scope_args {
    char words[SCOPE_WORDS][64];
    const char *args[SCOPE_WORDS + 3];
};

/* Those that it is known to have, and the one of the link that its MAC makes
 * (RFC 4291, appendix A). */
static void
scope_addresses(struct scope_args *s, size_t *n, const struct network_vif *v)
{
    const uint8_t *m = v->mac;

    for (unsigned i = 0; i < v->n_addresses && i < NETWORK_ADDRESSES_MAX; i++) {
        snprintf(s->words[(*n)++], sizeof s->words[0], "address=%s", v->addresses[i]);
    }
    snprintf(s->words[(*n)++], sizeof s->words[0], "address=fe80::%02x%02x:%02xff:fe%02x:%02x%02x",
             m[0] ^ 2, m[1], m[2], m[3], m[4], m[5]);
}

static void
scope_args(struct scope_args *s, const struct end_vif *end, const char *file)
{
    const struct network_vif *v = &end->is;
    size_t n = 0;

    if (end->where.ofport) {
        snprintf(s->words[n++], sizeof s->words[0], "ofport=%u", end->where.ofport);
    }
    for (unsigned i = 0; i < v->n_zones && i < NETWORK_ZONES_MAX; i++) {
        snprintf(s->words[n++], sizeof s->words[0], "zone=%u", v->zones[i]);
    }
    if (v->key) {
        snprintf(s->words[n++], sizeof s->words[0], "key=%u", v->key);
    }
    for (unsigned i = 0; i < v->n_children; i++) {
        if (v->key && v->children[i].key) {
            snprintf(s->words[n++], sizeof s->words[0], "key=%u", v->children[i].key);
        }
    }
    if (v->trunk) {
        snprintf(s->words[n++], sizeof s->words[0], "unmark");
    }
    if (!v->any_address) {
        scope_addresses(s, &n, v);
    }
    s->args[0] = v->port;
    s->args[1] = file;
    for (size_t i = 0; i < n; i++) {
        s->args[2 + i] = s->words[i];
    }
    s->args[2 + n] = NULL;
}

/* A switch that was started before this program was replaced may not know of meters: it
 * refuses the word, and the rest is asked for without. */
static int
ask_scoped(struct network *net, struct end_vif *v, const char *command, const char *file)
{
    struct scope_args scope;
    unsigned ofport = v->where.ofport;
    int error;

    scope_args(&scope, v, file);
    error = ask(net, v, command, scope.args, NULL);
    if (error && ofport && strstr(net->why, ": ofport=")) {
        v->where.ofport = 0;
        scope_args(&scope, v, file);
        v->where.ofport = ofport;
        error = ask(net, v, command, scope.args, NULL);
        if (!error) {
            net->why[0] = '\0';
            network_lose(net, v, "how much of its meters was used: the switch is an older one");
        }
    }
    return error;
}

/* A file without a name, by which the switch reads or writes: '*path'. */
static int
open_blob(char path[64])
{
    int fd = memfd_create("weft-vif-state", MFD_CLOEXEC);

    snprintf(path, 64, "/proc/%ld/fd/%d", (long)getpid(), fd);
    return fd;
}

static int
read_blob(int fd, struct vif_known *k)
{
    struct stat s;

    free(k->blob);
    k->blob = NULL;
    k->blob_len = 0;
    if (fstat(fd, &s)) {
        return errno;
    }
    if (s.st_size > NETWORK_STATE_MAX || !(k->blob = malloc(s.st_size + 1))) {
        return ENOMEM;
    }
    if (pread(fd, k->blob, s.st_size, 0) != s.st_size) {
        return EIO;
    }
    k->blob_len = s.st_size;
    return 0;
}

static int
export_switch(struct network *net, struct end_vif *v)
{
    char path[64];
    int fd = open_blob(path), error;

    if (fd < 0) {
        return network_fail(net, v, errno, "no memory for the switch's state");
    }
    error = ask_scoped(net, v, "weft/vif-export", path);
    if (!error && (error = read_blob(fd, &v->known))) {
        network_fail(net, v, error, "the switch's state cannot be read");
    }
    close(fd);
    return error;
}

int
network_export(struct network *net, uint8_t **data, size_t *len)
{
    struct vif_known known[NETWORK_VIFS_MAX];

    net->why[0] = '\0';
    for (size_t i = 0; i < net->n; i++) {
        struct end_vif *v = &net->vifs[i];

        if (!v->gathered && gather(net, v)) {
            network_lose(net, v, "which addresses and groups its port has learned");
        }
        if (v->is.stock) {
            network_lose(net, v, "tracked connections: Open vSwitch shows and flushes them only");
            network_lose(net, v, "counters, and what the guest asked its backend for");
        } else if (export_switch(net, v)) {
            network_lose(net, v, "tracked connections, counters and the backend's settings");
        }
        known[i] = v->known;
    }
    return network_state_put(known, net->n, data, len);
}

static int
import_switch(struct network *net, struct end_vif *v)
{
    char path[64];
    int fd = open_blob(path), error = 0;

    if (fd < 0) {
        return network_fail(net, v, errno, "no memory for the switch's state");
    }
    if (pwrite(fd, v->known.blob, v->known.blob_len, 0) != (ssize_t)v->known.blob_len) {
        error = network_fail(net, v, ENOMEM, "no memory for the switch's state");
    } else {
        /* A Xen domain's port is there only now.  Not found, its meters start full. */
        look(net, v);
        error = ask_scoped(net, v, "weft/vif-import", path);
    }
    close(fd);
    return error;
}

int
network_import(struct network *net, const uint8_t *data, size_t len)
{
    struct vif_known known[NETWORK_VIFS_MAX] = {0};
    int first = 0;

    net->why[0] = '\0';
    if (network_state_get(known, net->n, data, len)) {
        snprintf(net->why, sizeof net->why, "no network state of this guest");
        return EINVAL;
    }
    for (size_t i = 0; i < net->n; i++) {
        struct end_vif *v = &net->vifs[i];
        int error = 0;

        vif_known_clear(&v->known);
        v->known = known[i];
        if (v->is.stock && v->known.blob) {
            network_lose(net, v, "tracked connections: Open vSwitch takes none");
            network_lose(net, v, "counters, and what the guest asked its backend for");
        } else if (v->known.blob) {
            error = import_switch(net, v);
        }
        first = first ? first : error;
    }
    return first;
}

/* --- announcing --------------------------------------------------------------------------- */

/* The tag with which the port's guest sends in that VLAN. */
static uint16_t
tag_of(const struct end_vif *v, uint16_t vlan)
{
    return vlan == v->where.untagged || !v->where.trunk ? 0 : vlan;
}

static void
keep_frame(struct frames *f, size_t len)
{
    f->all[f->n].len = len;
    f->n += len > 0;
}

void
network_make_frames(const struct end_vif *v, struct frames *f)
{
    const uint8_t *mac = v->is.mac;

    f->n = 0;
    keep_frame(f, announce_rarp(f->all[f->n].data, mac, 0));
    for (unsigned i = 0; i < v->known.n_macs; i++) {
        uint16_t tag = tag_of(v, v->known.macs[i].vlan);

        if (tag || memcmp(v->known.macs[i].mac, mac, 6) != 0) {
            keep_frame(f, announce_rarp(f->all[f->n].data, v->known.macs[i].mac, tag));
        }
    }
    for (unsigned i = 0; i < v->is.n_children; i++) {
        keep_frame(f,
                   announce_rarp(f->all[f->n].data, v->is.children[i].mac, v->is.children[i].tag));
    }
    for (unsigned i = 0; i < v->is.n_addresses && i < NETWORK_ADDRESSES_MAX; i++) {
        unsigned by = v->is.used_by[i];
        const struct network_child *child = by ? &v->is.children[by - 1] : NULL;

        keep_frame(f, announce_address(f->all[f->n].data, child ? child->mac : mac,
                                       child ? child->tag : 0, v->is.addresses[i]));
    }
}

static void
make_reports(const struct end_vif *v, struct frames *f)
{
    f->n = 0;
    for (unsigned i = 0; i < v->known.n_groups; i++) {
        keep_frame(f,
                   announce_group(f->all[f->n].data, v->is.mac, tag_of(v, v->known.groups[i].vlan),
                                  v->known.groups[i].address));
    }
}

/* What a switch learns only from frames that a port has received itself: groups. */
static int
say(struct network *net, struct end_vif *v, const struct frames *f)
{
    const char **args = calloc(f->n + 2, sizeof *args);
    char(*hex)[2 * ANNOUNCE_MAX + 1] = calloc(f->n + 1, sizeof *hex);
    int error = ENOMEM;

    if (args && hex) {
        args[0] = v->is.port;
        for (size_t i = 0; i < f->n; i++) {
            for (size_t k = 0; k < f->all[i].len; k++) {
                snprintf(hex[i] + 2 * k, 3, "%02x", f->all[i].data[k]);
            }
            args[1 + i] = hex[i];
        }
        error = f->n ? ask(net, v, "weft/vif-say", args, NULL) : 0;
    }
    free(args);
    free(hex);
    return error;
}

int
network_announce(struct network *net)
{
    struct frames *f = malloc(sizeof *f);
    int first = f ? 0 : ENOMEM;

    net->why[0] = '\0';
    for (size_t i = 0; f && i < net->n; i++) {
        struct end_vif *v = &net->vifs[i];
        int error = find_port(net, v);

        if (!error) {
            network_make_frames(v, f);
            error = switch_port_inject(v->is.switch_dir, &v->where, f->all, f->n, CALL_MS);
            error = error ? network_fail(net, v, error, "its bridge does not take frames") : 0;
        }
        if (!error && v->known.n_groups) {
            if (v->is.stock) {
                network_lose(net, v, "membership of groups, until the next query");
            } else {
                make_reports(v, f);
                error = say(net, v, f);
            }
        }
        first = first ? first : error;
    }
    free(f);
    return first;
}

/* --- times ------------------------------------------------------------------------------------ */

static int
times_of(struct network *net, struct end_vif *v, struct network_times *t)
{
    unsigned long long last, first, held, kept, fed, taken, dropped;
    char *text, *at;
    int error = ask(net, v, "weft/vif-show", (const char *const[]){v->is.port, NULL}, &text);

    if (error) {
        return error;
    }
    at = strstr(text, " last_ns=");
    if (at && sscanf(at,
                     " last_ns=%llu first_ns=%llu held_ns=%llu kept=%llu fed=%llu taken=%llu "
                     "dropped=%llu",
                     &last, &first, &held, &kept, &fed, &taken, &dropped) == 7) {
        *t = (struct network_times){
            .last_ns = last ? last : held,
            .first_ns = first,
            .kept = kept,
            .late = net->keeps ? fed : taken,
            .dropped = dropped,
        };
    } else {
        error = network_fail(net, v, EPROTO, "an answer that cannot be read");
    }
    free(text);
    return error;
}

int
network_times(struct network *net, struct network_times *times)
{
    int first = 0;

    net->why[0] = '\0';
    for (size_t i = 0; i < net->n; i++) {
        struct end_vif *v = &net->vifs[i];
        int error = 0;

        if (!v->is.stock) {
            error = times_of(net, v, &v->times);
        }
        times[v->given] = v->times;
        times[v->given].untold = v->is.stock;
        first = first ? first : error;
    }
    return first;
}
