/* ctrl: the control ring (io/netif.h, "Control messages").
 *
 * Requests are rare, so each is answered and published before the next is
 * looked at: what our own death cuts short is then one request at most, and
 * its index is req_cons - 1 while it is worked on.  The answer overlays the
 * request, so it is noted in the log (struct ctrl_log) first.
 *
 * A list or table in guest memory is copied once by grant copy, checked as a
 * whole, and only then used. */
#include "ring_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#define LIST_MAX (HV_PAGE_SIZE / sizeof(struct xen_netif_gref))
#define TABLE_PAGE_MAX (HV_PAGE_SIZE / sizeof(uint32_t))

#define HASH_TYPES                                                                                 \
    (XEN_NETIF_CTRL_HASH_TYPE_IPV4 | XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP |                           \
     XEN_NETIF_CTRL_HASH_TYPE_IPV6 | XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP)

#define SUCCESS XEN_NETIF_CTRL_STATUS_SUCCESS
#define NOT_SUPPORTED XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED
#define INVALID XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER
#define OVERFLOW XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW

_Static_assert(sizeof(struct xen_netif_gref) == 8, "static grant list entry");
_Static_assert(sizeof(struct xen_netif_ctrl_response) == 12, "control response");

static uint32_t ctrl_answer(struct ctrl *, const struct xen_netif_ctrl_request *, uint32_t *data);

/* Writes a response, all of its slot's bytes, and publishes it.  True if the
 * guest wants to know. */
static bool
ctrl_publish(struct xen_netif_ctrl_sring *sring, RING_IDX at,
             const struct xen_netif_ctrl_response *r)
{
    union xen_netif_ctrl_sring_entry rsp;

    memset(&rsp, 0, sizeof rsp); /* the slot is larger than a response */
    rsp.rsp = *r;
    sring->ring[at % __CONST_RING_SIZE(xen_netif_ctrl, HV_PAGE_SIZE)] = rsp;
    return ring_publish(&sring->rsp_prod, &sring->rsp_event, at, at + 1);
}

int
ctrl_init(struct ctrl *c, void *page)
{
    struct xen_netif_ctrl_sring *sring = page;
    RING_IDX answered = ring_index_load(&sring->rsp_prod);

    if (c->log && c->log->under_way) {
        if (c->log->index == answered && ring_index_load(&sring->req_prod) != answered) {
            ctrl_publish(sring, answered++, &c->log->rsp);
        }
        c->log->under_way = false;
    }
    BACK_RING_ATTACH(&c->ring, sring, answered, HV_PAGE_SIZE);
    return RING_REQUEST_PROD_OVERFLOW(&c->ring, ring_index_load(&sring->req_prod)) ? EPROTO : 0;
}

static bool
ctrl_respond(struct ctrl *c, const struct xen_netif_ctrl_request *req, uint32_t status,
             uint32_t data)
{
    const struct xen_netif_ctrl_response rsp = {
        .id = req->id, .type = req->type, .status = status, .data = data};
    RING_IDX at = c->ring.rsp_prod_pvt++;

    if (c->log) {
        c->log->rsp = rsp;
        c->log->index = at;
        log_order();
        c->log->under_way = true;
        log_order();
    }
    bool notify = ctrl_publish(c->ring.sring, at, &rsp);
    if (c->log) {
        log_order();
        c->log->under_way = false;
    }
    return notify;
}

int
ctrl_run(struct ctrl *c, unsigned budget, bool *notify)
{
    struct xen_netif_ctrl_sring *sring = c->ring.sring;
    RING_IDX prod = ring_index_load(&sring->req_prod);
    unsigned n = 0;

    if (RING_REQUEST_PROD_OVERFLOW(&c->ring, prod) ||
        prod - c->ring.req_cons > RING_SIZE(&c->ring)) {
        return -EPROTO;
    }
    for (; n < budget && c->ring.req_cons != prod; n++) {
        struct xen_netif_ctrl_request req;
        uint32_t status, data = 0;

        ring_fetch_ctrl(&req, &sring->ring[c->ring.req_cons++ & (RING_SIZE(&c->ring) - 1)]);
        status = ctrl_answer(c, &req, &data);
        *notify |= ctrl_respond(c, &req, status, data);
    }
    STAT_ADD(c->stats->ctrl_requests, n);
    return n;
}

