/* bench_pool_peers: many light OpenFlow 1.5 switches in one process.
 *
 * usage: bench_pool_peers DIR BRIDGE N
 *
 * Switch i listens on DIR/i/BRIDGE.mgmt, as ovs-vswitchd does.  It forwards
 * nothing, but keeps its table as a switch does: flow_mods by (table, priority,
 * match), alone or in bundles that take effect at commit, tells it when asked for its
 * flows, makes one controller master by generation id, and answers barriers.
 * What it does not know it refuses.  Groups and meters are taken and forgotten.
 *
 * Commands on standard input, one a line; one line of JSON answers each:
 *   stats        per switch: flows, flow_mods, bundles and bytes so far, and the
 *                times (CLOCK_MONOTONIC, ns) of the last connect and barrier
 *   drop I       switch I loses its connections
 *   forget I     and its flows
 *
 * One thread; peers are trusted no further than that a message's lengths are
 * checked before use. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define OFP15 0x06
#define HEADER 8
#define MAX_CONNS 8 /* per switch */

enum {
    HELLO = 0,
    ERROR = 1,
    ECHO_REQUEST = 2,
    ECHO_REPLY = 3,
    EXPERIMENTER = 4,
    FEATURES_REQUEST = 5,
    FEATURES_REPLY = 6,
    GET_CONFIG_REQUEST = 7,
    GET_CONFIG_REPLY = 8,
    SET_CONFIG = 9,
    PACKET_OUT = 13,
    FLOW_MOD = 14,
    GROUP_MOD = 15,
    MULTIPART_REQUEST = 18,
    MULTIPART_REPLY = 19,
    BARRIER_REQUEST = 20,
    BARRIER_REPLY = 21,
    ROLE_REQUEST = 24,
    ROLE_REPLY = 25,
    SET_ASYNC = 28,
    METER_MOD = 29,
    BUNDLE_CONTROL = 33,
    BUNDLE_ADD = 34
};

enum { ADD, MODIFY, MODIFY_STRICT, DELETE, DELETE_STRICT };
enum { ROLE_NOCHANGE, ROLE_EQUAL, ROLE_MASTER, ROLE_SLAVE };
enum { BUNDLE_OPEN = 0, BUNDLE_CLOSE = 2, BUNDLE_COMMIT = 4, BUNDLE_DISCARD = 6 };
enum { MP_DESC = 0, MP_FLOW = 1, MP_GROUP_FEATURES = 8, MP_METER_FEATURES = 11 };

/* {type, code} of errors. */
static const uint16_t bad_type[2] = {1, 1}, bad_multipart[2] = {1, 2}, bad_length[2] = {1, 6},
                      is_slave[2] = {1, 10}, bad_command[2] = {5, 6}, stale_role[2] = {11, 0},
                      bad_bundle[2] = {17, 2};

static const uint32_t nicira = 0x00002320;
enum { NXT_TLV_TABLE_REQUEST = 25, NXT_TLV_TABLE_REPLY = 26 };

struct flow {
    struct flow *next;
    uint64_t cookie;
    uint32_t hash;
    uint16_t priority, flags;
    uint8_t table;
    uint16_t match_len; /* with padding */
    uint16_t instr_len;
    uint8_t data[]; /* struct ofp11_match_header and OXM, instructions */
};

struct conn {
    struct sw *sw;
    int fd;
    bool writing; /* waits for EPOLLOUT */
    uint32_t role;
    struct bytes in, out;
    struct bytes bundle; /* flow_mods that wait for the commit, one behind another */
    uint32_t bundle_id;
    bool bundle_open;
};

struct sw {
    unsigned i;
    int listener;
    struct conn *conns[MAX_CONNS];
    struct flow **buckets;
    size_t n_buckets, n_flows; /* n_buckets is a power of 2 */
    bool has_generation;
    uint64_t generation;
    uint64_t n_mods, n_bundles, n_bytes, connect_ns, barrier_ns;
};

static struct sw *switches;
static unsigned n_switches;
static int poller;

static uint64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

/* --- the table ------------------------------------------------------------------ */

