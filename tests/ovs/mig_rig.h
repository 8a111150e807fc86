/* mig_rig: both ends of migrations as processes, a wire between them that fails when
 * told to, and the row in a file.
 *
 *     rig_setup();                          before anything else; forks the hypervisor
 *     rig_boot(vm, rate)                    a guest at host 0, its row (h0, 1)
 *     struct party d = rig_party(1, vm), s = rig_party(0, vm);   edit d.job, s.job
 *     rig_start(&d); rig_connect(&s, &d, &wire); rig_start(&s);
 *     rig_until(&s, MIG_EVENT_STOPPED)      events; rig_tell(&s, 'c'); rig_kill(&s)
 *     rig_finish(&s)                        waits for the result
 *     rig_teardown();
 *
 * All processes are forked by the test's one thread and die with it. */
#ifndef MIG_RIG_H
#define MIG_RIG_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "engine.h"
#include "mig_fake.h"

enum { RIG_EVENT_RESULT = 100, RIG_WIRES = 8, RIG_PATIENCE_MS = 15000 };

static char rig_dir[64];
static pid_t rig_hv;
static int rig_serial; /* of migrations: names journals */

struct rig_message {
    int kind, phase;
    char text[64];
    struct mig_result result;
};

struct party {
    struct mig_job job;
    char claim[96], journal[128], address[64], host[2], index[12];
    char pause_at[16];
    pid_t pid;
    int in, out; /* orders to it; messages from it */
    int last_phase;
    struct mig_result result;
};

static inline void
rig_die_with_parent(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(1);
    }
}

static inline void
rig_setup(void)
{
    pid_t parent = getpid();

    signal(SIGPIPE, SIG_IGN);
    fake_setup();
    snprintf(rig_dir, sizeof rig_dir, "/tmp/mig_rig.XXXXXX");
    if (!mkdtemp(rig_dir)) {
        abort();
    }
    rig_hv = fork();
    if (!rig_hv) {
        rig_die_with_parent(parent);
        fake_hypervisor();
    }
}

static inline void
rig_teardown(void)
{
    char command[128];

    fake->stop = true;
    waitpid(rig_hv, NULL, 0);
    snprintf(command, sizeof command, "rm -rf %s", rig_dir);
    if (system(command)) {
        fprintf(stderr, "%s is left\n", rig_dir);
    }
}

static inline void
rig_uuid(char out[37], int n)
{
    snprintf(out, 37, "00000000-0000-4000-8000-%012d", n);
}

static inline void
rig_boot(int index, unsigned int rate)
{
    char path[96], vm[37];
    struct claim_file f = {.path = path, .vm = vm};

    rig_serial++;
    fake->cut_off[0] = fake->cut_off[1] = false;
    fake->answers_lost[0] = fake->answers_lost[1] = 0;
    fake->swaps_lost[0] = fake->swaps_lost[1] = 0;
    snprintf(path, sizeof path, "%s/row%d", rig_dir, index);
    rig_uuid(vm, index);
    unlink(path);
    if (claim_file_create(&f, "h0", 1)) {
        abort();
    }
    fake_boot(index, (uint64_t)rig_serial, rate);
}

/* What the row says. */
static inline int
rig_row(int index, uint64_t *epoch)
{
    char path[96], vm[37], host[MIG_HOST] = "";
    struct claim_file f = {.path = path, .vm = vm};
    struct mig_claim c = claim_file(&f);

    snprintf(path, sizeof path, "%s/row%d", rig_dir, index);
    rig_uuid(vm, index);
    return c.read(c.aux, host, epoch, 1000) ? -1 : host[1] - '0';
}

