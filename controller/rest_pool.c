#include "rest_pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"
#include "doc.h"
#include "fleet.h"
#include "ovs/jansson_ns.h"
#include "policy_shadow.h"
#include "pool_db.h"
#include "questions.h"
#include "rest.h"
#include "rest_model.h"
#include "rule_log.h"
#include "samples.h"

#define RETRY_MS 1000
#define LOG_MAX 500 /* entries of the rules' log in one answer */

/* A call of pool_db_apply() under way.  It may outlive the server. */
struct call {
    struct rest_pool *pool; /* NULL: nobody is interested any more */
    struct rest_txn *txn;   /* NULL: the controller's own rollback */
    bool refused;           /* at its last try */
    struct rest_fault fault;
};

struct rest_pool {
    struct pool_db *db;
    struct model *model;
    struct compile *compile;
    struct rule_log *log;
    struct samples *samples;
    struct capture *capture;
    struct fleet *fleet;
    struct rest *rest;
    struct call *call;     /* or NULL */
    bool deciding;         /* what it is to do */
    int64_t next_rollback; /* wall clock: not before */
};

/* --- reading ------------------------------------------------------------------ */

static enum rec_kind
kind_of(const struct pool_class *class)
{
    return rec_kind_by_name(class->noun);
}

static bool
op_ready(void *pool)
{
    return pool_db_ready(((struct rest_pool *)pool)->db);
}

static int64_t
op_generation(void *pool)
{
    return rest_model_generation(((struct rest_pool *)pool)->model);
}

static json_t *
op_object(void *pool_, const struct pool_class *class, const char *name)
{
    struct rest_pool *pool = pool_;

    return pool_db_get(pool->db, kind_of(class), name);
}

static json_t *
op_list(void *pool_, const struct pool_class *class)
{
    struct rest_pool *pool = pool_;

    return class->single ? op_object(pool, class, "") : pool_db_list(pool->db, kind_of(class));
}

static json_t *
op_export(void *pool_)
{
    struct rest_pool *pool = pool_;

    return pool_db_export(pool->db);
}

static void
append_name(void *array, const char *name)
{
    json_array_append_new(array, json_string(name));
}

static bool
op_applied(void *pool_, int64_t generation, json_t *waiting)
{
    struct rest_pool *pool = pool_;
    struct rest_model_hosts hosts =
        rest_model_hosts(pool->model, generation, waiting ? append_name : NULL, waiting);

    return rest_model_generation(pool->model) >= generation && hosts.applied == hosts.connected &&
           !hosts.awaited;
}

static void
op_absent(void *pool_, json_t *names)
{
    rest_model_absent(((struct rest_pool *)pool_)->model, append_name, names);
}

/* While it is being taken back, or confirmed, nothing is pending any more. */
static int64_t
op_pending(void *pool_)
{
    struct rest_pool *pool = pool_;
    const struct pool_pending *pending = pool_db_pending(pool->db);

    return pool->call && !pool->deciding ? 0 : pending->deadline_ms;
}

static json_t *
op_pending_document(void *pool_)
{
    struct rest_pool *pool = pool_;

    return json_loads(pool_db_pending(pool->db)->document, 0, NULL);
}

static json_t *
fault_json(const char *object, const char *field, const char *message)
{
    json_t *json = json_object();

    json_object_set_new(json, "object", json_string(object));
    if (*field) {
        json_object_set_new(json, "field", json_string(field));
    }
    json_object_set_new(json, "message", json_string(message));
    return json;
}

/* The model's errors are "FIELD: message". */
static void
append_fault(json_t *array, const char *object, const char *text)
{
    const char *colon = strstr(text, ": ");
    char field[64] = "";

    if (colon && (size_t)(colon - text) < sizeof field && !memchr(text, ' ', colon - text)) {
        snprintf(field, sizeof field, "%.*s", (int)(colon - text), text);
        text = colon + 2;
    }
    json_array_append_new(array, fault_json(object, field, text));
}

static void
report_fault(void *report, enum rec_kind kind, const char *name, const char *error,
             const char *warning)
{
    char object[300];

    snprintf(object, sizeof object, "%s %s", rec_tables[kind].noun, name);
    if (error) {
        append_fault(json_object_get(report, "errors"), object, error);
    }
    if (warning) {
        append_fault(json_object_get(report, "warnings"), object, warning);
    }
}