static uint32_t
hash_key(uint8_t table, uint16_t priority, const uint8_t *match, size_t len)
{
    uint32_t h = 2166136261u ^ (table << 16 | priority);

    for (size_t i = 0; i < len; i++) {
        h = (h ^ match[i]) * 16777619u;
    }
    return h ^ h >> 15;
}

static struct flow **
find_flow(struct sw *sw, uint32_t hash, uint8_t table, uint16_t priority, const uint8_t *match,
          size_t len)
{
    struct flow **f = &sw->buckets[hash & (sw->n_buckets - 1)];

    while (*f && ((*f)->hash != hash || (*f)->table != table || (*f)->priority != priority ||
                  (*f)->match_len != len || memcmp((*f)->data, match, len))) {
        f = &(*f)->next;
    }
    return f;
}

static void
grow(struct sw *sw)
{
    size_t n = sw->n_buckets ? 2 * sw->n_buckets : 1024;
    struct flow **buckets = must(calloc(n, sizeof *buckets));

    for (size_t i = 0; i < sw->n_buckets; i++) {
        while (sw->buckets[i]) {
            struct flow *f = sw->buckets[i];

            sw->buckets[i] = f->next;
            f->next = buckets[f->hash & (n - 1)];
            buckets[f->hash & (n - 1)] = f;
        }
    }
    free(sw->buckets);
    sw->buckets = buckets;
    sw->n_buckets = n;
}

/* All flows of a table; 0xff: of all. */
static void
clear_table(struct sw *sw, uint8_t table)
{
    for (size_t i = 0; i < sw->n_buckets; i++) {
        struct flow **at = &sw->buckets[i];

        while (*at) {
            struct flow *f = *at;

            if (table == 0xff || f->table == table) {
                *at = f->next;
                free(f);
                sw->n_flows--;
            } else {
                at = &f->next;
            }
        }
    }
}

/* The flow_mod's match with its padding; 0: its lengths are wrong. */
static size_t
match_len_of(const uint8_t *msg, size_t len)
{
    size_t n = len >= HEADER + 44 ? (get16(msg + HEADER + 42) + 7u) & ~7u : 0;

    return n >= 8 && HEADER + 40 + n <= len ? n : 0;
}

static void
set_flow(struct sw *sw, struct flow **at, uint32_t hash, const uint8_t *msg, size_t len,
         size_t match_len)
{
    const uint8_t *body = msg + HEADER;
    size_t instr_len = len - HEADER - 40 - match_len;
    struct flow *f = must(malloc(sizeof *f + match_len + instr_len));

    f->next = *at ? (*at)->next : NULL;
    f->cookie = get64(body);
    f->hash = hash;
    f->priority = get16(body + 22);
    f->flags = get16(body + 36);
    f->table = body[16];
    f->match_len = match_len;
    f->instr_len = instr_len;
    memcpy(f->data, body + 40, match_len + instr_len);
    sw->n_flows += !*at;
    free(*at);
    *at = f;
}

/* NULL, or what is wrong with the flow_mod. */
static const uint16_t *
apply_flow_mod(struct sw *sw, const uint8_t *msg, size_t len)
{
    const uint8_t *body = msg + HEADER;
    size_t match_len = match_len_of(msg, len);
    uint8_t command, table;
    uint16_t priority;
    uint32_t hash;
    struct flow **at;

    if (!match_len) {
        return bad_length;
    }
    sw->n_mods++;
    table = body[16];
    command = body[17];
    priority = get16(body + 22);
    if (command == DELETE) {
        /* Of the loose ones only what means everything. */
        if (match_len != 8 || get64(body + 8)) {
            return bad_command;
        }
        clear_table(sw, table);
        return NULL;
    }
    if (sw->n_flows >= sw->n_buckets) {
        grow(sw);
    }
    hash = hash_key(table, priority, body + 40, match_len);
    at = find_flow(sw, hash, table, priority, body + 40, match_len);
    if (command == ADD || (command == MODIFY_STRICT && *at)) {
        set_flow(sw, at, hash, msg, len, match_len);
    } else if (command == DELETE_STRICT && *at &&
               !(((*at)->cookie ^ get64(body)) & get64(body + 8))) {
        struct flow *f = *at;

        *at = f->next;
        free(f);
        sw->n_flows--;
    } else if (command > DELETE_STRICT || command == MODIFY) {
        return bad_command;
    }
    return NULL;
}

