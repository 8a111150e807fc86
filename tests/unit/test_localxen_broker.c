/* The memory-backed stand-in for Xen: event channels, and the broker's own
 * life and death. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"
#include "hv/local_broker.h"
#include "hv/local_proto.h"
#include "localxen_fixture.h"

static char dir[64];

/* --- event channels --------------------------------------------------------------------------- */

static bool
is_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

static void
test_evtchn(void)
{
    uint32_t port, second, local, local2;
    const struct hv_ops *ops;
    int fd, fd2;
    struct rig r;

    rig_open(&r, dir);
    ops = r.hv->ops;
    CASE("event channel: bind is exclusive and leaves the port pending");
    CHECK(!local_evtchn_alloc(r.dom, 0, &port, &fd));
    CHECK(!local_evtchn_alloc(r.dom, 0, &second, &fd2) && second != port);
    CHECK(ops->evtchn_bind(r.evtchns, RIG_DOMID, 4000, &local) == EINVAL);
    CHECK(ops->evtchn_bind(r.evtchns, RIG_DOMID + 1, port, &local) == ESRCH);
    CHECK(!ops->evtchn_bind(r.evtchns, RIG_DOMID, port, &local));
    CHECK(ops->evtchn_bind(r.evtchns, RIG_DOMID, port, &local2) == EINVAL);
    CHECK(is_readable(ops->evtchn_fd(r.evtchns)));
    CHECK(hv_evtchn_next(ops, r.evtchns) == local && hv_evtchn_next(ops, r.evtchns) == -1);
    CHECK(!is_readable(ops->evtchn_fd(r.evtchns)));

    CASE("event channel: many notifications are one");
    for (int i = 0; i < 5; i++) {
        local_evtchn_notify(r.dom, port);
    }
    CHECK(hv_evtchn_next(ops, r.evtchns) == local && hv_evtchn_next(ops, r.evtchns) == -1);
    local_evtchn_notify(r.dom, port);
    CHECK(hv_evtchn_next(ops, r.evtchns) == local && hv_evtchn_next(ops, r.evtchns) == -1);
    CHECK(!local_evtchn_clear(r.dom, port) && !is_readable(fd));
    ops->evtchn_notify(r.evtchns, local);
    ops->evtchn_notify(r.evtchns, local);
    CHECK(is_readable(fd) && local_evtchn_clear(r.dom, port) && !local_evtchn_clear(r.dom, port));

    CASE("event channel: the descriptor stays readable while a port is pending");
    CHECK(!ops->evtchn_bind(r.evtchns, RIG_DOMID, second, &local2) && local2 != local);
    local_evtchn_notify(r.dom, port);
    local_evtchn_notify(r.dom, second);
    int a = hv_evtchn_next(ops, r.evtchns);
    CHECK(is_readable(ops->evtchn_fd(r.evtchns)));
    int b = hv_evtchn_next(ops, r.evtchns);
    CHECK((a == local && b == local2) || (a == local2 && b == local));
    CHECK(hv_evtchn_next(ops, r.evtchns) == -1 && !is_readable(ops->evtchn_fd(r.evtchns)));
    rig_close(&r);
}

static void
test_evtchn_close(void)
{
    uint32_t port, local, again;
    const struct hv_ops *ops;
    struct rig r;
    int fd;

    rig_open(&r, dir);
    ops = r.hv->ops;
    CHECK(!local_evtchn_alloc(r.dom, 0, &port, &fd));
    CHECK(!ops->evtchn_bind(r.evtchns, RIG_DOMID, port, &local));
    CHECK(hv_evtchn_next(ops, r.evtchns) == local);
    CASE("event channel: unbound and bound again, notifications kept");
    ops->evtchn_unbind(r.evtchns, local);
    ops->evtchn_notify(r.evtchns, local); /* harmless */
    local_evtchn_notify(r.dom, port);
    CHECK(hv_evtchn_next(ops, r.evtchns) == -1);
    CHECK(!ops->evtchn_bind(r.evtchns, RIG_DOMID, port, &again));
    CHECK(hv_evtchn_next(ops, r.evtchns) == again);

    CASE("event channel: closed by the guest");
    local_evtchn_close(r.dom, port);
    local_evtchn_notify(r.dom, port);
    ops->evtchn_notify(r.evtchns, again);
    CHECK(hv_evtchn_next(ops, r.evtchns) == -1);
    CHECK(ops->evtchn_bind(r.evtchns, RIG_DOMID, port, &local) == EINVAL);
    ops->evtchn_unbind(r.evtchns, again);
    CHECK(!local_evtchn_alloc(r.dom, 3, &port, &fd)); /* for another domain */
    CHECK(ops->evtchn_bind(r.evtchns, RIG_DOMID, port, &local) == EINVAL);
    CHECK(!local_evtchn_alloc(r.dom, 0, &port, &fd));
    CHECK(!ops->evtchn_bind(r.evtchns, RIG_DOMID, port, &local));
    CHECK(hv_evtchn_next(ops, r.evtchns) == local);
    rig_close(&r);
}

