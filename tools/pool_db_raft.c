#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pool_db.h"

enum { LOOK_MS = 100, GONE_MS = 20000 };

static int
look(const struct pdb *p, char **out, char *why)
{
    return pdb_appctl(p, (const char *[]){"cluster/status", "Weft_Pool", NULL}, out, why);
}

static int64_t
now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

/* "cluster/kick" takes any address for the only member of a cluster of one, which then
 * leaves itself, and one's own address for "leave". */
static int
check_target(const struct pdb *p, const char *target, char *why)
{
    char listed[160], *out;
    const char *servers, *line;
    int error = look(p, &out, why);

    if (error) {
        return error;
    }
    snprintf(listed, sizeof listed, " at %s)", target);
    servers = strstr(out, "\nServers:\n");
    line = servers ? strstr(servers, listed) : NULL;
    if (!line) {
        snprintf(why, PDB_WHY, "%s is no member of the cluster; nothing is done", target);
        error = ENOENT;
    } else if (!strncmp(line + strlen(listed), " (self)", 7)) {
        snprintf(why, PDB_WHY, "%s is this member itself; it goes by \"weft pool db leave %s\"",
                 target, p->dir);
        error = EINVAL;
    }
    free(out);
    return error;
}

/* A server's list is that of its log, committed or not: 'target' is gone when all is
 * committed that the log had when it was first missing.  '*end' is that log's end, 0: it
 * is not missing yet. */
static bool
is_gone(const char *status, const char *listed, uint64_t *end)
{
    static const char log_label[] = "\nLog: [", wait_label[] = "\nEntries not yet committed: ";
    const char *log = strstr(status, log_label), *wait = strstr(status, wait_label);
    const char *comma = log ? strchr(log, ',') : NULL;
    uint64_t now_end;

    if (!comma || !wait || strstr(status, listed)) {
        *end = 0;
        return false;
    }
    now_end = strtoull(comma + 1, NULL, 10);
    if (!*end) {
        *end = now_end;
    }
    return now_end - strtoull(wait + strlen(wait_label), NULL, 10) >= *end &&
           !strstr(status, "\nLeader: unknown\n");
}

/* A follower passes the request on and does not wait for what comes of it. */
static int
wait_until_gone(const struct pdb *p, const char *target, char *why)
{
    const struct timespec pause = {0, LOOK_MS * 1000000L};
    const int64_t deadline = now_ms() + GONE_MS;
    char listed[160], *out;
    uint64_t end = 0;
    int error;

    snprintf(listed, sizeof listed, " at %s)", target);
    for (;;) {
        bool gone = false;

        error = look(p, &out, why);
        if (!error) {
            gone = is_gone(out, listed, &end);
            free(out);
        }
        if (gone) {
            return 0;
        }
        if (now_ms() >= deadline) {
            break;
        }
        nanosleep(&pause, NULL);
    }
    if (!error) {
        snprintf(why, PDB_WHY, "the cluster still has it; has it a quorum?");
    }
    return ETIMEDOUT;
}

int
pdb_kick(const struct pdb *p, const char *target, char *why)
{
    int error = check_target(p, target, why);

    if (!error) {
        error =
            pdb_appctl(p, (const char *[]){"cluster/kick", "Weft_Pool", target, NULL}, NULL, why);
    }
    return error ? error : wait_until_gone(p, target, why);
}