/* --- answers ------------------------------------------------------------------------ */

/* A message with 'len' bytes behind the header; returns these, zeroed. */
static uint8_t *
answer(struct conn *c, uint8_t type, const uint8_t *to, size_t len)
{
    uint8_t *p = bytes_put(&c->out, HEADER + len);

    p[0] = OFP15;
    p[1] = type;
    put16(p + 2, HEADER + len);
    memcpy(p + 4, to + 4, 4);
    return p + HEADER;
}

static void
refuse(struct conn *c, const uint8_t *msg, size_t len, const uint16_t error[2])
{
    size_t quoted = len < 64 ? len : 64;
    uint8_t *body = answer(c, ERROR, msg, 4 + quoted);

    put16(body, error[0]);
    put16(body + 2, error[1]);
    memcpy(body + 4, msg, quoted);
}

/* Of one flow_desc: header, match, empty statistics, instructions. */
static size_t
put_flow_desc(uint8_t *p, const struct flow *f)
{
    size_t len = 24 + f->match_len + 8 + f->instr_len;

    put16(p, len);
    p[4] = f->table;
    put16(p + 6, f->priority);
    put16(p + 12, f->flags);
    put64(p + 16, f->cookie);
    memcpy(p + 24, f->data, f->match_len);
    put16(p + 24 + f->match_len + 2, 4);
    memcpy(p + 24 + f->match_len + 8, f->data + f->match_len, f->instr_len);
    return len;
}

static void
tell_flows(struct conn *c, const uint8_t *msg)
{
    struct sw *sw = c->sw;
    size_t i = 0, room = 60000, used = 0;
    uint8_t *start = NULL;

    for (; i < sw->n_buckets; i++) {
        for (const struct flow *f = sw->buckets[i]; f; f = f->next) {
            size_t len = 32 + f->match_len + f->instr_len;

            if (start && used + len > room) {
                put16(start + 2, HEADER + 8 + used);
                put16(start + HEADER + 2, 1); /* more follows */
                start = NULL;
            }
            if (!start) {
                answer(c, MULTIPART_REPLY, msg, 8);
                used = 0;
            }
            used += put_flow_desc(bytes_put(&c->out, len), f);
            /* The buffer may have moved. */
            start = c->out.p + c->out.end - HEADER - 8 - used;
            put16(start + HEADER, MP_FLOW);
        }
    }
    if (start) {
        put16(start + 2, HEADER + 8 + used);
    } else {
        put16(answer(c, MULTIPART_REPLY, msg, 8), MP_FLOW);
    }
}

static void
take_multipart(struct conn *c, const uint8_t *msg, size_t len)
{
    static const unsigned sizes[] = {
        [MP_DESC] = 1056, [MP_GROUP_FEATURES] = 40, [MP_METER_FEATURES] = 16};
    unsigned what = len >= HEADER + 8 ? get16(msg + HEADER) : UINT16_MAX;
    uint8_t *body;

    if (what == MP_FLOW) {
        tell_flows(c, msg);
    } else if (what < sizeof sizes / sizeof sizes[0] && sizes[what]) {
        body = answer(c, MULTIPART_REPLY, msg, 8 + sizes[what]);
        put16(body, what);
        if (what == MP_METER_FEATURES) {
            put32(body + 8, 10000); /* meters */
            put32(body + 12, 2);    /* band: drop */
            put32(body + 16, 0xf);
            body[20] = 1;
        }
    } else {
        refuse(c, msg, len, bad_multipart);
    }
}

