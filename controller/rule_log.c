#include <config.h>

#include "rule_log.h"

#include <stdlib.h>

#include "compile_impl.h"
#include "host.h"
#include "model.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "openvswitch/vlog.h"
#include "pflow.h"
#include "timeval.h"
#include "trace_query.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(rule_log);

struct entry {
    int64_t at_ms; /* wall clock */
    char *host, *rule, *author, *packet, *from, *to;
    bool allow, in;
};

struct rule_log {
    const struct model *model;
    struct entry *entries;
    uint64_t n; /* ever; the last is number n */
};

struct rule_log *
rule_log_create(const struct model *m)
{
    struct rule_log *log = xzalloc(sizeof *log);

    log->model = m;
    log->entries = xcalloc(RULE_LOG_ENTRIES, sizeof *log->entries);
    return log;
}

static void
entry_clear(struct entry *e)
{
    free(e->host);
    free(e->rule);
    free(e->author);
    free(e->packet);
    free(e->from);
    free(e->to);
    memset(e, 0, sizeof *e);
}

void
rule_log_destroy(struct rule_log *log)
{
    if (log) {
        for (size_t i = 0; i < RULE_LOG_ENTRIES; i++) {
            entry_clear(&log->entries[i]);
        }
        free(log->entries);
        free(log);
    }
}

/* "": no vif of the network has this MAC. */
static char *
vif_name(const struct model *m, const struct model_network *n, struct eth_addr mac)
{
    const struct model_vif *vif = n ? model_vif_by_mac(m, n, mac) : NULL;

    return xstrdup(vif ? vif->obj.name : "");
}

void
rule_log_packet(struct rule_log *log, const char *host, const struct host_packet *p)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(600, 600);
    const struct model_rule *rule = model_rule(model_by_key(log->model, (uint32_t)p->cookie));
    const struct model_network *n =
        model_network(model_by_key(log->model, ntohll(p->metadata->metadata)));
    struct ds ds = DS_EMPTY_INITIALIZER;
    struct entry *e;

    if (flow_cookie_kind(p->cookie) != FLOW_RULE || !rule) {
        return;
    }
    e = &log->entries[log->n++ % RULE_LOG_ENTRIES];
    entry_clear(e);
    e->at_ms = time_wall_msec();
    e->host = xstrdup(host);
    e->rule = xasprintf("%s/%s", rule->policy->obj.name, rule->obj.name);
    e->author = xstrdup(rule->policy->author ? rule->policy->author : "");
    e->allow = rule->action == MODEL_ALLOW;
    e->in = rule->in;
    e->from = vif_name(log->model, n, p->packet->dl_src);
    e->to = vif_name(log->model, n, p->packet->dl_dst);
    trace_put_packet(p->packet, &ds);
    e->packet = ds_steal_cstr(&ds);
    VLOG_INFO_RL(&rl, "%s: rule %s %s %s", host, e->rule, e->allow ? "allows" : "denies",
                 e->packet);
}

static struct json *
entry_json(const struct entry *e, uint64_t number)
{
    struct json *json = json_object_create();

    json_object_put(json, "number", json_integer_create(number));
    json_object_put(json, "time", json_integer_create(e->at_ms));
    json_object_put_string(json, "host", e->host);
    json_object_put_string(json, "rule", e->rule);
    json_object_put_string(json, "author", e->author);
    json_object_put_string(json, "action", e->allow ? "allow" : "deny");
    json_object_put_string(json, "direction", e->in ? "in" : "out");
    json_object_put_string(json, "packet", e->packet);
    json_object_put_string(json, "from", e->from);
    json_object_put_string(json, "to", e->to);
    return json;
}

char *
rule_log_read(const struct rule_log *log, int64_t after, unsigned max)
{
    struct json *json = json_object_create(), *entries = json_array_create_empty();
    uint64_t first = log->n > RULE_LOG_ENTRIES ? log->n - RULE_LOG_ENTRIES : 0, from = first;
    char *said;

    if (after >= 0) {
        from = MIN(MAX((uint64_t)after, first), log->n);
    }
    from = MAX(from, log->n > max ? log->n - max : 0);
    for (uint64_t i = from; i < log->n; i++) {
        json_array_add(entries, entry_json(&log->entries[i % RULE_LOG_ENTRIES], i + 1));
    }
    json_object_put(json, "entries", entries);
    json_object_put(json, "last", json_integer_create(log->n));
    json_object_put(json, "lost",
                    json_integer_create(after >= 0 && (uint64_t)after < from ? from - after : 0));
    said = json_to_string(json, JSSF_SORT);
    json_destroy(json);
    return said;
}
