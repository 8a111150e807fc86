/* The xenstore of the stand-in for Xen, with the real libxenstore as client
 * and, where that is too polite, with bytes of our own on the socket. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <xen/io/xs_wire.h>
#include <xenstore.h>

#include "check.h"
#include "hv/hv.h"
#include "hv/local.h"
#include "localxen_fixture.h"

#define A 5
#define B 6

static char dir[64];
static struct hv *hv;
static struct xs_handle *xs;      /* dom0's */
static struct xs_handle *xa, *xb; /* those of domains A and B */
static struct local_domain *doma, *domb;

/* --- helpers --------------------------------------------------------------------- */

static bool
put(struct xs_handle *h, const char *path, const char *value)
{
    return xs_write(h, XBT_NULL, path, value, strlen(value));
}

/* The value is 'want'; NULL for "cannot be read, errno is 'error'". */
static bool
reads(struct xs_handle *h, const char *path, const char *want, int error)
{
    unsigned len;
    errno = 0;
    char *value = xs_read(h, XBT_NULL, path, &len);
    bool ok =
        want ? value && len == strlen(want) && !memcmp(value, want, len) : !value && errno == error;

    free(value);
    return ok;
}

/* The next event within a second is of 'path' and 'token'. */
static bool
event_is(struct xs_handle *h, const char *path, const char *token)
{
    for (int i = 0; i < 100; i++) {
        char **e = xs_check_watch(h);

        if (e) {
            bool ok = !strcmp(e[XS_WATCH_PATH], path) && !strcmp(e[XS_WATCH_TOKEN], token);

            if (!ok) {
                printf("# event %s %s\n", e[XS_WATCH_PATH], e[XS_WATCH_TOKEN]);
            }
            free(e);
            return ok;
        }
        struct pollfd p = {.fd = xs_fileno(h), .events = POLLIN};
        poll(&p, 1, 10);
    }
    return false;
}

static bool
no_event(struct xs_handle *h)
{
    free(xs_read(h, XBT_NULL, "/tool", NULL)); /* all events before its answer are here */
    char **e = xs_check_watch(h);

    if (e) {
        printf("# event %s %s\n", e[XS_WATCH_PATH], e[XS_WATCH_TOKEN]);
    }
    free(e);
    return !e;
}

static bool
set_perms(struct xs_handle *h, const char *path, unsigned owner, unsigned rest, unsigned other,
          unsigned others)
{
    struct xs_permissions p[2] = {{.id = owner, .perms = rest}, {.id = other, .perms = others}};

    return xs_set_permissions(h, XBT_NULL, path, p, 2);
}

static int
raw_connect(const char *name)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(sun.sun_path, sizeof sun.sun_path, "%s/%s", dir, name);
    CHECK(!connect(fd, (struct sockaddr *)&sun, sizeof sun));
    return fd;
}

static bool
raw_send(int fd, uint32_t type, const void *payload, uint32_t len, int flags)
{
    uint8_t buf[sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX];
    struct xsd_sockmsg hdr = {.type = type, .req_id = 3, .len = len};

    memcpy(buf, &hdr, sizeof hdr);
    memcpy(buf + sizeof hdr, payload, len);
    return send(fd, buf, sizeof hdr + len, MSG_NOSIGNAL | flags) == sizeof hdr + len;
}

/* Receives one message; returns its type. */
static int
raw_receive(int fd, char *payload)
{
    struct xsd_sockmsg hdr;

    if (recv(fd, &hdr, sizeof hdr, MSG_WAITALL) != sizeof hdr || hdr.len > XENSTORE_PAYLOAD_MAX ||
        (hdr.len && recv(fd, payload, hdr.len, MSG_WAITALL) != hdr.len)) {
        return -1;
    }
    payload[hdr.len] = '\0';
    return hdr.type;
}

/* --- nodes ------------------------------------------------------------------------ */

