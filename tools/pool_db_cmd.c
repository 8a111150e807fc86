#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli_cmd.h"
#include "cli_opt.h"
#include "pool_db.h"

enum { ATTEMPT_MS = 100, PROMOTE_MS = 15000, LEAVE_MS = 20000 };

struct db_args {
    char prefix[32];
    const char *name, *address, *peer, *key, *certificate, *ca, *crl;
    unsigned number;
    bool force, json;
    char *operands[2];
    int n;
};

enum { MAKE = 1, PEER = 2, FORCE = 4, JSON = 8, NUMBER = 16, CRL = 32 };

/* Options before, between and behind the operands: DIR and, with 'max' 2, one
 * more.  False: '*exit_code' is set. */
static bool
parse(struct db_args *a, const char *verb, unsigned takes, int max, const char *usage,
      const char *examples, int argc, char **argv, int *exit_code)
{
    const struct {
        unsigned if_taken;
        struct cli_opt opt;
    } all[] = {
        {MAKE, {"name", CLI_STRING, &a->name, "NAME", "the server's"}},
        {MAKE,
         {"address", CLI_STRING, &a->address, "IP[:PORT]", "its (6641, and three ports more)"}},
        {PEER, {"peer", CLI_STRING, &a->peer, "IP[:PORT]", "the other server's, or a member's"}},
        {MAKE, {"private-key", CLI_STRING, &a->key, "FILE", "of its certificate"}},
        {MAKE, {"certificate", CLI_STRING, &a->certificate, "FILE", "its own"}},
        {MAKE, {"ca-cert", CLI_STRING, &a->ca, "FILE", "of the others' certificates"}},
        {NUMBER,
         {"number", CLI_UINT, &a->number, "N", "greater than of databases before (1)", 1, 1000000}},
        {FORCE, {"force", CLI_FLAG, &a->force, NULL, "the primary is gone for good"}},
        {JSON, {"json", CLI_FLAG, &a->json, NULL, "for programs"}},
        {CRL, {"crl", CLI_STRING, &a->crl, "FILE", "hosts' certificates that are revoked"}},
    };
    struct cli_opt opts[sizeof all / sizeof all[0]];
    size_t n = 0;
    char why[200];
    int error = 0;

    memset(a, 0, sizeof *a);
    a->number = 1;
    snprintf(a->prefix, sizeof a->prefix, "weft pool db %s", verb);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (takes & all[i].if_taken) {
            opts[n++] = all[i].opt;
        }
    }
    while (!error && argc > 0) {
        error = cli_parse(opts, n, &argc, &argv, why, sizeof why);
        if (!error && argc > 0) {
            if (a->n == max) {
                snprintf(why, sizeof why, "\"%.80s\" is too much", argv[0]);
                error = EINVAL;
            } else {
                a->operands[a->n++] = *argv++;
                argc--;
            }
        }
    }
    if (error == ECANCELED) {
        printf("Usage: %s %s\n\nOptions:\n", a->prefix, usage);
        cli_print_options(opts, n);
        printf("\nExamples:\n%s", examples);
        *exit_code = CLI_OK;
        return false;
    }
    if (!error && a->n < max) {
        snprintf(why, sizeof why, "what? %s", usage);
        error = EINVAL;
    }
    if (!error && takes & MAKE &&
        (!a->name || !a->address || !a->key || !a->certificate || !a->ca)) {
        snprintf(why, sizeof why,
                 "needs --name, --address, --private-key, --certificate and --ca-cert");
        error = EINVAL;
    }
    if (error) {
        *exit_code = cli_usage_error(a->prefix, why);
    }
    return !error;
}

static int
failed(const struct db_args *a, const char *why)
{
    fprintf(stderr, "%s: %s\n", a->prefix, why);
    return CLI_FAILED;
}

static void
pause_ms(int ms)
{
    const struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

    nanosleep(&ts, NULL);
}

/* --- making servers ----------------------------------------------------------------- */