static json_t *
report_of(const struct rest_pool *pool)
{
    json_t *report = json_pack("{s:[], s:[]}", "errors", "warnings");

    rest_model_faults(pool->model, report_fault, report);
    return report;
}

static json_t *
op_check(void *pool_)
{
    struct rest_pool *pool = pool_;

    pool_db_lint(pool->db);
    return report_of(pool);
}

static json_t *
op_status(void *pool_)
{
    struct rest_pool *pool = pool_;
    int64_t generation = rest_model_generation(pool->model);
    json_t *behind = json_array(), *report = report_of(pool);
    struct rest_model_hosts hosts = rest_model_hosts(pool->model, generation, append_name, behind);
    json_t *status =
        json_pack("{s:I, s:b, s:I, s:I, s:I, s:o}", "generation", (json_int_t)generation,
                  "database", pool_db_ready(pool->db) && pool_db_connected(pool->db), "hosts",
                  (json_int_t)hosts.n, "connected", (json_int_t)hosts.connected, "applied",
                  (json_int_t)hosts.applied, "behind", behind);

    json_object_update(status, report);
    json_decref(report);
    if (op_pending(pool)) {
        const struct pool_pending *pending = pool_db_pending(pool->db);
        json_object_set_new(status, "pending",
                            json_pack("{s:I, s:s}", "deadline", (json_int_t)pending->deadline_ms,
                                      "author", pending->author ? pending->author : ""));
    }
    return status;
}

/* Text of OVS's JSON and ours meet here. */
static json_t *
op_trace(void *pool_, const json_t *question, struct rest_fault *fault)
{
    struct rest_pool *pool = pool_;
    char *asked = json_dumps(question, JSON_COMPACT), *said;
    struct trace_fault why;
    json_t *answer = NULL;

    said = asked ? trace_answer(pool->model, pool->compile, asked, false, &why) : NULL;
    if (said) {
        answer = json_loads(said, 0, NULL);
    } else {
        rest_fault_set(fault, 422, "invalid", "trace", why.field, "%s", why.message);
    }
    free(said);
    free(asked);
    return answer;
}

static json_t *
op_cookie(void *pool_, const char *cookie, struct rest_fault *fault)
{
    struct rest_pool *pool = pool_;
    struct trace_fault why;
    char *said = trace_cookie(pool->model, cookie, &why);
    json_t *answer = said ? json_loads(said, 0, NULL) : NULL;

    if (!said) {
        rest_fault_set(fault, 422, "invalid", NULL, why.field, "%s", why.message);
    }
    free(said);
    return answer;
}

static json_t *
op_capture(void *pool_, const json_t *question, struct rest_fault *fault)
{
    struct rest_pool *pool = pool_;
    char *asked = json_dumps(question, JSON_COMPACT), *said;
    struct trace_fault why = {"", ""};
    json_t *answer = NULL;

    said = asked ? capture_start(pool->capture, asked, &why) : NULL;
    if (said) {
        answer = json_loads(said, 0, NULL);
    } else {
        rest_fault_set(fault, 422, "invalid", "capture", why.field, "%s", why.message);
    }
    free(said);
    free(asked);
    return answer;
}

static json_t *
op_captured(void *pool_, int64_t after)
{
    struct rest_pool *pool = pool_;
    char *said = capture_read(pool->capture, after);
    json_t *answer = json_loads(said, 0, NULL);

    free(said);
    return answer;
}

static json_t *
op_log(void *pool_, int64_t after)
{
    struct rest_pool *pool = pool_;
    char *said = rule_log_read(pool->log, after, LOG_MAX);
    json_t *answer = json_loads(said, 0, NULL);

    free(said);
    return answer;
}

static json_t *
op_sample(void *pool_, unsigned seconds)
{
    struct rest_pool *pool = pool_;

    if (seconds) {
        samples_clear(pool->samples);
    }
    return json_pack("{s:I, s:i}", "hosts", (json_int_t)fleet_tap(pool->fleet, seconds), "seconds",
                     (int)seconds);
}

static json_t *
op_samples(void *pool_)
{
    struct rest_pool *pool = pool_;
    char *said = samples_read(pool->samples);
    json_t *flows = json_loads(said, 0, NULL);

    free(said);
    return json_pack("{s:o}", "flows", flows);
}

/* --- writing -------------------------------------------------------------------- */

