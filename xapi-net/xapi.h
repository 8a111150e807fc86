/* xapi: what weft-xapid's files share.
 *
 *   store.c        the pool's database: replica and transactions
 *   coord.c        which of the pool's hosts is the coordinator
 *   http_password.c  users with passwords
 *   call.c         JSON-RPC's forms
 *   session.c      sessions
 *   class*.c       THE TABLE: classes, fields and methods of XenAPI
 *   value.c        columns as XenAPI's values
 *   dispatch.c     from a client's request to its method, by the table
 *   event.c        event.from
 *   task.c         work orders, and who waits for them
 *   agent*.c       what this host does of them; proc.c its processes
 *
 * A request that changes something becomes a row: of the object itself where
 * the row is all there is to it (VIF.create), or of Task, which the weft-xapid of
 * Task.host carries out.  Clients talk to the coordinator; hosts talk to each
 * other by rows alone.
 *
 * Threads: the daemon's main loop, but where http_serve.h says otherwise. */
#ifndef XAPI_H
#define XAPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "call.h"
#include "openvswitch/list.h"
#include "pool_class.h"
#include "store.h"

struct agent;
struct coord;
struct events;
struct http_server;
struct http_request;
struct json;
struct sessions;

struct xapi_options {
    const char *db, *host;
    const char *private_key, *certificate, *ca_cert; /* of the database's connections */
    const char *run_dir, *switch_dir, *localxen_dir, *share, *bin, *bridge;
    const char *advertise;         /* IP of the API, as other hosts reach it */
    const char *migration_address; /* IP for weft-migrate */
    const char *passwords, *audit;
    /* Of the migration's stream; NULL: the database's. */
    const char *stream_key, *stream_certificate, *stream_ca_cert;
    bool plain_migration;
    bool agent_only; /* never the coordinator: what the database's role "host" may do is enough */
    int lease_s;     /* the coordinator's */
};

struct xapi {
    const struct xapi_options *options;
    struct store *store;
    struct coord *coord;
    struct http_server *http;
    struct sessions *sessions;
    struct events *events;
    struct agent *agent;
    struct ovs_list waiting; /* struct request, of tasks or events */
};

/* --- values ------------------------------------------------------------------------ */

enum value_type {
    V_STRING,
    V_INT,
    V_FLOAT,
    V_BOOL,
    V_DATETIME, /* the column holds ms since 1970 */
    V_REF,      /* "OpaqueRef:UUID"; the column a uuid, or nothing */
    V_SET,      /* of strings */
    V_MAP,      /* of strings to strings */
    V_JSON,     /* of a literal or a function */
};

#define REF_PREFIX "OpaqueRef:"
#define REF_NULL "OpaqueRef:NULL"
#define REF_SIZE (sizeof REF_PREFIX + UUID_LEN)

struct json *value_ref(const struct uuid *);
struct json *value_time(int64_t ms);
struct json *value_of(const struct ovsdb_idl_row *, const struct ovsdb_idl_column *,
                      enum value_type);
bool value_fits(const struct json *, enum value_type);
/* What has been checked with value_fits(); inside a transaction. */
void value_write(const struct ovsdb_idl_row *, const struct ovsdb_idl_column *,
                 const struct json *);
/* NULL: not an object, or without such a member. */
const struct json *value_member(const struct json *map, const char *key);
/* A member of a map from a client, or 'otherwise'. */
const char *value_map(const struct json *map, const char *key, const char *otherwise);
/* 'set' of strings. */
void value_add(struct json *set, const char *);
/* {} or [] or "x" of a literal. */
struct json *value_literal(const char *);

/* --- requests ------------------------------------------------------------------------ */

enum { MAX_ARGS = 8, NAME_MAX_BYTES = 255 };

struct arg {
    bool given;
    const char *s; /* s, and refs as they came */
    int64_t i;
    bool b;
    const struct json *j;            /* m, l, o: map, list, record */
    const struct ovsdb_idl_row *row; /* refs of rows */
};

struct request {
    struct ovs_list node; /* in xapi.waiting */
    struct xapi *xapi;
    struct http_request *http;
    const struct call *call; /* http's */
    const struct method *method;
    const struct class *class;
    const struct field *field; /* of get_FIELD and set_FIELD */
    bool async;
    char user[129], session[REF_SIZE];
    enum pool_role role;
    struct arg args[MAX_ARGS]; /* without the session */
    unsigned n_args;

    char order[UUID_LEN + 1]; /* the task that it makes */
    char task[UUID_LEN + 1];  /* waits for this one; or empty */
    struct event_wait *event;
};

/* Answers, and frees the request. */
void request_answer(struct request *, struct json *value); /* takes it */
#define request_fail(REQUEST, CODE, ...)                                                           \
    request_fail_with((REQUEST), (CODE), (const char *const[]){__VA_ARGS__})
void request_fail_with(struct request *, const char *code, const char *const *params);
void request_refuse(struct request *, const struct fault *);
/* Commits what has been written in 'txn'; then the answer is 'value'. */
void request_commit(struct request *, struct ovsdb_idl_txn *, struct json *value);
/* NULL: cannot be written now, and the request has been answered so. */
struct ovsdb_idl_txn *request_begin(struct request *);

