/* The collector's sockets, on loopback: UDP of both families, streams in pieces, TLS with and
 * without the pool's certificate. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "export.h"
#include "flow_wire.h"
#include "pki.h"
#include "receive_priv.h"
#include "sink_forward.h"

#define PATIENCE_MS 10000

static struct kept kept;
static struct wire w;
static struct collect *collect;
static struct receive *receive;
static char dir[] = "/tmp/weft-collect-XXXXXX";

/* --- the receiving side ----------------------------------------------------------- */

static unsigned
port_of(const char *kind)
{
    json_t *status = receive_status(receive), *all = json_object_get(status, "sockets"), *one;
    unsigned port = 0;
    size_t i;

    json_array_foreach(all, i, one)
    {
        const char *spec = json_string_value(json_object_get(one, "listen"));

        if (!strncmp(spec, kind, 3)) {
            port = atoi(spec + 4);
        }
    }
    json_decref(status);
    return port;
}

static int64_t
status_of(const char *key)
{
    json_t *status = receive_status(receive);
    int64_t v = json_integer_value(json_object_get(status, key));

    json_decref(status);
    return v;
}

static void
run_once(void)
{
    struct pollfd p = {.fd = receive_fd(receive), .events = POLLIN};

    poll(&p, 1, 10);
    receive_run(receive);
}

/* Runs until so many records have come. */
static bool
until_records(size_t n)
{
    uint64_t end = receive_now_ms() + PATIENCE_MS;

    while (kept.n < n && receive_now_ms() < end) {
        run_once();
    }
    return kept.n == n;
}

static bool
until_status(const char *key, int64_t n)
{
    uint64_t end = receive_now_ms() + PATIENCE_MS;

    while (status_of(key) != n && receive_now_ms() < end) {
        run_once();
    }
    return status_of(key) == n;
}

static bool
until_connections(int64_t n)
{
    return until_status("connections", n);
}

/* --- the sending side ---------------------------------------------------------------- */

