/* The network half of a migration: announcements, the state's format, and, with
 * arguments, the hands of tests/smoke/vif_move.sh:
 *
 *   test_mig_network SOURCE_DIR DESTINATION_DIR PORT MAC KEY ZONE ADDRESS
 *
 * takes verbs on stdin and answers each with a line, after one for everything that
 * could not be carried so far.  "stock:DIR" is a switch that is not ours. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "announce.h"
#include "bytes.h"
#include "check.h"
#include "job.h"
#include "network_priv.h"

static const uint8_t mac[6] = {2, 0, 0, 0xaa, 0xbb, 0xcc};

/* --- announcements ---------------------------------------------------------------- */

/* RFC 1071, over both halves of a byte pair, written another way than the code's. */
static bool
sums_up(const uint8_t *p, size_t len, uint32_t more)
{
    uint64_t s = more;

    for (size_t i = 0; i < len; i++) {
        s += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    }
    return s % 0xffff == 0 && s;
}

static bool
icmp6_sums_up(const uint8_t *ip, const uint8_t *icmp, size_t len)
{
    uint32_t pseudo = len + 58;

    for (int i = 8; i < 40; i++) {
        pseudo += i % 2 ? ip[i] : (uint32_t)ip[i] << 8;
    }
    return sums_up(icmp, len, pseudo);
}

static void
test_announce(void)
{
    static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint8_t f[ANNOUNCE_MAX];

    CASE("announce: RARP, with and without a tag");
    CHECK(announce_rarp(f, mac, 0) == 60 && !memcmp(f, all, 6) && !memcmp(f + 6, mac, 6));
    CHECK(get_be16(f + 12) == 0x8035 && get_be16(f + 20) == 3);
    CHECK(!memcmp(f + 22, mac, 6) && !memcmp(f + 32, mac, 6));
    CHECK(announce_rarp(f, mac, 77) == 60 && get_be16(f + 12) == 0x8100);
    CHECK(get_be16(f + 14) == 77 && get_be16(f + 16) == 0x8035);

    CASE("announce: gratuitous ARP");
    CHECK(announce_address(f, mac, 0, "192.0.2.7") == 60 && get_be16(f + 12) == 0x0806);
    CHECK(get_be16(f + 20) == 1 && !memcmp(f + 22, mac, 6) && get_be32(f + 28) == 0xc0000207);
    CHECK(get_be32(f + 38) == 0xc0000207 && get_be32(f + 32) == 0 && get_be16(f + 36) == 0);

    CASE("announce: unsolicited neighbour advertisement");
    CHECK(announce_address(f, mac, 0, "2001:db8::7") == 14 + 40 + 32);
    CHECK(get_be16(f + 12) == 0x86dd && f[20] == 58 && f[21] == 255 && f[54] == 136);
    CHECK(f[58] == 0x20 && f[22] == 0x20 && f[62] == 0x20 && f[77] == 7);
    CHECK(f[78] == 2 && f[79] == 1 && !memcmp(f + 80, mac, 6));
    CHECK(icmp6_sums_up(f + 14, f + 54, 32));

    CASE("announce: multicast reports");
    CHECK(announce_group(f, mac, 0, "239.1.2.3") == 60 && f[2] == 0x5e && f[3] == 1);
    CHECK(sums_up(f + 14, 24, 0) && sums_up(f + 38, 8, 0) && f[38] == 0x16);
    CHECK(announce_group(f, mac, 5, "ff05::1:3") == 18 + 48 + 24 && f[0] == 0x33);
    CHECK(f[18 + 40] == 58 && f[18 + 48] == 131 && icmp6_sums_up(f + 18, f + 66, 24));

    CASE("announce: what cannot be is not");
    CHECK(!announce_address(f, mac, 0, "") && !announce_address(f, mac, 0, "ff02::1"));
    CHECK(!announce_address(f, mac, 0, "192.0.2") && !announce_group(f, mac, 0, "224.0.0.5"));
    CHECK(!announce_group(f, mac, 0, "10.0.0.1") && !announce_group(f, mac, 0, "ff01::5"));
    CHECK(!announce_group(f, mac, 0, "ff02::1") && !announce_group(f, mac, 0, "2001:db8::1"));
}

static bool
has_frame(const struct frames *f, const uint8_t *src, uint16_t vlan, uint16_t type)
{
    for (size_t i = 0; i < f->n; i++) {
        const uint8_t *data = f->all[i].data;
        uint16_t tag = get_be16(data + 12) == 0x8100 ? get_be16(data + 14) : 0;

        if (!memcmp(data + 6, src, 6) && tag == vlan && get_be16(data + (tag ? 16 : 12)) == type) {
            return true;
        }
    }
    return false;
}

