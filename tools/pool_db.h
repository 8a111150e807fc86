/* pool_db: "weft pool db ...": servers of the pool's database.
 *
 * A server is a directory: pool.db, server.json (what it is, below) and, while
 * it runs, its sockets.  "weft pool db run" keeps ovsdb-server going in it and
 * changes what that does when server.json or the database says so; the other
 * commands change these and tell it by SIGHUP.
 *
 * From the address IP:PORT of a server follow
 *     PORT      clients: controllers; open while it is primary or member
 *     PORT + 1  a pair's servers among themselves, and who asks a copy
 *     PORT + 2  a cluster's members among themselves
 *     PORT + 3  hosts' agents, by way of weft-dbgate (pool_db_hosts.c); by command
 * all TLS with client certificates.  With a list of revoked ones PORT and PORT + 1 are
 * weft-dbgate's, too, and so is the way to the other server of a pair (pool_db_relay.c).
 *
 * Single-threaded.  Functions return 0 or an errno with a sentence in 'why'. */
#ifndef POOL_DB_H
#define POOL_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PDB_PATH = 400, PDB_WHY = 700, PDB_PORT = 6641, PDB_HOSTS = 3, PDB_PORTS = 4 };

enum pdb_role { PDB_PRIMARY, PDB_COPY, PDB_MEMBER, PDB_LEFT };

/* server.json */
struct pdb {
    char dir[256];
    char name[65];
    enum pdb_role role;
    char ip[64]; /* IPv6 in brackets */
    unsigned port;
    char peer_ip[64]; /* of a pair's other server; "" none */
    unsigned peer_port;
    char key[256], certificate[256], ca[256];
    char crl[256];       /* certificates of 'ca' that are revoked; "": nobody looks */
    char hosts_ca[256];  /* of hosts' certificates; "": hosts have no port */
    char hosts_crl[256]; /* those that are revoked; "": nobody looks */
    /* To become primary with this number; 0: not. */
    int64_t promote;
    bool promote_with_copy; /* the other server follows from then on */
};

/* The row Pool, as far as it is about servers. */
struct pdb_row {
    int64_t fence;
    bool closed;
    char primary[65];
    char copy[128];
};

/* --- pool_db_conf.c ----------------------------------------------------------- */

int pdb_load(struct pdb *, const char *dir, char *why);
int pdb_save(const struct pdb *, char *why);
const char *pdb_role_name(enum pdb_role);
/* "10.0.0.1", "10.0.0.1:6641", "[fd00::1]:6641". */
int pdb_parse_address(const char *text, char ip[64], unsigned *port, char *why);
void pdb_path(const struct pdb *, const char *file, char path[PDB_PATH]);
/* "ssl:IP:PORT+1" of this server or of its peer. */
void pdb_sync_target(const struct pdb *, bool peer, char target[128]);
/* "ssl:IP:PORT+2", of a member. */
void pdb_raft_target(const char *ip, unsigned port, char target[128]);
/* How its peer is asked: that, or what pool_db_relay.c has for it while the server runs. */
void pdb_peer_target(const struct pdb *, char target[PDB_PATH]);

/* The process that runs the directory's server, or 0. */
pid_t pdb_runner(const struct pdb *);
/* Becomes that process, until it ends; EBUSY: there is one. */
int pdb_become_runner(const struct pdb *, char *why);

/* --- pool_db_exec.c: Open vSwitch's programs ------------------------------------- */

/* The path of a program: beside ours, or from PATH. */
void pdb_program(const char *name, char path[PDB_PATH]);
/* Where the schema is. */
int pdb_schema(char path[PDB_PATH], char *why);
/* Runs argv[0] (NULL-terminated), with what it prints in '*out' (malloc'ed; or
 * NULL).  'timeout_s' 0: as long as it takes. */
