/* export: see export.h. */
#include "export.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "export_collector.h"
#include "tls.h"

#define REFRESH_S 60u
#define LINGER_MS 200u /* a message waits so long to be filled */

/* Which file it was. */
struct stamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec changed;
};

struct export
{
    struct export_message message;  /* flows, being gathered */
    struct export_message options;  /* templates and options */
    uint64_t started;               /* when the first record came into 'message' */
    uint64_t refresh_ms, refreshed; /* over UDP */
    struct tls_config *tls;
    struct stamp stamps[3]; /* of its files */
    unsigned n;
    struct export_collector *collectors[EXPORT_COLLECTORS_MAX];
    bool wants[EXPORT_COLLECTORS_MAX]; /* templates, before anything else */
    struct export_interface *interfaces;
    size_t n_interfaces;
    bool interfaces_changed;
    struct export_losses losses;
    _Atomic uint64_t records, messages, bytes, not_v5;
};

static uint64_t
unix_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * UINT64_C(1000) + t.tv_nsec / 1000000;
}

static void
take_stamps(const struct export_config *c, struct stamp stamps[3])
{
    const char *const files[3] = {c->key, c->certificate, c->ca};

    memset(stamps, 0, 3 * sizeof *stamps);
    for (int i = 0; i < 3; i++) {
        struct stat st;

        if (!stat(files[i], &st)) {
            stamps[i].dev = st.st_dev;
            stamps[i].ino = st.st_ino;
            stamps[i].size = st.st_size;
            stamps[i].changed = st.st_mtim;
        }
    }
}

static int
load_tls(struct export *e, const struct export_config *c, char *why, size_t why_size)
{
    struct tls_config *fresh;
    struct stamp stamps[3];
    int error;

    take_stamps(c, stamps); /* before they are read: who comes between is seen next time */
    error = tls_config_create(c->key, c->certificate, c->ca, NULL, &fresh, why, why_size);
    if (error) {
        return error;
    }
    for (unsigned i = 0; i < e->n; i++) {
        export_collector_set_tls(e->collectors[i], fresh);
    }
    tls_config_destroy(e->tls); /* open connections hold on to it */
    e->tls = fresh;
    memcpy(e->stamps, stamps, sizeof stamps);
    return 0;
}

int
export_add(struct export *e, const struct export_config *c, const char *target, char *why,
           size_t why_size)
{
    bool wants_tls =
        !e->tls && !strncmp(target, "tls:", 4) && c->key[0] && c->certificate[0] && c->ca[0];
    int error = 0;

    snprintf(why, why_size, "no memory");
    if (e->n == EXPORT_COLLECTORS_MAX) {
        snprintf(why, why_size, "there are %u collectors already", e->n);
        return E2BIG;
    }
    if (wants_tls) {
        error = load_tls(e, c, why, why_size);
    }
    if (!error) {
        error = export_collector_create(target, c, e->tls, &e->collectors[e->n], why, why_size);
    }
    e->n += !error;
    return error;
}

int
export_create(const struct export_config *c, struct export **ep, char *why, size_t why_size)
{
    struct export *e = calloc(1, sizeof *e);
    int error = 0;

    snprintf(why, why_size, "no memory");
    if (!e) {
        return ENOMEM;
    }
    e->message.version = c->version;
    e->message.domain = c->domain;
    e->message.mediator = c->mediator && c->version == EXPORT_IPFIX;
    e->message.sampling = c->sampling ? c->sampling : 1;
    e->message.boot = unix_ms() - 3600000; /* records may be older than we are */
    e->options = e->message;
    export_message_start(&e->message);
    e->refresh_ms = (c->refresh_s ? c->refresh_s : REFRESH_S) * UINT64_C(1000);
    for (unsigned i = 0; i < c->n_targets && !error; i++) {
        error = export_add(e, c, c->targets[i], why, why_size);
    }
    if (error) {
        export_destroy(e);
        return error;
    }
    *ep = e;
    return 0;
}

int
export_reload_tls(struct export *e, const struct export_config *c, char *why, size_t why_size)
{
    return e->tls ? load_tls(e, c, why, why_size) : 0;
}

int
export_renew_tls(struct export *e, const struct export_config *c, bool *renewed, char *why,
                 size_t why_size)
{
    struct stamp stamps[3];
    int error;

    *renewed = false;
    if (!e->tls) { /* the files may be where looking takes long */
        return 0;
    }
    take_stamps(c, stamps);
    if (!memcmp(stamps, e->stamps, sizeof stamps)) {
        return 0;
    }
    error = load_tls(e, c, why, why_size);
    *renewed = !error;
    return error;
}

/* --- sending --------------------------------------------------------------------- */

/* To those in 'to'; resets the message. */
static void
send_to(struct export *e, struct export_message *m, const bool *to, uint64_t now)
{
    if (!export_message_is_empty(m)) {
        export_message_end(m, now);
        atomic_fetch_add(&e->messages, 1);
        atomic_fetch_add(&e->bytes, m->len);
        for (unsigned i = 0; i < e->n; i++) {
            if (!to || to[i]) {
                export_collector_send(e->collectors[i], m);
            }
        }
    }
    export_message_start(m);
}

