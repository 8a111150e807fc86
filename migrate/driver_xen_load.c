/* driver_xen_load: the destination's end (driver_xen_priv.h). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "driver_xen_priv.h"
#include "xen_config.h"

enum {
    PIPE_BYTES = 1 << 20,
    SLACK_KB = 4096, /* that a configuration may have beyond what Xen says of the domain */
};

struct xen_load {
    struct xen_guest *g;
    struct xen_unpack *unpack;
    libxl_domain_config config;
    bool started; /* the toolstack's thread; it reads from then on */
    bool joined;
    pthread_t thread;
    int to, from;   /* the pipe: 'to' is ours, the toolstack's thread closes 'from' */
    int rc;         /* libxl's, written by its thread; read after joining it */
    uint32_t domid; /* likewise */
    char *why;      /* of the call that is under way */
};

/* --- the toolstack's thread ------------------------------------------------------------- */

static void *
load_thread(void *l_)
{
    struct xen_load *l = l_;
    libxl_domain_restore_params params;

    libxl_domain_restore_params_init(&params);
    params.checkpointed_stream = LIBXL_CHECKPOINTED_STREAM_NONE;
    params.stream_version = 2;
    l->domid = INVALID_DOMID;
    l->rc = libxl_domain_create_restore(l->g->ctx, &l->config, &l->domid, l->from, -1, &params,
                                        NULL, NULL);
    /* Who writes now gets EPIPE. */
    close(l->from);
    libxl_domain_restore_params_dispose(&params);
    return NULL;
}

static void
join(struct xen_load *l)
{
    if (l->started && !l->joined) {
        pthread_join(l->thread, NULL);
        l->joined = true;
        l->g->domid = l->rc ? (uint32_t)INVALID_DOMID : l->domid;
    }
}

/* --- the sink of what was unpacked ------------------------------------------------------- */

static int
refuse(struct xen_load *l, const char *what)
{
    xen_why(l->g, l->why, what);
    return EINVAL;
}

/* Whether it is the domain that was announced. */
static int
check_identity(struct xen_load *l)
{
    const libxl_domain_config *c = &l->config;
    libxl_domain_type type = l->g->pv ? LIBXL_DOMAIN_TYPE_PV : LIBXL_DOMAIN_TYPE_PVH;

    if (c->c_info.type != type || c->b_info.type != type ||
        libxl_uuid_compare(&c->c_info.uuid, &l->g->uuid)) {
        return refuse(l, "configuration of another domain");
    }
    return c->c_info.name ? 0 : refuse(l, "configuration without a name");
}

static int
set(char **to, const char *value)
{
    free(*to);
    *to = strdup(value);
    return *to ? 0 : ENOMEM;
}

/* By which program a vif is plugged in is this host's own, and so is where, if it says so. */
static int
own_vifs(struct xen_load *l)
{
    const struct xen_guest *g = l->g;
    int error = 0;

    for (int i = 0; !error && i < l->config.num_nics; i++) {
        libxl_device_nic *nic = &l->config.nics[i];

        error = set(&nic->script, g->script);
        if (!error && g->bridge) {
            error = set(&nic->bridge, g->bridge);
        }
    }
    return error;
}

/* Reads what the source sent, as far as it may say it. */
static int
read_config(struct xen_load *l, const char *text, size_t n)
{
    char *json, why[XEN_CONFIG_WHY];
    int error = xen_config_check(text, n, l->g->max_memkb + SLACK_KB, &json, why);

    if (error) {
        return error == EINVAL ? refuse(l, why) : error;
    }
    if (libxl_domain_config_from_json(l->g->ctx, &l->config, json)) {
        error = refuse(l, "a configuration that libxl does not read");
    }
    free(json);
    error = error ? error : own_vifs(l);
    return error ? error : check_identity(l);
}

static int
incoming_name(libxl_domain_config *c)
{
    size_t n = strlen(c->c_info.name), suffix = strlen(XEN_INCOMING);
    char *name;

    /* Once is enough for a domain that a killed migration left under this name. */
    if (n > suffix && !strcmp(c->c_info.name + n - suffix, XEN_INCOMING)) {
        return 0;
    }
    if (asprintf(&name, "%s" XEN_INCOMING, c->c_info.name) < 0) {
        return ENOMEM;
    }
    free(c->c_info.name);
    c->c_info.name = name;
    return 0;
}