static int
dial(int family, int type, unsigned port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int fd = socket(family, type | SOCK_CLOEXEC, 0);

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    in6.sin6_addr = in6addr_loopback;
    if (fd >= 0 && connect(fd, family == AF_INET ? (struct sockaddr *)&in : (struct sockaddr *)&in6,
                           family == AF_INET ? sizeof in : sizeof in6)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void
build(uint32_t sequence, unsigned n)
{
    wipfix(&w, sequence, 1);
    wsimple_template(&w, 2, 256);
    wsimple_data(&w, 256, n, 1);
    put_be16(w.b + 2, w.n);
}

static void
test_udp(void)
{
    int four = dial(AF_INET, SOCK_DGRAM, port_of("udp"));
    int six = dial(AF_INET6, SOCK_DGRAM, port_of("udp"));

    CASE("collect/udp: IPv4 comes as what it is on a socket of both families");
    kept.n = 0;
    build(0, 3);
    CHECK(send(four, w.b, w.n, 0) == w.n && until_records(3));
    CHECK(is_ip4(&kept.last.address, INADDR_LOOPBACK) && kept.last.transport == FLOW_UDP);
    if (six >= 0) {
        CASE("collect/udp: IPv6");
        CHECK(send(six, w.b, w.n, 0) == w.n && until_records(6));
        CHECK(IN6_IS_ADDR_LOOPBACK(&kept.last.address));
    } else {
        printf("skip collect/udp: IPv6: this machine has none\n");
    }
    CASE("collect/udp: what is none of the protocols is counted");
    CHECK(send(four, "GET / HTTP/1.1", 14, 0) == 14);
    build(3, 1);
    CHECK(send(four, w.b, w.n, 0) == w.n && until_records(six >= 0 ? 7 : 4));
    CHECK(total(collect, "unknown_protocol") == 1);

    CASE("collect/udp: that the clock was set is noticed, and ends no exporter");
    struct timespec t;
    const int64_t idle_ms = collect_limits_default.idle_ms;
    int64_t exporters = total(collect, "exporters"), later = receive_now_ms() + idle_ms;
    clock_gettime(CLOCK_BOOTTIME, &t);
    receive_clocks(receive, later, t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000);
    collect_tick(collect, later + 1000);
    CHECK(exporters > 0 && total(collect, "exporters") == exporters);
    receive_tick(receive); /* it is set back: they last as long as they would have */
    collect_tick(collect, receive_now_ms() + idle_ms - PATIENCE_MS);
    CHECK(total(collect, "exporters") == exporters);
    collect_tick(collect, receive_now_ms() + idle_ms + PATIENCE_MS);
    CHECK(total(collect, "exporters") == 0);
    close(four);
    close(six);
}

/* What receive_run() returns once there is something to do. */
static unsigned
rest_after(void)
{
    struct pollfd p = {.fd = receive_fd(receive), .events = POLLIN};

    CHECK(poll(&p, 1, PATIENCE_MS) == 1);
    return receive_run(receive);
}

static void
test_rest(void)
{
    int fd = dial(AF_INET, SOCK_DGRAM, port_of("udp")), stream;

    CASE(
        "collect/udp: datagrams may gather, in a buffer that is large enough; streams do not wait");
    CHECK(receive->rest_ms == 0);
    receive->rest_ms = 3;
    CHECK(receive_run(receive) == 0);
    build(0, 3);
    CHECK(send(fd, w.b, w.n, 0) == w.n && rest_after() == 3 && receive_run(receive) == 0);
    stream = dial(AF_INET, SOCK_STREAM, port_of("tcp"));
    CHECK(rest_after() == 0 && until_connections(1));
    CHECK(send(stream, w.b, w.n, 0) == w.n && rest_after() == 0);
    close(stream);
    CHECK(until_connections(0));
    receive->rest_ms = 0;
    close(fd);
}

static void
test_tcp(void)
{
    int fd = dial(AF_INET, SOCK_STREAM, port_of("tcp")), many[6];
    uint8_t stream[8192];
    size_t n = 0;

    CASE("collect/tcp: messages are found in a stream, however it is cut");
    kept.n = 0;
    for (unsigned i = 0; i < 10; i++) {
        build(i * 4, 4);
        memcpy(stream + n, w.b, w.n);
        n += w.n;
    }
    for (size_t at = 0; at < n; at += 7) {
        CHECK(send(fd, stream + at, n - at < 7 ? n - at : 7, 0) > 0);
        run_once();
    }
    CHECK(until_records(40) && kept.last.transport == FLOW_TCP);
    CHECK(counter(collect, 0, "lost") == 0);
    close(fd);
    CHECK(until_connections(0));

    CASE("collect/tcp: who does not speak IPFIX is disconnected");
    fd = dial(AF_INET, SOCK_STREAM, port_of("tcp"));
    CHECK(send(fd, "SSH-2.0-x\r\n", 11, 0) == 11);
    CHECK(until_connections(1) && until_connections(0));
    close(fd);

    CASE("collect/tcp: connections of one address are bounded");
    for (unsigned i = 0; i < 6; i++) {
        many[i] = dial(AF_INET, SOCK_STREAM, port_of("tcp"));
    }
    CHECK(until_connections(4));
    CHECK(until_status("connections_refused", 2) && status_of("connections") == 4);
    for (unsigned i = 0; i < 6; i++) {
        close(many[i]);
    }
    CHECK(until_connections(0));
}

/* --- TLS ------------------------------------------------------------------------------- */

static bool
issue(const char *in, const char *name, enum pki_key key)
{
    static const char *const addresses[] = {"127.0.0.1"};
    struct pki_request q = {
        .name = name, .key = key, .days = PKI_DAYS, .addresses = addresses, .n_addresses = 1};
    char why[256];

    return !pki_issue(in, &q, why, sizeof why);
}

static struct tls_config *
config_of(const char *pki, const char *name, const char *ca_of)
{
    char key[128], certificate[128], ca[128], why[256];
    struct tls_config *config = NULL;

    snprintf(key, sizeof key, "%s/%s.key", pki, name);
    snprintf(certificate, sizeof certificate, "%s/%s.crt", pki, name);
    snprintf(ca, sizeof ca, "%s/ca.crt", ca_of);
    return tls_config_create(key, certificate, ca, NULL, &config, why, sizeof why) ? NULL : config;
}

/* Writes it all while the receiver runs; false: the connection ended first. */
static bool
write_all(struct tls *tls, const uint8_t *p, size_t n)
{
    uint64_t end = receive_now_ms() + PATIENCE_MS;

    while (n && receive_now_ms() < end) {
        ssize_t sent = tls_write(tls, p, n);

        if (sent > 0) {
            p += sent;
            n -= sent;
        } else if (sent != -EAGAIN) {
            return false;
        }
        run_once();
    }
    return !n;
}

/* A client of TLS 1.3 learns of its refusal when it reads. */
static bool
is_refused(struct tls *tls)
{
    uint64_t end = receive_now_ms() + PATIENCE_MS;
    uint8_t byte;
    ssize_t n;

    while ((n = tls_read(tls, &byte, 1)) == -EAGAIN && receive_now_ms() < end) {
        run_once();
    }
    return n < 0 && n != -EAGAIN;
}

static struct tls *
dial_tls(struct tls_config *config, const char *name, int *fd)
{
    *fd = dial(AF_INET, SOCK_STREAM, port_of("tls"));
    fcntl(*fd, F_SETFL, O_NONBLOCK);
    return tls_connect(config, *fd, name);
}

static void
test_tls(const char *ours, const char *theirs)
{
    struct tls_config *good = config_of(ours, "exporter", ours),
                      *stranger = config_of(theirs, "exporter", ours), *mixed = NULL;
    char key[128], certificate[128], ca[128], why[256];
    struct tls *tls;
    int fd;

    CASE("collect/tls: records of an exporter with the pool's certificate");
    CHECK(good && stranger);
    kept.n = 0;
    tls = dial_tls(good, "127.0.0.1", &fd);
    for (unsigned i = 0; i < 50; i++) {
        build(i * 100, 100);
        CHECK(write_all(tls, w.b, w.n));
    }
    CHECK(until_records(5000) && kept.last.transport == FLOW_TLS && tls_established(tls));
    tls_close(tls);
    close(fd);
    CHECK(until_connections(0));

    CASE("collect/tls: an exporter with another CA's certificate is refused");
    kept.n = 0;
    tls = dial_tls(stranger, NULL, &fd);
    build(0, 1);
    write_all(tls, w.b, w.n);
    CHECK(is_refused(tls) && kept.n == 0);
    tls_close(tls);
    close(fd);
    CHECK(until_connections(0));

    CASE("collect/tls: an exporter refuses a collector of another name");
    tls = dial_tls(good, "elsewhere", &fd);
    CHECK(!write_all(tls, w.b, w.n) && strstr(tls_error(tls), "ostname") && kept.n == 0);
    tls_close(tls);
    close(fd);
    CHECK(until_connections(0));
    tls_config_destroy(good);
    tls_config_destroy(stranger);

    CASE("collect/tls: a key of another kind than the certificate's is refused by its name");
    snprintf(key, sizeof key, "%s/exporter.key", ours);
    snprintf(certificate, sizeof certificate, "%s/rsa.crt", ours);
    snprintf(ca, sizeof ca, "%s/ca.crt", ours);
    CHECK(tls_config_create(key, certificate, ca, NULL, &mixed, why, sizeof why) == EINVAL);
    CHECK(!mixed && strstr(why, key));
    tls_config_destroy(mixed);
    mixed = config_of(ours, "rsa", ours);
    CHECK(mixed);
    tls_config_destroy(mixed);
}

/* --- on to another ------------------------------------------------------------------------ */

/* The next message that has the bytes at its end (or anywhere). */
static bool
comes(int fd, const void *bytes, size_t n, bool at_end)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint8_t m[2048];

    while (poll(&p, 1, PATIENCE_MS) == 1) {
        ssize_t len = recv(fd, m, sizeof m, 0);

        if (len >= (ssize_t)n &&
            (at_end ? !memcmp(m + len - n, bytes, n) : memmem(m, len, bytes, n) != NULL)) {
            return true;
        }
    }
    return false;
}

/* Whose a record was: its last fields. */
static void
test_forwarded_bytes(const struct flow_record *r)
{
    static const uint8_t fields4[] = {0x01, 0x93, 0, 4, 0x01, 0x95, 0, 4},
                         fields6[] = {0x01, 0x94, 0, 16, 0x01, 0x95, 0, 4},
                         end4[] = {192, 0, 2, 7, 0, 0, 0x12, 0x34},
                         end6[] = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0,    0,
                                   0,    0, 0,   0,    0, 9, 0, 0, 0x56, 0x78};
    struct flow_source from = {.id = 1, .protocol = FLOW_NETFLOW9, .domain = 0x1234};
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char target[64], why[256];
    const char *targets[] = {target};
    struct forward *forward;
    struct flow_sink sink;

    CASE("collect/forward: each record says whose it was");
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(!bind(fd, (struct sockaddr *)&in, sizeof in) &&
          !getsockname(fd, (struct sockaddr *)&in, &len));
    snprintf(target, sizeof target, "127.0.0.1:%u", ntohs(in.sin_port));
    CHECK(!forward_open(targets, 1, NULL, NULL, NULL, &forward, why, sizeof why));
    sink = forward_sink(forward);
    inet_pton(AF_INET6, "::ffff:192.0.2.7", &from.address);
    sink.records(sink.context, &from, r, 1);
    forward_run(forward, receive_now_ms() + 1000);
    CHECK(comes(fd, fields4, sizeof fields4, false));
    CHECK(comes(fd, end4, sizeof end4, true));
    inet_pton(AF_INET6, "2001:db8::9", &from.address);
    from.domain = 0x5678;
    sink.records(sink.context, &from, r, 1);
    forward_run(forward, receive_now_ms() + 1000000); /* templates once more */
    CHECK(comes(fd, fields6, sizeof fields6, false));
    CHECK(comes(fd, end6, sizeof end6, true));
    forward_close(forward);
    close(fd);
}