bool
ctrl_arm(struct ctrl *c)
{
    ring_ask_event(&c->ring.sring->req_event, c->ring.req_cons + 1);
    return ring_index_load(&c->ring.sring->req_prod) != c->ring.req_cons;
}

/* Copies the first 'len' bytes of the guest's page 'ref'; false if refused. */
static bool
ctrl_copy_in(struct ctrl *c, uint32_t ref, void *to, uint16_t len)
{
    xengnttab_grant_copy_segment_t seg = {
        .source.foreign = {.ref = ref, .domid = c->domid},
        .dest.virt = to,
        .len = len,
        .flags = GNTCOPY_source_gref,
        .status = GNTST_general_error,
    };

    return c->hv->ops->grant_copy(c->grants, &seg, 1) == 0 && seg.status == GNTST_okay;
}

static bool
ctrl_copy_out(struct ctrl *c, uint32_t ref, void *from, uint16_t len)
{
    xengnttab_grant_copy_segment_t seg = {
        .source.virt = from,
        .dest.foreign = {.ref = ref, .domid = c->domid},
        .len = len,
        .flags = GNTCOPY_dest_gref,
        .status = GNTST_general_error,
    };

    return c->hv->ops->grant_copy(c->grants, &seg, 1) == 0 && seg.status == GNTST_okay;
}

/* --- hash ----------------------------------------------------------------- */

static void
set32(_Atomic uint32_t *p, uint32_t v)
{
    atomic_store_explicit(p, v, memory_order_relaxed);
}