/* What weft-xapid says of a vif and of what is in its trunk. */
static void
test_trunk(void)
{
    static struct mig_job job;
    static struct frames f;
    struct end_vif v = {0};
    const uint8_t child[6] = {2, 0, 0, 0, 9, 9};
    char why[MIG_WHY];
    const char *text =
        "{\"uuid\": \"12345678-1234-1234-1234-123456789012\", \"port\": \"p\", "
        "\"mac\": \"02:00:00:aa:bb:cc\", \"addresses\": [\"192.0.2.7\"], "
        "\"children\": [{\"tag\": 100, \"pool_key\": 9, \"mac\": \"02:00:00:00:09:09\", "
        "\"addresses\": [\"10.10.0.254\", \"2001:db8::9\"]}], \"trunk\": true}";

    CASE("announce: what is in a trunk by its own MAC, with its tag, and not without");
    mig_job_init(&job);
    CHECK(!mig_job_option(&job, "vif", text, why) && job.vifs[0].n_addresses == 3 &&
          job.vifs[0].trunk);
    CHECK(job.vifs[0].children[0].key == 9);
    v.is = job.vifs[0];
    network_make_frames(&v, &f);
    CHECK(f.n == 5 && has_frame(&f, mac, 0, 0x8035) && has_frame(&f, mac, 0, 0x0806));
    CHECK(has_frame(&f, child, 100, 0x8035) && has_frame(&f, child, 100, 0x0806) &&
          has_frame(&f, child, 100, 0x86dd));
    mig_job_destroy(&job);
}

/* --- the state ---------------------------------------------------------------------- */

static const char fdb[] = " port  VLAN  MAC                Age\n"
                          "    3     0  02:00:00:aa:bb:cc    1\n"
                          "LOCAL     0  02:00:00:00:00:01    1\n"
                          "   33     0  02:00:00:00:00:02    1\n"
                          "    3    10  02:00:00:00:00:03  static\n"
                          "    3    10  03:00:00:00:00:03    9\n"
                          "    3  broken";
static const char mdb[] = " port  VLAN  GROUP                Age\n"
                          "    3     0  239.1.2.3           1\n"
                          "    3     7  ff05::1:3           1\n"
                          "    3     0  querier             1\n"
                          "    4     0  239.1.2.4           1\n";

static void
fill(struct vif_known *k)
{
    *k = (struct vif_known){.n_macs = 0};
    vif_known_add_macs(k, fdb, 3);
    vif_known_add_groups(k, mdb, 3);
    k->blob = malloc(13);
    memset(k->blob, 0x5a, 13);
    k->blob_len = 13;
}

static void
test_state(void)
{
    struct vif_known in[2] = {0}, out[2] = {0};
    uint8_t *data;
    size_t len;

    CASE("state: what the switch's tables say of a port");
    fill(&in[1]);
    CHECK(in[1].n_macs == 2 && !memcmp(in[1].macs[0].mac, mac, 6) && in[1].macs[1].vlan == 10);
    CHECK(in[1].n_groups == 2 && in[1].groups[1].vlan == 7);
    CHECK(!strcmp(in[1].groups[0].address, "239.1.2.3"));

    CASE("state: there and back");
    CHECK(!network_state_put(in, 2, &data, &len) && !(len % 8));
    CHECK(!network_state_get(out, 2, data, len));
    CHECK(out[0].n_macs == 0 && !out[0].blob && out[1].blob_len == 13);
    CHECK(!memcmp(out[1].blob, in[1].blob, 13) && out[1].n_macs == 2 && out[1].n_groups == 2);
    CHECK(!memcmp(out[1].macs, in[1].macs, sizeof in[1].macs));
    CHECK(!strcmp(out[1].groups[1].address, "ff05::1:3"));
    vif_known_clear(&out[1]);

    CASE("state: refused whole: cut anywhere, of too many vifs");
    bool good = true;
    for (size_t n = 0; n < len; n++) {
        uint8_t *cut = malloc(n + 1);

        memcpy(cut, data, n);
        if (!network_state_get(out, 2, cut, n)) {
            /* Only between records. */
            good &= n >= 16 && !(n % 8);
        } else {
            good &= !out[1].blob && !out[1].n_macs && !out[1].n_groups;
        }
        vif_known_clear(&out[1]);
        free(cut);
    }
    CHECK(good && network_state_get(out, 1, data, len) == EINVAL);

    CASE("state: any bytes changed: read or refused, never more than there is");
    unsigned refused = 0;
    srandom(7);
    for (int i = 0; i < 20000; i++) {
        uint8_t *bad = malloc(len);

        memcpy(bad, data, len);
        for (long k = random() % 4; k >= 0; k--) {
            bad[random() % len] = random() % 3 ? random() : 0xff;
        }
        refused += network_state_get(out, 2, bad, len) == EINVAL;
        good &= out[0].n_macs <= NETWORK_MACS_MAX && out[1].n_groups <= NETWORK_GROUPS_MAX;
        vif_known_clear(&out[0]);
        vif_known_clear(&out[1]);
        free(bad);
    }
    CHECK(good && refused > 5000 && refused < 20000);
    vif_known_clear(&in[1]);
    free(data);
}

