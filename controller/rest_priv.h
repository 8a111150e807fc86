/* rest_priv: what the REST server's files share.  See rest.h.
 *
 *   rest.c        the server: users, answers, writes in turn, long polls, the end
 *   rest_http.c   from the listeners' threads: who asks, and whether he may
 *   rest_route.c  which method and path does what, and for whom
 *   rest_openapi.c, rest_schema.c  the same as a description for programs
 *   rest_login.c  beginning and ending sessions
 *   rest_edit.c   a client's edit: its form, and who may make it
 *
 * A request belongs to its listener's thread until it is whole, to the main loop
 * from then until rest_answer(), and again to the listener's thread until it has
 * been sent (http_serve.h). */
#ifndef REST_PRIV_H
#define REST_PRIV_H

#include "ovs/jansson_ns.h"

#include <pthread.h>
#include <stdatomic.h>

#include "http_serve.h"
#include "rest.h"
#include "rest_audit.h"
#include "rest_session.h"

enum {
    REST_BODY_MAX = 8 << 20,      /* a document */
    REST_DOCUMENT_MAX = 64 << 20, /* likewise, of who may import it and says its length */
    REST_OBJECT_MAX = 256 << 10,  /* one object */
    REST_BODIES_MAX = 128 << 20,  /* all clients' together */
    REST_PEER_CONNECTIONS = 32,   /* of one peer */
    REST_BODY_MS = 30000,         /* for the body */
    REST_KEEP_MS = 60000,         /* between two requests */
    REST_WAIT_MAX_S = 600,        /* a long poll */
    REST_CONFIRM_MAX_S = 86400,
    REST_SAMPLE_MAX_S = 300, /* switches report packets */
};

/* Who asks. */
struct rest_user {
    enum pool_role role;
    char name[129];
    char tenant[129];              /* of role tenant */
    char address[80];              /* "192.0.2.1#40000", or "unix#0" with the peer's user id */
    char session[REST_SESSION_ID]; /* empty: known by certificate or credentials */
};

struct rest_request;

/* Numbers in a query. */
enum rest_arg {
    REST_ARG_GENERATION,
    REST_ARG_TIMEOUT,
    REST_ARG_CONFIRM,
    REST_ARG_AFTER,
    REST_ARG_SECONDS,
    REST_N_ARGS
};
struct rest_arg_kind {
    const char *name;
    int64_t max;
};
extern const struct rest_arg_kind rest_args[REST_N_ARGS];

struct rest_route {
    const char *method;
    const char *path;     /* "/v1/status", "/v1/{class}", "/v1/{class}/{object}" */
    enum pool_role least; /* POOL_ROLE_NONE: the class says */
    bool change;          /* is audited */
    bool whole_pool;      /* is nothing for tenants */
    bool early;           /* is answered before it is known what stands */
    size_t max_body;
    unsigned args;      /* bit enum rest_arg: what the query may hold */
    const char *body;   /* its schema; NULL: the class's, or a document */
    const char *answer; /* likewise; NULL: the class's, or what a change is answered with */
    void (*run)(struct rest *, struct rest_request *); /* on the main loop */
    const char *about;
};

struct rest_request {
    struct http_request http; /* its aux is the struct rest */
    struct rest_user user;
    const struct rest_route *route;
    const struct pool_class *class;
    char object[300];
    int64_t args[REST_N_ARGS]; /* -1: not given */
    json_t *json;              /* the body, or NULL */

    /* The main loop's. */
    struct rest_request *prev, *next; /* in one of rest's lists */
    int64_t until_ms;                 /* a long poll */
    struct rest_txn txn;
    json_t *edits;   /* as they came; NULL: txn.body is 'json' */
    json_t *checked; /* txn.body otherwise: 'edits' for what stood when they were decided */
};

struct rest_list {
    struct rest_request *first, *last;
};

