/* claim: how the engine reads and changes the row that says whose the VM is.
 *
 * Two kinds: the pool's database (lib/ovs/vm_claim.h, wrapped in main_migrate.c),
 * and a file, for use without a pool: both ends see the same file system.
 *
 * Errors as vm_claim.h has them: 0, ESTALE, ENOENT, ETIMEDOUT.  Threads: one. */
#ifndef WEFT_MIGRATE_CLAIM_H
#define WEFT_MIGRATE_CLAIM_H

#include <stdint.h>

enum { MIG_HOST = 64 };

struct mig_claim {
    int (*read)(void *aux, char host[MIG_HOST], uint64_t *epoch, int timeout_ms);
    int (*swap)(void *aux, const char *from, uint64_t epoch, const char *to, uint64_t epoch2,
                int timeout_ms);
    void *aux;
};

/* A file of one line, {"vm":"UUID","host":"NAME","epoch":N}, replaced as a whole
 * under a lock (PATH.lock).  `path` and `vm` must outlive the claim; nothing is
 * opened yet. */
struct claim_file {
    const char *path, *vm;
};
struct mig_claim claim_file(const struct claim_file *);
/* Makes the file.  EEXIST. */
int claim_file_create(const struct claim_file *, const char *host, uint64_t epoch);

#endif
