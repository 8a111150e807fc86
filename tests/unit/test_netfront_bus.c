/* The toolstack's directories and the frontend's XenBus state machine, with
 * the test as the backend: it only writes to the store. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xenstore.h>

#include "check.h"
#include "hv/local.h"
#include "netfront_bus.h"
#include "netfront_peer.h"
#include "toolstack.h"

#define DOMID 5
#define FE "/local/domain/5/device/vif/0"
#define BE "/local/domain/0/backend/vif/5/0"

static struct xs_handle *dom0;

static void
write_key(const char *dir, const char *key, const char *value)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, key);
    CHECK(xs_write(dom0, XBT_NULL, path, value, (unsigned)strlen(value)));
}

/* True if the key has this value; NULL: if it does not exist. */
static bool
key_is(const char *dir, const char *key, const char *want)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, key);
    char *value = xs_read(dom0, XBT_NULL, path, NULL);
    bool same = value && want ? !strcmp(value, want) : !value && !want;
    free(value);
    return same;
}

/* --- toolstack --------------------------------------------------------------------- */

static const struct toolstack_key more_keys[] = {{"feature-x", "1"}};
static const struct toolstack_vif vif = {
    .domid = DOMID,
    .mac = "02:00:00:00:00:05",
    .bridge = "xenbr0",
    .rate = "1000,50",
    .vlan = "10",
    .vif_uuid = "u-u",
    .mtu = 9000,
    .hotplug_connected = true,
    .backend_keys = more_keys,
    .n_backend_keys = 1,
};

static bool
perms_are(const char *path, unsigned owner, unsigned reader)
{
    unsigned n = 0;
    struct xs_permissions *p = xs_get_permissions(dom0, XBT_NULL, path, &n);
    bool right = p && n == 2 && p[0].id == owner && p[0].perms == XS_PERM_NONE &&
                 p[1].id == reader && p[1].perms == XS_PERM_READ;
    free(p);
    return right;
}

static void
test_toolstack(void)
{
    int be, fe;

    CASE("toolstack: both directories, keys and rights");
    CHECK(!toolstack_vif_create(dom0, &vif));
    CHECK(toolstack_vif_create(dom0, &vif) == EEXIST);
    CHECK(key_is(BE, "frontend", FE) && key_is(FE, "backend", BE));
    CHECK(key_is(BE, "frontend-id", "5") && key_is(FE, "backend-id", "0"));
    CHECK(key_is(BE, "mac", vif.mac) && key_is(FE, "mac", vif.mac) && key_is(BE, "mtu", "9000"));
    CHECK(key_is(BE, "vlan", "10") && key_is(BE, "vlan-mode", NULL) &&
          key_is(BE, "rate", "1000,50"));
    CHECK(key_is(BE, "feature-x", "1") && key_is(BE, "hotplug-status", "connected"));
    CHECK(perms_are(BE, 0, DOMID) && perms_are(FE, DOMID, 0));
    CHECK(perms_are(BE "/mac", 0, DOMID) && perms_are(FE "/state", DOMID, 0));
    toolstack_vif_states(dom0, DOMID, 0, &be, &fe);
    CHECK(be == 1 && fe == 1);

    CASE("toolstack: offline, waiting, unplugging");
    CHECK(toolstack_wait_backend(dom0, DOMID, 0, 1u << 2, 20) == ETIMEDOUT);
    CHECK(!toolstack_wait_backend(dom0, DOMID, 0, 1u << 1, 1000));
    CHECK(!toolstack_wait_frontend(dom0, DOMID, 0, 1u << 1, 1000));
    CHECK(toolstack_wait_path(dom0, BE "/nothing", 20) == ETIMEDOUT);
    CHECK(!toolstack_vif_offline(dom0, DOMID, 0));
    CHECK(key_is(BE, "online", "0") && key_is(BE, "state", "5"));
    CHECK(toolstack_vif_unplug(dom0, DOMID, 0, 20) == ETIMEDOUT); /* no backend answers */
    CHECK(key_is(BE, "state", NULL) && key_is(FE, "state", NULL));
    CHECK(key_is("/local/domain/0/backend/vif", "5", NULL));
    CHECK(toolstack_vif_offline(dom0, DOMID, 0) == ENOENT);
    CHECK(!toolstack_vif_destroy(dom0, DOMID, 0));
    CHECK(!toolstack_wait_backend(dom0, DOMID, 0, 1u << 0, 1000));
}

