/* Hosts at weft-dbgate's port, by TLS: a real database behind it, a real weft-dbgate, and
 * what comes and ends on the wire. */
#include <config.h>

#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "check.h"
#include "ctl_client.h"
#include "ctl_switch.h"
#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "tcp_port.h"
#include "timeval.h"
#include "util.h"

static pid_t gate;

/* Two authorities of hosts', and one of servers'. */
static const char setup[] =
    "set -e; exec 2>&1; cd $DIR\n"
    "for d in hosts others db; do $BIN/weft pki init $d; done\n"
    "for h in h1 h2; do $BIN/weft pki host $h --dir hosts; done\n"
    "$BIN/weft pki host h3 --dir others; $BIN/weft pki host server --dir db\n"
    "mkdir kept; cp hosts/h2.* kept\n" /* which "revoke" takes away */
    "cat hosts/ca.crt others/ca.crt >cas.pem; cat hosts/crl.pem others/crl.pem >lists.pem\n"
    "$BIN/ovsdb-tool create pool.db $BIN/../share/pool.ovsschema\n";

static const char add_hosts[] =
    "$BIN/ovsdb-client transact unix:$DIR/db.sock '[\"Weft_Pool\","
    "{\"op\":\"insert\",\"table\":\"Host\",\"row\":{\"name\":\"h1\"}},"
    "{\"op\":\"insert\",\"table\":\"Host\",\"row\":{\"name\":\"h2\"}},"
    "{\"op\":\"insert\",\"table\":\"Host\",\"row\":{\"name\":\"h3\"}}]'";

/* --- a host ------------------------------------------------------------------------------- */

static bool
closes_after(const char *text)
{
    struct client *c = client_open("hosts", "h1", 0);
    bool was = served(c);

    say(c, text);
    was = was && is_closed(c);
    client_close(c);
    return was;
}

/* --- the gate ------------------------------------------------------------------------------ */

static bool
start_gate(const char *lists, const char *probe)
{
    char text[8][160];

    ctl_kill_(&gate);
    port = tcp_port_free();
    snprintf(text[0], sizeof text[0], "--listen=pssl:%d:127.0.0.1", port);
    snprintf(text[1], sizeof text[1], "--server=unix:%s/db.sock", files.dir);
    snprintf(text[2], sizeof text[2], "--private-key=%s/db/server.key", files.dir);
    snprintf(text[3], sizeof text[3], "--certificate=%s/db/server.crt", files.dir);
    snprintf(text[4], sizeof text[4], "--ca-cert=%s/cas.pem", files.dir);
    snprintf(text[5], sizeof text[5], "--crl=%s/%s", files.dir, lists);
    snprintf(text[6], sizeof text[6], "--inactivity-probe=%s", probe);
    snprintf(text[7], sizeof text[7], "--log-file=%s/gate.log", files.dir);
    gate = ctl_spawn_(&files, "gate.out", "weft-dbgate", text[0], text[1], text[2], text[3],
                      text[4], text[5], text[6], text[7], "-vconsole:off", "-vsyslog:off", NULL);
    for (int i = 0; i < 1000; i++) {
        if (tcp_port_listens(port)) {
            return true;
        }
        usleep(10000);
    }
    return false;
}

static bool
logged(const void *what)
{
    return !ctl_sh(&files, "grep -q '%s' $DIR/gate.log", (const char *)what);
}

static bool
lets_in_h1(const void *aux)
{
    return is_served("hosts", "h1");
}

static bool
lets_in_h3(const void *aux)
{
    return is_served("others", "h3");
}

static bool
shows_serial(const void *serial_)
{
    const long *serial = serial_;
    struct client *c = client_open("hosts", "h1", 0);
    X509 *shown = SSL_get0_peer_certificate(c->ssl);
    bool is = shown && ASN1_INTEGER_get(X509_get_serialNumber(shown)) == *serial && served(c);

    client_close(c);
    return is;
}

static bool
transact(const char *operation)
{
    return !ctl_sh(&files,
                   "$BIN/ovsdb-client transact unix:$DIR/db.sock '[\"Weft_Pool\",%s]' "
                   "2>&1 | tee $DIR/did && ! grep -q '\"error\"' $DIR/did",
                   operation);
}

/* --- cases ---------------------------------------------------------------------------------- */

static void
test_crowds(void)
{
    enum { STRANGERS = 96 };
    struct client *slow = client_open_but_one("hosts", "h1");
    int fds[STRANGERS];

    CASE("dbgate/wire: strangers without end keep nobody out");
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = stranger();
        /* No more than its queue takes at once. */
        CHECK(i % 8 || is_served("hosts", "h1"));
    }
    CHECK(until(logged, "not connected: Too many open files"));
    client_finish(slow);
    CHECK(served(slow));
    client_close(slow);
    for (int i = 0; i < STRANGERS; i++) {
        close(fds[i]);
    }
}

