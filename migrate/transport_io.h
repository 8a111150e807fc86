/* transport_io: the bytes of one connection, plain or TLS.
 *
 * Scattered memory is written from where it lies and read into place.  Small reads are
 * served from what came along with earlier ones.
 *
 * Threads: one writes, one reads.  io_cut() from any; it ends all waiting.
 * Errors: positive errnos; ECONNRESET: the peer closed. */
#ifndef WEFT_MIGRATE_TRANSPORT_IO_H
#define WEFT_MIGRATE_TRANSPORT_IO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct tls;

enum { IO_IOV_MAX = 1 + 256 + 1 };

struct io {
    int fd;
    struct tls *tls;      /* NULL: plain */
    uint64_t deadline_ns; /* of reading, during the handshake; 0: none */
    /* The writer's. */
    int capture_fd; /* or -1 */
    uint8_t *flat;  /* while capturing, or NULL: what is sent, copied once */
    size_t flat_room;
    /* The reader's. */
    uint8_t spill[8192]; /* came along */
    size_t spill_at, spill_end;
    _Atomic uint64_t sent, received; /* bytes, without TLS's own */
};

/* Takes 'fd' over.  A silent peer is given up after 'dead_peer_ms'. */
void io_init(struct io *, int fd, unsigned dead_peer_ms);
/* Also with io_init() never called, if 'fd' is -1. */
void io_destroy(struct io *);
void io_cut(struct io *);

/* All of it, n <= IO_IOV_MAX; the array is used up. */
int io_write(struct io *, struct iovec *, unsigned n);
/* Exactly this much; n < IO_IOV_MAX; the array is used up. */
int io_read(struct io *, struct iovec *, unsigned n);
int io_read_bytes(struct io *, void *, size_t n);

/* Takes 'n' bytes off the front of an array of *n_iov.  Returns what is left of it. */
struct iovec *io_advance(struct iovec *, unsigned *n_iov, size_t n);
/* Of a socket that is not yet connected: TCP's congestion control 'name'; NULL: the system's,
 * unless that is BBR.  0 or an errno; ENOENT: the kernel has none of that name. */
int io_congestion(int fd, const char *name);
/* Until poll(2) has one of 'events', or CLOCK_MONOTONIC 'deadline_ns' (0: none; ETIMEDOUT). */
int io_wait(int fd, short events, uint64_t deadline_ns);

#endif
