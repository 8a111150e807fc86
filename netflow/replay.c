#include "replay.h"

#include <errno.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "flow_frame.h"

#define ASK_EVERY 1024u

static bool
plausible_sets(const uint8_t *p, size_t len, size_t header, bool ipfix)
{
    unsigned id, set_len;

    if (len == header) {
        return ipfix; /* nothing but a header may be */
    }
    if (len < header + 4) {
        return false;
    }
    id = get_be16(p + header);
    set_len = get_be16(p + header + 2);
    return (id >= 256 || id == (ipfix ? 2 : 0) || id == (ipfix ? 3 : 1)) && set_len >= 4 &&
           set_len <= len - header;
}

bool
replay_plausible(const uint8_t *p, size_t len)
{
    if (len < 16) {
        return false;
    }
    switch (get_be16(p)) {
    case 0:
        return len >= 28 && get_be32(p) == 5 && (get_be32(p + 4) == 1 || get_be32(p + 4) == 2);
    case 5:
        return get_be16(p + 2) && len == 24 + 48u * get_be16(p + 2);
    case 9:
        return len > 20 && plausible_sets(p, len, 20, false);
    case 10:
        return get_be16(p + 2) == len && plausible_sets(p, len, 16, true);
    default:
        return false;
    }
}

/* The IP packet of a frame; false: there is none. */
static bool
find_ip(int link, const uint8_t **p, size_t *len, enum flow_frame_kind *kind)
{
    size_t skip = 0;

    switch (link) {
    case DLT_EN10MB:
        *kind = FLOW_FRAME_ETHERNET;
        return true;
    case DLT_LINUX_SLL:
        skip = 16;
        break;
    case DLT_LINUX_SLL2:
        skip = 20;
        break;
    case DLT_NULL:
    case DLT_LOOP:
        skip = 4;
        break;
    }
    if (*len <= skip) {
        return false;
    }
    *p += skip;
    *len -= skip;
    *kind = **p >> 4 == 6 ? FLOW_FRAME_IP6 : FLOW_FRAME_IP4;
    return true;
}

static void
replay_frame(struct collect *c, int link, const struct pcap_pkthdr *h, const uint8_t *p,
             struct replay_counts *n)
{
    struct flow_record r = {0};
    struct cursor payload = {0};
    size_t len = h->caplen;
    struct collect_peer peer = {.transport = FLOW_FILE};
    enum flow_frame_kind kind;

    n->frames++;
    if (!find_ip(link, &p, &len, &kind) || !flow_frame_read(kind, p, len, h->len, &r, &payload) ||
        !payload.p || !replay_plausible(payload.p, payload.left)) {
        n->others++;
        return;
    }
    peer.address = r.src;
    peer.port = r.sport;
    n->messages++;
    collect_message(c, &peer, h->ts.tv_sec * UINT64_C(1000) + h->ts.tv_usec / 1000, payload.p,
                    payload.left);
}

static bool
known_link(int link)
{
    switch (link) {
    case DLT_EN10MB:
    case DLT_RAW:
    case DLT_IPV4:
    case DLT_IPV6:
    case DLT_LINUX_SLL:
    case DLT_LINUX_SLL2:
    case DLT_NULL:
    case DLT_LOOP:
        return true;
    default:
        return false;
    }
}

int
replay_file(struct collect *c, const char *file, bool (*more)(void), struct replay_counts *n,
            char *why, size_t why_size)
{
    char said[PCAP_ERRBUF_SIZE] = "";
    pcap_t *pcap = pcap_open_offline(file, said);
    struct pcap_pkthdr *h;
    const uint8_t *p;
    int got = 0, error = 0;

    if (!pcap) {
        snprintf(why, why_size, "%s: %s", file, said);
        return EINVAL;
    }
    if (!known_link(pcap_datalink(pcap))) {
        snprintf(why, why_size, "%s: frames of link type %d cannot be read", file,
                 pcap_datalink(pcap));
        error = EPROTONOSUPPORT;
        goto out;
    }
    while ((!more || n->frames % ASK_EVERY || more()) && (got = pcap_next_ex(pcap, &h, &p)) == 1) {
        replay_frame(c, pcap_datalink(pcap), h, p, n);
    }
    if (got == PCAP_ERROR) {
        snprintf(why, why_size, "%s: %s", file, pcap_geterr(pcap));
        error = EIO;
    }
out:
    pcap_close(pcap);
    return error;
}
