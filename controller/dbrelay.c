/* Theory of Operation
 * ===================
 *
 *     comes -> (its handshake) -> goes on -> (the other handshake) -> open -> (ends) -> closed
 *
 * A session has two ends, who came and where it goes, each of which may be TLS.  TLS decides
 * in its handshake (host_peer.h); before bytes pass, and again whenever there are new lists,
 * the certificates are looked at once more.  If either end closes, so does the other, once
 * TLS has written what it was given (a piece at most) and its machine has taken that: it is
 * told that nothing more comes, and then it closes.  An end that takes nothing any more has not
 * closed yet: what it said before is still to be read, and then it has.
 *
 * Strangers cost a handshake each, of which there are a bounded number; who has most of them
 * makes room (stranger.h).  An address has a share of the sessions, for a host may come to a copy.
 *
 * One piece of bytes waits in each direction; while it does, no more is read there.  So who
 * does not read is held back at the server, which keeps changes together for it, and costs
 * nothing here.  The kernel tells when a machine is gone: we say nothing of our own in what
 * others say to each other. */
#include <config.h>

#include "dbrelay.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "host_peer.h"
#include "jsonrpc.h"
#include "openvswitch/list.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "random.h"
#include "stranger.h"
#include "stream.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dbrelay);

/* One each, so that none hides another: who is not let in, who is put out, what breaks. */
static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(20, 20);
static struct vlog_rate_limit put_out_rl = VLOG_RATE_LIMIT_INIT(20, 20);
static struct vlog_rate_limit broken_rl = VLOG_RATE_LIMIT_INIT(20, 20);

enum {
    MAX_SESSIONS = 1000,
    MAX_PER_ADDRESS = 64,
    MAX_HANDSHAKES = 64,
    HANDSHAKE_MS = 10000,
    LEFT_MS = 10000, /* for the last piece, and to close */
    CONNECTIONS_A_TURN = 16,
    PIECE = 16 << 10,
    PIECES_A_TURN = 16,
};

struct end {
    struct stream *stream;
    struct ssl_st *ssl; /* of 'stream'; NULL: no TLS */
    bool connected;
    bool silent;       /* it has closed its side, or is gone */
    bool deaf;         /* it takes nothing any more */
    char piece[PIECE]; /* what came and has not gone to the other end */
    size_t at, n;      /* the rest of it */
};

struct session {
    struct stranger who; /* came; in 'handshakes' or 'sessions' of dbrelay */
    struct end from, to; /* him; where he goes, no stream until 'from' is connected */
    struct end *left;    /* the other one has closed; NULL: neither */
    int why;             /* has it: EOF, or an errno */
    bool told;           /* 'left' has been, that nothing more comes */
    long long int left_until;
    long long int until; /* of a handshake; else what its certificates last, by
                          * time_wall_msec() */
};

struct dbrelay {
    struct pstream *listener;
    bool listens_tls;
    char *server;
    int probe_ms;
    uint32_t basis;                       /* of addresses' hashes */
    struct ovs_list handshakes, sessions; /* the oldest first */
    size_t n_handshakes, n_sessions;
};

/* --- sessions ----------------------------------------------------------------------- */

static void
session_destroy(struct session *s)
{
    ovs_list_remove(&s->who.node);
    stream_close(s->from.stream);
    stream_close(s->to.stream);
    free(s);
}

/* What one end sends goes to the other.  0, or why it sends no more: an errno, or EOF. */
static int
pass(struct end *from, struct end *to)
{
    for (int i = 0; i < PIECES_A_TURN; i++) {
        int n;

        if (!from->n) {
            n = stream_recv(from->stream, from->piece, sizeof from->piece);
            if (n <= 0) {
                return n == -EAGAIN ? 0 : n ? -n : EOF;
            }
            from->at = 0;
            from->n = (size_t)n;
        }
        n = to->deaf ? (int)from->n : stream_send(to->stream, from->piece + from->at, from->n);
        if (n == -EAGAIN) {
            return 0;
        }
        if (n < 0) {
            to->deaf = true;
            n = (int)from->n;
        }
        from->at += (size_t)n;
        from->n -= (size_t)n;
    }
    return 0;
}

/* What it still says goes nowhere; unread, it would have TCP take back what was written. */
static void
discard(struct end *end)
{
    for (int i = 0; i < PIECES_A_TURN && !end->silent; i++) {
        int n = stream_recv(end->stream, end->piece, sizeof end->piece);

        if (n == -EAGAIN) {
            break;
        }
        end->silent = n <= 0;
    }
}

