#include <config.h>

#include "host_limit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "host.h"
#include "packets.h"
#include "timeval.h"
#include "util.h"
#include "uuid.h"

/* Of one connection and turn.  The first read is always granted, so that a
 * connection goes on however slow the machine is. */
#define TURN_US 10000
#define TURN_BYTES (256u << 10)

/* Of a database.  What a byte of JSON can cost once it is parsed depends on what
 * it is: an element of an array becomes an object of some 60 bytes, and a row of
 * a table, which may be stated with two braces, one of 3 kB.  A port with its
 * interface comes to 9 kB by this measure. */
#define MAX_COST (96u << 20)
#define COST_ELEMENT 64
#define COST_OBJECT 1024

#define MAX_CLAIMS 4

struct stream;
struct json_parser;

int __real_stream_recv(struct stream *, void *buffer, size_t n);
int __wrap_stream_recv(struct stream *, void *buffer, size_t n);
size_t __real_json_parser_feed(struct json_parser *, const char *, size_t n);
size_t __wrap_json_parser_feed(struct json_parser *, const char *, size_t n);

static bool in_turn;
static struct host_limit *current;
static long long int turn_began_us;
static size_t turn_bytes;

void
host_limit_begin(struct host_limit *limit)
{
    in_turn = true;
    current = limit;
    turn_began_us = time_usec();
    turn_bytes = 0;
}

void
host_limit_end(void)
{
    in_turn = false;
    current = NULL;
}

bool
host_limit_exceeded(const struct host_limit *limit)
{
    return limit->cost > MAX_COST;
}

int
__wrap_stream_recv(struct stream *stream, void *buffer, size_t n)
{
    int got;

    if (in_turn && turn_bytes &&
        (turn_bytes >= TURN_BYTES || time_usec() - turn_began_us >= TURN_US)) {
        /* What waits has the caller woken again at once. */
        return -EAGAIN;
    }
    got = __real_stream_recv(stream, buffer, n);
    if (in_turn && got > 0) {
        turn_bytes += got;
    }
    return got;
}

static uint64_t
cost_of(const char *input, size_t n)
{
    uint64_t cost = n;

    for (size_t i = 0; i < n; i++) {
        switch (input[i]) {
        case '{':
            cost += COST_OBJECT;
            break;
        case '[':
        case ',':
        case ':':
            cost += COST_ELEMENT;
            break;
        }
    }
    return cost;
}

size_t
__wrap_json_parser_feed(struct json_parser *parser, const char *input, size_t n)
{
    /* Allowed nowhere in JSON: the parser gives the message up, and jsonrpc the
     * connection. */
    static const char poison[] = {1};

    if (current) {
        current->cost += cost_of(input, n);
        if (host_limit_exceeded(current)) {
            return __real_json_parser_feed(parser, poison, sizeof poison);
        }
    }
    return __real_json_parser_feed(parser, input, n);
}

/* --- claims ---------------------------------------------------------------------------- */

static int
compare_uuids(const void *a_, const void *b_)
{
    const struct host_port *const *a = a_, *const *b = b_;
    int order = (*b)->has_uuid - (*a)->has_uuid;

    order = order ? order : memcmp(&(*a)->uuid, &(*b)->uuid, sizeof(*a)->uuid);
    return order ? order : (*a > *b) - (*a < *b);
}

static int
compare_macs(const void *a_, const void *b_)
{
    const struct host_port *const *a = a_, *const *b = b_;
    int order = (*b)->has_mac - (*a)->has_mac;

    order = order ? order : memcmp(&(*a)->mac, &(*b)->mac, sizeof(*a)->mac);
    return order ? order : (*a > *b) - (*a < *b);
}

void
host_limit_claims(struct host_port *ports, size_t n)
{
    struct host_port **sorted = xmalloc((n + 1) * sizeof *sorted);

    for (size_t i = 0; i < n; i++) {
        sorted[i] = &ports[i];
    }
    qsort(sorted, n, sizeof *sorted, compare_uuids);
    for (size_t i = 0, same = 0; i < n && sorted[i]->has_uuid; i++) {
        same = i && uuid_equals(&sorted[i]->uuid, &sorted[i - 1]->uuid) ? same + 1 : 0;
        sorted[i]->has_uuid = same < MAX_CLAIMS;
    }
    qsort(sorted, n, sizeof *sorted, compare_macs);
    for (size_t i = 0, same = 0; i < n && sorted[i]->has_mac; i++) {
        same = i && eth_addr_equals(sorted[i]->mac, sorted[i - 1]->mac) ? same + 1 : 0;
        sorted[i]->has_mac = same < MAX_CLAIMS;
    }
    free(sorted);
}
