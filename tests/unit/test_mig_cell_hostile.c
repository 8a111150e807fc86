/* What a cell makes of peers and images that are not as they should be, and what is left
 * to who holds one whose guest is not.
 *
 * The guest is behind netback and this test, as in test_mig_cell.c. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cell/abi.h"
#include "cell_host.h"
#include "cell_proto.h"
#include "cell_rig.h"
#include "check.h"

/* Sends raw bytes; true if the cell cuts the connection. */
static bool
is_cut_off(const struct host *h, const void *bytes, size_t n)
{
    struct cell_client c;
    char answer[16];

    if (cell_connect(&c, h->control)) {
        return false;
    }
    send(c.fd, bytes, n, MSG_NOSIGNAL);
    bool cut = recv(c.fd, answer, sizeof answer, 0) <= 0;
    cell_disconnect(&c);
    return cut;
}

static int
set_state(struct cell_client *c, const struct cell_state *s)
{
    return cell_call(c, CELL_OP_STATE_SET, 0, s, sizeof *s, -1, NULL, NULL, NULL);
}

static void
test_hostile_peer(void)
{
    struct host from, to;
    struct cell_client c, b;
    struct cell_state good, bad;
    size_t n = sizeof good;

    CASE("hostile peer: what is no request is cut off");
    start_cell(&from, 80, "", "auto", false);
    start_cell(&to, 81, "", "auto", true);
    CHECK(attach(&from) && attach(&to));
    struct cell_req req = {
        .magic = CELL_PROTO_MAGIC, .version = CELL_PROTO_VERSION, .op = CELL_OP_STATUS, .len = 8};
    CHECK(is_cut_off(&from, "x", 1));
    CHECK(is_cut_off(&from, &req, CELL_REQ_HDR)); /* says 8 bytes, has none */
    req.len = 0;
    req.magic++;
    CHECK(is_cut_off(&from, &req, CELL_REQ_HDR));
    CHECK(echoes(from.vif));

    CASE("hostile peer: operations out of order or out of range are refused");
    CHECK(!cell_connect(&c, from.control) && !cell_connect(&b, to.control));
    CHECK(cell_ask(&c, CELL_OP_STATE_GET, 0) == EINVAL); /* runs */
    CHECK(cell_ask(&c, CELL_OP_DIRTY_FETCH, 0) == EINVAL);
    CHECK(cell_ask(&c, CELL_OP_POSTCOPY_START, 0) == EINVAL);
    CHECK(cell_ask(&c, (enum cell_op)99, 0) == ENOSYS);
    CHECK(cell_ask(&b, CELL_OP_RUN, 1) == EINVAL);
    CHECK(cell_ask(&b, CELL_OP_PAUSE, 0) == EINVAL);

    CASE("hostile peer: a state that cannot be is refused");
    CHECK(!cell_ask(&c, CELL_OP_PAUSE, 0));
    CHECK(!cell_call(&c, CELL_OP_STATE_GET, 0, NULL, 0, -1, &good, &n, NULL) && n == sizeof good);
    bad = good;
    bad.sp = CELL_BASE + good.n_pages * CELL_PAGE_BYTES - 8;
    CHECK(set_state(&b, &bad) == EINVAL);
    bad.sp = CELL_BASE - 8;
    CHECK(set_state(&b, &bad) == EINVAL);
    bad = good;
    bad.n_pages++;
    CHECK(set_state(&b, &bad) == EINVAL);
    bad = good;
    bad.build_id[3] ^= 1;
    CHECK(set_state(&b, &bad) == ENOEXEC);
    bad = good;
    bad.mac[5] ^= 1;
    CHECK(set_state(&b, &bad) == EADDRNOTAVAIL);
    CHECK(set_state(&b, &good) == 0);
    CHECK(set_state(&c, &good) == EINVAL); /* one that has run */

    CASE("hostile peer: a description that does not fit is refused");
    uint8_t identity[MIG_IDENTITY_MAX];
    size_t len = sizeof identity;
    struct mig_guest_config config = config_of(&to);
    struct mig_guest *g;
    CHECK(!mig_driver_cell.describe(from.guest, identity, &len));
    CHECK(mig_driver_cell.create(&config, identity, len - 1, &g, why) == EINVAL);
    identity[len - 10] ^= 1; /* in the build-id */
    CHECK(mig_driver_cell.create(&config, identity, len, &g, why) == EINVAL);
    CHECK(strstr(why, "build-id") != NULL);
    cell_disconnect(&c);
    cell_disconnect(&b);
    end_cell(&from);
    end_cell(&to);
}

/* Headers that lie, on the image's own file. */
static void
test_hostile_image(void)
{
    static const char *const bad_path = "build/share/cell.img";
    char path[128];
    uint8_t build_id[CELL_BUILD_ID_BYTES], *memory = malloc(64u << 20);
    uint8_t image[8192], whole[sizeof image];
    uint64_t entry;
    unsigned refused = 0;

    CASE("hostile image: headers that lie are refused, or do no harm");
    snprintf(path, sizeof path, "%s/bad.img", rig_dir());
    FILE *f = fopen(bad_path, "r");
    CHECK(f && memory && fread(whole, 1, sizeof whole, f) == sizeof whole);
    CHECK(!cell_image_load(bad_path, NULL, 64u << 20, build_id, &entry));
    CHECK(cell_image_load(bad_path, NULL, 1u << 20, build_id, &entry) == EINVAL); /* no room */
    if (f) {
        fclose(f);
    }
    srand(7);
    for (unsigned i = 0; i < 500; i++) {
        memcpy(image, whole, sizeof image);
        for (unsigned n = 1 + (unsigned)rand() % 4; n; n--) {
            /* ELF header and program headers; now and then the note. */
            unsigned at = rand() % 8 ? (unsigned)rand() % 176 : 0x1000 + (unsigned)rand() % 36;
            image[at] = (uint8_t)rand();
        }
        f = fopen(path, "w");
        CHECK(f && fwrite(image, 1, sizeof image, f) == sizeof image);
        fclose(f);
        refused += cell_image_load(path, memory, 64u << 20, build_id, &entry) != 0;
    }
    CHECK(refused == 500); /* if only because the file is cut short */
    free(memory);
}

