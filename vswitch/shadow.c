/* Keeping the shadow's file: see shadow.h.
 *
 * Two files take turns.  While the predecessor's flows are in use their file
 * stays untouched, so that another kill in the middle finds it as it was; what
 * is put meanwhile goes to a second file, which takes the first one's place
 * when the predecessor's flows are retired. */
#include <config.h>

#include "shadow_file.h"

#include "shadow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "openvswitch/dynamic-string.h"
#include "openvswitch/vlog.h"
#include "smap.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(shadow);

struct shadow {
    char *path;
    struct shadow_file *file;
    uint64_t now;      /* see struct shadow_flow_record */
    uint32_t *ports;   /* slots by port number */
    size_t n_ports;    /* as far as 'ports' goes */
    uint64_t not_kept; /* flows there was no room for */
};

/* Main thread writes.  Whoever is at a datapath at that moment is done with it as before. */
static atomic_bool kept;

/* --- life ------------------------------------------------------------------------ */

static void
load(struct dp *dp, const char *path)
{
    struct shadow_image image;
    struct shadow_table *table;
    int error = shadow_image_load(path, SHADOW_KIND_FLOWS, SHADOW_LAYOUT, &image);

    if (error) {
        if (error != ENOENT) {
            VLOG_WARN("%s: not used: %s", path, ovs_strerror(error));
        }
        return;
    }
    table = shadow_table_create(&image);
    if (table) {
        VLOG_INFO("%s: %" PRIuSIZE " flows of the previous process", dp->name,
                  shadow_table_count(table));
        atomic_store_explicit(&dp->shadow_table, table, memory_order_release);
    }
}

void
shadow_open(struct dp *dp)
{
    char *name = xasprintf("flows-%s", dp->name);
    struct shadow *s = xzalloc(sizeof *s);
    char *new;

    s->path = shadow_path(name);
    free(name);
    load(dp, s->path);

    new = xasprintf("%s.new", s->path);
    s->file = shadow_file_create(new, SHADOW_KIND_FLOWS, SHADOW_LAYOUT);
    if (s->file) {
        if (!shadow_active(dp)) {
            shadow_file_rename(s->file, s->path);
        }
        dp->shadow = s;
    } else {
        VLOG_WARN("cannot create %s: %s; flows will not outlive this process", new,
                  ovs_strerror(errno));
        free(s->path);
        free(s);
    }
    free(new);
}

void
shadow_close(struct dp *dp)
{
    struct shadow_table *table =
        atomic_exchange_explicit(&dp->shadow_table, NULL, memory_order_acq_rel);
    struct shadow *s = dp->shadow;

    if (table) {
        shadow_table_destroy(table);
    }
    if (s) {
        char *new = xasprintf("%s.new", s->path);

        unlink(new);
        free(new);
        if (!kept) {
            unlink(s->path);
        }
        shadow_file_close(s->file);
        free(s->ports);
        free(s->path);
        free(s);
        dp->shadow = NULL;
    }
}

void
shadow_keep(void)
{
    kept = true;
}

void
shadow_retire(struct dp *dp)
{
    struct shadow_table *table =
        atomic_exchange_explicit(&dp->shadow_table, NULL, memory_order_acq_rel);

    if (table) {
        VLOG_INFO("%s: the flows of the previous process are retired", dp->name);
        epoch_defer(shadow_table_destroy, table);
        if (dp->shadow && !kept) {
            shadow_file_rename(dp->shadow->file, dp->shadow->path);
        }
    }
}

bool
shadow_kept(void)
{
    return kept;
}

/* --- flows ------------------------------------------------------------------------ */

static void
fill_flow(struct shadow_flow_record *r, const struct shadow *s, const struct dp_flow *flow,
          const struct dp_actions *da)
{
    const struct cls_rule *rule = &flow->fast.rule;
    size_t n = rule->n_words;
    uint16_t *idx = (uint16_t *)(r->words + 2 * n);

    r->type = SHADOW_FLOW;
    r->n_words = n;
    r->actions_len = da->len;
    r->made = s->now;
    memcpy(r->words, rule->mask, n * sizeof *rule->mask);
    memcpy(r->words + n, rule->value, n * sizeof *rule->value);
    memcpy(idx, rule->idx, n * sizeof *idx);
    memset(idx + n, 0, (ROUND_UP(n, 4) - n) * sizeof *idx);
    if (da->len) {
        memcpy(idx + ROUND_UP(n, 4), da->actions, da->len);
    }
}

void
shadow_flow_put(struct dp *dp, struct dp_flow *flow)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 1);
    struct shadow *s = dp->shadow;
    uint32_t old = flow->shadow_slot;
    const struct program *program;
    struct shadow_flow_record *r;
    size_t n, len;

    if (!s || kept) {
        return;
    }
    program = atomic_load_explicit(&flow->fast.program, memory_order_relaxed);
    const struct dp_actions *da = program->slow;
    n = flow->fast.rule.n_words;
    len = sizeof *r + n * 2 * sizeof r->words[0] + ROUND_UP(n, 4) * sizeof(uint16_t) + da->len;
    r = da->len <= UINT16_MAX ? shadow_file_reserve(s->file, len, &flow->shadow_slot) : NULL;
    if (r) {
        fill_flow(r, s, flow, da);
    } else {
        flow->shadow_slot = 0;
        s->not_kept++;
        VLOG_DBG_RL(&rl, "%s: no room for a flow in %s", dp->name, s->path);
    }
    /* Never two at a time: with none a successor drops, with both it might do
     * what was to end. */
    shadow_file_drop(s->file, old);
    if (r) {
        shadow_file_commit(s->file, flow->shadow_slot);
    }
}

