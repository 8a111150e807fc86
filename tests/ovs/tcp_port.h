/* tcp_port: ports of 127.0.0.1 for servers that tests start. */
#ifndef TCP_PORT_H
#define TCP_PORT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* One that nobody has now. */
static inline unsigned
tcp_port_free(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(fd, (struct sockaddr *)&in, len) || getsockname(fd, (struct sockaddr *)&in, &len)) {
        abort();
    }
    close(fd);
    return ntohs(in.sin_port);
}

/* Whether somebody takes connections there. */
static inline bool
tcp_port_listens(unsigned port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool does;

    in.sin_port = htons(port);
    does = !connect(fd, (struct sockaddr *)&in, sizeof in);
    close(fd);
    return does;
}

#endif