/* Sends the guest to 'entry' at its next hypercall. */
static void
lead_astray(struct host *h, uint64_t entry)
{
    struct mig_memory m;

    mig_driver_cell.memory(h->guest, &m);
    __atomic_store_n(&((struct cell_info *)m.base)->entry, entry, __ATOMIC_SEQ_CST);
    send_udp(h->vif, ECHO, "x", 1);
}

static void
test_bad_guest(void)
{
    struct host h;
    struct mig_guest_status status;
    struct mig_memory m;

    CASE("dead guest: its process says so and can be ended");
    start_cell(&h, 90, "", "auto", false);
    CHECK(attach(&h) && echoes(h.vif));
    lead_astray(&h, 8);
    CHECK(RIG_UNTIL(mig_driver_cell.status(h.guest, &status) == ESRCH, RIG_PATIENCE_MS));
    CHECK(mig_driver_cell.pause(h.guest) == EINVAL);
    end_cell(&h);

    CASE("hung guest: it is told so, and its process can be ended");
    start_cell(&h, 91, "", "auto", false);
    CHECK(attach(&h) && echoes(h.vif));
    CHECK(!mig_driver_cell.memory(h.guest, &m));
    uint8_t *page = m.base + (m.n_pages - 1) * MIG_PAGE_BYTES;
    page[0] = 0xeb; /* jmp to itself */
    page[1] = 0xfe;
    struct cell_client c;
    struct cell_status before, now;
    CHECK(!cell_connect(&c, h.control) && !cell_status(&c, &before));
    lead_astray(&h, CELL_BASE + (m.n_pages - 1) * MIG_PAGE_BYTES);
    CHECK(RIG_UNTIL(!cell_status(&c, &now) && now.cpu_ns > before.cpu_ns + 50 * 1000000ull,
                    RIG_PATIENCE_MS));
    cell_disconnect(&c);
    CHECK(mig_driver_cell.pause(h.guest) == ETIMEDOUT);
    CHECK(!mig_driver_cell.status(h.guest, &status) && status.state == MIG_GUEST_RUNNING);
    end_cell(&h);
}

/* The calls that are waited for here are not waited for as long as by everybody else. */
static void
lose_patience(void)
{
    const struct timeval little = {.tv_usec = 50000};
    struct timeval is;
    socklen_t n;

    for (int fd = 3; fd < 256; fd++) {
        n = sizeof is;
        if (!getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &is, &n) &&
            is.tv_sec == CELL_CALL_TIMEOUT_MS / 1000) {
            CHECK(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &little, sizeof little));
        }
    }
}

enum { N_WAITING = 4 };

/* A socket with as many that wait for accept() as it has places for. */
static int
listen_busy(const char *path, int waiting[N_WAITING])
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), error = 0;

    unlink(path);
    strcpy(a.sun_path, path);
    CHECK(!bind(fd, (struct sockaddr *)&a, sizeof a) && !listen(fd, 0));
    for (size_t i = 0; i < N_WAITING; i++) {
        waiting[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        error = connect(waiting[i], (struct sockaddr *)&a, sizeof a) ? errno : 0;
    }
    CHECK(error == EAGAIN);
    return fd;
}

static void
test_slow_cell(void)
{
    const struct mig_driver *d = &mig_driver_cell;
    struct mig_guest_status status;
    struct cell_client c;
    int busy, waiting[N_WAITING];
    uint64_t began;
    struct host h;

    CASE("slow cell: one that has not answered in time is not taken for gone");
    start_cell(&h, 92, "", "auto", false);
    CHECK(attach(&h) && echoes(h.vif));
    lose_patience();
    CHECK(!kill(h.pid, SIGSTOP));
    CHECK(d->pause(h.guest) == ETIMEDOUT);
    CHECK(d->status(h.guest, &status) == ETIMEDOUT);
    CHECK(d->destroy(h.guest) == ETIMEDOUT && !d->is_gone(h.guest));
    CHECK(!kill(h.pid, SIGCONT));
    d->detach(h.guest);
    CHECK(attach(&h));
    CHECK(RIG_UNTIL(!d->status(h.guest, &status) && status.state == MIG_GUEST_PAUSED,
                    RIG_PATIENCE_MS));
    CHECK(!d->is_gone(h.guest));
    CHECK(!cell_connect(&c, h.control) && !cell_ask(&c, CELL_OP_DESTROY, 0));
    cell_disconnect(&c);
    CHECK(RIG_UNTIL(d->is_gone(h.guest), RIG_PATIENCE_MS) && ended(&h));

    CASE("slow cell: one that accepts nobody is not waited for when it is looked for");
    busy = listen_busy(h.control, waiting);
    began = rig_now_ms();
    CHECK(!d->is_gone(h.guest) && rig_now_ms() - began < CELL_CALL_TIMEOUT_MS / 4);
    close(busy);
    CHECK(d->is_gone(h.guest));
    for (size_t i = 0; i < N_WAITING; i++) {
        close(waiting[i]);
    }
    d->detach(h.guest);
    netback_detach(h.vif);
}

int
main(void)
{
    rig_begin();
    rig_netback();
    test_slow_cell();
    test_hostile_peer();
    test_hostile_image();
    test_bad_guest();
    rig_end();
    return check_done();
}