int pdb_run(const char *const *argv, unsigned timeout_s, char **out, char *why);
/* Starts a program that ends with us. */
int pdb_spawn(const char *const *argv, pid_t *, char *why);
/* Starts the server as what it is to be. */
int pdb_start(const struct pdb *, pid_t *, char *why);
/* The running copy follows its primary from now on. */
int pdb_follow(const struct pdb *, char *why);
/* ovs-appctl to the running server. */
int pdb_appctl(const struct pdb *, const char *const *args, char **out, char *why);

/* ovsdb-tool, for files that nobody else uses; '*out' as of pdb_run(). */
int pdb_tool(const char *command, const char *const *args, char **out, char *why);

/* Asks the server at 'target' (NULL: ours, running or not).  ENOENT: there is no
 * such row. */
int pdb_read_row(const struct pdb *, const char *target, struct pdb_row *, char *why);
/* Writes columns ("\"fence\":2,...") of the row; with 'was', only if number and
 * state are still these. */
int pdb_write_row(const struct pdb *, const char *target, const struct pdb_row *was,
                  const char *columns, char *why);

/* --- pool_db_file.c: the file, while no server has it --------------------------------- */

struct pdb_file {
    char *at; /* NULL: it is empty */
    size_t n;
};
/* To be read; pdb_file_unmap() it. */
int pdb_file_map(const char *path, struct pdb_file *, char *why);
void pdb_file_unmap(struct pdb_file *);
/* The record at 'at', which begins with 'magic' ("OVSDB JSON "): the lengths of its head and
 * its body.  False: there is none that is whole. */
bool pdb_record(const char *magic, const char *at, const char *end, size_t *head, size_t *body);
/* 'copy' takes the place of 'path' in 'dir'; durably, whenever the machine dies. */
int pdb_replace(const char *copy, const char *path, const char *dir, char *why);
/* A transaction on pool.db, of a database without cluster.  'writes' false: nothing is
 * changed, whatever it says.  A transaction that fails says so in '*out', the caller's. */
int pdb_file_transact(const struct pdb *, const char *json, bool writes, char **out, char *why);

/* --- pool_db_hosts.c ------------------------------------------------------------------ */

/* Starts what serves hosts, beside our server. */
int pdb_hosts_start(const struct pdb *, pid_t *, char *why);

/* --- pool_db_relay.c ------------------------------------------------------------------ */

/* Starts what is at the ports in the server's place. */
int pdb_relay_start(const struct pdb *, pid_t *, char *why);
/* Whether the peer is asked by way of a process of its own; that is started. */
bool pdb_asks(const struct pdb *);
int pdb_asker_start(const struct pdb *, pid_t *, char *why);
/* Whether the peer can be asked by now, as far as that is ours; true: without a list, too. */
bool pdb_relay_ready(const struct pdb *);
/* The authorities of who comes to PORT + 1 of a copy: 'path' gets a file with both, which
 * is written anew if one of them is another by now. */
int pdb_both_authorities(const struct pdb *, char path[PDB_PATH], char *why);

/* --- pool_db_raft.c: members of a cluster ------------------------------------------------ */

/* Takes another member out, "ssl:IP:PORT+2", by way of the running server, and waits until
 * the cluster has agreed.  ENOENT, EINVAL: it is none, or this one; nothing is done. */
int pdb_kick(const struct pdb *, const char *target, char *why);

/* --- pool_db_rescue.c: one that is left of a cluster -------------------------------------- */

struct pdb_rescue {
    int64_t number; /* the new cluster's */
    size_t torn;    /* bytes at the log's end that were not whole */
};

/* Copies a member's log as its server reads it when it starts: without entries that another
 * leader's have replaced, which "ovsdb-tool cluster-to-standalone" would take for good, and
 * without '*torn' bytes at the end that are not whole. */
int pdb_log_copy(const char *from, const char *to, size_t *torn, char *why);
/* Makes the stopped member a cluster of one, with what it has; pool.db.lost is what it was. */
int pdb_rescue(const struct pdb *, struct pdb_rescue *, char *why);

/* --- the commands ------------------------------------------------------------------ */

int pool_db_main(int argc, char **argv);
int pool_db_run_main(const char *dir);

#endif