static void
test_absent(void)
{
    struct network_vif v = {.uuid = "u", .port = "vif1.0", .switch_dir = "/nonexistent"};
    struct network_vif stock = {
        .uuid = "t", .port = "tap0", .switch_dir = "/nonexistent", .stock = true};
    struct network_vif both[2] = {v, stock};
    struct network *net;
    uint8_t *data, late[64] = {1};
    size_t len;

    CASE("a switch that does not run: said, and the guest's way goes on");
    CHECK(!network_open(both, 2, &net) && network_hold(net) == ENOENT);
    CHECK(strstr(network_why(net), "vif1.0"));
    CHECK(!network_export(net, &data, &len) && !network_import(net, data, len));
    free(data);
    CHECK(network_feed(net, late, sizeof late) == ENOTCONN);
    CHECK(network_feed(net, late, 8) == EINVAL);
    late[0] = 2;
    CHECK(network_feed(net, late, sizeof late) == EINVAL);

    CASE("stock Open vSwitch: what is not carried is listed once");
    bool told = false;
    size_t n = 0;
    CHECK(!network_export(net, &data, &len));
    free(data);
    for (; network_lost(net, n); n++) {
        told |= strstr(network_lost(net, n), "tap0: tracked connections") != NULL;
    }
    CHECK(told && n == 6);
    network_close(net);
}

/* A switch from before meters moved; answers one request a connection and writes down those
 * that it took. */
static void
old_switch(int listener, int log)
{
    char request[4096], reply[160];

    for (;;) {
        int fd = accept(listener, NULL, NULL);
        ssize_t n = recv(fd, request, sizeof request - 1, 0);
        const char *id, *word, *named;

        request[n > 0 ? n : 0] = '\0';
        id = strstr(request, "\"id\":");
        word = strstr(request, "ofport=");
        named = strstr(request, "export")   ? "e"
                : strstr(request, "import") ? "i"
                                            : ""; /* list-commands */
        n = snprintf(reply, sizeof reply, "{\"id\":%ld,\"error\":%s,\"result\":%s}",
                     id ? atol(id + 5) : 0,
                     word ? "\"ofport=5: expected zone=N, key=N, address=A or unmark\\n\"" : "null",
                     word ? "null" : "\"\"");
        if (!id || send(fd, reply, n, MSG_NOSIGNAL) != n ||
            (!word && write(log, named, strlen(named)) != (ssize_t)strlen(named))) {
            _exit(1);
        }
        close(fd);
    }
}

static pid_t
start_old_switch(const char *dir, int log)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pid_t pid, parent = getpid();
    char name[100];
    FILE *f;

    snprintf(name, sizeof name, "%.60s/ovs-vswitchd.pid", dir);
    f = fopen(name, "we");
    fprintf(f, "1\n");
    fclose(f);
    snprintf(a.sun_path, sizeof a.sun_path, "%.60s/ovs-vswitchd.1.ctl", dir);
    CHECK(!bind(listener, (struct sockaddr *)&a, sizeof a) && !listen(listener, 8));
    fflush(stdout);
    pid = fork();
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent) {
            old_switch(listener, log);
        }
        _exit(1);
    }
    close(listener);
    return pid;
}

static void
test_old_switch(void)
{
    struct network_vif v = {.uuid = "u", .port = "vif1.0", .n_zones = 1, .zones = {7}};
    struct vif_known state = {.blob = (uint8_t *)"whatever", .blob_len = 8};
    char command[80], took[4] = "";
    struct network *net;
    uint8_t *data;
    size_t len;
    int log[2];
    pid_t pid;

    CASE("a switch that knows nothing of meters: the connections move all the same");
    snprintf(v.switch_dir, sizeof v.switch_dir, "/tmp/mig_network.XXXXXX");
    CHECK(mkdtemp(v.switch_dir) && !pipe2(log, O_CLOEXEC));
    pid = start_old_switch(v.switch_dir, log[1]);
    CHECK(!network_open(&v, 1, &net));
    net->vifs[0].gathered = true;
    net->vifs[0].where = (struct switch_port){.bridge = "br0", .ofport = 5};
    CHECK(!network_export(net, &data, &len) && !*network_why(net));
    free(data);
    CHECK(!network_state_put(&state, 1, &data, &len));
    CHECK(!network_import(net, data, len) && !*network_why(net));
    CHECK(strstr(network_lost(net, 0), "meters") && !network_lost(net, 1));
    CHECK(read(log[0], took, sizeof took - 1) > 0 && !strcmp(took, "ei"));
    CHECK(net->vifs[0].where.ofport == 5);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    free(data);
    network_close(net);
    close(log[0]);
    close(log[1]);
    snprintf(command, sizeof command, "rm -rf %.60s", v.switch_dir);
    CHECK(!system(command));
}

