/* Theory of Operation
 * ===================
 *
 * ovsdb-server is started as what server.json says.  A primary first asks the
 * server that keeps its copy, if the row Pool names one, and starts only when
 * that has answered: a copy that was promoted meanwhile has a greater number,
 * and then this server becomes its copy.  Every two seconds a primary looks
 * again, at its own row (has it been closed?) and at its peer's; so it also
 * steps down when it merely stood still.  A copy runs and answers from the
 * start, and follows once its primary has been seen not to be older.
 *
 * A promotion is server.json's "promote": the row is written while no server
 * runs, so nobody sees the database between copy and primary, and it is done
 * again if we die before server.json says that it is done.
 *
 * With a list of revoked certificates weft-dbgate is at the server's ports, and the
 * peer is asked by way of another (pool_db_relay.c): they come before the server, and go
 * before it, because a copy's lets in whom a primary's does not. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli_cmd.h"
#include "pool_db.h"

enum { LOOK_S = 2, SOON_NS = 300000000, STOP_MS = 3000, EPOCH_BITS = 40 };

struct runner {
    struct pdb conf;
    pid_t server;   /* 0: does not run */
    pid_t hosts;    /* likewise what serves hosts, while the server runs */
    pid_t relay;    /* likewise what is at its ports, with a list of revoked certificates */
    pid_t asker;    /* likewise by what the peer is asked */
    bool follows;   /* a copy */
    char said[160]; /* last, so that the same is not said again */
};

static void __attribute__((format(printf, 2, 3))) say(struct runner *r, const char *format, ...)
{
    char text[sizeof r->said];
    va_list va;

    va_start(va, format);
    vsnprintf(text, sizeof text, format, va);
    va_end(va);
    if (strcmp(text, r->said) != 0) {
        printf("%s: %s\n", r->conf.name, text);
        fflush(stdout);
        strcpy(r->said, text);
    }
}

static void
end(pid_t *pid)
{
    const struct timespec tick = {0, 10000000};

    if (!*pid) {
        return;
    }
    kill(*pid, SIGTERM);
    for (int ms = 0; *pid; ms += 10) {
        if (waitpid(*pid, NULL, WNOHANG)) {
            *pid = 0;
        } else if (ms == STOP_MS) {
            kill(*pid, SIGKILL);
        }
        nanosleep(&tick, NULL);
    }
}

static void
end_relay(struct runner *r)
{
    char path[PDB_PATH];

    end(&r->relay);
    end(&r->asker);
    pdb_path(&r->conf, "peer.sock", path);
    unlink(path);
}

/* First who may let others in by another role's rules. */
static void
stop(struct runner *r)
{
    end(&r->hosts);
    end_relay(r);
    end(&r->server);
}

/* --- changes of role ------------------------------------------------------------- */

static int
become_copy(struct runner *r, char *why)
{
    char from[PDB_PATH], to[PDB_PATH];

    stop(r);
    /* What only this server had is not thrown away. */
    pdb_path(&r->conf, "pool.db", from);
    pdb_path(&r->conf, "pool.db.replaced", to);
    const char *cp[] = {"cp", "--", from, to, NULL};
    int error = pdb_run(cp, 0, NULL, why);

    r->conf.role = PDB_COPY;
    return error ? error : pdb_save(&r->conf, why);
}

static int
become_primary(struct runner *r, char *why)
{
    char columns[600], copy[128] = "";

    stop(r);
    if (r->conf.promote_with_copy) {
        pdb_sync_target(&r->conf, true, copy);
    }
    snprintf(columns, sizeof columns,
             "\"fence\":%lld,\"closed\":false,\"primary\":\"%s\",\"copy\":\"%s\",\"leader\":\"\","
             "\"leader_epoch\":%lld",
             (long long)r->conf.promote, r->conf.name, copy,
             (long long)r->conf.promote << EPOCH_BITS);
    int error = pdb_write_row(&r->conf, NULL, NULL, columns, why);
    if (!error) {
        r->conf.role = PDB_PRIMARY;
        r->conf.promote = 0;
        error = pdb_save(&r->conf, why);
    }
    return error;
}

/* --- may it serve? --------------------------------------------------------------------- */