static void
test_messages(void)
{
    static const char *const ids[] = {"1.5", "true", "[1]", "{}"};
    struct client *c;
    struct json *message;
    char *text;

    CASE("dbgate/wire: an id that is none ends the connection");
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        text = xasprintf("{\"method\":\"echo\",\"params\":[],\"id\":%s}", ids[i]);
        CHECK(closes_after(text));
        free(text);
        text = xasprintf("{\"method\":\"transact\",\"params\":[\"Weft_Pool\"," READ "],\"id\":%s}",
                         ids[i]);
        CHECK(closes_after(text));
        free(text);
    }
    text = xasprintf("{\"method\":\"echo\",\"params\":[],\"id\":\"%065d\"}", 0);
    CHECK(closes_after(text));
    free(text);

    CASE("dbgate/wire: two requests under way with one id");
    CHECK(closes_after(ASK("7") ASK("7")));
    CHECK(closes_after(ASK("\"x\"") ASK("8") ASK("\"x\"")));
    c = client_open("hosts", "h1", 0);
    CHECK(served(c) && served(c)); /* one after the other */

    CASE("dbgate/wire: what is no JSON-RPC");
    CHECK(closes_after("{\"method\":\"echo\",\"id\":1}"));
    CHECK(closes_after("{\"method\":\"echo\",\"params\":[],\"result\":1,\"id\":1}"));
    CHECK(closes_after("{\"result\":1,\"error\":1,\"id\":1}"));
    CHECK(closes_after("[]"));

    CASE("dbgate/wire: \"cancel\" and answers to nothing are not passed on");
    say(c, ASK("9") "{\"method\":\"cancel\",\"params\":[9],\"id\":null}"
                    "{\"result\":[],\"error\":null,\"id\":9}{\"result\":null,\"error\":1,\"id\":9}"
                    "{\"method\":\"unknown\",\"params\":[],\"id\":null}");
    CHECK(answer(c, &message, 0) == MESSAGE && member(message, "id")->type == JSON_INTEGER &&
          json_integer(member(message, "id")) == 9 && member(message, "error")->type == JSON_NULL);
    json_destroy(message);
    say(c, "{\"method\":\"cancel\",\"params\":[9],\"id\":10}");
    CHECK(answer(c, &message, 0) == MESSAGE && member(message, "error")->type == JSON_OBJECT);
    json_destroy(message);
    CHECK(served(c));
    client_close(c);
}

static void
test_renewed(void)
{
    long renewed = 77;
    char *text;

    CASE("dbgate/wire: a certificate renewed with the same key is shown");
    CHECK(!ctl_sh(
        &files,
        "exec 2>&1; cd $DIR/db; openssl req -new -key server.key -subj /CN=server -out csr &&"
        "openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -set_serial 77 -days 9 -out new &&"
        "mv new server.crt"));
    CHECK(until(shows_serial, &renewed));

    CASE("dbgate/wire: also one of the same time as the last");
    renewed = 79;
    CHECK(!ctl_sh(
        &files,
        "exec 2>&1; cd $DIR/db; openssl req -new -key server.key -subj /CN=server -out csr &&"
        "openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -set_serial 79 -days 9 -out new &&"
        "touch -r server.crt new && mv new server.crt"));
    CHECK(until(shows_serial, &renewed));

    CASE("dbgate/wire: a key that is not the certificate's leaves the pair as it was");
    CHECK(!ctl_sh(&files,
                  "exec 2>&1; cd $DIR/db; cp -p server.key kept; "
                  "openssl ecparam -name prime256v1 -genkey -noout -out new && mv new server.key"));
    CHECK(until(logged, "is not the key"));
    CHECK(shows_serial(&renewed));

    CASE("dbgate/wire: both new");
    renewed = 78;
    CHECK(!ctl_sh(
        &files,
        "exec 2>&1; cd $DIR/db; openssl req -new -key server.key -subj /CN=server -out csr &&"
        "openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -set_serial 78 -days 9 -out new &&"
        "mv new server.crt"));
    CHECK(until(shows_serial, &renewed));
    text = xasprintf("cmp -s %s/db/kept %s/db/server.key", files.dir, files.dir);
    CHECK(ctl_sh(&files, "%s", text)); /* it was another */
    free(text);
}

