#include <config.h>

#include "pool_db.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fence.h"
#include "model_impl.h"
#include "model_lint.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl-provider.h"
#include "plan.h"
#include "pool_copy.h"
#include "pool_db_priv.h"
#include "pool_row.h"
#include "restore.h"
#include "timeval.h"
#include "trunk_lint.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(pool_db);

/* Status gathers this long before it is written. */
#define STATUS_INTERVAL_MS 10
/* Lint looks at rules when nothing changed for a while, about a millisecond at a time. */
#define LINT_CALM_MS 300
#define LINT_STEPS 200000
/* Of a change that others' transactions keep overtaking. */
#define MAX_TRIES 10
#define RETRY_MS 500
/* For the copy of the database to have a change. */
#define COPY_TIMEOUT_MS 10000

/* A change of what is stated, on its way. */
struct apply {
    struct ovs_list node;
    struct doc *doc;
    pool_ask *ask;             /* for it, at each try; or NULL */
    enum pool_apply_mode mode; /* as it is tried now */
    bool restores;             /* it was to be POOL_RESTORE */
    bool check_only;
    bool has_pending, pends; /* 'pends': its document is what stands before */
    char *pending_document, *pending_author;
    int64_t pending_deadline;
    pool_done *done;
    void *aux;
    unsigned tries;
    size_t counts[3];         /* by enum plan_what */
    int64_t generation;       /* that it makes */
    long long int copy_until; /* written; the copy does not have it yet; 0: not written */
    struct doc_errors warnings;
};

struct pool_db {
    struct ovsdb_idl *idl;
    struct fence_link link;
    bool good;   /* it is the database that counts */
    bool shared; /* with other controllers: pool_db_share() */
    bool quiet;  /* another one writes what is not about our hosts */
    struct pool_copy *copy;
    struct model *model;
    unsigned seqno; /* of what the model shows */
    bool ready;
    uint32_t key_next, zone_next;
    struct model_lint *lint; /* or NULL: none is due */
    long long int lint_due;
    struct pool_pending pending;
    char *pending_document, *pending_author;

    struct ovs_list applies; /* struct apply; the first one may be in flight */
    struct ovsdb_idl_txn *apply_txn;
    bool applying; /* against calls from a callback */
    /* After "try again": when the database was seen to change, or a while later. */
    unsigned retry_seqno;
    long long int retry_due;

    struct ovsdb_idl_txn *status_txn;
    struct status_sent { /* what status_txn carries */
        enum rec_kind kind;
        struct uuid uuid;
    } * sent;
    size_t n_sent, cap_sent;
    long long int status_due;
};

/* --- life ------------------------------------------------------------------------------- */

struct pool_db *
pool_db_open(const char *remote, struct model *m)
{
    struct pool_db *db = xzalloc(sizeof *db);

    db->link.remote = xstrdup(remote);
    db->idl = ovsdb_idl_create(remote, &poolrec_idl_class, true, true);
    ovsdb_idl_set_leader_only(db->idl, false);
    pool_row_monitor(db->idl);
    db->copy = pool_copy_create();
    db->model = m;
    db->pending_document = xstrdup("");
    db->pending_author = xstrdup("");
    ovs_list_init(&db->applies);
    return db;
}

static void
apply_destroy(struct apply *apply)
{
    doc_free(apply->doc);
    free(apply->pending_document);
    free(apply->pending_author);
    doc_errors_clear(&apply->warnings);
    free(apply);
}

/* Answers the first one. */
static void
finish(struct pool_db *db, int error, const struct doc_errors *errors, int64_t generation)
{
    static const struct doc_errors none;
    struct apply *apply = CONTAINER_OF(ovs_list_pop_front(&db->applies), struct apply, node);
    struct pool_result result = {
        .error = error,
        .errors = errors ? errors : &none,
        .warnings = &apply->warnings,
        .generation = generation,
        .n_created = error ? 0 : apply->counts[PLAN_CREATE],
        .n_changed = error ? 0 : apply->counts[PLAN_CHANGE],
        .n_deleted = error ? 0 : apply->counts[PLAN_DELETE],
    };

    apply->done(&result, apply->aux);
    apply_destroy(apply);
}

/* It starts over when things are calm. */
static void
stop_lint(struct pool_db *db)
{
    if (db->lint) {
        model_lint_destroy(db->lint);
        db->lint = NULL;
        db->lint_due = time_msec() + LINT_CALM_MS;
    }
}

