/* ctl_hostile: a host that has been taken over, for tests of the controller.
 *
 *   controller --- DIR/bad.db   --- proxy --- DIR/db.sock      ovsdb-server
 *              --- DIR/bad.of   ---   "   --- DIR/xenbr0.mgmt  the switch
 *
 * A process of its own stands between the controller and a real switch.  It lets
 * some messages through, so that the peers get to know each other, and then
 * spoils or replaces what the switch says.  How is in "struct hostile", which
 * both processes share; a connection takes it as it is when it is accepted. */
#ifndef CTL_HOSTILE_H
#define CTL_HOSTILE_H

#include <poll.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "ctl_switch.h"

enum hostile_mode {
    HOSTILE_HONEST,
    HOSTILE_FLIP,    /* bits */
    HOSTILE_LENGTH,  /* OpenFlow: another length; OVSDB: cut off */
    HOSTILE_REORDER, /* repeated, swapped, left out */
    HOSTILE_FIELDS,  /* OpenFlow: type and xid; OVSDB: words of the message */
    HOSTILE_SILENT,
    HOSTILE_SLOW,    /* a byte at a time */
    HOSTILE_ECHO,    /* asks without end, and does not read the answers */
    HOSTILE_ENDLESS, /* an answer without end: flows; a string */
    HOSTILE_NESTED,  /* actions in actions; arrays in arrays */
    HOSTILE_UNASKED, /* packets, errors, ports; notifications of nonsense */
    HOSTILE_REFUSE,  /* OpenFlow: each message answered by an error */
    HOSTILE_ROWS,    /* OVSDB: more rows without end */
    HOSTILE_SET,     /* OVSDB: a set of 100,000 that changes without end */
    HOSTILE_PORTS,   /* OVSDB: ports that change without end */
    HOSTILE_N_MODES
};

struct hostile {
    volatile enum hostile_mode of, db;
    volatile unsigned seed;
    volatile unsigned after; /* so many messages are let through first */
    volatile unsigned n_spoilt, n_connections;
};

#define HOSTILE_OUT_MAX (1u << 20)
#define HOSTILE_IN_MAX (1u << 20)

struct hostile_end_ {
    int fd; /* -1: none */
    char *out;
    size_t n_out;
};

struct hostile_conn_ {
    bool used, is_of;
    enum hostile_mode mode;
    uint64_t random;
    unsigned n_messages, after;
    struct hostile_end_ controller, peer;
    char *in; /* of the peer, not a whole message yet */
    size_t n_in;
    char *kept; /* an earlier message */
    size_t n_kept;
    char root[40], row[40], port[40], interface[40]; /* uuids */
    unsigned n_made;
};

static struct hostile *hostile_;

static inline uint32_t
hostile_random_(struct hostile_conn_ *c)
{
    c->random = c->random * 6364136223846793005u + 1442695040888963407u;
    return c->random >> 33;
}

static inline void
hostile_put_(struct hostile_conn_ *c, const void *data, size_t n)
{
    if (c->controller.n_out + n <= HOSTILE_OUT_MAX) {
        memcpy(c->controller.out + c->controller.n_out, data, n);
        c->controller.n_out += n;
    }
}

static inline void __attribute__((format(printf, 2, 3)))
hostile_print_(struct hostile_conn_ *c, const char *format, ...)
{
    static char text[65536];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    hostile_put_(c, text, strlen(text));
}

/* --- OpenFlow ------------------------------------------------------------------------ */

static inline void
hostile_be16_(uint8_t *p, unsigned v)
{
    p[0] = v >> 8;
    p[1] = v;
}

static inline void
hostile_of_head_(uint8_t *p, unsigned type, unsigned length, uint32_t xid)
{
    p[0] = 6;
    p[1] = type;
    hostile_be16_(p + 2, length);
    hostile_be16_(p + 4, xid >> 16);
    hostile_be16_(p + 6, xid);
}

enum { OFT_ERROR_ = 1, OFT_ECHO_ = 2, OFT_PACKET_IN_ = 10, OFT_REPLY_ = 19, OFT_BUNDLE_ = 33 };

/* An answer with one flow of 'n' nested clone() actions, and "more follows".
 * OpenFlow 1.5: struct ofp_flow_desc, a match of all, no statistics, and the
 * instruction to apply the actions. */
