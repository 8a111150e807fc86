/* netfront_ctrl: see netfront_ctrl.h. */
#include "netfront_ctrl.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "hv/hv.h"

static void *
ctrl_page(const struct nf_ctrl *c, unsigned i)
{
    uint8_t *mem = local_domain_memory(c->dom);
    return mem + (size_t)(c->first_page + i) * HV_PAGE_SIZE;
}

void
nf_ctrl_init(struct nf_ctrl *c, struct local_domain *dom, uint32_t first_page)
{
    memset(c, 0, sizeof *c);
    c->dom = dom;
    c->first_page = first_page;
    c->fd = -1;
}

/* A page that is still held keeps its grant and is reused as it is. */
static void
ctrl_revoke(struct nf_ctrl *c, uint32_t *ref)
{
    if (*ref && local_grant_end(c->dom, *ref) != EBUSY) {
        *ref = 0;
    }
}

int
nf_ctrl_connect(struct nf_ctrl *c, uint16_t backend)
{
    int error = ENOSPC;

    if (!c->ring_ref) {
        c->ring_ref = local_grant_access(c->dom, backend, c->first_page, false);
    }
    if (!c->arg_ref) {
        c->arg_ref = local_grant_access(c->dom, backend, c->first_page + 1, false);
    }
    if (!c->ring_ref || !c->arg_ref) {
        goto err_grants;
    }
    error = local_evtchn_alloc(c->dom, backend, &c->port, &c->fd);
    if (error) {
        goto err_grants;
    }
    memset(ctrl_page(c, 0), 0, HV_PAGE_SIZE);
    XEN_FRONT_RING_INIT(&c->ring, (struct xen_netif_ctrl_sring *)ctrl_page(c, 0), HV_PAGE_SIZE);
    c->connected = true;
    return 0;

err_grants:
    ctrl_revoke(c, &c->ring_ref);
    ctrl_revoke(c, &c->arg_ref);
    return error;
}

void
nf_ctrl_disconnect(struct nf_ctrl *c)
{
    if (!c->connected) {
        return;
    }
    c->connected = false;
    local_evtchn_close(c->dom, c->port);
    c->fd = -1;
    ctrl_revoke(c, &c->ring_ref);
    ctrl_revoke(c, &c->arg_ref);
}

/* --- one request ----------------------------------------------------------- */

static int64_t
now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Takes the answer to 'id' if it is there; stale answers, to requests that
 * were given up, are skipped.  EAGAIN if it is not there yet. */
static int
take_response(struct nf_ctrl *c, uint16_t id, struct xen_netif_ctrl_response *rsp)
{
    RING_IDX prod = __atomic_load_n(&c->ring.sring->rsp_prod, __ATOMIC_ACQUIRE);

    if (prod - c->ring.rsp_cons > c->ring.req_prod_pvt - c->ring.rsp_cons) {
        return EPROTO;
    }
    while (c->ring.rsp_cons != prod) {
        RING_COPY_RESPONSE(&c->ring, c->ring.rsp_cons, rsp);
        c->ring.rsp_cons++;
        if (rsp->id == id) {
            return 0;
        }
    }
    return EAGAIN;
}

static int
wait_response(struct nf_ctrl *c, uint16_t id, struct xen_netif_ctrl_response *rsp)
{
    int64_t deadline = now_ms() + NF_CTRL_TIMEOUT_MS;

    for (;;) {
        int error, pending;

        local_evtchn_clear(c->dom, c->port);
        error = take_response(c, id, rsp);
        if (error != EAGAIN) {
            return error;
        }
        RING_FINAL_CHECK_FOR_RESPONSES(&c->ring, pending);
        if (pending) {
            continue;
        }
        int64_t left = deadline - now_ms();
        if (left <= 0) {
            return ETIMEDOUT;
        }
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        poll(&p, 1, (int)left);
    }
}

static int
status_to_errno(uint32_t status)
{
    switch (status) {
    case XEN_NETIF_CTRL_STATUS_SUCCESS:
        return 0;
    case XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED:
        return EOPNOTSUPP;
    case XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER:
        return EINVAL;
    case XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW:
        return EOVERFLOW;
    default:
        return EPROTO;
    }
}

