/* mig_switch: what weft-migrate sees of a switch, in a process of its own: a control
 * socket that says yes to everything, a vif's socket of late frames, and a database
 * that takes connections and never answers.
 *
 *     switch_start(&sw, n_late, silent_db);     sw.dir is the run directory
 *     switch_asked(&sw, "weft/vif-release")     has the command come?
 *                                               " unmark" follows if it says so
 *     switch_db(&sw)                            a descriptor: a client of the database
 *     switch_stop(&sw);
 *
 * Late frames leave one by one, LATE_EVERY_MS apart, from the moment somebody listens;
 * the socket stays.  Include after mig_rig.h. */
#ifndef MIG_SWITCH_H
#define MIG_SWITCH_H

#include <sys/stat.h>
#include <sys/un.h>

enum { LATE_EVERY_MS = 120, SWITCH_CLIENTS = 16 };

struct fake_switch {
    char dir[96];
    int n_late;
    int db; /* listens; -1: there is none */
    pid_t pid;
};

static inline int
switch_listen(const char *path, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof a.sun_path, "%.100s", path);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 8)) {
        abort();
    }
    return fd;
}

/* Answers one request; false: the client is gone. */
static inline bool
switch_answer(const struct fake_switch *sw, int fd)
{
    char request[4096], reply[512], name[128], method[64] = "";
    ssize_t n = recv(fd, request, sizeof request - 1, 0);
    const char *id, *at;
    FILE *log;

    if (n <= 0) {
        return false;
    }
    request[n] = '\0';
    id = strstr(request, "\"id\":");
    at = strstr(request, "\"method\":\"");
    if (!id || !at) {
        return false;
    }
    sscanf(at, "\"method\":\"%63[^\"]", method);
    snprintf(name, sizeof name, "%s/asked", sw->dir);
    log = fopen(name, "ae");
    fprintf(log, "%s%s\n", method, strstr(request, "\"unmark\"") ? " unmark" : "");
    fclose(log);
    n = snprintf(reply, sizeof reply,
                 "{\"id\":%ld,\"error\":null,\"result\":\"vif1.0: - last_ns=1 first_ns=2 "
                 "held_ns=0 kept=0 fed=0 taken=0 dropped=0 bytes=0\"}",
                 atol(id + 5));
    return send(fd, reply, n, MSG_NOSIGNAL) == n;
}

static inline void
switch_serve(const struct fake_switch *sw, int control, int late)
{
    struct pollfd p[SWITCH_CLIENTS] = {{.fd = control, .events = POLLIN},
                                       {.fd = late, .events = POLLIN}};
    int n = 2, peer = -1, left = sw->n_late;
    uint8_t frame[8 + 60] = {1, [4] = 60};

    for (;;) {
        if (!poll(p, n, peer >= 0 && left ? LATE_EVERY_MS : -1)) {
            left -= send(peer, frame, sizeof frame, MSG_NOSIGNAL) > 0;
        }
        if (p[0].revents && n < SWITCH_CLIENTS) {
            p[n++] = (struct pollfd){.fd = accept(control, NULL, NULL), .events = POLLIN};
        }
        if (p[1].revents) {
            peer = accept(late, NULL, NULL);
        }
        for (int i = 2; i < n; i++) {
            if (p[i].revents && !switch_answer(sw, p[i].fd)) {
                close(p[i].fd);
                p[i--] = p[--n];
            }
        }
    }
}

static inline void
switch_start(struct fake_switch *sw, int n_late, bool silent_db)
{
    pid_t parent = getpid();
    char path[160];
    int control, late;
    FILE *f;

    *sw = (struct fake_switch){.n_late = n_late, .db = -1};
    snprintf(sw->dir, sizeof sw->dir, "%s/switch%d", rig_dir, rig_serial);
    snprintf(path, sizeof path, "%s/weft", sw->dir);
    if (mkdir(sw->dir, 0700) || mkdir(path, 0700)) {
        abort();
    }
    snprintf(path, sizeof path, "%s/ovs-vswitchd.pid", sw->dir);
    f = fopen(path, "we");
    fprintf(f, "1\n");
    fclose(f);
    snprintf(path, sizeof path, "%s/ovs-vswitchd.1.ctl", sw->dir);
    control = switch_listen(path, SOCK_STREAM);
    snprintf(path, sizeof path, "%s/weft/move-vif1.0", sw->dir);
    late = switch_listen(path, SOCK_SEQPACKET);
    if (silent_db) {
        snprintf(path, sizeof path, "%s/db.sock", sw->dir);
        sw->db = switch_listen(path, SOCK_STREAM);
    }
    sw->pid = fork();
    if (!sw->pid) {
        rig_die_with_parent(parent);
        switch_serve(sw, control, late);
    }
    close(control);
    close(late);
}

static inline void
switch_stop(struct fake_switch *sw)
{
    kill(sw->pid, SIGKILL);
    waitpid(sw->pid, NULL, 0);
    if (sw->db >= 0) {
        close(sw->db);
    }
}

static inline bool
switch_asked(const struct fake_switch *sw, const char *command)
{
    char name[128], line[128];
    bool found = false;
    FILE *f;

    snprintf(name, sizeof name, "%s/asked", sw->dir);
    f = fopen(name, "re");
    while (f && fgets(line, sizeof line, f)) {
        found |= !strncmp(line, command, strlen(command));
    }
    if (f) {
        fclose(f);
    }
    return found;
}

/* Waits for somebody who asks the database; -1: nobody comes. */
static inline int
switch_db(const struct fake_switch *sw)
{
    struct pollfd p = {.fd = sw->db, .events = POLLIN};

    return poll(&p, 1, RIG_PATIENCE_MS) == 1 ? accept(sw->db, NULL, NULL) : -1;
}

/* A vif of it, for a party's job. */
static inline void
switch_vif(const struct fake_switch *sw, struct party *p, bool stock)
{
    struct network_vif *v = &p->job.vifs[p->job.n_vifs++];

    rig_uuid(v->uuid, 77);
    strcpy(v->port, "vif1.0");
    snprintf(v->switch_dir, sizeof v->switch_dir, "%s", sw->dir);
    v->stock = stock;
}

#endif