static void
test_revoked(void)
{
    struct client *h1 = client_open("hosts", "h1", 0), *h2 = client_open("kept", "h2", 0);
    struct client *h3 = client_open("others", "h3", 0), *late;

    CASE("dbgate/wire: who is revoked is put out, and others stay");
    CHECK(served(h1) && served(h2) && served(h3));
    late = client_open_but_one("kept", "h2");
    client_finish(late);
    CHECK(served(late));
    client_close(late);
    late = client_open_but_one("kept", "h2");
    CHECK(!ctl_sh(&files, "exec 2>&1; cd $DIR; $BIN/weft pki revoke h2 --dir hosts && "
                          "cat hosts/crl.pem others/crl.pem >new && mv new lists.pem"));
    CHECK(is_closed(h2));
    CHECK(!is_served("kept", "h2"));
    CHECK(served(h1) && served(h3));

    CASE("dbgate/wire: one whose handshake began before is not let in");
    client_finish(late);
    CHECK(!served(late));
    client_close(late);

    CASE("dbgate/wire: an authority that goes takes its own along, and no list");
    CHECK(!ctl_sh(&files, "cd $DIR; cp hosts/ca.crt new && mv new cas.pem"));
    CHECK(is_closed(h3));
    CHECK(!is_served("others", "h3"));
    CHECK(served(h1) && !is_served("kept", "h2"));

    CASE("dbgate/wire: authorities and lists of the same size and time as the last");
    CHECK(!ctl_sh(&files, "cd $DIR; cat hosts/ca.crt others/ca.crt >new && touch -r cas.pem new && "
                          "mv new cas.pem"));
    CHECK(until(lets_in_h3, NULL));
    client_close(h3);
    CHECK(!ctl_sh(&files, "exec 2>&1; cd $DIR; cp -r others gone; "
                          "$BIN/weft pki revoke h3 --dir gone && "
                          "cat hosts/crl.pem others/crl.pem >before && "
                          "cat hosts/crl.pem gone/crl.pem >after && "
                          "for f in before after; do head -c $((20000 - $(stat -c %%s $f))) "
                          "/dev/zero | tr '\\0' '\\n' >>$f; done; touch -r $BIN/weft before after; "
                          "mv before lists.pem"));
    h3 = client_open("others", "h3", 0);
    CHECK(served(h3));
    CHECK(!ctl_sh(&files, "cp -p $DIR/after $DIR/lists.pem"));
    CHECK(is_closed(h3));
    CHECK(!is_served("others", "h3") && served(h1));

    CASE("dbgate/wire: a list that breaks or goes still holds");
    CHECK(!ctl_sh(&files, "cd $DIR; echo nonsense >new && mv new lists.pem"));
    CHECK(until(logged, "no revocation list"));
    CHECK(served(h1) && is_served("hosts", "h1") && !is_served("kept", "h2"));
    CHECK(!ctl_sh(&files, "rm $DIR/lists.pem"));
    CHECK(is_served("hosts", "h1") && !is_served("kept", "h2"));
    client_close(h1);
    client_close(h2);
    client_close(h3);

    CASE("dbgate/wire: without a list nobody is let in");
    CHECK(start_gate("none.pem", "30000") && !is_served("hosts", "h1"));
    CHECK(!ctl_sh(&files, "cp $DIR/hosts/crl.pem $DIR/new && mv $DIR/new $DIR/none.pem"));
    CHECK(is_served("hosts", "h1") && !is_served("kept", "h2"));
}

/* Makes h1's certificate anew, into "kept", to last for some seconds. */
static bool
make_short(int seconds)
{
    static const char *const names[] = {"hosts/ca.key", "hosts/h1.crt", "kept/short.crt"};
    EVP_PKEY *ca_key;
    char path[128];
    FILE *f[3];
    X509 *crt;
    bool made;

    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", files.dir, names[i]);
        f[i] = fopen(path, i < 2 ? "r" : "w");
        ovs_assert(f[i]);
    }
    ca_key = PEM_read_PrivateKey(f[0], NULL, NULL, NULL);
    crt = PEM_read_X509(f[1], NULL, NULL, NULL);
    made = ca_key && crt && X509_gmtime_adj(X509_getm_notAfter(crt), seconds) &&
           X509_sign(crt, ca_key, EVP_sha256()) && PEM_write_X509(f[2], crt);
    X509_free(crt);
    EVP_PKEY_free(ca_key);
    for (int i = 0; i < 3; i++) {
        made &= !fclose(f[i]);
    }
    return made && !ctl_sh(&files, "cp $DIR/hosts/h1.key $DIR/kept/short.key");
}

static void
test_expired(void)
{
    struct client *h1, *brief;

    CASE("dbgate/wire: a session ends with its certificate");
    CHECK(make_short(5));
    h1 = client_open("hosts", "h1", 0);
    brief = client_open("kept", "short", 0);
    CHECK(served(h1) && served(brief));
    CHECK(is_closed(brief) && until(logged, "its certificate has expired"));
    CHECK(served(h1));
    client_close(h1);
    client_close(brief);
    CHECK(!is_served("kept", "short"));
}