static uint32_t
get32(const _Atomic uint32_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

static uint32_t
hash_set_algorithm(struct ctrl *c, uint32_t algorithm)
{
    if (algorithm != XEN_NETIF_CTRL_HASH_ALGORITHM_NONE &&
        algorithm != XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ) {
        return INVALID;
    }
    set32(&c->hash->algorithm, algorithm);
    return SUCCESS;
}

static uint32_t
hash_get_flags(struct ctrl *c, uint32_t *data)
{
    if (get32(&c->hash->algorithm) == XEN_NETIF_CTRL_HASH_ALGORITHM_NONE) {
        return NOT_SUPPORTED;
    }
    *data = HASH_TYPES;
    return SUCCESS;
}

static uint32_t
hash_set_flags(struct ctrl *c, uint32_t flags)
{
    if ((flags & ~(uint32_t)HASH_TYPES) ||
        get32(&c->hash->algorithm) == XEN_NETIF_CTRL_HASH_ALGORITHM_NONE) {
        return INVALID;
    }
    set32(&c->hash->flags, flags);
    return SUCCESS;
}

static uint32_t
hash_set_key(struct ctrl *c, uint32_t ref, uint32_t len)
{
    uint32_t key[HASH_KEY_MAX / 4] = {0};

    if (len > HASH_KEY_MAX) {
        return OVERFLOW;
    }
    if (len && !ctrl_copy_in(c, ref, key, len)) {
        return INVALID;
    }
    for (unsigned i = 0; i < HASH_KEY_MAX / 4; i++) {
        set32(&c->hash->key[i], ntohl(key[i]));
    }
    return SUCCESS;
}

static uint32_t
hash_set_mapping_size(struct ctrl *c, uint32_t size)
{
    if (size > HASH_MAPPING_MAX) {
        return INVALID;
    }
    for (unsigned i = 0; i < HASH_MAPPING_MAX; i++) {
        set32(&c->hash->mapping[i], 0);
    }
    set32(&c->hash->mapping_size, size);
    return SUCCESS;
}

static uint32_t
hash_set_mapping(struct ctrl *c, uint32_t ref, uint32_t n, uint32_t ofs)
{
    uint32_t table[TABLE_PAGE_MAX], size = get32(&c->hash->mapping_size);

    if (n > HASH_MAPPING_MAX || ofs > HASH_MAPPING_MAX || n + ofs > HASH_MAPPING_MAX) {
        return OVERFLOW;
    }
    if (n > TABLE_PAGE_MAX || n + ofs > size) {
        return INVALID;
    }
    if (n && !ctrl_copy_in(c, ref, table, n * sizeof table[0])) {
        return INVALID;
    }
    for (unsigned i = 0; i < n; i++) {
        if (table[i] >= c->n_queues) {
            return INVALID;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        set32(&c->hash->mapping[ofs + i], table[i]);
    }
    return SUCCESS;
}

/* --- static grants --------------------------------------------------------- */

static uint32_t
gref_get_size(struct ctrl *c, uint32_t queue, uint32_t *data)
{
    if (queue >= c->n_queues) {
        return INVALID;
    }
    *data = c->hooks->gref_limit(c->aux, queue);
    return SUCCESS;
}

/* Copies the list in; all of its entries are then the caller's to judge. */
static bool
gref_list(struct ctrl *c, const struct xen_netif_ctrl_request *req, struct xen_netif_gref *list)
{
    return req->data[0] < c->n_queues && req->data[2] <= LIST_MAX &&
           (!req->data[2] || ctrl_copy_in(c, req->data[1], list, req->data[2] * sizeof list[0]));
}

static uint32_t
gref_add(struct ctrl *c, const struct xen_netif_ctrl_request *req)
{
    struct xen_netif_gref list[LIST_MAX];
    uint32_t n = req->data[2];

    if (!gref_list(c, req, list)) {
        return INVALID;
    }
    for (unsigned i = 0; i < n; i++) {
        if (list[i].flags & ~XEN_NETIF_CTRLF_GREF_readonly) {
            return INVALID;
        }
    }
    return n && c->hooks->gref_add(c->aux, req->data[0], list, n) ? INVALID : SUCCESS;
}

static uint32_t
gref_del(struct ctrl *c, const struct xen_netif_ctrl_request *req, uint32_t *n_deleted)
{
    struct xen_netif_gref list[LIST_MAX];
    uint32_t n = req->data[2];

    if (!gref_list(c, req, list)) {
        return INVALID;
    }
    for (unsigned i = 0; i < n; i++) {
        bool deleted = c->hooks->gref_del(c->aux, req->data[0], list[i].ref) == 0;
        list[i].status = deleted ? SUCCESS : INVALID;
        *n_deleted += deleted;
    }
    /* A list that cannot be written back hides from the guest which entries
     * are gone: that is its own doing, but it must not pass for success. */
    return n && !ctrl_copy_out(c, req->data[1], list, n * sizeof list[0]) ? INVALID : SUCCESS;
}

/* --- dispatch -------------------------------------------------------------- */

static void
hash_changed(struct ctrl *c, uint32_t status)
{
    if (status == SUCCESS && c->hooks->hash_changed) {
        c->hooks->hash_changed(c->aux);
    }
}

/* Carries out a request that may change the hash settings. */
static uint32_t
ctrl_answer_hash(struct ctrl *c, const struct xen_netif_ctrl_request *req)
{
    uint32_t status;

    switch (req->type) {
    case XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM:
        status = hash_set_algorithm(c, req->data[0]);
        break;
    case XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS:
        status = hash_set_flags(c, req->data[0]);
        break;
    case XEN_NETIF_CTRL_TYPE_SET_HASH_KEY:
        status = hash_set_key(c, req->data[0], req->data[1]);
        break;
    case XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE:
        status = hash_set_mapping_size(c, req->data[0]);
        break;
    case XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING:
        status = hash_set_mapping(c, req->data[0], req->data[1], req->data[2]);
        break;
    default:
        return NOT_SUPPORTED;
    }
    hash_changed(c, status);
    return status;
}

static uint32_t
ctrl_answer(struct ctrl *c, const struct xen_netif_ctrl_request *req, uint32_t *data)
{
    switch (req->type) {
    case XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS:
        return hash_get_flags(c, data);
    case XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE:
        *data = HASH_MAPPING_MAX;
        return SUCCESS;
    case XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE:
        return gref_get_size(c, req->data[0], data);
    case XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING:
        return gref_add(c, req);
    case XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING:
        return gref_del(c, req, data);
    default:
        return ctrl_answer_hash(c, req);
    }
}
