/* xenbus_store: what the toolstack and the frontend wrote about a vif.
 *
 * A frontend writes what it likes: numbers are parsed strictly and checked
 * against their range, strings cut to their field. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <syslog.h>

#include <xenstore.h>

#include "hex.h"
#include "xenbus_priv.h"

/* --- the store --------------------------------------------------------------- */

/* Reads DIR/KEY; NULL if absent.  The caller frees. */
char *
xb_read(struct netback *nb, const char *dir, const char *key)
{
    char path[XENSTORE_ABS_PATH_MAX + 1];
    unsigned len;

    if (snprintf(path, sizeof path, "%s/%s", dir, key) >= (int)sizeof path) {
        return NULL;
    }
    return xs_read(nb->xs, XBT_NULL, path, &len);
}

static bool
parse_u64(const char *s, uint64_t max, uint64_t *value)
{
    char *end;

    if (!s || *s < '0' || *s > '9') {
        return false;
    }
    errno = 0;
    *value = strtoull(s, &end, 10);
    return !errno && !*end && *value <= max;
}

/* Reads a number up to 'max'; ENOENT if absent, EINVAL if it is not one. */
int
xb_number(struct netback *nb, const char *dir, const char *key, uint64_t max, uint64_t *value)
{
    char *s = xb_read(nb, dir, key);
    int error = !s ? ENOENT : parse_u64(s, max, value) ? 0 : EINVAL;

    free(s);
    return error;
}

bool
xb_flag(struct netback *nb, const char *dir, const char *key)
{
    uint64_t value;

    return !xb_number(nb, dir, key, UINT32_MAX, &value) && value;
}

int
xb_state(struct netback *nb, const char *dir)
{
    uint64_t value;

    return dir && !xb_number(nb, dir, "state", XenbusStateReconfigured, &value)
               ? (int)value
               : XenbusStateUnknown;
}

void
xb_backend_dir(const struct netback_vif *v, char *buf, size_t size)
{
    snprintf(buf, size, BACKEND_ROOT "/%u/%u", v->domid, v->handle);
}

static bool
xb_write(struct netback *nb, xs_transaction_t t, const char *dir, const char *key,
         const char *value)
{
    char path[XENSTORE_ABS_PATH_MAX + 1];

    snprintf(path, sizeof path, "%s/%s", dir, key);
    return xs_write(nb->xs, t, path, value, strlen(value));
}

/* In a transaction: the backend directory is still there (a write would make
 * it again), and its state is what we last saw: the toolstack writes it, too. */
static bool
xb_unchanged(struct netback_vif *v, xs_transaction_t t, const char *dir)
{
    char path[112], want[4];
    unsigned len;

    snprintf(path, sizeof path, "%s/frontend", dir);
    char *frontend = xs_read(v->nb->xs, t, path, &len);
    snprintf(path, sizeof path, "%s/state", dir);
    char *state = xs_read(v->nb->xs, t, path, &len);
    snprintf(want, sizeof want, "%d", v->backend_state);
    bool same = frontend && (state ? !strcmp(state, want) : !v->backend_state);
    free(frontend);
    free(state);
    return same;
}

bool
xb_write_backend(struct netback_vif *v, const char *const pairs[][2], unsigned n)
{
    struct netback *nb = v->nb;
    char dir[96];

    xb_backend_dir(v, dir, sizeof dir);
    for (int tries = 0; tries < 100; tries++) {
        xs_transaction_t t = xs_transaction_start(nb->xs);
        if (t == XBT_NULL) {
            return false;
        }
        bool ok = xb_unchanged(v, t, dir);
        for (unsigned i = 0; i < n && ok; i++) {
            ok = xb_write(nb, t, dir, pairs[i][0], pairs[i][1]);
        }
        if (xs_transaction_end(nb->xs, t, !ok)) {
            return ok;
        }
        if (errno != EAGAIN) {
            return false;
        }
    }
    return false;
}

void
xb_set_state(struct netback_vif *v, int state)
{
    char text[4];
    const char *pairs[][2] = {{"state", text}};

    snprintf(text, sizeof text, "%d", state);
    if (v->backend_state != state && xb_write_backend(v, pairs, 1)) {
        v->backend_state = state;
    }
}

/* --- what the toolstack says of a vif ------------------------------------------ */

static void
copy_key(struct netback *nb, const char *dir, const char *key, char *buf, size_t size)
{
    char *s = xb_read(nb, dir, key);

    if (s && strlen(s) < size) {
        strcpy(buf, s);
    }
    free(s);
}