/* --- from the database to the model ------------------------------------------------------- */

static const struct ovsdb_idl_row *
pool_row(struct pool_db *db)
{
    return ovsdb_idl_first_row(db->idl, pool_row_table(REC_POOL));
}

static void
sync_pool(struct pool_db *db)
{
    const struct ovsdb_idl_row *row = pool_row(db);
    struct rec r;

    if (!row) {
        return;
    }
    pool_row_read(row, REC_POOL, &r);
    model_put(db->model, &row->uuid, &r);
    rec_destroy(&r);
    db->model->generation = pool_row_get_int(row, REC_POOL, "generation");
    db->key_next = pool_row_get_int(row, REC_POOL, "key_next");
    db->zone_next = pool_row_get_int(row, REC_POOL, "zone_next");
    free(db->pending_document);
    free(db->pending_author);
    db->pending_document = xstrdup(pool_row_get_string(row, REC_POOL, "pending_rollback"));
    db->pending_author = xstrdup(pool_row_get_string(row, REC_POOL, "pending_author"));
    db->pending.deadline_ms = pool_row_get_int(row, REC_POOL, "pending_deadline");
    pool_copy_set(db->copy, pool_row_get_string(row, REC_POOL, "copy"));
}

static void
sync_row(struct pool_db *db, enum rec_kind kind, const struct uuid *uuid)
{
    const struct ovsdb_idl_row *row = pool_row_find(db->idl, kind, uuid);
    struct rec r;

    /* A row that went and came back between two looks is reported twice. */
    if (!row) {
        model_remove(db->model, kind, uuid);
        return;
    }
    pool_row_read(row, kind, &r);
    model_put(db->model, uuid, &r);
    rec_destroy(&r);
}

static void
sync_model(struct pool_db *db)
{
    if (!db->good || db->seqno == ovsdb_idl_get_seqno(db->idl)) {
        return;
    }
    db->seqno = ovsdb_idl_get_seqno(db->idl);
    for (enum rec_kind k = REC_POOL + 1; k < REC_N_KINDS; k++) {
        const struct ovsdb_idl_row *row;

        for (row = ovsdb_idl_track_get_first(db->idl, pool_row_table(k)); row;
             row = ovsdb_idl_track_get_next(row)) {
            sync_row(db, k, &row->uuid);
        }
    }
    sync_pool(db);
    ovsdb_idl_track_clear(db->idl);
    model_settle(db->model);
    db->ready = db->ready || pool_row(db);
    /* The leader's lease alone gives no reason to look at all rules again. */
    if (model_has_changes(db->model)) {
        stop_lint(db);
        db->lint_due = time_msec() + LINT_CALM_MS;
    }
}

/* Hosts that other controllers lead are as these say. */
static void
show_others(struct pool_db *db)
{
    struct model_obj *obj;

    if (!db->shared || !db->good) {
        return;
    }
    MODEL_FOR_EACH (obj, db->model, REC_HOST) {
        struct model_host *host = model_host(obj);
        const struct ovsdb_idl_row *row =
            host->led ? NULL : pool_row_find(db->idl, REC_HOST, &obj->uuid);

        if (row) {
            host->status.connected = pool_row_get_int(row, REC_HOST, "connected");
            host->status.applied_generation = pool_row_get_int(row, REC_HOST, "applied_generation");
            host->status.last_seen_ms = pool_row_get_int(row, REC_HOST, "last_seen");
            ovs_strlcpy(host->status.error, pool_row_get_string(row, REC_HOST, "error"),
                        sizeof host->status.error);
        }
    }
}

static void
run_lint(struct pool_db *db, size_t steps)
{
    if (!db->lint && db->lint_due) {
        db->lint_due = 0;
        db->lint = model_lint_create(db->model);
    }
    if (db->lint && model_lint_run(db->lint, steps)) {
        model_lint_finish(db->lint);
        trunk_lint_all(db->model);
        model_lint_destroy(db->lint);
        db->lint = NULL;
    }
}

void
pool_db_lint(struct pool_db *db)
{
    run_lint(db, SIZE_MAX);
}

