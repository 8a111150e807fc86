/* netfront_frame: frames that weft-netfront makes, and frames it looks at.
 *
 * Three parts: where the headers of a frame lie; the translation between
 * netif's offload flags and the virtio header of a TAP; and the test stream
 * that blast sends and sink checks.
 *
 * A test frame is Ethernet, an optional VLAN tag, IPv4 or IPv6, UDP (or TCP
 * when it is to be segmented), then a stamp, then a byte pattern that depends
 * only on the offset in the payload.  A TCP frame has its payload's offset as
 * sequence number, so that a segment cut on the way still says which part it is.
 *
 * Threads: no state but what is passed in.  Errors: 0 or a positive errno. */
#ifndef NETFRONT_FRAME_H
#define NETFRONT_FRAME_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "netfront_ring.h"

/* --- headers ------------------------------------------------------------------ */

struct nf_headers {
    uint16_t l3, l4, payload; /* offsets from the frame's start */
    uint8_t ip_version;       /* 4 or 6 */
    uint8_t proto;            /* IPPROTO_TCP or IPPROTO_UDP */
    uint32_t l3_len;          /* IP header and payload, as the packet says */
};

/* Finds the TCP or UDP header within the first 'avail' bytes of a frame (the
 * frame itself may be longer).  False if there is none, or a fragment. */
bool nf_headers_find(const uint8_t *frame, size_t avail, struct nf_headers *);

/* --- virtio header -------------------------------------------------------------- */

/* What our peer can take. */
struct nf_caps {
    bool csum_v4, csum_v6;
};

/* Translates what a TAP said about the contiguous frame.  A checksum that the peer could
 * not find or fill is filled here.  EINVAL if it makes no sense. */
int nf_meta_from_vnet(const struct virtio_net_hdr *, uint8_t *frame, uint32_t len,
                      const struct nf_caps *, struct nf_meta *);
/* The other way; 'head' is the frame's first fragment.  EINVAL if the offload
 * is not in the frame (then it cannot be passed on). */
int nf_meta_to_vnet(const struct nf_meta *, const uint8_t *head, size_t head_len,
                    struct virtio_net_hdr *);

/* --- test stream ------------------------------------------------------------------ */

#define NF_STREAM_PORT 9u /* discard, RFC 863 */

enum nf_csum_mode {
    NF_CSUM_ZERO,  /* none (UDP over IPv4 only) */
    NF_CSUM_BLANK, /* left to the backend */
    NF_CSUM_FULL,  /* computed here */
};

#define NF_STREAM_PORTS 60000u
struct nf_stream {
    uint8_t src_mac[6], dst_mac[6];
    int family; /* AF_INET or AF_INET6 */
    uint8_t src_ip[16], dst_ip[16];
    uint16_t src_port, dst_port; /* flow f is sent from src_port + f % NF_STREAM_PORTS */
    uint16_t vlan;               /* 0: untagged */
    uint32_t size;               /* frame bytes without FCS */
    uint16_t mss;                /* 0: UDP; else TCP to be segmented */
    enum nf_csum_mode csum;
};

/* Stands at the start of the payload, network order. */
struct nf_stamp {
    uint32_t magic;
    uint16_t sender; /* domain id */
    uint8_t queue;
    uint8_t run; /* differs between runs of a sender */
    uint32_t flow;
    uint32_t seq_high, seq_low; /* per flow, from 0 */
};
_Static_assert(sizeof(struct nf_stamp) == 20, "fits a 64-byte frame");

/* A stream ready to be sent. */
struct nf_template {
    struct nf_stream stream;
    uint16_t l3, l4, payload;
    struct nf_meta meta;
    uint32_t base_sum; /* NF_CSUM_FULL: all but source port and stamp */
    uint16_t sender;
    uint8_t queue, run;
};

/* Smallest size a stream may have. */
uint32_t nf_stream_min_size(const struct nf_stream *);
/* EINVAL if size, family, mss and checksum mode do not go together; 'why' says how. */
int nf_template_init(struct nf_template *, const struct nf_stream *, uint16_t sender, uint8_t queue,
                     uint8_t run, char *why, size_t why_size);
/* Writes the whole frame. */
void nf_template_fill(struct nf_template *, uint8_t *frame);
/* Touches what differs from packet to packet. */
void nf_template_stamp(const struct nf_template *, uint8_t *frame, uint32_t flow, uint64_t seq);

enum nf_verdict {
    NF_FOREIGN, /* not of a test stream */
    NF_STAMPED, /* whole frame, or the first segment of one; the stamp is valid */
    NF_SEGMENT, /* a later segment, bytes right */
    NF_CORRUPT,
};
/* Looks at a received frame. */
enum nf_verdict nf_frame_check(const struct nf_rx_frame *, uint16_t dst_port, struct nf_stamp *);
static inline uint64_t
nf_stamp_seq(const struct nf_stamp *s)
{
    return (uint64_t)__builtin_bswap32(s->seq_high) << 32 | __builtin_bswap32(s->seq_low);
}

/* An announcement of 'mac' (reverse ARP, as Xen guests send after migration),
 * 60 bytes. */
#define NF_ANNOUNCE_LEN 60u
void nf_announce_frame(const uint8_t mac[6], uint8_t frame[NF_ANNOUNCE_LEN]);

#endif