/* "/vm/UUID" or a plain UUID. */
static void
copy_vm_uuid(struct netback *nb, uint16_t domid, char *buf, size_t size)
{
    char dir[64], vm[96] = "";

    snprintf(dir, sizeof dir, "/local/domain/%u", domid);
    copy_key(nb, dir, "vm", vm, sizeof vm);
    const char *uuid = strncmp(vm, "/vm/", 4) ? vm : vm + 4;
    if (strlen(uuid) < size) {
        strcpy(buf, uuid);
    }
}

/* Where XenServer's toolstack keeps what the guest must not see. */
static void
copy_private_keys(struct netback *nb, struct netback_vif_info *info)
{
    char dir[160];

    snprintf(dir, sizeof dir, "/xapi/%s/private/vif/%u", info->vm_uuid, info->handle);
    if (!*info->vif_uuid) {
        copy_key(nb, dir, "vif-uuid", info->vif_uuid, sizeof info->vif_uuid);
    }
    if (!*info->network_uuid) {
        copy_key(nb, dir, "network-uuid", info->network_uuid, sizeof info->network_uuid);
    }
}

void
xb_publish(struct netback_vif *v, bool present, const struct netback_vif_info *info)
{
    struct netback *nb = v->nb;

    pthread_mutex_lock(&nb->lock);
    bool changed = v->present != present || (present && memcmp(&v->info, info, sizeof *info) != 0);
    v->present = present;
    if (present) {
        v->info = *info;
    }
    pthread_mutex_unlock(&nb->lock);
    if (changed) {
        vif_changed(v);
        eventfd_write(nb->list_fd, 1);
    }
}

void
xb_read_info(struct netback_vif *v, const char *dir)
{
    struct netback *nb = v->nb;
    struct netback_vif_info info = {.domid = v->domid, .handle = v->handle};
    uint8_t mac[6];

    copy_key(nb, dir, "bridge", info.bridge, sizeof info.bridge);
    copy_key(nb, dir, "mac", info.mac, sizeof info.mac);
    copy_key(nb, dir, "vif-uuid", info.vif_uuid, sizeof info.vif_uuid);
    copy_key(nb, dir, "network-uuid", info.network_uuid, sizeof info.network_uuid);
    copy_key(nb, dir, "vlan-mode", info.vlan_mode, sizeof info.vlan_mode);
    copy_key(nb, dir, "vlan", info.vlan_tag, sizeof info.vlan_tag);
    copy_key(nb, dir, "trunks", info.vlan_trunks, sizeof info.vlan_trunks);
    copy_vm_uuid(nb, v->domid, info.vm_uuid, sizeof info.vm_uuid);
    if (*info.vm_uuid) {
        copy_private_keys(nb, &info);
    }
    atomic_store(&v->mac, hex_mac(info.mac, mac) ? hex_mac_number(mac) : 0);
    xb_publish(v, true, &info);
}

/* --- connecting -------------------------------------------------------------------- */

static void
read_features(struct netback_vif *v, struct guest_features *f)
{
    struct netback *nb = v->nb;

    f->sg = xb_flag(nb, v->frontend, "feature-sg");
    f->gso_tcpv4 = xb_flag(nb, v->frontend, "feature-gso-tcpv4");
    f->gso_tcpv6 = xb_flag(nb, v->frontend, "feature-gso-tcpv6");
    f->csum_blank_v4 = !xb_flag(nb, v->frontend, "feature-no-csum-offload");
    f->csum_blank_v6 = xb_flag(nb, v->frontend, "feature-ipv6-csum-offload");
}

/* "rate" is "BYTES,MICROSECONDS". */
void
xb_read_rate(struct netback_vif *v, uint64_t *bytes, uint64_t *usecs)
{
    char dir[96];

    *bytes = *usecs = 0;
    xb_backend_dir(v, dir, sizeof dir);
    char *s = xb_read(v->nb, dir, "rate");
    char *comma = s ? strchr(s, ',') : NULL;
    if (comma) {
        *comma = '\0';
    }
    if (s && (!comma || !parse_u64(s, UINT64_MAX / 2, bytes) ||
              !parse_u64(comma + 1, UINT32_MAX, usecs) || !*usecs)) {
        vif_log(v, LOG_WARNING, "key \"rate\" is not BYTES,MICROSECONDS: ignored");
        *bytes = *usecs = 0;
    }
    free(s);
}

