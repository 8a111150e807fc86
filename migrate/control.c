/* Orders from outside the engine's thread. */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "end.h"

struct mig_control *
mig_control_create(void)
{
    struct mig_control *c = calloc(1, sizeof *c);

    if (c) {
        pthread_mutex_init(&c->lock, NULL);
        c->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (c->wake < 0) {
            mig_control_destroy(c);
            c = NULL;
        }
    }
    return c;
}

void
mig_control_destroy(struct mig_control *c)
{
    if (c) {
        if (c->wake >= 0) {
            close(c->wake);
        }
        pthread_mutex_destroy(&c->lock);
        free(c);
    }
}

static void
wake(struct mig_control *c)
{
    eventfd_write(c->wake, 1);
}

/* The engine looks at its orders several times a second; only a toolstack may make
 * it wait longer. */
static void
interrupt(struct mig_control *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->stream) {
        c->stream->ops->stream_cancel(c->stream);
    }
    pthread_mutex_unlock(&c->lock);
    wake(c);
}

void
mig_control_cancel(struct mig_control *c)
{
    c->cancel = true;
    interrupt(c);
}

void
mig_control_quit(struct mig_control *c)
{
    c->quit = true;
    interrupt(c);
}

void
mig_control_postcopy(struct mig_control *c)
{
    c->postcopy = true;
    wake(c);
}

void
mig_control_limit(struct mig_control *c, uint64_t mbps)
{
    c->limit_mbps = mbps;
    c->limit_set = true;
    wake(c);
}

void
mig_control_continue(struct mig_control *c)
{
    c->go_on = true;
    wake(c);
}