static void
test_forward(void)
{
    struct flow_source from = {.id = 1, .protocol = FLOW_SFLOW};
    struct flow_record r[2] = {
        {.start_ms = NOW, .end_ms = NOW + 5, .packets = 3, .bytes = 300, .eth_type = 0x0800},
        {.start_ms = NOW, .end_ms = NOW + 9, .packets = 2, .bytes = 180, .eth_type = 0x86dd}};
    char target[64], why[256];
    const char *targets[] = {target};
    struct forward *forward;
    struct flow_sink sink;

    CASE("collect/forward: records go on as IPFIX, sampled ones multiplied");
    inet_pton(AF_INET6, "::ffff:10.0.0.1", &r[0].src);
    inet_pton(AF_INET6, "::ffff:10.0.0.2", &r[0].dst);
    inet_pton(AF_INET6, "fc00::1", &r[1].src);
    inet_pton(AF_INET6, "fc00::2", &r[1].dst);
    r[0].proto = r[1].proto = 17;
    r[0].sport = r[1].sport = 53;
    r[1].sampling = 100;
    r[1].vlan = 7;
    snprintf(target, sizeof target, "127.0.0.1:%u", port_of("udp"));
    CHECK(!forward_open(targets, 1, NULL, NULL, NULL, &forward, why, sizeof why));
    sink = forward_sink(forward);
    kept.n = 0;
    sink.records(sink.context, &from, r, 2);
    forward_run(forward, receive_now_ms());
    forward_close(forward);
    CHECK(until_records(2) && kept.last.protocol == FLOW_IPFIX);
    for (unsigned i = 0; i < 2; i++) {
        const struct flow_record *got = &kept.r[i], *sent = &r[got->eth_type == 0x86dd];
        unsigned rate = sent->sampling ? sent->sampling : 1;

        CHECK(!memcmp(&got->src, &sent->src, 16) && !memcmp(&got->dst, &sent->dst, 16));
        CHECK(got->packets == sent->packets * rate && got->bytes == sent->bytes * rate);
        CHECK(got->start_ms == sent->start_ms && got->end_ms == sent->end_ms);
        CHECK(got->proto == 17 && got->sport == 53 && got->vlan == sent->vlan);
        CHECK(got->sampling == 1);
    }
    test_forwarded_bytes(&r[0]);
    targets[0] = "nowhere";
    CHECK(forward_open(targets, 1, NULL, NULL, NULL, &forward, why, sizeof why) && *why);
}

