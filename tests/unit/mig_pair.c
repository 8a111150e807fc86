#include "mig_pair.h"

#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

void
mig_pair_init(struct mig_pair *p, unsigned n_connections, uint64_t n_pages)
{
    memset(p, 0, sizeof *p);
    p->from = (struct transport_config){
        .identity = {.vm = {1, 2, 3}, .migration = {4, 5, 6}, .epoch = 7},
        .n_connections = n_connections,
        .chunks = !n_pages,
        .n_pages = n_pages,
    };
    p->to = p->from;
    p->to.n_pages = 0;
    p->n_pages = n_pages;
    p->give_up = eventfd(0, EFD_CLOEXEC);
    if (n_pages) {
        p->memory = mmap(NULL, n_pages * MIG_PAGE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        p->copy = mmap(NULL, n_pages * MIG_PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        p->from.memory = p->memory;
    }
}

static void *
connect_main(void *pair)
{
    struct mig_pair *p = pair;

    p->from_error = transport_connect(transport_listener_address(p->listener), &p->from, &p->source,
                                      p->from_why);
    if (p->from_error) {
        /* The destination has its own reason to find. */
        usleep(150000);
        eventfd_write(p->give_up, 1);
    }
    return NULL;
}

bool
mig_pair_open(struct mig_pair *p)
{
    pthread_t thread;

    if (!p->listener && transport_listen("127.0.0.1:0", &p->listener, p->to_why)) {
        return false;
    }
    pthread_create(&thread, NULL, connect_main, p);
    p->to_error =
        transport_accept(p->listener, &p->to, 20000, p->give_up, &p->destination, p->to_why);
    pthread_join(thread, NULL);
    if (!p->to_error && p->n_pages) {
        p->to_error = transport_set_memory(p->destination, p->copy, p->n_pages);
    }
    return !p->from_error && !p->to_error;
}

void
mig_pair_close(struct mig_pair *p)
{
    transport_close(p->source);
    transport_close(p->destination);
    transport_listener_close(p->listener);
    close(p->give_up);
    if (p->n_pages) {
        munmap(p->memory, p->n_pages * MIG_PAGE);
        munmap(p->copy, p->n_pages * MIG_PAGE);
    }
}
