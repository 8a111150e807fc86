/* audit: a line for each change that was asked for, and each denial: JSON lines
 * in a file that is begun anew when it was moved away.  Main loop. */
#ifndef XAPI_AUDIT_H
#define XAPI_AUDIT_H

struct fault;
struct request;

/* NULL: no file. */
int audit_open(const char *path);
void audit_close(void);
/* 'fault' NULL: it has been done. */
void audit_request(const struct request *, const struct fault *fault);

#endif