/* --- Weft's own exporter -------------------------------------------------------------------- */

static bool
describes_element(const char *name)
{
    json_t *status = collect_status(collect, receive_now_ms()), *one;
    json_t *all =
        json_object_get(json_array_get(json_object_get(status, "exporters"), 0), "elements");
    bool found = false;
    size_t i;

    json_array_foreach(all, i, one)
    {
        found |= !strcmp(json_string_value(json_object_get(one, "name")), name);
    }
    json_decref(status);
    return found;
}

static void
test_own_exporter(enum export_version version)
{
    struct export_config config = {.version = version, .domain = 5, .sampling = 8, .n_targets = 1};
    const struct export_interface interface = {.index = 3, .name = "vif7.0"};
    struct flow_record r = {.start_ms = receive_now_ms() - 10,
                            .packets = 3,
                            .bytes = 300,
                            .eth_type = 0x0800,
                            .in_if = 3,
                            .rule_out = 4711};
    struct export *e = NULL;
    uint64_t now_ms = receive_now_ms(), end = now_ms + PATIENCE_MS;
    char why[256];

    CASE(version == EXPORT_IPFIX ? "collect/weft: what our IPFIX exporter says of itself"
                                 : "collect/weft: what our v9 exporter says of itself");
    r.end_ms = r.start_ms;
    inet_pton(AF_INET6, "::ffff:10.0.0.1", &r.src);
    inet_pton(AF_INET6, "::ffff:10.0.0.2", &r.dst);
    snprintf(config.targets[0], sizeof config.targets[0], "127.0.0.1:%u", port_of("udp"));
    CHECK(!export_create(&config, &e, why, sizeof why));
    kept.n = 0;
    kept.name[0] = '\0';
    export_interfaces(e, &interface, 1);
    export_records(e, &r, 1, now_ms);
    export_run(e, now_ms);
    export_records(e, &r, 1, now_ms + 100);
    export_run(e, now_ms + 2000);
    CHECK(until_records(2));
    while (!kept.name[0] && receive_now_ms() < end) {
        run_once();
    }
    CHECK(!strcmp(kept.name, "vif7.0") && kept.name_index == 3);
    CHECK(kept.last.domain == 5 && kept.r[1].sampling == 8 && kept.r[1].in_if == 3);
    CHECK(counter(collect, 0, "lost") == 0 && counter(collect, 0, "malformed") == 0);
    if (version == EXPORT_IPFIX) {
        CHECK(kept.r[0].rule_out == 4711 && describes_element("weftRuleOut"));
    }
    export_destroy(e);
}