static int
sink_config(void *l_, const char *text, size_t n)
{
    struct xen_load *l = l_;
    int pipe[2], error = read_config(l, text, n);

    error = error ? error : incoming_name(&l->config);
    if (!error && pipe2(pipe, O_CLOEXEC)) {
        error = errno;
    }
    if (error) {
        return error;
    }
    l->to = pipe[1];
    l->from = pipe[0];
    fcntl(l->to, F_SETPIPE_SZ, PIPE_BYTES); /* more is faster; less works, too */
    fcntl(l->to, F_SETFL, O_NONBLOCK);      /* of this end only */
    error = pthread_create(&l->thread, NULL, load_thread, l);
    if (error) {
        close(l->from);
    }
    l->started = !error;
    return error;
}

/* The toolstack gave up; its log says why. */
static int
toolstack_gone(struct xen_load *l)
{
    join(l);
    xen_why(l->g, l->why, "libxl does not take the domain");
    return EIO;
}

static int
sink_bytes(void *l_, const uint8_t *bytes, size_t n)
{
    struct xen_load *l = l_;
    struct pollfd fds[] = {{.fd = l->to, .events = POLLOUT},
                           {.fd = l->g->cancel_fd, .events = POLLIN}};

    while (n) {
        ssize_t done = write(l->to, bytes, n);

        if (done > 0) {
            bytes += done;
            n -= done;
        } else if (done < 0 && errno == EAGAIN) {
            poll(fds, 2, -1);
        } else if (done < 0 && errno == EPIPE) {
            return toolstack_gone(l);
        } else if (done < 0 && errno != EINTR) {
            return errno;
        }
        if (atomic_load(&l->g->cancelled)) {
            return ECANCELED;
        }
    }
    return 0;
}

/* --- the engine's side ------------------------------------------------------------------ */

int
xen_load_open(struct mig_guest *guest, char why[MIG_WHY])
{
    struct xen_guest *g = xen_guest_of(guest);
    struct xen_load *l = calloc(1, sizeof *l);
    struct xen_sink sink = {sink_config, sink_bytes, l};

    if (!l || g->load) {
        free(l);
        return l ? EINVAL : ENOMEM;
    }
    l->g = g;
    l->to = -1;
    libxl_domain_config_init(&l->config);
    if (xen_unpack_create(g->pv, g->pfn_limit, &sink, &l->unpack)) {
        libxl_domain_config_dispose(&l->config);
        free(l);
        snprintf(why, MIG_WHY, "no memory");
        return ENOMEM;
    }
    xen_log_clear(&g->log);
    g->load = l;
    return 0;
}

int
xen_load_put(struct mig_guest *guest, const uint8_t *bytes, size_t n, char why[MIG_WHY])
{
    struct xen_load *l = xen_guest_of(guest)->load;
    const char *what = "";
    int error;

    why[0] = '\0';
    if (!l || l->joined) {
        return EINVAL;
    }
    l->why = why;
    error = xen_unpack_chunk(l->unpack, bytes, n, &what);
    if (error && !why[0]) {
        snprintf(why, MIG_WHY, "%s", what);
    }
    return error;
}

int
xen_load_finish(struct mig_guest *guest, const uint8_t digest[MIG_DIGEST_BYTES], char why[MIG_WHY])
{
    struct xen_guest *g = xen_guest_of(guest);
    struct xen_load *l = g->load;
    const char *what = "";
    int error;

    why[0] = '\0';
    if (!l || !l->started || l->joined) {
        return EINVAL;
    }
    l->why = why;
    error = xen_unpack_finish(l->unpack, digest, &what);
    if (error) {
        snprintf(why, MIG_WHY, "%s", what);
        return error;
    }
    error = sink_bytes(l, xen_stream_end, sizeof xen_stream_end);
    if (error) {
        return error;
    }
    join(l);
    if (l->rc) {
        return toolstack_gone(l);
    }
    return xen_key_write(g, "loaded", 1);
}

void
xen_load_end(struct xen_guest *g)
{
    struct xen_load *l = g->load;

    if (!l) {
        return;
    }
    if (l->to >= 0) {
        close(l->to); /* libxl discards a domain whose stream ends early */
    }
    join(l);
    xen_unpack_destroy(l->unpack);
    libxl_domain_config_dispose(&l->config);
    free(l);
    g->load = NULL;
}
