#include <config.h>

#include "ovs/switch_port.h"

#include <errno.h>
#include <stdlib.h>

#include "flow.h"
#include "jsonrpc.h"
#include "openvswitch/json.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofp-msgs.h"
#include "openvswitch/ofp-packet.h"
#include "openvswitch/ofp-protocol.h"
#include "openvswitch/ofp-util.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vconn.h"
#include "ovs/rpc.h"
#include "socket-util.h"
#include "timeval.h"
#include "util.h"

/* --- the database ----------------------------------------------------------- */

/* The first row of 'table' where 'column' 'op' 'value' (JSON text), or NULL. */
static struct json *
select_row(const char *run_dir, const char *table, const char *column, const char *op,
           struct json *value, const char *columns, int timeout_ms, int *error)
{
    struct json *select = json_object_create(), *row = NULL;
    char *socket = xasprintf("%s/db.sock", run_dir);
    struct jsonrpc_msg *reply;

    json_object_put_string(select, "op", "select");
    json_object_put_string(select, "table", table);
    json_object_put(select, "where",
                    json_array_create_1(json_array_create_3(json_string_create(column),
                                                            json_string_create(op), value)));
    json_object_put(select, "columns", json_from_string(columns));
    *error = rpc_call(socket, "transact",
                      json_array_create_2(json_string_create("Open_vSwitch"), select), timeout_ms,
                      &reply);
    free(socket);
    if (*error) {
        return NULL;
    }
    *error = ENOENT;
    if (reply->type == JSONRPC_REPLY && reply->result->type == JSON_ARRAY &&
        reply->result->array.n && reply->result->array.elems[0]->type == JSON_OBJECT) {
        struct json *rows = shash_find_data(json_object(reply->result->array.elems[0]), "rows");

        if (rows && rows->type == JSON_ARRAY && rows->array.n &&
            rows->array.elems[0]->type == JSON_OBJECT) {
            row = json_deep_clone(rows->array.elems[0]);
            *error = 0;
        }
    }
    jsonrpc_msg_destroy(reply);
    return row;
}

/* A column's value, or NULL: 'row' may be NULL. */
static const struct json *
column(const struct json *row, const char *name)
{
    return row ? shash_find_data(json_object(row), name) : NULL;
}

/* An optional integer; -1 if it is empty. */
static int64_t
integer(const struct json *row, const char *name)
{
    const struct json *v = column(row, name);

    return v && v->type == JSON_INTEGER ? v->integer : -1;
}

static const char *
text(const struct json *row, const char *name)
{
    const struct json *v = column(row, name);

    return v && v->type == JSON_STRING ? json_string(v) : "";
}

static void
read_vlan(const struct json *row, struct switch_port *p)
{
    int64_t tag = integer(row, "tag");
    const char *mode = text(row, "vlan_mode");

    p->trunk = mode[0] ? strcmp(mode, "access") != 0 : tag < 0;
    p->untagged =
        tag > 0 && tag < 4096 && strcmp(mode, "native-tagged") && strcmp(mode, "trunk") ? tag : 0;
}

int
switch_port_find(const char *run_dir, const char *name, int timeout_ms, struct switch_port *p)
{
    struct json *iface, *port = NULL, *bridge = NULL;
    int error;

    memset(p, 0, sizeof *p);
    iface = select_row(run_dir, "Interface", "name", "==", json_string_create(name),
                       "[\"_uuid\",\"ofport\"]", timeout_ms, &error);
    if (!error && integer(iface, "ofport") <= 0) {
        error = ENOENT;
    }
    if (!error) {
        p->ofport = integer(iface, "ofport");
        port = select_row(run_dir, "Port", "interfaces", "includes",
                          json_deep_clone(column(iface, "_uuid")),
                          "[\"_uuid\",\"tag\",\"vlan_mode\"]", timeout_ms, &error);
    }
    if (!error) {
        read_vlan(port, p);
        bridge =
            select_row(run_dir, "Bridge", "ports", "includes",
                       json_deep_clone(column(port, "_uuid")), "[\"name\"]", timeout_ms, &error);
    }
    if (!error) {
        ovs_strlcpy(p->bridge, text(bridge, "name"), sizeof p->bridge);
    }
    json_destroy(iface);
    json_destroy(port);
    json_destroy(bridge);
    return error;
}

/* --- frames ------------------------------------------------------------------- */

static struct ofpbuf *
packet_out(const struct switch_port *p, const struct switch_frame *f,
           enum ofputil_protocol protocol)
{
    struct ofputil_packet_out po = {
        .packet = f->data, .packet_len = f->len, .buffer_id = UINT32_MAX};
    struct ofpbuf ofpacts, *msg;

    ofpbuf_init(&ofpacts, 64);
    ofpact_put_OUTPUT(&ofpacts)->port = OFPP_TABLE;
    match_init_catchall(&po.flow_metadata);
    match_set_in_port(&po.flow_metadata, u16_to_ofp(p->ofport));
    po.ofpacts = ofpacts.data;
    po.ofpacts_len = ofpacts.size;
    msg = ofputil_encode_packet_out(&po, protocol);
    ofpbuf_uninit(&ofpacts);
    return msg;
}

/* Waits for the answer to the barrier 'xid'. */
static int
await(struct vconn *vconn, ovs_be32 xid, long long int until)
{
    for (;;) {
        struct ofpbuf *reply;
        int error = vconn_recv(vconn, &reply);

        if (!error) {
            const struct ofp_header *oh = reply->data;
            bool mine = oh->xid == xid;
            enum ofptype type;

            error = !ofptype_decode(&type, oh) && type == OFPTYPE_ERROR ? EPROTO : 0;
            ofpbuf_delete(reply);
            if (error || mine) {
                return error;
            }
            continue;
        }
        if (error != EAGAIN) {
            return error == EOF ? ECONNRESET : error;
        }
        if (time_msec() >= until) {
            return ETIMEDOUT;
        }
        vconn_run(vconn);
        vconn_run_wait(vconn);
        vconn_recv_wait(vconn);
        poll_timer_wait_until(until);
        poll_block();
    }
}

int
switch_port_inject(const char *run_dir, const struct switch_port *p, const struct switch_frame *f,
                   size_t n, int timeout_ms)
{
    long long int until = time_msec() + timeout_ms;
    char *target = xasprintf("unix:%s/%s.mgmt", run_dir, p->bridge);
    enum ofputil_protocol protocol;
    struct ofpbuf *barrier;
    struct vconn *vconn;
    ovs_be32 xid;
    int error;

    error = vconn_open_block(target, OFPUTIL_DEFAULT_VERSIONS, DSCP_DEFAULT, timeout_ms, &vconn);
    free(target);
    if (error) {
        return error == EOF ? ECONNRESET : error;
    }
    protocol = ofputil_protocol_from_ofp_version(vconn_get_version(vconn));
    for (size_t i = 0; i < n && !error; i++) {
        error = vconn_send_block(vconn, packet_out(p, &f[i], protocol));
    }
    if (!error) {
        barrier = ofputil_encode_barrier_request(vconn_get_version(vconn));
        xid = ((struct ofp_header *)barrier->data)->xid;
        error = vconn_send_block(vconn, barrier);
        error = error ? error : await(vconn, xid, until);
    }
    vconn_close(vconn);
    return error;
}