/* A name of the PKI as our exporter's files. */
static bool
copy_files(const char *pki, const char *files)
{
    char command[400];

    snprintf(
        command, sizeof command,
        "for f in %s; do cp %s/exporter.$f %s/late.$f.new && mv %s/late.$f.new %s/late.$f; done",
        files, pki, dir, dir, dir);
    return system(command) == 0;
}

/* Runs the exporter, a second a turn, until so many records have come over TLS. */
static bool
exports_until(struct export *e, size_t n, uint64_t *now_ms)
{
    uint64_t end = receive_now_ms() + PATIENCE_MS;
    struct flow_record r = {.start_ms = NOW, .end_ms = NOW, .packets = 1, .eth_type = 0x0800};

    for (kept.n = 0; kept.n < n && receive_now_ms() < end;) {
        export_records(e, &r, 1, *now_ms);
        export_run(e, *now_ms += 1000);
        run_once();
    }
    return kept.n >= n && kept.last.transport == FLOW_TLS;
}

static unsigned looked; /* at files */

/* In place of the C library's. */
int
stat(const char *path, struct stat *st)
{
    looked++;
    return fstatat(AT_FDCWD, path, st, 0);
}

static void
test_late_certificates(const char *ours, const char *theirs)
{
    struct export_config config = {.version = EXPORT_IPFIX, .refresh_s = 60};
    struct export_collector_stats stats;
    uint64_t now_ms = receive_now_ms();
    char target[64], why[256];
    struct export *e = NULL;
    bool renewed = true;

    CASE("collect/weft: a collector is added when its certificates are there");
    snprintf(config.key, sizeof config.key, "%s/late.key", dir);
    snprintf(config.certificate, sizeof config.certificate, "%s/late.crt", dir);
    snprintf(config.ca, sizeof config.ca, "%s/ca.crt", ours);
    snprintf(target, sizeof target, "tls:127.0.0.1:%u", port_of("tls"));
    CHECK(!export_create(&config, &e, why, sizeof why));
    CHECK(export_add(e, &config, target, why, sizeof why) == EINVAL && strstr(why, "late.crt"));
    CHECK(export_n_collectors(e) == 0);
    looked = 0;
    CHECK(!export_renew_tls(e, &config, &renewed, why, sizeof why) && !renewed);
    CHECK(looked == 0); /* for nobody */
    CHECK(copy_files(theirs, "key crt"));
    CHECK(!export_add(e, &config, target, why, sizeof why) && export_n_collectors(e) == 1);

    CASE("collect/weft: certificates that were replaced are used from then on");
    for (int i = 0; i < 20; i++) { /* the collector refuses them */
        export_run(e, now_ms += 1000);
        run_once();
    }
    looked = 0;
    CHECK(!export_renew_tls(e, &config, &renewed, why, sizeof why) && !renewed);
    CHECK(looked > 0);
    CHECK(copy_files(ours, "crt"));
    CHECK(export_renew_tls(e, &config, &renewed, why, sizeof why) == EINVAL && !renewed);
    CHECK(copy_files(ours, "key"));
    CHECK(!export_renew_tls(e, &config, &renewed, why, sizeof why) && renewed);
    CHECK(exports_until(e, 3, &now_ms));
    export_collector_stats(e, 0, &stats);
    CHECK(stats.connected && stats.records >= 3);
    for (unsigned i = 1; i < EXPORT_COLLECTORS_MAX; i++) {
        CHECK(!export_add(e, &config, "127.0.0.1:9", why, sizeof why));
    }
    CHECK(export_add(e, &config, "127.0.0.1:9", why, sizeof why) == E2BIG && strlen(why) > 5);
    export_destroy(e);
    CHECK(until_connections(0));
}

