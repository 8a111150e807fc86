/* network_priv: what network.c (the switch) and network_late.c (late frames) share. */
#ifndef NETWORK_PRIV_H
#define NETWORK_PRIV_H

#include <pthread.h>

#include "announce.h"
#include "network.h"
#include "network_state.h"
#include "ovs/switch_port.h"

#define LOST_MAX (NETWORK_VIFS_MAX * 6)

/* A vif at this end. */
struct end_vif {
    struct network_vif is;
    size_t given; /* its place in network_open() */
    struct switch_port where;
    struct vif_known known;
    bool gathered;
    struct network_times times; /* as last heard: the port may go */
    int socket;                 /* of late frames, -1: none */
    bool fed;                   /* it has been tried */
};

struct network {
    struct end_vif vifs[NETWORK_VIFS_MAX];
    size_t n;
    bool keeps; /* the destination */
    bool mute;  /* the switch's database did not say where ports are */
    char why[256];
    pthread_mutex_t lost_lock;
    char lost[LOST_MAX][192];
    size_t n_lost;

    /* Late frames; perhaps another thread's. */
    int epoll, all_closed;
    size_t n_open;
};

/* What a vif is announced by. */
struct frames {
    struct switch_frame all[1 + NETWORK_MACS_MAX + NETWORK_CHILDREN_MAX + NETWORK_ADDRESSES_MAX +
                            NETWORK_GROUPS_MAX];
    size_t n;
};
void network_make_frames(const struct end_vif *, struct frames *);

/* Says why and returns 'error'. */
int network_fail(struct network *, const struct end_vif *, int error, const char *what);
/* Notes what could not be carried, once. */
void network_lose(struct network *, const struct end_vif *, const char *what);
void late_close(struct network *);

_Static_assert(sizeof((struct switch_frame *)0)->data >= ANNOUNCE_MAX, "frames fit");

#endif
