/* Servers of the pool database: addresses, server.json, who runs one. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "pool_db.h"

static char dir[] = "/tmp/weft-pool-db-XXXXXX";
static char why[PDB_WHY];

static bool
parses(const char *text, const char *want_ip, unsigned want_port)
{
    char ip[64];
    unsigned port;

    return !pdb_parse_address(text, ip, &port, why) && !strcmp(ip, want_ip) && port == want_port;
}

static bool
refuses(const char *text)
{
    char ip[64];
    unsigned port;

    why[0] = '\0';
    return pdb_parse_address(text, ip, &port, why) == EINVAL && *why;
}

static void
test_address(void)
{
    CASE("pool_db/address: IPv4 and IPv6, with and without a port");
    CHECK(parses("10.0.0.1", "10.0.0.1", 6641));
    CHECK(parses("10.0.0.1:7000", "10.0.0.1", 7000));
    CHECK(parses("[fd00::1]", "[fd00::1]", 6641));
    CHECK(parses("[fd00::1]:7000", "[fd00::1]", 7000));

    CASE("pool_db/address: what would become something else in a target is refused");
    CHECK(refuses("") && refuses(":6641") && refuses("fd00::1"));
    CHECK(refuses("10.0.0.1:") && refuses("10.0.0.1:0") && refuses("10.0.0.1:65534"));
    CHECK(refuses("10.0.0.1:66x") && refuses("10.0.0.1:-1") && refuses("10.0.0.1: 1"));
    CHECK(refuses("host.example") && refuses("10.0.0.1,ssl:10.0.0.2") && refuses("\"x\""));
    CHECK(refuses("1111111111111111111111111111111111111111111111111111111111111111111111"));
}

static void
write_file(const char *text)
{
    char path[PDB_PATH];
    FILE *f;

    snprintf(path, sizeof path, "%s/server.json", dir);
    f = fopen(path, "w");
    if (f) {
        fputs(text, f);
        fclose(f);
    }
}

static void
test_conf(void)
{
    struct pdb p = {.name = "db1", .role = PDB_COPY, .ip = "10.0.0.1", .port = 6641}, q;
    char path[PDB_PATH];

    snprintf(p.dir, sizeof p.dir, "%s", dir);
    snprintf(p.peer_ip, sizeof p.peer_ip, "[fd00::2]");
    p.peer_port = 7000;
    p.promote = 5;
    p.promote_with_copy = true;
    snprintf(p.crl, sizeof p.crl, "/pki/crl.pem");

    CASE("pool_db/server.json: what is written is read");
    CHECK(!pdb_save(&p, why) && !pdb_load(&q, dir, why));
    CHECK(!strcmp(q.name, "db1") && q.role == PDB_COPY && q.port == 6641 && q.promote == 5);
    CHECK(q.promote_with_copy && !strcmp(q.peer_ip, "[fd00::2]") && q.peer_port == 7000);
    pdb_sync_target(&q, true, path);
    CHECK(!strcmp(path, "ssl:[fd00::2]:7001"));
    pdb_sync_target(&q, false, path);
    CHECK(!strcmp(path, "ssl:10.0.0.1:6642"));
    CHECK(!strcmp(q.crl, "/pki/crl.pem"));

    CASE("pool_db/crl: nothing goes past what looks at the peer's certificate");
    CHECK(!pdb_relay_ready(&q));
    q.role = PDB_MEMBER;
    CHECK(pdb_relay_ready(&q)); /* it asks no peer */
    q.role = PDB_COPY;
    q.crl[0] = '\0';
    CHECK(pdb_relay_ready(&q));

    CASE("pool_db/server.json: what is wrong in it is said");
    static const char *const bad[] = {"", "[]", "{\"name\": \"db1\"}",
                                      "{\"name\": 1, \"role\": 2}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_file(bad[i]);
        why[0] = '\0';
        CHECK(pdb_load(&q, dir, why) && *why);
    }
    CHECK(!pdb_save(&p, why) && !pdb_load(&q, dir, why));
    pdb_path(&p, "server.json", path);
    unlink(path);
    CHECK(pdb_load(&q, dir, why) == ENOENT);
}

