/* VIF.confirmed_on: which hosts' switches have the vif's port and its policy. */
#include <config.h>

#include <stdlib.h>

#include "model.h"
#include "pool_db_priv.h"
#include "pool_row.h"

/* Whether a host stands rightly among those that have confirmed the vif.  Each
 * controller answers for the hosts that it leads, and the one that leads the
 * pool for what is no host. */
static bool
stays_confirmed(const struct model *m, bool shared, bool quiet, const struct model_vif *vif,
                const char *name)
{
    const struct model_host *host = model_host(model_by_name(m, REC_HOST, name));
    const struct model_port *port;

    if (!vif->obj.live || !vif->resident || !host) {
        return quiet;
    }
    if (shared && !host->led) {
        return true;
    }
    port = model_vif_port(vif, host);
    return port ? port->confirm != MODEL_UNCONFIRMED : !host->reported;
}

void
pool_confirm_write(const struct model *m, bool shared, bool quiet, const struct model_vif *vif,
                   const struct ovsdb_idl_row *row)
{
    const struct model_port *port;
    size_t n;
    char **names = pool_row_get_list(row, REC_VIF, "confirmed_on", &n);

    for (size_t i = 0; i < n; i++) {
        if (!stays_confirmed(m, shared, quiet, vif, names[i])) {
            pool_row_set_member(row, REC_VIF, "confirmed_on", names[i], false);
        }
        free(names[i]);
    }
    free(names);
    LIST_FOR_EACH (port, vif_node, &vif->ports) {
        if (port->confirm == MODEL_CONFIRMED && (port->host->led || !shared)) {
            pool_row_set_member(row, REC_VIF, "confirmed_on", port->host->obj.name, true);
        }
    }
}
