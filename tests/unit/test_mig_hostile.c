/* A source that lies: whole streams, damaged, against the destination's transport.
 *
 * Two sockets send what mig_stream.c made, with bits flipped, records lost, doubled,
 * exchanged or cut, their sequences and checks as they were, or made right again, as
 * somebody would who means it.  Either the destination refuses, or it ends with the very
 * memory that the digest says. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"
#include "check.h"
#include "mig_stream.h"
#include "transport.h"

enum { RECORDS_MAX = 256, TRIES = 400 };

static struct mig_stream streams[2], *good; /* without and with post-copy */

/* --- a stream taken apart ------------------------------------------------------------------- */

struct piece {
    uint32_t type;
    uint8_t *body;
    uint32_t n;
};

struct script {
    struct piece pieces[RECORDS_MAX];
    unsigned n;
    size_t cut; /* bytes from the end that are not sent */
    uint8_t *bytes;
    size_t n_bytes;
    size_t stop[2]; /* what is behind waits: for ACCEPT; for READY (post-copy's pages) */
};

static void
take_apart(struct script *s, unsigned c)
{
    const uint8_t *p = (const uint8_t *)good->source[c].p + MIG_HELLO;
    const uint8_t *end = (const uint8_t *)good->source[c].p + good->source[c].n;

    *s = (struct script){.n = 0};
    while (p < end) {
        struct piece *r = &s->pieces[s->n++];

        r->type = get_le32(p);
        r->n = get_le32(p + 4);
        r->body = malloc(r->n + 1);
        memcpy(r->body, p + MIG_RECORD_HEAD, r->n);
        p += MIG_RECORD_HEAD + r->n;
    }
}

/* The sequence of a record that was not meant to be here is its old one. */
static void
put_together(struct script *s, unsigned c)
{
    size_t n = MIG_HELLO;

    for (unsigned i = 0; i < s->n; i++) {
        n += MIG_RECORD_HEAD + s->pieces[i].n;
    }
    s->bytes = malloc(n);
    memcpy(s->bytes, good->source[c].p, MIG_HELLO);
    s->n_bytes = s->stop[0] = MIG_HELLO;
    s->stop[1] = 0;
    for (unsigned i = 0; i < s->n; i++) {
        const struct piece *r = &s->pieces[i];
        size_t checked = r->n;

        if (r->type == MIG_PAGES && r->n >= 4) {
            checked = mig_batch_head_len(get_le32(r->body) & 0x1ff);
            checked = checked < r->n ? checked : r->n;
        }
        mig_record_put(s->bytes + s->n_bytes, r->type & ~MIG_OPTIONAL, r->n, i, r->body, checked);
        memcpy(s->bytes + s->n_bytes + MIG_RECORD_HEAD, r->body, r->n);
        if (!s->stop[1] && r->type == MIG_PAGES && r->n > 8 && r->body[4] & MIG_BATCH_POSTCOPY) {
            s->stop[1] = s->n_bytes;
        }
        s->n_bytes += MIG_RECORD_HEAD + r->n;
        if (c == 0 && i == 0) {
            s->stop[0] = s->n_bytes;
        }
    }
}

static void
drop(struct script *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        free(s->pieces[i].body);
    }
    free(s->bytes);
}

/* --- damage --------------------------------------------------------------------------------- */

static void
copy_piece(struct script *s, unsigned from, unsigned to)
{
    struct piece r = s->pieces[from];

    r.body = malloc(r.n + 1);
    memcpy(r.body, s->pieces[from].body, r.n);
    memmove(&s->pieces[to + 1], &s->pieces[to], (s->n - to) * sizeof r);
    s->pieces[to] = r;
    s->n++;
}

static void
lose_piece(struct script *s, unsigned i)
{
    free(s->pieces[i].body);
    s->n--;
    memmove(&s->pieces[i], &s->pieces[i + 1], (s->n - i) * sizeof s->pieces[0]);
}

/* Before the checks are made: what a source would send that means it. */
static void
lie(struct script *s)
{
    unsigned i = random() % s->n, j = random() % s->n;
    struct piece *r = &s->pieces[i], other = s->pieces[j];

    switch (random() % 6) {
    case 0: /* a byte of a body, most often in its first words */
        if (r->n) {
            r->body[random() % (random() % 4 && r->n > 48 ? 48 : r->n)] ^= 1u << random() % 8;
        }
        break;
    case 1:
        lose_piece(s, i);
        break;
    case 2:
        copy_piece(s, i, j);
        break;
    case 3:
        s->pieces[j] = *r;
        s->pieces[i] = other;
        break;
    case 4: /* a type that it is not */
        r->type = random() % (MIG_TYPES + 2);
        break;
    case 5: /* shorter */
        r->n = random() % (r->n + 1);
        break;
    }
}

