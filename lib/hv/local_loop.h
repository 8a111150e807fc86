/* local_loop: the event loop of weft-localxen: epoll, and callbacks that may
 * remove any source, themselves included.
 *
 * Threads: one.  Ownership: a source belongs to its creator, embedded in what
 * it serves, and must be removed before that is freed. */
#ifndef LOCAL_LOOP_H
#define LOCAL_LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

struct local_source {
    int fd;
    void (*ready)(struct local_source *, uint32_t events); /* EPOLL* */
    uint32_t events;                                       /* asked for now */
};

struct local_loop {
    int epoll_fd;
    struct epoll_event batch[64];
    int n_batch;
};

int local_loop_open(struct local_loop *); /* close its epoll_fd to end it */
int local_loop_add(struct local_loop *, struct local_source *, uint32_t events);
void local_loop_want(struct local_loop *, struct local_source *, uint32_t events);
void local_loop_remove(struct local_loop *, struct local_source *); /* leaves the descriptor open */

/* Waits (-1: without end) and calls what is ready.  0 or an errno. */
int local_loop_run_once(struct local_loop *, int timeout_ms);

#endif
