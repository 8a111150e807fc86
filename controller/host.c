#include <config.h>

#include "host_extra.h"
#include "host_priv.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "openvswitch/dynamic-string.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/rconn.h"
#include "openvswitch/vlog.h"
#include "packets.h"
#include "socket-util.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(host);

static bool plain_allowed;

void
host_allow_plain(void)
{
    plain_allowed = true;
}

/* --- life ---------------------------------------------------------------------- */

struct host *
host_create(const char *name)
{
    struct host *h = xzalloc(sizeof *h);

    h->name = xstrdup(name);
    host_of_init(h);
    return h;
}

static void
free_config(struct host_config *c)
{
    free(CONST_CAST(char *, c->name));
    free(CONST_CAST(char *, c->ovsdb));
    free(CONST_CAST(char *, c->openflow));
    free(CONST_CAST(char *, c->bridge));
    free(CONST_CAST(char *, c->uplink));
}

void
host_destroy(struct host *h)
{
    if (!h) {
        return;
    }
    host_of_destroy(h);
    host_db_close(h);
    if (h->want) {
        ftable_track(h->want, false);
    }
    host_peer_forget(&h->ovsdb_peer);
    host_peer_forget(&h->openflow_peer);
    host_db_free_ports(h->ports, h->n_ports);
    host_db_free_pifs(h->pifs, h->n_pifs);
    host_extra_free(h->extra);
    free_config(&h->cfg);
    free(h->name);
    free(h);
}

/* --- what is stated -------------------------------------------------------------- */