static json_t *
doc_errors_json(const struct doc_errors *errors)
{
    json_t *array = json_array();

    for (size_t i = 0; errors && i < errors->n; i++) {
        json_array_append_new(
            array, fault_json(errors->e[i].object, errors->e[i].field, errors->e[i].message));
    }
    return array;
}

static void
fault_of(const struct doc_errors *errors, int status, const char *otherwise,
         struct rest_fault *fault)
{
    if (errors && errors->n) {
        rest_fault_set(fault, status, status == 503 ? "unavailable" : "invalid",
                       errors->e[0].object, errors->e[0].field, "%s", errors->e[0].message);
    } else {
        rest_fault_set(fault, 503, "unavailable", NULL, NULL, "%s", otherwise);
    }
}

static void
own_rollback_done(struct rest_pool *pool, const struct pool_result *result)
{
    const char *why = result->errors && result->errors->n ? result->errors->e[0].message
                                                          : "the database did not take it";
    char line[500];

    if (!result->error) {
        rest_model_log(REST_LOG_WARN, "the unconfirmed commit was rolled back");
        rest_note(pool->rest, "rolled back: not confirmed in time", 200, result->generation);
        return;
    }
    snprintf(line, sizeof line, "an unconfirmed commit cannot be rolled back: %s", why);
    rest_model_log(REST_LOG_ERROR, line);
    rest_note(pool->rest, line, 500, 0);
    pool->next_rollback = rest_model_wall_ms() + RETRY_MS;
}

static void
applied(const struct pool_result *result, void *call_)
{
    struct call *call = call_;
    struct rest_pool *pool = call->pool;
    struct rest_txn *txn = call->txn;
    struct rest_fault fault = call->fault;
    bool refused = call->refused;

    free(call);
    if (!pool) {
        return;
    }
    pool->call = NULL;
    if (!txn) {
        if (!refused) {
            own_rollback_done(pool, result);
        }
        return;
    }
    if (refused) {
        txn->done(txn, &fault, 0);
        return;
    }
    txn->report = json_pack("{s:o, s:o}", "errors", doc_errors_json(result->errors), "warnings",
                            doc_errors_json(result->warnings));
    if (!result->error || (txn->kind == REST_CHECK && result->error == EINVAL)) {
        txn->done(txn, NULL, result->generation);
        return;
    }
    fault_of(result->errors, result->error == EINVAL ? 422 : 503,
             "the pool database cannot be reached", &fault);
    txn->done(txn, &fault, 0);
}

/* A field's default, as JSON; NULL if it has none. */
static json_t *
default_of(const struct rec_field *f)
{
    if (!f->def) {
        return NULL;
    }
    switch (f->type) {
    case REC_INT:
    case REC_OPT_INT:
        return json_integer(strtoll(f->def, NULL, 10));
    case REC_BOOL:
        return json_boolean(!strcmp(f->def, "true") || !strcmp(f->def, "1"));
    case REC_STRINGS:
    case REC_REFS:
        return json_array();
    default:
        return json_string(f->def);
    }
}

/* An edit's values as a document's object: nulls are defaults, and the policy
 * is said by a rule's full name. */
static json_t *
body_of(const struct pool_class *class, const char *name, const json_t *values,
        struct doc_errors *errors)
{
    const struct rec_table *table = &rec_tables[kind_of(class)];
    json_t *body = json_copy((json_t *)values);
    char object[300];

    snprintf(object, sizeof object, "%s %s", class->noun, name);
    for (size_t i = 0; i < table->n_fields; i++) {
        const struct rec_field *f = &table->fields[i];
        json_t *def;
        if (!json_is_null(json_object_get(body, f->name))) {
            continue;
        }
        def = default_of(f);
        if (def) {
            json_object_set_new(body, f->name, def);
        } else {
            json_object_del(body, f->name);
            doc_errors_add(errors, object, f->name, "has no default");
        }
    }
    if (class->within) {
        const char *in = json_string_value(json_object_get(body, class->within));
        if (in && (strncmp(name, in, strlen(in)) || name[strlen(in)] != '/')) {
            doc_errors_add(errors, object, class->within, "cannot be changed");
        }
        json_object_del(body, class->within);
    }
    return body;
}

