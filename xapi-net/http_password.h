/* http_password: users with passwords, in a file.
 *
 * A line is "NAME ROLE pbkdf2-sha256 ITERATIONS SALT HASH" (hexadecimal), as
 * "weft-xapid --hash-password" prints it; "#" begins a comment.  The file is read
 * each time.  Checking costs CPU time on purpose, so it is done in
 * the listener's thread, and only so often a second.
 *
 * Any thread. */
#ifndef XAPI_HTTP_PASSWORD_H
#define XAPI_HTTP_PASSWORD_H

#include <stddef.h>

#include "pool_class.h"

enum password_verdict { PASSWORD_WRONG, PASSWORD_RIGHT, PASSWORD_TOO_OFTEN };

/* NULL: nobody has a password. */
void password_file(const char *path);
/* 'address' is the client's, as in struct http_peer: one that guesses keeps no other
 * out. */
enum password_verdict password_check(const char *address, const char *user, const char *password,
                                     enum pool_role *role);
/* A line for the file; 0 or EINVAL (name or role), EIO. */
int password_line(const char *user, const char *role, const char *password, char *line,
                  size_t size);

#endif