/* Afterwards: what a wire does. */
static void
damage(struct script *s)
{
    switch (random() % 3) {
    case 0:
        s->bytes[random() % s->n_bytes] ^= 1u << random() % 8;
        break;
    case 1:
        s->cut = random() % s->n_bytes;
        break;
    case 2:
        s->bytes[MIG_HELLO + random() % (s->n_bytes - MIG_HELLO)] = random();
        break;
    }
}

/* --- a source -------------------------------------------------------------------------------- */

struct source {
    struct script script;
    const char *address;
    const int *go;   /* pipes, whose ends are closed when what is behind script.stop[] may go */
    int patience_ms; /* not for ever: what would open them may have been lost */
    pthread_t thread;
};

static int
dial(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct timeval patience = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    to.sin_port = htons(atoi(strrchr(address, ':') + 1));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void
put(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

        if (sent <= 0) {
            return;
        }
        p += sent;
        n -= sent;
    }
}

static void *
source_main(void *aux)
{
    struct source *s = aux;
    const struct script *k = &s->script;
    size_t n = k->n_bytes - k->cut, at = n < MIG_HELLO ? n : MIG_HELLO;
    uint8_t answer[256];
    int fd = dial(s->address);

    if (fd < 0) {
        return NULL;
    }
    put(fd, k->bytes, at);
    if (n > MIG_HELLO && recv(fd, answer, MIG_HELLO, MSG_WAITALL) == MIG_HELLO) {
        for (unsigned i = 0; i < 2; i++) {
            size_t stop = k->stop[i] && k->stop[i] < n ? k->stop[i] : n;

            if (stop > at) {
                put(fd, k->bytes + at, stop - at);
                at = stop;
            }
            if (at < n) {
                poll(&(struct pollfd){.fd = s->go[i], .events = POLLIN}, 1, s->patience_ms);
            }
        }
        put(fd, k->bytes + at, n - at);
    }
    shutdown(fd, SHUT_WR);
    while (recv(fd, answer, sizeof answer, 0) > 0) {
    }
    close(fd);
    return NULL;
}

/* --- the destination -------------------------------------------------------------------------- */

static uint8_t memory[STREAM_PAGES][MIG_PAGE] __attribute__((aligned(4096)));
static _Atomic uint64_t missing; /* pages of PENDING that have not come */

static int
place(void *aux, uint64_t pfn, const uint8_t *page)
{
    uint64_t bit = 1ull << pfn;

    if (!(atomic_fetch_and(&missing, ~bit) & bit)) {
        return EEXIST;
    }
    memcpy(memory[pfn], page, MIG_PAGE);
    return 0;
}

/* Pages that are owed, as the engine notes them.  False: it would not. */
static bool
note_pending(const struct mig_msg *m)
{
    for (uint32_t i = 0; i < m->pending.n; i++) {
        struct mig_range r = mig_range_get(m, i);

        if (r.pfn + r.count > STREAM_PAGES) {
            return false;
        }
        missing |= ((1ull << r.count) - 1) << r.pfn;
    }
    return true;
}

/* Is the memory what FINAL says, and what the transport thinks? */
static int
compare(struct transport *t, const struct mig_msg *m)
{
    static uint8_t copy[STREAM_PAGES][MIG_PAGE];
    const uint64_t owed = missing;
    struct mig_sum sum, lies;
    uint8_t digest[16];

    if (owed) {
        transport_forget(t, &owed);
    }
    sum = transport_digest(t);
    mig_sum_put(digest, &sum);
    if (memcmp(digest, m->final.digest, 16)) {
        return EBADMSG;
    }
    for (unsigned pfn = 0; pfn < STREAM_PAGES; pfn++) {
        memcpy(copy[pfn], memory[pfn], MIG_PAGE);
        if (owed >> pfn & 1) {
            memset(copy[pfn], 0, MIG_PAGE);
        }
    }
    lies = mig_digest_of(copy, STREAM_PAGES, transport_hashes(t)->key);
    if (owed) {
        transport_rx_place(t, place, NULL);
    }
    return memcmp(&sum, &lies, sizeof sum) ? EIO : 0;
}

enum outcome { REFUSED, EQUAL, WRONG };

static void
let_go(int *go)
{
    if (*go >= 0) {
        close(*go);
        *go = -1;
    }
}

/* One record, as the engine would take it. */
static int
take(struct transport *t, const struct mig_msg *m, int go[2])
{
    int error = 0;

    switch (m->type) {
    case MIG_CONFIG:
        error = transport_set_memory(t, memory[0], STREAM_PAGES);
        let_go(&go[0]);
        break;
    case MIG_PENDING:
        error = note_pending(m) ? 0 : EPROTO;
        break;
    case MIG_FINAL:
        error = compare(t, m);
        let_go(&go[1]);
        break;
    }
    return error;
}

