/* vm_claim: which host a VM belongs to, as the pool's database has it.
 *
 * A VM's row says (resident_on, epoch).  Who wants to change it says what it was:
 * one conditional transaction, durable before it is answered, judged by the
 * majority in a cluster and, in a pair, acknowledged only once the copy has it
 * and has not been promoted meanwhile (docs/pool-db.md).
 *
 * Nothing here decides; the migration engine does (migrate/engine.h).  What it
 * may rely on: epochs only grow, and what was once read with an epoch is what
 * the row had in that epoch.  A read may be old (a member that has lost contact).
 *
 * Threads: a claim is used by one thread at a time; calls block up to their
 * timeout.  TLS files are the process's (stream-ssl), all claims share them.
 * Owns its connections. */
#ifndef WEFT_VM_CLAIM_H
#define WEFT_VM_CLAIM_H

#include <stdint.h>

enum { VM_CLAIM_HOST = 64 };

struct vm_claim_tls {
    const char *private_key, *certificate, *ca_cert; /* files */
};

struct vm_claim;

/* `remotes`: "ssl:IP:PORT,unix:PATH,..", all of one database; tried in turn.
 * `tls` may be NULL without ssl: remotes.  Does not connect.  EINVAL. */
int vm_claim_open(const char *remotes, const struct vm_claim_tls *tls, struct vm_claim **);
void vm_claim_close(struct vm_claim *); /* accepts NULL */

/* The row of the VM with this UUID.  0; ENOENT: there is none; ETIMEDOUT: nobody
 * who may be believed has answered. */
int vm_claim_read(struct vm_claim *, const char *vm, char host[VM_CLAIM_HOST], uint64_t *epoch,
                  int timeout_ms);

/* (from, epoch) becomes (to, epoch2), epoch2 > epoch.  0: it has; ESTALE: the row
 * said something else (maybe what was asked for, by an earlier try whose answer
 * was lost): read it; ETIMEDOUT: unknown, it may have, or may yet: read it, or ask
 * again. */
int vm_claim_swap(struct vm_claim *, const char *vm, const char *from, uint64_t epoch,
                  const char *to, uint64_t epoch2, int timeout_ms);

#endif
