/* dbgate: what hosts' agents may ask of the pool's database (weft-dbgate).
 *
 * A host writes rows that are its own: those of which one of the columns in
 * dbgate_role.c's table has its name.  That is not ours to judge, since we have no rows:
 * in front of each write of a transaction goes an operation of ours, by which the server
 * gives the transaction up if a row that is not the host's would be written.
 *
 * Threads: none but the caller's. */
#ifndef CTL_DBGATE_H
#define CTL_DBGATE_H

#include <stdbool.h>
#include <stddef.h>

struct json;

#define DBGATE_DB "Weft_Pool"

/* --- dbgate_role.c: transactions ------------------------------------------------------ */

/* How a transaction was changed, and so what its answer has that was not asked for. */
struct dbgate_plan {
    bool *ours; /* the operations that are */
    size_t n;
};

/* What may go to the server of the parameters of host's "transact"; the caller frees it,
 * and the plan.  NULL: nothing may; '*refusal' is what to answer (a result as OVSDB has
 * it, the caller's to free) and there is no plan. */
struct json *dbgate_admit(const char *host, const struct json *params, struct dbgate_plan *,
                          struct json **refusal);
/* The server's result, as it would be without what is ours.  The caller's to free. */
struct json *dbgate_result(const struct dbgate_plan *, const struct json *result);
void dbgate_plan_clear(struct dbgate_plan *);

/* The ids of a session's monitors. */
#define DBGATE_MAX_MONITORS 8
struct dbgate_monitors {
    struct json *ids[DBGATE_MAX_MONITORS];
    size_t n;
};

void dbgate_monitors_clear(struct dbgate_monitors *);

/* Whether a host may call the method (requests, "transact" aside) so; of monitors, notes
 * what the call does. */
bool dbgate_may_call(const char *method, const struct json *params, struct dbgate_monitors *);
/* Whether a request may have it. */
bool dbgate_is_id(const struct json *id);

/* --- dbgate_hosts.c: who is a host ------------------------------------------------------ */

struct dbgate_hosts;

struct dbgate_hosts *dbgate_hosts_open(const char *server);
void dbgate_hosts_close(struct dbgate_hosts *);
/* True: some may have come or gone. */
bool dbgate_hosts_run(struct dbgate_hosts *);
void dbgate_hosts_wait(struct dbgate_hosts *);
/* They have been read; until then none is there. */
bool dbgate_hosts_known(const struct dbgate_hosts *);
bool dbgate_hosts_has(const struct dbgate_hosts *, const char *name);

/* --- dbgate.c: connections ------------------------------------------------------------- */

struct dbgate;

/* Hosts come to 'listen' ("pssl:..."), the database is at 'server' ("unix:...").  One that is
 * silent for 'probe_ms' is asked whether it is there.  0, or an errno. */
int dbgate_open(const char *listen, const char *server, int probe_ms, struct dbgate **);
/* Authorities or revocation lists are new: who would not be let in by them is put out. */
void dbgate_recheck(struct dbgate *);
void dbgate_run(struct dbgate *);
void dbgate_wait(struct dbgate *);
void dbgate_close(struct dbgate *);

#endif
