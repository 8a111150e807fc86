/* The shadow: files of records, and the flows of processes that were killed.
 * The killed ones are children that really are. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "dp_rig.h"
#include "dummy.h"
#include "flow_text.h"
#include "odp-execute.h"
#include "odp-util.h"
#include "shadow.h"
#include "shadow_file.h"

#define KIND 7u
#define LAYOUT 3u

static char dir[] = "/tmp/test_shadow.XXXXXX";

/* --- files ---------------------------------------------------------------------- */

static uint32_t
put_text(struct shadow_file *f, const char *text)
{
    uint32_t slot;
    char *p = shadow_file_reserve(f, strlen(text) + 1, &slot);

    ovs_assert(p);
    strcpy(p, text);
    shadow_file_commit(f, slot);
    return slot;
}

/* All records one after another, or what kept them from being read. */
static const char *
texts(const char *path, uint32_t kind, uint32_t layout)
{
    static char all[256];
    struct shadow_image image;
    size_t pos = 0, len;
    const char *p;
    int error = shadow_image_load(path, kind, layout, &image);

    if (error) {
        return error == EINVAL ? "EINVAL" : error == ENOENT ? "ENOENT" : "error";
    }
    all[0] = '\0';
    while ((p = shadow_image_next(&image, &pos, &len))) {
        ovs_assert(len == strlen(p) + 1);
        strcat(all, p);
        strcat(all, " ");
    }
    shadow_image_free(&image);
    return all;
}

/* Inverts a byte of the file where 'text' begins. */
static void
damage(const char *path, const char *text)
{
    static uint8_t data[1 << 16];
    int fd = open(path, O_RDWR);
    ssize_t n = pread(fd, data, sizeof data, 0);
    uint8_t *at = memmem(data, n, text, strlen(text));

    ovs_assert(at);
    *at ^= 0xff;
    ovs_assert(pwrite(fd, at, 1, at - data) == 1);
    close(fd);
}

static void
test_file(void)
{
    char *path = xasprintf("%s/file", dir), *other = xasprintf("%s/other", dir);
    char *big = xmalloc(SHADOW_BODY_MAX + 1);
    uint32_t a, b, slot;
    struct shadow_file *f;
    struct shadow_image image;

    CASE("shadow-file");
    CHECK(!strcmp(texts(path, KIND, LAYOUT), "ENOENT"));
    f = shadow_file_create(path, KIND, LAYOUT);
    CHECK(f != NULL);
    CHECK(!strcmp(texts(path, KIND, LAYOUT), ""));
    a = put_text(f, "one");
    b = put_text(f, "two");
    CHECK(!strcmp(texts(path, KIND, LAYOUT), "one two "));
    shadow_file_drop(f, a);
    CHECK(!strcmp(texts(path, KIND, LAYOUT), "two "));
    /* The place is used again. */
    CHECK(put_text(f, "three") == a && !strcmp(texts(path, KIND, LAYOUT), "three two "));
    /* Reserved but not committed: a kill came in between. */
    CHECK(shadow_file_reserve(f, 5, &slot) && !strcmp(texts(path, KIND, LAYOUT), "three two "));
    shadow_file_drop(f, slot);
    CHECK(!shadow_file_reserve(f, SHADOW_BODY_MAX + 1, &slot) && !slot);
    CHECK(shadow_file_reserve(f, SHADOW_BODY_MAX, &slot) != NULL);
    shadow_file_drop(f, slot);
    CHECK(!shadow_file_rename(f, other) && !strcmp(texts(path, KIND, LAYOUT), "ENOENT"));
    CHECK(!strcmp(texts(other, KIND, LAYOUT), "three two "));

    CASE("shadow-file-refused");
    CHECK(!strcmp(texts(other, KIND + 1, LAYOUT), "EINVAL"));
    CHECK(!strcmp(texts(other, KIND, LAYOUT + 1), "EINVAL"));
    CHECK(!chmod(other, 0644) && !strcmp(texts(other, KIND, LAYOUT), "EINVAL"));
    CHECK(!chmod(other, 0600) && !strcmp(texts(other, KIND, LAYOUT), "three two "));
    CHECK(!symlink(other, path) && !strcmp(texts(path, KIND, LAYOUT), "error"));
    damage(other, "two");
    CHECK(!strcmp(texts(other, KIND, LAYOUT), "three "));
    CHECK(!truncate(other, 100) && !strcmp(texts(other, KIND, LAYOUT), "EINVAL"));

    CASE("shadow-file-grows");
    shadow_file_close(f);
    f = shadow_file_create(other, KIND, LAYOUT);
    memset(big, 'x', SHADOW_BODY_MAX);
    for (unsigned i = 0; i < 1000; i++) {
        char *p = shadow_file_reserve(f, SHADOW_BODY_MAX, &slot);

        memcpy(p, big, SHADOW_BODY_MAX);
        shadow_file_commit(f, slot);
    }
    size_t pos = 0, len, n = 0;
    CHECK(!shadow_image_load(other, KIND, LAYOUT, &image));
    while (shadow_image_next(&image, &pos, &len)) {
        n += len == SHADOW_BODY_MAX;
    }
    CHECK(n == 1000);
    shadow_image_free(&image);
    shadow_file_close(f);
    unlink(other);
    unlink(path);
    free(big);
    free(path);
    free(other);
    (void)b;
}