static void
test_nodes(void)
{
    unsigned n;
    char **names;

    CASE("nodes: write, read, list, remove");
    CHECK(put(xs, "/t/a/b", "1") && put(xs, "/t/a/c", "") && xs_mkdir(xs, XBT_NULL, "/t/d"));
    CHECK(reads(xs, "/t/a/b", "1", 0) && reads(xs, "/t/a", "", 0) && reads(xs, "/t/a/c", "", 0));
    CHECK(xs_mkdir(xs, XBT_NULL, "/t/a/b") && reads(xs, "/t/a/b", "1", 0));
    names = xs_directory(xs, XBT_NULL, "/t", &n);
    CHECK(names && n == 2 && !strcmp(names[0], "a") && !strcmp(names[1], "d"));
    free(names);
    names = xs_directory(xs, XBT_NULL, "/t/d", &n);
    CHECK(names && n == 0);
    free(names);
    CHECK(xs_rm(xs, XBT_NULL, "/t/a") && reads(xs, "/t/a/b", NULL, ENOENT));
    CHECK(xs_rm(xs, XBT_NULL, "/t/a")); /* gone already, parent there: fine */
    CHECK(!xs_rm(xs, XBT_NULL, "/no/such") && errno == ENOENT);
    CHECK(!xs_rm(xs, XBT_NULL, "/") && errno == EINVAL);
    CHECK(put(xs, "relative", "x") && reads(xs, "/local/domain/0/relative", "x", 0));

    CASE("nodes: bad paths");
    char deep[XENSTORE_ABS_PATH_MAX + 3] = "/";
    CHECK(!put(xs, "/t//x", "1") && errno == EINVAL);
    CHECK(!put(xs, "/t/x/", "1") && errno == EINVAL);
    CHECK(!put(xs, "/t/x y", "1") && errno == EINVAL);
    CHECK(!put(xs, "", "1") && errno == EINVAL);
    CHECK(!put(xs, "@introduceDomain", "1") && errno == EINVAL);
    memset(deep + 1, 'x', XENSTORE_ABS_PATH_MAX);
    CHECK(!put(xs, deep, "1") && errno == EINVAL);
    deep[XENSTORE_ABS_PATH_MAX] = '\0';
    CHECK(put(xs, deep, "1") && xs_rm(xs, XBT_NULL, deep));
    for (unsigned i = 0; i < XENSTORE_ABS_PATH_MAX; i += 2) {
        memcpy(deep + i, "/y", 2);
    }
    CHECK(put(xs, deep, "1") && reads(xs, deep, "1", 0) && xs_rm(xs, XBT_NULL, "/y"));

    CASE("nodes: a directory larger than one message");
    char path[64];
    for (int i = 0; i < 1500; i++) {
        snprintf(path, sizeof path, "/t/big/child-number-%d", i);
        CHECK(put(xs, path, "v"));
    }
    names = xs_directory(xs, XBT_NULL, "/t/big", &n);
    CHECK(names && n == 1500);
    uint8_t seen[1500] = {0};
    for (unsigned i = 0; names && i < n; i++) {
        seen[atoi(names[i] + strlen("child-number-"))] = 1;
    }
    CHECK(!memchr(seen, 0, sizeof seen));
    free(names);
    CHECK(xs_rm(xs, XBT_NULL, "/t"));
}