static inline struct party
rig_party(int host, int index)
{
    struct party p = {.in = -1, .out = -1, .last_phase = -1};

    mig_job_init(&p.job);
    p.job.role = host ? MIG_RECEIVE : MIG_SEND;
    strcpy(p.job.driver, "fake");
    rig_uuid(p.job.migration, 1000 + rig_serial);
    rig_uuid(p.job.vm, index);
    strcpy(p.job.from, "h0");
    strcpy(p.job.to, "h1");
    p.job.epoch = 1;
    p.job.plain = true;
    p.job.answer_ms = 10000;
    p.job.accept_ms = 10000;
    snprintf(p.claim, sizeof p.claim, "%s/row%d", rig_dir, index);
    snprintf(p.journal, sizeof p.journal, "%s/h%d", rig_dir, host);
    mkdir(p.journal, 0700);
    snprintf(p.journal, sizeof p.journal, "%s/h%d/journal%d", rig_dir, host, rig_serial);
    snprintf(p.host, sizeof p.host, "%d", host);
    snprintf(p.index, sizeof p.index, "%d", index);
    strcpy(p.address, "127.0.0.1:0");
    return p;
}

/* --- in the child ------------------------------------------------------------------ */

struct rig_child {
    int out, in, host;
    struct claim_file file;
    struct mig_control *control;
};

static inline void
rig_send(int fd, const struct rig_message *m)
{
    if (write(fd, m, sizeof *m) != sizeof *m) {
        _exit(3);
    }
}

static inline void
rig_on_event(void *aux, const struct mig_event *ev)
{
    struct rig_child *c = aux;
    struct rig_message m = {.kind = ev->kind, .phase = ev->phase};

    if (ev->kind == MIG_EVENT_PROGRESS) {
        fake->told[c->host]++;
    } else {
        snprintf(m.text, sizeof m.text, "%s", ev->text ? ev->text : "");
        rig_send(c->out, &m);
    }
}

static inline int
rig_read(void *aux, char host[MIG_HOST], uint64_t *epoch, int timeout_ms)
{
    struct rig_child *c = aux;
    struct mig_claim claim = claim_file(&c->file);

    if (fake->cut_off[c->host]) {
        usleep(5000);
        return ETIMEDOUT;
    }
    return claim.read(claim.aux, host, epoch, timeout_ms);
}

static inline int
rig_swap(void *aux, const char *from, uint64_t e1, const char *to, uint64_t e2, int timeout_ms)
{
    struct rig_child *c = aux;
    struct mig_claim claim = claim_file(&c->file);
    int error;

    if (fake->cut_off[c->host]) {
        usleep(5000);
        return ETIMEDOUT;
    }
    if (fake->swaps_lost[c->host] > 0) {
        fake->swaps_lost[c->host]--;
        return ETIMEDOUT;
    }
    error = claim.swap(claim.aux, from, e1, to, e2, timeout_ms);
    if (fake->answers_lost[c->host] > 0) {
        fake->answers_lost[c->host]--;
        return ETIMEDOUT;
    }
    return error;
}

static inline void *
rig_orders(void *arg)
{
    struct rig_child *c = arg;
    char order;

    while (read(c->in, &order, 1) == 1) {
        switch (order) {
        case 'c':
            mig_control_continue(c->control);
            break;
        case 'x':
            mig_control_cancel(c->control);
            break;
        case 'p':
            mig_control_postcopy(c->control);
            break;
        }
    }
    return NULL;
}

static inline void
rig_child(struct party *p, int in, int out)
{
    struct rig_child c = {.in = in, .out = out, .host = p->host[0] - '0'};
    struct rig_message m = {.kind = RIG_EVENT_RESULT};
    struct mig_env env = {.job = &p->job,
                          .driver = &fake_driver,
                          .claim = {rig_read, rig_swap, &c},
                          .event = rig_on_event,
                          .aux = &c};
    pthread_t thread;

    p->job.options[0] = (struct mig_option){"host", p->host};
    p->job.options[1] = (struct mig_option){"index", p->index};
    p->job.n_options = 2;
    p->job.journal = p->journal;
    *(c.host ? &p->job.listen : &p->job.connect) = p->address;
    p->job.pause_at = *p->pause_at ? p->pause_at : NULL;
    c.file = (struct claim_file){.path = p->claim, .vm = p->job.vm};
    env.control = c.control = mig_control_create();
    pthread_create(&thread, NULL, rig_orders, &c);
    mig_run(&env, &m.result);
    rig_send(out, &m);
    _exit(0);
}

/* --- in the test --------------------------------------------------------------------- */