/* --- who may speak ---------------------------------------------------------------------------- */

static void
test_assume(void)
{
    static const char *const wrong[] = {
        "",           "=5",          "10.0.0.1",     "10.0.0.1=",
        "10.0.0.1=0", "10.0.0.1=-1", "10.0.0.1=5x",  "10.0.0.1/33=5",
        "host=5",     "::1/129=5",   "10.0.0.1=1e3", "10.0.0.1=1000001"};
    char why[300];

    CASE("collect: assumed rates that are none");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        why[0] = '\0';
        CHECK(receive_assume(receive, wrong[i], why, sizeof why) == EINVAL && strlen(why) > 10);
    }
    CHECK(!receive_assume(receive, "192.0.2.0/24=400", why, sizeof why));
    CHECK(!receive_assume(receive, "2001:db8::1=1000000", why, sizeof why));
}

static void
test_allow(void)
{
    int fd = dial(AF_INET, SOCK_DGRAM, port_of("udp")), stream;
    char why[256];

    CASE("collect/allow: prefixes, in form and not");
    CHECK(receive_allow(receive, "10.0.0.0/33", why, sizeof why) == EINVAL);
    CHECK(receive_allow(receive, "10.0.0.0/", why, sizeof why) == EINVAL);
    CHECK(receive_allow(receive, "host", why, sizeof why) == EINVAL && strstr(why, "host"));
    CHECK(!receive_allow(receive, "fc00::/7", why, sizeof why));
    CHECK(!receive_allow(receive, "128.0.0.0/1", why, sizeof why));

    CASE("collect/allow: whoever is not allowed is not heard, nor kept");
    kept.n = 0;
    build(0, 1);
    CHECK(send(fd, w.b, w.n, 0) == w.n);
    CHECK(until_status("not_allowed", 1));
    stream = dial(AF_INET, SOCK_STREAM, port_of("tcp"));
    CHECK(until_status("not_allowed", 2));
    CHECK(kept.n == 0 && status_of("connections") == 0);
    close(stream);

    CASE("collect/allow: ... until it is");
    CHECK(!receive_allow(receive, "127.0.0.0/9", why, sizeof why));
    CHECK(send(fd, w.b, w.n, 0) == w.n && until_records(1));
    close(fd);
}