static void
take_role(struct conn *c, const uint8_t *msg, size_t len)
{
    struct sw *sw = c->sw;
    uint32_t role = len >= HEADER + 16 ? get32(msg + HEADER) : 0;
    uint64_t generation = role ? get64(msg + HEADER + 8) : 0;
    uint8_t *body;

    if (role == ROLE_MASTER || role == ROLE_SLAVE) {
        if (sw->has_generation && (int64_t)(generation - sw->generation) < 0) {
            refuse(c, msg, len, stale_role);
            return;
        }
        sw->has_generation = true;
        sw->generation = generation;
    }
    for (unsigned i = 0; role == ROLE_MASTER && i < MAX_CONNS; i++) {
        if (sw->conns[i] && sw->conns[i]->role == ROLE_MASTER) {
            sw->conns[i]->role = ROLE_SLAVE;
        }
    }
    c->role = role ? role : c->role;
    body = answer(c, ROLE_REPLY, msg, 16);
    put32(body, c->role);
    put64(body + 8, sw->has_generation ? sw->generation : UINT64_MAX);
}

/* --- bundles -------------------------------------------------------------------------- */

static const uint16_t *
commit(struct conn *c)
{
    const uint16_t *error = NULL;

    while (c->bundle.start < c->bundle.end && !error) {
        const uint8_t *msg = c->bundle.p + c->bundle.start;
        size_t len = get16(msg + 2);

        if (msg[1] == FLOW_MOD) {
            error = apply_flow_mod(c->sw, msg, len);
        }
        c->bundle.start += len;
    }
    c->sw->n_bundles++;
    return error;
}

static void
take_bundle_control(struct conn *c, const uint8_t *msg, size_t len)
{
    uint32_t id = len >= HEADER + 8 ? get32(msg + HEADER) : 0;
    uint16_t type = len >= HEADER + 8 ? get16(msg + HEADER + 4) : UINT16_MAX;
    const uint16_t *error = NULL;
    uint8_t *body;

    if (type == BUNDLE_OPEN) {
        bytes_free(&c->bundle);
        c->bundle_open = true;
        c->bundle_id = id;
    } else if (!c->bundle_open || id != c->bundle_id) {
        error = bad_bundle;
    } else if (type == BUNDLE_COMMIT) {
        error = commit(c);
    }
    if (type == BUNDLE_COMMIT || type == BUNDLE_DISCARD) {
        bytes_free(&c->bundle);
        c->bundle_open = false;
    }
    if (error) {
        refuse(c, msg, len, error);
        return;
    }
    body = answer(c, BUNDLE_CONTROL, msg, 8);
    put32(body, id);
    put16(body + 4, type + 1);
    memcpy(body + 6, msg + HEADER + 6, 2);
}

static void
take_bundle_add(struct conn *c, const uint8_t *msg, size_t len)
{
    const uint8_t *inner = msg + HEADER + 8;
    size_t inner_len = len >= HEADER + 8 + HEADER ? get16(inner + 2) : 0;

    if (inner_len < HEADER || HEADER + 8 + inner_len > len ||
        (inner[1] == FLOW_MOD && !match_len_of(inner, inner_len))) {
        refuse(c, msg, len, bad_length);
    } else if (!c->bundle_open || get32(msg + HEADER) != c->bundle_id) {
        refuse(c, msg, len, bad_bundle);
    } else {
        memcpy(bytes_put(&c->bundle, inner_len), inner, inner_len);
    }
}

/* --- messages --------------------------------------------------------------------------- */

static void
take_features(struct conn *c, const uint8_t *msg)
{
    uint8_t *body = answer(c, FEATURES_REPLY, msg, 24);

    put64(body, 0x020000000000 + c->sw->i + 1);
    body[12] = 254; /* tables */
}

static void
take_experimenter(struct conn *c, const uint8_t *msg, size_t len)
{
    uint8_t *body;

    if (len >= HEADER + 8 && get32(msg + HEADER) == nicira &&
        get32(msg + HEADER + 4) == NXT_TLV_TABLE_REQUEST) {
        body = answer(c, EXPERIMENTER, msg, 24);
        put32(body, nicira);
        put32(body + 4, NXT_TLV_TABLE_REPLY);
        put32(body + 8, 256); /* space, fields */
        put16(body + 12, 64);
    } else if (len < HEADER + 8 || get32(msg + HEADER) != nicira) {
        refuse(c, msg, len, bad_type);
    }
}

