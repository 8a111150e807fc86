/* The broker of the stand-in for Xen without its sockets: requests of backends
 * and domains in any order, well-formed and not, while a guest rewrites its
 * grant table.
 *
 * When all clients are gone the broker must hold nothing. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/local_broker_impl.h"
#include "hv/xenstore_sock.h"

#define N_CONNS 5

static char private_dir[] = "/tmp/weft-fuzz-XXXXXX";
static struct local_broker *broker;

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

static void
clean_up(void)
{
    local_broker_close(broker);
    rmdir(private_dir);
}

static void
start(void)
{
    char dir[64], why[256];

    if (!mkdtemp(private_dir)) {
        abort();
    }
    snprintf(dir, sizeof dir, "%s/xen", private_dir);
    if (local_broker_open(dir, false, &broker, why, sizeof why)) {
        fprintf(stderr, "%s\n", why);
        abort();
    }
    atexit(clean_up);
}

struct input {
    const uint8_t *at;
    size_t left;
};

static uint32_t
number(struct input *in, size_t bytes)
{
    uint32_t n = 0;

    bytes = bytes < in->left ? bytes : in->left;
    memcpy(&n, in->at, bytes);
    in->at += bytes;
    in->left -= bytes;
    return n;
}

static void
request(struct broker_conn *conn, struct input *in)
{
    struct local_rep rep = {0};
    struct broker_reply r = {.rep = &rep};
    struct local_req req = {.op = number(in, 1) % 16,
                            .domid = number(in, 1) % 4,
                            .a = number(in, 1),
                            .b = number(in, 1)};
    uint8_t form = number(in, 1);
    size_t len = LOCAL_REQ_HDR;

    req.n = form % 8;
    for (uint32_t i = 0; i < req.n; i++) {
        req.refs[i] = number(in, 1) % 40;
    }
    len += req.op == LOCAL_OP_MAP ? req.n * sizeof req.refs[0] : 0;
    if (req.op == LOCAL_OP_MAP && form & 8 && broker->domains[req.domid]) {
        req.b = broker->domains[req.domid]->generation; /* else mostly refused */
    }
    if (form > 250) { /* large or torn */
        req.a = number(in, 4);
        req.n = number(in, 4);
        len = number(in, 1) % (sizeof req + 1);
        if (req.op == LOCAL_OP_CREATE && req.a > 1000) {
            req.a = LOCAL_MAX_PAGES + 1; /* valid, but slow */
        }
    }
    if (broker_handle(conn, &req, len, &r) == 0) {
        if (rep.n > LOCAL_MAP_MAX || r.n_fds > LOCAL_MAX_FDS) {
            abort();
        }
        for (unsigned i = 0; i < r.n_fds; i++) {
            struct stat st;

            if (fstat(r.fds[i], &st)) {
                abort();
            }
        }
    }
}

/* Two backends with a pin owner each, two domains that grant their pages, and
 * one that says nothing. */
static void
introduce(struct broker_conn *conn, unsigned i)
{
    struct local_req req = {
        .op = i < 2 ? LOCAL_OP_BACKEND : LOCAL_OP_CREATE, .domid = i, .a = 8, .b = 24};
    struct local_rep rep = {0};
    struct broker_reply r = {.rep = &rep};

    if (i < 4) {
        broker_handle(conn, &req, LOCAL_REQ_HDR, &r);
    }
    if (i < 2) {
        req.op = LOCAL_OP_OWNER_NEW;
        broker_handle(conn, &req, LOCAL_REQ_HDR, &r);
    }
    for (uint32_t ref = 8; conn->domain && ref < 16; ref++) {
        const grant_entry_v1_t e = {.flags = GTF_permit_access, .frame = ref % 8};

        memcpy(&conn->domain->view.entries[ref], &e, sizeof e);
    }
}

/* A guest changes its grant table behind everybody's back. */
static void
scribble(struct input *in)
{
    struct broker_domain *d = broker->domains[number(in, 1) % 4];
    uint32_t ref = number(in, 1) % 40;
    grant_entry_v1_t e = {.flags = number(in, 2), .domid = number(in, 1) % 2};

    e.frame = number(in, 1) % 10;
    if (d && ref < d->view.n_entries) {
        memcpy(&d->view.entries[ref], &e, sizeof e);
    }
}

/* A backend that was told an owner's id copies, and may stop in the middle. */
static void
copy(struct broker_conn *conn, struct input *in)
{
    struct broker_domain *d = broker->domains[number(in, 1) % 4];
    uint32_t ref = number(in, 1) % 40, how = number(in, 1), owner = 1;
    struct local_pin pin;

    while (owner < 16 && broker->owners[owner] != conn) {
        owner++;
    }
    if (!d || owner == 16) {
        return;
    }
    /* A fourth copier would wait for a second. */
    if (ref < d->view.n_entries && d->view.pins[ref] >> (14 + 2 * 15) & LOCAL_PIN_LOCK) {
        return;
    }
    if (local_pin_acquire(&d->view, ref, 0, owner, how & 16, &pin) == GNTST_okay && how & 32) {
        local_pin_release(&d->view, &pin, owner);
    }
}

static void
check_pins(void)
{
    for (uint32_t domid = 0; domid < 4; domid++) {
        struct broker_domain *d = broker->domains[domid];

        if (d && local_pin_count(&d->view)) {
            abort();
        }
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct broker_conn *const no_owners[1 << LOCAL_OWNER_BITS];
    struct broker_conn *conns[N_CONNS];
    struct input in = {data, size};

    if (!broker) {
        start();
    }
    broker->next_owner = 0; /* the same ids each time */
    for (unsigned i = 0; i < N_CONNS; i++) {
        conns[i] = broker_conn_create(broker, -1);
        introduce(conns[i], i);
    }
    while (in.left) {
        unsigned what = number(&in, 1), who = what % N_CONNS;

        switch (what / N_CONNS % 8) {
        case 0:
            broker_conn_destroy(conns[who]);
            conns[who] = broker_conn_create(broker, -1);
            break;
        case 1:
            scribble(&in);
            break;
        case 2:
            copy(conns[who], &in);
            break;
        default:
            request(conns[who], &in);
        }
    }
    /* First the backends: their death must leave no grant in use. */
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < N_CONNS; i++) {
            if (conns[i] && (pass || conns[i]->kind == CONN_BACKEND)) {
                broker_conn_destroy(conns[i]);
                conns[i] = NULL;
            }
        }
        check_pins();
    }
    if (memcmp(broker->owners, no_owners, sizeof no_owners)) {
        abort();
    }
    for (uint32_t i = 0; i < broker->n_ports; i++) {
        if (broker->ports[i].conn || broker->ports[i].domain) {
            abort();
        }
    }
    return 0;
}
