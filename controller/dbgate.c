/* Theory of Operation
 * ===================
 *
 * Each host's connection has one to the server of its own, so requests keep their ids and
 * updates find their way by themselves.  Messages are parsed and written anew.
 *
 *     handshake -> open -> closed
 *
 * In the handshake it is TLS that decides, against the authority of the hosts and the
 * revocation lists (host_peer.h); its certificate's common name is the host, which must be
 * a row of Host.  Open, "transact" goes through dbgate_admit() and its answer, told by the
 * request's id, through dbgate_result(); of other requests some go as they are.  If either
 * end closes, so does the other: clients come again.  A session ends when its host is none
 * any more, and when its certificate would not do any more.
 *
 * What a host can take is bounded: connections, memory of one request, requests under
 * way, answers that it does not read (until it has, the server is not read either, and
 * holds its updates back).  One that neither says anything nor reads is gone.  How long it
 * reads is not bounded: the first answer to a monitor is the database, and links are slow.
 * That it reads is told by what its machine acknowledges; our own probes are less. */
#include <config.h>

#include "dbgate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host_limit.h"
#include "host_peer.h"
#include "jsonrpc.h"
#include "openvswitch/json.h"
#include "openvswitch/list.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "random.h"
#include "stranger.h"
#include "stream.h"
#include "timeval.h"
#include "unicode.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dbgate);

static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(20, 20);

enum {
    MAX_SESSIONS = 1000,
    MAX_PER_HOST = 32,
    MAX_HANDSHAKES = 64, /* who has most makes room */
    CONNECTIONS_A_TURN = 16,
    HANDSHAKE_MS = 10000,
    MAX_PENDING = 64, /* transactions of a session */
    MESSAGES_A_TURN = 50,
    MAX_COST = 8 << 20, /* memory of one message, about (host_limit.h) */
    MAX_UNREAD = 1 << 20,
    MIN_TAKEN = 16 << 10, /* bytes in a time of silence: it reads */
    MAX_NAME = 64,
};

struct pending {
    struct ovs_list node; /* in 'pending' of session */
    struct json *id;
    struct dbgate_plan plan;
};

struct session {
    struct stranger who;   /* came; in 'handshakes' or 'sessions' of dbgate */
    struct stream *stream; /* of a handshake */
    struct ssl_st *ssl;    /* of 'stream', then of 'down' */
    /* Of a handshake; else of the last that came from the host, or that it was seen to read. */
    long long int since;
    uint64_t taken; /* of host_peer_taken(), at some time before */
    bool probed;
    long long int good_until; /* its certificate; by time_wall_msec() */
    char *host;
    struct jsonrpc *down, *up; /* to the host, to the server */
    struct host_limit limit;   /* what one message of the host's costs */
    struct ovs_list pending;
    size_t n_pending;
    struct dbgate_monitors monitors;
};

struct dbgate {
    struct pstream *listener;
    char *server;
    struct dbgate_hosts *hosts;
    int probe_ms;
    uint32_t basis;                       /* of addresses' hashes */
    struct ovs_list handshakes, sessions; /* the oldest first */
    size_t n_handshakes, n_sessions;
};

/* --- sessions ----------------------------------------------------------------------- */

static void
forget(struct session *s, struct pending *p)
{
    ovs_list_remove(&p->node);
    s->n_pending--;
    json_destroy(p->id);
    dbgate_plan_clear(&p->plan);
    free(p);
}

static void
session_destroy(struct session *s)
{
    struct pending *p;

    ovs_list_remove(&s->who.node);
    LIST_FOR_EACH_SAFE (p, node, &s->pending) {
        forget(s, p);
    }
    dbgate_monitors_clear(&s->monitors);
    stream_close(s->stream);
    jsonrpc_close(s->down);
    jsonrpc_close(s->up);
    free(s->host);
    free(s);
}

static struct pending *
find_pending(struct session *s, const struct json *id)
{
    struct pending *p;

    LIST_FOR_EACH (p, node, &s->pending) {
        if (json_equal(p->id, id)) {
            return p;
        }
    }
    return NULL;
}

/* The four that follow consume the message; 0, or an errno that ends the session. */