/* The first controller of a new database makes its Pool. */
static void
ensure_pool(struct pool_db *db)
{
    const struct ovsdb_idl_row *row;
    struct ovsdb_idl_txn *txn;
    struct rec r;

    if (!db->good || pool_row(db) || !ovsdb_idl_has_ever_connected(db->idl) || db->status_txn ||
        db->apply_txn) {
        return;
    }
    txn = ovsdb_idl_txn_create(db->idl);
    row = ovsdb_idl_txn_insert(txn, pool_row_table(REC_POOL), NULL);
    rec_init(&r, REC_POOL);
    free(r.name);
    r.name = strdup("pool");
    pool_row_write(row, NULL, &r);
    pool_row_set_int(row, REC_POOL, "generation", 1);
    rec_destroy(&r);
    db->status_txn = txn;
}

/* --- status, from the model to the database -------------------------------------------------- */

static void
send_status(struct pool_db *db)
{
    struct pool_status writes;
    struct ovs_list *node;

    /* Keys are of a count that a change in flight moves, too. */
    if (db->status_txn || db->apply_txn || !pool_row(db) || ovs_list_is_empty(&db->model->status) ||
        time_msec() < db->status_due || !pool_db_connected(db)) {
        return;
    }
    writes = (struct pool_status){
        .model = db->model,
        .pool = pool_row(db),
        .key_next = &db->key_next,
        .zone_next = &db->zone_next,
        .shared = db->shared,
        .quiet = db->quiet,
        .warns_of_vifs = pool_row_has(db->idl, REC_VIF, "warning"),
    };
    db->status_txn = ovsdb_idl_txn_create(db->idl);
    fence_verify(db->idl);
    db->n_sent = 0;
    while (!ovs_list_is_empty(&db->model->status)) {
        struct model_obj *obj;
        const struct ovsdb_idl_row *row;

        node = ovs_list_pop_front(&db->model->status);
        ovs_list_init(node);
        obj = CONTAINER_OF(node, struct model_obj, status_node);
        row = pool_row_find(db->idl, obj->kind, &obj->uuid);
        if (!row || !obj->present) {
            continue;
        }
        pool_status_write(&writes, obj, row);
        if (db->n_sent == db->cap_sent) {
            db->sent = x2nrealloc(db->sent, &db->cap_sent, sizeof *db->sent);
        }
        db->sent[db->n_sent++] = (struct status_sent){obj->kind, obj->uuid};
    }
    db->status_due = time_msec() + STATUS_INTERVAL_MS;
}

static void
run_status(struct pool_db *db)
{
    enum ovsdb_idl_txn_status status;

    if (!db->status_txn) {
        return;
    }
    status = ovsdb_idl_txn_commit(db->status_txn);
    if (status == TXN_INCOMPLETE) {
        return;
    }
    if (status != TXN_SUCCESS && status != TXN_UNCHANGED) {
        if (status == TXN_ERROR) {
            static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(5, 5);

            VLOG_WARN_RL(&rl, "cannot write status: %s", ovsdb_idl_txn_get_error(db->status_txn));
        }
        for (size_t i = 0; i < db->n_sent; i++) {
            struct model_obj *obj = model_find(db->model, db->sent[i].kind, &db->sent[i].uuid);

            if (obj) {
                model_note(db->model, obj);
            }
        }
        sync_pool(db);
        db->status_due = time_msec() + 10 * STATUS_INTERVAL_MS;
    }
    ovsdb_idl_txn_destroy(db->status_txn);
    db->status_txn = NULL;
    db->n_sent = 0;
}

/* --- changes of what is stated ---------------------------------------------------------------- */

static bool
read_row(void *db_, enum rec_kind kind, const struct uuid *uuid, struct rec *r)
{
    struct pool_db *db = db_;
    const struct ovsdb_idl_row *row =
        kind == REC_POOL ? pool_row(db) : pool_row_find(db->idl, kind, uuid);

    if (row) {
        pool_row_read(row, kind, r);
    }
    return row;
}

struct model *
pool_db_aside(struct pool_db *db, const struct doc *doc, struct doc_errors *errors)
{
    struct model *aside = NULL;
    struct plan *plan;

    if (!db->ready) {
        doc_errors_add(errors, "", "", "the pool database has not been read yet");
        return NULL;
    }
    stop_lint(db); /* a trial moves what it points to */
    plan = plan_create(db->model, doc, PLAN_REPLACE, read_row, db, errors);
    if (plan) {
        plan->key_next = db->key_next;
        plan->zone_next = db->zone_next;
        if (plan_give_keys(db->model, plan, errors) && plan_try(db->model, plan, errors, NULL)) {
            aside = plan_model(db->model, plan, read_row, db);
        }
    }
    plan_free(plan);
    return aside;
}

