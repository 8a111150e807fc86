/* Reliability test 2: no byte of a shared slot is read twice.
 *
 * Watched at run time: the ring's page is without rights while the backend
 * works on it.  Each access faults, is noted, is single-stepped, and the page
 * is closed again.  What was just read is overwritten with noise right after
 * the instruction that read it, so that a second read would also see
 * something else.
 *
 * Shown in the assembly: the functions that copy slots have one load for each
 * part of a slot (not for sanitizer builds, which add loads of their own). */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"
#include "ring_guest.h"

#define TRAP_FLAG 0x100
#define FAULT_WRITE 0x2

static struct ring_guest g;
static struct rte_mbuf *pkts[64];
static struct guest_packet got;
static uint8_t frame[70000];

/* --- the watch ---------------------------------------------------------------- */

static uint8_t *volatile watched;
static volatile unsigned reads[HV_PAGE_SIZE], writes[HV_PAGE_SIZE];
static volatile long noisy = -1; /* offset read by the instruction under way */
static volatile unsigned noise_width;

static void
on_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *c = context;
    uintptr_t ofs = (uintptr_t)info->si_addr - (uintptr_t)watched;

    if (!watched || ofs >= HV_PAGE_SIZE) {
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    if (c->uc_mcontext.gregs[REG_ERR] & FAULT_WRITE) {
        writes[ofs]++;
    } else {
        reads[ofs]++;
        noisy = ofs >= 64 ? (long)ofs : -1;
    }
    mprotect(watched, HV_PAGE_SIZE, PROT_READ | PROT_WRITE);
    c->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void
on_step(int sig, siginfo_t *info, void *context)
{
    ucontext_t *c = context;

    if (noisy >= 0) {
        for (unsigned i = 0; i < noise_width; i++) {
            watched[noisy + i] ^= 0x5a;
        }
        noisy = -1;
    }
    mprotect(watched, HV_PAGE_SIZE, PROT_NONE);
    c->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

static void
watch(void *page, unsigned width)
{
    memset((void *)reads, 0, sizeof reads);
    memset((void *)writes, 0, sizeof writes);
    noise_width = width;
    watched = page;
    mprotect(page, HV_PAGE_SIZE, PROT_NONE);
}

static void
unwatch(void)
{
    mprotect(watched, HV_PAGE_SIZE, PROT_READ | PROT_WRITE);
    watched = NULL;
}

/* True if slots [0, n) were read once at each of 'starts' and nowhere else. */
static bool
read_once(unsigned slot_size, unsigned n, const unsigned *starts, unsigned n_starts)
{
    for (unsigned ofs = 64; ofs < HV_PAGE_SIZE; ofs++) {
        unsigned slot = (ofs - 64) / slot_size, at = (ofs - 64) % slot_size, want = 0;

        for (unsigned i = 0; i < n_starts; i++) {
            want |= slot < n && at == starts[i];
        }
        if (reads[ofs] != want) {
            return false;
        }
    }
    return true;
}

/* --- cases -------------------------------------------------------------------- */

static void
test_tx(bool mapped)
{
    netif_extra_info_t e = guest_gso(XEN_NETIF_GSO_TYPE_TCPV4, 1400);
    unsigned starts[] = {0, 8};

    CASE(mapped ? "fetch/transmit slots read once, rewritten at once, static"
                : "fetch/transmit slots read once, rewritten at once");
    guest_init(&g);
    CHECK(!mapped || guest_map_all(&g));
    uint32_t big = frame_build(frame, &(struct frame_spec){.payload = 9000, .blank = true});
    guest_tx_frame(&g, frame, big, NETTXF_csum_blank, &e, 4096);
    uint32_t len = frame_build(frame, &(struct frame_spec){.payload = 100});
    guest_tx_frame(&g, frame, len, 0, NULL, 10);
    guest_tx_slot(&g, 1, 4000, 97, NETTXF_more_data); /* bad in several ways */
    guest_tx_slot(&g, 1, 0, 98, 0);
    guest_tx_slot(&g, g.tx_ref[0], 0, 100, NETTXF_more_data); /* partial: fetched, not taken */
    guest_tx_push(&g);
    unsigned n_slots = g.tx.req_prod_pvt;
    bool notify = false;
    watch(g.tx.sring, 4);
    int n = gtx_burst(&g.gtx, pkts, 64, &notify);
    int again = gtx_burst(&g.gtx, pkts + 32, 32, &notify);
    unwatch();
    CHECK(n == 2 && again == 0 && notify);
    CHECK(read_once(12, n_slots, starts, 2));
    CHECK(reads[0] == 2); /* req_prod: once a burst */
    CHECK(pkts[0]->data_len == big && pkts[0]->tso_segsz == 1400);
    CHECK(pkts[1]->data_len == len && !memcmp(rte_pktmbuf_mtod(pkts[1], void *), frame, len));
    pkt_free_bulk(&g.pool, pkts, 2);
    /* The last slot's end comes; what was fetched of it is not read again. */
    guest_tx_slot(&g, g.tx_ref[0], 0, 50, 0);
    guest_tx_push(&g);
    watch(g.tx.sring, 4);
    n = gtx_burst(&g.gtx, pkts, 64, &notify);
    unwatch();
    CHECK(n == 1 && pkts[0]->data_len == 100);
    CHECK(reads[64 + 12 * (n_slots - 1)] == 0 && reads[64 + 12 * n_slots] == 1);
    pkt_free(&g.pool, pkts[0]);
    guest_done(&g);
    CHECK(ring_buffers_lost() == 0);
}

static void
test_rx(bool mapped)
{
    unsigned starts[] = {0};
    struct rte_mbuf *m[3];

    CASE(mapped ? "fetch/receive slots read once, rewritten at once, static"
                : "fetch/receive slots read once, rewritten at once");
    guest_init(&g);
    CHECK(!mapped || guest_map_all(&g));
    guest_rx_offer(&g, 20);
    uint32_t len = frame_build(frame, &(struct frame_spec){.payload = 20000, .blank = true});
    m[0] = guest_mbuf(&g, frame, len);
    m[0]->ol_flags = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM;
    m[0]->tso_segsz = 1400;
    m[1] = guest_mbuf(&g, frame, 1000);
    m[2] = guest_mbuf(&g, frame, 64);
    unsigned slots = grx_slots_needed(&g.grx, m[0]) + 2;
    bool notify = false;
    watch(g.rx.sring, 8);
    int n = grx_burst(&g.grx, m, 3, &notify);
    unwatch();
    CHECK(n == 3 && notify);
    CHECK(read_once(8, slots, starts, 1));
    CHECK(reads[0] == 1);
    CHECK(guest_rx_packet(&g, &got) && !got.malformed && !got.error);
    CHECK(got.len == len && !memcmp(got.data, frame, len));
    CHECK(guest_rx_packet(&g, &got) && got.len == 1000 && !got.malformed);
    CHECK(guest_rx_packet(&g, &got) && got.len == 64 && !got.malformed);
    guest_done(&g);
    CHECK(ring_buffers_lost() == 0);
}

static void
test_ctrl(void)
{
    unsigned starts[] = {0, 8};
    bool notify = false;

    CASE("fetch/control slots read once, rewritten at once");
    guest_init(&g);
    for (unsigned i = 0; i < 12; i++) {
        *RING_GET_REQUEST(&g.ctrl, i) =
            (struct xen_netif_ctrl_request){.id = i, .type = i, .data = {1, g.scratch_ref, 0}};
    }
    g.ctrl.req_prod_pvt = 12;
    RING_PUSH_REQUESTS(&g.ctrl);
    watch(g.ctrl.sring, 8);
    int n = ctrl_run(&g.back_ctrl, 16, &notify);
    unwatch();
    CHECK(n == 12 && notify);
    CHECK(read_once(16, 12, starts, 2));
    for (unsigned i = 0; i < 12; i++) {
        CHECK(RING_GET_RESPONSE(&g.ctrl, i)->id == i && RING_GET_RESPONSE(&g.ctrl, i)->type == i);
    }
    guest_done(&g);
}

/* --- assembly ------------------------------------------------------------------- */

/* Loads in the machine code of 'function', or -1. */
static int
count_loads(const char *function)
{
    char exe[512], command[700], line[512];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    int loads = 0, lines = 0;

    if (len < 0) {
        return -1;
    }
    exe[len] = '\0';
    snprintf(command, sizeof command, "objdump -d --no-show-raw-insn --disassemble=%s '%s'",
             function, exe);
    FILE *f = popen(command, "r");
    while (f && fgets(line, sizeof line, f)) {
        const char *insn = strchr(line, '\t');
        lines += insn != NULL;
        /* AT&T: a load is a move whose first operand is in memory. */
        loads += insn && strstr(insn, "mov") && strstr(insn, "),%");
    }
    return f && pclose(f) == 0 && lines ? loads : -1;
}

static void
test_assembly(void)
{
    if (system("command -v objdump >/dev/null")) {
        printf("skip fetch/assembly: objdump is not there\n");
        return;
    }
    CASE("fetch/one load for each part of a slot, in the assembly");
    CHECK(count_loads("ring_fetch_tx") == 2);
    CHECK(count_loads("ring_fetch_rx") == 1);
    CHECK(count_loads("ring_fetch_ctrl") == 2);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

int
main(void)
{
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    struct sigaction step = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};

#ifdef __SANITIZE_THREAD__
    /* It delivers signals late. */
    printf("skip fetch: ThreadSanitizer does not let a fault be handled at once\n");
    return 0;
#endif
    ring_guest_env();
    sigaction(SIGSEGV, &fault, NULL);
    sigaction(SIGTRAP, &step, NULL);
    test_tx(false);
    test_tx(true);
    test_rx(false);
    test_rx(true);
    test_ctrl();
    if (!SANITIZED) {
        test_assembly();
    }
    return check_done();
}
