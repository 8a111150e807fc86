#include <config.h>

#include "host_wire.h"

#include <errno.h>
#include <stdlib.h>

#include "openflow/openflow.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vconn.h"
#include "openvswitch/vlog.h"
#include "stream.h"
#include "util.h"
#include "vconn-provider.h"

VLOG_DEFINE_THIS_MODULE(host_wire);

/* With so much waiting it is written, and no more taken until some of it has gone. */
#define TX_FULL (64 * 1024)
/* Read at once. */
#define RX_ROOM (16 * 1024)

struct wire {
    struct vconn vconn;
    struct stream *stream;
    struct ofpbuf tx, rx;
    int error; /* of a write; 0: none */
};

static const struct vconn_class wire_class;

static struct wire *
wire_cast(struct vconn *vconn)
{
    return CONTAINER_OF(vconn, struct wire, vconn);
}

int
host_wire_open(const char *target, uint32_t versions, uint8_t dscp, struct vconn **vconn)
{
    struct stream *stream;
    struct wire *w;
    int error = stream_open_with_default_port(target, OFP_PORT, &stream, dscp);

    *vconn = NULL;
    if (error) {
        return error;
    }
    error = stream_connect(stream);
    if (error && error != EAGAIN) {
        stream_close(stream);
        return error;
    }
    w = xzalloc(sizeof *w);
    w->stream = stream;
    ofpbuf_init(&w->tx, 0);
    ofpbuf_init(&w->rx, 0);
    vconn_init(&w->vconn, &wire_class, error, stream_get_name(stream), versions);
    *vconn = &w->vconn;
    return 0;
}

static void
wire_close(struct vconn *vconn)
{
    struct wire *w = wire_cast(vconn);

    stream_close(w->stream);
    ofpbuf_uninit(&w->tx);
    ofpbuf_uninit(&w->rx);
    free(w);
}

static int
wire_connect(struct vconn *vconn)
{
    return stream_connect(wire_cast(vconn)->stream);
}

/* Or what was there before would take room for ever. */
static void
to_front(struct ofpbuf *b)
{
    ofpbuf_shift(b, -(intptr_t)ofpbuf_headroom(b));
}

/* --- writing ---------------------------------------------------------------------- */

static void
flush(struct wire *w)
{
    while (w->tx.size && !w->error) {
        int n = stream_send(w->stream, w->tx.data, w->tx.size);

        if (n == -EAGAIN || !n) {
            break;
        } else if (n < 0) {
            VLOG_DBG("%s: %s", vconn_get_name(&w->vconn), ovs_strerror(-n));
            w->error = -n;
        } else {
            ofpbuf_pull(&w->tx, n);
        }
    }
    to_front(&w->tx);
}

static int
wire_send(struct vconn *vconn, struct ofpbuf *msg)
{
    struct wire *w = wire_cast(vconn);

    if (w->tx.size >= TX_FULL) {
        flush(w);
    }
    if (w->error || w->tx.size >= TX_FULL) {
        return w->error ? w->error : EAGAIN;
    }
    ofpbuf_put(&w->tx, msg->data, msg->size);
    ofpbuf_delete(msg);
    return 0;
}

/* --- reading ---------------------------------------------------------------------- */

/* The length of the message that is there first; 0: it is not complete, -1: nor can it be. */
static int
first_message(const struct wire *w)
{
    const uint8_t *head = w->rx.data; /* at any alignment */
    size_t len;

    if (w->rx.size < sizeof(struct ofp_header)) {
        return 0;
    }
    len = head[2] << 8 | head[3];
    return len < sizeof(struct ofp_header) ? -1 : len <= w->rx.size ? (int)len : 0;
}

static int
wire_recv(struct vconn *vconn, struct ofpbuf **msg)
{
    struct wire *w = wire_cast(vconn);
    int len;

    while (!(len = first_message(w))) {
        int n;

        if (w->error) {
            return w->error; /* of a write: said here too, for nobody may write any more */
        }
        to_front(&w->rx);
        ofpbuf_prealloc_tailroom(&w->rx, RX_ROOM);
        n = stream_recv(w->stream, ofpbuf_tail(&w->rx), RX_ROOM);
        if (n <= 0) {
            return n ? -n : w->rx.size ? EPROTO : EOF;
        }
        w->rx.size += n;
    }
    if (len < 0) {
        return EPROTO;
    }
    *msg = ofpbuf_clone_data(w->rx.data, len);
    ofpbuf_pull(&w->rx, len);
    return 0;
}

/* --- turns ------------------------------------------------------------------------ */

static void
wire_run(struct vconn *vconn)
{
    struct wire *w = wire_cast(vconn);

    stream_run(w->stream);
    flush(w);
}

static void
wire_run_wait(struct vconn *vconn)
{
    struct wire *w = wire_cast(vconn);

    stream_run_wait(w->stream);
    if (w->error) {
        poll_immediate_wake(); /* wire_recv() says it */
    } else if (w->tx.size) {
        stream_send_wait(w->stream);
    }
}

static void
wire_wait(struct vconn *vconn, enum vconn_wait_type type)
{
    struct wire *w = wire_cast(vconn);

    switch (type) {
    case WAIT_CONNECT:
        stream_connect_wait(w->stream);
        break;
    case WAIT_SEND:
        stream_send_wait(w->stream);
        break;
    case WAIT_RECV:
        if (first_message(w)) {
            poll_immediate_wake();
        } else {
            stream_recv_wait(w->stream);
        }
        break;
    }
}

static const struct vconn_class wire_class = {
    .name = "wire",
    .close = wire_close,
    .connect = wire_connect,
    .recv = wire_recv,
    .send = wire_send,
    .run = wire_run,
    .run_wait = wire_run_wait,
    .wait = wire_wait,
};
