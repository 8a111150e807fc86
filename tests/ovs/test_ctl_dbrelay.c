/* A server's own ports as weft-dbgate --relay has them: a real database, a real weft-dbgate, who
 * comes by TLS and whom the server asks; and lists of certificates that are revoked. */
#include <config.h>

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/un.h>

#include "check.h"
#include "ctl_client.h"
#include "openvswitch/vlog.h"
#include "tcp_port.h"

/* The ports of a server whose certificate is "server", and what asks it with that of "asks". */
static pid_t relay, asks;

/* What "revoke" takes away is kept; each of both looks at lists of its own. */
static const char setup[] =
    "set -e; exec 2>&1; cd $DIR\n"
    "for d in db hosts; do $BIN/weft pki init $d; done\n"
    "for n in server asks c1 c2; do $BIN/weft pki host $n --dir db; done\n"
    "for n in h1 h2; do $BIN/weft pki host $n --dir hosts; done\n"
    "mkdir kept; cp db/c2.* db/server.* hosts/h2.* kept; cat db/ca.crt hosts/ca.crt >cas.pem\n"
    "cp db/crl.pem relay.pem; cp db/crl.pem asks.pem; cp hosts/crl.pem hosts.pem\n"
    "$BIN/ovsdb-tool create pool.db $BIN/../share/pool.ovsschema\n";

static bool
start_relay(const char *probe, const char *hosts_lists)
{
    char text[8][160], listen[160], server[160];

    ctl_kill_(&relay);
    port = tcp_port_free();
    snprintf(listen, sizeof listen, "--listen=pssl:%d:127.0.0.1", port);
    snprintf(server, sizeof server, "--server=unix:%s/db.sock", files.dir);
    snprintf(text[0], sizeof text[0], "--private-key=%s/kept/server.key", files.dir);
    snprintf(text[1], sizeof text[1], "--certificate=%s/kept/server.crt", files.dir);
    snprintf(text[2], sizeof text[2], "--ca-cert=%s/cas.pem", files.dir);
    snprintf(text[3], sizeof text[3], "--crl=%s/relay.pem", files.dir);
    snprintf(text[4], sizeof text[4], "--crl=%s/%s", files.dir, hosts_lists);
    snprintf(text[5], sizeof text[5], "--inactivity-probe=%s", probe);
    snprintf(text[6], sizeof text[6], "--log-file=%s/relay.log", files.dir);
    relay = ctl_spawn_(&files, "relay.out", "weft-dbgate", "--relay", listen, server, text[0],
                       text[1], text[2], text[3], text[4], text[5], text[6], "-vconsole:off",
                       "-vsyslog:off", NULL);
    for (int i = 0; i < 1000; i++) {
        if (tcp_port_listens(port)) {
            return true;
        }
        usleep(10000);
    }
    return false;
}

/* "peer.sock" leads to the relay. */
static bool
start_asking(void)
{
    char listen[160], server[160], text[4][160];

    snprintf(listen, sizeof listen, "--listen=punix:%s/peer.sock", files.dir);
    snprintf(server, sizeof server, "--server=ssl:127.0.0.1:%d", port);
    snprintf(text[0], sizeof text[0], "--private-key=%s/db/asks.key", files.dir);
    snprintf(text[1], sizeof text[1], "--certificate=%s/db/asks.crt", files.dir);
    snprintf(text[2], sizeof text[2], "--ca-cert=%s/db/ca.crt", files.dir);
    snprintf(text[3], sizeof text[3], "--crl=%s/asks.pem", files.dir);
    asks = ctl_spawn_(&files, "asks.out", "weft-dbgate", "--relay", listen, server, text[0],
                      text[1], text[2], text[3], "-vconsole:off", "-vsyslog:off", NULL);
    return ctl_wait_for_(&files, "peer.sock");
}

static bool
logged(const void *what)
{
    return !ctl_sh(&files, "grep -q '%s' $DIR/relay.log", (const char *)what);
}

/* What no host may; once. */
static bool
writes(struct client *c)
{
    struct json *message;
    char *text;
    bool done;

    say(c, "{\"method\":\"transact\",\"params\":[\"Weft_Pool\",{\"op\":\"insert\",\"table\":"
           "\"Tenant\",\"row\":{}}],\"id\":1}");
    done = answer(c, &message, 0) == MESSAGE;
    text = done ? json_to_string(message, 0) : NULL;
    done = text && strstr(text, "\"uuid\"") && !strstr(text, "constraint violation");
    free(text);
    json_destroy(message);
    return done;
}

