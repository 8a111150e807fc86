/* Fuzzes the control ring: requests of any kind with lists and tables of any
 * content, and the hash of any frame under the settings that result. */
#include <errno.h>
#include <stdio.h>

#include "ring_fuzz.h"

static struct ring_guest g;
static struct fuzz_input in;
static uint8_t frame[2048];

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    ring_guest_env();
    return 0;
}

static void
put_request(void)
{
    uint8_t how = fuzz_u8(&in);
    RING_IDX i = g.ctrl.req_prod_pvt++;
    struct xen_netif_ctrl_request req = {.id = fuzz_u8(&in), .type = how % 13};

    for (unsigned k = 0; k < 3; k++) {
        req.data[k] = how & 0x80 ? fuzz_u32(&in) : fuzz_u16(&in) % 5000;
    }
    if (!(how & 0x40)) { /* a list or table that can be read, a queue that exists */
        bool hash = req.type <= XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM;
        req.data[hash ? 0 : 1] = g.scratch_ref;
        req.data[0] %= hash ? UINT32_MAX : 4;
    }
    *RING_GET_REQUEST(&g.ctrl, i) = req;
    RING_PUSH_REQUESTS(&g.ctrl);
}

static void
fill_scratch(void)
{
    uint8_t how = fuzz_u8(&in);
    unsigned n = fuzz_u8(&in);

    if (how & 1) {
        struct xen_netif_gref *list = (void *)g.scratch_page;
        for (unsigned i = 0; i < n; i++) {
            uint8_t ref = fuzz_u8(&in);
            list[i] =
                (struct xen_netif_gref){how & 2 ? g.tx_ref[ref] : g.rx_ref[ref], how >> 2 & 3, 0};
        }
    } else if (how & 2) {
        for (unsigned i = 0; i < HV_PAGE_SIZE / 4; i++) {
            ((uint32_t *)g.scratch_page)[i] = (i + n) % 4;
        }
    } else {
        for (unsigned i = 0; i < n; i++) {
            g.scratch_page[fuzz_u16(&in) % HV_PAGE_SIZE] = fuzz_u8(&in);
        }
    }
}

static void
hash_any(void)
{
    uint32_t len = fuzz_frame(&in, frame, 1500), hash = 0;
    unsigned n_queues = 1 + fuzz_u8(&in) % 8;

    len = fuzz_u8(&in) & 1 ? fuzz_u8(&in) % len : len;
    int type = hash_frame(&g.hash, frame, len, &hash);
    MUST(type >= -1 && type <= 3);
    MUST(hash_queue(&g.hash, frame, len, n_queues, hash) < n_queues);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool notify = false;

    in = (struct fuzz_input){data, data + size};
    guest_init(&g);
    while (in.at < in.end) {
        switch (fuzz_u8(&in) % 8) {
        case 0:
            g.ctrl.sring->req_prod = fuzz_u32(&in);
            break;
        case 1:
            fill_scratch();
            break;
        case 2:
            hash_any();
            break;
        case 3:
            g.hv->maps_left = fuzz_u8(&in);
            break;
        case 4:
        case 5:
            put_request();
            break;
        default: {
            int n = ctrl_run(&g.back_ctrl, fuzz_u8(&in), &notify);
            MUST(n >= 0 || n == -EPROTO);
            ctrl_arm(&g.back_ctrl);
            break;
        }
        }
        MUST(g.hv->maps_held == g.grefs.n && g.grefs.n <= g.grefs.limit);
    }
    for (unsigned i = 0; i < HASH_MAPPING_MAX; i++) {
        MUST(atomic_load(&g.hash.mapping[i]) < 4);
    }
    MUST(g.hv->einval == 0);
    gref_table_clear(&g.grefs, g.hv->hv.ops, g.hv->grants);
    MUST(g.hv->maps_held == 0 && g.hv->double_unmaps == 0);
    guest_done(&g);
    MUST(ring_buffers_lost() == 0);
    return 0;
}