/* False: TLS has not yet written all that it was given.  That it wants to write it says also
 * after a write that failed for good, unlike what it writes to. */
static bool
has_written(struct end *end)
{
    stream_run(end->stream); /* writes, if there is anything to be written */
    return !SSL_want_write(end->ssl) || !BIO_should_write(SSL_get_wbio(end->ssl));
}

/* That nothing more comes.  False: not yet. */
static bool
tell(struct end *end)
{
    int n = SSL_shutdown(end->ssl);

    if (n < 0 && SSL_get_error(end->ssl, n) == SSL_ERROR_WANT_WRITE) {
        return false;
    }
    ERR_clear_error(); /* or other sessions would take it for theirs */
    shutdown(SSL_get_fd(end->ssl), SHUT_WR);
    return true;
}

/* 0: it goes on; else it is over, as the one that closed says why. */
static int
run_left(struct session *s)
{
    struct end *end = s->left;

    if (!end->ssl || end->deaf || time_msec() >= s->left_until) {
        return s->why;
    }
    discard(end);
    s->told = s->told || (has_written(end) && tell(end));
    return s->told && end->silent ? s->why : 0;
}

/* 0: it goes on; else it is over. */
static int
session_run(struct session *s)
{
    if (s->left) {
        return run_left(s);
    }
    stream_run(s->from.stream);
    stream_run(s->to.stream);
    s->why = pass(&s->to, &s->from);
    s->left = s->why ? &s->from : NULL;
    if (!s->why) {
        s->why = pass(&s->from, &s->to);
        s->left = s->why ? &s->to : NULL;
    }
    s->left_until = time_msec() + LEFT_MS;
    return s->left ? run_left(s) : 0;
}

static void
pass_wait(const struct end *from, const struct end *to)
{
    if (from->n) {
        stream_send_wait(to->stream);
    } else {
        stream_recv_wait(from->stream);
    }
}

static void
session_wait(const struct session *s)
{
    if (s->left) {
        stream_run_wait(s->left->stream);
        poll_timer_wait_until(s->left_until);
        if (!s->told) {
            poll_fd_wait(SSL_get_fd(s->left->ssl), POLLOUT);
        }
        if (!s->left->silent) {
            stream_recv_wait(s->left->stream);
        }
        return;
    }
    stream_run_wait(s->from.stream);
    stream_run_wait(s->to.stream);
    pass_wait(&s->from, &s->to);
    pass_wait(&s->to, &s->from);
}

static bool
is_good(struct ssl_st *ssl)
{
    return !ssl || host_peer_still_good(ssl);
}

/* --- from connection to session ------------------------------------------------------- */

/* 0, EAGAIN (not yet), or an errno. */
static int
connect_end(struct dbrelay *r, struct end *end)
{
    int error;

    if (end->connected) {
        return 0;
    }
    stream_run(end->stream);
    error = stream_connect(end->stream);
    if (!error) {
        end->connected = true;
        if (end->ssl) {
            host_peer_watch(end->ssl, r->probe_ms);
        }
    }
    return error;
}

static int
open_server(struct dbrelay *r, struct session *s)
{
    int error = jsonrpc_stream_open(r->server, &s->to.stream, 0);

    if (!error && !strncmp(r->server, "ssl:", 4)) {
        s->to.ssl = host_peer_newest();
    }
    return error == EAGAIN ? EBUSY : error; /* a Unix socket whose queue is full */
}

static long long int
good_until(const struct end *end)
{
    return end->ssl ? host_peer_good_until(end->ssl) : LLONG_MAX;
}

/* 0: it is open; EAGAIN (not yet), or an errno. */
static int
admit(struct dbrelay *r, struct session *s)
{
    int error = connect_end(r, &s->from);

    if (!error && !s->to.stream) {
        bool full = r->n_sessions >= MAX_SESSIONS ||
                    stranger_count(&r->sessions, s->who.address) >= MAX_PER_ADDRESS;

        error = !is_good(s->from.ssl) ? EACCES : full ? EMFILE : open_server(r, s);
    }
    if (!error) {
        error = connect_end(r, &s->to);
    }
    if (error) {
        return error;
    }
    /* They were looked at when they came, which may be before the newest list. */
    if (!is_good(s->from.ssl) || !is_good(s->to.ssl)) {
        return EACCES;
    }
    s->until = MIN(good_until(&s->from), good_until(&s->to));
    r->n_handshakes--;
    r->n_sessions++;
    ovs_list_remove(&s->who.node);
    ovs_list_push_back(&r->sessions, &s->who.node);
    return 0;
}

