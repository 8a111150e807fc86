/* Who may pose as a host: certificates and protocols of the servers that the
 * controller connects to. */
#include <config.h>

#include <sys/resource.h>

#include "check.h"
#include "ctl_switch.h"
#include "host.h"
#include "host_peer.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "pflow.h"
#include "stream-ssl.h"
#include "tcp_port.h"
#include "timeval.h"
#include "util.h"

static struct ctl_switch sw;
static int port;

/* A CA each in ca/ and other/; $1 CA, $2 file, $3 name, $4 last day (UTC). */
static const char pki[] =
    "set -e; cd $DIR\n"
    "new_ca() {\n"
    "  mkdir $1; : >$1/index; echo 01 >$1/serial; echo 01 >$1/crlnumber\n"
    "  cat >$1/cnf <<EOF\n"
    "[ca]\ndefault_ca=d\n[d]\ndatabase=$1/index\nserial=$1/serial\ncrlnumber=$1/crlnumber\n"
    "new_certs_dir=$1\ncertificate=$1/ca.pem\nprivate_key=$1/ca.key\ndefault_md=sha256\n"
    "policy=p\ncopy_extensions=copy\ndefault_days=30\ndefault_crl_days=30\n"
    "unique_subject=no\n[p]\ncommonName=supplied\n"
    "EOF\n"
    "  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 "
    "    -subj /CN=$1 -keyout $1/ca.key -out $1/ca.pem\n"
    "}\n"
    "cert() {\n"
    "  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$3 "
    "    -addext subjectAltName=DNS:$3 -keyout $2.key -out $2.csr\n"
    "  openssl ca -batch -notext -config $1/cnf -in $2.csr -out $2.pem "
    "    -startdate 20200101000000Z -enddate $4\n"
    "}\n"
    "new_ca ca; new_ca other\n"
    "cert ca ctl controller 20990101000000Z\n"
    "cert ca good host1 20990101000000Z\n"
    "cert ca name host2 20990101000000Z\n"
    "cert ca old host1 20200102000000Z\n"
    "cert ca gone host1 20990101000000Z\n"
    "cert other wrong host1 20990101000000Z\n"
    "openssl ca -config ca/cnf -gencrl -out crl-empty.pem\n"
    "openssl ca -config ca/cnf -revoke gone.pem\n"
    "openssl ca -config ca/cnf -gencrl -out crl.pem\n"
    "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=host1 -keyout cn.key "
    "  -out cn.csr\n"
    "openssl ca -batch -notext -config ca/cnf -in cn.csr -out cn.pem\n";

/* A database behind TLS with the certificate 'cert'. */
static void
start_server(const char *cert, const char *protocols)
{
    char file[96], remote[96], local[96], key[96], pem[96], ca[96], ctl[96], proto[64];

    snprintf(file, sizeof file, "%s/conf.db", sw.dir);
    snprintf(remote, sizeof remote, "--remote=pssl:%d:127.0.0.1", port = tcp_port_free());
    snprintf(local, sizeof local, "--remote=punix:%s/db.sock", sw.dir);
    snprintf(key, sizeof key, "--private-key=%s/%s.key", sw.dir, cert);
    snprintf(pem, sizeof pem, "--certificate=%s/%s.pem", sw.dir, cert);
    snprintf(ca, sizeof ca, "--ca-cert=%s/ca/ca.pem", sw.dir);
    snprintf(ctl, sizeof ctl, "--unixctl=%s/dbctl", sw.dir);
    snprintf(proto, sizeof proto, "--ssl-protocols=%s", protocols);
    ctl_kill_(&sw.db);
    ctl_sh(&sw, "rm -f $DIR/db.sock $DIR/.conf.db.~lock~");
    sw.db = ctl_spawn_(&sw, "ovsdb.log", "ovsdb-server", file, remote, local, key, pem, ca, ctl,
                       "-vsyslog:off", proto, NULL);
    for (int i = 0; i < 500 && !tcp_port_listens(port); i++) {
        usleep(10000);
    }
}

