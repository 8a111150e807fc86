/* tag: 802.1Q and 802.1ad tags on frames; see vlan.h. */
#include "vlan.h"

#include <string.h>

#include "bytes.h"

#define ETH_ADDRS_LEN 12 /* destination and source; tags stand behind them */
#define ETH_HDR_LEN 14
#define TAG_LEN 4

#define TCI_PCP_SHIFT 13
#define TCI_DEI 0x1000u
#define TCI_VID 0x0fffu

static bool
is_tpid(uint16_t eth_type)
{
    return eth_type == VLAN_TPID_8021Q || eth_type == VLAN_TPID_8021AD;
}

uint16_t
vlan_tci(struct vlan_tag tag)
{
    return tag.pcp << TCI_PCP_SHIFT | (tag.dei ? TCI_DEI : 0) | (tag.vid & TCI_VID);
}

struct vlan_tag
vlan_from_tci(uint16_t tpid, uint16_t tci)
{
    return (struct vlan_tag){
        .tpid = tpid,
        .vid = tci & TCI_VID,
        .pcp = tci >> TCI_PCP_SHIFT,
        .dei = tci & TCI_DEI,
    };
}

int
vlan_read(const uint8_t *frame, size_t len, struct vlan_tag *tags, unsigned cap, uint16_t *eth_type,
          size_t *eth_type_ofs)
{
    size_t ofs = ETH_ADDRS_LEN;
    unsigned n = 0;

    if (len < ETH_HDR_LEN) {
        return -1;
    }
    for (; is_tpid(get_be16(frame + ofs)); n++, ofs += TAG_LEN) {
        if (len - ofs < TAG_LEN + 2) {
            return -1;
        }
        if (n < cap) {
            tags[n] = vlan_from_tci(get_be16(frame + ofs), get_be16(frame + ofs + 2));
        }
    }
    *eth_type = get_be16(frame + ofs);
    *eth_type_ofs = ofs;
    return n;
}

bool
vlan_push(uint8_t *frame, size_t len, struct vlan_tag tag)
{
    uint8_t *start = frame - TAG_LEN;

    if (len < ETH_HDR_LEN) {
        return false;
    }
    memmove(start, frame, ETH_ADDRS_LEN);
    put_be16(start + ETH_ADDRS_LEN, tag.tpid);
    put_be16(start + ETH_ADDRS_LEN + 2, vlan_tci(tag));
    return true;
}

bool
vlan_pop(uint8_t *frame, size_t len, struct vlan_tag *tag)
{
    uint16_t tpid;

    if (len < ETH_HDR_LEN + TAG_LEN) {
        return false;
    }
    tpid = get_be16(frame + ETH_ADDRS_LEN);
    if (!is_tpid(tpid)) {
        return false;
    }
    *tag = vlan_from_tci(tpid, get_be16(frame + ETH_ADDRS_LEN + 2));
    memmove(frame + TAG_LEN, frame, ETH_ADDRS_LEN);
    return true;
}
