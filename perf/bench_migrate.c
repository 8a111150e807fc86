/* bench_migrate: a guest's memory from one process to another through the migration's
 * transport, over loopback.
 *
 *   bench_migrate IMAGE CONNECTIONS COMPRESS [KEY CERTIFICATE CA NAME]
 *   bench_migrate make IMAGE MIB
 *   bench_migrate warm MIB
 *
 * "make" writes an image: 30 % of its pages zeros, 40 % compressible (words of 16 bytes, 64
 * different ones), 30 % noise.  "warm" uses that much memory and gives it back: where a
 * hypervisor takes free memory away, the next one to use it does not pay for that.
 *
 * IMAGE is mapped as the source's memory; the destination's is anonymous, with huge pages
 * where the kernel has them (as QEMU's).  COMPRESS: auto, none, lz4 or zstd.  With KEY..:
 * TLS.  Prints a JSON object: seconds, CPU seconds of both ends, bytes on the wire, pages
 * by the way they were sent.  Fails unless the destination's memory is the image's. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "transport.h"

enum { WAIT_MS = 120000 };

struct setup {
    const char *image;
    struct transport_config config;
    struct transport_tls tls;
    uint8_t *memory;
    size_t bytes;
};

/* What the destination tells the source's process. */
struct outcome {
    double cpu;
    uint64_t pages;
    int error;
    bool same;
};

static double
now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double
cpu_of_self(void)
{
    struct rusage r;

    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static void
die(const char *what, int error, const char *why)
{
    fprintf(stderr, "bench_migrate: %s: %s %s\n", what, strerror(error), why);
    exit(1);
}

static void
map_image(struct setup *s)
{
    struct stat st;
    int fd = open(s->image, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st)) {
        die(s->image, errno, "");
    }
    s->bytes = st.st_size / MIG_PAGE * MIG_PAGE;
    s->memory = mmap(NULL, s->bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (s->memory == MAP_FAILED) {
        die(s->image, errno, "");
    }
    close(fd);
}

static int
tell(struct transport *t, uint32_t type, uint64_t n_pages, struct mig_sum digest)
{
    struct mig_msg m = {.type = type};
    uint8_t body[256];

    if (type == MIG_ACCEPT) {
        m.accept.n_pages = n_pages;
    } else if (type == MIG_FINAL) {
        memcpy(m.final.digest, &digest, sizeof digest);
        m.final.epoch = 1;
    } else {
        memcpy(m.ready.digest, &digest, sizeof digest);
        m.ready.epoch = 1;
    }
    return transport_tx_record(t, type, body, mig_msg_put(body, sizeof body, &m));
}

static int
wait_for(struct transport *t, uint32_t type, struct mig_sum *digest)
{
    struct transport_message m;
    struct mig_msg msg;
    const char *why;
    int error = transport_rx(t, &m, WAIT_MS);

    if (!error && (m.type != type || mig_msg_get(m.type, m.data, m.len, &msg, &why))) {
        error = EBADMSG;
    }
    if (!error && type != MIG_ACCEPT) {
        memcpy(digest, type == MIG_FINAL ? msg.final.digest : msg.ready.digest, sizeof *digest);
    }
    transport_message_done(&m);
    return error;
}

static int
part(struct transport *t)
{
    int error = transport_finish(t, WAIT_MS);

    transport_close(t);
    return error;
}

static struct outcome
receive(struct setup *s, struct transport_listener *l)
{
    struct outcome o = {0};
    struct mig_sum theirs, ours;
    struct transport *t;
    uint8_t *memory;
    char why[TRANSPORT_WHY];
    double cpu;

    memory = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        die("memory", errno, "");
    }
    madvise(memory, s->bytes, MADV_HUGEPAGE);
    cpu = cpu_of_self();
    o.error = transport_accept(l, &s->config, WAIT_MS, -1, &t, why);
    if (o.error) {
        die("accept", o.error, why);
    }
    o.error = transport_set_memory(t, memory, s->bytes / MIG_PAGE);
    o.error = o.error ? o.error : tell(t, MIG_ACCEPT, s->bytes / MIG_PAGE, (struct mig_sum){0});
    o.error = o.error ? o.error : wait_for(t, MIG_FINAL, &theirs);
    if (!o.error) {
        ours = transport_digest(t);
        o.error = memcmp(&ours, &theirs, sizeof ours) ? EBADMSG : tell(t, MIG_READY, 0, ours);
    }
    o.error = part(t) ? EBADMSG : o.error;
    o.cpu = cpu_of_self() - cpu;
    o.same = !memcmp(memory, s->memory, s->bytes);
    return o;
}