static void
tell_options(struct export *e, const bool *templates, const bool *to, uint64_t now)
{
    struct export_message *m = &e->options;
    struct export_stats stats;
    bool done = false;

    export_message_start(m);
    if (m->version == EXPORT_V5) {
        return;
    }
    export_message_templates(m);
    send_to(e, m, templates, now);
    export_message_sampling(m);
    export_stats(e, &stats);
    export_message_statistics(m, &stats, &e->losses);
    for (size_t i = 0; i < e->n_interfaces; i++) {
        if (!export_message_interface(m, &e->interfaces[i])) {
            send_to(e, m, to, now);
            export_message_interface(m, &e->interfaces[i]);
        }
    }
    for (unsigned i = 0; !done; i++) {
        if (!export_message_describe(m, i, &done)) {
            send_to(e, m, to, now);
            export_message_describe(m, i, &done);
        }
    }
    send_to(e, m, to, now);
}

/* Templates to who is new, and to all over UDP whenever it is time. */
static void
refresh(struct export *e, uint64_t now)
{
    bool due = now - e->refreshed >= e->refresh_ms || now < e->refreshed, any = false;
    bool to[EXPORT_COLLECTORS_MAX] = {false}, templates[EXPORT_COLLECTORS_MAX] = {false};

    for (unsigned i = 0; i < e->n; i++) {
        to[i] = e->wants[i] || e->interfaces_changed || due;
        any |= to[i];
        /* A stream's are known for as long as it lasts. */
        templates[i] = e->wants[i] || (due && !export_collector_is_stream(e->collectors[i]));
        e->wants[i] = false;
    }
    e->interfaces_changed = false;
    if (due) {
        e->refreshed = now;
    }
    if (any) {
        tell_options(e, templates, to, now);
    }
}

static void
send_flows(struct export *e, uint64_t now)
{
    refresh(e, now);
    send_to(e, &e->message, NULL, now);
}

static void
run_collectors(struct export *e, uint64_t now)
{
    for (unsigned i = 0; i < e->n; i++) {
        e->wants[i] |= export_collector_run(e->collectors[i], now);
    }
}

/* What fits a message.  False: the version has no form for it. */
static bool
tell(struct export *e, const struct flow_record *r, uint64_t now)
{
    bool empty = export_message_is_empty(&e->message), cannot;

    if (!export_message_flow(&e->message, r, &cannot)) {
        run_collectors(e, now);
        send_flows(e, now);
        empty = true;
        export_message_flow(&e->message, r, &cannot);
    }
    if (empty && !cannot) {
        e->started = now;
    }
    return !cannot;
}

void
export_original(struct export *e, const struct in6_addr *address, uint32_t domain)
{
    e->message.original = *address;
    e->message.original_domain = domain;
}

void
export_records(struct export *e, const struct flow_record *r, size_t n, uint64_t now)
{
    for (size_t i = 0; i < n; i++) {
        bool more = true, told = true;
        struct flow_record rest = r[i], part;

        while (more && told) {
            more = export_message_part(&e->message, &rest, &part);
            told = tell(e, &part, now);
        }
        atomic_fetch_add(told ? &e->records : &e->not_v5, 1);
    }
}

void
export_run(struct export *e, uint64_t now)
{
    run_collectors(e, now);
    refresh(e, now);
    if (!export_message_is_empty(&e->message) &&
        (now - e->started >= LINGER_MS || now < e->started)) {
        send_flows(e, now);
    }
    run_collectors(e, now); /* streams: what was queued */
}

void
export_destroy(struct export *e)
{
    if (e) {
        send_flows(e, unix_ms());
        for (unsigned i = 0; i < e->n; i++) {
            export_collector_destroy(e->collectors[i]);
        }
        tls_config_destroy(e->tls);
        free(e->interfaces);
        free(e);
    }
}

/* --- what is known ------------------------------------------------------------------ */

void
export_interfaces(struct export *e, const struct export_interface *i, size_t n)
{
    struct export_interface *copy = n ? malloc(n * sizeof *copy) : NULL;

    if (n == e->n_interfaces && (!n || !memcmp(i, e->interfaces, n * sizeof *i))) {
        free(copy);
        return;
    }
    if (n && !copy) {
        return;
    }
    if (n) {
        memcpy(copy, i, n * sizeof *copy);
    }
    free(e->interfaces);
    e->interfaces = copy;
    e->n_interfaces = n;
    e->interfaces_changed = true;
}

void
export_losses(struct export *e, const struct export_losses *l)
{
    e->losses = *l;
}

void
export_stats(const struct export *e, struct export_stats *s)
{
    *s = (struct export_stats){
        .records = atomic_load(&e->records),
        .messages = atomic_load(&e->messages),
        .bytes = atomic_load(&e->bytes),
        .not_v5 = atomic_load(&e->not_v5),
    };
    for (unsigned i = 0; i < e->n; i++) {
        struct export_collector_stats c;

        export_collector_get_stats(e->collectors[i], &c);
        s->dropped_messages += c.dropped_messages;
        s->dropped_records += c.dropped_records;
        s->dropped_packets += c.dropped_packets;
        s->dropped_bytes += c.dropped_bytes;
    }
}

size_t
export_n_collectors(const struct export *e)
{
    return e->n;
}

void
export_collector_stats(const struct export *e, size_t i, struct export_collector_stats *s)
{
    export_collector_get_stats(e->collectors[i], s);
}