int
nf_ctrl_request(struct nf_ctrl *c, uint16_t type, const uint32_t arg[3], uint32_t *data)
{
    struct xen_netif_ctrl_response rsp;
    int notify;

    if (!c->connected) {
        return EOPNOTSUPP;
    }
    if (RING_FULL(&c->ring)) {
        return ETIMEDOUT; /* nothing was answered for a whole ring */
    }
    struct xen_netif_ctrl_request *req = RING_GET_REQUEST(&c->ring, c->ring.req_prod_pvt);
    uint16_t id = c->next_id++;
    *req =
        (struct xen_netif_ctrl_request){.id = id, .type = type, .data = {arg[0], arg[1], arg[2]}};
    c->ring.req_prod_pvt++;
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&c->ring, notify);
    if (notify) {
        local_evtchn_notify(c->dom, c->port);
    }

    int error = wait_response(c, id, &rsp);
    if (error) {
        return error;
    }
    if (rsp.type != type) {
        return EPROTO;
    }
    if (data) {
        *data = rsp.data;
    }
    return status_to_errno(rsp.status);
}

static int
request(struct nf_ctrl *c, uint16_t type, uint32_t a, uint32_t b, uint32_t d, uint32_t *data)
{
    return nf_ctrl_request(c, type, (uint32_t[3]){a, b, d}, data);
}

/* --- hashing --------------------------------------------------------------- */

int
nf_ctrl_hash_enable(struct nf_ctrl *c, const uint8_t *key, unsigned key_len, uint32_t *flags)
{
    uint32_t supported = 0;
    int error;

    if (key_len > HV_PAGE_SIZE) {
        return EINVAL;
    }
    error = request(c, XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM,
                    XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ, 0, 0, NULL);
    if (error) {
        return error;
    }
    memcpy(ctrl_page(c, 1), key, key_len);
    error = request(c, XEN_NETIF_CTRL_TYPE_SET_HASH_KEY, c->arg_ref, key_len, 0, NULL);
    if (error) {
        return error;
    }
    error = request(c, XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS, 0, 0, 0, &supported);
    if (error) {
        return error;
    }
    *flags &= supported;
    return request(c, XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS, *flags, 0, 0, NULL);
}

int
nf_ctrl_hash_mapping(struct nf_ctrl *c, const uint32_t *queue_of, unsigned n)
{
    uint32_t room = 0;
    int error;

    if (n > NF_CTRL_MAPPING_MAX) {
        return EINVAL;
    }
    error = request(c, XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE, 0, 0, 0, &room);
    if (error) {
        return error;
    }
    if (n > room) {
        return ENOSPC;
    }
    error = request(c, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE, n, 0, 0, NULL);
    if (error || !n) {
        return error;
    }
    memcpy(ctrl_page(c, 1), queue_of, n * sizeof *queue_of);
    return request(c, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, c->arg_ref, n, 0, NULL);
}

int
nf_ctrl_hash_disable(struct nf_ctrl *c)
{
    return request(c, XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM, XEN_NETIF_CTRL_HASH_ALGORITHM_NONE, 0,
                   0, NULL);
}

/* --- static grants ---------------------------------------------------------- */

int
nf_ctrl_gref_limit(struct nf_ctrl *c, unsigned queue, uint32_t *limit)
{
    *limit = 0;
    return request(c, XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE, queue, 0, 0, limit);
}

static int
gref_lists(struct nf_ctrl *c, uint16_t type, unsigned queue, const struct xen_netif_gref *list,
           unsigned n, unsigned *done)
{
    *done = 0;
    while (*done < n) {
        unsigned chunk = n - *done;
        if (chunk > NF_CTRL_GREFS_MAX) {
            chunk = NF_CTRL_GREFS_MAX;
        }
        memcpy(ctrl_page(c, 1), list + *done, chunk * sizeof *list);
        int error = request(c, type, queue, c->arg_ref, chunk, NULL);
        if (error) {
            return error;
        }
        *done += chunk;
    }
    return 0;
}

int
nf_ctrl_gref_add(struct nf_ctrl *c, unsigned queue, const struct xen_netif_gref *list, unsigned n,
                 unsigned *done)
{
    return gref_lists(c, XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING, queue, list, n, done);
}

int
nf_ctrl_gref_del(struct nf_ctrl *c, unsigned queue, const struct xen_netif_gref *list, unsigned n,
                 unsigned *done)
{
    return gref_lists(c, XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING, queue, list, n, done);
}