static void
test_permissions(void)
{
    struct xs_permissions *perms;
    char path[64];
    unsigned n;

    CASE("permissions: a domain's home");
    CHECK(reads(xa, "domid", "5", 0) && reads(xa, "/local/domain/5/name", "dom5", 0));
    CHECK(!put(xa, "name", "me") && errno == EACCES);
    CHECK(!put(xa, "new", "x") && errno == EACCES);
    CHECK(put(xa, "data/x/y", "mine") && reads(xa, "/local/domain/5/data/x/y", "mine", 0));
    CHECK(reads(xb, "/local/domain/5/data/x/y", NULL, EACCES));
    CHECK(reads(xb, "/local/domain/5/nonexistent", NULL, EACCES));
    CHECK(reads(xa, "nonexistent", NULL, ENOENT));
    CHECK(reads(xa, "/local/domain/0/name", NULL, EACCES));
    CHECK(!put(xb, "/local/domain/5/data/x/y", "z") && errno == EACCES);
    CHECK(!xs_rm(xb, XBT_NULL, "/local/domain/5/data/x") && errno == EACCES);

    CASE("permissions: inherited, owned by who creates");
    perms = xs_get_permissions(xs, XBT_NULL, "/local/domain/5/data/x/y", &n);
    CHECK(perms && n == 1 && perms[0].id == A && perms[0].perms == XS_PERM_NONE);
    free(perms);
    CHECK(put(xs, "/local/domain/5/device/vif/0/state", "1"));
    perms = xs_get_permissions(xs, XBT_NULL, "/local/domain/5/device/vif/0/state", &n);
    CHECK(perms && n == 2 && perms[0].id == 0 && perms[1].id == A &&
          perms[1].perms == XS_PERM_READ);
    free(perms);
    CHECK(!put(xa, "device/vif/0/state", "3") && errno == EACCES);

    CASE("permissions: frontend and backend directories as a toolstack makes them");
    CHECK(set_perms(xs, "/local/domain/5/device/vif/0", A, XS_PERM_NONE, 0, XS_PERM_READ));
    CHECK(put(xa, "device/vif/0/tx-ring-ref", "8") && put(xs, "/b/vif/5/0/state", "2"));
    CHECK(reads(xa, "/b/vif/5/0/state", NULL, EACCES));
    CHECK(set_perms(xs, "/b/vif/5/0", 0, XS_PERM_NONE, A, XS_PERM_READ));
    CHECK(reads(xa, "/b/vif/5/0/state", NULL, EACCES)); /* made before */
    CHECK(put(xs, "/b/vif/5/0/feature-sg", "1"));
    CHECK(reads(xa, "/b/vif/5/0/feature-sg", "1", 0));
    CHECK(!put(xa, "/b/vif/5/0/feature-sg", "0") && errno == EACCES);
    CHECK(reads(xb, "/b/vif/5/0/feature-sg", NULL, EACCES));

    CASE("permissions: changed by the owner only, not given away");
    CHECK(set_perms(xa, "data/x", A, XS_PERM_NONE, B, XS_PERM_READ | XS_PERM_WRITE));
    CHECK(reads(xb, "/local/domain/5/data/x", "", 0) && put(xb, "/local/domain/5/data/x/z", "b's"));
    CHECK(reads(xa, "data/x/z", NULL, EACCES)); /* b's own */
    CHECK(!set_perms(xb, "/local/domain/5/data/x", A, 0, B, 3) && errno == EACCES);
    CHECK(!set_perms(xa, "data/x", B, 0, A, 3) && errno == EPERM);
    CHECK(set_perms(xs, "/local/domain/5/data/x", B, 0, A, 3));
    CHECK(!set_perms(xa, "data/x", A, 0, B, 3) && errno == EACCES);
    snprintf(path, sizeof path, "/local/domain/5/data");
    CHECK(xs_rm(xs, XBT_NULL, path) && xs_rm(xs, XBT_NULL, "/b"));
    CHECK(xs_mkdir(xs, XBT_NULL, path) && set_perms(xs, path, A, 0, 0, 0));
}

/* --- transactions ----------------------------------------------------------------- */

static void
test_transactions(void)
{
    xs_transaction_t t;

    CASE("transactions: isolated, then visible at once");
    CHECK(put(xs, "/t/x", "1") && put(xs, "/t/y", "1"));
    t = xs_transaction_start(xs);
    CHECK(t && xs_write(xs, t, "/t/x", "2", 1) && xs_write(xs, t, "/t/n/e/w", "n", 1) &&
          xs_rm(xs, t, "/t/y"));
    char *v = xs_read(xs, t, "/t/x", NULL);
    CHECK(v && !strcmp(v, "2"));
    free(v);
    CHECK(reads(xs, "/t/x", "1", 0) && reads(xs, "/t/y", "1", 0) &&
          reads(xs, "/t/n/e/w", NULL, ENOENT));
    CHECK(xs_transaction_end(xs, t, false));
    CHECK(reads(xs, "/t/x", "2", 0) && reads(xs, "/t/y", NULL, ENOENT) &&
          reads(xs, "/t/n/e/w", "n", 0));

    CASE("transactions: aborted");
    t = xs_transaction_start(xs);
    CHECK(xs_rm(xs, t, "/t") && xs_write(xs, t, "/t/x", "3", 1));
    CHECK(xs_transaction_end(xs, t, true) && reads(xs, "/t/x", "2", 0));
    CHECK(xs_rm(xs, XBT_NULL, "/t"));
}