/* --- state machine -------------------------------------------------------------------- */

/* What the bus called, in order: o)ffer c)onnected q)uiesce r)elease +/- carrier. */
static char calls[64];
static struct nf_backend_features offered;
static unsigned n_queues;
static int offer_error;

static void
note(char c)
{
    size_t n = strlen(calls);
    if (n + 1 < sizeof calls) {
        calls[n] = c;
        calls[n + 1] = '\0';
    }
}

static int
on_offer(void *aux, const struct nf_backend_features *f, struct nf_offer *o)
{
    note('o');
    offered = *f;
    if (offer_error) {
        return offer_error;
    }
    o->n_queues = n_queues;
    o->split = f->split_channels;
    for (unsigned i = 0; i < n_queues; i++) {
        o->queue[i].tx_ref = 10 + i;
        o->queue[i].rx_ref = 20 + i;
        o->queue[i].tx_port = 30 + i;
        o->queue[i].rx_port = 40 + i;
    }
    o->ctrl = f->ctrl_ring;
    o->ctrl_ref = 50;
    o->ctrl_port = 51;
    o->sg = o->csum_v4 = true;
    return 0;
}

static void
on_connected(void *aux)
{
    note('c');
}

static void
on_quiesce(void *aux)
{
    note('q');
}

static void
on_release(void *aux)
{
    note('r');
}

static void
on_carrier(void *aux, bool up)
{
    note(up ? '+' : '-');
}

static void
on_log(void *aux, const char *text)
{
}

static const struct nf_bus_ops ops = {on_offer,   on_connected, on_quiesce,
                                      on_release, on_carrier,   on_log};

/* Runs the bus until it is in 'phase'; false after 5 s. */
static bool
reaches(struct nf_bus *b, enum nf_bus_phase phase)
{
    for (int i = 0; i < 500; i++) {
        struct pollfd p = {.fd = nf_bus_fd(b), .events = POLLIN};
        nf_bus_process(b);
        if (b->phase == phase) {
            return true;
        }
        poll(&p, 1, 10);
    }
    return false;
}

/* Runs the bus until 'text' is what was called. */
static bool
called(struct nf_bus *b, const char *text)
{
    for (int i = 0; i < 500 && strcmp(calls, text); i++) {
        struct pollfd p = {.fd = nf_bus_fd(b), .events = POLLIN};
        nf_bus_process(b);
        poll(&p, 1, strcmp(calls, text) ? 10 : 0);
    }
    bool same = !strcmp(calls, text);
    calls[0] = '\0';
    return same;
}

static void
backend_offers(void)
{
    write_key(BE, "feature-rx-copy", "1");
    write_key(BE, "feature-sg", "1");
    write_key(BE, "feature-ctrl-ring", "1");
    write_key(BE, "feature-split-event-channels", "1");
    write_key(BE, "multi-queue-max-queues", "4");
    write_key(BE, "state", "2");
}