/* Whether a primary is one still; false: it has become a copy, or cannot know yet. */
static bool
is_primary(struct runner *r)
{
    struct pdb_row own, other;
    char why[PDB_WHY], target[PDB_PATH];

    if (pdb_read_row(&r->conf, NULL, &own, why)) {
        say(r, "the database cannot be read: %.100s", why);
        return false;
    }
    if (!*r->conf.peer_ip) {
        return true;
    }
    pdb_peer_target(&r->conf, target);
    if (own.closed) {
        say(r, "%s is primary now; follows it", own.primary);
    } else if (pdb_read_row(&r->conf, target, &other, why)) {
        if (*own.copy && !r->server) {
            say(r, "waits for the copy at %s: has it been promoted? (weft pool db copy %.40s none)",
                own.copy, r->conf.dir);
            return false;
        }
        return true;
    } else if (other.fence > own.fence) {
        say(r, "%s was promoted (%lld > %lld); follows it", other.primary, (long long)other.fence,
            (long long)own.fence);
    } else {
        return true;
    }
    if (become_copy(r, why)) {
        say(r, "cannot become a copy: %.100s", why);
    }
    return false;
}

/* A copy that started over from an older database would lose what it has. */
static bool
may_follow(struct runner *r)
{
    struct pdb_row own, other;
    char why[PDB_WHY], target[PDB_PATH];

    pdb_peer_target(&r->conf, target);
    if (pdb_read_row(&r->conf, NULL, &own, why)) {
        return true; /* it has nothing */
    }
    if (pdb_read_row(&r->conf, target, &other, why)) {
        say(r, "waits for the primary at %s", target);
        return false;
    }
    if (other.fence < own.fence) {
        say(r, "does not follow %s, whose database is older (%lld < %lld)", target,
            (long long)other.fence, (long long)own.fence);
        return false;
    }
    return true;
}

/* A copy answers whoever asks, whether it has its primary or not. */
static void
follow(struct runner *r)
{
    char why[PDB_WHY];

    if (!r->follows && may_follow(r)) {
        if (pdb_follow(&r->conf, why)) {
            say(r, "%.100s", why);
        } else {
            r->follows = true;
            say(r, "follows %s:%u", r->conf.peer_ip, r->conf.peer_port);
        }
    }
}

static void
start(struct runner *r)
{
    char why[PDB_WHY], socket[PDB_PATH];

    /* A killed server leaves it; without it the file is read. */
    pdb_path(&r->conf, "db.sock", socket);
    unlink(socket);
    if (r->conf.promote && become_primary(r, why)) {
        say(r, "cannot become primary: %.100s", why);
        return;
    }
    if (!pdb_relay_ready(&r->conf)) {
        return; /* it starts */
    }
    if (r->conf.role == PDB_PRIMARY && !is_primary(r)) {
        return;
    }
    r->follows = false;
    if (pdb_start(&r->conf, &r->server, why)) {
        say(r, "%.100s", why);
        return;
    }
    say(r, "runs as %s", pdb_role_name(r->conf.role));
}

/* --- hosts --------------------------------------------------------------------------------- */

static void
look_after_hosts(struct runner *r)
{
    char why[PDB_WHY], socket[PDB_PATH];

    if (r->hosts && waitpid(r->hosts, NULL, WNOHANG) == r->hosts) {
        r->hosts = 0;
        say(r, "what serves hosts has ended");
    }
    if (!r->server || r->conf.role == PDB_COPY || !*r->conf.hosts_ca) {
        end(&r->hosts);
        return;
    }
    pdb_path(&r->conf, "db.sock", socket);
    if (access(socket, F_OK)) {
        return; /* it starts */
    }
    if (!r->hosts && pdb_hosts_start(&r->conf, &r->hosts, why)) {
        say(r, "cannot serve hosts: %.100s", why);
    }
}

/* --- the ports, with a list of revoked certificates ---------------------------------------- */