static void
test_conflicts(void)
{
    xs_transaction_t t, u;
    unsigned n;

    CHECK(put(xs, "/t/x", "2"));
    CASE("transactions: a conflict is EAGAIN");
    t = xs_transaction_start(xs);
    u = xs_transaction_start(xs);
    free(xs_read(xs, t, "/t/x", NULL));
    CHECK(xs_write(xs, t, "/t/y", "t", 1) && xs_write(xs, u, "/t/x", "u", 1));
    CHECK(xs_transaction_end(xs, u, false));
    CHECK(!xs_transaction_end(xs, t, false) && errno == EAGAIN);
    CHECK(reads(xs, "/t/x", "u", 0) && reads(xs, "/t/y", NULL, ENOENT));
    t = xs_transaction_start(xs);
    CHECK(!xs_read(xs, t, "/t/absent", NULL) && put(xs, "/t/absent", "1"));
    CHECK(!xs_transaction_end(xs, t, false) && errno == EAGAIN);
    t = xs_transaction_start(xs);
    free(xs_directory(xs, t, "/t", &n));
    CHECK(put(xs, "/t/absent2", "1"));
    CHECK(!xs_transaction_end(xs, t, false) && errno == EAGAIN);
    t = xs_transaction_start(xs);
    CHECK(xs_write(xs, t, "/t/x/below", "1", 1) && xs_rm(xs, XBT_NULL, "/t/x"));
    CHECK(!xs_transaction_end(xs, t, false) && errno == EAGAIN);

    CASE("transactions: unrelated ones commit, also below one directory");
    t = xs_transaction_start(xs);
    u = xs_transaction_start(xs);
    CHECK(xs_write(xs, t, "/t/1/a", "1", 1) && xs_write(xs, u, "/t/2/a", "1", 1));
    CHECK(xs_transaction_end(xs, t, false) && xs_transaction_end(xs, u, false));
    CHECK(reads(xs, "/t/1/a", "1", 0) && reads(xs, "/t/2/a", "1", 0));
    CHECK(xs_rm(xs, XBT_NULL, "/t"));
}

static void
test_transaction_effects(void)
{
    xs_transaction_t t;

    CHECK(put(xs, "/t/1/a", "1") && put(xs, "/t/x", "1"));
    CASE("transactions: removed and made again");
    t = xs_transaction_start(xs);
    CHECK(xs_rm(xs, t, "/t/1") && xs_write(xs, t, "/t/1/b", "2", 1));
    CHECK(xs_transaction_end(xs, t, false));
    CHECK(reads(xs, "/t/1/a", NULL, ENOENT) && reads(xs, "/t/1/b", "2", 0));
    t = xs_transaction_start(xs);
    CHECK(xs_write(xs, t, "/t/3/b", "2", 1) && xs_rm(xs, t, "/t/3"));
    CHECK(xs_transaction_end(xs, t, false) && reads(xs, "/t/3", NULL, ENOENT));

    CASE("transactions: permissions, watchers told at the commit");
    CHECK(xs_watch(xs, "/t", "tok") && event_is(xs, "/t", "tok"));
    t = xs_transaction_start(xs);
    struct xs_permissions p[2] = {{.id = A}, {.id = 0, .perms = XS_PERM_READ}};
    CHECK(xs_mkdir(xs, t, "/t/f") && xs_set_permissions(xs, t, "/t/f", p, 2));
    CHECK(no_event(xs) && reads(xa, "/t/f", NULL, EACCES));
    CHECK(xs_transaction_end(xs, t, false) && event_is(xs, "/t/f", "tok") && no_event(xs));
    CHECK(reads(xa, "/t/f", "", 0) && put(xa, "/t/f/mine", "x"));
    CHECK(event_is(xs, "/t/f/mine", "tok") && xs_unwatch(xs, "/t", "tok"));

    CASE("transactions: wrong ids");
    CHECK(!xs_write(xs, 999999, "/t/x", "1", 1) && errno == ENOENT);
    CHECK(!xs_transaction_end(xs, 999999, false) && errno == ENOENT);
    t = xs_transaction_start(xa);
    CHECK(t && !xs_write(xb, t, "/t/f", "1", 1) && errno == ENOENT);
    CHECK(xs_transaction_end(xa, t, false));
    CHECK(xs_rm(xs, XBT_NULL, "/t"));
}

/* --- watches ------------------------------------------------------------------------ */