void
shadow_flow_del(struct dp *dp, struct dp_flow *flow)
{
    if (dp->shadow && !kept) {
        shadow_file_drop(dp->shadow->file, flow->shadow_slot);
        flow->shadow_slot = 0;
    }
}

/* --- ports ------------------------------------------------------------------------- */

char *
shadow_port_options(const struct netdev *netdev)
{
    struct smap options = SMAP_INITIALIZER(&options);
    struct ds s = DS_EMPTY_INITIALIZER;

    if (!netdev_get_config(netdev, &options)) {
        const struct smap_node **nodes = smap_sort(&options);

        for (size_t i = 0; i < smap_count(&options); i++) {
            ds_put_format(&s, "%s%s=%s", i ? " " : "", nodes[i]->key, nodes[i]->value);
        }
        free(nodes);
    }
    smap_destroy(&options);
    return ds_steal_cstr(&s);
}

static uint32_t *
port_slot(struct shadow *s, odp_port_t port_no)
{
    size_t i = odp_to_u32(port_no);

    if (i >= s->n_ports) {
        size_t n = MAX(i + 1, s->n_ports * 2);

        s->ports = xrealloc(s->ports, n * sizeof *s->ports);
        memset(s->ports + s->n_ports, 0, (n - s->n_ports) * sizeof *s->ports);
        s->n_ports = n;
    }
    return &s->ports[i];
}

static void
save_port(struct shadow *s, const struct dp_port *port)
{
    const char *name = netdev_get_name(port->netdev);
    char *options = shadow_port_options(port->netdev);
    size_t n = strlen(name) + 1, t = strlen(port->type) + 1, o = strlen(options) + 1;
    uint32_t *slot = port_slot(s, port->port_no);
    struct shadow_port_record *r;

    shadow_file_drop(s->file, *slot);
    r = shadow_file_reserve(s->file, sizeof *r + n + t + o, slot);
    if (r) {
        r->type = SHADOW_PORT;
        r->port_no = odp_to_u32(port->port_no);
        r->born = ++s->now;
        memcpy(r->text, name, n);
        memcpy(r->text + n, port->type, t);
        memcpy(r->text + n + t, options, o);
        shadow_file_commit(s->file, *slot);
    }
    free(options);
}

void
shadow_port_add(struct dp *dp, const struct dp_port *port)
{
    struct shadow_table *table = atomic_load_explicit(&dp->shadow_table, memory_order_acquire);

    if (dp->shadow && !kept) {
        ovs_mutex_lock(&dp->flows_lock);
        save_port(dp->shadow, port);
        ovs_mutex_unlock(&dp->flows_lock);
    }
    if (table) {
        shadow_table_port_add(table, port);
    }
}

void
shadow_port_del(struct dp *dp, const struct dp_port *port)
{
    struct shadow_table *table = atomic_load_explicit(&dp->shadow_table, memory_order_acquire);

    if (dp->shadow && !kept) {
        ovs_mutex_lock(&dp->flows_lock);
        uint32_t *slot = port_slot(dp->shadow, port->port_no);
        shadow_file_drop(dp->shadow->file, *slot);
        *slot = 0;
        ovs_mutex_unlock(&dp->flows_lock);
    }
    if (table) {
        shadow_table_port_del(table, port);
    }
}

/* --- the predecessor's ------------------------------------------------------------- */

bool
shadow_port_text(const struct shadow_port_record *r, size_t len, const char **name,
                 const char **type, const char **options)
{
    const char *at = r->text, *end = (const char *)r + len;
    const char **to[] = {name, type, options};

    for (size_t i = 0; i < ARRAY_SIZE(to); i++) {
        const char *zero = at < end ? memchr(at, 0, end - at) : NULL;

        if (!zero) {
            return false;
        }
        *to[i] = at;
        at = zero + 1;
    }
    return at == end;
}

void
shadow_for_each_port(const char *dp_name,
                     void (*cb)(void *aux, const char *name, const char *type, const char *options),
                     void *aux)
{
    char *file = xasprintf("flows-%s", dp_name), *path = shadow_path(file);
    const struct shadow_port_record *r;
    struct shadow_image image;
    size_t pos = 0, len;

    if (!shadow_image_load(path, SHADOW_KIND_FLOWS, SHADOW_LAYOUT, &image)) {
        while ((r = shadow_image_next(&image, &pos, &len))) {
            const char *name, *type, *options;

            if (len >= sizeof *r && r->type == SHADOW_PORT &&
                shadow_port_text(r, len, &name, &type, &options)) {
                cb(aux, name, type, options);
            }
        }
        shadow_image_free(&image);
    }
    free(path);
    free(file);
}