/* A required number of the frontend; says what is wrong with it. */
static bool
need(struct netback_vif *v, const char *dir, const char *key, uint32_t *value, char *why,
     size_t size)
{
    uint64_t n;
    int error = xb_number(v->nb, dir, key, UINT32_MAX, &n);

    if (error) {
        snprintf(why, size, "frontend key \"%s\" %s", key,
                 error == ENOENT ? "is missing" : "is not a number");
        return false;
    }
    *value = n;
    return true;
}

static bool
read_queue_refs(struct netback_vif *v, const char *dir, struct queue_refs *r, char *why,
                size_t size)
{
    uint64_t port;

    if (!need(v, dir, "tx-ring-ref", &r->tx_ref, why, size) ||
        !need(v, dir, "rx-ring-ref", &r->rx_ref, why, size)) {
        return false;
    }
    if (!xb_number(v->nb, dir, "event-channel-tx", UINT32_MAX, &port)) {
        r->tx_port = port;
        return need(v, dir, "event-channel-rx", &r->rx_port, why, size);
    }
    if (!need(v, dir, "event-channel", &r->tx_port, why, size)) {
        return false;
    }
    r->rx_port = r->tx_port;
    return true;
}

bool
xb_read_connection(struct netback_vif *v, struct connection *c, char *why, size_t size)
{
    struct netback *nb = v->nb;
    unsigned max = nb->config.max_queues;
    uint64_t n = 1, ref;

    memset(c, 0, sizeof *c);
    if (!xb_flag(nb, v->frontend, "request-rx-copy")) {
        snprintf(why, size, "frontend does not ask for request-rx-copy; page flipping is gone");
        return false;
    }
    if (xb_number(nb, v->frontend, "multi-queue-num-queues", UINT32_MAX, &n) == EINVAL || n < 1 ||
        n > max) {
        snprintf(why, size, "frontend asks for %" PRIu64 " queues; 1 to %u are offered", n, max);
        return false;
    }
    c->n_queues = c->ids.n_queues = n;
    c->mcast_control = xb_flag(nb, v->frontend, "request-multicast-control");
    for (unsigned i = 0; i < n; i++) {
        struct queue_config *q = &c->queue[i];
        char dir[XENSTORE_ABS_PATH_MAX];

        if (n > 1) {
            snprintf(dir, sizeof dir, "%s/queue-%u", v->frontend, i);
        } else {
            snprintf(dir, sizeof dir, "%s", v->frontend);
        }
        if (!read_queue_refs(v, dir, &q->refs, why, size)) {
            return false;
        }
        read_features(v, &q->features);
        q->n_queues = n;
        c->ids.queue[i].tx_ref = q->refs.tx_ref;
        c->ids.queue[i].rx_ref = q->refs.rx_ref;
        c->ids.queue[i].tx_port = q->refs.tx_port;
        c->ids.queue[i].rx_port = q->refs.rx_port;
    }
    xb_read_rate(v, &c->queue[0].rate_bytes, &c->queue[0].rate_usecs);
    for (unsigned i = 1; i < n; i++) {
        /* As Linux's netback: each queue has the whole rate's credit. */
        c->queue[i].rate_bytes = c->queue[0].rate_bytes;
        c->queue[i].rate_usecs = c->queue[0].rate_usecs;
    }
    if (!xb_number(nb, v->frontend, "ctrl-ring-ref", UINT32_MAX, &ref)) {
        c->queue[0].has_ctrl = true;
        c->queue[0].ctrl_ref = c->ids.ctrl_ref = ref;
        if (!need(v, v->frontend, "event-channel-ctrl", &c->queue[0].ctrl_port, why, size)) {
            return false;
        }
        c->ids.ctrl_port = c->queue[0].ctrl_port;
    }
    return true;
}

/* The hotplug script, if there is one, has done its work. */
bool
xb_hotplug_done(struct netback_vif *v, const char *dir)
{
    char *script = xb_read(v->nb, dir, "script");
    char *status = xb_read(v->nb, dir, "hotplug-status");
    bool done = !script || !*script || (status && !strcmp(status, "connected"));

    free(script);
    free(status);
    return done;
}

bool
xb_is_ours(struct netback_vif *v, const char *dir)
{
    struct hv *hv = v->nb->hv;
    char *script = xb_read(v->nb, dir, "script");
    bool fresh = v->backend_state <= XenbusStateInitialising;
    bool ours = hv->ops->vif_is_ours(hv, v->domid, v->handle, fresh, script);

    free(script);
    return ours;
}