static bool
add_row(const char *table, const char *row)
{
    return !ctl_sh(
        &files,
        "$BIN/ovsdb-client transact unix:$DIR/db.sock '[\"Weft_Pool\",{\"op\":\"insert\","
        "\"table\":\"%s\",\"row\":{%s}}]' >$DIR/did 2>&1 && ! grep -q error $DIR/did",
        table, row);
}

/* --- cases ------------------------------------------------------------------------------------ */

static void
test_passes(void)
{
    struct client *c1 = client_open("db", "c1", 0);

    CASE("dbrelay: who has the authority's certificate may do all");
    CHECK(served(c1));
    CHECK(writes(c1));
    client_close(c1);

    CASE("dbrelay: one without a certificate, or of another authority, may nothing");
    CHECK(!ctl_sh(&files,
                  "cd $DIR; mkdir -p none; openssl req -x509 -newkey rsa:2048 -nodes -days 9 "
                  "-subj /CN=c1 -keyout none/c1.key -out none/c1.crt 2>&1"));
    CHECK(!is_served("none", "c1"));

    CASE("dbrelay: a server that goes takes its sessions along, and is found when it is back");
    c1 = client_open("db", "c1", 0);
    CHECK(served(c1));
    ctl_kill_(&files.db);
    CHECK(is_closed(c1));
    client_close(c1);
    CHECK(!is_served("db", "c1"));
}

static bool
others_served(const void *aux)
{
    return is_served("db", "c1");
}

static void
test_crowds(void)
{
    enum { STRANGERS = 96, ALL = 64 };
    struct client *slow = client_open_but_one("db", "c1"), *all[ALL];
    int fds[STRANGERS];
    size_t n = 0;

    CASE("dbrelay: strangers without end keep nobody out");
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = stranger();
        /* No more than its queue takes at once. */
        CHECK(i % 8 || is_served("db", "c1"));
    }
    CHECK(until(logged, "not connected: Too many open files"));
    client_finish(slow);
    CHECK(served(slow));
    client_close(slow);
    for (int i = 0; i < STRANGERS; i++) {
        close(fds[i]);
    }

    CASE("dbrelay: one address has no more than its share of the sessions");
    do {
        all[n] = client_open("db", "c1", 0);
    } while (served(all[n]) && ++n < ALL);
    CHECK(n == ALL);
    CHECK(!is_served("db", "c1"));
    while (n) {
        client_close(all[--n]);
    }
    CHECK(until(others_served, NULL));
}

static bool
lets_in_h1(const void *aux)
{
    return is_served("hosts", "h1");
}

static void
test_revoked(void)
{
    struct client *c1 = client_open("db", "c1", 0), *c2 = client_open("kept", "c2", 0), *late;

    CASE("dbrelay: who is revoked is put out, and others stay");
    CHECK(served(c1) && served(c2));
    for (int i = 0; i < 40; i++) { /* of whom the log has nothing to say */
        CHECK(is_served("db", "c1"));
    }
    late = client_open_but_one("kept", "c2");
    client_finish(late);
    CHECK(served(late));
    client_close(late);
    late = client_open_but_one("kept", "c2");
    CHECK(!ctl_sh(&files, "exec 2>&1; cd $DIR; $BIN/weft pki revoke c2 --dir db && "
                          "cp db/crl.pem new && mv new relay.pem"));
    CHECK(is_closed(c2));
    CHECK(!is_served("kept", "c2"));
    CHECK(served(c1) && is_served("db", "c1"));
    CHECK(until(logged, "closed: a certificate is not good any more"));

    CASE("dbrelay: one whose handshake began before is not let in");
    client_finish(late);
    CHECK(!served(late));
    client_close(late);
    CHECK(until(logged, "not connected.*: Permission denied"));
    client_close(c1);
    client_close(c2);

    CASE("dbrelay: each authority's certificates need a list of it");
    CHECK(is_served("hosts", "h1"));
    CHECK(start_relay("30000", "none.pem"));
    CHECK(is_served("db", "c1") && !is_served("kept", "c2"));
    CHECK(!is_served("hosts", "h1"));
    CHECK(!ctl_sh(&files, "exec 2>&1; cd $DIR; $BIN/weft pki revoke h2 --dir hosts && "
                          "cp hosts/crl.pem new && mv new none.pem"));
    CHECK(until(lets_in_h1, NULL));
    CHECK(!is_served("kept", "h2") && is_served("db", "c1") && !is_served("kept", "c2"));
}

/* To "peer.sock", which leads to the relay and the database. */
static int
ask_peer(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = 10};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(un.sun_path, sizeof un.sun_path, "%s/peer.sock", files.dir);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    /* Its name is there before it listens. */
    for (int i = 0; i < 1000 && connect(fd, (struct sockaddr *)&un, sizeof un); i++) {
        ovs_assert(errno == ECONNREFUSED);
        usleep(10000);
    }
    return fd;
}

