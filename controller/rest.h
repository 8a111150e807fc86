/* rest: the pool over HTTP and JSON.
 *
 * The server parses and authenticates in threads of its own (libmicrohttpd's,
 * one for each address it listens on), so that no client holds up the daemon;
 * what is well-formed and permitted is handed to the main loop, and only there
 * are the pool's objects read and changed, through struct rest_ops.
 *
 * Addresses: "unix:PATH" (the peer's credentials decide: root and our own user
 * are admin, others are turned away) and "ssl:PORT" or "ssl:PORT:IP" (TLS 1.3,
 * client certificates; the certificate's common name is looked up in class
 * user, otherwise its OU names the role: admin, operator, viewer,
 * tenant:NAME), and "token:PORT" or "token:PORT:IP" (TLS 1.3 without client
 * certificates).  At each of them the token of a session decides, if one is
 * presented.  docs/rest.md says what it answers.
 *
 * Threads: every function here is for the main loop, except rest_fault_set.
 * Ownership: the server owns requests and transactions; what the callbacks
 * return as json_t * is a new reference, the caller's. */
#ifndef REST_H
#define REST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool_class.h"

struct json_t; /* jansson's */
struct rest;

/* Why a request was refused, as the client gets it: {"error", "object",
 * "field", "message"}, empty ones left out. */
struct rest_fault {
    int status;        /* HTTP's: 400, 403, 404, 409, 422, 503 ... */
    const char *error; /* a constant word: "invalid", "conflict", ... */
    char object[300];
    char field[64];
    char message[400];
};

void rest_fault_set(struct rest_fault *, int status, const char *error, const char *object,
                    const char *field, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

enum rest_txn_kind {
    REST_CHECK,    /* 'body': a document; nothing changes */
    REST_EDIT,     /* 'body': edits, all or none */
    REST_IMPORT,   /* 'body': a document; classes that it does not hold stay */
    REST_CONFIRM,  /* the unconfirmed commit stays */
    REST_ROLLBACK, /* what stood before the unconfirmed commit stands again */
};

/* One change of the pool.  Edits are an array of
 *   {"op": "add"|"set"|"remove", "class": NOUN, "name": NAME or uuid, "values": {...}}
 * with fields and types checked against pool_class; a null value means the
 * field's default.  A rule is named POLICY/RULE. */
struct rest_txn {
    enum rest_txn_kind kind;
    const struct json_t *body;
    /* Edits and imports: roll back after so many seconds without confirmation;
     * 0: for good. */
    unsigned confirm_s;
    const char *author;
    /* {"errors": [{object, field, message}], "warnings": [...]}, the implementor's
     * finding if it has any; freed by the server. */
    struct json_t *report;
    /* The server's, for the implementor to ask whenever it is about to write, again if it
     * begins anew: what stands then decides, and 'body' may be another afterwards.  False:
     * 'fault' is what done() is to be called with. */
    bool (*decide)(struct rest_txn *, struct rest_fault *fault);
    /* The implementor calls it once, from its own run or from submit().
     * 'fault' NULL: done, and visible to list() and object(). */
    void (*done)(struct rest_txn *, const struct rest_fault *fault, int64_t generation);
};

/* The pool behind the server. */
struct rest_ops {
    /* What stands is known.  Until then nothing is said of it.  NULL: it always is. */
    bool (*ready)(void *aux);
    /* Counts changes of the stated configuration. */
    int64_t (*generation)(void *aux);
    /* All objects, stated fields and status: an array, or the one object of a
     * class with ->single. */
    struct json_t *(*list)(void *aux, const struct pool_class *);
    /* By name or uuid; NULL if there is none. */
    struct json_t *(*object)(void *aux, const struct pool_class *, const char *name);
    struct json_t *(*status)(void *aux);
    /* The stated configuration, the whole of it, as a document. */
    struct json_t *(*export)(void *aux);
    /* What is wrong with what stands, in the form of rest_txn's report. */
    struct json_t *(*check)(void *aux);
    /* The way of a packet: the answer to a question (questions.h), or NULL and a
     * fault. */
    struct json_t *(*trace)(void *aux, const struct json_t *question, struct rest_fault *);
    /* Whose the flows of a cookie ("0xd5...") are; or NULL and a fault. */
    struct json_t *(*cookie)(void *aux, const char *cookie, struct rest_fault *);
    /* What rules decided, after an entry's number; -1: the latest. */
    struct json_t *(*log)(void *aux, int64_t after);
    /* Switches report new connections for so many seconds. */
    struct json_t *(*sample)(void *aux, unsigned seconds);
    /* {"flows": [...]}: what they reported. */
    struct json_t *(*samples)(void *aux);
    /* What a document would do with flows: {"document", "flows"}, or, without
     * "flows", with the samples.  NULL and a fault. */
    struct json_t *(*shadow)(void *aux, const struct json_t *question, struct rest_fault *);
    /* The next packets of a vif are reported; or NULL and a fault. */
    struct json_t *(*capture)(void *aux, const struct json_t *question, struct rest_fault *);
    /* Those that were, explained, after a packet's number; -1: all. */
    struct json_t *(*captured)(void *aux, int64_t after);
    /* One at a time. */
    void (*submit)(void *aux, struct rest_txn *);
    /* Every connected host has applied it.  Otherwise appends to 'waiting' (if
     * not NULL) the names of those that have not. */
    bool (*applied)(void *aux, int64_t generation, struct json_t *waiting);
    /* Appends the names of hosts that are not connected: nobody waits for them. */
    void (*absent)(void *aux, struct json_t *names);
    /* Ms since 1970 when the unconfirmed commit rolls back; 0: there is none. */
    int64_t (*pending)(void *aux);
    /* What stood before it, as a document; objects that it has left there have their
     * "uuid". */
    struct json_t *(*pending_document)(void *aux);
};

enum rest_log { REST_LOG_ERROR, REST_LOG_WARN, REST_LOG_INFO };

struct rest_config {
    const char *const *listen;
    size_t n_listen;
    /* Files in PEM, for addresses that begin with ssl: or token:.  Read again when they
     * change.  'crl' may be NULL. */
    const char *private_key, *certificate, *ca_cert, *crl;
    const char *audit; /* file of the audit log; NULL: none */
    /* What a client may take for a request's head, and for its body; 0: as usual. */
    int64_t head_ms, body_ms;
    const struct rest_ops *ops;
    void *aux;
    /* From any thread; the line has no newline. */
    void (*log)(enum rest_log, const char *line);
};

/* 0, or an errno with a sentence in 'why'. */
int rest_create(const struct rest_config *, struct rest **, char *why, size_t why_size);
/* Answers what has come in, ends long polls. */
void rest_run(struct rest *);
/* Readable when rest_run() has something to do ... */
int rest_fd(const struct rest *);
/* ... and it also has after this many ms; -1: not by itself. */
int rest_timeout_ms(const struct rest *);
/* Open requests are answered with 503.  No done() may be called afterwards. */
void rest_destroy(struct rest *);

/* A line of the audit log about what the controller did by itself. */
void rest_note(struct rest *, const char *what, int status, int64_t generation);

/* The OpenAPI description of all this. */
struct json_t *rest_openapi(void);

#endif
