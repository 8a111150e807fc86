/* lab_move: moves a lab's cells between hosts, one after the other, by "weft vm
 * migrate", and keeps how long each was out of reach.  While one moves, a guest of
 * its network pings it a hundred times a second; and all the time it holds
 * connections to the cell (lab_traffic.h), of the first few cells.
 *
 * Single-threaded; fd is readable when lab_move_event() has something to do. */
#ifndef LAB_MOVE_H
#define LAB_MOVE_H

#include "lab.h"
#include "lab_traffic.h"

#define LAB_MOVE_HISTORY 512u
#define LAB_MOVE_TRAFFIC 8u /* cells */

struct lab_move {
    struct lab *lab;
    bool possible; /* there is a cell, and somewhere to go */
    struct lab_proc proc, ping;
    int fd;              /* -1: none is under way */
    int ping_fd;         /* -1: nobody pings */
    unsigned cell, next; /* that is moved; that is moved next */
    char from[12], to[12];
    int64_t started_ms;
    char report[65536];
    size_t report_len;
    unsigned n_done, n_failed;
    double blackout_ms[LAB_MOVE_HISTORY]; /* the last ones */
    char last[48];                        /* "cell1 h1 > h2", that went well or not */
    double last_ms;                       /* of the last that went well; < 0: none yet */
    double total_s;
    unsigned pings, lost;                         /* of all moves that went well */
    char error[200];                              /* of the last, or "" */
    struct lab_traffic traffic[LAB_MOVE_TRAFFIC]; /* of the cells, in order */
    unsigned n_traffic;
};

void lab_move_init(struct lab_move *, struct lab *);
/* The next cell goes to the next host; nothing if one is under way. */
void lab_move_start(struct lab_move *);
/* Takes what there is; true if a move has ended. */
bool lab_move_event(struct lab_move *);
void lab_move_stop(struct lab_move *);
/* Reads what the connections say.  True if one of them broke since. */
bool lab_move_traffic(struct lab_move *);
/* Ends them; what they carried stays known. */
void lab_move_end_traffic(struct lab_move *);
/* Of a cell, or NULL: nobody has connections to it. */
const struct lab_traffic_state *lab_move_traffic_of(const struct lab_move *, unsigned cell);
/* The value that so much of the moves stay below, 0 < 'part' <= 1; < 0: none yet. */
double lab_move_quantile(const struct lab_move *, double part);

#endif