static void
take_flow_mod(struct conn *c, const uint8_t *msg, size_t len)
{
    const uint16_t *error = c->role == ROLE_SLAVE ? is_slave : apply_flow_mod(c->sw, msg, len);

    if (error) {
        refuse(c, msg, len, error);
    }
}

static void
take(struct conn *c, const uint8_t *msg, size_t len)
{
    static const char ignored[] = {ERROR,     ECHO_REPLY, SET_CONFIG, PACKET_OUT,
                                   GROUP_MOD, SET_ASYNC,  METER_MOD,  HELLO /* 0: the end */};
    uint8_t *body;

    switch (msg[1]) {
    case ECHO_REQUEST:
        memcpy(answer(c, ECHO_REPLY, msg, len - HEADER), msg + HEADER, len - HEADER);
        break;
    case FEATURES_REQUEST:
        take_features(c, msg);
        break;
    case GET_CONFIG_REQUEST:
        body = answer(c, GET_CONFIG_REPLY, msg, 4);
        put16(body + 2, 128);
        break;
    case FLOW_MOD:
        take_flow_mod(c, msg, len);
        break;
    case MULTIPART_REQUEST:
        take_multipart(c, msg, len);
        break;
    case BARRIER_REQUEST:
        answer(c, BARRIER_REPLY, msg, 0);
        c->sw->barrier_ns = now_ns();
        break;
    case ROLE_REQUEST:
        take_role(c, msg, len);
        break;
    case BUNDLE_CONTROL:
        if (c->role == ROLE_SLAVE) {
            refuse(c, msg, len, is_slave);
        } else {
            take_bundle_control(c, msg, len);
        }
        break;
    case BUNDLE_ADD:
        take_bundle_add(c, msg, len);
        break;
    case EXPERIMENTER:
        take_experimenter(c, msg, len);
        break;
    default:
        if (!strchr(ignored, msg[1])) {
            refuse(c, msg, len, bad_type);
        }
    }
}

/* --- connections ---------------------------------------------------------------------------- */

static void
close_conn(struct conn *c)
{
    for (unsigned i = 0; i < MAX_CONNS; i++) {
        if (c->sw->conns[i] == c) {
            c->sw->conns[i] = NULL;
        }
    }
    close(c->fd);
    bytes_free(&c->in);
    bytes_free(&c->out);
    bytes_free(&c->bundle);
    free(c);
}

/* False: the connection is gone. */
static bool
flush(struct conn *c)
{
    struct epoll_event e = {.data.ptr = c};

    while (c->out.start < c->out.end) {
        ssize_t n = send(c->fd, c->out.p + c->out.start, c->out.end - c->out.start, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            break;
        } else if (n <= 0) {
            close_conn(c);
            return false;
        }
        c->out.start += n;
    }
    if (c->writing != (c->out.start < c->out.end)) {
        c->writing = !c->writing;
        e.events = EPOLLIN | (c->writing ? EPOLLOUT : 0);
        epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
    }
    return true;
}

static void
receive(struct conn *c)
{
    ssize_t n = recv(c->fd, bytes_room(&c->in, 256 * 1024), 256 * 1024, 0);

    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) {
            close_conn(c);
        }
        return;
    }
    c->in.end += n;
    c->sw->n_bytes += n;
    while (c->in.end - c->in.start >= HEADER) {
        const uint8_t *msg = c->in.p + c->in.start;
        size_t len = get16(msg + 2);

        if (len < HEADER) {
            close_conn(c);
            return;
        }
        if (c->in.end - c->in.start < len) {
            break;
        }
        take(c, msg, len);
        c->in.start += len;
    }
    flush(c);
}

static void
accept_conn(struct sw *sw)
{
    int fd = accept4(sw->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN};
    static const uint8_t hello[HEADER] = {OFP15, HELLO, 0, HEADER};
    struct conn *c;
    unsigned i = 0;

    if (fd < 0) {
        return;
    }
    while (i < MAX_CONNS && sw->conns[i]) {
        i++;
    }
    if (i == MAX_CONNS) {
        close(fd);
        return;
    }
    c = must(calloc(1, sizeof *c));
    c->sw = sw;
    c->fd = fd;
    c->role = ROLE_EQUAL;
    sw->conns[i] = c;
    sw->connect_ns = now_ns();
    e.data.ptr = c;
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    answer(c, HELLO, hello, 0);
    flush(c);
}