static int
refuse(struct session *s, struct jsonrpc_msg *msg)
{
    struct json *error = json_object_create();
    int status;

    VLOG_WARN_RL(&rl, "%s: \"%s\" is not for hosts", s->host, msg->method);
    json_object_put_string(error, "error", "permission error");
    json_object_put_string(error, "details", "not for hosts");
    status = jsonrpc_send(s->down, jsonrpc_create_error(error, msg->id));
    jsonrpc_msg_destroy(msg);
    return status;
}

static int
pass_transact(struct session *s, struct jsonrpc_msg *msg)
{
    struct json *params, *refusal;
    struct dbgate_plan plan;
    struct pending *p;
    int status;

    if (find_pending(s, msg->id)) {
        VLOG_WARN_RL(&rl, "%s: two requests of one id", s->host);
        jsonrpc_msg_destroy(msg);
        return EPROTO;
    }
    params = dbgate_admit(s->host, msg->params, &plan, &refusal);
    if (!params) {
        VLOG_WARN_RL(&rl, "%s: refused a transaction", s->host);
        status = jsonrpc_send(s->down, jsonrpc_create_reply(refusal, msg->id));
        jsonrpc_msg_destroy(msg);
        return status;
    }
    p = xmalloc(sizeof *p);
    p->id = json_clone(msg->id);
    p->plan = plan;
    ovs_list_push_back(&s->pending, &p->node);
    s->n_pending++;
    json_destroy(msg->params);
    msg->params = params;
    return jsonrpc_send(s->up, msg);
}

static int
from_host(struct session *s, struct jsonrpc_msg *msg)
{
    switch (msg->type) {
    case JSONRPC_REQUEST:
        if (!dbgate_is_id(msg->id)) {
            jsonrpc_msg_destroy(msg);
            return EPROTO;
        }
        if (!strcmp(msg->method, "transact")) {
            return pass_transact(s, msg);
        }
        return dbgate_may_call(msg->method, msg->params, &s->monitors) ? jsonrpc_send(s->up, msg)
                                                                       : refuse(s, msg);
    case JSONRPC_NOTIFY: /* "cancel": no agent does */
    case JSONRPC_REPLY:  /* to our probe */
    case JSONRPC_ERROR:
        break;
    }
    jsonrpc_msg_destroy(msg);
    return 0;
}

static int
from_server(struct session *s, struct jsonrpc_msg *msg)
{
    struct pending *p;

    if (msg->type == JSONRPC_REQUEST) {
        /* An "echo": that we are there. */
        int status = jsonrpc_send(s->up, jsonrpc_create_reply(json_clone(msg->params), msg->id));

        jsonrpc_msg_destroy(msg);
        return status;
    }
    p = msg->type == JSONRPC_NOTIFY ? NULL : find_pending(s, msg->id);
    if (p) {
        if (msg->type == JSONRPC_REPLY) {
            struct json *result = dbgate_result(&p->plan, msg->result);

            json_destroy(msg->result);
            msg->result = result;
        }
        forget(s, p);
    }
    return jsonrpc_send(s->down, msg);
}

/* Whether messages of the host's are taken now; and of the server's. */
static bool
takes_from_host(const struct session *s)
{
    return s->n_pending < MAX_PENDING && jsonrpc_get_backlog(s->up) < MAX_UNREAD &&
           jsonrpc_get_backlog(s->down) < MAX_UNREAD;
}

static bool
takes_from_server(const struct session *s)
{
    return jsonrpc_get_backlog(s->down) < MAX_UNREAD;
}

static int
run_host(struct session *s)
{
    struct jsonrpc_msg *msg;
    int error = 0;

    for (int i = 0; !error && i < MESSAGES_A_TURN && takes_from_host(s); i++) {
        host_limit_begin(&s->limit);
        error = jsonrpc_recv(s->down, &msg);
        host_limit_end();
        if (!error) {
            s->limit.cost = 0;
            s->since = time_msec();
            s->probed = false;
            error = from_host(s, msg);
        }
    }
    if (error == EAGAIN) {
        error = s->limit.cost > MAX_COST ? EMSGSIZE : 0;
    }
    return error;
}

static int
run_server(struct session *s)
{
    struct jsonrpc_msg *msg;
    int error = 0;

    for (int i = 0; !error && i < MESSAGES_A_TURN && takes_from_server(s); i++) {
        error = jsonrpc_recv(s->up, &msg);
        if (!error) {
            error = from_server(s, msg);
        }
    }
    return error == EAGAIN ? 0 : error;
}