static void
test_connect(struct nf_bus *b)
{
    CASE("connects as the backend goes 1, 2, 4");
    n_queues = 1;
    nf_bus_process(b);
    CHECK(b->phase == NF_BUS_ABSENT);
    CHECK(!toolstack_vif_create(dom0, &vif));
    CHECK(reaches(b, NF_BUS_WAITING) && !calls[0]);
    backend_offers();
    CHECK(reaches(b, NF_BUS_OFFERED) && called(b, "o"));
    CHECK(offered.sg && offered.csum_v4 && !offered.csum_v6 && !offered.gso_tcpv4 &&
          offered.max_queues == 4 && offered.domid == 0);
    CHECK(key_is(FE, "state", "4") && key_is(FE, "tx-ring-ref", "10") &&
          key_is(FE, "event-channel-tx", "30") && key_is(FE, "event-channel-rx", "40") &&
          key_is(FE, "event-channel", NULL) && key_is(FE, "ctrl-ring-ref", "50"));
    CHECK(key_is(FE, "request-rx-copy", "1") && key_is(FE, "feature-rx-notify", "1") &&
          key_is(FE, "feature-no-csum-offload", "0"));
    write_key(BE, "state", "4");
    CHECK(reaches(b, NF_BUS_CONNECTED) && called(b, "c+"));
    write_key(BE, "carrier", "0");
    CHECK(called(b, "-"));
    write_key(BE, "carrier", "1");
    CHECK(called(b, "+"));
}

static void
test_restart(struct nf_bus *b)
{
    CASE("reboots: rings are kept until the backend is in 6, then several queues");
    n_queues = 2;
    nf_bus_restart(b);
    CHECK(b->phase == NF_BUS_CLOSING && key_is(FE, "state", "5"));
    CHECK(called(b, "q") && nf_bus_timeout_ms(b) > 0);
    write_key(BE, "state", "5");
    CHECK(reaches(b, NF_BUS_LEAVING) && key_is(FE, "state", "6") && !calls[0]);
    write_key(BE, "state", "6");
    CHECK(reaches(b, NF_BUS_WAITING) && called(b, "r") && key_is(FE, "state", "1"));
    write_key(BE, "feature-split-event-channels", "0");
    write_key(BE, "state", "2");
    CHECK(reaches(b, NF_BUS_OFFERED) && called(b, "o"));
    CHECK(key_is(FE, "tx-ring-ref", NULL) && key_is(FE, "event-channel-tx", NULL) &&
          key_is(FE, "multi-queue-num-queues", "2") && key_is(FE, "queue-1/tx-ring-ref", "11") &&
          key_is(FE, "queue-1/event-channel", "31") && key_is(FE, "queue-2", NULL));
    write_key(BE, "state", "4");
    CHECK(called(b, "c+"));
}

static void
test_backend_closes(struct nf_bus *b)
{
    CASE("the backend closes and comes back");
    n_queues = 1;
    write_key(BE, "state", "5");
    CHECK(reaches(b, NF_BUS_LEAVING) && called(b, "-q"));
    write_key(BE, "state", "6");
    CHECK(reaches(b, NF_BUS_CLOSED) && called(b, "r"));
    CHECK(nf_bus_is_down(b));
    write_key(BE, "state", "2");
    CHECK(reaches(b, NF_BUS_OFFERED) && called(b, "o"));
    CHECK(key_is(FE, "queue-0", NULL) && key_is(FE, "multi-queue-num-queues", NULL) &&
          key_is(FE, "event-channel", "30"));
    write_key(BE, "state", "4");
    CHECK(called(b, "c+"));
}

static void
test_removal(struct nf_bus *b)
{
    CASE("the device is removed, made again, and swapped unseen");
    CHECK(!toolstack_vif_destroy(dom0, DOMID, 0));
    CHECK(reaches(b, NF_BUS_ABSENT) && called(b, "-qr"));
    CHECK(!toolstack_vif_create(dom0, &vif));
    CHECK(reaches(b, NF_BUS_WAITING));
    backend_offers();
    CHECK(reaches(b, NF_BUS_OFFERED));
    write_key(BE, "state", "4");
    CHECK(called(b, "oc+"));
    CHECK(!toolstack_vif_destroy(dom0, DOMID, 0));
    CHECK(!toolstack_vif_create(dom0, &vif)); /* the bus has not looked in between */
    CHECK(reaches(b, NF_BUS_WAITING) && called(b, "-qr"));
    backend_offers();
    CHECK(called(b, "o"));
    write_key(BE, "state", "4");
    CHECK(called(b, "c+"));
}