static struct doc *
doc_of_edits(const json_t *edits, struct doc_errors *errors)
{
    struct doc *doc = doc_create();
    json_t *edit;
    size_t i;

    json_array_foreach(edits, i, edit)
    {
        const struct pool_class *class =
            pool_class_by_noun(json_string_value(json_object_get(edit, "class")));
        const char *name = json_string_value(json_object_get(edit, "name"));
        const json_t *values = json_object_get(edit, "values");
        if (!strcmp(json_string_value(json_object_get(edit, "op")), "remove")) {
            doc_add_removal(doc, kind_of(class), name, errors);
        } else {
            json_t *body = body_of(class, name ? name : "", values, errors);
            doc_add(doc, kind_of(class), name ? name : "", body, errors);
            json_decref(body);
        }
    }
    if (errors->n) {
        doc_free(doc);
        doc = NULL;
    }
    return doc;
}

static struct doc *
doc_of(struct rest_pool *pool, const struct rest_txn *txn, struct doc_errors *errors)
{
    const struct pool_pending *pending;

    switch (txn->kind) {
    case REST_CHECK:
    case REST_IMPORT:
        return doc_from_json(txn->body, errors);
    case REST_EDIT:
        return doc_of_edits(txn->body, errors);
    case REST_CONFIRM:
        return doc_create();
    case REST_ROLLBACK:
        pending = pool_db_pending(pool->db);
        return doc_parse(pending->document, strlen(pending->document), errors);
    }
    return NULL;
}

/* Whether the unconfirmed commit is to be taken back now: another controller may have done so,
 * or somebody confirmed it. */
static bool
is_due(struct rest_pool *pool)
{
    int64_t deadline = pool_db_pending(pool->db)->deadline_ms;

    return deadline && rest_model_wall_ms() >= deadline;
}

/* Decides, by what stands now, and says what is to be done. */
static struct doc *
ask(void *call_, struct doc_errors *errors)
{
    static const struct rest_txn own = {.kind = REST_ROLLBACK};
    struct call *call = call_;
    struct rest_pool *pool = call->pool;
    struct rest_txn *txn = call->txn;

    call->refused = true;
    if (pool) {
        pool->deciding = true;
        call->refused = txn ? !txn->decide(txn, &call->fault) : !is_due(pool);
        pool->deciding = false;
    }
    return call->refused ? NULL : doc_of(pool, txn ? txn : &own, errors);
}

static void
apply(struct rest_pool *pool, struct rest_txn *txn, enum pool_apply_mode mode,
      const struct pool_pending *pending)
{
    struct call *call = calloc(1, sizeof *call);

    if (!call) {
        abort();
    }
    call->pool = pool;
    call->txn = txn;
    pool->call = call;
    pool_db_apply_asked(pool->db, ask, mode, txn && txn->kind == REST_CHECK, pending, applied,
                        call);
}

/* What the database is to hold for a rollback, in the change's transaction. */
static bool
new_pending(const struct rest_txn *txn, struct pool_pending *pending)
{
    *pending = (struct pool_pending){"", 0, ""};
    if (txn->kind == REST_CONFIRM || txn->kind == REST_ROLLBACK) {
        return true;
    }
    if (txn->kind != REST_CHECK && txn->confirm_s) {
        pending->document = NULL; /* as it stands then */
        pending->deadline_ms = rest_model_wall_ms() + (int64_t)txn->confirm_s * 1000;
        pending->author = txn->author;
        return true;
    }
    return false;
}

static char *
flows_of(struct rest_pool *pool, const json_t *body)
{
    const json_t *flows = json_object_get(body, "flows");

    return flows ? json_dumps(flows, JSON_COMPACT | JSON_ENCODE_ANY) : samples_read(pool->samples);
}

/* The pool as the document would leave it, and what it would do. */
static json_t *
op_shadow(void *pool_, const json_t *body, struct rest_fault *fault)
{
    struct rest_pool *pool = pool_;
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_from_json(json_object_get(body, "document"), &errors);
    struct model *aside = doc ? pool_db_aside(pool->db, doc, &errors) : NULL;
    struct trace_fault why = {"", ""};
    char *flows, *said;
    json_t *answer = NULL;

    if (!aside) {
        fault_of(&errors, 422, "the document cannot be used", fault);
    } else {
        flows = flows_of(pool, body);
        said = shadow_score(pool->model, pool->compile, aside, flows ? flows : "", &why);
        if (said) {
            answer = json_loads(said, 0, NULL);
        } else {
            rest_fault_set(fault, 422, "invalid", "shadow", why.field, "%s", why.message);
        }
        free(said);
        free(flows);
    }
    shadow_forget(aside);
    doc_free(doc);
    doc_errors_clear(&errors);
    return answer;
}

