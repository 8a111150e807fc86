/* bench_collect: sends flow records as a router does, at a steady pace.
 *
 * usage: bench_collect PORT 9|10 RECORDS RECORDS_PER_S FLOWS
 *
 * NetFlow v9 or IPFIX to 127.0.0.1:PORT over UDP, in datagrams of up to 1,400
 * bytes; the template comes first and about once a second.  Addresses and ports
 * walk through FLOWS flows.  Prints how many records and datagrams went out. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"

#define DATAGRAM_MAX 1400u
#define BURST 16u
#define TEMPLATE 300u
#define UPTIME_MS 3600000u

struct field {
    uint16_t element, len;
};

/* What routers send of IPv4. */
static const struct field v9_fields[] = {
    {8, 4}, {12, 4}, {10, 4}, {14, 4}, {2, 8}, {1, 8},  {22, 4}, {21, 4},
    {7, 2}, {11, 2}, {4, 1},  {6, 1},  {5, 1}, {61, 1}, {56, 6}, {80, 6},
};
static const struct field ipfix_fields[] = {
    {8, 4}, {12, 4}, {10, 4}, {14, 4}, {2, 8}, {1, 8},  {152, 8}, {153, 8},
    {7, 2}, {11, 2}, {4, 1},  {6, 1},  {5, 1}, {61, 1}, {56, 6},  {80, 6},
};

struct stream {
    bool ipfix;
    const struct field *fields;
    unsigned n_fields, record_len, per_datagram;
    uint64_t sent, records, flows;
    uint32_t sequence, datagrams;
    uint64_t now_ms;
};

static uint64_t
clock_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

/* Of element 'e' of record number 'i'. */
static void
put_field(uint8_t *p, const struct field *f, const struct stream *s, uint64_t i)
{
    uint64_t flow = i % s->flows, v = 0;

    switch (f->element) {
    case 8:
        v = 0x0a000000 + (flow & 0xffffff);
        break;
    case 12:
        v = 0xc0a80000 + flow % 251;
        break;
    case 10:
    case 14:
        v = f->element;
        break;
    case 2:
        v = 1 + flow % 10;
        break;
    case 1:
        v = (1 + flow % 10) * 700;
        break;
    case 21:
        v = UPTIME_MS - 1000;
        break;
    case 22:
        v = UPTIME_MS - 5000;
        break;
    case 152:
        v = s->now_ms - 5000;
        break;
    case 153:
        v = s->now_ms - 1000;
        break;
    case 7:
        v = 1024 + flow % 60000;
        break;
    case 11:
        v = 443;
        break;
    case 4:
        v = 6;
        break;
    case 6:
        v = 0x1b;
        break;
    case 56:
    case 80:
        v = 0x020000000000 + flow % 251;
        break;
    }
    for (unsigned b = f->len; b--; v >>= 8) {
        p[b] = v;
    }
}

static size_t
put_head(struct stream *s, uint8_t *p)
{
    if (s->ipfix) {
        put_be16(p, 10);
        put_be32(p + 4, s->now_ms / 1000);
        put_be32(p + 8, s->sequence);
        put_be32(p + 12, 1);
        return 16;
    }
    put_be16(p, 9);
    put_be32(p + 4, UPTIME_MS);
    put_be32(p + 8, s->now_ms / 1000);
    put_be32(p + 12, s->datagrams);
    put_be32(p + 16, 1);
    return 20;
}

static size_t
build_template(struct stream *s, uint8_t *p)
{
    size_t n = put_head(s, p), set = n;

    put_be16(p + n, s->ipfix ? 2 : 0);
    put_be16(p + n + 4, TEMPLATE);
    put_be16(p + n + 6, s->n_fields);
    n += 8;
    for (unsigned i = 0; i < s->n_fields; i++, n += 4) {
        put_be16(p + n, s->fields[i].element);
        put_be16(p + n + 2, s->fields[i].len);
    }
    put_be16(p + set + 2, n - set);
    put_be16(p + 2, s->ipfix ? n : 1);
    s->datagrams++;
    return n;
}

static size_t
build_data(struct stream *s, uint8_t *p)
{
    uint64_t left = s->records - s->sent;
    unsigned count = left < s->per_datagram ? left : s->per_datagram;
    size_t n = put_head(s, p), set = n;

    put_be16(p + n, TEMPLATE);
    n += 4;
    for (unsigned i = 0; i < count; i++) {
        for (unsigned f = 0; f < s->n_fields; f++) {
            put_field(p + n, &s->fields[f], s, s->sent + i);
            n += s->fields[f].len;
        }
    }
    while (!s->ipfix && (n - set) % 4) {
        p[n++] = 0;
    }
    put_be16(p + set + 2, n - set);
    put_be16(p + 2, s->ipfix ? n : count);
    s->datagrams++;
    s->sequence += count;
    s->sent += count;
    return n;
}

static void
send_all(struct stream *s, int fd, uint64_t per_second)
{
    static uint8_t bytes[BURST][DATAGRAM_MAX + 100];
    uint64_t start = clock_ns(CLOCK_MONOTONIC), announced = 0;

    while (s->sent < s->records) {
        struct mmsghdr headers[BURST] = {0};
        struct iovec io[BURST];
        unsigned n = 0;
        uint64_t due = start + s->sent * UINT64_C(1000000000) / per_second,
                 now = clock_ns(CLOCK_MONOTONIC);

        if (due > now) {
            usleep((due - now) / 1000 + 1);
        }
        s->now_ms = clock_ns(CLOCK_REALTIME) / 1000000;
        for (; n < BURST && s->sent < s->records; n++) {
            bool announce = now >= announced;

            io[n].iov_base = bytes[n];
            io[n].iov_len = announce ? build_template(s, bytes[n]) : build_data(s, bytes[n]);
            announced = announce ? now + UINT64_C(1000000000) : announced;
            headers[n].msg_hdr.msg_iov = &io[n];
            headers[n].msg_hdr.msg_iovlen = 1;
        }
        for (unsigned done = 0; done < n;) {
            int got = sendmmsg(fd, headers + done, n - done, 0);

            if (got < 0 && errno != EINTR && errno != ENOBUFS) {
                perror("send");
                exit(1);
            }
            done += got > 0 ? got : 0;
        }
    }
}

int
main(int argc, char *argv[])
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct stream s = {.flows = 1};
    uint64_t per_second;

    if (argc != 6 || (strcmp(argv[2], "9") && strcmp(argv[2], "10"))) {
        fprintf(stderr, "usage: bench_collect PORT 9|10 RECORDS RECORDS_PER_S FLOWS\n");
        return 2;
    }
    to.sin_port = htons(atoi(argv[1]));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s.ipfix = !strcmp(argv[2], "10");
    s.fields = s.ipfix ? ipfix_fields : v9_fields;
    s.n_fields = sizeof v9_fields / sizeof v9_fields[0];
    s.records = strtoull(argv[3], NULL, 10);
    per_second = strtoull(argv[4], NULL, 10);
    s.flows = strtoull(argv[5], NULL, 10);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) || !per_second || !s.flows) {
        perror("bench_collect");
        return 1;
    }
    for (unsigned i = 0; i < s.n_fields; i++) {
        s.record_len += s.fields[i].len;
    }
    s.per_datagram = (DATAGRAM_MAX - 24) / s.record_len;
    send_all(&s, fd, per_second);
    printf("%" PRIu64 " records, %" PRIu32 " datagrams\n", s.sent, s.datagrams);
    return 0;
}