static inline void
rig_start(struct party *p)
{
    pid_t parent = getpid();
    int in[2], out[2];

    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) {
        abort();
    }
    p->pid = fork();
    if (!p->pid) {
        rig_die_with_parent(parent);
        close(in[1]);
        close(out[0]);
        rig_child(p, in[0], out[1]);
    }
    close(in[0]);
    close(out[1]);
    p->in = in[1];
    p->out = out[0];
}

static inline void
rig_reap(struct party *p)
{
    if (p->pid > 0) {
        waitpid(p->pid, NULL, 0);
        close(p->in);
        close(p->out);
        p->pid = 0;
    }
}

static inline void
rig_kill(struct party *p)
{
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
    }
    rig_reap(p);
}

static inline void
rig_tell(struct party *p, char order)
{
    if (p->pid > 0 && write(p->in, &order, 1) != 1) {
        fprintf(stderr, "order lost\n");
    }
}

/* Until an event of this kind (and phase, unless -1); false: there was none. */
static inline bool
rig_until(struct party *p, int kind, int phase)
{
    struct pollfd fd = {.fd = p->out, .events = POLLIN};
    struct rig_message m;

    while (p->pid > 0 && poll(&fd, 1, RIG_PATIENCE_MS) == 1) {
        if (read(p->out, &m, sizeof m) != sizeof m) {
            break;
        }
        if (m.kind == MIG_EVENT_PHASE) {
            p->last_phase = m.phase;
        }
        if (m.kind == MIG_EVENT_LISTENING) {
            snprintf(p->address, sizeof p->address, "%s", m.text);
        }
        if (m.kind == RIG_EVENT_RESULT) {
            p->result = m.result;
        }
        if (m.kind == kind && (phase < 0 || m.phase == phase)) {
            return true;
        }
        if (m.kind == RIG_EVENT_RESULT) {
            break;
        }
    }
    return false;
}

/* Waits for the result; one that never comes is MIG_FAILED. */
static inline enum mig_status
rig_finish(struct party *p)
{
    if (p->pid > 0) {
        p->result = (struct mig_result){.status = MIG_FAILED, .why = "no result came"};
        rig_until(p, RIG_EVENT_RESULT, -1);
        kill(p->pid, SIGKILL);
        rig_reap(p);
    }
    return p->result.status;
}

/* The same job again, with the journal. */
static inline enum mig_status
rig_recover(struct party *p)
{
    p->job.role = MIG_RECOVER;
    *p->pause_at = '\0';
    rig_start(p);
    return rig_finish(p);
}

/* --- the wire -------------------------------------------------------------------------- */

enum rig_fault { RIG_NONE, RIG_CUT, RIG_FLIP, RIG_SWAP, RIG_DOUBLE, RIG_DROP };

struct wire {
    enum rig_fault fault;
    uint64_t at; /* byte of all that the source sends */
    bool heals;  /* after a cut new connections are let through */
    /* What rig_harm() does, to the next bytes of that end. */
    enum rig_fault next;
    bool next_of_destination;
    pid_t pid;
};

static inline int
rig_dial(const char *address)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    a.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static inline bool
rig_write(int fd, const uint8_t *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t done = send(fd, p + at, n - at, MSG_NOSIGNAL);

        if (done <= 0) {
            return false;
        }
        at += done;
    }
    return true;
}

/* Forwards n bytes of the source's, and does to them what was asked for. */
static inline bool
rig_damage(struct wire *w, uint64_t *total, int fd, uint8_t *p, size_t n, bool *cut)
{
    bool hit = w->fault && *total <= w->at && w->at < *total + n;
    size_t at = hit ? w->at - *total : 0, piece;

    *total += n;
    if (!hit) {
        return rig_write(fd, p, n);
    }
    switch (w->fault) {
    case RIG_CUT:
        rig_write(fd, p, at);
        w->fault = RIG_NONE;
        *cut = true;
        return false;
    case RIG_FLIP:
        p[at] ^= 1 << w->at % 8;
        return rig_write(fd, p, n);
    case RIG_SWAP:
        piece = (n - at) / 2;
        return rig_write(fd, p, at) && rig_write(fd, p + at + piece, n - at - piece) &&
               rig_write(fd, p + at, piece);
    case RIG_DOUBLE:
        return rig_write(fd, p, n) && rig_write(fd, p + at, n - at);
    case RIG_DROP:
        return rig_write(fd, p, at);
    default:
        return false;
    }
}