/* Bytes of an answer; 0: it was closed. */
static ssize_t
answers(int fd)
{
    char bytes[4096];
    ssize_t n;

    /* May be closed already. */
    if (send(fd, ASK("1"), strlen(ASK("1")), MSG_NOSIGNAL) < 0) {
        return 0;
    }
    n = recv(fd, bytes, sizeof bytes, 0);
    return n < 0 && errno == ECONNRESET ? 0 : n;
}

static void
test_asked(void)
{
    int held, fd;

    CASE("dbrelay: another server is asked by way of a socket");
    CHECK(start_asking());
    held = ask_peer();
    CHECK(answers(held) > 0);

    CASE("dbrelay: and not once its certificate is revoked");
    CHECK(!ctl_sh(&files, "exec 2>&1; cd $DIR; $BIN/weft pki revoke server --dir db && "
                          "cp db/crl.pem new && mv new asks.pem"));
    CHECK(recv(held, &(char){0}, 1, 0) == 0);
    fd = ask_peer();
    CHECK(answers(fd) == 0);
    close(fd);
    close(held);
    ctl_kill_(&asks);
}

/* ASan keeps what is freed. */
#ifdef __SANITIZE_ADDRESS__
enum { MORE_KB = 128 * 1024 };
#else
enum { MORE_KB = 16 * 1024 };
#endif

/* The most that it has had, in kB. */
static long
relay_memory(void)
{
    ctl_sh(&files, "sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/%d/status", (int)relay);
    return atol(ctl_said);
}

static void
test_slow(void)
{
    enum { MONITORS = 16 };
    struct client *slow, *other, *late;
    struct json *message;
    long before;

    for (int i = 0; i < 25; i++) {
        ovs_assert(!ctl_sh(&files,
                           "exec 2>&1; t='[\"Weft_Pool\"'; for i in $(seq 100); do "
                           "t=\"$t,$(printf '{\"op\":\"insert\",\"table\":\"VM\",\"row\":{"
                           "\"name\":\"%%0900d\"}}' %d$i)\"; done; "
                           "$BIN/ovsdb-client transact unix:$DIR/db.sock \"$t]\"",
                           i + 1));
    }

    CASE("dbrelay: megabytes come as they are to one that reads slowly");
    CHECK(start_relay("30000", "none.pem"));
    slow = client_open("db", "c1", 16384);
    say(slow, "{\"method\":\"monitor\",\"params\":[\"Weft_Pool\",\"m\",{\"VM\":{}}],\"id\":1}");
    CHECK(answer(slow, &message, 30) == MESSAGE && member(message, "result") &&
          member(message, "result")->type == JSON_OBJECT);
    json_destroy(message);
    CHECK(served(slow));
    client_close(slow);

    CASE("dbrelay: what one does not read is not held here, and ends it");
    CHECK(start_relay("1000", "none.pem"));
    before = relay_memory();
    late = client_open_but_one("db", "c1");
    slow = client_open("db", "c1", 16384);
    CHECK(served(slow));
    for (int i = 0; i < MONITORS; i++) {
        char text[160];

        snprintf(text, sizeof text,
                 "{\"method\":\"monitor\",\"params\":[\"Weft_Pool\",\"m%d\",{\"VM\":{}}],\"id\":1}",
                 i);
        say(slow, text);
    }
    other = client_open("db", "asks", 0);
    CHECK(served(other));
    CHECK(until(logged, "system error (Connection timed out)"));
    CHECK(served(other));
    CHECK(before > 0 && relay_memory() < before + MORE_KB);
    client_close(other);
    client_close(slow);

    CASE("dbrelay: one whose handshake takes too long is not let in");
    CHECK(until(logged, "not connected: Connection timed out"));
    client_finish(late);
    CHECK(!served(late));
    client_close(late);
}

/* --- a server that the test plays ------------------------------------------------------------- */

enum { WORD = 16 << 10 };

static int
listen_as_server(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(un.sun_path, sizeof un.sun_path, "%s/db.sock", files.dir);
    unlink(un.sun_path);
    ovs_assert(!bind(fd, (struct sockaddr *)&un, sizeof un) && !listen(fd, 10));
    return fd;
}

/* False: it is not taken, for the client does not read. */
static bool
says_word(int to, size_t n)
{
    char bytes[WORD];
    int waiting;

    memset(bytes, (int)n, sizeof bytes);
    ovs_assert(send(to, bytes, sizeof bytes, MSG_NOSIGNAL) == sizeof bytes);
    for (int i = 0; i < 3000; i++) {
        ovs_assert(!ioctl(to, SIOCOUTQ, &waiting));
        if (!waiting) {
            return true;
        }
        usleep(100);
    }
    return false;
}

