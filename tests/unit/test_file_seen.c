/* Whether a file is another than it was, and what a TLS server makes of one that is. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "file_seen.h"
#include "http_tls.h"
#include "pki.h"

static char dir[] = "/tmp/test_file_seen.XXXXXX", file[64], other[64];

static const struct timespec then[2] = {{1000000000, 0}, {1000000000, 0}};

static void
put(const char *name, const char *text)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
}

static bool
is_new(struct file_seen *seen)
{
    bool new = false;

    CHECK(!file_seen_look(seen, file, &new));
    return new;
}

/* Until it is told no more of the last change: for the first tick anything may have
 * followed it. */
static void
settle(struct file_seen *seen)
{
    for (int i = 0; is_new(seen) && i < 1000; i++) {
        usleep(1000);
    }
}

static void
test_look(void)
{
    struct file_seen seen = {.settled = false};
    bool new = true;

    CASE("file_seen/none: an error, and nothing new");
    CHECK(file_seen_look(&seen, file, &new) == ENOENT && !new);

    CASE("file_seen/the first look, another size, another time");
    put(file, "a");
    CHECK(is_new(&seen));
    settle(&seen);
    CHECK(!is_new(&seen) && !is_new(&seen));
    put(file, "bb");
    CHECK(is_new(&seen));
    settle(&seen);
    CHECK(!utimensat(AT_FDCWD, file, then, 0) && is_new(&seen));
    settle(&seen);

    CASE("file_seen/one that goes is the same when it is there again");
    CHECK(!rename(file, other) && file_seen_look(&seen, file, &new) == ENOENT && !new);
    CHECK(!link(other, file) && !unlink(other));
    settle(&seen);

    CASE("file_seen/written over: the same inode, size and time");
    put(file, "cc");
    CHECK(!utimensat(AT_FDCWD, file, then, 0) && is_new(&seen));
    settle(&seen);

    CASE("file_seen/renamed over: the same size and time");
    put(other, "dd");
    CHECK(!utimensat(AT_FDCWD, other, then, 0) && !rename(other, file) && is_new(&seen));
    settle(&seen);
    CHECK(!is_new(&seen));
}

/* Nothing may tell two changes apart that are of one tick. */
static void
test_tick(void)
{
    struct file_seen seen = {.settled = false};
    bool again = false;

    CASE("file_seen/a change of just now may have been followed by another");
    for (int i = 0; i < 1000 && !again; i++) {
        put(file, i & 1 ? "e" : "f");
        CHECK(is_new(&seen));
        again = is_new(&seen);
    }
    CHECK(again);
    settle(&seen);
    CHECK(!is_new(&seen));
}

/* --- http_tls ------------------------------------------------------------------------------- */

static void
test_credentials(void)
{
    struct pki_request q = {.name = "h1", .key = PKI_EC_P256, .days = PKI_DAYS};
    char key[64], crt[64], ca[64], crl[64], why[700] = "";
    struct rlimit limit, none;
    struct http_tls *t = NULL;
    int now = 1, error;

    CASE("http_tls/a list that cannot be read for a moment is read then");
    snprintf(key, sizeof key, "%s/pki/h1.key", dir);
    snprintf(crt, sizeof crt, "%s/pki/h1.crt", dir);
    snprintf(ca, sizeof ca, "%s/pki/ca.crt", dir);
    snprintf(crl, sizeof crl, "%s/pki/crl.pem", dir);
    snprintf(other, sizeof other, "%s/pki", dir);
    error = pki_init(other, "ours", PKI_EC_P256, PKI_CA_DAYS, why, sizeof why);
    error = error ? error : pki_issue(other, &q, why, sizeof why);
    error = error ? error : http_tls_create(key, crt, ca, crl, &t, why, sizeof why);
    if (error) {
        printf("# %s\n", why);
    }
    CHECK(!error && !getrlimit(RLIMIT_NOFILE, &limit));
    for (int i = 0; t && now && i < 1000; i++) {
        now = http_tls_refresh(t, why, sizeof why);
        usleep(1000);
    }
    CHECK(t && !now);
    CHECK(!pki_revoke(other, "h1", why, sizeof why)); /* its files go */
    CHECK(http_tls_refresh(t, why, sizeof why) < 0);
    q.name = "h1";
    CHECK(!pki_issue(other, &q, why, sizeof why));
    none = (struct rlimit){3, limit.rlim_max};
    CHECK(!setrlimit(RLIMIT_NOFILE, &none));
    for (int i = 0; now >= 0 && i < 10; i++) {
        now = http_tls_refresh(t, why, sizeof why);
    }
    CHECK(now < 0);
    usleep(50000); /* the change itself is told no more */
    CHECK(http_tls_refresh(t, why, sizeof why) <= 0 && !http_tls_refresh(t, why, sizeof why));
    CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
    CHECK(http_tls_refresh(t, why, sizeof why) == 1 && !http_tls_refresh(t, why, sizeof why));
    http_tls_destroy(t);
}

static int
remove_it(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

int
main(void)
{
    if (!mkdtemp(dir)) {
        return 1;
    }
    snprintf(file, sizeof file, "%s/file", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    test_look();
    test_tick();
    test_credentials();
    nftw(dir, remove_it, 8, FTW_DEPTH | FTW_PHYS);
    return check_done();
}