static void
test_watches(void)
{
    CASE("watches: first event, node and below");
    CHECK(put(xs, "/w/a", "1"));
    CHECK(xs_watch(xs, "/w", "t1") && event_is(xs, "/w", "t1"));
    CHECK(!xs_watch(xs, "/w", "t1") && errno == EEXIST);
    CHECK(xs_watch(xs, "/w", "t2") && event_is(xs, "/w", "t2"));
    CHECK(put(xs, "/w/a/b/c", "1"));
    CHECK(event_is(xs, "/w/a/b/c", "t1") && event_is(xs, "/w/a/b/c", "t2"));
    CHECK(put(xs, "/ww", "1") && no_event(xs));
    CHECK(xs_unwatch(xs, "/w", "t1") && !xs_unwatch(xs, "/w", "t1") && errno == ENOENT);

    CASE("watches: removal tells watchers above and below");
    CHECK(xs_watch(xs, "/w/a/b/c", "low") && event_is(xs, "/w/a/b/c", "low"));
    CHECK(xs_rm(xs, XBT_NULL, "/w/a"));
    CHECK(event_is(xs, "/w/a", "t2") && event_is(xs, "/w/a/b/c", "low") && no_event(xs));
    CHECK(xs_unwatch(xs, "/w/a/b/c", "low") && xs_unwatch(xs, "/w", "t2"));

    CASE("watches: relative paths, of things to come");
    CHECK(xs_watch(xa, "device/vif", "rel") && event_is(xa, "device/vif", "rel"));
    CHECK(put(xs, "/local/domain/5/device/vif/3/state", "1"));
    CHECK(event_is(xa, "device/vif/3/state", "rel"));
    CHECK(xs_rm(xs, XBT_NULL, "/local/domain/5/device/vif"));
    CHECK(event_is(xa, "device/vif", "rel") && xs_unwatch(xa, "device/vif", "rel"));
    CHECK(xs_watch(xs, "/", "root") && event_is(xs, "/", "root"));
    CHECK(put(xs, "/w/x", "1") && event_is(xs, "/w/x", "root") && xs_unwatch(xs, "/", "root"));

    CASE("watches: nothing of what may not be read");
    CHECK(xs_watch(xb, "/local/domain/5/data", "spy"));
    CHECK(event_is(xb, "/local/domain/5/data", "spy"));
    CHECK(put(xa, "data/secret", "1") && no_event(xb));
    CHECK(xs_watch(xb, "@releaseDomain", "spy"));
    CHECK(event_is(xb, "@releaseDomain", "spy"));
    CHECK(set_perms(xa, "data/secret", A, XS_PERM_NONE, B, XS_PERM_READ));
    CHECK(event_is(xb, "/local/domain/5/data/secret", "spy"));
    CHECK(set_perms(xa, "data/secret", A, XS_PERM_NONE, B, XS_PERM_NONE));
    CHECK(event_is(xb, "/local/domain/5/data/secret", "spy")); /* it could be read before */
    CHECK(put(xa, "data/secret", "2") && no_event(xb));

    CASE("watches: domains that come and go");
    struct local_domain *d;
    CHECK(xs_watch(xs, "@introduceDomain", "in") && event_is(xs, "@introduceDomain", "in"));
    CHECK(xs_watch(xs, "@releaseDomain", "out") && event_is(xs, "@releaseDomain", "out"));
    CHECK(!xs_is_domain_introduced(xs, 77));
    CHECK(!local_domain_create(dir, 77, 4, 4, &d));
    CHECK(event_is(xs, "@introduceDomain", "in") && xs_is_domain_introduced(xs, 77));
    local_domain_destroy(d);
    CHECK(event_is(xs, "@releaseDomain", "out") && !xs_is_domain_introduced(xs, 77));
    CHECK(reads(xs, "/local/domain/77/domid", "77", 0)); /* the toolstack removes that */
    CHECK(xs_rm(xs, XBT_NULL, "/local/domain/77") && no_event(xb));
    CHECK(xs_unwatch(xs, "@introduceDomain", "in") && xs_unwatch(xs, "@releaseDomain", "out"));
    CHECK(xs_unwatch(xb, "@releaseDomain", "spy"));
    CHECK(xs_unwatch(xb, "/local/domain/5/data", "spy"));
}

static void
test_domains(void)
{
    CASE("domains: path, introduction, control");
    char *path = xs_get_domain_path(xa, 1234);
    CHECK(path && !strcmp(path, "/local/domain/1234"));
    free(path);
    CHECK(xs_is_domain_introduced(xs, 0) && xs_is_domain_introduced(xs, A));
    CHECK(xs_introduce_domain(xs, A, 1, 1) && !xs_introduce_domain(xs, 99, 1, 1));
    CHECK(!xs_release_domain(xa, B) && errno == EACCES);
    CHECK(!xs_is_domain_introduced(xa, B));
    char *quota = xs_control_command(xs, "quota", NULL, 0);
    CHECK(quota && strstr(quota, "nodes         1000"));
    free(quota);
    CHECK(!xs_control_command(xa, "quota", NULL, 0) && errno == EACCES);

    CASE("domains: a target's nodes are its device model's");
    CHECK(reads(xb, "/local/domain/5/data", NULL, EACCES));
    CHECK(xs_set_target(xs, B, A) && reads(xb, "/local/domain/5/data", "", 0));
    CHECK(xs_set_target(xs, B, 0) && reads(xb, "/local/domain/5/data", NULL, EACCES));
}

