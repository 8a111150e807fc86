/* Theory of Operation
 * ===================
 *
 * Hosts' agents (weft-xapid, weft-migrate) come to a port of their own, with
 * certificates of another authority than the servers and controllers have:
 * ovsdb-server has one authority for all that it listens on, a cluster's port
 * among it, and without a role whoever it believes may do all.  So that port is
 * weft-dbgate's, beside each server; it goes on by db.sock, and what it lets
 * through is controller/dbgate_role.c.
 *
 * OVSDB's own roles (RBAC_Role) do not do: they hold for one who comes by TLS to
 * a listener of the server itself.  Before a relay they are checked against the
 * relay's copy only, and the server behind it asks no more. */
#include "pool_db.h"

#include <stdio.h>
#include <unistd.h>

int
pdb_hosts_start(const struct pdb *p, pid_t *pidp, char *why)
{
    char gate[PDB_PATH], path[3][PDB_PATH], text[8][PDB_PATH + 32];

    pdb_program("weft-dbgate", gate);
    pdb_path(p, "db.sock", path[0]);
    pdb_path(p, "hosts.ctl", path[1]);
    pdb_path(p, "hosts.log", path[2]);
    unlink(path[1]);
    snprintf(text[0], sizeof text[0], "--listen=pssl:%u:%s", p->port + PDB_HOSTS, p->ip);
    snprintf(text[1], sizeof text[1], "--server=unix:%s", path[0]);
    snprintf(text[2], sizeof text[2], "--unixctl=%s", path[1]);
    snprintf(text[3], sizeof text[3], "--log-file=%s", path[2]);
    snprintf(text[4], sizeof text[4], "--private-key=%s", p->key);
    snprintf(text[5], sizeof text[5], "--certificate=%s", p->certificate);
    snprintf(text[6], sizeof text[6], "--ca-cert=%s", p->hosts_ca);
    snprintf(text[7], sizeof text[7], "--crl=%s", p->hosts_crl);
    return pdb_spawn((const char *[]){gate, text[0], text[1], text[2], text[3], text[4], text[5],
                                      text[6], "-vconsole:off", "-vsyslog:off",
                                      *p->hosts_crl ? text[7] : NULL, NULL},
                     pidp, why);
}