static void
test_runner(void)
{
    struct pdb p = {.port = 1};
    char path[PDB_PATH];
    int status = -1, go[2], done[2];
    char byte;
    pid_t pid;

    snprintf(p.dir, sizeof p.dir, "%s", dir);
    CASE("pool_db/runner: one at a time, known by its number, gone with its process");
    CHECK(!pdb_runner(&p));
    CHECK(!pipe(go) && !pipe(done));
    pid = fork();
    if (!pid) {
        bool ok = !pdb_become_runner(&p, why) && write(done[1], "x", 1) == 1;

        _exit(read(go[0], &byte, 1) == 1 && ok ? 0 : 1);
    }
    CHECK(read(done[0], &byte, 1) == 1);
    CHECK(pdb_runner(&p) == pid);
    CHECK(pdb_become_runner(&p, why) == EBUSY);
    CHECK(write(go[1], "x", 1) == 1);
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status));
    CHECK(!pdb_runner(&p));
    pdb_path(&p, "run.pid", path);
    unlink(path);
}

static void
test_run(void)
{
    char *out = NULL;

    CASE("pool_db/programs: what they print, that they fail, that they hang");
    CHECK(!pdb_run((const char *[]){"echo", "a", "b", NULL}, 5, &out, why) && out &&
          !strcmp(out, "a b"));
    free(out);
    CHECK(pdb_run((const char *[]){"sh", "-c", "echo one; echo two; exit 3", NULL}, 5, NULL, why) ==
          EIO);
    CHECK(!strcmp(why, "two"));
    CHECK(pdb_run((const char *[]){"/no/such/program", NULL}, 5, NULL, why) == EIO);
    CHECK(pdb_run((const char *[]){"sleep", "30", NULL}, 1, NULL, why) == EIO);
    CHECK(!strcmp(why, "no answer"));
}

/* This program again, from the directory 'at': which ovsdb-server it would run. */
static bool
finds(const char *at, const char *want)
{
    char *out = NULL, path[PATH_MAX], us[32];
    bool ok;

    snprintf(path, sizeof path, "%s/us", at);
    snprintf(us, sizeof us, "/proc/%d/exe", (int)getpid());
    ok = !pdb_run((const char *[]){"cp", us, path, NULL}, 30, NULL, why) &&
         !pdb_run((const char *[]){path, "ovsdb-server", NULL}, 30, &out, why) &&
         !strcmp(out, want);
    free(out);
    return ok;
}

static void
test_program(void)
{
    enum { DEPTH = 4, NAME = 100 };
    char us[sizeof dir + 4], at[DEPTH + 1][PATH_MAX], beside[DEPTH + 1][PATH_MAX];

    CASE("pool_db/programs: beside ours, and no other's, however long the path");
    snprintf(us, sizeof us, "%s/us", dir);
    snprintf(at[0], PATH_MAX, "%s", dir);
    for (unsigned i = 1; i <= DEPTH; i++) {
        CHECK(snprintf(at[i], PATH_MAX, "%s/%0*u", at[i - 1], NAME, i) < PATH_MAX);
        CHECK(!mkdir(at[i], 0700));
    }
    for (unsigned i = 0; i <= DEPTH; i++) {
        CHECK(finds(at[i], "ovsdb-server"));
        CHECK(snprintf(beside[i], PATH_MAX, "%s/ovsdb-server", at[i]) < PATH_MAX);
        CHECK(!symlink("/bin/true", beside[i]));
        CHECK(finds(at[i], strlen(beside[i]) < PDB_PATH ? beside[i] : "ovsdb-server"));
    }
    CHECK(strlen(beside[DEPTH - 1]) > 320 && strlen(beside[DEPTH]) > PDB_PATH);
    CHECK(!pdb_run((const char *[]){"rm", "-r", at[1], NULL}, 30, NULL, why));
    CHECK(!pdb_run((const char *[]){"rm", beside[0], us, NULL}, 30, NULL, why));
}