/* --- quotas ---------------------------------------------------------------------------- */

static void
test_quotas(void)
{
    xs_transaction_t t;
    char path[64];
    unsigned n;

    CASE("quota: nodes of a domain");
    for (n = 0; n < 2000; n++) {
        snprintf(path, sizeof path, "data/q/%u", n);
        if (!put(xa, path, "x")) {
            break;
        }
    }
    CHECK(errno == ENOSPC && n > 980 && n < 1000);
    t = xs_transaction_start(xa);
    CHECK(!xs_write(xa, t, "data/q/more", "x", 1) && errno == ENOSPC);
    CHECK(xs_rm(xa, t, "data/q/0") && xs_write(xa, t, "data/q/more", "x", 1));
    CHECK(xs_transaction_end(xa, t, false) && reads(xa, "data/q/more", "x", 0));
    CHECK(put(xb, "data/q", "x")); /* others are not affected */
    CHECK(xs_rm(xa, XBT_NULL, "data/q") && put(xa, "data/q/0", "x") &&
          xs_rm(xa, XBT_NULL, "data/q"));
}

static void
test_quota_in_transactions(void)
{
    xs_transaction_t t, u;
    char path[64];
    unsigned n;

    CASE("quota: two transactions that fit one by one but not together");
    for (n = 0; n < 500; n++) {
        snprintf(path, sizeof path, "data/q/%u", n);
        CHECK(put(xa, path, "x"));
    }
    u = xs_transaction_start(xa);
    t = xs_transaction_start(xa);
    for (n = 0; n < 300; n++) {
        snprintf(path, sizeof path, "data/q/t%u", n);
        CHECK(xs_write(xa, t, path, "x", 1));
        snprintf(path, sizeof path, "data/q/u%u", n);
        CHECK(xs_write(xa, u, path, "x", 1));
    }
    CHECK(xs_transaction_end(xa, t, false));
    CHECK(!xs_transaction_end(xa, u, false) && errno == ENOSPC);
    CHECK(xs_rm(xa, XBT_NULL, "data/q"));
}

static void
test_quota_sizes(void)
{
    char path[64], big[2049];
    xs_transaction_t t;
    unsigned n;

    CASE("quota: size of a value, permissions, transactions");
    memset(big, 'v', sizeof big);
    CHECK(!xs_write(xa, XBT_NULL, "data/v", big, 2049) && errno == ENOSPC);
    CHECK(xs_write(xa, XBT_NULL, "data/v", big, 2048) && xs_rm(xa, XBT_NULL, "data/v"));
    struct xs_permissions p[6] = {{.id = A}, {.id = 1}, {.id = 2}, {.id = 3}, {.id = 4}, {.id = 5}};
    CHECK(put(xa, "data/p", "1") && xs_set_permissions(xa, XBT_NULL, "data/p", p, 5));
    CHECK(!xs_set_permissions(xa, XBT_NULL, "data/p", p, 6) && errno == ENOSPC);
    xs_transaction_t ts[11];
    for (n = 0; n < 11 && (ts[n] = xs_transaction_start(xa)); n++) {
    }
    CHECK(n == 10 && errno == ENOSPC);
    while (n--) {
        CHECK(xs_transaction_end(xa, ts[n], true));
    }
    t = xs_transaction_start(xa);
    for (n = 0; n < 2000; n++) {
        snprintf(path, sizeof path, "data/absent/%u", n);
        errno = 0;
        free(xs_read(xa, t, path, NULL));
        if (errno == ENOSPC) {
            break;
        }
    }
    CHECK(n > 1000 && n < 1030 && xs_transaction_end(xa, t, true));

    CASE("quota: watches");
    for (n = 0; n < 200; n++) {
        snprintf(path, sizeof path, "data/w/%u", n);
        if (!xs_watch(xa, path, "t")) {
            break;
        }
        CHECK(event_is(xa, path, "t"));
    }
    CHECK(n == 128 && errno == E2BIG);
    while (n--) {
        snprintf(path, sizeof path, "data/w/%u", n);
        CHECK(xs_unwatch(xa, path, "t"));
    }
}

/* --- clients that misbehave ----------------------------------------------------------------- */

static void
test_oversized(void)
{
    char payload[XENSTORE_PAYLOAD_MAX + 1] = "";
    struct xsd_sockmsg hdr = {.type = XS_READ, .len = XENSTORE_PAYLOAD_MAX + 1};
    int fd;

    CASE("client: oversized request is cut off");
    fd = raw_connect("dom5-xenstored");
    CHECK(send(fd, &hdr, sizeof hdr, MSG_NOSIGNAL) == sizeof hdr);
    CHECK(recv(fd, payload, 1, 0) <= 0);
    close(fd);
}

