/* Fuzzes what a migration's destination does with the bytes of one connection: the
 * receiver runs on a socket that has them all, in this thread.
 *
 * The input is a list of records: type (1 byte), length (2), body.  Heads are right, checks
 * and sequences too, unless the type's high bit says that the bytes go out as they are. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport_priv.h"

enum { PAGES = 256, ROOM = 1 << 17 };

static uint8_t memory[PAGES * MIG_PAGE];
static uint8_t stream[ROOM];

static int
place(void *aux, uint64_t pfn, const uint8_t *page)
{
    memcpy(memory + pfn * MIG_PAGE, page, MIG_PAGE);
    return 0;
}

/* Bytes of a body that its check covers. */
static size_t
covered(uint32_t type, const uint8_t *body, size_t len)
{
    const char *why;
    size_t n = len >= MIG_BATCH_HEAD ? mig_batch_peek(body, len, &why) : 0;

    return type == MIG_PAGES && n ? n : len;
}

/* Returns the length of the stream. */
static size_t
make_stream(const uint8_t *in, size_t left)
{
    uint32_t sequence = 0;
    size_t n = 0;

    while (left >= 3) {
        uint8_t type = in[0];
        size_t len = in[1] | in[2] << 8;

        in += 3;
        left -= 3;
        len = len < left ? len : left;
        if (n + MIG_RECORD_HEAD + len > sizeof stream) {
            break;
        }
        if (!(type & 0x80)) {
            type %= MIG_TYPES;
            mig_record_put(stream + n, type, len, sequence++, in, covered(type, in, len));
            n += MIG_RECORD_HEAD;
        }
        memcpy(stream + n, in, len);
        n += len;
        in += len;
        left -= len;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

int
LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
    struct transport_config config = {.n_connections = 1};
    size_t n = make_stream(in, len);
    struct transport *t;
    int fd[2], room = 2 * ROOM;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) {
        abort();
    }
    setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    fcntl(fd[0], F_SETFL, O_NONBLOCK);
    if (transport_create(&config, false, &t)) {
        abort();
    }
    t->hello.n_pages = PAGES;
    memset(memory, 0, sizeof memory);
    if (transport_set_memory(t, memory, PAGES)) {
        abort();
    }
    transport_rx_place(t, place, NULL);
    io_init(&t->c[0].io, fd[1], 1000);
    if (write(fd[0], stream, n) >= 0) {
        shutdown(fd[0], SHUT_WR);
    }
    close(fd[0]);
    transport_receiver(&t->c[0]);
    transport_close(t);
    return 0;
}
