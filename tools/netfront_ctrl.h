/* netfront_ctrl: the frontend's half of the control ring.
 *
 * Requests are sent one at a time and waited for: they are rare, made while
 * a connection is set up or taken down.
 *
 * Threads: one at a time.  Errors: 0 or a positive errno; a refusal by the
 * backend is EOPNOTSUPP (not supported), EINVAL (invalid parameter) or
 * EOVERFLOW (buffer overflow), silence is ETIMEDOUT.
 * Source: xen/io/netif.h, "Control ring". */
#ifndef NETFRONT_CTRL_H
#define NETFRONT_CTRL_H

#include <stdbool.h>
#include <stdint.h>

#include "hv/local.h"
#include "hv/xen_abi.h"

/* Guest pages the control ring takes: the ring and one for arguments. */
#define NF_CTRL_PAGES 2u
#define NF_CTRL_TIMEOUT_MS 5000
/* Entries of a reference list or of a hash mapping that fit the argument page. */
#define NF_CTRL_GREFS_MAX (4096u / sizeof(struct xen_netif_gref))
#define NF_CTRL_MAPPING_MAX (4096u / sizeof(uint32_t))

struct nf_ctrl {
    struct local_domain *dom;
    uint32_t first_page;
    bool connected;
    uint32_t ring_ref, arg_ref;
    uint32_t port;
    int fd;
    uint16_t next_id;
    struct xen_netif_ctrl_front_ring ring;
};

void nf_ctrl_init(struct nf_ctrl *, struct local_domain *, uint32_t first_page);
/* Grants, allocates the event channel, makes an empty ring. */
int nf_ctrl_connect(struct nf_ctrl *, uint16_t backend);
void nf_ctrl_disconnect(struct nf_ctrl *);

/* One request and its answer; '*data' may be NULL. */
int nf_ctrl_request(struct nf_ctrl *, uint16_t type, const uint32_t arg[3], uint32_t *data);

/* Toeplitz hashing.  '*flags' are the wanted XEN_NETIF_CTRL_HASH_TYPE_*; they become
 * what the backend supports of them. */
int nf_ctrl_hash_enable(struct nf_ctrl *, const uint8_t *key, unsigned key_len, uint32_t *flags);
/* A mapping table of 'n' <= NF_CTRL_MAPPING_MAX entries. ENOSPC if the
 * backend's is smaller. */
int nf_ctrl_hash_mapping(struct nf_ctrl *, const uint32_t *queue_of, unsigned n);
int nf_ctrl_hash_disable(struct nf_ctrl *);

/* How many references the backend would keep mapped for 'queue'. */
int nf_ctrl_gref_limit(struct nf_ctrl *, unsigned queue, uint32_t *limit);
/* Maps or unmaps a list of any length, NF_CTRL_GREFS_MAX at a time.  '*done'
 * is how many were before an error. */
int nf_ctrl_gref_add(struct nf_ctrl *, unsigned queue, const struct xen_netif_gref *, unsigned n,
                     unsigned *done);
int nf_ctrl_gref_del(struct nf_ctrl *, unsigned queue, const struct xen_netif_gref *, unsigned n,
                     unsigned *done);

#endif