static inline void
hostile_of_flow_(struct hostile_conn_ *c, const uint8_t *asked, unsigned n, bool more)
{
    enum {
        DESC = 16,
        MATCH = DESC + 24,
        STATS = MATCH + 8,
        APPLY = STATS + 8,
        ACTIONS = APPLY + 8
    };
    static uint8_t m[65536];
    unsigned actions = 16 * n, length = ACTIONS + actions;

    memset(m, 0, length);
    hostile_of_head_(m, OFT_REPLY_, length, 0);
    memcpy(m + 4, asked + 4, 4);
    m[9] = 1;
    m[11] = more;
    hostile_be16_(m + DESC, length - DESC);
    m[DESC + 4] = 60;
    hostile_be16_(m + DESC + 6, hostile_random_(c));
    memcpy(m + DESC + 16, &c->random, 8);
    hostile_be16_(m + MATCH, 1);
    hostile_be16_(m + MATCH + 2, 4);
    hostile_be16_(m + STATS + 2, 4);
    hostile_be16_(m + APPLY, 4);
    hostile_be16_(m + APPLY + 2, 8 + actions);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *a = m + ACTIONS + 16 * i;

        hostile_be16_(a, 0xffff);
        hostile_be16_(a + 2, actions - 16 * i);
        memcpy(a + 4, "\0\0\x23\x20\0\x2a", 6);
    }
    hostile_put_(c, m, length);
}

static inline void
hostile_of_unasked_(struct hostile_conn_ *c)
{
    static uint8_t m[4096];
    static const uint8_t types[] = {OFT_ERROR_, OFT_PACKET_IN_, 11, 12, OFT_REPLY_, 21,
                                    25,         OFT_BUNDLE_};
    unsigned length = 8 + hostile_random_(c) % (sizeof m - 8);

    for (size_t i = 8; i < length; i++) {
        m[i] = hostile_random_(c) % 4 ? 0 : hostile_random_(c);
    }
    hostile_of_head_(m, types[hostile_random_(c) % sizeof types], length, hostile_random_(c) % 40);
    hostile_put_(c, m, length);
}

static inline void
hostile_of_spoil_(struct hostile_conn_ *c, uint8_t *m, size_t n)
{
    switch ((int)c->mode) {
    case HOSTILE_LENGTH:
        hostile_be16_(m + 2,
                      hostile_random_(c) % 3 ? hostile_random_(c) % (n + 16) : hostile_random_(c));
        break;
    case HOSTILE_FIELDS:
        m[hostile_random_(c) % 2 ? 1 : 4 + hostile_random_(c) % 4] = hostile_random_(c);
        break;
    case HOSTILE_REFUSE:
        m[1] = OFT_ERROR_;
        hostile_be16_(m + 8, hostile_random_(c) % 24);
        hostile_be16_(m + 10, hostile_random_(c) % 20);
        break;
    case HOSTILE_ENDLESS:
    case HOSTILE_NESTED:
        if (m[1] == OFT_REPLY_ && m[9] == 1) {
            if (c->mode == HOSTILE_NESTED) {
                hostile_of_flow_(c, m, 4000, false);
            } else if (!c->n_kept) {
                /* The rest as fast as it is taken: hostile_of_more_(). */
                memcpy(c->kept, m, n);
                c->n_kept = n;
            }
            return;
        }
        break;
    }
    hostile_put_(c, m, n);
}

/* --- OVSDB ------------------------------------------------------------------------------ */

/* The first row of 'table' in a message. */
static inline void
hostile_learn_(const char *m, const char *table, char *uuid)
{
    char key[64];
    const char *at;

    snprintf(key, sizeof key, "\"%s\":{\"", table);
    at = strstr(m, key);
    if (at && strlen(at) > strlen(key) + 36) {
        snprintf(uuid, 40, "%.36s", at + strlen(key));
    }
}

static inline void
hostile_db_update_(struct hostile_conn_ *c, const char *rows)
{
    static char text[70000];

    snprintf(text, sizeof text,
             "{\"id\":null,\"method\":\"update3\",\"params\":[[\"monid\",\"Open_vSwitch\"],"
             "\"00000000-0000-0000-0000-000000000000\",{%s}]}",
             rows);
    hostile_put_(c, text, strlen(text));
}

static inline void
hostile_db_words_(struct hostile_conn_ *c, char *m, size_t n)
{
    static const char *const words[] = {
        "null",
        "{}",
        "[]",
        "-1",
        "1e308",
        "\"\\u0000\"",
        "99999999999999999999",
        "\"\xff\xfe\"",
        "true",
        "[\"set\",[]]",
        "[\"map\",[[1,2]]]",
        "[\"uuid\",\"x\"]",
        "[\"set\",[[\"set\",[]]]]",
    };
    size_t at = hostile_random_(c) % n;
    const char *word = words[hostile_random_(c) % (sizeof words / sizeof *words)];
    const char *colon = memchr(m + at, ':', n - at), *end;

    if (!colon) {
        hostile_put_(c, m, n);
        return;
    }
    /* The word or number after a colon; of what begins with a brace only that. */
    end = colon + 1 + strcspn(colon + 1, ",}]");
    hostile_put_(c, m, colon + 1 - m);
    hostile_put_(c, word, strlen(word));
    hostile_put_(c, end, m + n - end);
}

