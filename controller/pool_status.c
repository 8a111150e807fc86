/* What the model says of an object, written to its row. */
#include <config.h>

#include "model_impl.h"
#include "plan.h"
#include "pool_db_priv.h"
#include "pool_row.h"

/* Gives the object what it needs to become live. */
static void
write_numbers(const struct pool_status *s, struct model_obj *obj, const struct ovsdb_idl_row *row)
{
    struct model_network *network = model_network(obj);
    uint32_t key = obj->key, zone = network ? network->zone : 0;
    uint32_t key_next = *s->key_next, zone_next = *s->zone_next;

    if (obj->state != GOOD && obj->state != WAITS) {
        return;
    }
    key = key ? key : model_free_key(s->model, s->key_next);
    zone = zone || !network ? zone : model_free_zone(s->model, s->zone_next);
    pool_row_set_int(row, obj->kind, "pool_key", key);
    if (network) {
        pool_row_set_int(row, obj->kind, "zone", zone);
    }
    if (key_next != *s->key_next || zone_next != *s->zone_next) {
        /* Nobody else gives the same at the same time. */
        pool_row_verify(s->pool, REC_POOL, "key_next");
        pool_row_verify(s->pool, REC_POOL, "zone_next");
        pool_row_set_int(s->pool, REC_POOL, "key_next", *s->key_next);
        pool_row_set_int(s->pool, REC_POOL, "zone_next", *s->zone_next);
    }
}

static void
write_host_status(const struct model_host *host, const struct ovsdb_idl_row *row)
{
    const struct model_host_status *s = &host->status;

    pool_row_set_int(row, REC_HOST, "connected", s->connected);
    pool_row_set_int(row, REC_HOST, "applied_generation", s->applied_generation);
    pool_row_set_int(row, REC_HOST, "drift", s->drift);
    pool_row_set_int(row, REC_HOST, "last_seen", s->last_seen_ms);
    pool_row_set_string(row, REC_HOST, "datapath_type", s->datapath_type);
    pool_row_set_string(row, REC_HOST, "switch", s->switch_type);
    pool_row_set_string(row, REC_HOST, "version", s->version);
}

static void
write_vif_status(const struct model_vif *vif, const struct ovsdb_idl_row *row)
{
    const struct model_port *port =
        vif->obj.live && vif->host ? model_vif_port(vif, vif->host) : NULL;

    if (vif->host_remembered) {
        return; /* nobody has said otherwise yet */
    }
    pool_row_set_string(row, REC_VIF, "seen_host", port ? vif->host->obj.name : "");
    pool_row_set_int(row, REC_VIF, "ofport", port ? port->ofport : 0);
}

/* By the controller that leads the host. */
static void
write_pif_status(const struct pool_status *s, const struct model_pif *pif,
                 const struct ovsdb_idl_row *row)
{
    const struct model_pif_status *now = &pif->status;

    if (pif->obj.live && (!s->shared || pif->host->led)) {
        pool_row_set_string(row, REC_PIF, "link", now->link);
        pool_row_set_int(row, REC_PIF, "speed_mbps", now->speed_mbps);
        pool_row_set_string(row, REC_PIF, "mac_in_use", now->mac);
        pool_row_set_string(row, REC_PIF, "at_bridge", now->bridge);
    }
}

void
pool_status_write(const struct pool_status *s, struct model_obj *obj,
                  const struct ovsdb_idl_row *row)
{
    const char *error = obj->error ? obj->error : obj->refused ? obj->refused : "";
    struct model_host *host = model_host(obj);

    if (obj->kind == REC_VIF) {
        pool_confirm_write(s->model, s->shared, s->quiet, model_vif(obj), row);
    }
    if (obj->kind == REC_PIF) {
        write_pif_status(s, model_pif(obj), row);
    }
    if (s->quiet) {
        /* Our own hosts, and what one of them refused. */
        if ((!host || !host->led) && !obj->refused && !obj->refused_told) {
            return;
        }
        obj->refused_told = obj->refused;
    } else {
        write_numbers(s, obj, row);
    }
    if (host && s->shared && !host->led) {
        if (s->quiet || !obj->error) {
            return;
        }
    } else if (host) {
        write_host_status(host, row);
        error = *error ? error : host->status.error;
    } else if (s->quiet) {
        /* The error only. */
    } else if (obj->kind == REC_VIF) {
        write_vif_status(model_vif(obj), row);
        if (s->warns_of_vifs) { /* since 1.6.0 */
            pool_row_set_string(row, REC_VIF, "warning", obj->warning ? obj->warning : "");
        }
    } else if (obj->kind == REC_POLICY || obj->kind == REC_RULE) {
        pool_row_set_string(row, obj->kind, "warning", obj->warning ? obj->warning : "");
    }
    pool_row_set_string(row, obj->kind, "error", error);
}