/* Whether a host at the server is read within a second; says why not. */
static bool
accepted(const char *why)
{
    struct host *h = host_create("host1");
    char target[64];
    long long int end = time_msec() + 1000;
    bool ok;

    snprintf(target, sizeof target, "ssl:127.0.0.1:%d", port);
    const struct host_config c = {
        .name = "host1",
        .ovsdb = target,
        .openflow = target,
        .bridge = "xenbr0",
        .uplink = "",
        .enabled = true,
    };
    host_configure(h, &c);
    host_set_epoch(h, 1);
    while (!host_get_ports_seqno(h) && time_msec() < end &&
           (!why || !strstr(host_get_status(h)->error, why))) {
        host_run(h);
        host_wait(h);
        poll_timer_wait(20);
        poll_block();
    }
    ok = host_get_ports_seqno(h) != 0;
    if (!ok && why && !strstr(host_get_status(h)->error, why)) {
        printf("# not \"%s\" but \"%s\"\n", why, host_get_status(h)->error);
        ok = true; /* not refused as it should be */
    }
    host_destroy(h);
    return ok;
}

/* OVSDB and OpenFlow by TLS: the switch is told to listen for us. */
static bool
whole_host(int ms)
{
    struct host *h = host_create("host1");
    long long int end = time_msec() + ms;
    char db[64], of[64];
    struct ftable want;
    bool ok;

    snprintf(db, sizeof db, "ssl:127.0.0.1:%d", port);
    snprintf(of, sizeof of, "ssl:127.0.0.1:%d", tcp_port_free());
    const struct host_config c = {
        .name = "host1",
        .ovsdb = db,
        .openflow = of,
        .bridge = "xenbr0",
        .uplink = "",
        .enabled = true,
    };
    ftable_init(&want);
    host_set_table(h, &want);
    host_configure(h, &c);
    host_set_epoch(h, 1);
    while (host_get_status(h)->applied_generation != 5 && time_msec() < end) {
        if (host_get_ports_seqno(h)) {
            host_commit(h, 5, host_get_ports_seqno(h));
        }
        host_run(h);
        host_wait(h);
        poll_timer_wait(20);
        poll_block();
    }
    ok = host_get_status(h)->connected && host_get_status(h)->applied_generation == 5;
    if (!ok) {
        printf("# %s\n", host_get_status(h)->error);
    }
    host_destroy(h);
    ftable_destroy(&want);
    return ok;
}

/* Refused within a second, in the handshake, and the host's error says why. */
static bool
refused(const char *cert, const char *protocols, const char *why)
{
    start_server(cert, protocols);
    return !accepted(why);
}

static bool
reads_new_list(void)
{
    long long int end = time_msec() + 10000;

    while (!host_peer_refresh()) {
        if (time_msec() > end) {
            return false;
        }
        usleep(20000);
    }
    return true;
}

/* A new list is there, and no file can be opened, until it is told no more that it is new. */
static void
read_without_descriptors(void)
{
    long long int end = time_msec() + 100;
    struct rlimit limit, none;

    CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
    none = (struct rlimit){3, limit.rlim_max};
    CHECK(!setrlimit(RLIMIT_NOFILE, &none));
    do {
        CHECK(!host_peer_refresh());
        usleep(1000);
    } while (time_msec() < end);
    CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
}