static void
look_after_relay(struct runner *r)
{
    char why[PDB_WHY];

    if (r->relay && waitpid(r->relay, NULL, WNOHANG) == r->relay) {
        r->relay = 0;
        say(r, "what is at the ports has ended");
    }
    if (r->asker && waitpid(r->asker, NULL, WNOHANG) == r->asker) {
        r->asker = 0;
        say(r, "what asks the other server has ended");
    }
    if (!*r->conf.crl) {
        end_relay(r);
        return;
    }
    if (r->conf.promote) {
        return;
    }
    if (!r->relay && pdb_relay_start(&r->conf, &r->relay, why)) {
        say(r, "cannot open the ports: %.100s", why);
    }
    if (!r->asker && pdb_asks(&r->conf) && pdb_asker_start(&r->conf, &r->asker, why)) {
        say(r, "cannot ask the other server: %.100s", why);
    }
}

/* The authorities of who comes to a copy may be others by now: who reads the file notices. */
static void
look_after_authorities(struct runner *r)
{
    char path[PDB_PATH], why[PDB_WHY];

    if (r->conf.role == PDB_COPY && *r->conf.hosts_ca && (r->server || r->relay) &&
        pdb_both_authorities(&r->conf, path, why)) {
        say(r, "%.150s", why);
    }
}

/* --- the loop ----------------------------------------------------------------------------- */

/* What does otherwise from now on is ended, and started anew. */
static void
adopt(struct runner *r, const struct pdb *conf)
{
    bool hosts_ca = strcmp(conf->hosts_ca, r->conf.hosts_ca) != 0;
    bool hosts_crl = strcmp(conf->hosts_crl, r->conf.hosts_crl) != 0;
    bool copies = conf->role == PDB_COPY;

    if (hosts_ca || hosts_crl) {
        end(&r->hosts);
    }
    if (strcmp(conf->crl, r->conf.crl) || strcmp(conf->peer_ip, r->conf.peer_ip) ||
        conf->peer_port != r->conf.peer_port || (copies && (hosts_ca || hosts_crl))) {
        end_relay(r);
    }
    if (!*conf->crl != !*r->conf.crl || (copies && hosts_ca && !*conf->crl)) {
        end(&r->server);
    }
    r->conf = *conf;
}

/* The commands changed server.json.  False: the server has left. */
static bool
reload(struct runner *r)
{
    struct pdb conf;
    char why[PDB_WHY];

    if (pdb_load(&conf, r->conf.dir, why)) {
        say(r, "%.150s", why);
        return true;
    }
    if (conf.role == PDB_LEFT) {
        stop(r);
        return false;
    }
    adopt(r, &conf);
    if (conf.promote) {
        stop(r);
    }
    return true;
}

static void
reap(struct runner *r)
{
    int status;

    if (r->server && waitpid(r->server, &status, WNOHANG) == r->server) {
        r->server = 0;
        say(r, "ovsdb-server ended (%s %d)", WIFSIGNALED(status) ? "signal" : "status",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
}

static void
look(struct runner *r)
{
    reap(r);
    look_after_authorities(r);
    look_after_relay(r);
    if (!r->server) {
        start(r);
    } else if (r->conf.role == PDB_COPY) {
        follow(r);
    } else if (r->conf.role == PDB_PRIMARY && !is_primary(r) && !r->server) {
        start(r);
    }
    look_after_hosts(r);
}

int
pool_db_run_main(const char *dir)
{
    struct runner r = {.server = 0};
    struct timespec wait = {0, 0};
    char why[PDB_WHY];
    sigset_t signals;
    int sig;

    if (pdb_load(&r.conf, dir, why) || pdb_become_runner(&r.conf, why)) {
        fprintf(stderr, "weft pool db run: %s\n", why);
        return CLI_FAILED;
    }
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    do {
        look(&r);
        wait = (struct timespec){LOOK_S, 0};
        if (!r.server || (r.conf.role == PDB_COPY && !r.follows) || (*r.conf.crl && !r.relay) ||
            (pdb_asks(&r.conf) && !r.asker) ||
            (r.conf.role != PDB_COPY && *r.conf.hosts_ca && !r.hosts)) {
            wait = (struct timespec){0, SOON_NS};
        }
        sig = sigtimedwait(&signals, NULL, &wait);
        if (sig == SIGHUP && !reload(&r)) {
            return CLI_OK;
        }
    } while (sig != SIGTERM && sig != SIGINT);
    stop(&r);
    return CLI_OK;
}
