/* rest_session: tokens that stand for a user for a while.
 *
 * Who has shown a certificate, or comes by the local socket, gets a token for a
 * user of the pool, and from then on whoever presents it is that user, with the
 * role the user has at that moment.  A token is "weft_ID_SECRET" with 256 random
 * bits; what is kept of it is the SHA-256.  A session ends after its lifetime,
 * when it has not been used for a time, when it is revoked, and with the process:
 * nothing is written down.
 *
 * Any thread. */
#ifndef REST_SESSION_H
#define REST_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "ovs/jansson_ns.h"

enum {
    REST_SESSIONS_MAX = 1024,
    REST_SESSIONS_OF_USER = 32,
    REST_SESSION_LIFETIME_S = 12 * 3600, /* unless stated */
    REST_SESSION_LIFETIME_MAX_S = 7 * 86400,
    REST_SESSION_IDLE_S = 1800,
    REST_SESSION_ID = 16 + 1,                 /* bytes, with the NUL */
    REST_SESSION_TOKEN = 5 + 16 + 1 + 64 + 1, /* the same */
};

struct rest_sessions;

struct rest_sessions *rest_sessions_create(void); /* NULL: no memory */
void rest_sessions_destroy(struct rest_sessions *);

/* 0, ENOSPC (the user has too many, or all have), or EIO (no random numbers). */
int rest_session_begin(struct rest_sessions *, const char *user, const char *address,
                       int64_t lifetime_s, int64_t idle_s, int64_t now_ms,
                       char token[REST_SESSION_TOKEN]);
/* Whose session the token is, which counts as use.  False: nobody's. */
bool rest_session_use(struct rest_sessions *, const char *token, int64_t now_ms,
                      char id[REST_SESSION_ID], char user[129]);
/* By id; 'user' NULL: anybody's.  False: there is none. */
/* Whether it is open; not a use of it. */
bool rest_session_has(struct rest_sessions *, const char *id, int64_t now_ms);
bool rest_session_end(struct rest_sessions *, const char *id, const char *user, int64_t now_ms);
/* [{"id", "user", "address", "began", "expires_in", "idle_in"}], a user's or all. */
json_t *rest_sessions_list(struct rest_sessions *, const char *user, int64_t now_ms);

#endif
