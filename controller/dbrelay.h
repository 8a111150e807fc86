/* dbrelay: a TLS port of the pool's database for those who may do all (weft-dbgate --relay).
 *
 * ovsdb-server reads no revocation lists.  So it listens at a Unix socket only, and its ports
 * are ours: whose certificate is good is passed on to that socket, byte for byte, for as long
 * as it is.  The other way round, what a server asks its peer goes through a Unix socket of
 * ours, and the peer's certificate is looked at in the same way.
 *
 * Threads: none but the caller's. */
#ifndef CTL_DBRELAY_H
#define CTL_DBRELAY_H

struct dbrelay;

/* Who comes to 'listen' ("pssl:...", "punix:...") is passed on to 'server' ("unix:...",
 * "ssl:...").  A machine that has been gone for twice 'probe_ms' is let go, and so is one
 * that has not shown in that time, or in 10 s, who it is.  0, or an errno. */
int dbrelay_open(const char *listen, const char *server, int probe_ms, struct dbrelay **);
/* Authorities or revocation lists are new: who would not be let in by them is put out. */
void dbrelay_recheck(struct dbrelay *);
void dbrelay_run(struct dbrelay *);
void dbrelay_wait(struct dbrelay *);
void dbrelay_close(struct dbrelay *);

#endif