static void
test_malformed(void)
{
    static const struct {
        uint32_t type;
        const char *payload;
        uint32_t len;
        const char *error;
    } bad[] = {
        {XS_READ, "", 0, "EINVAL"},
        {XS_READ, "/tool", 5, "EINVAL"},
        {XS_READ, "a\0b", 4, "EINVAL"},
        {XS_WRITE, "/tool", 5, "EINVAL"},
        {XS_WATCH, "a", 2, "EINVAL"},
        {XS_WATCH, "a\0b", 3, "EINVAL"},
        {XS_TRANSACTION_END, "X", 2, "EINVAL"},
        {XS_TRANSACTION_END, "T", 2, "ENOENT"},
        {XS_SET_PERMS, "data", 5, "EINVAL"},
        {XS_SET_PERMS, "data\0x5", 8, "EINVAL"},
        {XS_SET_PERMS, "data\0n-5", 9, "EINVAL"},
        {XS_SET_PERMS, "data\0n99999999999", 18, "EINVAL"},
        {XS_SET_PERMS, "data\0", 6, "EINVAL"},
        {XS_GET_DOMAIN_PATH, "70000", 6, "EINVAL"},
        {XS_DIRECTORY_PART, "data", 5, "EINVAL"},
        {XS_WATCH_EVENT, "a\0b", 4, "ENOSYS"},
        {XS_ERROR, "", 0, "ENOSYS"},
        {XS_SET_TARGET + 1, "", 0, "ENOSYS"},
        {XS_INVALID, "", 0, "ENOSYS"},
        {0xffffffff, "", 0, "ENOSYS"},
        {XS_CONTROL, "quota", 6, "EACCES"},
    };
    char payload[XENSTORE_PAYLOAD_MAX + 1];
    struct xsd_sockmsg hdr;
    int fd;

    CASE("client: malformed requests get errors");
    fd = raw_connect("dom5-xenstored");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(raw_send(fd, bad[i].type, bad[i].payload, bad[i].len, 0));
        CHECK(raw_receive(fd, payload) == XS_ERROR);
        if (strcmp(payload, bad[i].error)) {
            printf("# case %zu: %s\n", i, payload);
        }
        CHECK(!strcmp(payload, bad[i].error));
    }

    CASE("client: a request byte by byte");
    hdr = (struct xsd_sockmsg){.type = XS_READ, .req_id = 9, .len = 6};
    memcpy(payload, &hdr, sizeof hdr);
    memcpy(payload + sizeof hdr, "domid", 6);
    for (size_t i = 0; i < sizeof hdr + 6; i++) {
        CHECK(send(fd, payload + i, 1, MSG_NOSIGNAL) == 1);
        usleep(200);
    }
    CHECK(raw_receive(fd, payload) == XS_READ && !strcmp(payload, "5"));
    close(fd);
}

static void
test_flood(void)
{
    char payload[XENSTORE_PAYLOAD_MAX + 1];
    int fd;

    CASE("client: floods requests, reads none: not listened to, then served");
    fd = raw_connect("dom5-xenstored");
    CHECK(put(xa, "data/v", "value"));
    unsigned n_sent = 0, n_got = 0;
    for (int idle = 0; idle < 20 && n_sent < 1000000;) {
        if (raw_send(fd, XS_READ, "data/v", 7, MSG_DONTWAIT)) {
            n_sent++;
            idle = 0;
        } else {
            idle++;
            usleep(1000);
        }
    }
    CHECK(n_sent < 1000000);
    CHECK(put(xa, "data/v", "other"));
    while (n_got < n_sent - 1 && raw_receive(fd, payload) == XS_READ) {
        n_got++;
    }
    CHECK(n_got == n_sent - 1); /* the last one may have been cut by the socket */
    close(fd);
}