int
main(int argc, char *argv[])
{
    static const char all[] = "TLSv1,TLSv1.1,TLSv1.2"; /* 1.3 as well: the default */
    char path[4][96];

    set_program_name(argv[0]);
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, getenv("V") ? VLL_DBG : VLL_OFF);
    if (!ctl_switch_create(&sw) || ctl_sh(&sw, "(%s) 2>&1", pki)) {
        printf("not ok ctl_tls: no switch or no certificates: %s\n", ctl_said);
        ctl_switch_destroy(&sw);
        return 1;
    }
    ctl_switch_kill(&sw); /* the database is all that is needed */
    snprintf(path[0], sizeof path[0], "%s/ctl.key", sw.dir);
    snprintf(path[1], sizeof path[1], "%s/ctl.pem", sw.dir);
    snprintf(path[2], sizeof path[2], "%s/ca/ca.pem", sw.dir);
    stream_ssl_set_key_and_cert(path[0], path[1]);
    stream_ssl_set_ca_cert_file(path[2], false);

    CASE("ctl_tls/good: the certificate that names the host is accepted");
    start_server("good", all);
    CHECK(accepted(NULL));
    start_server("cn", all); /* by its common name */
    CHECK(accepted(NULL));

    CASE("ctl_tls/whole: configured and programmed over TLS alone");
    start_server("good", all);
    CHECK(ctl_switch_start(&sw));
    ctl_sh(&sw, "$BIN/ovs-vsctl --db=unix:$DIR/db.sock --timeout=20 set-ssl $DIR/good.key "
                "$DIR/good.pem $DIR/ca/ca.pem");
    CHECK(whole_host(15000));
    ctl_sh(&sw, "$BIN/ovs-vsctl --db=unix:$DIR/db.sock --timeout=20 set-ssl $DIR/name.key "
                "$DIR/name.pem $DIR/ca/ca.pem");
    CHECK(!whole_host(2000)); /* another host answers for it */
    ctl_switch_kill(&sw);

    CASE("ctl_tls/wrong host: another host's certificate is refused");
    CHECK(refused("name", all, "certificate does not name host \"host1\""));

    CASE("ctl_tls/wrong CA: refused");
    CHECK(refused("wrong", all, "certificate is refused: unable to get local issuer"));

    CASE("ctl_tls/expired: refused");
    CHECK(refused("old", all, "certificate is refused: certificate has expired"));

    CASE("ctl_tls/version: TLS 1.1 and 1.2 are refused");
    CHECK(refused("good", "TLSv1.1", "TLS: "));
    CHECK(refused("good", "TLSv1.2", "TLS: "));

    CASE("ctl_tls/version: TLS 1.2 where it is allowed, 1.1 nowhere");
    host_peer_allow_tls12();
    start_server("good", "TLSv1.2");
    CHECK(accepted(NULL));
    CHECK(refused("good", "TLSv1.1", "TLS: "));

    CASE("ctl_tls/revoked: without a list nobody is let in");
    start_server("gone", all);
    CHECK(accepted(NULL));
    snprintf(path[3], sizeof path[3], "%s/list.pem", sw.dir);
    host_peer_add_crl(path[3]);
    CHECK(!accepted("certificate is refused: unable to get certificate CRL"));

    CASE("ctl_tls/revoked: refused once the list says so");
    ctl_sh(&sw, "cp $DIR/crl-empty.pem $DIR/list.pem");
    CHECK(accepted(NULL));
    ctl_sh(&sw, "cp $DIR/crl.pem $DIR/list.pem");
    CHECK(!accepted("certificate is refused: certificate revoked"));
    start_server("good", all);
    CHECK(accepted(NULL));

    CASE("ctl_tls/revoked: a list that cannot be read for a moment is read then");
    ctl_sh(&sw, "cp $DIR/crl-empty.pem $DIR/list.pem");
    start_server("gone", all);
    CHECK(accepted(NULL) && reads_new_list());
    ctl_sh(&sw, "cp $DIR/crl.pem $DIR/list.pem");
    read_without_descriptors();
    CHECK(reads_new_list() && refused("gone", all, "certificate revoked"));
    start_server("good", all);

    CASE("ctl_tls/revoked: a list that goes away or breaks still holds");
    ctl_sh(&sw, "rm $DIR/list.pem");
    CHECK(accepted(NULL));
    ctl_sh(&sw, "echo nonsense >$DIR/list.pem");
    CHECK(refused("gone", all, "certificate revoked"));

    ctl_switch_destroy(&sw);
    return check_done();
}