static inline void
hostile_db_unasked_(struct hostile_conn_ *c)
{
    static const char *const tables[] = {"Bridge", "Port", "Interface", "Open_vSwitch", "None"};
    static const char *const what[] = {"insert", "modify", "delete", "initial", "x"};
    static const char *const rows[] = {
        "{}",
        "null",
        "[]",
        "{\"name\":5}",
        "{\"ofport\":[\"set\",[1,2,3]]}",
        "{\"ports\":[\"uuid\",\"%s\"]}",
        "{\"interfaces\":[\"set\",[[\"uuid\",\"%s\"]]]}",
        "{\"external_ids\":[\"map\",[[\"a\",\"b\"],[\"a\",\"c\"]]]}",
        "{\"name\":\"xenbr0\"}",
        "{\"bridges\":[\"set\",[]]}",
    };
    const char *uuids[] = {c->row, c->port, c->interface, "11111111-2222-3333-4444-555555555555"};
    char row[256], update[512];

    snprintf(row, sizeof row, rows[hostile_random_(c) % 10], uuids[hostile_random_(c) % 4]);
    snprintf(update, sizeof update, "\"%s\":{\"%s\":{\"%s\":%s}}", tables[hostile_random_(c) % 5],
             uuids[hostile_random_(c) % 4], what[hostile_random_(c) % 5], row);
    hostile_db_update_(c, update);
}

static inline void
hostile_db_spoil_(struct hostile_conn_ *c, char *m, size_t n)
{
    switch ((int)c->mode) {
    case HOSTILE_LENGTH:
        hostile_put_(c, m, hostile_random_(c) % n);
        break;
    case HOSTILE_FIELDS:
        hostile_db_words_(c, m, n);
        break;
    case HOSTILE_REFUSE:
        hostile_print_(c, "{\"id\":%u,\"result\":[{\"error\":\"no\"}],\"error\":null}",
                       hostile_random_(c) % 8);
        break;
    default:
        hostile_put_(c, m, n);
        break;
    }
}

/* --- both ---------------------------------------------------------------------------------- */

static inline void
hostile_message_(struct hostile_conn_ *c, char *m, size_t n)
{
    if (!c->is_of) {
        hostile_learn_(m, "Open_vSwitch", c->root);
        hostile_learn_(m, "Bridge", c->row);
        hostile_learn_(m, "Port", c->port);
        hostile_learn_(m, "Interface", c->interface);
    }
    if (c->mode == HOSTILE_HONEST || c->n_messages++ < c->after) {
        hostile_put_(c, m, n);
        return;
    }
    hostile_->n_spoilt++;
    switch ((int)c->mode) {
    case HOSTILE_SILENT:
        return;
    case HOSTILE_FLIP:
        for (unsigned i = 0; i < 1 + hostile_random_(c) % 4; i++) {
            m[hostile_random_(c) % n] ^= 1u << hostile_random_(c) % 8;
        }
        hostile_put_(c, m, n);
        return;
    case HOSTILE_REORDER:
        if (c->n_kept && hostile_random_(c) % 2) {
            hostile_put_(c, c->kept, c->n_kept);
        }
        memcpy(c->kept, m, n);
        c->n_kept = n;
        if (hostile_random_(c) % 4) {
            hostile_put_(c, m, n);
        }
        return;
    }
    if (c->is_of) {
        hostile_of_spoil_(c, (uint8_t *)m, n);
    } else {
        hostile_db_spoil_(c, m, n);
    }
}

/* What is said without having been asked, when there is room for it. */
static inline void
hostile_of_more_(struct hostile_conn_ *c)
{
    static uint8_t echo[60000];

    if (c->mode == HOSTILE_ECHO) {
        hostile_of_head_(echo, OFT_ECHO_, sizeof echo, 1);
        hostile_put_(c, echo, sizeof echo);
    } else if (c->mode == HOSTILE_ENDLESS && c->n_kept) {
        hostile_of_flow_(c, (uint8_t *)c->kept, 400, true);
    } else if (c->mode == HOSTILE_UNASKED) {
        hostile_of_unasked_(c);
    }
}

