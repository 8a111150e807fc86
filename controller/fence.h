/* fence: which of several pool databases counts.
 *
 * The row Pool says in 'fence' how often the pool's database was handed to
 * another server; a promotion makes it one more.  Whoever has seen a number
 * uses no database with a smaller one, nor one that is 'closed', nor, having
 * seen any, one without the row (a copy that starts over).
 *
 * The number is kept in a file, so that it outlives the process.  It is also
 * the upper part of every epoch (fence_floor()), and so of the OpenFlow
 * generation id: a switch that has obeyed a controller of one database obeys
 * none of an older one, whatever that controller has seen.
 *
 * Threads: the daemon's main loop. */
#ifndef CTL_FENCE_H
#define CTL_FENCE_H

#include <stdbool.h>
#include <stdint.h>

struct ovsdb_idl;
struct ovsdb_idl_txn;
struct poolrec_pool;

/* One connection; zero-initialised but for 'remote', which is the owner's. */
struct fence_link {
    char *remote;
    unsigned seqno; /* of what it showed last */
    bool here;      /* what is wrong is what this server has */
    long long int
        wrong_at;        /* since when that has been wrong, or it was turned away; 0: it is right */
    long long int up_at; /* since when it stands; 0: it does not */
    long long int lost_at;  /* since when nobody has been reached; 0: somebody is */
    long long int tried_at; /* all addresses anew */
};

/* Remembers in 'file' from now on; without it, until the process ends. */
void fence_open(const char *file);
/* Somebody has seen this number. */
void fence_note(int64_t fence);
int64_t fence_newest(void);
/* Epochs of the newest database are greater than this. */
uint64_t fence_floor(void);

/* Looks for a server again and again: the addresses are tried all at once every
 * few seconds, rather than one by one with longer and longer waits.  Call after
 * ovsdb_idl_run(). */
void fence_keep(struct ovsdb_idl *, struct fence_link *);
/* Adds what fence_good() reads to an IDL that does not monitor all of Pool. */
void fence_monitor(struct ovsdb_idl *);
/* Whether what the IDL shows is to be used.  If not, it is sent to the next
 * server.  Call after ovsdb_idl_run(); includes fence_keep(). */
bool fence_good(struct ovsdb_idl *, struct fence_link *, const char *who);
void fence_wait(const struct fence_link *);
/* A transaction holds only if the database is still the one that we took it for. */
void fence_verify(struct ovsdb_idl *);

#endif
