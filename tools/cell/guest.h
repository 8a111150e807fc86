/* guest: the parts of a cell's guest, all on one stack; see abi.h.
 *
 * The loop in main.c calls, turn by turn, the interface, lwIP's timers, and the
 * applications; what none of them has to do is slept through in one hypercall. */
#ifndef CELL_GUEST_H
#define CELL_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "abi.h"

extern struct cell_info cell_info;
extern uint8_t heap_start[]; /* cell.ld */

static inline uint64_t
hypercall(enum cell_hypercall nr, uint64_t a, uint64_t b, uint64_t c)
{
    typedef uint64_t (*entry)(uint64_t, uint64_t, uint64_t, uint64_t);

    /* Written by the host between two of them. */
    return ((entry)(uintptr_t) * (volatile uint64_t *)&cell_info.entry)(nr, a, b, c);
}

uint64_t guest_clock(void);
void guest_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* For who works long: the guest can be stopped here. */
void guest_yield(void);
void guest_panic(const char *why) __attribute__((noreturn));

/* text.c: what there is of a C library.  guest_format() knows %s %d %u %x %llu %c %%. */
size_t guest_format(char *buf, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
size_t guest_vformat(char *buf, size_t size, const char *format, __builtin_va_list);
/* The number after 'key' in "a=1&b=2" or "a=1 b=2"; 'fallback' if there is none. */
uint64_t guest_number(const char *text, const char *key, uint64_t fallback);
uint32_t guest_random(void);

/* net.c: the interface.  Its pages: */
#define NET_BYTES (580u * 4096u)
extern uint8_t net_memory[NET_BYTES];
void net_init(void);
void net_event(uint64_t events); /* cell_event */
/* Takes what came; true if something did. */
bool net_poll(void);
void net_flush(void);
/* Asks for an event; true if there is something to take already. */
bool net_arm(void);
struct net_stats {
    uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes, tx_full, moves, resent;
};
extern struct net_stats net_stats;

/* http.c, echo.c, peer.c: TCP and UDP servers and clients. */
void http_init(void);
void http_answer_checks(void); /* the check that somebody waits for is done */
void echo_init(void);
struct echo_stats {
    uint64_t tcp_open, tcp_bytes, udp_datagrams;
};
extern struct echo_stats echo_stats;
/* 'n' connections to ip (network order), port; a message on each every 'ms', whose
 * echo is compared.  How many were begun. */
unsigned peer_connect(uint32_t ip, uint16_t port, unsigned n, unsigned ms);
void peer_poll(uint64_t now);
uint64_t peer_deadline(void); /* guest time of the next message, UINT64_MAX: none */
struct peer_stats {
    uint64_t open, begun, sent, echoed, corrupt, broken;
};
extern struct peer_stats peer_stats;

/* dirty.c: writes memory at a set rate, page by page with content that depends on
 * page and turn, and can tell whether all of it is what was written last. */
struct dirty_stats {
    uint64_t rate_mbps, set_pages, written, checks, corrupt, first_bad;
    bool checking;
};
extern struct dirty_stats dirty_stats;
/* Before the set is chosen: writes that much memory once, with content of all kinds. */
void dirty_fill(uint64_t mb);
/* In MB/s and MB (10^6; 0: as it is); how much of the set there is room for. */
uint64_t dirty_set(uint64_t rate_mbps, uint64_t set_mb);
void dirty_check(void); /* begins a check */
/* Writes, or checks, what is due; true if there is more to do now. */
bool dirty_poll(uint64_t now);
uint64_t dirty_deadline(void); /* UINT64_MAX: none */

#endif