/* --- a datapath ------------------------------------------------------------------ */

#define N_PORTS 16u
static struct dp_port *ports[N_PORTS];
static unsigned n_sent[N_PORTS];
static struct dp_worker *w;

static void
sink(struct fast_port *port, struct worker *worker OVS_UNUSED, struct rte_mbuf **pkts, unsigned n)
{
    n_sent[odp_to_u32(CONTAINER_OF(port, struct dp_port, fast)->port_no)] += n;
    dp_packets_free(pkts, n);
}

static void
add_port(uint16_t port_no, const char *name)
{
    struct dp_port *port = rig_port(port_no, DP_PORT_WAITED);

    ovs_assert(!netdev_open(name, "dummy", &port->netdev));
    port->type = xstrdup("dummy");
    port->fast.send = sink;
    ports[port_no] = port;
    shadow_port_add(rig_dp, port);
}

static void
del_port(uint16_t port_no)
{
    struct dp_port *port = ports[port_no];

    shadow_port_del(rig_dp, port);
    ports[port_no] = NULL;
    engine_port_set(rig_dp->engine, port_no, NULL);
    epoch_synchronize();
    netdev_close(port->netdev);
    free(port->type);
    free(port);
}

static int
put(enum dpif_flow_put_flags flags, uint64_t id, const char *flow, const char *actions)
{
    ovs_u128 ufid = {.u64 = {id, id}};

    return flow_text_put(rig_dp, flags, &ufid, flow, actions, NULL);
}

static void
create(uint64_t id, const char *flow, const char *actions)
{
    ovs_assert(!put(DPIF_FP_CREATE, id, flow, actions));
}

static void
del(uint64_t id)
{
    ovs_u128 ufid = {.u64 = {id, id}};

    ovs_assert(!dp_flow_del(rig_dp, &(struct dpif_flow_del){.ufid = &ufid}));
}

static void
start(void)
{
    rig_start();
    shadow_open(rig_dp);
}

/* One 60-byte Ethernet frame of 'type'; returns how many came out in all. */
static unsigned
send_frame(uint16_t in_port, uint16_t type)
{
    struct dp_packet *p = dp_packet_new_with_headroom(60, 128);
    uint8_t *d = dp_packet_put_zeros(p, 60);
    struct dp_packet_batch batch;
    unsigned sum = 0;

    d[0] = d[6] = 2;
    d[12] = type >> 8;
    d[13] = type;
    dp_packet_complete(p);
    dp_packet_adopt(p, u32_to_odp(in_port));
    dp_packet_batch_init_packet(&batch, p);
    memset(n_sent, 0, sizeof n_sent);
    worker_begin(w->worker);
    dp_input(w, &batch, true);
    worker_end(w->worker);
    for (unsigned i = 0; i < N_PORTS; i++) {
        sum += n_sent[i];
    }
    return sum;
}

/* Runs 'body' in a process that is then killed. */
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

#define ETH(IN_PORT, TYPE) "recirc_id(0),in_port(" IN_PORT "),eth_type(" TYPE ")"

static void
first_process(void)
{
    start();
    add_port(1, "a");
    add_port(2, "b");
    add_port(4, "old");
    create(1, ETH("1", "0x9001"), "push_vlan(vid=5,pcp=0),2");
    /* Recirculation. */
    create(2, ETH("1", "0x9002"), "recirc(5)");
    create(3, "recirc_id(0x5),in_port(1),eth_type(0x9002)", "2");
    /* Not without ofproto. */
    create(4, ETH("1", "0x9003"), "userspace(pid=0,userdata(0102)),2");
    create(5, ETH("1", "0x9004"), "meter(1),2");
    create(6, ETH("1", "0x9005"), "lb_output(1)");
    /* A sample that is only told; a clone that sends. */
    create(7, ETH("1", "0x9006"), "sample(sample=100.0%,actions(userspace(pid=0))),clone(2),2");
    /* No such port; a port that was another one. */
    create(8, ETH("1", "0x9007"), "9");
    create(9, ETH("1", "0x9008"), "4");
    del_port(4);
    add_port(4, "young");
    create(10, ETH("1", "0x9009"), "4");
    /* What is over is over, what was changed has changed. */
    create(11, ETH("1", "0x900a"), "2");
    del(11);
    create(12, ETH("1", "0x900b"), "2");
    ovs_assert(!put(DPIF_FP_MODIFY, 12, ETH("1", "0x900b"), "drop"));
    create(13, ETH("1", "0x900c"), "drop");
    ovs_assert(!put(DPIF_FP_MODIFY, 13, ETH("1", "0x900c"), "2"));
    ovs_assert(!put(DPIF_FP_CREATE | DPIF_FP_PROBE, 14, ETH("1", "0x900d"), "2"));
}