static void
test_close(struct nf_bus *b)
{
    CASE("closes for good, whatever the backend then says");
    nf_bus_close(b);
    CHECK(key_is(FE, "state", "5") && !nf_bus_is_down(b));
    write_key(BE, "state", "6");
    CHECK(called(b, "qr") && nf_bus_is_down(b) && key_is(FE, "state", "6"));
    write_key(BE, "state", "2");
    for (int i = 0; i < 10; i++) {
        struct pollfd p = {.fd = nf_bus_fd(b), .events = POLLIN};
        poll(&p, 1, 10);
        nf_bus_process(b);
    }
    CHECK(b->phase == NF_BUS_CLOSED && !calls[0] && b->backend_state == 2);
    CHECK(!toolstack_vif_destroy(dom0, DOMID, 0));
    CHECK(reaches(b, NF_BUS_ABSENT));
}

static void
test_silent_backend(struct local_domain *dom)
{
    struct xs_handle *xs;
    struct nf_bus b;

    CASE("a backend that never answers is given up");
    CHECK(!local_store_open(dom, &xs));
    CHECK(!nf_bus_init(&b, xs, DOMID, 0, &ops, NULL));
    CHECK(!toolstack_vif_create(dom0, &vif));
    backend_offers();
    CHECK(reaches(&b, NF_BUS_OFFERED));
    nf_bus_close(&b);
    CHECK(b.phase == NF_BUS_CLOSING && nf_bus_timeout_ms(&b) > NF_BUS_CLOSE_MS - 1000);
    b.close_by_ms = 0; /* as if that long had passed */
    CHECK(nf_bus_timeout_ms(&b) == 0);
    nf_bus_process(&b);
    CHECK(b.phase == NF_BUS_CLOSED && called(&b, "or"));
    xs_close(xs);

    CASE("a backend that still believes in an earlier guest is asked to close");
    write_key(FE, "state", "4");
    write_key(BE, "state", "4");
    CHECK(!local_store_open(dom, &xs));
    CHECK(!nf_bus_init(&b, xs, DOMID, 0, &ops, NULL));
    CHECK(reaches(&b, NF_BUS_CLOSING) && key_is(FE, "state", "5"));
    write_key(BE, "state", "5");
    CHECK(reaches(&b, NF_BUS_LEAVING));
    write_key(BE, "state", "6");
    CHECK(reaches(&b, NF_BUS_WAITING) && !calls[0]);

    CASE("rings that cannot be made close the device");
    offer_error = ENOSPC;
    write_key(BE, "state", "2");
    CHECK(reaches(&b, NF_BUS_CLOSED) && called(&b, "o") && key_is(FE, "state", "6"));
    offer_error = 0;
    CHECK(!toolstack_vif_destroy(dom0, DOMID, 0));
    xs_close(xs);
}

int
main(void)
{
    struct local_domain *dom;
    struct xs_handle *xs;
    struct nf_bus bus;

    CASE("set-up");
    peer_broker_start();
    CHECK(!local_domain_create(peer_dir(), DOMID, 16, 64, &dom));
    CHECK(!toolstack_open(peer_dir(), &dom0));
    CHECK(!local_store_open(dom, &xs));
    test_toolstack();
    CHECK(!nf_bus_init(&bus, xs, DOMID, 0, &ops, NULL));
    test_connect(&bus);
    test_restart(&bus);
    test_backend_closes(&bus);
    test_removal(&bus);
    test_close(&bus);
    xs_close(xs);
    test_silent_backend(dom);
    int failed = check_done();
    xs_close(dom0);
    local_domain_destroy(dom);
    peer_broker_stop();
    return failed;
}