static bool
write_part(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    bool ok = f && fputs(text, f) >= 0;

    return f && !fclose(f) && ok;
}

static bool
holds(const char *path, const char *want)
{
    char text[200] = "";
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;

    text[n] = '\0';
    return f && !fclose(f) && !strcmp(text, want);
}

#define END "-----END CERTIFICATE-----"

static void
test_authorities(void)
{
    static const char *const halves[] = {"", "four", "four" END "five\n", "-----END CERT"};
    struct pdb p = {.role = PDB_COPY};
    char both[PDB_PATH], why_not[PDB_WHY];
    struct stat first, then;

    snprintf(p.dir, sizeof p.dir, "%s", dir);
    snprintf(p.ca, sizeof p.ca, "%s/a", dir);
    snprintf(p.hosts_ca, sizeof p.hosts_ca, "%s/b", dir);

    CASE("pool_db/authorities: a file with both");
    CHECK(write_part(p.ca, "one" END "\n") && write_part(p.hosts_ca, "two" END));
    CHECK(!pdb_both_authorities(&p, both, why_not) && holds(both, "one" END "\n\ntwo" END "\n"));

    CASE("pool_db/authorities: it stays while they do");
    CHECK(!stat(both, &first) && !pdb_both_authorities(&p, both, why_not));
    CHECK(!stat(both, &then) && then.st_ino == first.st_ino &&
          !memcmp(&then.st_mtim, &first.st_mtim, sizeof then.st_mtim));

    CASE("pool_db/authorities: it is another when one of them is");
    CHECK(write_part(p.hosts_ca, "three" END));
    CHECK(!pdb_both_authorities(&p, both, why_not) && holds(both, "one" END "\n\nthree" END "\n"));
    CHECK(write_part(p.hosts_ca, "thr" END));
    CHECK(!pdb_both_authorities(&p, both, why_not) && holds(both, "one" END "\n\nthr" END "\n"));

    CASE("pool_db/authorities: half of one is none");
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        CHECK(write_part(p.hosts_ca, halves[i]));
        CHECK(pdb_both_authorities(&p, both, why_not) == EIO && strstr(why_not, p.hosts_ca) &&
              strstr(why_not, "END CERTIFICATE") && holds(both, "one" END "\n\nthr" END "\n"));
    }
    CHECK(write_part(p.hosts_ca, "thr" END " \r\n\n") && !pdb_both_authorities(&p, both, why_not));
    CHECK(write_part(p.hosts_ca, "thr" END) && !pdb_both_authorities(&p, both, why_not));

    CASE("pool_db/authorities: one that is gone leaves it as it was; without it, it is made anew");
    CHECK(!unlink(p.hosts_ca) && pdb_both_authorities(&p, both, why_not) &&
          strstr(why_not, p.hosts_ca) && holds(both, "one" END "\n\nthr" END "\n"));
    CHECK(!unlink(both) && write_part(p.hosts_ca, "two" END));
    CHECK(!pdb_both_authorities(&p, both, why_not) && holds(both, "one" END "\n\ntwo" END "\n"));
    unlink(p.ca);
    unlink(p.hosts_ca);
    unlink(both);
}

int
main(int argc, char **argv)
{
    if (argc == 2) {
        char path[PDB_PATH];

        pdb_program(argv[1], path);
        puts(path);
        return 0;
    }
    if (!mkdtemp(dir)) {
        printf("not ok pool_db: no directory\n");
        return 1;
    }
    test_address();
    test_conf();
    test_runner();
    test_run();
    test_program();
    test_authorities();
    rmdir(dir);
    return check_done();
}
