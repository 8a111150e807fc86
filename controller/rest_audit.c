#include "rest_audit.h"

#include "ovs/jansson_ns.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHAIN_HEX 64
#define DENIALS_PER_S 10u
#define DENIERS 64u /* peers told apart */

struct denier {
    time_t second;
    unsigned n, left_out;
};

struct rest_audit {
    pthread_mutex_t mutex; /* guards all below */
    char *path;            /* NULL: none */
    int fd;
    bool good;
    char chain[CHAIN_HEX + 1]; /* of the last line */
    struct denier deniers[DENIERS];
};

/* Reads the chain's end from the file's last line. */
static int
last_chain(int fd, char chain[CHAIN_HEX + 1])
{
    static const char mark[] = "\"chain\": \"";
    char tail[256];
    off_t size = lseek(fd, 0, SEEK_END);
    ssize_t n = size < 0 ? -1 : pread(fd, tail, sizeof tail, size > 256 ? size - 256 : 0);
    const char *at;

    memset(chain, '0', CHAIN_HEX);
    chain[CHAIN_HEX] = '\0';
    if (n <= 0) {
        return n < 0 ? errno : 0;
    }
    /* It is the line's last member. */
    at = n > 2 + CHAIN_HEX + 1 ? tail + n - (CHAIN_HEX + 3) - (sizeof mark - 1) : NULL;
    if (!at || at < tail || memcmp(at, mark, sizeof mark - 1) || tail[n - 1] != '\n') {
        return EBADMSG;
    }
    memcpy(chain, at + sizeof mark - 1, CHAIN_HEX);
    return 0;
}

/* Opens the file that the path names now.  A torn last line (a crash, a full
 * disk) ends with a newline and stays as evidence; the chain goes on from
 * memory, or from zeros. */
static int
reopen(struct rest_audit *a, bool first)
{
    char chain[CHAIN_HEX + 1];
    int fd = open(a->path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int error;

    if (fd < 0) {
        return errno;
    }
    error = last_chain(fd, chain);
    if (error == EBADMSG && write(fd, "\n", 1) == 1) {
        error = 0;
    }
    if (error) {
        close(fd);
        return error;
    }
    if (a->fd >= 0) {
        close(a->fd);
    }
    a->fd = fd;
    if (first) {
        memcpy(a->chain, chain, sizeof chain);
    }
    return 0;
}

int
rest_audit_open(const char *path, struct rest_audit **ap, char *why, size_t why_size)
{
    struct rest_audit *a = calloc(1, sizeof *a);
    int error = 0;

    *ap = a;
    if (!a) {
        snprintf(why, why_size, "out of memory");
        return ENOMEM;
    }
    pthread_mutex_init(&a->mutex, NULL);
    a->fd = -1;
    a->good = true;
    if (path) {
        a->path = strdup(path);
        error = a->path ? reopen(a, true) : ENOMEM;
    }
    if (error) {
        snprintf(why, why_size, "audit log %s: %s", path, strerror(error));
        rest_audit_close(a);
        *ap = NULL;
    }
    return error;
}

void
rest_audit_close(struct rest_audit *a)
{
    if (a) {
        if (a->fd >= 0) {
            close(a->fd);
        }
        free(a->path);
        pthread_mutex_destroy(&a->mutex);
        free(a);
    }
}

static bool
moved_away(const struct rest_audit *a)
{
    struct stat now, ours;

    return stat(a->path, &now) || fstat(a->fd, &ours) || now.st_ino != ours.st_ino ||
           now.st_dev != ours.st_dev;
}

/* Whether a denial is one too many; how many were before it is in 'left_out'. */
static bool
too_many(struct rest_audit *a, const struct rest_audit_line *l, time_t now, unsigned *left_out)
{
    unsigned h = 5381;
    struct denier *d;

    /* Without the port, which each connection has another of. */
    for (const char *p = l->address; *p && *p != '#'; p++) {
        h = h * 33 + (unsigned char)*p;
    }
    d = &a->deniers[h % DENIERS];
    if (d->second != now) {
        d->second = now;
        d->n = 0;
    }
    if (d->n >= DENIALS_PER_S) {
        d->left_out++;
        return true;
    }
    d->n++;
    *left_out = d->left_out;
    d->left_out = 0;
    return false;
}

static void
set(json_t *o, const char *key, const char *value)
{
    if (value && *value) {
        json_object_set_new(o, key, json_string(value));
    }
}

/* The line without its chain: an object, open at the end.  NULL: no memory. */
static char *
text_of(const struct rest_audit_line *l, unsigned left_out)
{
    struct timespec now;
    struct tm tm;
    char stamp[64];
    json_t *o = json_object();
    char *text;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(stamp, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(stamp + n, sizeof stamp - n, ".%03ldZ", now.tv_nsec / 1000000);
    set(o, "time", stamp);
    set(o, "user", l->user);
    set(o, "session", l->session);
    set(o, "role", l->role);
    set(o, "tenant", l->tenant);
    set(o, "address", l->address);
    set(o, "method", l->method);
    set(o, "path", l->path);
    json_object_set_new(o, "status", json_integer(l->status));
    if (l->generation) {
        json_object_set_new(o, "generation", json_integer(l->generation));
    }
    set(o, "message", l->message);
    if (left_out) {
        json_object_set_new(o, "left_out", json_integer(left_out));
    }
    text = json_dumps(o, JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);
    json_decref(o);
    return text;
}

/* Appends the line: all of it, or what was written of it ends with the next
 * call's newline (see reopen). */
static bool
append(struct rest_audit *a, const char *text)
{
    unsigned char digest[32];
    char chain[CHAIN_HEX + 1], *line = NULL;
    size_t n = strlen(text);
    gnutls_hash_hd_t hash;
    int length;
    bool ok = false;

    if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256)) {
        return false;
    }
    gnutls_hash(hash, a->chain, CHAIN_HEX);
    gnutls_hash(hash, text, n);
    gnutls_hash_deinit(hash, digest);
    for (unsigned i = 0; i < sizeof digest; i++) {
        snprintf(chain + 2 * i, 3, "%02x", digest[i]);
    }
    /* 'text' without its closing brace. */
    length = asprintf(&line, "%.*s, \"chain\": \"%s\"}\n", (int)n - 1, text, chain);
    if (length > 0) {
        ok = write(a->fd, line, (size_t)length) == length;
        free(line);
    }
    if (ok) {
        memcpy(a->chain, chain, sizeof chain);
    }
    return ok;
}

bool
rest_audit_write(struct rest_audit *a, const struct rest_audit_line *l)
{
    unsigned left_out = 0;
    char *text;

    if (!a->path) {
        return true;
    }
    pthread_mutex_lock(&a->mutex);
    if (!l->generation && too_many(a, l, time(NULL), &left_out)) {
        pthread_mutex_unlock(&a->mutex);
        return true;
    }
    text = text_of(l, left_out);
    if (!a->good || moved_away(a)) {
        a->good = !reopen(a, false);
    }
    a->good = a->good && text && append(a, text);
    free(text);
    bool good = a->good;
    pthread_mutex_unlock(&a->mutex);
    return good;
}

bool
rest_audit_good(struct rest_audit *a)
{
    bool good = true;

    if (a->path) {
        pthread_mutex_lock(&a->mutex);
        if (!a->good) {
            a->good = !reopen(a, false);
        }
        good = a->good;
        pthread_mutex_unlock(&a->mutex);
    }
    return good;
}
