#include "http_password.h"
#include "hex.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SALT = 16,
    HASH = 32,
    ITERATIONS = 60000,
    ITERATIONS_MAX = 2000000,
    CHECKS_PER_S = 10, /* of all clients */
    CHECKS_BURST = 30,
    CHECKS_PER_S_PEER = 2,
    CHECKS_BURST_PEER = 10,
    PEERS = 256, /* whose hashes are the same share a bucket */
};

struct bucket {
    double tokens, filled; /* filled 0: never used, so full */
};

static const char *file;                                  /* written before there are threads */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards all that follows */
static pthread_cond_t news = PTHREAD_COND_INITIALIZER;
static struct bucket of_all, of_peer[PEERS];
static struct password_check *first, **last = &first;
static bool ending;
static pthread_t worker; /* if there is a file; the daemon's own */

static bool
withdraw(struct bucket *b, double now, double per_s, double burst)
{
    bool ok;

    b->tokens = b->filled > 0 ? b->tokens + (now - b->filled) * per_s : burst;
    b->tokens = b->tokens > burst ? burst : b->tokens;
    b->filled = now;
    ok = b->tokens >= 1;
    b->tokens -= ok;
    return ok;
}

/* By the address without its port. */
static struct bucket *
bucket_of(const char *address)
{
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (const char *c = address; *c && *c != '#'; c++) {
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    }
    return &of_peer[hash % PEERS];
}

bool
password_may_check(const char *address, struct password_check *c)
{
    struct timespec t;
    double now;
    bool ok;

    c->verdict = PASSWORD_WRONG;
    if (!file) {
        return false;
    }
    clock_gettime(CLOCK_MONOTONIC, &t);
    now = (double)t.tv_sec + t.tv_nsec / 1e9;
    pthread_mutex_lock(&mutex);
    ok = withdraw(bucket_of(address), now, CHECKS_PER_S_PEER, CHECKS_BURST_PEER) &&
         withdraw(&of_all, now, CHECKS_PER_S, CHECKS_BURST);
    pthread_mutex_unlock(&mutex);
    if (!ok) {
        c->verdict = PASSWORD_TOO_OFTEN;
    }
    return ok;
}

static int
derive(const char *password, const uint8_t salt[SALT], unsigned iterations, uint8_t hash[HASH])
{
    gnutls_datum_t key = {(unsigned char *)password, (unsigned)strlen(password)};
    gnutls_datum_t s = {(unsigned char *)salt, SALT};

    return gnutls_pbkdf2(GNUTLS_MAC_SHA256, &key, &s, iterations, hash, HASH) ? EIO : 0;
}

struct secret {
    enum pool_role role;
    unsigned iterations;
    uint8_t salt[SALT], hash[HASH];
};

/* "NAME ROLE pbkdf2-sha256 ITERATIONS SALT HASH". */
static bool
parse(const char *line, const char *user, struct secret *s)
{
    char name[129], role[20], kind[20], salt[2 * SALT + 1], hash[2 * HASH + 1];

    return sscanf(line, "%128s %19s %19s %u %32s %64s", name, role, kind, &s->iterations, salt,
                  hash) == 6 &&
           !strcmp(name, user) && !strcmp(kind, "pbkdf2-sha256") && s->iterations > 0 &&
           s->iterations <= ITERATIONS_MAX && hex_bytes(salt, s->salt, SALT) &&
           hex_bytes(hash, s->hash, HASH) &&
           (s->role = pool_role_from_name(role)) != POOL_ROLE_NONE;
}

static bool
look_up(const char *user, struct secret *s)
{
    char line[400];
    bool found = false;
    FILE *f = file ? fopen(file, "re") : NULL;

    while (f && !found && fgets(line, sizeof line, f)) {
        found = *line != '#' && parse(line, user, s);
    }
    if (f) {
        fclose(f);
    }
    return found;
}

/* For a name that is not there, as long as for one that is. */
static void
check(struct password_check *c)
{
    struct secret s = {.iterations = ITERATIONS};
    uint8_t hash[HASH];
    bool known = look_up(c->user, &s);

    c->verdict = PASSWORD_WRONG;
    if (!derive(c->password, s.salt, s.iterations, hash) &&
        gnutls_memcmp(hash, s.hash, HASH) == 0 && known) {
        c->verdict = PASSWORD_RIGHT;
        c->role = s.role;
    }
}

/* --- the thread of the checks ----------------------------------------------------------- */

/* NULL: that was the last one.  '*go_on' false: nobody waits for the verdict any more. */
static struct password_check *
next_check(bool *go_on)
{
    struct password_check *c;

    pthread_mutex_lock(&mutex);
    while (!first && !ending) {
        pthread_cond_wait(&news, &mutex);
    }
    *go_on = !ending;
    c = first;
    if (c) {
        first = c->next;
        last = first ? last : &first;
    }
    pthread_mutex_unlock(&mutex);
    return c;
}

static void *
check_all(void *aux)
{
    struct password_check *c;
    bool go_on;

    while ((c = next_check(&go_on))) {
        if (go_on) {
            check(c);
        }
        c->done(c);
    }
    return NULL;
}

void
password_submit(struct password_check *c)
{
    pthread_mutex_lock(&mutex);
    c->next = NULL;
    *last = c;
    last = &c->next;
    pthread_cond_signal(&news);
    pthread_mutex_unlock(&mutex);
}

int
password_begin(const char *path)
{
    file = path;
    return file ? pthread_create(&worker, NULL, check_all, NULL) : 0;
}

void
password_end(void)
{
    if (!file) {
        return;
    }
    pthread_mutex_lock(&mutex);
    ending = true;
    pthread_cond_signal(&news);
    pthread_mutex_unlock(&mutex);
    pthread_join(worker, NULL);
}

/* --- lines of the file ------------------------------------------------------------------- */

static void
to_hex(const uint8_t *bytes, size_t n, char *to)
{
    for (size_t i = 0; i < n; i++) {
        sprintf(to + 2 * i, "%02x", bytes[i]);
    }
}

int
password_line(const char *user, const char *role, const char *password, char *line, size_t size)
{
    uint8_t salt[SALT], hash[HASH];
    char salt_text[2 * SALT + 1], hash_text[2 * HASH + 1];

    if (!*user || strlen(user) > 128 || strpbrk(user, " \t\n#") ||
        pool_role_from_name(role) == POOL_ROLE_NONE) {
        return EINVAL;
    }
    if (gnutls_rnd(GNUTLS_RND_KEY, salt, SALT) || derive(password, salt, ITERATIONS, hash)) {
        return EIO;
    }
    to_hex(salt, SALT, salt_text);
    to_hex(hash, HASH, hash_text);
    snprintf(line, size, "%s %s pbkdf2-sha256 %d %s %s", user, role, ITERATIONS, salt_text,
             hash_text);
    return 0;
}