/* Is killed while it uses the first one's flows. */
static void
second_process(void)
{
    start();
    ovs_assert(shadow_active(rig_dp));
    add_port(1, "b");
    add_port(2, "c");
    create(1, ETH("1", "0x9001"), "2");
    dp_flow_flush(rig_dp);
}

static void
check_flows(void)
{
    CASE("shadow-ports");
    CHECK(shadow_active(rig_dp));
    add_port(7, "a");
    CHECK(!send_frame(7, 0x9001)); /* "b" is not there */
    add_port(9, "b");
    CHECK(send_frame(7, 0x9001) == 1 && n_sent[9] == 1);
    CHECK(!send_frame(9, 0x9001) && !send_frame(1, 0x9001) && !send_frame(7, 0x90ff));

    CASE("shadow-recirculation");
    CHECK(send_frame(7, 0x9002) == 1 && n_sent[9] == 1);

    CASE("shadow-left-out");
    CHECK(!send_frame(7, 0x9003) && !send_frame(7, 0x9004) && !send_frame(7, 0x9005));
    CHECK(send_frame(7, 0x9006) == 2 && n_sent[9] == 2);
    CHECK(!send_frame(7, 0x9007) && !send_frame(7, 0x900d));

    CASE("shadow-port-numbers");
    add_port(4, "old");
    add_port(10, "young");
    CHECK(!send_frame(7, 0x9008));
    CHECK(send_frame(7, 0x9009) == 1 && n_sent[10] == 1);

    CASE("shadow-changes");
    CHECK(!send_frame(7, 0x900a) && !send_frame(7, 0x900b));
    CHECK(send_frame(7, 0x900c) == 1 && n_sent[9] == 1);

    /* The datapath's own flows come first. */
    CASE("shadow-below");
    create(1, ETH("7", "0x900c"), "10");
    CHECK(send_frame(7, 0x900c) == 1 && n_sent[10] == 1);
    del(1);
    CHECK(send_frame(7, 0x900c) == 1 && n_sent[9] == 1);

    CASE("shadow-port-gone");
    del_port(9);
    add_port(9, "d");
    CHECK(!send_frame(7, 0x9001) && !send_frame(7, 0x9002) && send_frame(7, 0x9009) == 1);
}

static void
stop(void)
{
    for (unsigned i = 0; i < N_PORTS; i++) {
        if (ports[i]) {
            del_port(i);
        }
    }
    dp_worker_destroy(w);
    shadow_close(rig_dp);
    ovsrcu_exit();
    epoch_synchronize();
    rig_stop();
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    char *path, *command;

    set_program_name(argv[0]);
    ovs_assert(mkdtemp(dir));
    setenv("OVS_RUNDIR", dir, 1);
    test_file();

    dummy_enable("");
    odp_execute_init();
    CASE("shadow-killed-twice");
    killed(first_process);
    killed(second_process);
    start();
    w = dp_worker_create(rig_dp, 64, false);
    check_flows();

    CASE("shadow-retired");
    create(20, ETH("7", "0x9020"), "10");
    shadow_retire(rig_dp);
    CHECK(!shadow_active(rig_dp) && !send_frame(7, 0x9009) && send_frame(7, 0x9020) == 1);
    path = shadow_path("flows-rig");
    CHECK(!access(path, F_OK));
    struct shadow_image image;
    size_t pos = 0, len, flows = 0;
    const uint32_t *type;
    CHECK(!shadow_image_load(path, SHADOW_KIND_FLOWS, SHADOW_LAYOUT, &image));
    while ((type = shadow_image_next(&image, &pos, &len))) {
        flows += *type == SHADOW_FLOW;
    }
    CHECK(flows == 1);
    shadow_image_free(&image);

    CASE("shadow-closed");
    stop();
    CHECK(access(path, F_OK) && errno == ENOENT);
    free(path);
    command = xasprintf("rm -rf %s", dir);
    ignore(system(command));
    free(command);
    return check_done();
}