static void
write_ops(struct pool_db *db, struct ovsdb_idl_txn *txn, const struct plan *plan)
{
    for (size_t i = 0; i < plan->n; i++) {
        const struct plan_op *op = &plan->ops[i];
        enum rec_kind kind = op->what == PLAN_CREATE ? op->after.kind : op->before.kind;
        const struct ovsdb_idl_row *row;

        if (op->what == PLAN_CREATE) {
            row = ovsdb_idl_txn_insert_persist_uuid(txn, pool_row_table(kind), &op->uuid);
            pool_row_write(row, NULL, &op->after);
            continue;
        }
        row = kind == REC_POOL ? pool_row(db) : pool_row_find(db->idl, kind, &op->uuid);
        if (op->what == PLAN_CHANGE) {
            pool_row_write(row, &op->before, &op->after);
        } else {
            ovsdb_idl_txn_delete(row);
        }
    }
}

static void
send_apply(struct pool_db *db, struct apply *apply, const struct plan *plan)
{
    struct ovsdb_idl_txn *txn = ovsdb_idl_txn_create(db->idl);
    const struct ovsdb_idl_row *pool = pool_row(db);

    fence_verify(db->idl);
    /* What the plan was made from is what it is written on.  A commit that changes nothing has
     * the same generation, and may wait for its confirmation nevertheless.  Before anything is
     * set: what has been is not verified. */
    pool_row_verify(pool, REC_POOL, "generation");
    pool_row_verify(pool, REC_POOL, "pending_deadline");
    write_ops(db, txn, plan);
    if (plan->key_next != db->key_next || plan->zone_next != db->zone_next) {
        pool_row_verify(pool, REC_POOL, "key_next");
        pool_row_verify(pool, REC_POOL, "zone_next");
        pool_row_set_int(pool, REC_POOL, "key_next", plan->key_next);
        pool_row_set_int(pool, REC_POOL, "zone_next", plan->zone_next);
    }
    if (apply->has_pending) {
        pool_row_set_string(pool, REC_POOL, "pending_rollback", apply->pending_document);
        pool_row_set_string(pool, REC_POOL, "pending_author", apply->pending_author);
        pool_row_set_int(pool, REC_POOL, "pending_deadline", apply->pending_deadline);
    }
    apply->generation = db->model->generation;
    if (plan->n) {
        pool_row_set_int(pool, REC_POOL, "generation", ++apply->generation);
    }
    db->apply_txn = txn;
}

/* Starts the first one; false if it is in flight or nothing can be done now. */
static bool
start_apply(struct pool_db *db)
{
    static const enum plan_mode modes[] = {
        [POOL_REPLACE] = PLAN_REPLACE, [POOL_MERGE] = PLAN_MERGE, [POOL_RESTORE] = PLAN_RESTORE};
    struct doc_errors errors = {NULL, 0, false};
    struct apply *apply;
    struct plan *plan;

    if (db->apply_txn || ovs_list_is_empty(&db->applies)) {
        return false;
    }
    apply = CONTAINER_OF(ovs_list_front(&db->applies), struct apply, node);
    if (apply->copy_until) {
        return false;
    }
    if (!db->ready || !pool_db_connected(db)) {
        doc_errors_add(&errors, "", "", "there is no connection to the pool database");
        finish(db, EAGAIN, &errors, db->model->generation);
        doc_errors_clear(&errors);
        return true;
    }
    /* Status may carry keys. */
    if (db->status_txn || (time_msec() < db->retry_due && db->seqno == db->retry_seqno)) {
        return false;
    }
    if (apply->ask) {
        doc_free(apply->doc);
        apply->doc = apply->ask(apply->aux, &errors);
        if (!apply->doc) {
            finish(db, EINVAL, &errors, db->model->generation);
            doc_errors_clear(&errors);
            return true;
        }
    }
    stop_lint(db); /* a trial moves what it points to */
    if (apply->restores) {
        restore_prepare(db->model, apply->doc, read_row, db);
    }
    plan = plan_create(db->model, apply->doc, modes[apply->mode], read_row, db, &errors);
    if (plan) {
        plan->key_next = db->key_next;
        plan->zone_next = db->zone_next;
    }
    if (!plan || !plan_give_keys(db->model, plan, &errors) ||
        !plan_try(db->model, plan, &errors, apply->check_only ? &apply->warnings : NULL)) {
        if (apply->mode == POOL_RESTORE && !restore_has_uuids(apply->doc)) {
            /* What has come meanwhile does not go with what was before.  Others' VMs are
             * not ours to delete, but an older controller's document says too little. */
            VLOG_WARN("restored without what weft-xapid has made since: %s: %s: %s",
                      errors.e[0].object, errors.e[0].field, errors.e[0].message);
            apply->mode = POOL_REPLACE;
        } else {
            finish(db, EINVAL, &errors, db->model->generation);
        }
        doc_errors_clear(&errors);
        plan_free(plan);
        return true;
    }
    memset(apply->counts, 0, sizeof apply->counts);
    for (size_t i = 0; i < plan->n; i++) {
        apply->counts[plan->ops[i].what]++;
    }
    if (apply->check_only) {
        finish(db, 0, NULL, db->model->generation);
        plan_free(plan);
        return true;
    }
    if (!plan->n && !apply->has_pending) {
        /* As the database has it; the copy perhaps not yet. */
        apply->generation = db->model->generation;
        apply->copy_until = time_msec() + COPY_TIMEOUT_MS;
        plan_free(plan);
        return true;
    }
    if (apply->pends) {
        free(apply->pending_document);
        apply->pending_document = pool_db_before(db, plan);
    }
    send_apply(db, apply, plan);
    plan_free(plan);
    return true;
}