static void
die_bound(void *port)
{
    uint32_t local;
    struct rig r;

    rig_open_backend(&r, dir);
    if (r.hv->ops->evtchn_bind(r.evtchns, RIG_DOMID, *(uint32_t *)port, &local)) {
        _exit(1);
    }
    while (hv_evtchn_next(r.hv->ops, r.evtchns) != -1) {
    }
}

static void
test_evtchn_kill(void)
{
    uint32_t port, local = 0;
    struct rig r;
    int error, fd;

    CASE("event channel: rebound after SIGKILL, pending notification kept");
    rig_open(&r, dir);
    CHECK(!local_evtchn_alloc(r.dom, 0, &port, &fd));
    CHECK(run_and_kill(die_bound, &port));
    local_evtchn_notify(r.dom, port);
    error = r.hv->ops->evtchn_bind(r.evtchns, RIG_DOMID, port, &local);
    CHECK(!error && hv_evtchn_next(r.hv->ops, r.evtchns) == local);
    r.hv->ops->evtchn_notify(r.evtchns, local);
    CHECK(is_readable(fd));

    CASE("event channel: as many as a domain may have");
    unsigned n = 1;
    while (!(error = local_evtchn_alloc(r.dom, 0, &port, &fd))) {
        n++;
    }
    /* Descriptors may run out first, in this process that plays the guest. */
    CHECK((error == ENOSPC && n == LOCAL_MAX_PORTS - 1) || n > 400);
    rig_close(&r);
}

/* --- the broker ----------------------------------------------------------------------------------
 */

static void
test_garbage(void)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    uint32_t words[700];
    struct rig r;

    CASE("broker: survives malformed requests");
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s/broker", dir);
    srandom(1);
    for (int i = 0; i < 300; i++) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        CHECK(!connect(fd, (struct sockaddr *)&sun, sizeof sun));
        uint32_t hello[6] = {i % 3 ? LOCAL_OP_BACKEND : LOCAL_OP_CREATE, 0, 100 + i % 7, 4, 8, 0};
        send(fd, hello, sizeof hello, MSG_NOSIGNAL);
        for (int j = 0; j < 40; j++) {
            for (int k = 0; k < 700; k++) {
                words[k] = random() % 3 ? random() % 20 : random() * 7919;
            }
            words[0] = random() % 15;
            if (words[0] == LOCAL_OP_CREATE) {
                words[3] %= 100;
            }
            send(fd, words, random() % sizeof words, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (random() % 4) {
                recv(fd, words, sizeof words, 0);
            }
        }
        close(fd);
    }
    rig_open(&r, dir);
    uint32_t ref = local_grant_access(r.dom, 0, 0, false);
    void *p;
    CHECK(!r.hv->ops->grant_map(r.grants, RIG_DOMID, &ref, 1, false, &p));
    rig_close(&r);
}

static void
test_broker_life(void)
{
    char spec[80], why[256];
    struct local_broker *b;
    struct rig r;
    void *p;

    CASE("broker: a live one's directory is refused");
    CHECK(local_broker_open(dir, false, &b, why, sizeof why) == EBUSY && !b);
    CHECK(strstr(why, "another weft-localxen (pid ") != NULL);

    CASE("broker: its death is an error, not a hang");
    rig_open(&r, dir);
    uint32_t ref = local_grant_access(r.dom, 0, 0, false), port;
    int fd;
    CHECK(!r.hv->ops->grant_map(r.grants, RIG_DOMID, &ref, 1, true, &p));
    fixture_stop(SIGKILL);
    CHECK(r.hv->ops->grant_map(r.grants, RIG_DOMID, &ref, 1, true, &p) == EPIPE);
    CHECK(local_evtchn_alloc(r.dom, 0, &port, &fd) == EPIPE);
    rig_close(&r);
    struct hv *hv;
    snprintf(spec, sizeof spec, "local:%s", dir);
    CHECK(hv_open(spec, &hv, why, sizeof why) == ECONNREFUSED && !hv);
    CHECK(strstr(why, "weft-localxen --dir") != NULL);

    CASE("broker: a dead one's directory is taken over");
    CHECK(fixture_start(dir));
    rig_open(&r, dir);
    rig_close(&r);
}

static void
test_broker_end(void)
{
    char why[256];
    struct hv *hv;

    CASE("broker: SIGTERM leaves nothing behind");
    fixture_stop(SIGTERM);
    CHECK(!rmdir(dir)); /* empty; not the last broker's to remove */
    CHECK(fixture_start(dir));
    fixture_stop(SIGTERM);
    CHECK(access(dir, F_OK) < 0 && errno == ENOENT);
    CHECK(hv_open("nonsense", &hv, why, sizeof why) == EINVAL && strstr(why, "nonsense"));
    CHECK(hv_open("local:", &hv, why, sizeof why) == EINVAL);
    if (access("/dev/xen/gntdev", F_OK)) {
        CHECK(hv_open("xen", &hv, why, sizeof why) != 0 && strstr(why, "/dev/xen/gntdev"));
    }
}

int
main(void)
{
    fixture_dir(dir, sizeof dir);
    if (!fixture_start(dir)) {
        return 1;
    }
    test_evtchn();
    test_evtchn_close();
    test_evtchn_kill();
    test_garbage();
    test_broker_life();
    test_broker_end();
    fixture_remove(dir);
    return check_done();
}
