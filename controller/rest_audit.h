/* rest_audit: who changed what, and who was turned away.
 *
 * A file of JSON lines.  Each holds the SHA-256 of the line before it and
 * itself ("chain"), so that a line that was changed, taken out or put in shows;
 * "weft audit" checks a file.  A file that was moved away (logrotate) is begun
 * anew and continues the chain.  Denials of one peer are written ten times a
 * second at most; how many were not is in the next line.
 *
 * Any thread. */
#ifndef REST_AUDIT_H
#define REST_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rest_audit;

struct rest_audit_line {
    const char *user, *session, *role, *tenant, *address, *method, *path;
    int status;
    const char *message; /* of a refusal, or NULL */
    int64_t generation;  /* of a change, or 0 */
};

/* 'path' NULL: no file; every call succeeds. */
int rest_audit_open(const char *path, struct rest_audit **, char *why, size_t why_size);
void rest_audit_close(struct rest_audit *);
/* False: it could not be written. */
bool rest_audit_write(struct rest_audit *, const struct rest_audit_line *);
/* Whether the last write worked and another is likely to. */
bool rest_audit_good(struct rest_audit *);

#endif
