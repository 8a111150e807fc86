#include "lab_tell.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void
lab_tell_open(struct lab_tell *t, int fd)
{
    t->fd = fd;
    t->len = 0;
}

void
lab_tell_close(struct lab_tell *t)
{
    if (t->fd >= 0) {
        close(t->fd);
        t->fd = -1;
    }
}

bool
lab_tell_read(struct lab_tell *t, void (*line)(void *, char, const char *), void *aux)
{
    ssize_t n = read(t->fd, t->buf + t->len, sizeof t->buf - 1 - t->len);
    char *start = t->buf, *end;

    if (n < 0 && errno == EINTR) {
        return true;
    }
    if (n <= 0) {
        lab_tell_close(t);
        return false;
    }
    t->len += (size_t)n;
    t->buf[t->len] = '\0';
    while ((end = strchr(start, '\n'))) {
        *end = '\0';
        if (end > start + 1) {
            line(aux, start[0], start + 2);
        }
        start = end + 1;
    }
    t->len -= (size_t)(start - t->buf);
    memmove(t->buf, start, t->len);
    if (t->len == sizeof t->buf - 1) {
        t->len = 0; /* longer than any line of ours */
    }
    return true;
}
