/* The text is a line per object, each led by what it is:
 *
 *   weft-openflow 1
 *   tlv {class=0x102,type=0x80,len=4}->tun_metadata0
 *   meter meter=1 kbps bands=type=drop rate=1000
 *   group group_id=1,type=select,bucket=...
 *   flow cookie=0x1, table=2, priority=10,ip actions=...
 *   end 3
 *
 * "end" carries the number of flows and tells a whole file from a torn one. */
#include <config.h>

#include "ofstate_priv.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "openvswitch/dynamic-string.h"
#include "openvswitch/list.h"
#include "openvswitch/match.h"
#include "openvswitch/ofp-bundle.h"
#include "openvswitch/ofp-errors.h"
#include "openvswitch/ofp-flow.h"
#include "openvswitch/ofp-group.h"
#include "openvswitch/ofp-match.h"
#include "openvswitch/ofp-meter.h"
#include "openvswitch/ofp-msgs.h"
#include "openvswitch/ofp-protocol.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/vconn.h"
#include "socket-util.h"
#include "util.h"

#define TIMEOUT_MS 30000

static int
fail(char **why, int error, const char *what)
{
    *why = xasprintf("%s: %s", what, error == EOF ? "connection closed" : ovs_strerror(error));
    return error == EOF ? ECONNRESET : error;
}

/* Switches the connection to 'want'; false if the bridge refuses. */
static bool
set_protocol(struct vconn *vconn, enum ofputil_protocol cur, enum ofputil_protocol want)
{
    while (cur != want) {
        enum ofputil_protocol next;
        struct ofpbuf *reply = NULL, *request = ofputil_encode_set_protocol(cur, want, &next);

        if (!request || vconn_transact_noreply(vconn, request, &reply) || reply) {
            ofpbuf_delete(reply);
            return false;
        }
        cur = next;
    }
    return true;
}

/* Connects with a protocol that can express everything and is among 'usable'. */
static int
open_bridge(const char *target, enum ofputil_protocol usable, struct vconn **vconn,
            enum ofputil_protocol *protocol, char **why)
{
    enum ofputil_protocol cur;
    int error;

    error = vconn_open_block(target, OFPUTIL_SUPPORTED_VERSIONS, DSCP_DEFAULT, TIMEOUT_MS, vconn);
    if (error) {
        return fail(why, error, target);
    }
    cur = ofputil_protocol_from_ofp_version(vconn_get_version(*vconn));
    for (size_t i = 0; i < ofputil_n_flow_dump_protocols; i++) {
        *protocol = ofputil_flow_dump_protocols[i];
        if ((*protocol & usable) && set_protocol(*vconn, cur, *protocol)) {
            return 0;
        }
    }
    vconn_close(*vconn);
    *why =
        xasprintf("%s: no version of OpenFlow that the bridge speaks can carry its state", target);
    return EPROTONOSUPPORT;
}

/* --- from the bridge ---------------------------------------------------- */

/* Sends a multipart request and calls 'take' with each part of the reply. */
static int
for_each_reply(struct vconn *vconn, struct ofpbuf *request,
               void (*take)(const struct ofp_header *, struct ds *), struct ds *out)
{
    ovs_be32 xid = ((struct ofp_header *)request->data)->xid;
    int error = vconn_send_block(vconn, request);

    while (!error) {
        struct ofpbuf *reply;

        error = vconn_recv_block(vconn, &reply);
        if (error) {
            break;
        }
        const struct ofp_header *oh = reply->data;
        bool mine = oh->xid == xid, more = false;
        enum ofptype type;

        if (mine) {
            if (ofptype_decode(&type, oh) || type == OFPTYPE_ERROR) {
                error = EPROTO;
            } else {
                take(oh, out);
                more = ofpmp_more(oh);
            }
        }
        ofpbuf_delete(reply);
        if (mine && !more) {
            break;
        }
    }
    return error;
}

static void
take_meters(const struct ofp_header *oh, struct ds *out)
{
    struct ofpbuf msg = ofpbuf_const_initializer(oh, ntohs(oh->length));
    struct ofpbuf bands;

    ofpbuf_init(&bands, 64);
    for (;;) {
        struct ofputil_meter_config mc;
        struct ds one = DS_EMPTY_INITIALIZER;

        if (ofputil_decode_meter_config(&msg, &mc, &bands)) {
            break;
        }
        ofputil_format_meter_config(&one, &mc);
        ds_chomp(&one, '\n');
        /* A band a line: here, a meter is one. */
        for (char *p = ds_cstr(&one); *p; p++) {
            *p = *p == '\n' ? ' ' : *p;
        }
        ds_put_format(out, "meter %s\n", ds_cstr(&one));
        ds_destroy(&one);
    }
    ofpbuf_uninit(&bands);
}