/* There is such a session, and its user may do that; else the request has been answered. */
bool request_permitted(struct request *);

/* A whole request; login and everything else. */
void dispatch(struct xapi *, struct http_request *);
/* Once a turn: those that wait. */
void dispatch_run(struct xapi *);
void dispatch_wait(struct xapi *);
/* All that wait are told that the daemon ends. */
void dispatch_end(struct xapi *);

/* --- the table ----------------------------------------------------------------------- */

struct field {
    const char *name;
    enum value_type type;
    const struct ovsdb_idl_column *column; /* or */
    const char *literal;                   /* JSON; or */
    struct json *(*get)(struct xapi *, const struct ovsdb_idl_row *);
    enum pool_role set;       /* who may; POOL_ROLE_NONE: nobody */
    const char *const *among; /* of a string that is set; ended by NULL */
};

/* One letter for each parameter after the session: s string, i int, b bool,
 * m map, l set of strings, o record, f float, j anything; "." the class's own, H host, V VM, I VIF,
 * N network, P pool, T task: references; behind "/" those that may be left out. */
struct method {
    const char *name;
    const char *params;
    enum pool_role role; /* least; POOL_ROLE_NONE: it takes no session */
    bool async;          /* there is Async.CLASS.NAME */
    void (*run)(struct request *);
};

struct class
{
    const char *name;                          /* "VM" */
    char letter;                               /* in struct method's params */
    const struct ovsdb_idl_table_class *table; /* NULL: no rows */
    const struct field *fields;
    size_t n_fields;
    const struct method *methods;
    size_t n_methods;
};

extern const struct class class_session, class_pool, class_host, class_network, class_vm, class_vif,
    class_task, class_event;
extern const struct class *const classes[];
extern const size_t n_classes;

const struct field *class_field(const struct class *, const char *name);
/* The object's record, as get_record has it. */
struct json *class_record(struct xapi *, const struct class *, const struct ovsdb_idl_row *);
/* NULL if 'ref' is none of the class. */
const struct ovsdb_idl_row *class_find(struct xapi *, const struct class *, const char *ref);

/* --- sessions -------------------------------------------------------------------------- */

struct sessions *sessions_create(void);
void sessions_destroy(struct sessions *);
/* False: there are too many. */
bool session_begin(struct sessions *, const char *user, enum pool_role, const char *originator,
                   char ref[REF_SIZE]);
/* False: there is none (any more).  Counts as use. */
bool session_use(struct sessions *, const char *ref, char user[129], enum pool_role *);
bool session_end(struct sessions *, const char *ref);
struct json *session_record(struct xapi *, const char *ref);
struct json *session_refs(struct sessions *);
/* The pool's class user says what a name may do; 'otherwise' for names it has not. */
enum pool_role role_of_user(struct xapi *, const char *name, enum pool_role otherwise);

/* --- tasks ------------------------------------------------------------------------------- */

/* "OpaqueRef:..." of its own inside a transaction: a work order for a host. */
const struct poolrec_task *task_insert(struct ovsdb_idl_txn *, const char *name, const char *vm,
                                       const char *host, const char *params,
                                       const char *description);
/* For the method's run(): the order is written, then the request waits for its
 * end, or answers with its reference.  'host' carries it out. */
void task_order(struct request *, const char *vm, const char *host, const struct json *params);
bool task_open(const struct poolrec_task *); /* not finished */
/* An order that is under way for the VM, or NULL. */
const struct poolrec_task *task_of_vm(struct store *, const char *vm);
/* 'm' was begun for it by its host: the task's row says so while it is open ('result').  What
 * 'm' itself says, any host can write, and what the VM's row says, a host that it was to move
 * to, or came from. */
bool task_begot(const struct poolrec_task *, const struct poolrec_migration *m);
/* Inside a transaction. */
void task_succeed(const struct poolrec_task *, const char *result);
void task_fail(const struct poolrec_task *, const struct fault *);
void task_cancelled(const struct poolrec_task *);
/* VM_MIGRATE_FAILED with references of the VM and both hosts. */
void task_fault_migrate(struct store *, const struct poolrec_migration *, const char *why,
                        struct fault *);
/* How a task failed, as its host wrote it. */
void task_fault(const struct poolrec_task *, struct fault *);
/* Answers the request if its task has ended. */
bool task_look(struct request *);
/* The coordinator's: takes out tasks that ended a while ago. */
void task_tidy(struct xapi *);

/* --- events -------------------------------------------------------------------------------- */

struct events *events_create(void);
void events_destroy(struct events *);
/* In each turn after store_run(). */
void events_run(struct xapi *);
void event_from(struct request *);
/* True: it has been answered. */
bool event_look(struct request *);
long long int event_until(const struct request *);
void event_forget(struct request *);

/* --- coordinator ------------------------------------------------------------------------------ */

struct coord *coord_create(void);
void coord_destroy(struct coord *);
void coord_run(struct xapi *);
void coord_wait(struct xapi *);
bool coord_is(const struct xapi *); /* we are */
/* IP of the coordinator, or "". */
const char *coord_address(struct xapi *);
bool coord_host_live(struct xapi *, const struct poolrec_host *);

#endif