/* Takes everything. */
static enum outcome
receive(struct transport *t, int go[2])
{
    struct transport_message message;
    enum outcome outcome = REFUSED;
    bool begun = false;
    struct mig_msg m;
    const char *why;
    int error;

    while (!(error = transport_rx(t, &message, 20000))) {
        /* The transport has looked at it. */
        error = mig_msg_get(message.type, message.data, message.len, &m, &why) ? EIO
                : !begun && m.type != MIG_CONFIG                               ? EPROTO
                                                                               : take(t, &m, go);
        begun = true;
        transport_message_done(&message);
        if (error) {
            break;
        }
        outcome = m.type != MIG_FINAL ? outcome : missing ? REFUSED : EQUAL;
    }
    return error == ETIMEDOUT || error == EIO ? WRONG
           : error == ENODATA                 ? outcome
           : outcome == EQUAL                 ? EQUAL
                                              : REFUSED;
}

static enum outcome
play(struct source sources[STREAM_CONNECTIONS], int patience_ms)
{
    struct transport_config config = {.n_connections = STREAM_CONNECTIONS,
                                      .handshake_timeout_ms = 10 * patience_ms,
                                      .identity.epoch = STREAM_EPOCH};
    struct transport_listener *listener;
    enum outcome outcome = REFUSED;
    struct transport *t = NULL;
    int pipes[2][2], hold[2], go[2];
    char why[TRANSPORT_WHY];

    memcpy(config.identity.vm, stream_vm, 16);
    memcpy(config.identity.migration, stream_migration, 16);
    memset(memory, 0, sizeof memory);
    missing = 0;
    if (pipe(pipes[0]) || pipe(pipes[1]) || transport_listen("127.0.0.1:0", &listener, why)) {
        return WRONG;
    }
    for (unsigned i = 0; i < 2; i++) {
        go[i] = pipes[i][0];
        hold[i] = pipes[i][1];
    }
    for (unsigned c = 0; c < STREAM_CONNECTIONS; c++) {
        sources[c].address = transport_listener_address(listener);
        sources[c].go = go;
        sources[c].patience_ms = patience_ms;
        pthread_create(&sources[c].thread, NULL, source_main, &sources[c]);
    }
    if (!transport_accept(listener, &config, 10 * patience_ms, -1, &t, why)) {
        outcome = receive(t, hold);
    }
    let_go(&hold[0]);
    let_go(&hold[1]);
    transport_close(t);
    transport_listener_close(listener);
    for (unsigned c = 0; c < STREAM_CONNECTIONS; c++) {
        pthread_join(sources[c].thread, NULL);
        drop(&sources[c].script);
        close(go[c]);
    }
    return outcome;
}

__attribute__((unused)) static void
test_lies(void)
{
    struct source sources[STREAM_CONNECTIONS];
    unsigned outcomes[3] = {0};

    CASE("mig_hostile/whatever a source sends, it is refused or the digest's memory");
    srandom(11);
    for (unsigned i = 0; i < TRIES; i++) {
        bool wire = i % 4 == 0;

        good = &streams[i / 8 % 2];
        for (unsigned c = 0; c < STREAM_CONNECTIONS; c++) {
            take_apart(&sources[c].script, c);
            if (!wire && i % STREAM_CONNECTIONS == c) {
                lie(&sources[c].script);
            }
            put_together(&sources[c].script, c);
            if (wire && i / 4 % STREAM_CONNECTIONS == c) {
                damage(&sources[c].script);
            }
        }
        outcomes[play(sources, 50)]++;
    }
    CHECK(!outcomes[WRONG]);
    CHECK(outcomes[REFUSED] > TRIES / 3 && outcomes[EQUAL] > 0);
}

int
main(void)
{
    struct source sources[STREAM_CONNECTIONS];

    CASE("mig_hostile/the streams as they are arrive");
    for (unsigned i = 0; i < 2; i++) {
        good = &streams[i];
        CHECK(mig_stream_make(good, i, 5 + i));
        for (unsigned c = 0; c < STREAM_CONNECTIONS; c++) {
            take_apart(&sources[c].script, c);
            put_together(&sources[c].script, c);
            CHECK(sources[c].script.n_bytes == good->source[c].n &&
                  !memcmp(sources[c].script.bytes, good->source[c].p, good->source[c].n));
        }
        CHECK(play(sources, 5000) == EQUAL);
        CHECK(!memcmp(memory, good->memory, sizeof memory));
    }

#ifdef __SANITIZE_THREAD__
    printf("skip mig_hostile/whatever a source sends: its pages race on purpose\n");
#else
    test_lies();
#endif
    mig_stream_free(&streams[0]);
    mig_stream_free(&streams[1]);
    return check_done();
}
