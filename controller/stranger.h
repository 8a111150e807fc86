/* stranger: who has come to a port and has not yet shown who he is.
 *
 * A port lets a bounded number of them wait at a time, and who has most of them makes room:
 * one address, whatever it does, keeps nobody else out.
 *
 * Threads: none but the caller's. */
#ifndef CTL_STRANGER_H
#define CTL_STRANGER_H

#include <stddef.h>
#include <stdint.h>

#include "openvswitch/list.h"

struct stream;

/* Part of a session, and so are the lists of them, the oldest first. */
struct stranger {
    struct ovs_list node;
    uint32_t address; /* names that of who came; 0: a socket's, which all have */
};

/* 'basis' is the port's own, and random: nobody outside can tell which addresses share a
 * name. */
uint32_t stranger_address(const struct stream *, uint32_t basis);
/* How many of the list have the address; 0 counts as nobody's. */
size_t stranger_count(const struct ovs_list *, uint32_t address);
/* Who makes room: the oldest of the address that has most.  NULL: the list is empty. */
struct stranger *stranger_makes_room(const struct ovs_list *);

#endif
