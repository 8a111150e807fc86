#include "lab_ping.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lab_netns.h"

#define ALL_PAIRS_GUESTS 12u /* up to so many guests, everyone pings everyone */
#define NEXT_GUESTS 4u       /* else each pings so many */

struct echo {
    struct icmphdr icmp;
    uint32_t pair;
    int64_t sent_ns;
};
_Static_assert(sizeof(struct echo) == 24, "echo request without padding");

static int64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* RFC 1071. */
static uint16_t
checksum(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint32_t sum = 0;

    for (; len > 1; len -= 2, p += 2) {
        sum += (uint32_t)p[0] << 8 | p[1];
    }
    sum += len ? (uint32_t)p[0] << 8 : 0;
    sum = (sum & 0xffff) + (sum >> 16);
    sum += sum >> 16;
    return htons((uint16_t)~sum);
}

static int
open_here(void *fdp)
{
    int fd = socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_ICMP);

    if (fd < 0) {
        return errno;
    }
    *(int *)fdp = fd;
    return 0;
}

static int
open_guest(struct lab_ping *p, unsigned i)
{
    struct lab_guest *g = &p->lab->guests[i];
    int netns = lab_netns_open(&g->netns);
    int error = netns < 0 ? errno : lab_netns_call(netns, open_here, &p->fds[i].fd);

    if (netns >= 0) {
        close(netns);
    }
    if (error) {
        return lab_fail(p->lab, error, "cannot ping from %s: %s", g->name, strerror(error));
    }
    p->fds[i].events = POLLIN;
    return 0;
}

static void
make_pairs(struct lab_ping *p)
{
    unsigned n = p->lab->n_guests;
    unsigned each = n <= ALL_PAIRS_GUESTS ? n - 1 : NEXT_GUESTS;

    for (unsigned from = 0; from < n; from++) {
        for (unsigned k = 1; k <= each; k++) {
            unsigned to = (from + k) % n;

            /* Its address says nothing there. */
            if (lab_same_address(p->lab, &p->lab->guests[from], &p->lab->guests[to])) {
                continue;
            }
            p->pairs[p->n_pairs++] = (struct lab_ping_pair){
                .from = from,
                .to = to,
                .same_network = lab_same_network(&p->lab->guests[from], &p->lab->guests[to]),
                .rtt_ns = -1,
            };
        }
    }
}

int
lab_ping_open(struct lab_ping *p, struct lab *lab)
{
    unsigned n = lab->n_guests;
    int error = 0;

    memset(p, 0, sizeof *p);
    p->lab = lab;
    p->n_fds = n;
    p->fds = calloc(n + 1, sizeof *p->fds);
    p->pairs = calloc((size_t)n * ALL_PAIRS_GUESTS + 1, sizeof *p->pairs);
    if (!p->fds || !p->pairs) {
        error = lab_fail(lab, ENOMEM, "no memory");
    }
    for (unsigned i = 0; p->fds && i < n; i++) {
        p->fds[i].fd = -1;
    }
    for (unsigned i = 0; !error && i < n; i++) {
        error = open_guest(p, i);
    }
    if (error) {
        lab_ping_close(p);
        return error;
    }
    if (getrandom(&p->id, sizeof p->id, 0) != sizeof p->id) {
        p->id = (uint16_t)getpid();
    }
    if (n > 1) {
        make_pairs(p);
    }
    return 0;
}

void
lab_ping_close(struct lab_ping *p)
{
    for (unsigned i = 0; p->fds && i < p->n_fds; i++) {
        if (p->fds[i].fd >= 0) {
            close(p->fds[i].fd);
        }
    }
    free(p->fds);
    free(p->pairs);
    memset(p, 0, sizeof *p);
}

void
lab_ping_send(struct lab_ping *p)
{
    p->round++;
    for (unsigned i = 0; i < p->n_pairs; i++) {
        struct lab_ping_pair *pair = &p->pairs[i];
        struct sockaddr_in to = {.sin_family = AF_INET};
        struct echo echo = {
            .icmp = {.type = ICMP_ECHO, .un.echo = {.id = p->id, .sequence = htons(p->round)}},
            .pair = i,
        };
        inet_pton(AF_INET, p->lab->guests[pair->to].ip, &to.sin_addr);
        pair->seq = p->round;
        pair->rtt_ns = -1;
        pair->sent_ns = echo.sent_ns = now_ns();
        echo.icmp.checksum = checksum(&echo, sizeof echo);
        /* An address that never resolves makes later sends fail: that is the
         * "no reply" that is counted. */
        if (sendto(p->fds[pair->from].fd, &echo, sizeof echo, 0, (struct sockaddr *)&to,
                   sizeof to) < 0) {
            pair->sent_ns = 0;
        }
    }
}

/* A reply to this round's request of a pair that starts at guest 'i'. */
static void
take_reply(struct lab_ping *p, unsigned i, const struct echo *echo)
{
    struct lab_ping_pair *pair;

    if (echo->icmp.type != ICMP_ECHOREPLY || echo->icmp.un.echo.id != p->id ||
        echo->pair >= p->n_pairs) {
        return;
    }
    pair = &p->pairs[echo->pair];
    if (pair->from != i || ntohs(echo->icmp.un.echo.sequence) != pair->seq ||
        echo->sent_ns != pair->sent_ns || pair->rtt_ns >= 0) {
        return;
    }
    pair->rtt_ns = now_ns() - pair->sent_ns;
    pair->answered++;
}

void
lab_ping_receive(struct lab_ping *p, unsigned i)
{
    uint8_t buf[1500];
    struct echo echo;
    ssize_t n;

    while ((n = recv(p->fds[i].fd, buf, sizeof buf, 0)) > 0 || (n < 0 && errno == EHOSTUNREACH)) {
        size_t header = n > 0 ? (buf[0] & 0xfu) * 4u : 0;
        if (n > 0 && header >= 20 && (size_t)n >= header + sizeof echo) {
            memcpy(&echo, buf + header, sizeof echo);
            take_reply(p, i, &echo);
        }
    }
}

void
lab_ping_sum(const struct lab_ping *p, struct lab_ping_sum *sum)
{
    memset(sum, 0, sizeof *sum);
    for (unsigned i = 0; i < p->n_pairs; i++) {
        const struct lab_ping_pair *pair = &p->pairs[i];
        bool ok = pair->rtt_ns >= 0;
        if (pair->same_network) {
            sum->same++;
            sum->same_ok += ok;
            sum->worst_ns = pair->rtt_ns > sum->worst_ns ? pair->rtt_ns : sum->worst_ns;
        } else {
            sum->other++;
            sum->other_ok += ok;
        }
    }
}
