/* netdev_synth: the interface type "synth", a port for benchmarks.
 *
 *   ovs-vsctl add-port br0 s1 -- set interface s1 type=synth options:flows=100000
 *
 * Polled like a NIC, it hands out frames that it makes by itself, as fast as
 * they are taken or at a set rate, and counts what it is sent.  Whichever
 * datapath polls it, the work at the port is the same, and about a NIC's.
 * Options and commands: docs/performance.md.
 *
 * Threads: as lib/netdev-provider.h says; register once, before the bridges. */
#ifndef NETDEV_SYNTH_H
#define NETDEV_SYNTH_H

void netdev_synth_register(void);

#endif
