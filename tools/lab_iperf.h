/* lab_iperf: short iperf3 measurements between two guests, beside other work.
 *
 * A measurement is a one-off server in one guest and a client in another;
 * lab_iperf_event() moves it on whenever one of its descriptors is readable.
 *
 * Single-threaded. */
#ifndef LAB_IPERF_H
#define LAB_IPERF_H

#include <poll.h>

#include "lab.h"

enum lab_iperf_state {
    LAB_IPERF_IDLE,
    LAB_IPERF_LISTENING, /* waiting for the server's first line */
    LAB_IPERF_SENDING,   /* collecting the client's report */
};

#define LAB_IPERF_HISTORY 32u

struct lab_iperf {
    struct lab *lab;
    unsigned from, to; /* guests; a lab without such a pair measures nothing */
    bool possible;
    enum lab_iperf_state state;
    struct lab_proc server, client;
    int fd; /* what to poll; -1 when idle */
    char report[65536];
    size_t report_len;
    int64_t started_ms;
    double gbps; /* the last result; negative: none yet */
    double history[LAB_IPERF_HISTORY];
    unsigned n_history;
    char error[160]; /* why the last one failed; empty: it did not */
};

/* Picks the first two guests of one VLAN, on different hosts if possible. */
void lab_iperf_init(struct lab_iperf *, struct lab *);
void lab_iperf_start(struct lab_iperf *);
/* Call when 'fd' is readable, and now and then for time-outs. */
void lab_iperf_event(struct lab_iperf *, unsigned seconds);
void lab_iperf_stop(struct lab_iperf *);

#endif