/* --- for the smoke test ------------------------------------------------------------- */

static struct network *ends[2];

static int
move_late(unsigned *n)
{
    static uint8_t buf[NETWORK_LATE_MAX];
    struct pollfd p = {.events = POLLIN};
    size_t len;
    int error = network_late_fd(ends[0], &p.fd);

    while (!error) {
        error = network_late(ends[0], buf, &len);
        if (!error) {
            error = network_feed(ends[1], buf, len);
            *n += !error;
        } else if (error == EAGAIN) {
            error = poll(&p, 1, 300) ? 0 : ETIMEDOUT;
        }
    }
    return error == ETIMEDOUT || error == ENOENT ? 0 : error;
}

static int
drive(const char *verb)
{
    static uint8_t *state;
    static size_t len;
    static unsigned late;
    struct network_times t[2];
    int error = strcmp(verb, "watch") == 0      ? network_watch(ends[0])
                : strcmp(verb, "gather") == 0   ? network_gather(ends[0])
                : strcmp(verb, "hold") == 0     ? network_hold(ends[0])
                : strcmp(verb, "release") == 0  ? network_release(ends[0])
                : strcmp(verb, "export") == 0   ? network_export(ends[0], &state, &len)
                : strcmp(verb, "keep") == 0     ? network_keep(ends[1])
                : strcmp(verb, "import") == 0   ? network_import(ends[1], state, len)
                : strcmp(verb, "late") == 0     ? move_late(&late)
                : strcmp(verb, "announce") == 0 ? network_announce(ends[1])
                : strcmp(verb, "times") == 0    ? network_times(ends[1], &t[1])
                                                : EINVAL;

    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; network_lost(ends[i], k); k++) {
            printf("lost at %d: %s\n", i, network_lost(ends[i], k));
        }
    }
    printf("%s: %s", verb, error ? strerror(error) : "done");
    for (int i = 0; error && i < 2; i++) {
        printf(" %s", network_why(ends[i]));
    }
    if (!strcmp(verb, "export")) {
        printf(" bytes=%zu", len);
    } else if (!strcmp(verb, "late")) {
        printf(" frames=%u", late);
    } else if (!strcmp(verb, "times") && !error) {
        network_times(ends[0], &t[0]); /* its port may be gone: as last heard */
        printf(" blackout_ns=%lld kept=%llu,%llu late=%llu dropped=%llu",
               (long long)(t[1].first_ns - t[0].last_ns), (unsigned long long)t[0].kept,
               (unsigned long long)t[1].kept, (unsigned long long)t[1].late,
               (unsigned long long)(t[0].dropped + t[1].dropped));
    }
    printf("\n");
    fflush(stdout);
    return error;
}

static int
hands(char **argv)
{
    struct network_vif v = {.uuid = "vif", .key = atoi(argv[5]), .n_zones = 1, .n_addresses = 1};
    unsigned m[6];
    char line[64];

    if (sscanf(argv[4], "%x:%x:%x:%x:%x:%x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]) != 6) {
        return 2;
    }
    for (int i = 0; i < 6; i++) {
        v.mac[i] = m[i];
    }
    v.zones[0] = atoi(argv[6]);
    snprintf(v.port, sizeof v.port, "%s", argv[3]);
    snprintf(v.addresses[0], sizeof v.addresses[0], "%s", argv[7]);
    for (int i = 0; i < 2; i++) {
        v.stock = !strncmp(argv[1 + i], "stock:", 6);
        snprintf(v.switch_dir, sizeof v.switch_dir, "%s", argv[1 + i] + (v.stock ? 6 : 0));
        if (network_open(&v, 1, &ends[i])) {
            return 2;
        }
    }
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        drive(line);
    }
    network_close(ends[0]);
    network_close(ends[1]);
    return 0;
}

int
main(int argc, char **argv)
{
    if (argc == 8) {
        return hands(argv);
    }
    test_announce();
    test_trunk();
    test_state();
    test_absent();
    test_old_switch();
    return check_done();
}