static void
drop_handshake(struct dbrelay *r, struct session *s, int error)
{
    VLOG_INFO_RL(&rl, "%s: not connected%s%s: %s", stream_get_name(s->from.stream),
                 s->from.connected ? " to " : "", s->from.connected ? r->server : "",
                 ovs_strerror(error));
    r->n_handshakes--;
    session_destroy(s);
}

static void
shake_hands(struct dbrelay *r)
{
    struct session *s;

    LIST_FOR_EACH_SAFE (s, who.node, &r->handshakes) {
        int error = admit(r, s);

        if (error == EAGAIN && time_msec() >= s->until) {
            error = ETIMEDOUT;
        }
        if (error && error != EAGAIN) {
            drop_handshake(r, s, error);
        }
    }
}

static void
take_connections(struct dbrelay *r)
{
    struct stream *stream;

    for (int i = 0; i < CONNECTIONS_A_TURN && !pstream_accept(r->listener, &stream); i++) {
        struct session *s = xzalloc(sizeof *s);

        s->from.stream = stream;
        s->who.address = stranger_address(stream, r->basis);
        s->from.ssl = r->listens_tls ? host_peer_newest() : NULL;
        s->until = time_msec() + MIN(HANDSHAKE_MS, 2 * r->probe_ms);
        ovs_list_push_back(&r->handshakes, &s->who.node);
        if (++r->n_handshakes > MAX_HANDSHAKES) {
            drop_handshake(
                r, CONTAINER_OF(stranger_makes_room(&r->handshakes), struct session, who), EMFILE);
        }
    }
}

/* --- the relay ------------------------------------------------------------------------ */

int
dbrelay_open(const char *listen, const char *server, int probe_ms, struct dbrelay **rp)
{
    struct dbrelay *r = xzalloc(sizeof *r);
    int error = jsonrpc_pstream_open(listen, &r->listener, 0);

    if (error) {
        free(r);
        return error;
    }
    r->listens_tls = !strncmp(listen, "pssl:", 5);
    r->server = xstrdup(server);
    r->probe_ms = probe_ms;
    r->basis = random_uint32();
    ovs_list_init(&r->handshakes);
    ovs_list_init(&r->sessions);
    *rp = r;
    return 0;
}

static void
end_session(struct dbrelay *r, struct session *s)
{
    r->n_sessions--;
    session_destroy(s);
}

static void
put_out(struct dbrelay *r, struct session *s, const char *why)
{
    VLOG_INFO_RL(&put_out_rl, "%s to %s: closed: %s", stream_get_name(s->from.stream), r->server,
                 why);
    end_session(r, s);
}

/* The servers of a pair ask each other every other second: who goes by himself is no news. */
static void
note_end(const struct dbrelay *r, const struct session *s, int error)
{
    VLOG_RL(&broken_rl, error == EOF ? VLL_DBG : VLL_INFO, "%s to %s: closed: %s",
            stream_get_name(s->from.stream), r->server, ovs_retval_to_string(error));
}

void
dbrelay_recheck(struct dbrelay *r)
{
    struct session *s;

    LIST_FOR_EACH_SAFE (s, who.node, &r->sessions) {
        if (!is_good(s->from.ssl) || !is_good(s->to.ssl)) {
            put_out(r, s, "a certificate is not good any more");
        }
    }
}

void
dbrelay_run(struct dbrelay *r)
{
    struct session *s;

    take_connections(r);
    shake_hands(r);
    LIST_FOR_EACH_SAFE (s, who.node, &r->sessions) {
        int error = session_run(s);

        if (error) {
            note_end(r, s, error);
            end_session(r, s);
        } else if (time_wall_msec() >= s->until) {
            put_out(r, s, "a certificate has expired");
        }
    }
}

void
dbrelay_wait(struct dbrelay *r)
{
    struct session *s;

    pstream_wait(r->listener);
    LIST_FOR_EACH (s, who.node, &r->handshakes) {
        struct end *end = s->from.connected ? &s->to : &s->from;

        stream_run_wait(end->stream);
        stream_connect_wait(end->stream);
        poll_timer_wait_until(s->until);
    }
    LIST_FOR_EACH (s, who.node, &r->sessions) {
        session_wait(s);
    }
}

void
dbrelay_close(struct dbrelay *r)
{
    struct session *s;

    LIST_FOR_EACH_SAFE (s, who.node, &r->handshakes) {
        session_destroy(s);
    }
    LIST_FOR_EACH_SAFE (s, who.node, &r->sessions) {
        session_destroy(s);
    }
    pstream_close(r->listener);
    free(r->server);
    free(r);
}
