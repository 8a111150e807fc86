/* replay: exporters' datagrams out of a capture (pcap, pcapng).
 *
 * Every UDP datagram that looks like NetFlow v5, v9, IPFIX or sFlow, whatever
 * its port, goes to the collector at the time of its capture.  Fragments and
 * streams are counted and passed over.  Threads: one at a time. */
#ifndef REPLAY_H
#define REPLAY_H

#include <stddef.h>
#include <stdint.h>

#include "collect.h"

struct replay_counts {
    uint64_t frames, messages, others;
};

/* 'file': a name, "-" for standard input.  'more' (may be NULL) is asked now and then
 * whether to go on.  0, or an errno with a sentence in 'why': what came before the fault has gone
 * through. */
int replay_file(struct collect *, const char *file, bool (*more)(void), struct replay_counts *,
                char *why, size_t why_size);

/* Whether these bytes can be a message of one of the protocols. */
bool replay_plausible(const uint8_t *data, size_t len);

#endif