static bool
is_loopback(const struct sockaddr_storage *ss)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

    return ss->ss_family == AF_INET ? ntohl(in->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET
                                    : IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

/* NULL, or why nothing is to be connected to 'target'. */
static const char *
target_fault(const char *target)
{
    bool tcp = !strncmp(target, "tcp:", 4);
    struct sockaddr_storage ss;

    if (!strncmp(target, "unix:", 5)) {
        return target[5] ? NULL : "names no socket";
    }
    if (strncmp(target, "ssl:", 4) && !tcp) {
        return "is neither ssl:IP:PORT nor unix:PATH";
    }
    if (!inet_parse_active(target + 4, -1, &ss, false, NULL)) {
        return "needs an IP address and a port";
    }
    if (!tcp) {
        return NULL;
    }
    if (!plain_allowed) {
        return "is not encrypted; plain TCP is for tests (--allow-plain)";
    }
    return is_loopback(&ss) ? NULL : "is not encrypted and not on loopback";
}

/* Says in target_error what is wrong with the targets. */
static bool
check_targets(struct host *h)
{
    const char *fault;

    h->target_error[0] = '\0';
    if ((fault = target_fault(h->cfg.ovsdb))) {
        host_set_error(h->target_error, sizeof h->target_error, "ovsdb: %s %s", h->cfg.ovsdb,
                       fault);
    } else if ((fault = target_fault(h->cfg.openflow))) {
        host_set_error(h->target_error, sizeof h->target_error, "openflow: %s %s", h->cfg.openflow,
                       fault);
    }
    return !h->target_error[0];
}

/* Opens and closes connections as configuration and leadership have it. */
static void
set_connections(struct host *h)
{
    if ((h->epoch || h->watch) && h->cfg.name && h->cfg.enabled && check_targets(h)) {
        host_db_open(h);
    } else {
        host_of_close(h);
        host_db_close(h);
    }
}

void
host_configure(struct host *h, const struct host_config *c)
{
    struct host_config old = h->cfg;
    bool moved = !old.name || strcmp(old.ovsdb, c->ovsdb) || strcmp(old.openflow, c->openflow) ||
                 strcmp(old.bridge, c->bridge) || strcmp(old.name, c->name);

    h->cfg = *c;
    h->cfg.name = xstrdup(c->name);
    h->cfg.ovsdb = xstrdup(c->ovsdb);
    h->cfg.openflow = xstrdup(c->openflow);
    h->cfg.bridge = xstrdup(c->bridge);
    h->cfg.uplink = xstrdup(c->uplink);
    free_config(&old);

    if (moved) {
        host_of_close(h);
        host_db_close(h);
        free(h->name);
        h->name = xstrdup(c->name);
        host_peer_expect(&h->ovsdb_peer, c->ovsdb, c->name);
        host_peer_expect(&h->openflow_peer, c->openflow, c->name);
    }
    h->db.dirty = true;
    set_connections(h);
}

void
host_set_epoch(struct host *h, uint64_t epoch)
{
    if (epoch != h->epoch) {
        /* The role is per connection. */
        host_of_close(h);
        h->epoch = epoch;
        h->status.stale = false;
        host_db_again(h);
        set_connections(h);
    }
}

void
host_watch(struct host *h)
{
    h->watch = true;
    set_connections(h);
}

void
host_set_table(struct host *h, struct ftable *want)
{
    if (h->want) {
        ftable_track(h->want, false);
    }
    h->want = want;
    h->want_ports_seqno = 0;
    ftable_track(want, true);
    h->of.in_step = false;
    h->status.applied_revision = 0;
}

void
host_set_meters(struct host *h, const struct mtable *meters)
{
    h->meters = meters;
    h->of.meters_seen = 0;
}

void
host_set_extra(struct host *h, struct host_extra *extra)
{
    if (host_extra_equal(h->extra, extra)) {
        host_extra_free(extra);
        return;
    }
    host_extra_free(h->extra);
    h->extra = extra;
    h->db.dirty = true;
}

void
host_commit(struct host *h, int64_t generation, uint64_t ports_seqno)
{
    /* Perhaps this is what mends a change that was refused. */
    if (h->want_generation != generation && h->of.hold_ms) {
        h->of.retry_at = 0;
    }
    h->want_generation = generation;
    h->want_ports_seqno = ports_seqno;
}

void
host_set_revision(struct host *h, uint64_t revision)
{
    h->want_revision = revision;
}

/* --- turns of the main loop --------------------------------------------------------- */

static void
update_status(struct host *h)
{
    struct host_status *s = &h->status;
    const char *error = h->target_error[0] ? h->target_error
                        : h->of_error[0]   ? h->of_error
                                           : h->db_error;

    s->connected = h->db.ready && h->of.state >= OF_READY;
    if (s->connected) {
        s->last_seen_ms = time_wall_msec();
    }
    ovs_strlcpy(s->error, error, sizeof s->error);
}

void
host_run(struct host *h)
{
    bool limits = h->meters && mtable_count(h->meters);

    if (limits != h->limits) {
        h->limits = limits;
        h->db.dirty = true;
    }
    host_limit_begin(&h->db.limit);
    host_db_run(h);
    host_limit_begin(NULL);
    host_of_run(h);
    host_limit_end();
    update_status(h);
}

void
host_wait(struct host *h)
{
    host_db_wait(h);
    host_of_wait(h);
}

/* --- what there is ------------------------------------------------------------------- */

const char *
host_name(const struct host *h)
{
    return h->name;
}

const struct host_status *
host_get_status(const struct host *h)
{
    return &h->status;
}

uint64_t
host_get_ports_seqno(const struct host *h)
{
    return h->ports_seqno;
}

uint64_t
host_get_pifs_seqno(const struct host *h)
{
    return h->pifs_seqno;
}

const struct host_pif *
host_get_pifs(const struct host *h, size_t *n)
{
    *n = h->n_pifs;
    return h->pifs;
}

const struct host_port *
host_get_ports(const struct host *h, size_t *n)
{
    *n = h->n_ports;
    return h->ports;
}

void
host_audit(struct host *h)
{
    h->of.audit_at = time_msec();
}

void
host_format(const struct host *h, struct ds *ds)
{
    const struct host_status *s = &h->status;

    ds_put_format(ds, "%s: %s, openflow %s, ovsdb %s%s\n", h->name,
                  s->connected      ? "connected"
                  : !h->cfg.enabled ? "disabled"
                  : !h->epoch       ? "not led by us"
                                    : "not connected",
                  host_of_state_name(h->of.state),
                  h->db.ready ? "ready"
                  : h->db.idl ? "connecting"
                              : "closed",
                  s->stale ? ", obeys a newer controller" : "");
    if (s->switch_type[0]) {
        ds_put_format(ds, "  switch: %s %s, datapath %s\n", s->switch_type, s->version,
                      s->datapath_type[0] ? s->datapath_type : "system");
    }
    ds_put_format(ds, "  generation: applied %" PRId64 ", wanted %" PRId64 "\n",
                  s->applied_generation, h->want_generation);
    ds_put_format(ds,
                  "  flows: %" PRIuSIZE " wanted, %" PRIuSIZE " in flight, %" PRIuSIZE
                  " waiting; %" PRIu64 " sent in %" PRIu64 " bundles, %" PRIu64 " refused\n",
                  h->want ? ftable_count(h->want) : 0, fdelta_count(&h->of.inflight),
                  fdelta_count(&h->of.pending), s->n_flow_mods, s->n_pushes, s->n_refused);
    ds_put_format(ds, "  ports: %" PRIuSIZE "; meters: %" PRIuSIZE "\n", h->n_ports,
                  mtable_count(&h->of.meters_have));
    if (s->drift.at_ms) {
        ds_put_format(ds,
                      "  compared %lld s ago: %" PRIuSIZE " missing, %" PRIuSIZE
                      " foreign; %" PRIu64 " repaired since the start\n",
                      (time_msec() - s->drift.at_ms) / 1000, s->drift.missing, s->drift.foreign,
                      s->n_drift);
    }
    if (s->error[0]) {
        ds_put_format(ds, "  error: %s\n", s->error);
    }
}

/* --- for the other files ------------------------------------------------------------- */

void
host_set_error(char *where, size_t size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(where, size, format, args);
    va_end(args);
}

void
host_step(const struct host *h, const char *step)
{
    static const char *kill_at;
    static size_t len;
    static int left;
    const char *colon;

    if (!kill_at) {
        kill_at = getenv("WEFT_TEST_KILL_AT");
        kill_at = kill_at ? kill_at : "";
        colon = strchr(kill_at, ':');
        len = colon ? colon - kill_at : strlen(kill_at);
        left = colon ? atoi(colon + 1) : 1;
    }
    VLOG_DBG("%s: %s", h->name, step);
    if (len && strlen(step) == len && !strncmp(step, kill_at, len) && --left <= 0) {
        VLOG_WARN("%s: WEFT_TEST_KILL_AT: ends at step \"%s\"", h->name, step);
        if (h->of.rconn) {
            rconn_run(h->of.rconn); /* what was sent before is written */
        }
        kill(getpid(), SIGKILL);
    }
}