/* Since the last time that this was asked. */
static bool
has_read(struct session *s)
{
    uint64_t taken = host_peer_taken(s->ssl), before = s->taken;

    s->taken = taken;
    return taken - before >= MIN_TAKEN;
}

/* A machine that is gone says nothing more, and takes nothing.  One that is slow takes what
 * came before the probe, and cannot answer until then. */
static int
probe(struct session *s, int probe_ms)
{
    struct json *id;
    struct jsonrpc_msg *msg;

    if (time_msec() < s->since + probe_ms) {
        return 0;
    }
    s->since = time_msec();
    if (has_read(s)) {
        return 0;
    }
    if (s->probed) {
        return ETIMEDOUT;
    }
    s->probed = true;
    msg = jsonrpc_create_request("echo", json_array_create_empty(), &id);
    json_destroy(id);
    return jsonrpc_send(s->down, msg);
}

/* 0, or an errno: it is over. */
static int
session_run(struct session *s, int probe_ms)
{
    int error;

    jsonrpc_run(s->down);
    jsonrpc_run(s->up);
    error = jsonrpc_get_status(s->down);
    error = error ? error : jsonrpc_get_status(s->up);
    error = error ? error : run_host(s);
    error = error ? error : run_server(s);
    return error ? error : probe(s, probe_ms);
}

static void
session_wait(struct session *s, int probe_ms)
{
    jsonrpc_wait(s->down);
    jsonrpc_wait(s->up);
    if (takes_from_host(s)) {
        jsonrpc_recv_wait(s->down);
    }
    if (takes_from_server(s)) {
        jsonrpc_recv_wait(s->up);
    }
    poll_timer_wait_until(s->since + probe_ms);
}

/* --- from connection to session ------------------------------------------------------- */

static bool
is_name(const char *name)
{
    size_t n = name ? strlen(name) : 0;

    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)name[i] < ' ') {
            return false;
        }
    }
    return n && n <= MAX_NAME && !utf8_validate(name, NULL);
}

static size_t
count_of(const struct dbgate *g, const char *host)
{
    const struct session *s;
    size_t n = 0;

    LIST_FOR_EACH (s, who.node, &g->sessions) {
        n += !strcmp(s->host, host);
    }
    return n;
}

/* The host is known: to the server.  0, EAGAIN (not yet), or an errno. */
static int
admit(struct dbgate *g, struct session *s)
{
    const char *name = stream_get_peer_id(s->stream);
    struct stream *stream;
    int error;

    if (!is_name(name)) {
        return EACCES;
    }
    if (!s->host) {
        s->host = xstrdup(name);
    }
    if (!dbgate_hosts_known(g->hosts)) {
        return EAGAIN;
    }
    if (!dbgate_hosts_has(g->hosts, name)) {
        VLOG_INFO_RL(&rl, "%s: the pool has no such host", name);
        return EACCES;
    }
    /* It was looked at when it came, which may be before the newest list. */
    if (!host_peer_still_good(s->ssl)) {
        return EACCES;
    }
    if (g->n_sessions >= MAX_SESSIONS || count_of(g, name) >= MAX_PER_HOST) {
        return EMFILE;
    }
    error = jsonrpc_stream_open(g->server, &stream, 0);
    if (error) {
        return error;
    }
    s->up = jsonrpc_open(stream);
    s->down = jsonrpc_open(s->stream);
    s->stream = NULL;
    s->since = time_msec();
    s->good_until = host_peer_good_until(s->ssl);
    g->n_handshakes--;
    g->n_sessions++;
    ovs_list_remove(&s->who.node);
    ovs_list_push_back(&g->sessions, &s->who.node);
    return 0;
}

static void
drop_handshake(struct dbgate *g, struct session *s, int error)
{
    VLOG_INFO_RL(&rl, "%s%s%s: not connected: %s", stream_get_name(s->stream), s->host ? ", " : "",
                 s->host ? s->host : "", ovs_strerror(error));
    g->n_handshakes--;
    session_destroy(s);
}