static void
run_source(struct setup *s, const char *address, int from_child)
{
    double wall, cpu = cpu_of_self(), start = now();
    struct transport_stats stats;
    struct mig_sum theirs;
    struct transport *t;
    struct outcome o;
    char why[TRANSPORT_WHY];
    int error = transport_connect(address, &s->config, &t, why);

    if (error) {
        die("connect", error, why);
    }
    transport_tx_round(t, 0, MIG_BATCH_EXACT);
    error = wait_for(t, MIG_ACCEPT, &theirs);
    error = error ? error : transport_tx_run(t, 0, s->config.n_pages);
    error = error ? error : transport_tx_barrier(t);
    error = error ? error : transport_flush(t, WAIT_MS);
    error = error ? error : tell(t, MIG_FINAL, 0, transport_digest(t));
    error = error ? error : wait_for(t, MIG_READY, &theirs);
    wall = now() - start;
    transport_get_stats(t, &stats);
    error = part(t) ? EBADMSG : error;
    cpu = cpu_of_self() - cpu;
    if (error || read(from_child, &o, sizeof o) != sizeof o || o.error || !o.same) {
        die("migration", error ? error : EBADMSG, "");
    }
    printf("{\"seconds\": %.6f, \"cpu_source\": %.6f, \"cpu_destination\": %.6f, "
           "\"bytes\": %zu, \"wire\": %llu, \"raw\": %llu, \"lz4\": %llu, \"zstd\": %llu}\n",
           wall, cpu, o.cpu, s->bytes, (unsigned long long)stats.wire_bytes_sent,
           (unsigned long long)stats.pages_by_kind[MIG_RAW],
           (unsigned long long)stats.pages_by_kind[MIG_LZ4],
           (unsigned long long)stats.pages_by_kind[MIG_ZSTD]);
}

static bool
parse(int argc, char **argv, struct setup *s)
{
    static const char *const ways[] = {"auto", "none", "lz4", "zstd"};
    static const enum mig_compress compress[] = {MIG_COMPRESS_AUTO, MIG_COMPRESS_NONE,
                                                 MIG_COMPRESS_LZ4, MIG_COMPRESS_ZSTD};

    if (argc != 4 && argc != 8) {
        return false;
    }
    s->image = argv[1];
    s->config.n_connections = atoi(argv[2]);
    s->config.identity.epoch = 1;
    for (unsigned i = 0; i < 4; i++) {
        if (!strcmp(argv[3], ways[i])) {
            s->config.compress = compress[i];
        }
    }
    if (argc == 8) {
        s->tls = (struct transport_tls){.private_key = argv[4],
                                        .certificate = argv[5],
                                        .ca_cert = argv[6],
                                        .peer_name = argv[7]};
        s->config.tls = &s->tls;
    }
    return s->config.n_connections > 0;
}

static uint64_t
rnd(void)
{
    static uint64_t seed = 88172645463325252ull;

    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static int
make(const char *path, unsigned mib)
{
    FILE *f = fopen(path, "wb");
    bool ok = f;

    for (unsigned i = 0; i < mib << 8 && ok; i++) {
        uint64_t page[MIG_PAGE / 8] = {0}, kind = rnd() % 10;

        for (unsigned k = 0; k < MIG_PAGE / 8 && kind >= 3; k += 2) {
            page[k] = kind < 7 ? rnd() % 64 * 0x9E3779B97F4A7C15ull : rnd();
            page[k + 1] = kind < 7 ? ~page[k] * 7 : rnd();
        }
        ok = fwrite(page, sizeof page, 1, f) == 1;
    }
    return f && !fclose(f) && ok ? 0 : 1;
}

static int
warm(size_t bytes)
{
    uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        return 1;
    }
    madvise(p, bytes, MADV_HUGEPAGE);
    return madvise(p, bytes, MADV_POPULATE_WRITE) ? 1 : 0;
}

int
main(int argc, char **argv)
{
    struct setup s = {0};
    struct transport_listener *l;
    char why[TRANSPORT_WHY];
    struct outcome o;
    int answer[2], status = 0;
    pid_t child;

    if (argc == 4 && !strcmp(argv[1], "make")) {
        return make(argv[2], atoi(argv[3]));
    }
    if (argc == 3 && !strcmp(argv[1], "warm")) {
        return warm((size_t)atoi(argv[2]) << 20);
    }
    if (!parse(argc, argv, &s)) {
        fprintf(stderr,
                "usage: bench_migrate IMAGE CONNECTIONS COMPRESS [KEY CERTIFICATE CA NAME]\n"
                "       bench_migrate make IMAGE MIB\n"
                "       bench_migrate warm MIB\n");
        return 2;
    }
    map_image(&s);
    if (transport_listen("127.0.0.1:0", &l, why) || pipe(answer)) {
        die("listen", errno, why);
    }
    child = fork();
    if (!child) {
        o = receive(&s, l);
        return write(answer[1], &o, sizeof o) == sizeof o ? 0 : 1;
    }
    close(answer[1]);
    s.config.memory = s.memory;
    s.config.n_pages = s.bytes / MIG_PAGE;
    run_source(&s, transport_listener_address(l), answer[0]);
    transport_listener_close(l);
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : 1;
}
