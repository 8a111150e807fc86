/* lab_ping: echo requests between guests, all at once, without ping(8).
 *
 * Each guest pings every other (in large labs the next few).  A round sends
 * one request for each pair; replies are taken as they come.
 *
 * Single-threaded. */
#ifndef LAB_PING_H
#define LAB_PING_H

#include <poll.h>

#include "lab.h"

struct lab_ping_pair {
    unsigned from, to; /* indices of guests */
    bool same_network;
    uint16_t seq;   /* of the round's request */
    int64_t rtt_ns; /* the round's answer; -1: none yet */
    int64_t sent_ns;
    unsigned answered; /* rounds answered so far */
};

struct lab_ping {
    struct lab *lab;
    struct pollfd *fds; /* one for each guest; poll them together with one's own */
    unsigned n_fds;
    struct lab_ping_pair *pairs;
    unsigned n_pairs;
    uint16_t id;
    uint16_t round;
};

/* Summary of a round. */
struct lab_ping_sum {
    unsigned same, same_ok;   /* pairs on one VLAN, and answered */
    unsigned other, other_ok; /* pairs on different VLANs, and answered: a leak */
    int64_t worst_ns;         /* among those of one VLAN */
};

/* 0 or a positive errno with lab->why set. */
int lab_ping_open(struct lab_ping *, struct lab *);
void lab_ping_close(struct lab_ping *);
void lab_ping_send(struct lab_ping *);
/* Takes the replies of guest 'i' (whose fd is readable). */
void lab_ping_receive(struct lab_ping *, unsigned i);
void lab_ping_sum(const struct lab_ping *, struct lab_ping_sum *);

#endif