static void
shake_hands(struct dbgate *g)
{
    struct session *s;

    LIST_FOR_EACH_SAFE (s, who.node, &g->handshakes) {
        int error;

        stream_run(s->stream);
        error = stream_connect(s->stream);
        if (!error) {
            error = admit(g, s);
        }
        if (error == EAGAIN && time_msec() >= s->since + HANDSHAKE_MS) {
            error = ETIMEDOUT;
        }
        if (error && error != EAGAIN) {
            drop_handshake(g, s, error);
        }
    }
}

static void
take_connections(struct dbgate *g)
{
    struct stream *stream;

    for (int i = 0; i < CONNECTIONS_A_TURN && !pstream_accept(g->listener, &stream); i++) {
        struct session *s = xzalloc(sizeof *s);

        s->stream = stream;
        s->who.address = stranger_address(stream, g->basis);
        s->ssl = host_peer_newest();
        s->since = time_msec();
        ovs_list_init(&s->pending);
        ovs_list_push_back(&g->handshakes, &s->who.node);
        if (++g->n_handshakes > MAX_HANDSHAKES) {
            drop_handshake(
                g, CONTAINER_OF(stranger_makes_room(&g->handshakes), struct session, who), EMFILE);
        }
    }
}

/* --- the gate ------------------------------------------------------------------------- */

int
dbgate_open(const char *listen, const char *server, int probe_ms, struct dbgate **gp)
{
    struct dbgate *g = xzalloc(sizeof *g);
    int error = jsonrpc_pstream_open(listen, &g->listener, 0);

    if (error) {
        free(g);
        return error;
    }
    g->server = xstrdup(server);
    g->hosts = dbgate_hosts_open(server);
    g->probe_ms = probe_ms;
    g->basis = random_uint32();
    ovs_list_init(&g->handshakes);
    ovs_list_init(&g->sessions);
    *gp = g;
    return 0;
}

static void
end_session(struct dbgate *g, struct session *s, const char *why)
{
    VLOG_INFO_RL(&rl, "%s (%s): closed: %s", s->host, jsonrpc_get_name(s->down), why);
    g->n_sessions--;
    session_destroy(s);
}

static void
put_out_strangers(struct dbgate *g)
{
    struct session *s;

    LIST_FOR_EACH_SAFE (s, who.node, &g->sessions) {
        if (!dbgate_hosts_has(g->hosts, s->host)) {
            end_session(g, s, "the pool has no such host any more");
        }
    }
}

void
dbgate_recheck(struct dbgate *g)
{
    struct session *s;

    LIST_FOR_EACH_SAFE (s, who.node, &g->handshakes) {
        if (s->host && !host_peer_still_good(s->ssl)) {
            drop_handshake(g, s, EACCES);
        }
    }
    LIST_FOR_EACH_SAFE (s, who.node, &g->sessions) {
        if (!host_peer_still_good(s->ssl)) {
            end_session(g, s, "its certificate is not good any more");
        }
    }
}

void
dbgate_run(struct dbgate *g)
{
    struct session *s;

    if (dbgate_hosts_run(g->hosts)) {
        put_out_strangers(g);
    }
    take_connections(g);
    shake_hands(g);
    LIST_FOR_EACH_SAFE (s, who.node, &g->sessions) {
        int error = session_run(s, g->probe_ms);

        if (error) {
            end_session(g, s, ovs_retval_to_string(error));
        } else if (time_wall_msec() >= s->good_until) {
            end_session(g, s, "its certificate has expired");
        }
    }
}

void
dbgate_wait(struct dbgate *g)
{
    struct session *s;

    dbgate_hosts_wait(g->hosts);
    pstream_wait(g->listener);
    LIST_FOR_EACH (s, who.node, &g->handshakes) {
        stream_run_wait(s->stream);
        if (!s->host) { /* else it is done, and the hosts are to be read */
            stream_connect_wait(s->stream);
        }
        poll_timer_wait_until(s->since + HANDSHAKE_MS);
    }
    LIST_FOR_EACH (s, who.node, &g->sessions) {
        session_wait(s, g->probe_ms);
    }
}

void
dbgate_close(struct dbgate *g)
{
    struct session *s;

    LIST_FOR_EACH_SAFE (s, who.node, &g->handshakes) {
        session_destroy(s);
    }
    LIST_FOR_EACH_SAFE (s, who.node, &g->sessions) {
        session_destroy(s);
    }
    pstream_close(g->listener);
    dbgate_hosts_close(g->hosts);
    free(g->server);
    free(g);
}
