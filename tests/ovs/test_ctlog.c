/* Connections of switches that were killed: which come back, and how.  The
 * killed ones are children that really are. */
#include <config.h>

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "conntrack.h"
#include "ct_traffic.h"
#include "ctlog.h"
#include "ovs-rcu.h"
#include "timeval.h"
#include "util.h"

#define ZONE 3
/* Longer than the time between two sweeps. */
#define SWEPT_MS 3000

static char dir[] = "/tmp/test_ctlog.XXXXXX";
static struct conntrack *ct;
static struct ctlog *ctlog;

static void
open_tracker(void)
{
    ct = conntrack_init();
    ctlog = ctlog_open("rig", ct);
    ovs_assert(ctlog);
}

/* Passes a packet of TCP connection 'conn'; returns its state afterwards.
 * 'mark' not 0: sets it. */
static uint8_t
pass(unsigned conn, bool reply, uint8_t flags, uint32_t seq, uint32_t ack, bool commit,
     uint32_t mark, uint32_t *had_mark)
{
    struct spec spec = {.proto = IPPROTO_TCP,
                        .conn = conn,
                        .reply = reply,
                        .flags = flags,
                        .seq = seq,
                        .ack = ack,
                        .win = 60000,
                        .payload = 10};
    uint32_t set[2] = {mark, UINT32_MAX};
    struct dp_packet *b = dp_packet_new(2048);
    struct dp_packet_batch batch;
    uint8_t state;

    build(b, &spec);
    parse_tcp_flags(b, NULL, NULL, NULL);
    dp_packet_batch_init_packet(&batch, b);
    conntrack_execute(ct, &batch, htons(ETH_TYPE_IP), false, commit, ZONE, mark ? set : NULL, NULL,
                      0, 0, NULL, NULL, time_msec(), 0);
    state = b->md.ct_state;
    if (had_mark) {
        *had_mark = b->md.ct_mark;
    }
    dp_packet_delete(b);
    return state;
}

static void
establish(unsigned conn, uint32_t mark)
{
    ovs_assert(pass(conn, false, TCP_SYN, 1000, 0, true, mark, NULL) & CS_NEW);
    ovs_assert(pass(conn, true, TCP_SYN | TCP_ACK, 5000, 1011, false, 0, NULL) & CS_ESTABLISHED);
    ovs_assert(pass(conn, false, TCP_ACK, 1011, 5011, false, 0, NULL) & CS_ESTABLISHED);
}

static void
cut(unsigned conn)
{
    struct ct_dpif_tuple tuple = {.l3_type = AF_INET, .ip_proto = IPPROTO_TCP};

    put_addr((uint8_t *)&tuple.src.ip, false, 0, conn);
    put_addr((uint8_t *)&tuple.dst.ip, false, 1, conn);
    tuple.src_port = htons(1024 + conn);
    tuple.dst_port = htons(80);
    ovs_assert(!conntrack_flush_tuple(ct, &tuple, ZONE));
}

/* Whether the server's next segment, far beyond any window that the process
 * before could know, belongs to an established connection. */
static bool
is_established(unsigned conn, uint32_t *mark)
{
    uint8_t state = pass(conn, true, TCP_ACK, 900000000, 700000000, false, 0, mark);

    return state & CS_ESTABLISHED && !(state & CS_INVALID);
}

static void
killed(void (*body)(void))
{
    pid_t pid = fork();
    int status;

    ovs_assert(pid >= 0);
    if (!pid) {
        body();
        raise(SIGKILL);
    }
    ovs_assert(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
               WTERMSIG(status) == SIGKILL);
}

static void
first_process(void)
{
    open_tracker();
    establish(1, 0);
    establish(2, 0);
    establish(3, 77);
    cut(2);
}

/* Has swept, and has something in its log besides. */
static void
second_process(void)
{
    open_tracker();
    ovs_assert(is_established(1, NULL) && is_established(3, NULL));
    establish(4, 0);
    establish(5, 0);
    xnanosleep(SWEPT_MS * UINT64_C(1000000));
    establish(6, 0);
    cut(4);
    ovs_assert(pass(5, false, TCP_ACK, 1021, 5011, false, 88, NULL) & CS_ESTABLISHED);
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    uint32_t mark = 1;
    char *command;

    set_program_name(argv[0]);
    ovs_assert(mkdtemp(dir));
    setenv("OVS_RUNDIR", dir, 1);

    killed(first_process);
    killed(second_process);
    open_tracker();

    CASE("ctlog-back");
    CHECK(is_established(1, &mark) && mark == 0);
    CHECK(is_established(6, &mark) && mark == 0);

    CASE("ctlog-marks");
    CHECK(is_established(3, &mark) && mark == 77);
    CHECK(is_established(5, &mark) && mark == 88);

    CASE("ctlog-cut");
    CHECK(!is_established(2, NULL) && !is_established(4, NULL) && !is_established(7, NULL));

    CASE("ctlog-goes-on");
    CHECK(pass(1, false, TCP_ACK, 700000000, 900000010, false, 0, NULL) & CS_ESTABLISHED);
    CHECK(pass(1, true, TCP_ACK, 900000010, 700000010, false, 0, NULL) & CS_ESTABLISHED);
    /* Windows are checked again. */
    CHECK(pass(1, true, TCP_ACK, 2400000010u, 700000010, false, 0, NULL) & CS_INVALID);

    ctlog_close(ctlog, false);
    conntrack_destroy(ct);
    ovsrcu_exit();
    command = xasprintf("test \"$(ls %s/weft)\" = '' && rm -r %s", dir, dir);
    CASE("ctlog-no-files-left");
    CHECK(!system(command));
    free(command);
    return check_done();
}
