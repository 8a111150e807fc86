/* net: the guest's interface, one queue of tools/netfront_ring.c under lwIP.
 *
 * What a move must not lose: frames that were received and not yet looked at are
 * taken from the old ring before the new one is made, and frames that the old
 * backend had not answered are sent once more, in their order (a few may arrive
 * twice, as on any network). */
#include "guest.h"
#include "lwip/etharp.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/tcp.h"
#include "netfront_ring.h"
#include "netif/ethernet.h"

#define RX_BUDGET 128u
#define WAITING 16384u /* frames, a power of two */
_Static_assert(NET_BYTES == NF_QUEUE_PAGES * 4096u + 4096u, "the queue's pages, and one");

uint8_t net_memory[NET_BYTES] __attribute__((aligned(4096)));
struct net_stats net_stats;

/* What was put into a transmit page. */
struct sent {
    uint64_t order;
    uint32_t len;
    struct nf_meta meta;
};

static struct netif netif;
static struct nf_queue queue;
static struct sent sent[NF_TX_PAGES];
static struct pbuf *waiting[WAITING]; /* from first_waiting on */
static uint32_t first_waiting, next_waiting;
static uint64_t n_sent;
static bool up; /* the rings may be used */
static uint16_t resend[NF_TX_PAGES];
static unsigned n_resend, resent;

/* --- what netfront_ring.c asks of a hypervisor -------------------------------- */

void *
local_domain_memory(struct local_domain *dom)
{
    return (void *)CELL_BASE;
}

uint32_t
local_grant_access(struct local_domain *dom, uint16_t remote, uint32_t page, bool readonly)
{
    return (uint32_t)hypercall(CELL_HC_GRANT, remote, page, readonly);
}

int
local_grant_end(struct local_domain *dom, uint32_t ref)
{
    return (int)hypercall(CELL_HC_GRANT_END, ref, 0, 0);
}

int
local_evtchn_alloc(struct local_domain *dom, uint16_t remote, uint32_t *port, int *fd)
{
    *port = (uint32_t)hypercall(CELL_HC_EVTCHN_ALLOC, remote, 0, 0);
    *fd = -1;
    return *port ? 0 : 28; /* ENOSPC */
}

void
local_evtchn_close(struct local_domain *dom, uint32_t port)
{
    hypercall(CELL_HC_EVTCHN_CLOSE, port, 0, 0);
}

void
local_evtchn_notify(struct local_domain *dom, uint32_t port)
{
    hypercall(CELL_HC_EVTCHN_NOTIFY, port, 0, 0);
}

/* --- transmit ----------------------------------------------------------------- */

/* The sum over the pseudo header, as a backend that completes the checksum
 * expects it.  False if the frame is not whole TCP over IPv4. */
