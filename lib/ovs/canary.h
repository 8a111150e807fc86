/* canary: do this program and Open vSwitch's libraries mean the same packet?
 *
 * struct dp_packet and its inline functions change shape with the options
 * that Open vSwitch was built with.  A file of ours compiled against another
 * config.h than the libraries' would link and then corrupt packets.
 *
 * Threads: once, at start, before any other. */
#ifndef CANARY_H
#define CANARY_H

/* Returns if all is well, else says what differs and ends the program. */
void canary_check(void);

#endif
