/* Fuzzes what the ends of a migration do with the bytes of one connection: the
 * receiver runs on a socket that has them all, in this thread.
 *
 * The input is a byte (bit 0: at the source's end, bit 1: of a stream driver, bit 2: the
 * guest runs here already) and a list of records: type (1 byte), length (2), body.  Heads are
 * right, checks and sequences too, unless the type's high bit says that the bytes go out as they
 * are. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"
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

/* Nobody is there who would wait with us: for a chunk that is never sent, or until all
 * have been taken. */
static bool
would_wait(bool chunks, uint8_t type, uint8_t *body, size_t len, uint64_t *n_chunks)
{
    if (type == MIG_CHUNK && len > 8) {
        put_le64(body, get_le64(body) % ++*n_chunks);
    }
    return chunks && type == MIG_BARRIER;
}

/* Returns the length of the stream. */
static size_t
make_stream(bool chunks, const uint8_t *in, size_t left)
{
    uint64_t n_chunks = 0;
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
        if (type & 0x80) {
            memcpy(stream + n, in, len);
            n += len;
        } else {
            uint8_t *body = stream + n + MIG_RECORD_HEAD;

            type %= MIG_TYPES;
            memcpy(body, in, len);
            if (!would_wait(chunks, type, body, len, &n_chunks)) {
                mig_record_put(stream + n, type, len, sequence++, body, covered(type, body, len));
                n += MIG_RECORD_HEAD + len;
            }
        }
        in += len;
        left -= len;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

/* What has been queued for the engine is what may be. */
static void
look_at_queue(struct transport *t)
{
    struct transport_message m;

    while (transport_rx(t, &m, 0) == 0) {
        struct mig_msg msg;
        const char *why;

        if (m.type != MIG_CHUNK && mig_msg_get(m.type, m.data, m.len, &msg, &why)) {
            abort();
        }
        transport_message_done(&m);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
    bool source = len && in[0] & 1, chunks = len && in[0] & 2;
    struct transport_config config = {.n_connections = 1, .chunks = chunks};
    struct transport *t;
    int fd[2], room = 2 * ROOM;
    size_t n;

    if (!len) {
        return 0;
    }
    n = make_stream(chunks, in + 1, len - 1);
    if (source && !chunks) {
        config.memory = memory;
        config.n_pages = PAGES;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) {
        abort();
    }
    setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    fcntl(fd[0], F_SETFL, O_NONBLOCK);
    if (transport_create(&config, source, &t)) {
        abort();
    }
    t->hello.n_pages = PAGES;
    memset(memory, 0, sizeof memory);
    if (!source && !chunks && transport_set_memory(t, memory, PAGES)) {
        abort();
    }
    if (in[0] & 4) {
        transport_rx_place(t, place, NULL);
    }
    io_init(&t->c[0].io, fd[1], 1000);
    if (write(fd[0], stream, n) >= 0) {
        shutdown(fd[0], SHUT_WR);
    }
    close(fd[0]);
    transport_receiver(&t->c[0]);
    look_at_queue(t);
    transport_close(t);
    return 0;
}
