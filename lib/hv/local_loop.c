/* See local_loop.h. */
#include "local_loop.h"

#include <errno.h>
#include <stddef.h>

int
local_loop_open(struct local_loop *l)
{
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->n_batch = 0;
    return l->epoll_fd < 0 ? errno : 0;
}

int
local_loop_add(struct local_loop *l, struct local_source *s, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};

    s->events = events;
    return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) ? errno : 0;
}

void
local_loop_want(struct local_loop *l, struct local_source *s, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};

    if (events != s->events) {
        s->events = events;
        epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, s->fd, &ev);
    }
}

void
local_loop_remove(struct local_loop *l, struct local_source *s)
{
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
    /* Its event may wait its turn in the batch being served. */
    for (int i = 0; i < l->n_batch; i++) {
        if (l->batch[i].data.ptr == s) {
            l->batch[i].data.ptr = NULL;
        }
    }
}

int
local_loop_run_once(struct local_loop *l, int timeout_ms)
{
    int n = epoll_wait(l->epoll_fd, l->batch, sizeof l->batch / sizeof l->batch[0], timeout_ms);

    if (n < 0) {
        return errno == EINTR ? 0 : errno;
    }
    l->n_batch = n;
    for (int i = 0; i < n; i++) {
        struct local_source *s = l->batch[i].data.ptr;

        if (s) {
            s->ready(s, l->batch[i].events);
        }
    }
    l->n_batch = 0;
    return 0;
}
