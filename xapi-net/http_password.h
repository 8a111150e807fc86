/* http_password: users with passwords, in a file.
 *
 * A line is "NAME ROLE pbkdf2-sha256 ITERATIONS SALT HASH" (hexadecimal), as
 * "weft-xapid --hash-password" prints it; "#" begins a comment.  The file is read
 * each time.  Checking costs CPU time on purpose: it is done by a thread that does
 * nothing else, one check after the other and only so many a second, so that whoever
 * guesses keeps no other request waiting.
 *
 * Any thread; password_begin() and password_end() the daemon's own. */
#ifndef XAPI_HTTP_PASSWORD_H
#define XAPI_HTTP_PASSWORD_H

#include <stdbool.h>
#include <stddef.h>

#include "pool_class.h"

enum password_verdict { PASSWORD_WRONG, PASSWORD_RIGHT, PASSWORD_TOO_OFTEN };

struct password_check {
    struct password_check *next;
    const char *user, *password; /* borrowed until it is done */
    enum password_verdict verdict;
    enum pool_role role; /* with PASSWORD_RIGHT */
    void (*done)(struct password_check *);
};

/* 0 or an errno.  'file' NULL: nobody has a password. */
int password_begin(const char *file);
/* The check that is under way is done first; those that wait end without one. */
void password_end(void);
/* Whether such a check may be made now; the verdict is there if not.  'address' is the
 * client's, as in struct http_peer: one that guesses keeps no other out. */
bool password_may_check(const char *address, struct password_check *);
/* done() comes in the thread of the checks. */
void password_submit(struct password_check *);
/* A line for the file; 0 or EINVAL (name or role), EIO. */
int password_line(const char *user, const char *role, const char *password, char *line,
                  size_t size);

#endif