/* The certificate is good; the pool has no such host. */
static void
test_no_host(void)
{
    struct client *c = client_open("hosts", "h1", 0);

    CASE("dbgate/wire: whose row goes is put out, and not let in");
    CHECK(served(c));
    CHECK(transact("{\"op\":\"delete\",\"table\":\"Host\",\"where\":[[\"name\",\"==\",\"h1\"]]}"));
    CHECK(is_closed(c));
    CHECK(!is_served("hosts", "h1") && until(logged, "h1: the pool has no such host"));
    client_close(c);
    CHECK(transact("{\"op\":\"insert\",\"table\":\"Host\",\"row\":{\"name\":\"h1\"}}"));
    CHECK(until(lets_in_h1, NULL));
}

/* The first answer of a monitor is megabytes, and its reader slow. */
static void
test_slow(void)
{
    static const char monitor[] =
        "{\"method\":\"monitor\",\"params\":[\"Weft_Pool\",\"m\",{\"VM\":{}}],\"id\":1}";
    struct client *c;
    struct json *message;
    long long int began;

    for (int i = 0; i < 25; i++) {
        ovs_assert(!ctl_sh(&files,
                           "exec 2>&1; t='[\"Weft_Pool\"'; for i in $(seq 100); do "
                           "t=\"$t,$(printf '{\"op\":\"insert\",\"table\":\"VM\",\"row\":{"
                           "\"name\":\"%%0900d\"}}' %d$i)\"; done; "
                           "$BIN/ovsdb-client transact unix:$DIR/db.sock \"$t]\"",
                           i + 1));
    }
    CHECK(start_gate("none.pem", "1500"));

    CASE("dbgate/wire: one that is silent is asked, and stays if it answers");
    c = client_open("hosts", "h1", 0);
    CHECK(served(c));
    for (int i = 0; i < 2; i++) {
        CHECK(hear(c, &message, 0) == MESSAGE && member(message, "method"));
        json_destroy(message);
        say(c, "{\"id\":\"echo\",\"result\":[],\"error\":null}");
    }
    CHECK(served(c));
    CASE("dbgate/wire: and ends if it does not");
    CHECK(is_closed(c));
    client_close(c);

    CASE("dbgate/wire: one that reads slowly is not cut off");
    c = client_open("hosts", "h1", 16384);
    CHECK(served(c));
    say(c, monitor);
    began = time_msec();
    CHECK(answer(c, &message, 90) == MESSAGE && member(message, "result") &&
          member(message, "result")->type == JSON_OBJECT);
    json_destroy(message);
    CHECK(time_msec() - began > 3 * 1500); /* it was slow */
    CHECK(served(c));
    client_close(c);

    CASE("dbgate/wire: one that reads no more is");
    c = client_open("hosts", "h1", 16384);
    CHECK(served(c));
    CHECK(!ctl_sh(&files, ": >$DIR/gate.log"));
    say(c, monitor);
    CHECK(until(logged, "h1 .*closed: Connection timed out"));
    client_close(c);
}

int
main(int argc, char *argv[])
{
    char file[96], remote[96], ctl[96];

    set_program_name(argv[0]);
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    signal(SIGPIPE, SIG_IGN);
    ctl_find_bin();
    snprintf(files.dir, sizeof files.dir, "/tmp/weft-dbgate-XXXXXX");
    if (!mkdtemp(files.dir) || ctl_sh(&files, "(%s)", setup)) {
        printf("not ok dbgate/wire: no folder or no certificates: %s\n", ctl_said);
        ctl_switch_destroy(&files);
        return 1;
    }
    snprintf(file, sizeof file, "%s/pool.db", files.dir);
    snprintf(remote, sizeof remote, "--remote=punix:%s/db.sock", files.dir);
    snprintf(ctl, sizeof ctl, "--unixctl=%s/dbctl", files.dir);
    files.db =
        ctl_spawn_(&files, "db.log", "ovsdb-server", file, remote, ctl, "-vsyslog:off", NULL);
    if (!ctl_wait_for_(&files, "db.sock") || ctl_sh(&files, "%s", add_hosts) ||
        !start_gate("lists.pem", "30000") || !is_served("hosts", "h1")) {
        printf("not ok dbgate/wire: no gate\n");
        ctl_kill_(&gate);
        ctl_switch_destroy(&files);
        return 1;
    }
    test_crowds();
    test_messages();
    test_renewed();
    test_expired();
    test_revoked();
    test_no_host();
    test_slow();
    ctl_kill_(&gate);
    ctl_switch_destroy(&files);
    return check_done();
}