static void
op_submit(void *pool_, struct rest_txn *txn)
{
    struct rest_pool *pool = pool_;
    struct pool_pending pending;
    struct rest_fault fault;
    bool merge = txn->kind == REST_EDIT || txn->kind == REST_CONFIRM;

    if (!pool_db_ready(pool->db) || pool->call) {
        rest_fault_set(&fault, 503, "unavailable", NULL, NULL, "%s",
                       pool->call ? "a commit is being rolled back; try again"
                                  : "the pool database cannot be reached");
        txn->done(txn, &fault, 0);
        return;
    }
    apply(pool, txn,
          merge                        ? POOL_MERGE
          : txn->kind == REST_ROLLBACK ? POOL_RESTORE
                                       : POOL_REPLACE,
          new_pending(txn, &pending) ? &pending : NULL);
}

/* --- the unconfirmed commit -------------------------------------------------------- */

static void
roll_back_in_time(struct rest_pool *pool)
{
    const struct pool_pending none = {"", 0, ""};

    if (!pool->call && is_due(pool) && rest_model_wall_ms() >= pool->next_rollback &&
        pool_db_connected(pool->db)) {
        apply(pool, NULL, POOL_RESTORE, &none);
    }
}

static int
rollback_in_ms(struct rest_pool *pool)
{
    const struct pool_pending *pending = pool_db_pending(pool->db);
    int64_t at, now = rest_model_wall_ms();

    if (!pending || !pending->deadline_ms || pool->call) {
        return -1;
    }
    at = pending->deadline_ms > pool->next_rollback ? pending->deadline_ms : pool->next_rollback;
    return at <= now ? 0 : at - now > 60000 ? 60000 : (int)(at - now);
}

/* --- life ---------------------------------------------------------------------------- */

static const struct rest_ops ops = {
    .ready = op_ready,
    .generation = op_generation,
    .list = op_list,
    .object = op_object,
    .status = op_status,
    .export = op_export,
    .check = op_check,
    .trace = op_trace,
    .cookie = op_cookie,
    .log = op_log,
    .sample = op_sample,
    .samples = op_samples,
    .shadow = op_shadow,
    .capture = op_capture,
    .captured = op_captured,
    .submit = op_submit,
    .applied = op_applied,
    .absent = op_absent,
    .pending = op_pending,
    .pending_document = op_pending_document,
};

int
rest_pool_create(const struct rest_pool_options *o, struct pool_db *db, struct model *model,
                 struct rest_pool **poolp, char *why, size_t why_size)
{
    struct rest_pool *pool = calloc(1, sizeof *pool);
    struct rest_config config = {
        .listen = o->listen,
        .n_listen = o->n_listen,
        .private_key = o->private_key,
        .certificate = o->certificate,
        .ca_cert = o->ca_cert,
        .crl = o->crl,
        .audit = o->audit,
        .ops = &ops,
        .aux = pool,
        .log = rest_model_log,
    };
    int error;

    *poolp = NULL;
    if (!pool) {
        snprintf(why, why_size, "out of memory");
        return ENOMEM;
    }
    pool->db = db;
    pool->model = model;
    pool->compile = o->compile;
    pool->log = o->log;
    pool->samples = o->samples;
    pool->capture = o->capture;
    pool->fleet = o->fleet;
    error = rest_create(&config, &pool->rest, why, why_size);
    if (error) {
        free(pool);
        return error;
    }
    for (size_t i = 0; i < o->n_listen; i++) {
        if (!strncmp(o->listen[i], "unix:", 5)) {
            rest_model_remove_at_exit(o->listen[i] + 5);
        }
    }
    *poolp = pool;
    return 0;
}

void
rest_pool_run(struct rest_pool *pool)
{
    roll_back_in_time(pool);
    rest_run(pool->rest);
}

void
rest_pool_wait(struct rest_pool *pool)
{
    int ms = rest_timeout_ms(pool->rest), rollback = rollback_in_ms(pool);

    rest_model_wait(rest_fd(pool->rest), rollback >= 0 && rollback < ms ? rollback : ms);
}

void
rest_pool_destroy(struct rest_pool *pool)
{
    if (pool) {
        if (pool->call) {
            pool->call->pool = NULL;
        }
        rest_destroy(pool->rest);
        free(pool);
    }
}