static void
test_unread_events(void)
{
    char payload[XENSTORE_PAYLOAD_MAX + 1];
    int fd;

    CASE("client: does not read its events: merged, then cut off");
    fd = raw_connect("dom5-xenstored");
    CHECK(raw_send(fd, XS_WATCH, "data\0t", 7, 0));
    for (int i = 0; i < 20000; i++) {
        CHECK(put(xa, "data/v", "x"));
    }
    CHECK(raw_receive(fd, payload) == XS_WATCH && raw_receive(fd, payload) == XS_WATCH_EVENT);
    unsigned n_events = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, 20) == 1 && raw_receive(fd, payload) == XS_WATCH_EVENT) {
        n_events++;
    }
    CHECK(n_events > 0 && n_events < 20000); /* what the socket holds, and one */
    char path[128];
    bool cut = false;
    for (int i = 0; i < 20000 && !cut; i++) {
        snprintf(path, sizeof path, "data/%090d", i);
        CHECK(put(xa, path, "x") && xs_rm(xa, XBT_NULL, path));
        /* Our side of the stream ends once it is cut off. */
        struct pollfd hup = {.fd = fd, .events = POLLRDHUP};
        cut = i % 100 == 0 && poll(&hup, 1, 0) == 1;
    }
    CHECK(cut);
    close(fd);
    CHECK(xs_rm(xs, XBT_NULL, "/local/domain/5/data"));
}

static void
test_connections(void)
{
    char payload[XENSTORE_PAYLOAD_MAX + 1];

    CASE("client: connections of one domain are bounded");
    int fds[40], n_open = 0;
    for (int i = 0; i < 40; i++) {
        fds[i] = raw_connect("dom6-xenstored");
        raw_send(fds[i], XS_READ, "domid", 6, 0);
    }
    for (int i = 0; i < 40; i++) {
        n_open += raw_receive(fds[i], payload) == XS_READ;
    }
    for (int i = 0; i < 40; i++) {
        close(fds[i]);
    }
    CHECK(n_open > 0 && n_open <= 16);
    CHECK(reads(xb, "domid", "6", 0));
}

/* --- size --------------------------------------------------------------------------------------
 */

static double
seconds_since(const struct timespec *then)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec - then->tv_sec + (now.tv_nsec - then->tv_nsec) / 1e9;
}

static void
test_size(void)
{
    struct timespec start;
    char path[96], token[16];

    CASE("a thousand vifs of 40 nodes, each with a watch");
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int vif = 0; vif < 1000; vif++) {
        xs_transaction_t t = xs_transaction_start(xs);

        for (int key = 0; key < 40; key++) {
            snprintf(path, sizeof path, "/local/domain/0/backend/vif/%d/0/key-%d", vif, key);
            CHECK(xs_write(xs, t, path, "value", 5));
        }
        CHECK(xs_transaction_end(xs, t, false));
        snprintf(path, sizeof path, "/local/domain/0/backend/vif/%d/0/key-3", vif);
        snprintf(token, sizeof token, "%d", vif);
        CHECK(xs_watch(xs, path, token));
    }
    CHECK(xs_rm(xs, XBT_NULL, "/local/domain/0/backend/vif/500"));
    printf("# %.2f s\n", seconds_since(&start));
    CHECK(seconds_since(&start) < 60);
    unsigned n = 0;
    char **e;
    free(xs_read(xs, XBT_NULL, "/tool", NULL));
    while ((e = xs_check_watch(xs))) {
        n++;
        free(e);
    }
    CHECK(n == 1001); /* first events, and the one of the vif removed */
    CHECK(xs_rm(xs, XBT_NULL, "/local/domain/0/backend"));
}

int
main(void)
{
    char spec[80], why[256];

    fixture_dir(dir, sizeof dir);
    if (!fixture_start(dir)) {
        return 1;
    }
    snprintf(spec, sizeof spec, "local:%s", dir);
    CASE("open");
    CHECK(!hv_open(spec, &hv, why, sizeof why) && !hv->ops->store_open(hv, &xs));
    CHECK(!local_domain_create(dir, A, 4, 4, &doma) && !local_store_open(doma, &xa));
    CHECK(!local_domain_create(dir, B, 4, 4, &domb) && !local_store_open(domb, &xb));
    if (!xs || !xa || !xb) {
        return 1;
    }
    test_nodes();
    test_permissions();
    test_transactions();
    test_conflicts();
    test_transaction_effects();
    test_watches();
    test_domains();
    test_quotas();
    test_quota_in_transactions();
    test_quota_sizes();
    test_oversized();
    test_malformed();
    test_flood();
    test_unread_events();
    test_connections();
    test_size();
    CASE("a domain's connections end with it");
    local_domain_destroy(doma);
    CHECK(!xs_read(xa, XBT_NULL, "domid", NULL));
    xs_close(xa);
    xs_close(xb);
    xs_close(xs);
    local_domain_destroy(domb);
    hv_close(hv);
    fixture_remove(dir);
    return check_done();
}
