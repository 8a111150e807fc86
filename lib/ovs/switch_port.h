/* switch_port: where a port is in Open vSwitch, and frames as if they came from it.
 *
 * No header of Open vSwitch.  Works with any ovs-vswitchd: asks its database and
 * speaks OpenFlow to its bridge.
 *
 * Threads: any; calls block up to their timeout. */
#ifndef OVS_SWITCH_PORT_H
#define OVS_SWITCH_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct switch_port {
    char bridge[64];
    uint32_t ofport;
    /* Frames of VLAN 'tag' come from the port without a tag: an access port's, or a
     * trunk's native untagged one.  0: of none. */
    uint16_t untagged;
    bool trunk; /* others come tagged */
};

/* 0; ENOENT: no such port, or not on a bridge yet; ETIMEDOUT; a positive errno. */
int switch_port_find(const char *run_dir, const char *port, int timeout_ms, struct switch_port *);

struct switch_frame {
    uint8_t data[128];
    size_t len;
};
/* The bridge treats the frames as if they had come in by that port: all its tables
 * apply.  Returns when it has them. */
int switch_port_inject(const char *run_dir, const struct switch_port *, const struct switch_frame *,
                       size_t n, int timeout_ms);

#endif
