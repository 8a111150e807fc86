/* rest_fake: a pool in memory behind a REST server, and a thread that is its
 * main loop.  The lists are only touched by that thread once it runs. */
#ifndef REST_FAKE_H
#define REST_FAKE_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "rest.h"
#include "rest_client.h"

struct fake {
    json_t *objects; /* {noun: [object, ...]} */
    int64_t generation;
    int64_t pending_ms;
    json_t *before;          /* the unconfirmed commit */
    _Atomic int64_t applied; /* what the hosts have applied */
    atomic_bool unknown;     /* what stands */
    atomic_int submitted;    /* and not refused */
    /* What another controller has done by the time that the next change is decided: an edit. */
    _Atomic(json_t *) meanwhile;
    atomic_bool hold; /* the next change is not decided until this is no more */
    atomic_bool holds;
    struct rest_txn *held;
    struct rest *rest;
    pthread_t thread;
    atomic_bool stop;
};

static inline bool
fake_named(const struct pool_class *class, const json_t *o, const char *name)
{
    const char *own = json_string_value(json_object_get(o, "name"));
    const char *uuid = json_string_value(json_object_get(o, "uuid"));
    const char *in = class->within ? json_string_value(json_object_get(o, class->within)) : NULL;
    char full[300];

    snprintf(full, sizeof full, "%s%s%s", in ? in : "", in ? "/" : "", own ? own : "");
    return !strcmp(full, name) || (uuid && !strcmp(uuid, name));
}

static inline size_t
fake_find(struct fake *f, const struct pool_class *class, const char *name)
{
    json_t *list = json_object_get(f->objects, class->noun), *o;
    size_t i;

    json_array_foreach(list, i, o)
    {
        if (class->single || fake_named(class, o, name)) {
            return i;
        }
    }
    return SIZE_MAX;
}

static inline bool
fake_ready(void *f)
{
    return !atomic_load(&((struct fake *)f)->unknown);
}

static inline int64_t
fake_generation(void *f)
{
    return ((struct fake *)f)->generation;
}

static inline json_t *
fake_object(void *f_, const struct pool_class *class, const char *name)
{
    struct fake *f = f_;
    json_t *list = json_object_get(f->objects, class->noun);

    return json_deep_copy(json_array_get(list, fake_find(f, class, name)));
}

static inline json_t *
fake_list(void *f_, const struct pool_class *class)
{
    struct fake *f = f_;
    json_t *list = json_object_get(f->objects, class->noun);

    return list ? json_deep_copy(list) : json_array();
}

static inline json_t *
fake_export(void *f_)
{
    json_t *doc = json_pack("{s:i}", "version", 1);

    for (size_t i = 0; i < n_pool_classes; i++) {
        json_object_set_new(doc, pool_classes[i].plural, fake_list(f_, &pool_classes[i]));
    }
    return doc;
}

static inline json_t *
fake_check(void *f)
{
    return json_pack("{s:[], s:[{s:s, s:s}]}", "errors", "warnings", "object", "rule base/ssh",
                     "message", "unreachable");
}

static inline json_t *
fake_trace(void *f, const json_t *question, struct rest_fault *fault)
{
    const char *from = json_string_value(json_object_get(question, "from"));

    if (!from) {
        rest_fault_set(fault, 422, "invalid", "trace", "from", "must be given");
        return NULL;
    }
    return json_pack("{s:s}", "verdict", "delivered");
}

static inline json_t *
fake_cookie(void *f, const char *cookie, struct rest_fault *fault)
{
    if (strncmp(cookie, "0x", 2) != 0) {
        rest_fault_set(fault, 422, "invalid", NULL, "cookie", "is no number");
        return NULL;
    }
    return json_pack("{s:s, s:s, s:s}", "cookie", cookie, "kind", "rule", "from", "rule base/ssh");
}

static inline json_t *
fake_sample(void *f, unsigned seconds)
{
    return json_pack("{s:i, s:i}", "hosts", 3, "seconds", (int)seconds);
}

static inline json_t *
fake_samples(void *f)
{
    return json_pack("{s:[]}", "flows");
}

static inline json_t *
fake_log(void *f, int64_t after)
{
    return json_pack("{s:[], s:I}", "entries", "last", (json_int_t)after);
}

static inline json_t *
fake_status(void *f)
{
    return json_pack("{s:I}", "generation", (json_int_t)((struct fake *)f)->generation);
}

/* Users name it, too. */
static inline void
fake_rename_tenant(struct fake *f, const char *name, const json_t *values)
{
    json_t *fresh = json_object_get(values, "name"), *user;
    size_t i;

    json_array_foreach(json_object_get(f->objects, "user"), i, user)
    {
        const char *tenant = json_string_value(json_object_get(user, "tenant"));

        if (fresh && tenant && !strcmp(tenant, name)) {
            json_object_set(user, "tenant", fresh);
        }
    }
}