static volatile sig_atomic_t rig_break_now;

static volatile sig_atomic_t rig_harm_now;

static inline void
rig_on_usr1(int number)
{
    rig_break_now = 1;
}

static inline void
rig_on_usr2(int number)
{
    rig_harm_now = 1;
}

/* Forwards what an end has sent, and harms it if it is its turn. */
static inline bool
rig_forward(struct wire *w, uint64_t *total, bool of_source, int fd, uint8_t *p, size_t n,
            bool *cut)
{
    struct wire once = {.fault = w->next, .at = n / 2};
    uint64_t none = 0;

    if (rig_harm_now && of_source != w->next_of_destination) {
        rig_harm_now = 0;
        return rig_damage(&once, &none, fd, p, n, cut);
    }
    return of_source ? rig_damage(w, total, fd, p, n, cut) : rig_write(fd, p, n);
}

static inline void
rig_close(struct pollfd *p, int *n, int first)
{
    close(p[first].fd);
    close(p[first + 1].fd);
    memmove(&p[first], &p[first + 2], (*n - first - 2) * sizeof *p);
    *n -= 2;
}

static inline void
rig_proxy(struct wire *w, int listener, const char *to)
{
    struct pollfd p[1 + 2 * RIG_WIRES] = {{.fd = listener, .events = POLLIN}};
    static uint8_t buf[16384];
    uint64_t total = 0;
    int n = 1, one = 1;

    signal(SIGUSR1, rig_on_usr1);
    signal(SIGUSR2, rig_on_usr2);
    for (;;) {
        int ready = poll(p, n, -1);

        while (rig_break_now && n > 1) {
            rig_close(p, &n, 1);
        }
        rig_break_now = 0;
        if (ready < 0 || n < 1) {
            continue;
        }
        for (int i = 1; i < n; i++) {
            int first = (i - 1) % 2 ? i - 1 : i, other = p[first == i ? i + 1 : first].fd;
            bool cut = false, up;
            ssize_t got;

            if (!p[i].revents) {
                continue;
            }
            got = recv(p[i].fd, buf, sizeof buf, 0);
            up = got > 0 && rig_forward(w, &total, first == i, other, buf, got, &cut);
            if (cut && !w->heals) {
                _exit(0);
            }
            if (cut) {
                rig_break_now = 1;
                break;
            }
            if (!up) {
                /* An end closed: its counterpart hears it. */
                rig_close(p, &n, first);
                break;
            }
        }
        if (p[0].revents && n < 1 + 2 * RIG_WIRES) {
            int fd = accept(listener, NULL, NULL), far = fd < 0 ? -1 : rig_dial(to);

            if (far < 0) {
                close(fd);
                continue;
            }
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            p[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
            p[n++] = (struct pollfd){.fd = far, .events = POLLIN};
        }
    }
}

/* Puts a wire between them.  The destination has told its address. */
static inline void
rig_connect(struct party *source, const struct party *destination, struct wire *w)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof a;
    pid_t parent = getpid();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 16) ||
        getsockname(fd, (struct sockaddr *)&a, &len)) {
        abort();
    }
    snprintf(source->address, sizeof source->address, "127.0.0.1:%d", ntohs(a.sin_port));
    w->pid = fork();
    if (!w->pid) {
        rig_die_with_parent(parent);
        rig_proxy(w, fd, destination->address);
    }
    close(fd);
}

/* All connections break, and none is made any more. */
static inline void
rig_cut(struct wire *w)
{
    if (w->pid > 0) {
        kill(w->pid, SIGKILL);
        waitpid(w->pid, NULL, 0);
        w->pid = 0;
    }
}

/* See 'next'. */
static inline void
rig_harm(struct wire *w)
{
    kill(w->pid, SIGUSR2);
}

/* All connections break once; new ones are let through. */
static inline void
rig_break(struct wire *w)
{
    kill(w->pid, SIGUSR1);
}

#endif