static bool
blank_checksum(uint8_t *frame, uint32_t len)
{
    struct ip_hdr ip;

    if (len < 14 + 20 + 20 || frame[12] != 8 || frame[13] != 0) {
        return false;
    }
    memcpy(&ip, frame + 14, sizeof ip);
    uint32_t l4 = IPH_HL_BYTES(&ip);
    if (IPH_PROTO(&ip) != IP_PROTO_TCP || IPH_OFFSET(&ip) & PP_HTONS(IP_OFFMASK | IP_MF) ||
        14 + l4 + 20 > len) {
        return false;
    }
    uint32_t bytes = lwip_ntohs(IPH_LEN(&ip)) - l4;
    uint32_t sum = IP_PROTO_TCP + bytes;
    for (unsigned i = 12; i < 20; i += 2) {
        sum += (uint32_t)frame[14 + i] << 8 | frame[14 + i + 1];
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    frame[14 + l4 + 16] = (uint8_t)(sum >> 8);
    frame[14 + l4 + 17] = (uint8_t)sum;
    return true;
}

/* False if the ring takes no frame now. */
static bool
put_frame(struct pbuf *p)
{
    uint8_t *page = NULL;

    if (up && !n_resend) {
        page = nf_tx_reserve(&queue, 1);
        if (!page) {
            nf_tx_reap(&queue);
            page = nf_tx_reserve(&queue, 1);
        }
    }
    if (!page) {
        return false;
    }
    pbuf_copy_partial(p, page + NF_TX_OFFSET, p->tot_len, 0);
    struct nf_meta meta = {0};
    meta.csum_blank = blank_checksum(page + NF_TX_OFFSET, p->tot_len);
    unsigned index = nf_tx_page_index(&queue, page);
    sent[index] = (struct sent){.order = n_sent++, .len = p->tot_len, .meta = meta};
    nf_tx_put(&queue, NF_TX_OFFSET, p->tot_len, &meta);
    net_stats.tx_frames++;
    net_stats.tx_bytes += p->tot_len;
    return true;
}

static void
put_waiting(void)
{
    while (first_waiting != next_waiting && put_frame(waiting[first_waiting % WAITING])) {
        pbuf_free(waiting[first_waiting++ % WAITING]);
    }
}

/* What finds no place, or no connection, waits: TCP would come back to it only at its
 * next timer.  lwIP leaves a segment alone while its buffer is held. */
static err_t
transmit(struct netif *n, struct pbuf *p)
{
    if (p->tot_len > HV_PAGE_SIZE - NF_TX_OFFSET) {
        return ERR_BUF;
    }
    if (first_waiting == next_waiting && put_frame(p)) {
        return ERR_OK;
    }
    if (next_waiting - first_waiting == WAITING) {
        net_stats.tx_full++;
        return ERR_MEM;
    }
    pbuf_ref(p);
    waiting[next_waiting++ % WAITING] = p;
    return ERR_OK;
}

/* Frames whose pages are still taken by the old backend's ring, oldest first. */
static void
collect_unanswered(void)
{
    resent = 0;
    if (n_resend) {
        return; /* moved again before all of them had found a place: nothing came after them */
    }
    for (unsigned i = 0; i < NF_TX_PAGES; i++) {
        if (queue.tx_state[i] != NF_TX_FIRST) {
            continue;
        }
        unsigned at = n_resend++;
        for (; at && sent[resend[at - 1]].order > sent[i].order; at--) {
            resend[at] = resend[at - 1];
        }
        resend[at] = (uint16_t)i;
    }
}

/* Puts them again, each from the page it lies in.  Other frames wait meanwhile,
 * so that no page is taken twice. */
static void
send_again(void)
{
    while (resent < n_resend) {
        unsigned page = resend[resent];
        if (RING_FREE_REQUESTS(&queue.tx) < 3) {
            return;
        }
        queue.tx_cursor = page;
        nf_tx_put(&queue, NF_TX_OFFSET, sent[page].len, &sent[page].meta);
        resent++;
        net_stats.resent++;
    }
    n_resend = resent = 0;
}

void
net_flush(void)
{
    if (up) {
        nf_tx_push(&queue);
    }
}

/* --- receive ------------------------------------------------------------------- */

static void
deliver(const struct nf_rx_frame *f)
{
    struct pbuf *p = f->len <= UINT16_MAX ? pbuf_alloc(PBUF_RAW, (u16_t)f->len, PBUF_POOL) : NULL;
    u16_t at = 0;

    if (!p) {
        return; /* as a NIC without buffers */
    }
    for (unsigned i = 0; i < f->n_frags; i++) {
        pbuf_take_at(p, f->frag[i].iov_base, (u16_t)f->frag[i].iov_len, at);
        at = (u16_t)(at + f->frag[i].iov_len);
    }
    /* What comes from a neighbour on the same host was never summed. */
    bool checked = f->meta.csum_blank || f->meta.data_validated;
    u16_t flags = checked ? netif.chksum_flags &
                                (u16_t) ~(NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP)
                          : netif.chksum_flags;
    u16_t usual = netif.chksum_flags;
    NETIF_SET_CHECKSUM_CTRL(&netif, flags);
    if (netif.input(p, &netif) != ERR_OK) {
        pbuf_free(p);
    }
    NETIF_SET_CHECKSUM_CTRL(&netif, usual);
}

static unsigned
receive(unsigned budget)
{
    struct nf_rx_frame f;
    unsigned n = 0;
    int got = 0;

    while (n < budget && (got = nf_rx_next(&queue, &f)) > 0) {
        n++;
        net_stats.rx_frames++;
        net_stats.rx_bytes += f.len;
        deliver(&f);
        nf_rx_repost(&queue);
    }
    if (got < 0) {
        guest_log("the receive ring is broken");
        up = false;
    }
    return n;
}

bool
net_poll(void)
{
    if (!up) {
        return false;
    }
    if (nf_tx_reap(&queue) < 0) {
        guest_log("the transmit ring is broken");
        up = false;
        return false;
    }
    if (n_resend) {
        send_again();
    }
    put_waiting();
    unsigned n = receive(RX_BUDGET);
    if (n) {
        *(volatile uint64_t *)&cell_info.rx_frames += n;
        nf_rx_push(&queue);
    }
    return n;
}

bool
net_arm(void)
{
    if (!up) {
        return false;
    }
    bool some = nf_rx_arm(&queue);
    /* Transmit answers are wanted only when they are what is waited for. */
    if (n_resend || first_waiting != next_waiting) {
        some |= nf_tx_arm(&queue, 64);
    }
    return some;
}

/* --- life ----------------------------------------------------------------------- */

/* The old backend and its rings are gone; their pages are ours alone again. */
static void
forget_connection(void)
{
    if (up) {
        receive(UINT32_MAX);
    }
    if (queue.connected) {
        nf_tx_reap(&queue);
        collect_unanswered();
    }
    up = false;
    queue.connected = false;
    memset(queue.gref, 0, sizeof queue.gref);
    net_stats.moves++;
}

static void
offer(void)
{
    int error = nf_queue_connect(&queue, cell_info.backend.domid, false);

    cell_info.offer.tx_ref = nf_queue_tx_ref(&queue);
    cell_info.offer.rx_ref = nf_queue_rx_ref(&queue);
    cell_info.offer.port = queue.tx_port;
    cell_info.offer.sg = 1;
    cell_info.offer.gso_v4 = 0;
    hypercall(CELL_HC_NET_DONE, (uint64_t)error, 0, 0);
}

void
net_event(uint64_t events)
{
    if (events & CELL_EV_MOVED) {
        forget_connection();
    }
    if (events & CELL_EV_QUIESCE) {
        up = false;
        hypercall(CELL_HC_NET_DONE, 0, 0, 0);
    }
    if (events & CELL_EV_RELEASE) {
        up = false;
        nf_queue_disconnect(&queue);
        hypercall(CELL_HC_NET_DONE, 0, 0, 0);
    }
    if (events & CELL_EV_OFFER) {
        offer();
    }
    if (events & CELL_EV_CONNECTED) {
        up = true;
        netif_set_link_up(&netif);
        etharp_gratuitous(&netif);
        send_again();
        put_waiting();
        net_flush();
    }
}

static err_t
init_netif(struct netif *n)
{
    n->name[0] = 'w';
    n->name[1] = '0';
    n->output = etharp_output;
    n->linkoutput = transmit;
    n->mtu = cell_info.mtu;
    n->hwaddr_len = ETH_HWADDR_LEN;
    memcpy(n->hwaddr, cell_info.mac, ETH_HWADDR_LEN);
    n->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_LINK_UP;
    NETIF_SET_CHECKSUM_CTRL(n, NETIF_CHECKSUM_ENABLE_ALL & ~NETIF_CHECKSUM_GEN_TCP);
    return ERR_OK;
}

void
net_init(void)
{
    ip4_addr_t ip = {cell_info.ip}, mask = {cell_info.netmask}, gw = {cell_info.gateway};

    nf_queue_init(&queue, NULL, (uint32_t)(((uintptr_t)net_memory - CELL_BASE) / HV_PAGE_SIZE));
    netif_add(&netif, &ip, &mask, &gw, NULL, init_netif, ethernet_input);
    netif_set_default(&netif);
    netif_set_up(&netif);
}