static inline void
hostile_db_more_(struct hostile_conn_ *c)
{
    static char text[50000], big[60000];
    char row[256];
    size_t n = 0;

    switch ((int)c->mode) {
    case HOSTILE_ECHO:
        memset(text, 'x', sizeof text - 1);
        hostile_print_(c, "{\"id\":\"e\",\"method\":\"echo\",\"params\":[\"%s\"]}", text);
        break;
    case HOSTILE_ENDLESS:
        memset(text, 'x', sizeof text);
        if (!c->n_made++) {
            hostile_put_(c, "{\"id\":\"", 7);
        }
        hostile_put_(c, text, sizeof text);
        break;
    case HOSTILE_NESTED:
        memset(text, '[', sizeof text);
        hostile_put_(c, text, sizeof text);
        break;
    case HOSTILE_UNASKED:
        hostile_db_unasked_(c);
        break;
    case HOSTILE_ROWS:
        n = snprintf(big, sizeof big, "\"Interface\":{");
        for (int i = 0; i < 500; i++) {
            n += snprintf(big + n, sizeof big - n,
                          "%s\"%08x-0000-4000-8000-000000000000\":{\"insert\":{}}", i ? "," : "",
                          ++c->n_made);
        }
        snprintf(big + n, sizeof big - n, "}");
        hostile_db_update_(c, big);
        break;
    case HOSTILE_SET:
        n = snprintf(big, sizeof big,
                     "\"Open_vSwitch\":{\"%s\":{\"modify\":{\"datapath_types\":[\"set\",[\"x\"",
                     c->root);
        /* Many at first; then small changes of what is large. */
        for (int i = 0; i < (c->n_made < 100000 ? 5000 : 1); i++) {
            n += snprintf(big + n, sizeof big - n, ",\"%d\"", c->n_made++);
        }
        snprintf(big + n, sizeof big - n, "]]}}}");
        hostile_db_update_(c, big);
        break;
    case HOSTILE_PORTS:
        if (c->controller.n_out) {
            break;
        }
        snprintf(row, sizeof row, "\"Interface\":{\"%s\":{\"modify\":{\"ofport\":%u}}}",
                 c->interface, 1 + c->n_made++ % 2);
        hostile_db_update_(c, row);
        break;
    }
}

/* The length of the message that 'c->in' begins with; 0: more is to come. */
static inline size_t
hostile_framed_(const struct hostile_conn_ *c)
{
    bool quoted = false;
    int depth = 0;

    if (c->is_of) {
        size_t n = c->n_in < 8 ? 0 : (uint8_t)c->in[2] << 8 | (uint8_t)c->in[3];

        return n && n <= c->n_in ? n : 0;
    }
    for (size_t i = 0; i < c->n_in; i++) {
        char ch = c->in[i];

        if (quoted) {
            i += ch == '\\';
            quoted = ch != '"';
        } else if (ch == '"') {
            quoted = true;
        } else if (ch == '{') {
            depth++;
        } else if (ch == '}' && !--depth) {
            return i + 1;
        }
    }
    return 0;
}

static inline void
hostile_take_(struct hostile_conn_ *c)
{
    static char m[HOSTILE_IN_MAX + 1];
    size_t n;

    while ((n = hostile_framed_(c))) {
        memcpy(m, c->in, n);
        m[n] = '\0';
        memmove(c->in, c->in + n, c->n_in - n);
        c->n_in -= n;
        hostile_message_(c, m, n);
    }
}

/* --- the proxy --------------------------------------------------------------------------- */

static inline int
hostile_connect_(const char *dir, const char *name)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(sun.sun_path, sizeof sun.sun_path, "%s/%s", dir, name);
    if (connect(fd, (struct sockaddr *)&sun, sizeof sun)) {
        close(fd);
        return -1;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static inline int
hostile_listen_(const char *dir, const char *name)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(sun.sun_path, sizeof sun.sun_path, "%s/%s", dir, name);
    ovs_assert(!bind(fd, (struct sockaddr *)&sun, sizeof sun) && !listen(fd, 8));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static inline void
hostile_close_(struct hostile_conn_ *c)
{
    close(c->controller.fd);
    close(c->peer.fd);
    c->used = false;
}

static inline void
hostile_accept_(struct hostile_conn_ *conns, size_t n, int listener, const char *dir, bool is_of)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct hostile_conn_ *c = NULL;

    for (size_t i = 0; i < n && !c; i++) {
        c = conns[i].used ? NULL : &conns[i];
    }
    if (fd < 0 || !c) {
        close(fd);
        return;
    }
    if (!c->in) {
        c->in = malloc(HOSTILE_IN_MAX);
        c->kept = malloc(HOSTILE_IN_MAX);
        c->controller.out = malloc(HOSTILE_OUT_MAX);
        c->peer.out = malloc(HOSTILE_OUT_MAX);
    }
    c->is_of = is_of;
    c->mode = is_of ? hostile_->of : hostile_->db;
    c->after = hostile_->after;
    c->random = hostile_->seed + ++hostile_->n_connections;
    c->n_messages = c->n_made = 0;
    c->n_in = c->n_kept = c->controller.n_out = c->peer.n_out = 0;
    c->root[0] = c->row[0] = c->port[0] = c->interface[0] = '\0';
    c->controller.fd = fd;
    c->peer.fd = hostile_connect_(dir, is_of ? "xenbr0.mgmt" : "db.sock");
    c->used = true;
    if (c->peer.fd < 0) {
        hostile_close_(c);
    }
}