/* The first one is written and waits for the copy of the database. */
static bool
run_copy(struct pool_db *db)
{
    struct doc_errors errors = {NULL, 0, false};
    struct apply *apply;
    int64_t deadline;

    if (ovs_list_is_empty(&db->applies)) {
        return false;
    }
    apply = CONTAINER_OF(ovs_list_front(&db->applies), struct apply, node);
    if (!apply->copy_until) {
        return false;
    }
    deadline = apply->has_pending ? apply->pending_deadline : db->pending.deadline_ms;
    if (pool_copy_has(db->copy, apply->generation, deadline)) {
        finish(db, 0, NULL, apply->generation);
        return true;
    }
    if (time_msec() < apply->copy_until) {
        return false;
    }
    doc_errors_add(&errors, "", "", "written, but the pool database's copy has not confirmed it");
    finish(db, EAGAIN, &errors, db->model->generation);
    doc_errors_clear(&errors);
    return true;
}

/* False while it is in flight. */
static bool
run_apply(struct pool_db *db)
{
    struct doc_errors errors = {NULL, 0, false};
    enum ovsdb_idl_txn_status status;
    struct apply *apply;

    if (!db->apply_txn) {
        return false;
    }
    status = ovsdb_idl_txn_commit(db->apply_txn);
    if (status == TXN_INCOMPLETE) {
        return false;
    }
    apply = CONTAINER_OF(ovs_list_front(&db->applies), struct apply, node);
    if (status == TXN_ERROR) {
        doc_errors_add(&errors, "", "", "the pool database refused: %s",
                       ovsdb_idl_txn_get_error(db->apply_txn));
    }
    ovsdb_idl_txn_destroy(db->apply_txn);
    db->apply_txn = NULL;
    if (status == TXN_TRY_AGAIN && ++apply->tries < MAX_TRIES) {
        db->retry_seqno = db->seqno;
        db->retry_due = time_msec() + RETRY_MS;
        apply->mode = apply->restores ? POOL_RESTORE : apply->mode;
        return true;
    }
    db->retry_due = 0;
    if (status == TXN_SUCCESS || status == TXN_UNCHANGED) {
        apply->copy_until = time_msec() + COPY_TIMEOUT_MS;
    } else {
        if (!errors.n) {
            doc_errors_add(&errors, "", "", "others kept changing the pool meanwhile");
        }
        finish(db, status == TXN_ERROR ? EIO : EAGAIN, &errors, db->model->generation);
    }
    doc_errors_clear(&errors);
    return true;
}

static void
run_applies(struct pool_db *db)
{
    if (db->applying) {
        return;
    }
    db->applying = true;
    while (run_apply(db) || run_copy(db) || start_apply(db)) {
        continue;
    }
    db->applying = false;
}