static inline void
fake_edit(struct fake *f, json_t *edit)
{
    const struct pool_class *class =
        pool_class_by_noun(json_string_value(json_object_get(edit, "class")));
    const char *op = json_string_value(json_object_get(edit, "op"));
    const char *name = json_string_value(json_object_get(edit, "name"));
    json_t *list = json_object_get(f->objects, class->noun);
    size_t at = fake_find(f, class, name ? name : "");

    if (!list) {
        list = json_array();
        json_object_set_new(f->objects, class->noun, list);
    }
    if (!strcmp(op, "remove")) {
        json_array_remove(list, at);
    } else if (!strcmp(op, "set")) {
        if (!strcmp(class->noun, "tenant")) {
            fake_rename_tenant(f, name, json_object_get(edit, "values"));
        }
        json_object_update(json_array_get(list, at), json_object_get(edit, "values"));
    } else {
        json_array_append_new(list, json_deep_copy(json_object_get(edit, "values")));
    }
}

static inline void
fake_submit(void *f_, struct rest_txn *txn)
{
    struct fake *f = f_;
    json_t *edit, *meanwhile = atomic_exchange(&f->meanwhile, NULL);
    struct rest_fault fault;
    size_t i;

    if (atomic_load(&f->hold)) {
        f->held = txn;
        atomic_store(&f->holds, true);
        return;
    }
    if (meanwhile) {
        fake_edit(f, meanwhile);
        f->generation++;
        json_decref(meanwhile);
    }
    if (!txn->decide(txn, &fault)) {
        txn->done(txn, &fault, 0);
        return;
    }
    atomic_fetch_add(&f->submitted, 1);
    if (txn->kind == REST_CHECK) {
        txn->report = fake_check(f);
        txn->done(txn, NULL, 0);
        return;
    }
    if (txn->confirm_s) {
        json_decref(f->before);
        f->before = fake_export(f);
    }
    if (txn->kind == REST_EDIT) {
        json_array_foreach(txn->body, i, edit)
        {
            const char *tag = json_string_value(
                json_object_get(json_object_get(edit, "values"), "encapsulation"));
            if (tag && !strcmp(tag, "pigeon")) {
                rest_fault_set(&fault, 422, "invalid", "network blue", "encapsulation",
                               "must be vxlan, geneve or gre");
                txn->done(txn, &fault, 0);
                return;
            }
        }
        json_array_foreach(txn->body, i, edit)
        {
            fake_edit(f, edit);
        }
    }
    f->pending_ms = txn->confirm_s ? 1 : 0;
    txn->done(txn, NULL, ++f->generation);
}

static inline bool
fake_applied(void *f_, int64_t generation, json_t *waiting)
{
    struct fake *f = f_;
    bool applied = atomic_load(&f->applied) >= generation;

    if (!applied && waiting) {
        json_array_append_new(waiting, json_string("h1"));
    }
    return applied;
}

static inline void
fake_absent(void *f, json_t *names)
{
    json_array_append_new(names, json_string("h2"));
}

static inline int64_t
fake_pending(void *f)
{
    return ((struct fake *)f)->pending_ms;
}

static inline json_t *
fake_pending_document(void *f)
{
    return json_incref(((struct fake *)f)->before);
}

static const struct rest_ops fake_ops = {
    .ready = fake_ready,
    .generation = fake_generation,
    .list = fake_list,
    .object = fake_object,
    .status = fake_status,
    .export = fake_export,
    .check = fake_check,
    .trace = fake_trace,
    .cookie = fake_cookie,
    .log = fake_log,
    .sample = fake_sample,
    .samples = fake_samples,
    .shadow = fake_trace,
    .capture = fake_trace,
    .captured = fake_log,
    .submit = fake_submit,
    .applied = fake_applied,
    .absent = fake_absent,
    .pending = fake_pending,
    .pending_document = fake_pending_document,
};

static inline void *
fake_loop(void *f_)
{
    struct fake *f = f_;

    while (!atomic_load(&f->stop)) {
        struct pollfd p = {rest_fd(f->rest), POLLIN, 0};
        int ms = rest_timeout_ms(f->rest);
        poll(&p, 1, ms < 0 || ms > 50 ? 50 : ms);
        rest_run(f->rest);
        if (f->held && !atomic_load(&f->hold)) {
            struct rest_txn *txn = f->held;
            f->held = NULL;
            atomic_store(&f->holds, false);
            fake_submit(f, txn);
        }
    }
    return NULL;
}

static inline int
fake_start(struct fake *f, struct rest_config *config, const char *objects)
{
    char why[400];
    int error;

    memset(f, 0, sizeof *f);
    f->objects = json_loads(objects, 0, NULL);
    f->generation = 1;
    atomic_store(&f->applied, 1);
    config->ops = &fake_ops;
    config->aux = f;
    error = rest_create(config, &f->rest, why, sizeof why);
    if (error) {
        printf("# %s\n", why);
        json_decref(f->objects);
        return error;
    }
    return pthread_create(&f->thread, NULL, fake_loop, f);
}

static inline void
fake_stop(struct fake *f)
{
    atomic_store(&f->stop, true);
    pthread_join(f->thread, NULL);
    rest_destroy(f->rest);
    json_decref(f->objects);
    json_decref(f->before);
}

#endif