static inline bool
hostile_flush_(struct hostile_end_ *e, size_t most)
{
    size_t n = e->n_out < most ? e->n_out : most;
    ssize_t sent = n ? send(e->fd, e->out, n, MSG_NOSIGNAL) : 0;

    if (sent > 0) {
        memmove(e->out, e->out + sent, e->n_out - sent);
        e->n_out -= sent;
    }
    return sent >= 0 || errno == EAGAIN;
}

static inline bool
hostile_turn_(struct hostile_conn_ *c)
{
    bool spoils = c->mode != HOSTILE_HONEST && c->n_messages >= c->after;
    bool deaf = c->mode == HOSTILE_ECHO && spoils;
    ssize_t got;

    if (c->n_in < HOSTILE_IN_MAX / 2 && c->controller.n_out < HOSTILE_OUT_MAX / 4) {
        got = recv(c->peer.fd, c->in + c->n_in, HOSTILE_IN_MAX / 2, 0);
        if (!got || (got < 0 && errno != EAGAIN)) {
            return false;
        }
        c->n_in += got > 0 ? got : 0;
        hostile_take_(c);
    }
    if (!deaf && c->peer.n_out < HOSTILE_OUT_MAX / 2) {
        got = recv(c->controller.fd, c->peer.out + c->peer.n_out, HOSTILE_OUT_MAX / 2, 0);
        if (!got || (got < 0 && errno != EAGAIN)) {
            return false;
        }
        c->peer.n_out += got > 0 ? got : 0;
    }
    for (size_t before = SIZE_MAX;
         spoils && c->controller.n_out != before && c->controller.n_out < HOSTILE_OUT_MAX / 4;) {
        before = c->controller.n_out;
        if (c->is_of) {
            hostile_of_more_(c);
        } else {
            hostile_db_more_(c);
        }
        hostile_->n_spoilt += c->controller.n_out > before;
        if (c->mode == HOSTILE_PORTS) {
            break;
        }
    }
    return hostile_flush_(&c->peer, SIZE_MAX) &&
           hostile_flush_(&c->controller, c->mode == HOSTILE_SLOW ? 1 : SIZE_MAX);
}

static inline void
hostile_run_(const char *dir, int db, int of)
{
    static struct hostile_conn_ conns[16];

    for (;;) {
        struct pollfd pfds[2 + 2 * 16] = {{.fd = db, .events = POLLIN},
                                          {.fd = of, .events = POLLIN}};
        bool more = false;
        int n = 2;

        for (int i = 0; i < 16; i++) {
            struct hostile_conn_ *c = &conns[i];

            if (c->used && !hostile_turn_(c)) {
                hostile_close_(c);
            }
            if (c->used) {
                pfds[n++] = (struct pollfd){.fd = c->peer.fd, .events = POLLIN};
                pfds[n++] = (struct pollfd){.fd = c->controller.fd,
                                            .events = POLLIN | (c->controller.n_out ? POLLOUT : 0)};
                more = more || c->mode == HOSTILE_SLOW || c->controller.n_out;
            }
        }
        poll(pfds, n, more ? 1 : 10);
        if (pfds[0].revents) {
            hostile_accept_(conns, 16, db, dir, false);
        }
        if (pfds[1].revents) {
            hostile_accept_(conns, 16, of, dir, true);
        }
    }
}

/* Starts the proxy before 's', whose process is returned.  Its sockets are bad.db
 * and bad.of in the switch's folder. */
static inline pid_t
hostile_start(const struct ctl_switch *s)
{
    int db = hostile_listen_(s->dir, "bad.db"), of = hostile_listen_(s->dir, "bad.of");
    pid_t pid;

    hostile_ =
        mmap(NULL, sizeof *hostile_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ovs_assert(hostile_ != MAP_FAILED);
    pid = fork();
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        hostile_run_(s->dir, db, of);
    }
    close(db);
    close(of);
    return pid;
}

#endif
