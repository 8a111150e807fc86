/* Who may be the other end of a migration: nobody of another authority, revoked, expired, in plain
 * text, or about another migration; and what an end says that cannot begin. */
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "mig_pair.h"
#include "mig_pki.h"

static void
test_identity(void)
{
    static const struct {
        const char *name;
        size_t at;
    } wrong[] = {
        {"VM", offsetof(struct transport_config, identity.vm)},
        {"migration", offsetof(struct transport_config, identity.migration)},
        {"epoch", offsetof(struct transport_config, identity.epoch)},
        {"number of connections", offsetof(struct transport_config, n_connections)},
    };
    struct mig_pair p;

    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CASE(named("mig_transport/another %s", wrong[i].name));
        mig_pair_init(&p, 2, 64);
        ((uint8_t *)&p.from)[wrong[i].at] ^= 1;
        CHECK(!mig_pair_open(&p));
        CHECK(p.from_error == EPROTO && *p.from_why && p.to_error == ECANCELED);
        CHECK(strstr(p.to_why, "another"));
        mig_pair_close(&p);
    }
}

/* Refused, and that at once. */
static void
test_strangers(void)
{
    const char *const ca = "unable to get local issuer certificate", *const name = "mismatch";
    struct {
        const char *name;
        struct transport_tls from, to;
        bool from_plain, to_plain;
        bool at_source; /* who says why */
        const char *says;
    } cases[] = {
        {"source of another CA", credentials(theirs, "h1", ours, "h2"),
         credentials(ours, "h2", ours, "h1"), false, false, false, ca},
        {"destination of another CA", credentials(ours, "h1", ours, "h2"),
         credentials(theirs, "h2", ours, "h1"), false, false, true, ca},
        {"another source", credentials(ours, "old", ours, "h2"),
         credentials(ours, "h2", ours, "h1"), false, false, false, name},
        {"another destination", credentials(ours, "h1", ours, "old"),
         credentials(ours, "h2", ours, "h1"), false, false, true, name},
        {"another address", credentials(ours, "h1", ours, "h2"),
         credentials(ours, "h2", ours, "10.0.0.2"), false, false, false, name},
        {"revoked source", credentials(ours, "gone.copy", ours, "h2"),
         credentials(ours, "h2", ours, "gone"), false, false, false, "revoked"},
        {"expired source", credentials(ours, "old.copy", ours, "h2"),
         credentials(ours, "h2", ours, "old"), false, false, false, "expired"},
        {"source in plain text", credentials(ours, "h1", ours, "h2"),
         credentials(ours, "h2", ours, "h1"), true, false, false, "TLS"},
        {"destination in plain text", credentials(ours, "h1", ours, "h2"),
         credentials(ours, "h2", ours, "h1"), false, true, true, "TLS"},
    };
    struct mig_pair p;

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CASE(named("mig_transport/%s", cases[i].name));
        mig_pair_init(&p, 2, 64);
        p.from.tls = cases[i].from_plain ? NULL : &cases[i].from;
        p.to.tls = cases[i].to_plain ? NULL : &cases[i].to;
        p.from.handshake_timeout_ms = 1000;
        CHECK(!mig_pair_open(&p) && p.from_error && p.to_error == ECANCELED);
        CHECK(strstr(cases[i].at_source ? p.from_why : p.to_why, cases[i].says));
        CHECK(*p.from_why && !p.source && !p.destination);
        mig_pair_close(&p);
    }
}

/* Its stream cannot be captured: the connection's place is given back, once. */
static void
test_given_back(void)
{
    struct transport_tls from = credentials(ours, "h1", ours, "h2");
    struct transport_tls to = credentials(ours, "h2", ours, "h1");
    struct mig_pair p;

    for (unsigned tls = 0; tls < 2; tls++) {
        CASE(named("mig_transport/a place that is given back%s", tls ? ", TLS" : ""));
        mig_pair_init(&p, 2, 64);
        p.from.tls = tls ? &from : NULL;
        p.to.tls = tls ? &to : NULL;
        p.to.capture = "/nonexistent";
        CHECK(!mig_pair_open(&p) && p.from_error && p.to_error == ECANCELED);
        CHECK(strstr(p.to_why, strerror(ENOENT)) && !p.source && !p.destination);
        mig_pair_close(&p);
    }
}

/* Some that connect and say nothing, more than there are places. */
static void
test_crowd(void)
{
    struct transport_tls from = credentials(ours, "h1", ours, "h2");
    struct transport_tls to = credentials(ours, "h2", ours, "h1");
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct mig_pair p;
    int fd[48];

    for (unsigned tls = 0; tls < 2; tls++) {
        CASE(named("mig_transport/a crowd of strangers%s", tls ? ", TLS" : ""));
        mig_pair_init(&p, 4, 64);
        p.from.tls = tls ? &from : NULL;
        p.to.tls = tls ? &to : NULL;
        CHECK(!transport_listen("127.0.0.1:0", &p.listener, p.to_why));
        a.sin_port =
            htons((uint16_t)atoi(strrchr(transport_listener_address(p.listener), ':') + 1));
        for (unsigned i = 0; i < 48; i++) {
            fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            CHECK(fd[i] >= 0 && !connect(fd[i], (struct sockaddr *)&a, sizeof a));
        }
        CHECK(mig_pair_open(&p));
        for (unsigned i = 0; i < 48; i++) {
            close(fd[i]);
        }
        mig_pair_close(&p);
    }
}

static void
test_missing_files(void)
{
    struct transport_tls tls = credentials(ours, "gone", ours, "h2");
    struct mig_pair p;

    CASE("mig_transport/no certificate");
    mig_pair_init(&p, 1, 64);
    p.from.tls = &tls;
    CHECK(transport_connect("127.0.0.1:9", &p.from, &p.source, p.from_why) == EINVAL);
    CHECK(strstr(p.from_why, "gone.crt"));
    mig_pair_close(&p);

    CASE("mig_transport/no address");
    mig_pair_init(&p, 1, 64);
    CHECK(transport_connect("nowhere", &p.from, &p.source, p.from_why) == EINVAL);
    CHECK(transport_listen("127.0.0.1:99999", &p.listener, p.to_why) == EINVAL);
    mig_pair_close(&p);
}

int
main(void)
{
    test_identity();
    CASE("mig_transport/authorities");
    CHECK(make_authorities());
    test_strangers();
    test_given_back();
    test_crowd();
    test_missing_files();
    remove_authorities();
    return check_done();
}
