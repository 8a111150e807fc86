/* The pool's hosts by name, as the server has them. */
#include <config.h>

#include "dbgate.h"

#include <stdlib.h>

#include "ovsdb-idl.h"
#include "pool-idl.h"
#include "sset.h"
#include "util.h"

struct dbgate_hosts {
    struct ovsdb_idl *idl;
    unsigned seqno; /* of 'names' */
    struct sset names;
};

struct dbgate_hosts *
dbgate_hosts_open(const char *server)
{
    struct dbgate_hosts *h = xzalloc(sizeof *h);

    h->idl = ovsdb_idl_create(server, &poolrec_idl_class, false, true);
    ovsdb_idl_set_leader_only(h->idl, false);
    ovsdb_idl_add_column(h->idl, &poolrec_host_col_name);
    sset_init(&h->names);
    return h;
}

void
dbgate_hosts_close(struct dbgate_hosts *h)
{
    ovsdb_idl_destroy(h->idl);
    sset_destroy(&h->names);
    free(h);
}

bool
dbgate_hosts_run(struct dbgate_hosts *h)
{
    const struct poolrec_host *host;

    ovsdb_idl_run(h->idl);
    if (h->seqno == ovsdb_idl_get_seqno(h->idl)) {
        return false;
    }
    h->seqno = ovsdb_idl_get_seqno(h->idl);
    sset_clear(&h->names);
    POOLREC_HOST_FOR_EACH(host, h->idl)
    {
        sset_add(&h->names, host->name);
    }
    return dbgate_hosts_known(h);
}

void
dbgate_hosts_wait(struct dbgate_hosts *h)
{
    ovsdb_idl_wait(h->idl);
}

bool
dbgate_hosts_known(const struct dbgate_hosts *h)
{
    return ovsdb_idl_has_ever_connected(h->idl);
}

bool
dbgate_hosts_has(const struct dbgate_hosts *h, const char *name)
{
    return sset_contains(&h->names, name);
}
