/* http_listen: the sockets that servers listen at.  Any thread, but the umask is
 * the process's: a Unix socket is its owner's alone. */
#ifndef HTTP_LISTEN_H
#define HTTP_LISTEN_H

/* A socket bound to PATH and listening: 0, with '*fd', or an errno: EADDRINUSE if
 * somebody answers there.  What a dead process left is removed. */
int http_listen_unix(const char *path, int *fd);
/* The same of "PORT" or "PORT:IP", IP in brackets or not; EINVAL if it is neither. */
int http_listen_tcp(const char *address, int *fd);

#endif
