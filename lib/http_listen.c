#include "http_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 256 };

static int
finish(int fd, int error, int *fdp)
{
    error = error ? error : listen(fd, BACKLOG) ? errno : 0;
    if (error) {
        close(fd);
        fd = -1;
    }
    *fdp = fd;
    return error;
}

static int
bind_unix(int fd, const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct stat st;
    mode_t mask;
    int error = 0;

    if (strlen(path) >= sizeof sun.sun_path) {
        return ENAMETOOLONG;
    }
    strcpy(sun.sun_path, path);
    if (!lstat(path, &st) && S_ISSOCK(st.st_mode)) {
        int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool alive = probe >= 0 && !connect(probe, (struct sockaddr *)&sun, sizeof sun);
        if (probe >= 0) {
            close(probe);
        }
        if (alive) {
            return EADDRINUSE;
        }
        unlink(path);
    }
    mask = umask(0177);
    if (bind(fd, (struct sockaddr *)&sun, sizeof sun)) {
        error = errno;
    }
    umask(mask);
    return error;
}

int
http_listen_unix(const char *path, int *fdp)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    return fd < 0 ? errno : finish(fd, bind_unix(fd, path), fdp);
}

/* "PORT" or "PORT:IP", IP in brackets or not. */
static int
parse_address(const char *text, struct sockaddr_storage *ss, socklen_t *length)
{
    char ip[INET6_ADDRSTRLEN + 2] = "::";
    char *end;
    unsigned long port = strtoul(text, &end, 10);
    struct sockaddr_in *in = (struct sockaddr_in *)ss;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
    size_t n;

    memset(ss, 0, sizeof *ss);
    if (end == text || port > 65535 || (*end && *end != ':') || strlen(end) > sizeof ip) {
        return EINVAL;
    }
    if (*end) {
        end += end[1] == '[' ? 2 : 1;
        snprintf(ip, sizeof ip, "%s", end);
        n = strlen(ip);
        if (n && ip[n - 1] == ']') {
            ip[n - 1] = '\0';
        }
    }
    if (inet_pton(AF_INET, ip, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        *length = sizeof *in;
    } else if (inet_pton(AF_INET6, ip, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)port);
        *length = sizeof *in6;
    } else {
        return EINVAL;
    }
    return 0;
}

int
http_listen_tcp(const char *address, int *fdp)
{
    struct sockaddr_storage ss;
    socklen_t length;
    int fd, on = 1, off = 0, error = parse_address(address, &ss, &length);

    if (error) {
        return error;
    }
    fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (ss.ss_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    return finish(fd, bind(fd, (struct sockaddr *)&ss, length) ? errno : 0, fdp);
}