static void
add_apply(struct pool_db *db, struct doc *doc, pool_ask *ask, enum pool_apply_mode mode,
          bool check_only, const struct pool_pending *pending, pool_done *done, void *aux)
{
    struct apply *apply = xzalloc(sizeof *apply);

    apply->doc = doc;
    apply->ask = ask;
    apply->mode = mode;
    apply->restores = mode == POOL_RESTORE;
    apply->check_only = check_only;
    apply->has_pending = pending;
    apply->pends = pending && !pending->document;
    apply->pending_document = xstrdup(pending && pending->document ? pending->document : "");
    apply->pending_author = xstrdup(pending && pending->author ? pending->author : "");
    apply->pending_deadline = pending ? pending->deadline_ms : 0;
    apply->done = done;
    apply->aux = aux;
    ovs_list_push_back(&db->applies, &apply->node);
    run_applies(db);
}

void
pool_db_apply(struct pool_db *db, struct doc *doc, enum pool_apply_mode mode, bool check_only,
              const struct pool_pending *pending, pool_done *done, void *aux)
{
    add_apply(db, doc, NULL, mode, check_only, pending, done, aux);
}

void
pool_db_apply_asked(struct pool_db *db, pool_ask *ask, enum pool_apply_mode mode, bool check_only,
                    const struct pool_pending *pending, pool_done *done, void *aux)
{
    add_apply(db, NULL, ask, mode, check_only, pending, done, aux);
}

const struct pool_pending *
pool_db_pending(struct pool_db *db)
{
    db->pending.document = db->pending_document;
    db->pending.author = db->pending_author;
    return &db->pending;
}

/* --- the loop ------------------------------------------------------------------------------------
 */

void
pool_db_run(struct pool_db *db)
{
    ovsdb_idl_run(db->idl);
    pool_copy_run(db->copy);
    db->good = fence_good(db->idl, &db->link, "pool");
    sync_model(db);
    show_others(db);
    run_status(db);
    run_applies(db);
    ensure_pool(db);
    if (db->lint || time_msec() >= db->lint_due) {
        run_lint(db, LINT_STEPS);
    }
    send_status(db);
    run_status(db);
}

void
pool_db_wait(struct pool_db *db)
{
    ovsdb_idl_wait(db->idl);
    fence_wait(&db->link);
    pool_copy_wait(db->copy);
    if (db->status_txn) {
        ovsdb_idl_txn_wait(db->status_txn);
    } else if (!ovs_list_is_empty(&db->model->status) && !db->apply_txn && pool_db_connected(db) &&
               pool_row(db)) {
        poll_timer_wait_until(db->status_due);
    }
    if (db->lint) {
        poll_immediate_wake();
    } else if (db->lint_due) {
        poll_timer_wait_until(db->lint_due);
    }
    if (db->apply_txn) {
        ovsdb_idl_txn_wait(db->apply_txn);
    } else if (!ovs_list_is_empty(&db->applies) && !db->status_txn) {
        struct apply *apply = CONTAINER_OF(ovs_list_front(&db->applies), struct apply, node);

        poll_timer_wait_until(apply->copy_until ? apply->copy_until : db->retry_due);
    }
}

void
pool_db_close(struct pool_db *db)
{
    struct doc_errors errors = {NULL, 0, false};

    if (!db) {
        return;
    }
    doc_errors_add(&errors, "", "", "the controller is stopping");
    db->applying = true;
    if (db->apply_txn) {
        ovsdb_idl_txn_destroy(db->apply_txn);
    }
    while (!ovs_list_is_empty(&db->applies)) {
        finish(db, EAGAIN, &errors, db->model->generation);
    }
    doc_errors_clear(&errors);
    if (db->status_txn) {
        ovsdb_idl_txn_destroy(db->status_txn);
    }
    model_lint_destroy(db->lint);
    pool_copy_destroy(db->copy);
    ovsdb_idl_destroy(db->idl);
    free(db->pending_document);
    free(db->pending_author);
    free(db->link.remote);
    free(db->sent);
    free(db);
}

bool
pool_db_ready(const struct pool_db *db)
{
    return db->ready;
}

bool
pool_db_connected(const struct pool_db *db)
{
    return db->good && ovsdb_idl_is_connected(db->idl);
}

void
pool_db_share(struct pool_db *db, bool leads)
{
    bool quiet = !leads;
    struct model_obj *obj;

    db->shared = true;
    if (db->quiet == quiet) {
        return;
    }
    db->quiet = quiet;
    for (int k = 0; k < REC_N_KINDS && !quiet; k++) {
        MODEL_FOR_EACH (obj, db->model, k) {
            model_note(db->model, obj);
        }
    }
}

struct ovsdb_idl *
pool_db_idl(struct pool_db *db)
{
    return db->idl;
}

struct model *
pool_db_model(struct pool_db *db)
{
    return db->model;
}