struct rest {
    struct rest_config config;
    struct http_server *http;
    struct rest_audit *audit;
    struct rest_sessions *sessions;

    atomic_bool known;     /* what stands, and so who is who; the main loop writes it */
    pthread_mutex_t mutex; /* guards users */
    json_t *users;         /* by name */

    /* The main loop's. */
    struct rest_list waiting; /* long polls */
    struct rest_list writes;  /* the first one is under way if 'writing' */
    bool writing;
    int64_t users_generation;
};

static inline struct rest *
rest_of(const struct rest_request *q)
{
    return http_aux(&q->http);
}

/* The refusal of what cannot be said before the pool database has been read. */
void rest_fault_unknown(struct rest_fault *);
void rest_logf(struct rest *, enum rest_log, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- rest.c ------------------------------------------------------------------- */

/* From the main loop.  Takes 'json'; the request must not be used afterwards. */
void rest_answer(struct rest_request *, int status, json_t *json);
void rest_refuse(struct rest_request *, const struct rest_fault *);
/* For either thread: fills in the answer, gives nothing away. */
void rest_put_answer(struct rest_request *, int status, json_t *json);
void rest_put_fault(struct rest_request *, const struct rest_fault *);
/* The request waits for its generation, or its time. */
void rest_wait_for(struct rest *, struct rest_request *);
/* request->txn is ready but for 'done'. */
void rest_write(struct rest *, struct rest_request *);
/* The user that a certificate's name is, by class user or by its OU. */
void rest_identify(struct rest *, const char *cn, const char *ou, struct rest_user *);
/* A change (then 'fault' is NULL), or a refusal. */
void rest_audit_request(struct rest *, const struct rest_request *, const struct rest_fault *fault,
                        int64_t generation);

/* --- rest_http.c ---------------------------------------------------------------- */

int rest_listen(struct rest *, char *why, size_t why_size);
/* Who asks and whether he may, as he is by now.  The main loop's. */
bool rest_still_may(struct rest_request *, struct rest_fault *);

/* --- rest_route.c --------------------------------------------------------------- */

extern const struct rest_route rest_routes[];
extern const size_t n_rest_routes;
/* Finds the route and what the path names; checks the role.  False: 'fault'. */
bool rest_route_find(struct rest_request *, const char *method, struct rest_fault *);
/* Whether the user's role may do what was found. */
bool rest_route_allows(const struct rest_request *, struct rest_fault *);

/* --- rest_schema.c -------------------------------------------------------------- */

/* {"$ref": ...} to one of the schemas. */
struct json_t *rest_schema_ref(const char *name, const char *suffix);
/* All of them, by name. */
struct json_t *rest_schemas(void);

/* --- rest_login.c --------------------------------------------------------------- */

void rest_run_sessions(struct rest *, struct rest_request *);
void rest_run_login(struct rest *, struct rest_request *);
void rest_run_logout(struct rest *, struct rest_request *);

/* --- rest_edit.c ---------------------------------------------------------------- */

/* Whether the user may see the object. */
bool rest_may_see(struct rest *, const struct rest_user *, const struct pool_class *,
                  const json_t *object);
/* Checks the form of edits and the user's right to them, against what stands;
 * sets with {"add", "remove"} become plain ones.  False: 'fault'. */
bool rest_edits_check(struct rest *, const struct rest_user *, json_t *edits, struct rest_fault *);
/* The right to replace the classes that the document holds.  Those that it
 * leaves as they are may be in it. */
bool rest_document_check(struct rest *, const struct rest_user *, const json_t *document,
                         struct rest_fault *);
/* The right to make what was 'before' (rest_ops.pending_document) what stands now.  What
 * only names something that has a new name was not changed. */
bool rest_commit_check(struct rest *, const struct rest_user *, const json_t *before,
                       struct rest_fault *);
/* Without what the user may not see. */
void rest_document_hide(const struct rest_user *, json_t *document);

#endif