int
main(void)
{
    struct receive_options options = {
        .buffer_bytes = 1 << 20, .connections = 16, .connections_per_host = 4};
    char ours[64], theirs[64], clean[128], why[256];

    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    snprintf(ours, sizeof ours, "%s/ours", dir);
    snprintf(theirs, sizeof theirs, "%s/theirs", dir);
    CASE("collect/sockets: open");
    CHECK(!pki_init(ours, "ours", PKI_EC_P256, PKI_CA_DAYS, why, sizeof why));
    CHECK(!pki_init(theirs, "theirs", PKI_EC_P256, PKI_CA_DAYS, why, sizeof why));
    CHECK(issue(ours, "collector", PKI_EC_P256) && issue(ours, "exporter", PKI_EC_P256) &&
          issue(theirs, "exporter", PKI_EC_P256) && issue(ours, "rsa", PKI_RSA_3072));
    options.tls = config_of(ours, "collector", ours);
    collect = keep_in(&kept, &collect_limits_default);
    CHECK(options.tls && collect && !receive_create(collect, &options, &receive));
    CHECK(!receive_listen(receive, "udp:0", why, sizeof why));
    CHECK(!receive_listen(receive, "tcp:0:127.0.0.1", why, sizeof why));
    CHECK(!receive_listen(receive, "tls:0:127.0.0.1", why, sizeof why));
    CHECK(receive_listen(receive, "udp:99999", why, sizeof why) == EINVAL);
    CHECK(receive_listen(receive, "sctp:1", why, sizeof why) == EINVAL);
    CHECK(receive_listen(receive, "udp:1:nowhere", why, sizeof why) == EINVAL);
    test_udp();
    test_rest();
    test_tcp();
    test_tls(ours, theirs);
    test_forward();
    test_own_exporter(EXPORT_V9);
    test_own_exporter(EXPORT_IPFIX);
    test_late_certificates(ours, theirs);
    test_assume();
    test_allow();
    receive_destroy(receive);
    collect_destroy(collect);
    tls_config_destroy(options.tls);
    snprintf(clean, sizeof clean, "rm -rf %s", dir);
    return system(clean) || check_done();
}
