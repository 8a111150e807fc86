#include "sink_forward.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"
#include "receive.h"

#define DOMAIN 1u
#define AT_ONCE 64u

struct forward {
    struct export *export;
    struct export_config *config;
};

static bool
copy(char *to, size_t size, const char *from)
{
    return snprintf(to, size, "%s", from ? from : "") < (int)size;
}

int
forward_open(const char *const *targets, size_t n, const char *private_key, const char *certificate,
             const char *ca_cert, struct forward **out, char *why, size_t why_size)
{
    struct export_config *config = calloc(1, sizeof *config);
    struct forward *f = calloc(1, sizeof *f);
    bool fits = n <= EXPORT_COLLECTORS_MAX;
    int error;

    snprintf(why, why_size, "out of memory");
    if (!config || !f) {
        error = ENOMEM;
        goto fail;
    }
    config->version = EXPORT_IPFIX;
    config->domain = DOMAIN;
    config->sampling = 1;
    config->mediator = true;
    config->queue_bytes = EXPORT_QUEUE_DEFAULT;
    for (; fits && config->n_targets < n; config->n_targets++) {
        fits =
            copy(config->targets[config->n_targets], EXPORT_TARGET_MAX, targets[config->n_targets]);
    }
    fits = fits && copy(config->key, EXPORT_FILE_MAX, private_key) &&
           copy(config->certificate, EXPORT_FILE_MAX, certificate) &&
           copy(config->ca, EXPORT_FILE_MAX, ca_cert);
    snprintf(why, why_size, "too many collectors, or names too long");
    error = fits ? export_create(config, &f->export, why, why_size) : E2BIG;
    if (error) {
        goto fail;
    }
    f->config = config;
    *out = f;
    return 0;

fail:
    free(config);
    free(f);
    return error;
}

void
forward_close(struct forward *f)
{
    if (f) {
        export_destroy(f->export);
        free(f->config);
        free(f);
    }
}

int
forward_reload_tls(struct forward *f, char *why, size_t why_size)
{
    return export_reload_tls(f->export, f->config, why, why_size);
}

static uint64_t
multiply(uint64_t a, uint64_t b)
{
    uint64_t product;

    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

/* What passed, by the counters of one packet in so many. */
static void
unsample(struct flow_record *r)
{
    if (r->sampling > 1) {
        r->packets = multiply(r->packets, r->sampling);
        r->bytes = multiply(r->bytes, r->sampling);
    }
    r->sampling = 1;
}

static void
forward_records(void *f_, const struct flow_source *from, const struct flow_record *records,
                size_t n)
{
    struct forward *f = f_;
    struct flow_record some[AT_ONCE];
    uint64_t now_ms = receive_now_ms();

    export_original(f->export, &from->address, from->domain);
    while (n) {
        size_t count = n < AT_ONCE ? n : AT_ONCE;

        memcpy(some, records, count * sizeof some[0]);
        for (size_t i = 0; i < count; i++) {
            unsample(&some[i]);
        }
        export_records(f->export, some, count, now_ms);
        records += count;
        n -= count;
    }
}

struct flow_sink
forward_sink(struct forward *f)
{
    return (struct flow_sink){.context = f, .records = forward_records};
}

void
forward_run(struct forward *f, uint64_t now_ms)
{
    export_run(f->export, now_ms);
}