/* --- commands ----------------------------------------------------------------------------------
 */

static void
print_stats(void)
{
    printf("[");
    for (unsigned i = 0; i < n_switches; i++) {
        const struct sw *s = &switches[i];

        printf("%s{\"flows\":%zu,\"mods\":%" PRIu64 ",\"bundles\":%" PRIu64 ",\"bytes\":%" PRIu64
               ",\"connect_ns\":%" PRIu64 ",\"barrier_ns\":%" PRIu64 "}",
               i ? "," : "", s->n_flows, s->n_mods, s->n_bundles, s->n_bytes, s->connect_ns,
               s->barrier_ns);
    }
    printf("]\n");
}

static void
drop(struct sw *sw)
{
    for (unsigned i = 0; i < MAX_CONNS; i++) {
        if (sw->conns[i]) {
            close_conn(sw->conns[i]);
        }
    }
}

/* False: end of input. */
static bool
take_command(void)
{
    char line[128], word[16];
    unsigned i = 0;
    int n;

    if (!fgets(line, sizeof line, stdin)) {
        return false;
    }
    n = sscanf(line, "%15s %u", word, &i);
    if (n == 1 && !strcmp(word, "stats")) {
        print_stats();
    } else if (n == 2 && i < n_switches && (!strcmp(word, "drop") || !strcmp(word, "forget"))) {
        drop(&switches[i]);
        if (word[0] == 'f') {
            clear_table(&switches[i], 0xff);
        }
        printf("{}\n");
    } else {
        printf("{\"error\":\"what?\"}\n");
    }
    fflush(stdout);
    return true;
}

/* --- life
 * ------------------------------------------------------------------------------------------ */

static int
listen_at(const char *dir, unsigned i, const char *bridge)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int n = snprintf(sun.sun_path, sizeof sun.sun_path, "%s/%u/%s.mgmt", dir, i, bridge);

    if (fd < 0 || n >= (int)sizeof sun.sun_path || bind(fd, (struct sockaddr *)&sun, sizeof sun) ||
        listen(fd, 16)) {
        perror(sun.sun_path);
        exit(1);
    }
    return fd;
}

/* An event's pointer is a connection, one of 'switches', or NULL for the standard
 * input. */
static bool
take_event(void *what)
{
    if (!what) {
        return take_command();
    }
    if ((struct sw *)what >= switches && (struct sw *)what < switches + n_switches) {
        accept_conn(what);
        return true;
    }
    if (flush(what)) {
        receive(what);
    }
    return true;
}

int
main(int argc, char *argv[])
{
    struct epoll_event e = {.events = EPOLLIN};
    bool go_on = true;

    n_switches = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
    if (!n_switches || n_switches > 4096) {
        fprintf(stderr, "usage: bench_pool_peers DIR BRIDGE N (1..4096)\n");
        return 1;
    }
    setvbuf(stdin, NULL, _IONBF, 0); /* a line at a time, as poll sees it */
    poller = epoll_create1(EPOLL_CLOEXEC);
    switches = must(calloc(n_switches, sizeof *switches));
    for (unsigned i = 0; i < n_switches; i++) {
        switches[i].i = i;
        switches[i].listener = listen_at(argv[1], i, argv[2]);
        e.data.ptr = &switches[i];
        epoll_ctl(poller, EPOLL_CTL_ADD, switches[i].listener, &e);
    }
    e.data.ptr = NULL;
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &e);
    printf("{}\n");
    fflush(stdout);
    while (go_on) {
        /* One at a time: handling one may free another. */
        int n = epoll_wait(poller, &e, 1, -1);

        if (n < 0 && errno != EINTR) {
            perror("epoll_wait");
            return 1;
        }
        go_on = n <= 0 || take_event(e.data.ptr);
    }
    return 0;
}
