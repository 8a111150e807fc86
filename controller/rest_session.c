#include "rest_session.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PREFIX "weft_"

struct session {
    char id[REST_SESSION_ID]; /* empty: none */
    unsigned char digest[32]; /* of the token */
    char user[129];
    char address[80];
    time_t began;
    int64_t expires_ms, idle_ms, used_ms; /* monotonic */
};

struct rest_sessions {
    pthread_mutex_t mutex; /* guards all below */
    struct session s[REST_SESSIONS_MAX];
};

struct rest_sessions *
rest_sessions_create(void)
{
    struct rest_sessions *all = calloc(1, sizeof *all);

    if (all) {
        pthread_mutex_init(&all->mutex, NULL);
    }
    return all;
}

void
rest_sessions_destroy(struct rest_sessions *all)
{
    if (all) {
        pthread_mutex_destroy(&all->mutex);
        free(all);
    }
}

static int64_t
ends_ms(const struct session *s)
{
    int64_t idle_ms = s->used_ms + s->idle_ms;

    return idle_ms < s->expires_ms ? idle_ms : s->expires_ms;
}

static bool
is_open(const struct session *s, int64_t now_ms)
{
    return *s->id && now_ms < ends_ms(s);
}

static bool
random_hex(char *to, size_t n_bytes)
{
    unsigned char bytes[32];

    if (gnutls_rnd(GNUTLS_RND_KEY, bytes, n_bytes)) {
        return false;
    }
    for (size_t i = 0; i < n_bytes; i++) {
        snprintf(to + 2 * i, 3, "%02x", bytes[i]);
    }
    gnutls_memset(bytes, 0, sizeof bytes);
    return true;
}

/* A free place for one more of the user's; NULL: there is none. */
static struct session *
find_place(struct rest_sessions *all, const char *user, int64_t now_ms)
{
    struct session *place = NULL;
    unsigned n = 0;

    for (size_t i = 0; i < REST_SESSIONS_MAX; i++) {
        if (!is_open(&all->s[i], now_ms)) {
            place = place ? place : &all->s[i];
        } else {
            n += !strcmp(all->s[i].user, user);
        }
    }
    return n < REST_SESSIONS_OF_USER ? place : NULL;
}

int
rest_session_begin(struct rest_sessions *all, const char *user, const char *address,
                   int64_t lifetime_s, int64_t idle_s, int64_t now_ms,
                   char token[REST_SESSION_TOKEN])
{
    struct session fresh = {.began = time(NULL),
                            .expires_ms = now_ms + lifetime_s * 1000,
                            .idle_ms = idle_s * 1000,
                            .used_ms = now_ms};
    char secret[65];
    struct session *s;

    if (!random_hex(fresh.id, 8) || !random_hex(secret, 32)) {
        return EIO;
    }
    snprintf(fresh.user, sizeof fresh.user, "%s", user);
    snprintf(fresh.address, sizeof fresh.address, "%s", address);
    snprintf(token, REST_SESSION_TOKEN, PREFIX "%s_%s", fresh.id, secret);
    gnutls_memset(secret, 0, sizeof secret);
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, token, strlen(token), fresh.digest)) {
        return EIO;
    }
    pthread_mutex_lock(&all->mutex);
    s = find_place(all, user, now_ms);
    if (s) {
        *s = fresh;
    }
    pthread_mutex_unlock(&all->mutex);
    return s ? 0 : ENOSPC;
}

static struct session *
find(struct rest_sessions *all, const char *id, int64_t now_ms)
{
    for (size_t i = 0; i < REST_SESSIONS_MAX; i++) {
        if (is_open(&all->s[i], now_ms) && !strncmp(all->s[i].id, id, REST_SESSION_ID - 1)) {
            return &all->s[i];
        }
    }
    return NULL;
}

bool
rest_session_use(struct rest_sessions *all, const char *token, int64_t now_ms,
                 char id[REST_SESSION_ID], char user[129])
{
    unsigned char digest[32];
    struct session *s;
    bool ok;

    if (strlen(token) != REST_SESSION_TOKEN - 1 || strncmp(token, PREFIX, sizeof PREFIX - 1) ||
        gnutls_hash_fast(GNUTLS_DIG_SHA256, token, REST_SESSION_TOKEN - 1, digest)) {
        return false;
    }
    pthread_mutex_lock(&all->mutex);
    s = find(all, token + sizeof PREFIX - 1, now_ms);
    ok = s && !gnutls_memcmp(s->digest, digest, sizeof digest);
    if (ok) {
        s->used_ms = now_ms;
        memcpy(id, s->id, REST_SESSION_ID);
        memcpy(user, s->user, sizeof s->user);
    }
    pthread_mutex_unlock(&all->mutex);
    return ok;
}

bool
rest_session_has(struct rest_sessions *all, const char *id, int64_t now_ms)
{
    bool has;

    pthread_mutex_lock(&all->mutex);
    has = strlen(id) == REST_SESSION_ID - 1 && find(all, id, now_ms);
    pthread_mutex_unlock(&all->mutex);
    return has;
}

bool
rest_session_end(struct rest_sessions *all, const char *id, const char *user, int64_t now_ms)
{
    struct session *s = NULL;

    if (strlen(id) != REST_SESSION_ID - 1) {
        return false;
    }
    pthread_mutex_lock(&all->mutex);
    s = find(all, id, now_ms);
    if (s && user && strcmp(s->user, user) != 0) {
        s = NULL;
    }
    if (s) {
        memset(s, 0, sizeof *s);
    }
    pthread_mutex_unlock(&all->mutex);
    return s;
}

json_t *
rest_sessions_list(struct rest_sessions *all, const char *user, int64_t now_ms)
{
    json_t *list = json_array();
    char began[32];
    struct tm tm;

    pthread_mutex_lock(&all->mutex);
    for (size_t i = 0; i < REST_SESSIONS_MAX; i++) {
        const struct session *s = &all->s[i];

        if (!is_open(s, now_ms) || (user && strcmp(s->user, user) != 0)) {
            continue;
        }
        gmtime_r(&s->began, &tm);
        strftime(began, sizeof began, "%Y-%m-%dT%H:%M:%SZ", &tm);
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "id", s->id, "user",
                                        s->user, "address", s->address, "began", began,
                                        "expires_in", (json_int_t)(s->expires_ms - now_ms) / 1000,
                                        "idle_in", (json_int_t)(ends_ms(s) - now_ms) / 1000));
    }
    pthread_mutex_unlock(&all->mutex);
    return list;
}