/* More than any queue takes on the way: it has been read, or the session is over. */
static bool
talks(struct client *c)
{
    static const char word[WORD];

    for (int i = 0; i < 1024; i++) {
        if (SSL_write(c->ssl, word, WORD) != WORD) {
            return false;
        }
    }
    return true;
}

/* Whether all is heard that the server says, so many words at most, before it goes.  '*most':
 * as many as are taken while nobody reads. */
static bool
is_heard(int listener, size_t words, bool with_talk, size_t *most)
{
    struct client *c = client_open("db", "c1", 1 << 16);
    int got, to = accept(listener, NULL, NULL);
    size_t said = 0, n = 0;
    bool taken = true, same = true;

    for (*most = 0; taken && said < words; *most += taken) {
        taken = says_word(to, said++);
    }
    close(to);
    if (with_talk) {
        CHECK(talks(c));
    }
    while ((got = SSL_read(c->ssl, c->buffer, sizeof c->buffer)) > 0) {
        for (int i = 0; i < got; i++, n++) {
            same = same && c->buffer[i] == (char)(n / WORD);
        }
    }
    client_close(c);
    return same && n == said * WORD;
}

static int
relay_fds(void)
{
    ctl_sh(&files, "ls /proc/%d/fd | wc -l", (int)relay);
    return atoi(ctl_said);
}

static bool
has_fds(const void *fds)
{
    return relay_fds() <= *(const int *)fds;
}

/* The client has not read the server's words when that goes, and then does not close but
 * breaks. */
static void
break_off(int listener, size_t words)
{
    struct linger reset = {.l_onoff = 1};
    struct client *c = client_open("db", "c1", 1 << 16);
    int to = accept(listener, NULL, NULL);

    for (size_t i = 0; i < words; i++) {
        says_word(to, i);
    }
    close(to);
    usleep(100000);
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    client_close(c);
}

static void
test_last_words(void)
{
    size_t most, some;
    int listener, fds;

    CASE("dbrelay: what a server says before it goes comes to its end");
    ctl_kill_(&files.db);
    listener = listen_as_server();
    CHECK(is_heard(listener, SIZE_MAX, false, &most) && most > 1);
    /* Then something is not yet written, and nothing behind it: mostly. */
    for (int i = 0; i < 5; i++) {
        CHECK(is_heard(listener, most - 1, false, &some));
    }

    CASE("dbrelay: also while the client talks to it that listens no more");
    CHECK(is_heard(listener, SIZE_MAX, true, &some));

    CASE("dbrelay: what a server says before it goes is not kept for one that is gone");
    usleep(300000);
    fds = relay_fds();
    for (int i = 0; i < 5; i++) {
        break_off(listener, most - 1);
    }
    CHECK(fds > 0 && until(has_fds, &fds));
    close(listener);
}

static bool
start_server(void)
{
    char file[96], remote[96], ctl[96];

    snprintf(file, sizeof file, "%s/pool.db", files.dir);
    snprintf(remote, sizeof remote, "--remote=punix:%s/db.sock", files.dir);
    snprintf(ctl, sizeof ctl, "--unixctl=%s/dbctl", files.dir);
    ctl_sh(&files, "rm -f $DIR/db.sock $DIR/dbctl");
    files.db =
        ctl_spawn_(&files, "db.log", "ovsdb-server", file, remote, ctl, "-vsyslog:off", NULL);
    return ctl_wait_for_(&files, "db.sock");
}

int
main(int argc, char *argv[])
{
    set_program_name(argv[0]);
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    signal(SIGPIPE, SIG_IGN);
    ctl_find_bin();
    snprintf(files.dir, sizeof files.dir, "/tmp/weft-dbrelay-XXXXXX");
    if (!mkdtemp(files.dir) || ctl_sh(&files, "(%s)", setup) || !start_server() ||
        !add_row("Host", "\"name\":\"h1\"") || !start_relay("30000", "hosts.pem")) {
        printf("not ok dbrelay: no folder, no certificates or no server: %s\n", ctl_said);
        ctl_kill_(&relay);
        ctl_switch_destroy(&files);
        return 1;
    }
    test_passes();
    CHECK(start_server() && is_served("db", "c1"));
    test_revoked();
    test_asked();
    test_crowds();
    test_slow();
    test_last_words();
    ctl_kill_(&relay);
    ctl_switch_destroy(&files);
    return check_done();
}
