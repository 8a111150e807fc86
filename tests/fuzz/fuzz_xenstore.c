/* The xenstore without sockets, driven by bytes: requests of several clients
 * with different rights, their output taken or left, domains coming and going.
 *
 * After each input the store must agree with itself: the numbers of nodes by
 * owner are those of the tree, children are sorted, permissions are there. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/xenstore.h"
#include "hv/xenstore_impl.h"

#define N_CLIENTS 5

/* Words that requests are likely to need; an input byte picks one. */
static const char *const words[] = {
    "/",
    "/a",
    "/a/b",
    "/a/b/c",
    "/local/domain/1/data",
    "/local/domain/2/data",
    "data",
    "data/x",
    "data/x/y/z",
    "device/x",
    "@introduceDomain",
    "@releaseDomain",
    "n0",
    "r1",
    "w2",
    "b1",
    "n1",
    "b2",
    "T",
    "F",
    "0",
    "1",
    "2",
    "4",
    "token",
    "tok2",
    "/tool",
    "//",
    "/a/",
    "quota",
    "control",
    "help",
};

struct input {
    const uint8_t *at;
    size_t left;
};

static uint8_t
byte(struct input *in)
{
    if (!in->left) {
        return 0;
    }
    in->left--;
    return *in->at++;
}

static void
wake(void *ctx)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

/* Hands 'len' bytes to a client, as a socket would. */
static void
feed(struct xenstore_client *c, const uint8_t *bytes, size_t len)
{
    while (len && !xenstore_client_fault(c)) {
        size_t room, n;
        void *space = xenstore_client_space(c, &room);

        n = room < len ? room : len;
        if (!n) {
            return; /* it does not take its replies */
        }
        memcpy(space, bytes, n);
        bytes += n;
        len -= n;
        if (xenstore_client_received(c, n)) {
            return;
        }
    }
}

static void
drain(struct xenstore_client *c, size_t most)
{
    size_t len;

    while (most && xenstore_client_output(c, &len)) {
        size_t n = len < most ? len : most;

        most -= n;
        xenstore_client_sent(c, n);
    }
}

/* How many strings each request wants. */
static const uint8_t n_args[] = {
    [XS_CONTROL] = 1,
    [XS_DIRECTORY] = 1,
    [XS_READ] = 1,
    [XS_GET_PERMS] = 1,
    [XS_WATCH] = 2,
    [XS_UNWATCH] = 2,
    [XS_INTRODUCE] = 3,
    [XS_TRANSACTION_START] = 1,
    [XS_TRANSACTION_END] = 1,
    [XS_RELEASE] = 1,
    [XS_GET_DOMAIN_PATH] = 1,
    [XS_WRITE] = 2,
    [XS_MKDIR] = 1,
    [XS_RM] = 1,
    [XS_SET_PERMS] = 3,
    [XS_IS_DOMAIN_INTRODUCED] = 1,
    [XS_RESUME] = 1,
    [XS_SET_TARGET] = 2,
    [XS_DIRECTORY_PART] = 2,
};

/* A request, mostly well-formed: its type, transaction and strings are the
 * input's choice. */
static void
send_request(struct xenstore_client *c, struct input *in)
{
    uint8_t buf[sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX];
    unsigned how = byte(in), tx = byte(in);
    struct xsd_sockmsg hdr = {.type = how % 24, .tx_id = tx % 4};
    unsigned n_strings = hdr.type < sizeof n_args ? n_args[hdr.type] : 1;
    size_t len = 0;

    n_strings += tx >> 2 == 3 ? byte(in) % 3 : 0;
    for (unsigned i = 0; i < n_strings; i++) {
        unsigned pick = byte(in);
        const char *word = words[pick % (sizeof words / sizeof words[0])];

        if (hdr.type == XS_TRANSACTION_END) {
            word = pick % 8 ? "T" : "F";
        }
        memcpy(buf + sizeof hdr + len, word, strlen(word) + 1);
        len += strlen(word) + 1;
    }
    if (tx >> 2 == 5) { /* a value, or junk */
        memset(buf + sizeof hdr + len, 'v', 300);
        len += 300;
    }
    hdr.len = len - (tx >> 2 == 7 && len);
    memcpy(buf, &hdr, sizeof hdr);
    feed(c, buf, sizeof hdr + hdr.len);
}

/* Checks a node and what is below, and takes it from the counts. */
static void
check_node(const struct xsnode *n, uint32_t *counts)
{
    if (!n->n_perms || n->refs != 1 || !counts[n->perms[0].domid]--) {
        abort();
    }
    for (uint32_t i = 0; i < n->n_children; i++) {
        if (i && strcmp(n->children[i - 1]->name, n->children[i]->name) >= 0) {
            abort();
        }
        check_node(n->children[i], counts);
    }
}

/* Nobody is there any more: what is left?  Then empties the store. */
static void
check_and_reset(struct xenstore *s)
{
    static const uint32_t none[65536];

    if (s->counts[1] > QUOTA_NODES + 100 || s->watches.n || s->events) {
        abort();
    }
    for (unsigned domid = 0; domid < 4; domid++) {
        if (s->domains[domid].n_watches || s->domains[domid].n_txns) {
            abort();
        }
        xenstore_release(s, domid);
    }
    check_node(s->tree.root, s->counts);
    if (memcmp(s->counts, none, sizeof none)) {
        abort();
    }
    xstree_destroy(&s->tree);
    xstree_init(&s->tree, &s->gen, s->counts);
    s->domains[0].introduced = true;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t domids[N_CLIENTS] = {0, 0, 1, 1, 2};
    struct xenstore_client *clients[N_CLIENTS];
    static struct xenstore *s; /* kept, for it is large */
    struct input in = {data, size};

    if (!s) {
        s = xenstore_create(wake);
    }

    for (unsigned i = 0; i < N_CLIENTS; i++) {
        clients[i] = xenstore_client_create(s, domids[i], NULL);
    }
    xenstore_introduce(s, 1);
    xenstore_introduce(s, 2);
    while (in.left) {
        unsigned what = byte(&in), who = what % N_CLIENTS;
        size_t len;

        switch (what / N_CLIENTS % 16) {
        case 0: /* anything */
            len = byte(&in);
            len = len < in.left ? len : in.left;
            feed(clients[who], in.at, len);
            in.at += len;
            in.left -= len;
            break;
        case 1:
            drain(clients[who], byte(&in) * 64);
            break;
        case 2: /* hangs up */
            xenstore_client_destroy(clients[who]);
            clients[who] = xenstore_client_create(s, domids[who], NULL);
            break;
        case 3:
            xenstore_introduce(s, 1 + byte(&in) % 3);
            break;
        case 4:
            xenstore_release(s, 1 + byte(&in) % 3);
            break;
        default:
            send_request(clients[who], &in);
        }
    }
    for (unsigned i = 0; i < N_CLIENTS; i++) {
        drain(clients[i], SIZE_MAX);
        xenstore_client_destroy(clients[i]);
    }
    check_and_reset(s);
    return 0;
}
