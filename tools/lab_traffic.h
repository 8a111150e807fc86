/* lab_traffic: open connections to a cell, every byte of which is checked.
 *
 * "weft lab traffic" holds connections to the cell's echo port, sends a little on each
 * five times a second, and reads one HTTP download that has no end at about 1 MB/s.
 * Connecting is tried until it succeeds; what breaks then stays broken.  A lab's
 * watcher runs it in a guest and reads its lines.
 *
 * Single-threaded.  The process ends with the one that started it. */
#ifndef LAB_TRAFFIC_H
#define LAB_TRAFFIC_H

#include "lab.h"

#define LAB_TRAFFIC_CONNECTIONS 50u

struct lab_traffic_state {
    unsigned connections; /* to the echo port; the download is one more */
    unsigned opened;      /* of all, so far */
    unsigned broken;      /* of these; what differs is broken, too */
    unsigned differ;
    unsigned waiting;       /* for an answer that is late */
    uint64_t echoes, bytes; /* right ones; bytes are the download's */
    unsigned longest_ms;    /* that an echo took */
    char why[120];          /* the first that broke, or "" */
};

struct lab_traffic {
    struct lab_proc proc;
    int fd; /* of its lines; -1: it does not run */
    char line[512];
    size_t n_line;
    bool ending;
    struct lab_traffic_state state;
};

int lab_traffic_main(int argc, char **argv);

void lab_traffic_init(struct lab_traffic *);
/* Runs it in a guest. */
void lab_traffic_start(struct lab_traffic *, const struct lab *, const struct lab_guest *,
                       const char *ip);
/* Takes the lines that came, without waiting.  True if it broke with these. */
bool lab_traffic_event(struct lab_traffic *);
/* Ends it; its last line is in 'state' then. */
void lab_traffic_stop(struct lab_traffic *);
/* None broke. */
bool lab_traffic_whole(const struct lab_traffic_state *);
/* All are open, have carried something right, none broke, and none waits. */
bool lab_traffic_good(const struct lab_traffic_state *);
/* "50 connections and a download: 0 broken, 12 MB, no byte differs; ..." */
void lab_traffic_text(const struct lab_traffic_state *, char *buf, size_t size);

#endif
