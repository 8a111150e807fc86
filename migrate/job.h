/* job: what weft-migrate is told to do.  One JSON object, or the same as options
 * of the command line (docs/migrate.md lists both).
 *
 * Threads: none.  Ownership: strings belong to the job until mig_job_destroy(). */
#ifndef WEFT_MIGRATE_JOB_H
#define WEFT_MIGRATE_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "claim.h"
#include "driver.h"
#include "network.h"
#include "page.h"

enum mig_role { MIG_SEND = 1, MIG_RECEIVE, MIG_RECOVER };

enum { MIG_OPTIONS_MAX = 32 };

struct mig_tls_files {
    char *private_key, *certificate, *ca_cert, *crl, *peer_name; /* NULL: not given */
};

struct mig_job {
    enum mig_role role;
    char driver[17];
    char migration[37], vm[37]; /* uuids, as text */
    char *vm_name;              /* for messages; "" */
    char from[MIG_HOST], to[MIG_HOST];
    uint64_t epoch;

    char *database, *claim_file; /* one of them */
    struct mig_tls_files database_tls;
    char *listen, *connect; /* one of them: which end this is */
    unsigned int connections;
    bool plain;
    struct mig_tls_files tls;

    uint64_t limit_mbps; /* 0: none */
    unsigned int cpu_percent;
    uint32_t max_blackout_ms, max_rounds, max_throttle;
    enum mig_compress compress;
    uint64_t delta_cache_bytes;
    bool offline;  /* no rounds: stop and copy */
    bool postcopy; /* allowed */
    char *journal; /* NULL: none */
    char *capture;
    char *congestion; /* the source's TCP; NULL: the system's, but not BBR */
    /* How long a far end that is connected may take to answer (tests shorten it). */
    uint32_t answer_ms, accept_ms;

    struct mig_option options[MIG_OPTIONS_MAX]; /* the driver's */
    size_t n_options;
    struct network_vif vifs[NETWORK_VIFS_MAX];
    size_t n_vifs;
    char *pause_at; /* phase in which to stop until "continue"; NULL */
};

/* The defaults; nothing else set. */
void mig_job_init(struct mig_job *);
void mig_job_destroy(struct mig_job *);
/* Adds what `text` says.  EINVAL with `why`. */
int mig_job_parse(struct mig_job *, const char *text, char why[MIG_WHY]);
/* The same as an option: "max-rounds", "tls-private-key"; "option" KEY=VALUE for the
 * driver, "vif" JSON.  `value` is NULL for flags. */
int mig_job_option(struct mig_job *, const char *option, const char *value, char why[MIG_WHY]);
bool mig_job_option_is_flag(const char *option);
/* Is it whole?  EINVAL with `why`. */
int mig_job_check(const struct mig_job *, char why[MIG_WHY]);

/* A UUID's text (lower case) to bytes; EINVAL. */
int mig_uuid_parse(const char *text, uint8_t out[16]);

static inline bool
mig_job_is_source(const struct mig_job *j)
{
    return j->connect != NULL;
}

#endif