static int
absolute(const char *file, char to[256], char *why)
{
    char *path = realpath(file, NULL);
    int error = path ? 0 : errno;

    if (!error && (size_t)snprintf(to, 256, "%s", path) >= 256) {
        error = ENAMETOOLONG;
    }
    if (error) {
        snprintf(why, PDB_WHY, "%s: %s", file, strerror(error));
    }
    free(path);
    return error;
}

/* The directory with what the options say in '*p'. */
static int
prepare(const struct db_args *a, struct pdb *p, enum pdb_role role, char *why)
{
    char path[PDB_PATH];
    int error;

    memset(p, 0, sizeof *p);
    p->role = role;
    if (!*a->name || strlen(a->name) > 64 ||
        strspn(a->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") <
            strlen(a->name)) {
        snprintf(why, PDB_WHY, "--name: up to 64 letters, digits, '-', '_' and '.'");
        return EINVAL;
    }
    snprintf(p->name, sizeof p->name, "%s", a->name);
    error = pdb_parse_address(a->address, p->ip, &p->port, why);
    if (!error && a->peer) {
        error = pdb_parse_address(a->peer, p->peer_ip, &p->peer_port, why);
    }
    if (!error) {
        error = absolute(a->key, p->key, why);
    }
    if (!error) {
        error = absolute(a->certificate, p->certificate, why);
    }
    if (!error) {
        error = absolute(a->ca, p->ca, why);
    }
    if (!error && mkdir(a->operands[0], 0700) && errno != EEXIST) {
        error = errno;
        snprintf(why, PDB_WHY, "%s: %s", a->operands[0], strerror(error));
    }
    if (!error) {
        error = absolute(a->operands[0], p->dir, why);
    }
    pdb_path(p, "pool.db", path);
    if (!error && !access(path, F_OK)) {
        snprintf(why, PDB_WHY, "there is a database in %s already; move it away first", p->dir);
        error = EEXIST;
    }
    return error;
}

/* A standalone database at 'path', with the row Pool unless 'number' is 0. */
static int
make_database(const struct pdb *p, const char *path, unsigned number, char *why)
{
    char schema[PDB_PATH], json[400];
    int error = pdb_schema(schema, why);

    if (!error) {
        error = pdb_tool("create", (const char *[]){path, schema, NULL}, NULL, why);
    }
    snprintf(json, sizeof json,
             "[\"Weft_Pool\",{\"op\":\"insert\",\"table\":\"Pool\",\"row\":{\"name\":\"pool\","
             "\"default_action\":\"deny\",\"generation\":1,\"fence\":%u,\"primary\":\"%s\"}}]",
             number, p->role == PDB_MEMBER ? "" : p->name);
    if (!error && number) {
        error = pdb_tool("transact", (const char *[]){path, json, NULL}, NULL, why);
    }
    return error;
}

static int
made(const struct db_args *a, const struct pdb *p, int error, char *why)
{
    error = error ? error : pdb_save(p, why);
    if (error) {
        return failed(a, why);
    }
    printf("%s: a %s; weft pool db run %s\n", p->name, pdb_role_name(p->role), p->dir);
    return CLI_OK;
}

#define MAKE_EXAMPLE(verb, n, peer)                                                                \
    "  weft pool db " verb " /var/lib/weft/pool --name db" n " --address 10.0.0." n peer " \\\n"   \
    "      --private-key db" n ".key --certificate db" n ".crt --ca-cert ca.crt\n"
#define CREATE_EXAMPLE MAKE_EXAMPLE("create", "1", " --peer 10.0.0.2")
#define FOLLOW_EXAMPLE MAKE_EXAMPLE("follow", "2", " --peer 10.0.0.1")
#define CLUSTER_EXAMPLE MAKE_EXAMPLE("cluster", "1", "")
#define JOIN_EXAMPLE MAKE_EXAMPLE("join", "2", " --peer 10.0.0.1")

static int
create_main(int argc, char **argv)
{
    char path[PDB_PATH], why[PDB_WHY];
    struct db_args a;
    struct pdb p;
    int code, error;

    if (!parse(&a, "create", MAKE | PEER | NUMBER, 1, "DIR OPTION...", CREATE_EXAMPLE, argc, argv,
               &code)) {
        return code;
    }
    error = prepare(&a, &p, PDB_PRIMARY, why);
    if (!error) {
        pdb_path(&p, "pool.db", path);
        error = make_database(&p, path, a.number, why);
    }
    return made(&a, &p, error, why);
}

static int
follow_main(int argc, char **argv)
{
    char path[PDB_PATH], why[PDB_WHY];
    struct db_args a;
    struct pdb p;
    int code, error;

    if (!parse(&a, "follow", MAKE | PEER, 1, "DIR --peer IP[:PORT] OPTION...", FOLLOW_EXAMPLE, argc,
               argv, &code)) {
        return code;
    }
    if (!a.peer) {
        return cli_usage_error(a.prefix, "needs --peer, the primary's address");
    }
    error = prepare(&a, &p, PDB_COPY, why);
    if (!error) {
        pdb_path(&p, "pool.db", path);
        error = make_database(&p, path, 0, why);
    }
    return made(&a, &p, error, why);
}

static int
cluster_main(int argc, char **argv)
{
    char path[PDB_PATH], first[PDB_PATH], local[128], why[PDB_WHY];
    struct db_args a;
    struct pdb p;
    int code, error;

    if (!parse(&a, "cluster", MAKE | NUMBER, 1, "DIR OPTION...", CLUSTER_EXAMPLE, argc, argv,
               &code)) {
        return code;
    }
    error = prepare(&a, &p, PDB_MEMBER, why);
    if (!error) {
        pdb_path(&p, "pool.db", path);
        pdb_path(&p, "pool.db.first", first);
        unlink(first);
        pdb_raft_target(p.ip, p.port, local);
        error = make_database(&p, first, a.number, why);
    }
    if (!error) {
        error = pdb_tool("create-cluster", (const char *[]){path, first, local, NULL}, NULL, why);
        unlink(first);
    }
    return made(&a, &p, error, why);
}

static int
join_main(int argc, char **argv)
{
    char path[PDB_PATH], local[128], remote[128], why[PDB_WHY];
    struct db_args a;
    struct pdb p;
    int code, error;

    if (!parse(&a, "join", MAKE | PEER, 1, "DIR --peer IP[:PORT] OPTION...", JOIN_EXAMPLE, argc,
               argv, &code)) {
        return code;
    }
    if (!a.peer) {
        return cli_usage_error(a.prefix, "needs --peer, a member's address");
    }
    error = prepare(&a, &p, PDB_MEMBER, why);
    if (!error) {
        pdb_path(&p, "pool.db", path);
        pdb_raft_target(p.ip, p.port, local);
        pdb_raft_target(p.peer_ip, p.peer_port, remote);
        error = pdb_tool("join-cluster", (const char *[]){path, "Weft_Pool", local, remote, NULL},
                         NULL, why);
    }
    return made(&a, &p, error, why);
}

static int
run_main(int argc, char **argv)
{
    struct db_args a;
    int code;

    if (!parse(&a, "run", 0, 1, "DIR", "  weft pool db run /var/lib/weft/pool\n", argc, argv,
               &code)) {
        return code;
    }
    return pool_db_run_main(a.operands[0]);
}

/* --- pairs ------------------------------------------------------------------------------- */

/* Has the primary close its database in our favour; '*number' is ours then. */
static int
close_primary(const struct pdb *p, const struct pdb_row *own, int64_t *number, char *why)
{
    char target[PDB_PATH], columns[200];
    struct pdb_row row;
    int error;

    pdb_peer_target(p, target);
    error = pdb_read_row(p, target, &row, why);
    if (error) {
        char was[PDB_WHY];
        memcpy(was, why, sizeof was);
        snprintf(why, PDB_WHY, "the primary at %s cannot be asked (%.200s); if it is gone: --force",
                 target, was);
        return error;
    }
    if (row.closed && !strcmp(row.primary, p->name)) {
        *number = row.fence; /* we were here before */
        return 0;
    }
    if (row.closed || row.fence != own->fence) {
        snprintf(why, PDB_WHY, "the copy does not follow the database at %s (%lld, %lld)", target,
                 (long long)own->fence, (long long)row.fence);
        return EINVAL;
    }
    *number = row.fence + 1;
    snprintf(columns, sizeof columns, "\"fence\":%lld,\"closed\":true,\"primary\":\"%s\"",
             (long long)*number, p->name);
    return pdb_write_row(p, target, &row, columns, why);
}

/* Until our own row says so. */
static int
await_row(const struct pdb *p, int64_t fence, bool closed, char *why)
{
    struct pdb_row row = {.fence = 0};
    int error = 0;

    for (int ms = 0; ms < PROMOTE_MS; ms += ATTEMPT_MS) {
        error = pdb_read_row(p, NULL, &row, why);
        if (!error && row.fence == fence && row.closed == closed) {
            return 0;
        }
        pause_ms(ATTEMPT_MS);
    }
    if (!error) {
        snprintf(why, PDB_WHY, "%s is still at number %lld%s; is \"weft pool db run\" running?",
                 p->dir, (long long)row.fence, row.closed ? ", closed" : "");
    }
    return ETIMEDOUT;
}

static int
promote(struct pdb *p, bool force, char *why)
{
    char target[PDB_PATH];
    struct pdb_row own, other;
    int64_t number = 0;
    pid_t runner = pdb_runner(p);
    int error;

    if (p->role != PDB_COPY) {
        snprintf(why, PDB_WHY, "%s is a %s, not a copy", p->name, pdb_role_name(p->role));
        return EINVAL;
    }
    error = pdb_read_row(p, NULL, &own, why);
    if (error) {
        return error;
    }
    if (runner && !pdb_relay_ready(p)) {
        snprintf(why, PDB_WHY, "%s cannot ask the other server yet; again in a moment", p->name);
        return EAGAIN;
    }
    pdb_peer_target(p, target);
    if (force && !pdb_read_row(p, target, &other, why)) {
        snprintf(why, PDB_WHY, "the server at %s answers: promote without --force", target);
        return EEXIST;
    }
    if (force) {
        number = own.fence + 1;
    } else {
        error = close_primary(p, &own, &number, why);
        error = error ? error : await_row(p, number, true, why);
    }
    if (error) {
        return error;
    }
    p->promote = number;
    p->promote_with_copy = !force;
    error = pdb_save(p, why);
    if (!error && runner) {
        kill(runner, SIGHUP);
        error = await_row(p, number, false, why);
    }
    return error;
}

static int
promote_main(int argc, char **argv)
{
    char why[PDB_WHY];
    struct db_args a;
    struct pdb p;
    int code;

    if (!parse(&a, "promote", FORCE, 1, "DIR [--force]",
               "  weft pool db promote /var/lib/weft/pool\n", argc, argv, &code)) {
        return code;
    }
    if (pdb_load(&p, a.operands[0], why) || promote(&p, a.force, why)) {
        return failed(&a, why);
    }
    printf("%s: primary with number %lld%s\n", p.name, (long long)p.promote,
           a.force ? "; a copy: weft pool db copy" : "");
    return CLI_OK;
}

static int
copy_main(int argc, char **argv)
{
    char why[PDB_WHY], ip[64], columns[200];
    struct pdb_row row;
    struct db_args a;
    unsigned port;
    struct pdb p;
    int code;

    if (!parse(&a, "copy", 0, 2, "DIR IP[:PORT]|none",
               "  weft pool db copy /var/lib/weft/pool 10.0.0.2    it confirms each change\n"
               "  weft pool db copy /var/lib/weft/pool none        nobody does\n",
               argc, argv, &code)) {
        return code;
    }
    if (pdb_load(&p, a.operands[0], why)) {
        return failed(&a, why);
    }
    if (p.role != PDB_PRIMARY) {
        return failed(&a, "only a primary has a copy");
    }
    snprintf(columns, sizeof columns, "\"copy\":\"\"");
    if (strcmp(a.operands[1], "none") != 0) {
        if (pdb_parse_address(a.operands[1], ip, &port, why)) {
            return failed(&a, why);
        }
        snprintf(columns, sizeof columns, "\"copy\":\"ssl:%s:%u\"", ip, port + 1);
        memcpy(p.peer_ip, ip, sizeof ip);
        p.peer_port = port;
    }
    if (pdb_read_row(&p, NULL, &row, why) || pdb_write_row(&p, NULL, &row, columns, why) ||
        pdb_save(&p, why)) {
        return failed(&a, why);
    }
    if (pdb_runner(&p)) {
        kill(pdb_runner(&p), SIGHUP);
    }
    return CLI_OK;
}

static bool
same_authority(const char *a, const char *b)
{
    char why[PDB_WHY];

    return !pdb_run((const char *[]){"cmp", "-s", "--", a, b, NULL}, 0, NULL, why);
}

/* Who comes to a copy's port is of either authority: without a list of its own one of them
 * would have nobody let in, or all. */
static int
check_lists(const struct pdb *p, char *why)
{
    if (*p->crl && *p->hosts_ca && !*p->hosts_crl) {
        snprintf(why, PDB_WHY,
                 "hosts need a list, too: weft pool db hosts %.200s CA-FILE --crl FILE", p->dir);
        return EINVAL;
    }
    return 0;
}

static int
save_and_tell(const struct pdb *p, char *why)
{
    pid_t runner = pdb_runner(p);
    int error = pdb_save(p, why);

    if (!error && runner) {
        kill(runner, SIGHUP);
    }
    return error;
}

/* Whose certificates, of the servers' own authority, are good no more. */
static int
crl_main(int argc, char **argv)
{
    char why[PDB_WHY];
    struct db_args a;
    struct pdb p;
    int code, error;

    if (!parse(
            &a, "crl", 0, 2, "DIR FILE|none",
            "  weft pool db crl /var/lib/weft/pool /etc/weft/pki-db/crl.pem\n"
            "Whoever comes to this server with a certificate on the list, or is asked by it and\n"
            "shows one, is refused, and put out as soon as the list says so. Say it on each\n"
            "server. A cluster's members do not ask it of each other.\n",
            argc, argv, &code)) {
        return code;
    }
    error = pdb_load(&p, a.operands[0], why);
    p.crl[0] = '\0';
    if (!error && strcmp(a.operands[1], "none") != 0) {
        error = absolute(a.operands[1], p.crl, why);
    }
    error = error ? error : check_lists(&p, why);
    if (error || save_and_tell(&p, why)) {
        return failed(&a, why);
    }
    return CLI_OK;
}

/* Whose agents may come, by their certificates' authority. */
static int
hosts_main(int argc, char **argv)
{
    char why[PDB_WHY];
    struct db_args a;
    struct pdb p;
    int code, error;

    if (!parse(
            &a, "hosts", CRL, 2, "DIR CA-FILE|none [--crl FILE|none]",
            "  weft pool db hosts /var/lib/weft/pool /etc/weft/pki-hosts/ca.crt\n"
            "  weft pool db hosts /var/lib/weft/pool /etc/weft/pki-hosts/ca.crt \\\n"
            "      --crl /etc/weft/pki-hosts/crl.pem\n"
            "  weft pool db hosts /var/lib/weft/pool none\n"
            "An authority of the hosts' own: whoever has a certificate of it reads all, and is\n"
            "the host that the certificate names: it can write that host's rows and no others.\n"
            "A list of revocations that was named before stays, unless --crl says otherwise; it\n"
            "has to be (also) this authority's.\n",
            argc, argv, &code)) {
        return code;
    }
    error = pdb_load(&p, a.operands[0], why);
    p.hosts_ca[0] = '\0';
    if (!strcmp(a.crl ? a.crl : a.operands[1], "none")) {
        p.hosts_crl[0] = '\0';
    } else if (!error && a.crl) {
        error = absolute(a.crl, p.hosts_crl, why);
    }
    if (!error && strcmp(a.operands[1], "none") != 0) {
        error = absolute(a.operands[1], p.hosts_ca, why);
        if (!error && same_authority(p.ca, p.hosts_ca)) {
            snprintf(why, PDB_WHY,
                     "%s is the servers' own authority: who has its certificates may write all",
                     p.hosts_ca);
            error = EINVAL;
        }
    }
    error = error ? error : check_lists(&p, why);
    if (error || save_and_tell(&p, why)) {
        return failed(&a, why);
    }
    if (*p.hosts_ca) {
        printf("%s: hosts with certificates of %s%s%s: ssl:%s:%u\n", p.name, p.hosts_ca,
               *p.hosts_crl ? ", not on " : "", p.hosts_crl, p.ip, p.port + PDB_HOSTS);
    }
    return CLI_OK;
}

/* --- clusters ------------------------------------------------------------------------------- */

static int
leave_main(int argc, char **argv)
{
    char why[PDB_WHY] = "", from[PDB_PATH], to[PDB_PATH], *out;
    struct db_args a;
    struct pdb p;
    pid_t runner;
    int code;

    if (!parse(&a, "leave", 0, 1, "DIR", "  weft pool db leave /var/lib/weft/pool\n", argc, argv,
               &code)) {
        return code;
    }
    if (pdb_load(&p, a.operands[0], why)) {
        return failed(&a, why);
    }
    if (p.role != PDB_MEMBER) {
        return failed(&a, "it is not a member of a cluster");
    }
    if (pdb_appctl(&p, (const char *[]){"cluster/leave", "Weft_Pool", NULL}, NULL, why)) {
        return failed(&a, why);
    }
    for (int ms = 0;; ms += ATTEMPT_MS) {
        bool left = pdb_appctl(&p, (const char *[]){"cluster/status", "Weft_Pool", NULL}, &out, why)
                        ? strstr(why, "returned an error") != NULL
                        : strstr(out, "left cluster") != NULL;
        if (left) {
            break;
        }
        if (ms >= LEAVE_MS) {
            return failed(&a, "the cluster has not let it go; has it a quorum?");
        }
        pause_ms(ATTEMPT_MS);
    }
    p.role = PDB_LEFT;
    runner = pdb_runner(&p);
    if (pdb_save(&p, why)) {
        return failed(&a, why);
    }
    if (runner) {
        kill(runner, SIGHUP);
    }
    pdb_path(&p, "pool.db", from);
    pdb_path(&p, "pool.db.left", to);
    if (rename(from, to)) {
        return failed(&a, strerror(errno));
    }
    printf("%s has left the cluster\n", p.name);
    return CLI_OK;
}

static int
kick_main(int argc, char **argv)
{
    char why[PDB_WHY], ip[64], target[128];
    struct db_args a;
    unsigned port;
    struct pdb p;
    int code;

    if (!parse(&a, "kick", 0, 2, "DIR IP[:PORT]",
               "  weft pool db kick /var/lib/weft/pool 10.0.0.3\n", argc, argv, &code)) {
        return code;
    }
    if (pdb_load(&p, a.operands[0], why) || pdb_parse_address(a.operands[1], ip, &port, why)) {
        return failed(&a, why);
    }
    pdb_raft_target(ip, port, target);
    if (pdb_kick(&p, target, why)) {
        return failed(&a, why);
    }
    printf("%s is no member any more\n", a.operands[1]);
    return CLI_OK;
}

static int
rescue_main(int argc, char **argv)
{
    char why[PDB_WHY];
    struct db_args a;
    struct pdb_rescue made = {.torn = 0};
    struct pdb p;
    int code;

    if (!parse(&a, "rescue", 0, 1, "DIR", "  weft pool db rescue /var/lib/weft/pool\n", argc, argv,
               &code)) {
        return code;
    }
    if (pdb_load(&p, a.operands[0], why)) {
        return failed(&a, why);
    }
    if (p.role != PDB_MEMBER) {
        return failed(&a, "it is not a member of a cluster");
    }
    if (pdb_runner(&p)) {
        return failed(&a, "end \"weft pool db run\" first");
    }
    if (pdb_rescue(&p, &made, why)) {
        return failed(&a, why);
    }
    if (made.torn) {
        printf("%s: the last %zu bytes of its log were not whole\n", p.name, made.torn);
    }
    printf("%s: a cluster of one with number %lld; the others join anew\n", p.name,
           (long long)made.number);
    return CLI_OK;
}

/* --- status --------------------------------------------------------------------------------- */

static int
status_main(int argc, char **argv)
{
    char why[PDB_WHY], *out = NULL;
    struct pdb_row row;
    struct db_args a;
    struct pdb p;
    int code, error;

    if (!parse(&a, "status", JSON, 1, "DIR [--json]", "  weft pool db status /var/lib/weft/pool\n",
               argc, argv, &code)) {
        return code;
    }
    if (pdb_load(&p, a.operands[0], why)) {
        return failed(&a, why);
    }
    error = pdb_read_row(&p, NULL, &row, why);
    if (pdb_appctl(&p,
                   p.role == PDB_MEMBER ? (const char *[]){"cluster/status", "Weft_Pool", NULL}
                                        : (const char *[]){"ovsdb-server/sync-status", NULL},
                   &out, why + 0)) {
        out = NULL;
    }
    if (a.json) {
        json_t *json =
            json_pack("{s:s, s:s, s:b, s:I, s:b, s:s, s:s, s:s}", "name", p.name, "role",
                      pdb_role_name(p.role), "running", pdb_runner(&p) && out, "number",
                      (json_int_t)(error ? 0 : row.fence), "closed", row.closed, "primary",
                      row.primary, "copy", row.copy, "server", out ? out : "");
        json_dumpf(json, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(json);
    } else {
        printf("%s: %s, %s\n", p.name, pdb_role_name(p.role),
               out ? "running" : "does not run (weft pool db run)");
        printf("database: number %lld%s, primary %s, copy %s\n", (long long)(error ? 0 : row.fence),
               row.closed ? ", closed" : "", *row.primary ? row.primary : "none",
               *row.copy ? row.copy : "none");
        if (*p.crl) {
            printf("revoked: %s\n", p.crl);
        }
        if (*p.hosts_ca) {
            printf("hosts: port %u, certificates of %s%s%s\n", p.port + PDB_HOSTS, p.hosts_ca,
                   *p.hosts_crl ? ", not on " : "", p.hosts_crl);
        }
        printf("%s%s", out ? out : "", out ? "\n" : "");
    }
    free(out);
    return error ? CLI_FAILED : CLI_OK;
}

static const struct cli_cmd commands[] = {
    {"create", "a new database: a pair's primary", create_main},
    {"follow", "a copy of a primary's database", follow_main},
    {"copy", "which copy confirms the primary's changes", copy_main},
    {"promote", "the copy becomes primary, the primary is fenced", promote_main},
    {"hosts", "hosts' agents may come, held to rows of their own", hosts_main},
    {"crl", "certificates of servers and controllers that are revoked", crl_main},
    {"cluster", "a new database: a cluster's first member", cluster_main},
    {"join", "a further member of a cluster", join_main},
    {"leave", "a member leaves", leave_main},
    {"kick", "a member that is gone is no member any more", kick_main},
    {"rescue", "quorum is lost: a cluster of one member's data", rescue_main},
    {"run", "keep the server running", run_main},
    {"status", "what a server is and has", status_main},
};

int
pool_db_main(int argc, char **argv)
{
    static const struct cli_group group = {
        .prefix = "weft pool db",
        .about = "servers of the pool's database: a pair or a cluster",
        .examples = CREATE_EXAMPLE FOLLOW_EXAMPLE CLUSTER_EXAMPLE JOIN_EXAMPLE,
        .cmds = commands,
        .n_cmds = sizeof commands / sizeof commands[0],
    };

    return cli_dispatch(&group, argc, argv);
}