static void
take_groups(const struct ofp_header *oh, struct ds *out)
{
    struct ds text = DS_EMPTY_INITIALIZER;
    char *save = NULL;

    /* A line per group, with a blank in front. */
    ofputil_group_desc_format(&text, oh, NULL, NULL);
    for (char *line = strtok_r(ds_cstr(&text), "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        ds_put_format(out, "group %s\n", line + strspn(line, " "));
    }
    ds_destroy(&text);
}

static void
take_tlv_map(const struct ofp_header *oh, struct ds *out)
{
    struct ofputil_tlv_table_reply reply;
    struct ofputil_tlv_map *map;

    if (ofputil_decode_tlv_table_reply(oh, &reply)) {
        return;
    }
    LIST_FOR_EACH (map, list_node, &reply.mappings) {
        ds_put_format(out, "tlv {class=0x%x,type=0x%x,len=%d}->tun_metadata%d\n", map->option_class,
                      map->option_type, map->option_len, map->index);
    }
    ofputil_uninit_tlv_table(&reply.mappings);
}

static int
dump_flows(struct vconn *vconn, enum ofputil_protocol protocol, struct ds *out)
{
    struct ofputil_flow_stats_request all = {
        .match = MATCH_CATCHALL_INITIALIZER,
        .out_port = OFPP_ANY,
        .out_group = OFPG_ANY,
        .table_id = OFPTT_ALL,
    };
    struct ofputil_flow_stats *flows;
    size_t n;
    int error = vconn_dump_flows(vconn, &all, protocol, &flows, &n);

    if (error) {
        return error;
    }
    for (size_t i = 0; i < n; i++) {
        ds_put_cstr(out, "flow ");
        ofputil_flow_stats_format(out, &flows[i], NULL, NULL, false);
        ds_put_char(out, '\n');
        free(CONST_CAST(struct ofpact *, flows[i].ofpacts));
    }
    free(flows);
    ds_put_format(out, "end %" PRIuSIZE "\n", n);
    return 0;
}

int
ofstate_dump(const char *target, struct ds *out, char **why)
{
    enum ofputil_protocol protocol;
    struct vconn *vconn;
    int error = open_bridge(target, OFPUTIL_P_ANY, &vconn, &protocol, why);

    if (error) {
        return error;
    }
    enum ofp_version version = vconn_get_version(vconn);

    ds_put_cstr(out, OFSTATE_HEADER "\n");
    error = for_each_reply(vconn, ofpraw_alloc(OFPRAW_NXT_TLV_TABLE_REQUEST, version, 0),
                           take_tlv_map, out);
    if (!error && version >= OFP13_VERSION) {
        error = for_each_reply(
            vconn, ofputil_encode_meter_request(version, OFPUTIL_METER_CONFIG, OFPM13_ALL),
            take_meters, out);
    }
    if (!error && version >= OFP11_VERSION) {
        error = for_each_reply(vconn, ofputil_encode_group_desc_request(version, OFPG_ALL),
                               take_groups, out);
    }
    if (!error) {
        error = dump_flows(vconn, protocol, out);
    }
    vconn_close(vconn);
    return error ? fail(why, error, target) : 0;
}

/* --- to the bridge ------------------------------------------------------- */

/* What a text says, parsed. */
struct parsed {
    enum ofputil_protocol usable;
    struct ofputil_tlv_table_mod **tlvs; /* malloc'ed each: heads of lists stay where they are */
    struct ofputil_group_mod **groups;   /* the same */
    struct ofputil_meter_mod *meters;
    struct ofputil_flow_mod *flows;
    size_t n_tlvs, n_meters, n_groups, n_flows;
    size_t cap_tlvs, cap_meters, cap_groups, cap_flows;
    bool ended;
};

/* The next element of one of its arrays. */
#define NEXT(P, WHAT)                                                                              \
    ({                                                                                             \
        if ((P)->n_##WHAT == (P)->cap_##WHAT) {                                                    \
            (P)->WHAT = x2nrealloc((P)->WHAT, &(P)->cap_##WHAT, sizeof *(P)->WHAT);                \
        }                                                                                          \
        &(P)->WHAT[(P)->n_##WHAT];                                                                 \
    })

static void
parsed_free(struct parsed *p)
{
    for (size_t i = 0; i < p->n_tlvs; i++) {
        ofputil_uninit_tlv_table(&p->tlvs[i]->mappings);
        free(p->tlvs[i]);
    }
    for (size_t i = 0; i < p->n_meters; i++) {
        free(p->meters[i].meter.bands);
    }
    for (size_t i = 0; i < p->n_groups; i++) {
        ofputil_uninit_group_mod(p->groups[i]);
        free(p->groups[i]);
    }
    for (size_t i = 0; i < p->n_flows; i++) {
        free(CONST_CAST(struct ofpact *, p->flows[i].ofpacts));
        minimatch_destroy(&p->flows[i].match);
    }
    free(p->tlvs);
    free(p->meters);
    free(p->groups);
    free(p->flows);
}

static char *
parse_group(struct parsed *p, const char *text, enum ofputil_protocol *usable)
{
    struct ofputil_group_mod *gm = xmalloc(sizeof *gm);
    char *error = parse_ofp_group_mod_str(gm, OFPGC11_ADD, text, NULL, NULL, usable);

    if (error) {
        free(gm);
        return error;
    }
    *NEXT(p, groups) = gm;
    p->n_groups++;
    return NULL;
}

static char *
parse_tlv(struct parsed *p, const char *text, enum ofputil_protocol *usable)
{
    struct ofputil_tlv_table_mod *tm = xmalloc(sizeof *tm);
    char *error = parse_ofp_tlv_table_mod_str(tm, NXTTMC_ADD, text, usable);

    if (error) {
        free(tm);
        return error;
    }
    *NEXT(p, tlvs) = tm;
    p->n_tlvs++;
    return NULL;
}

/* NULL, or what is wrong with the line (malloc'ed). */
static char *
parse_line(struct parsed *p, char *line)
{
    enum ofputil_protocol usable = OFPUTIL_P_ANY;
    char *rest = strchr(line, ' ');
    char *error;

    if (p->ended || !rest) {
        return xstrdup(p->ended ? "more lines after the last" : "not a known kind of line");
    }
    *rest++ = '\0';
    if (!strcmp(line, "flow")) {
        error = parse_ofp_flow_mod_str(NEXT(p, flows), rest, NULL, NULL, OFPFC_ADD, &usable);
        p->n_flows += !error;
    } else if (!strcmp(line, "group")) {
        error = parse_group(p, rest, &usable);
    } else if (!strcmp(line, "meter")) {
        error = parse_ofp_meter_mod_str(NEXT(p, meters), rest, OFPMC13_ADD, &usable);
        p->n_meters += !error;
    } else if (!strcmp(line, "tlv")) {
        error = parse_tlv(p, rest, &usable);
    } else if (!strcmp(line, "end")) {
        p->ended = true;
        error = strtoull(rest, NULL, 10) == p->n_flows ? NULL : xstrdup("flows are missing");
    } else {
        error = xasprintf("%s: not a known kind of line", line);
    }
    p->usable &= usable;
    return error;
}

static int
parse(struct parsed *p, char *text, char **why)
{
    char *save = NULL;
    char *line = strtok_r(text, "\n", &save);
    char *error = NULL;
    unsigned n = 1;

    if (!line || strcmp(line, OFSTATE_HEADER)) {
        *why = xstrdup("line 1: not a file of this version");
        return EINVAL;
    }
    while (!error && (line = strtok_r(NULL, "\n", &save))) {
        n++;
        error = parse_line(p, line);
    }
    if (!error && !p->ended) {
        error = xstrdup("the file is cut off");
    }
    if (error) {
        *why = xasprintf("line %u: %s", n, error);
        free(error);
        return EINVAL;
    }
    return 0;
}

static int
refused(enum ofperr code, const char *what, char **why)
{
    *why = xasprintf("%s: the bridge refused: %s", what,
                     code ? ofperr_get_name(code) : "unexpected reply");
    return EPROTO;
}

/* Sends 'request'; an error reply is an error, but for 'fine'. */
static int
command(struct vconn *vconn, struct ofpbuf *request, enum ofperr fine, const char *what, char **why)
{
    struct ofpbuf *reply = NULL;
    int error = vconn_transact_noreply(vconn, request, &reply);

    if (error) {
        return fail(why, error, what);
    }
    if (reply) {
        enum ofperr code = ofperr_decode_msg(reply->data, NULL);

        ofpbuf_delete(reply);
        if (fine && code == fine) {
            return 0;
        }
        return refused(code, what, why);
    }
    return 0;
}

static struct ofpbuf *
encode_delete_all(enum ofputil_protocol protocol)
{
    struct match match = MATCH_CATCHALL_INITIALIZER;
    struct ofputil_flow_mod fm = {
        .command = OFPFC_DELETE,
        .table_id = OFPTT_ALL,
        .buffer_id = UINT32_MAX,
        .out_port = OFPP_ANY,
        .out_group = OFPG_ANY,
    };

    minimatch_init(&fm.match, &match);
    struct ofpbuf *request = ofputil_encode_flow_mod(&fm, protocol);
    minimatch_destroy(&fm.match);
    return request;
}

static int
send_flows(struct vconn *vconn, const struct parsed *p, enum ofputil_protocol protocol, bool *torn,
           char **why)
{
    struct ovs_list requests = OVS_LIST_INITIALIZER(&requests);
    struct ovs_list errors = OVS_LIST_INITIALIZER(&errors);
    bool bundle = vconn_get_version(vconn) >= OFP13_VERSION;
    int error = 0;

    ovs_list_push_back(&requests, &encode_delete_all(protocol)->list_node);
    for (size_t i = 0; i < p->n_flows; i++) {
        struct ofpbuf *request = ofputil_encode_flow_mod(&p->flows[i], protocol);

        ovs_list_push_back(&requests, &request->list_node);
    }
    if (bundle) {
        error = vconn_bundle_transact(vconn, &requests, OFPBF_ORDERED | OFPBF_ATOMIC, &errors);
        if (!ovs_list_is_empty(&errors)) {
            const struct ofpbuf *first =
                CONTAINER_OF(ovs_list_front(&errors), struct ofpbuf, list_node);

            error = refused(ofperr_decode_msg(first->data, NULL), "flows", why);
        } else if (error) {
            error = fail(why, error, "flows");
        }
        ofpbuf_list_delete(&errors);
    } else {
        struct ofpbuf *request;

        LIST_FOR_EACH_POP (request, list_node, &requests) {
            error =
                error ? (ofpbuf_delete(request), error) : command(vconn, request, 0, "flow", why);
        }
        *torn = error != 0;
    }
    ofpbuf_list_delete(&requests);
    return error;
}

static int
delete_groups(struct vconn *vconn, char **why)
{
    struct ofputil_group_mod all = {
        .command = OFPGC11_DELETE,
        .group_id = OFPG_ALL,
        .command_bucket_id = OFPG15_BUCKET_ALL,
        .buckets = OVS_LIST_INITIALIZER(&all.buckets),
    };

    return command(vconn, ofputil_encode_group_mod(vconn_get_version(vconn), &all, NULL, -1), 0,
                   "groups", why);
}

static int
replace_meter(struct vconn *vconn, const struct ofputil_meter_mod *add, char **why)
{
    enum ofp_version version = vconn_get_version(vconn);
    struct ofputil_meter_mod remove = {.command = OFPMC13_DELETE};

    remove.meter.meter_id = add->meter.meter_id;
    int error = command(vconn, ofputil_encode_meter_mod(version, &remove),
                        OFPERR_OFPMMFC_UNKNOWN_METER, "meter", why);

    return error ? error : command(vconn, ofputil_encode_meter_mod(version, add), 0, "meter", why);
}

static int
send_all(struct vconn *vconn, const struct parsed *p, enum ofputil_protocol protocol, bool *torn,
         char **why)
{
    enum ofp_version version = vconn_get_version(vconn);
    int error = 0;

    /* An earlier try may have come as far as this: its maps are the same, its meters and groups
     * go. */
    for (size_t i = 0; i < p->n_tlvs && !error; i++) {
        error = command(vconn, ofputil_encode_tlv_table_mod(version, p->tlvs[i]),
                        OFPERR_NXTTMFC_ALREADY_MAPPED, "tlv map", why);
    }
    if (p->n_groups) {
        error = error ? error : delete_groups(vconn, why);
    }
    for (size_t i = 0; i < p->n_meters && !error; i++) {
        error = replace_meter(vconn, &p->meters[i], why);
    }
    for (size_t i = 0; i < p->n_groups && !error; i++) {
        error = command(vconn, ofputil_encode_group_mod(version, p->groups[i], NULL, -1), 0,
                        "group", why);
    }
    return error ? error : send_flows(vconn, p, protocol, torn, why);
}

int
ofstate_load(const char *target, char *text, size_t *n_flows, bool *torn, char **why)
{
    struct parsed p = {.usable = OFPUTIL_P_ANY};
    enum ofputil_protocol protocol;
    struct vconn *vconn;
    int error = parse(&p, text, why);

    *torn = false;
    if (!error) {
        error = open_bridge(target, p.usable, &vconn, &protocol, why);
    }
    if (!error) {
        error = send_all(vconn, &p, protocol, torn, why);
        vconn_close(vconn);
    }
    *n_flows = p.n_flows;
    parsed_free(&p);
    return error;
}
