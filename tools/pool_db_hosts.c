/* Theory of Operation
 * ===================
 *
 * Hosts' agents (weft-xapid, weft-migrate) come to a port of their own, with
 * certificates of another authority than the servers and controllers have.  It
 * is opened by a second ovsdb-server: a relay of the first, whose database it
 * reads by db.sock, and which applies OVSDB's role "host" to what it passes on.
 * One process could not keep the two apart: ovsdb-server has one authority for
 * all that it listens on, and without a role whoever it believes may do all.
 *
 * ovsdb-server takes a listener's role from a row only.  That row is in a
 * database of the relay's own, hosts.db, made anew at each start: so it is not
 * replicated, and each server listens on its own address.  Its empty RBAC_Role
 * keeps the role from writing there.
 *
 * What the role may do is in the pool's database (RBAC_Role, RBAC_Permission),
 * written at each start as this version knows it.  A row is a host's own if one
 * of the columns of 'authorization' has the host's name, which is its
 * certificate's CN, before it is changed.
 *
 * This keeps mistakes in bounds, not attackers: the relay judges by its own copy and
 * passes the request on as it is, to a server that asks no more.  A condition that holds
 * there only ("_version", for one) gets any row of these tables past it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pool_db.h"

#define ROLE "host"

static const char relay_schema[] =
    "{\"name\":\"Weft_Hosts\",\"version\":\"1.0.0\",\"tables\":{"
    "\"Top\":{\"columns\":{\"listeners\":{\"type\":{\"key\":{\"type\":\"uuid\","
    "\"refTable\":\"Listener\"},\"min\":0,\"max\":\"unlimited\"}}},\"isRoot\":true},"
    "\"Listener\":{\"columns\":{\"target\":{\"type\":\"string\"},\"role\":{\"type\":\"string\"}}},"
    "\"RBAC_Role\":{\"columns\":{\"name\":{\"type\":\"string\"}},\"isRoot\":true}}}\n";

#define PERMISSION(TABLE, OWNERS, INSERT_DELETE, UPDATE)                                           \
    "{\"op\":\"insert\",\"table\":\"RBAC_Permission\",\"uuid-name\":\"may" TABLE                   \
    "\",\"row\":{\"table\":\"" TABLE "\",\"authorization\":[\"set\",[" OWNERS                      \
    "]],\"insert_delete\":" INSERT_DELETE ",\"update\":[\"set\",[" UPDATE "]]}},"
#define MAY(TABLE) "[\"" TABLE "\",[\"named-uuid\",\"may" TABLE "\"]]"

static const char permissions[] =
    "[\"Weft_Pool\",{\"op\":\"delete\",\"table\":\"RBAC_Role\",\"where\":[]},"
    "{\"op\":\"delete\",\"table\":\"RBAC_Permission\",\"where\":[]}," PERMISSION(
        "Host", "\"name\"", "false", "\"xapi_address\",\"xapi_seen\",\"migration_address\"")
    /* 'destination' of one that runs nowhere is who was told to start it. */
    PERMISSION("VM", "\"resident_on\",\"destination\"", "false",
               "\"power_state\",\"resident_on\",\"epoch\",\"destination\",\"migration\"")
        PERMISSION("Task", "\"host\"", "true",
                   "\"status\",\"progress\",\"result\",\"error_info\",\"finished\"")
    /* Others believe one only if a row of VM or Task names it. */
    PERMISSION(
        "Migration", "\"from_host\",\"to_host\"", "true",
        "\"phase\",\"address\",\"status\",\"stats\",\"finished\"") "{\"op\":\"insert\",\"table\":"
                                                                   "\"RBAC_Role\",\"row\":{"
                                                                   "\"name\":\"" ROLE
                                                                   "\",\"permissions\":[\"map\","
                                                                   "[" MAY("Host") "," MAY("VM") "," MAY(
                                                                       "Task") "," MAY("Migration") "]]}},{\"op\":"
                                                                                                    "\"commit\","
                                                                                                    "\"durable\":"
                                                                                                    "true}]";

int
pdb_hosts_roles(const struct pdb *p, char *why)
{
    return pdb_transact(p, permissions, why);
}

static int
write_file(const char *path, const char *text, char *why)
{
    FILE *f = fopen(path, "w");

    if (!f || fputs(text, f) < 0 || fclose(f)) {
        snprintf(why, PDB_WHY, "%s: %s", path, strerror(errno));
        return EIO;
    }
    return 0;
}

/* hosts.db: one listener, with the role. */
static int
make_own_database(const struct pdb *p, const char *path, char *why)
{
    char tool[PDB_PATH], schema[PDB_PATH], json[600];
    int error;

    pdb_program("ovsdb-tool", tool);
    pdb_path(p, "hosts.schema", schema);
    snprintf(
        json, sizeof json,
        "[\"Weft_Hosts\",{\"op\":\"insert\",\"table\":\"Listener\",\"uuid-name\":\"l\","
        "\"row\":{\"target\":\"pssl:%u:%s\",\"role\":\"" ROLE "\"}},"
        "{\"op\":\"insert\",\"table\":\"Top\",\"row\":{\"listeners\":[\"named-uuid\",\"l\"]}}]",
        p->port + PDB_HOSTS, p->ip);
    unlink(path);
    error = write_file(schema, relay_schema, why);
    if (!error) {
        error = pdb_run((const char *[]){tool, "create", path, schema, NULL}, 0, NULL, why);
    }
    if (!error) {
        error = pdb_run((const char *[]){tool, "transact", path, json, NULL}, 0, NULL, why);
    }
    unlink(schema);
    return error;
}

int
pdb_hosts_start(const struct pdb *p, pid_t *pidp, char *why)
{
    enum { N = 6 };
    static const char *const formats[N] = {
        "relay:Weft_Pool:unix:%s", "--unixctl=%s",     "--log-file=%s",
        "--private-key=%s",        "--certificate=%s", "--ca-cert=%s",
    };
    char server[PDB_PATH], db[PDB_PATH], path[N][PDB_PATH], text[N][PDB_PATH + 32];
    int error;

    pdb_program("ovsdb-server", server);
    pdb_path(p, "hosts.db", db);
    error = make_own_database(p, db, why);
    if (error) {
        return error;
    }
    pdb_path(p, "db.sock", path[0]);
    pdb_path(p, "hosts.ctl", path[1]);
    pdb_path(p, "hosts.log", path[2]);
    unlink(path[1]);
    snprintf(path[3], PDB_PATH, "%s", p->key);
    snprintf(path[4], PDB_PATH, "%s", p->certificate);
    snprintf(path[5], PDB_PATH, "%s", p->hosts_ca);
    for (int i = 0; i < N; i++) {
        snprintf(text[i], sizeof text[i], formats[i], path[i]);
    }
    return pdb_spawn((const char *[]){server, db, text[0], "--remote=db:Weft_Hosts,Top,listeners",
                                      text[1], text[2], text[3], text[4], text[5], "-vconsole:off",
                                      "-vsyslog:off", NULL},
                     pidp, why);
}
