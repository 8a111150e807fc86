/* offload: checksum and TCP segmentation in software, on contiguous frames.
 *
 * Used where the way out of the switch cannot take what a guest left to it:
 * a port without TSO, a tunnel, a guest without GSO.  No packet type of its
 * own: bytes in, bytes out.
 *
 * Threads: pure functions; an iterator belongs to its caller.
 * Hostile input: every length comes from the frame and is checked against
 * it; nothing here reads or writes past the buffers it is given. */
#ifndef OFFLOAD_H
#define OFFLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where the headers of a frame lie, in bytes from its start. */
struct frame_layout {
    uint16_t eth_type;  /* host order, after any 802.1Q/802.1ad tags */
    uint16_t l3;        /* first byte of IPv4/IPv6 header; 0 if not IP */
    uint16_t l4;        /* first byte of TCP/UDP header; 0 if none, or a later fragment */
    uint16_t payload;   /* first byte after the TCP/UDP header; 0 if l4 is 0 */
    uint16_t l3_end;    /* end of the IP packet by its own length field (<= frame length) */
    uint8_t ip_version; /* 4, 6 or 0 */
    uint8_t l4_proto;   /* IPPROTO_TCP, IPPROTO_UDP, other, or 0 */
    bool fragment;      /* any fragment, first or later */
};

/* Parses Ethernet, up to 4 VLAN tags, IPv4 with options, IPv6 with extension
 * headers (at most 8), TCP and UDP.  Returns false if a header is truncated or
 * contradicts its own lengths, or if the IP packet ends past byte 65,535; the
 * layout then says as much as was valid.  What it does not know (another
 * protocol, a fifth tag, AH) ends the layout there and is no error. */
bool frame_parse(const uint8_t *frame, size_t len, struct frame_layout *);

/* RFC 1071 sum of 'len' bytes on top of 'sum' (host-order accumulator of
 * 16-bit words in network order); fold with csum_fold().  A number of the
 * caller's own is added as htons(number).  'len' may be odd in the last piece
 * only.  Returns at most 0x1fffe, so a few thousand words may be added before
 * it overflows. */
uint32_t csum_add(uint32_t sum, const void *data, size_t len);
uint16_t csum_fold(uint32_t sum); /* complemented, in network order */

/* Writes the folded pseudo-header sum into the TCP/UDP checksum field (what
 * NETTXF_csum_blank, NETRXF_csum_blank and virtio expect).  Returns false, frame untouched, if
 * the frame has no TCP or UDP header or is a fragment. */
bool csum_set_pseudo(uint8_t *frame, const struct frame_layout *);
/* Computes and writes the whole TCP/UDP checksum (UDP 0 becomes 0xffff). */
bool csum_fill(uint8_t *frame, const struct frame_layout *);
/* Checks the TCP/UDP checksum (UDP with 0 over IPv4 counts as right).  False
 * also where there is none to check: another protocol, a fragment. */
bool csum_verify(const uint8_t *frame, const struct frame_layout *);

/* Cuts one TCP frame into segments of at most 'mss' payload bytes.  Headers
 * are repeated with IPv4 id counted up, lengths, sequence numbers, FIN/PSH
 * only on the last, CWR only on the first (RFC 3168), the urgent pointer where
 * it still applies, checksums filled in unless 'keep_blank' (then the
 * pseudo-header sum).  The bytes before 'inner' are an encapsulation (see
 * gso_tunnel) and are repeated with their IP and UDP lengths, IPv4 id, GRE
 * sequence number and checksums mended: a UDP checksum that is 0 stays 0, one
 * that is not is computed anew, with 'keep_blank' to what is right once the
 * inner one has been filled in. */
enum gso_tunnel { GSO_TUNNEL_NONE, GSO_TUNNEL_UDP /* VXLAN, Geneve */, GSO_TUNNEL_GRE };

struct gso_iter {
    const uint8_t *frame;
    struct frame_layout outer; /* valid if tunnel; with GRE, l4 is the GRE header */
    struct frame_layout inner; /* offsets from 'inner_ofs' */
    uint16_t inner_ofs;        /* start of the inner Ethernet frame; 0 without a tunnel */
    uint16_t mss;
    uint16_t next_ofs; /* next payload byte, from the frame's start */
    uint16_t end_ofs;
    uint16_t n_done;
    uint8_t tunnel;
    bool keep_blank;
};

/* Prepares to cut 'frame' (kept by reference, unchanged, until the last
 * segment).  'inner_ofs' is 0 unless 'tunnel' is set.  Returns false if the
 * frame is not a whole, unfragmented TCP segment or mss is 0, if 'inner_ofs'
 * does not lie behind headers of that tunnel, or if a SYN or RST would have to
 * be repeated.  Any other mss is obeyed, 1 included: a caller bounds what a
 * guest may ask for by gso_count(). */
bool gso_begin(struct gso_iter *, const uint8_t *frame, size_t len, uint16_t mss,
               enum gso_tunnel tunnel, uint16_t inner_ofs, bool keep_blank);
/* Number of segments in all: 1 for a frame without payload. */
unsigned gso_count(const struct gso_iter *);
/* Writes the next segment into 'out', which must not overlap the frame, and
 * returns its length; 0 when done or when 'cap' is too small for headers + mss. */
size_t gso_next(struct gso_iter *, uint8_t *out, size_t cap);

#endif
