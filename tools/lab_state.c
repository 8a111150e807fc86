/* The lab's state file and lock.
 *
 * Theory of Operation
 *
 * The lab's shape (names, addresses, paths) follows from its configuration,
 * so the file holds the configuration and, for each process and namespace in
 * lab order, what identifies the live thing.  lab_load() builds the model
 * with lab_new() and fills these in.  A file of another format, or whose
 * arrays do not fit its configuration, is refused as a whole.
 *
 * The lock is flock() on DIR/lock.  Its holder removes the file last of all,
 * so a taker looks whether the file that it locked still has that name. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lab.h"

#define FORMAT 3

void
lab_path(char *buf, size_t size, const char *dir, const char *file)
{
    snprintf(buf, size, "%s/%s", dir, file);
}

static void
on_alarm(int signal)
{
    (void)signal; /* interrupts flock() */
}

/* flock() that gives up after 'wait_s' seconds. */
static int
lock_within(int fd, unsigned wait_s)
{
    struct sigaction action = {.sa_handler = on_alarm}, before;
    int error;

    if (!flock(fd, LOCK_EX | LOCK_NB)) {
        return 0;
    }
    if (errno != EWOULDBLOCK || !wait_s) {
        return errno;
    }
    sigaction(SIGALRM, &action, &before);
    alarm(wait_s);
    error = flock(fd, LOCK_EX) ? errno : 0;
    alarm(0);
    sigaction(SIGALRM, &before, NULL);
    return error == EINTR ? EWOULDBLOCK : error;
}

int
lab_lock(const char *dir, unsigned wait_s, int *fdp, char *why, size_t why_size)
{
    char path[LAB_PATH_MAX];
    struct stat held, named;

    lab_path(path, sizeof path, dir, "lock");
    for (;;) {
        if (mkdir(dir, 0755) && errno != EEXIST) {
            int error = errno;
            snprintf(why, why_size, "cannot make %s: %s", dir, strerror(error));
            return error;
        }
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0) {
            int open_error = errno;
            if (open_error == ENOENT) {
                continue; /* removed by a lab that has just ended */
            }
            snprintf(why, why_size, "cannot open %s: %s", path, strerror(open_error));
            return open_error;
        }
        int error = lock_within(fd, wait_s);
        if (error) {
            snprintf(why, why_size, "%s is locked", path);
            close(fd);
            return error;
        }
        if (!fstat(fd, &held) && !stat(path, &named) && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev) {
            *fdp = fd;
            return 0;
        }
        close(fd);
    }
}

/* --- writing ---------------------------------------------------------------- */

static json_t *
proc_to_json(const struct lab_proc *p)
{
    return json_pack("{s:s, s:i, s:I, s:i, s:b}", "name", p->name, "pid", (int)p->pid, "start",
                     (json_int_t)p->start, "restarts", (int)p->restarts, "failed", p->failed);
}

static json_t *
config_to_json(const struct lab_config *c)
{
    json_t *vlans = json_array();

    for (unsigned i = 0; i < c->n_vlans; i++) {
        json_array_append_new(vlans, json_integer(c->vlans[i]));
    }
    return json_pack("{s:s, s:s, s:i, s:i, s:o, s:s, s:i, s:i, s:s, s:i, s:b, s:b, s:b, s:i, s:s, "
                     "s:s, s:b, s:i, s:s, s:b, s:i}",
                     "name", c->name, "dir", c->dir, "hosts", (int)c->n_hosts, "guests_per_host",
                     (int)c->guests_per_host, "vlans", vlans, "datapath", c->datapath, "nic",
                     (int)c->nic, "pmd_maxsleep", (int)c->pmd_maxsleep_us, "pmd_mask", c->pmd_mask,
                     "queues", (int)c->queues, "static_grants", c->static_grants, "hash", c->hash,
                     "multicast", c->multicast, "guest_mtu", (int)c->guest_mtu, "bin", c->bin,
                     "share", c->share, "pool", c->pool, "stock", (int)c->n_stock, "stock_vswitchd",
                     c->stock_vswitchd, "spare", c->spare, "cells_per_host",
                     (int)c->cells_per_host);
}

static json_t *
lab_to_json(const struct lab *lab)
{
    json_t *procs = json_array();
    json_t *netns = json_array();

    for (unsigned i = 0; i < lab->n_procs; i++) {
        json_array_append_new(procs, proc_to_json(lab->procs[i]));
    }
    for (unsigned i = 0; i < lab->n_netns; i++) {
        json_array_append_new(netns, json_pack("{s:s, s:I}", "name", lab->netns[i]->name, "inode",
                                               (json_int_t)lab->netns[i]->inode));
    }
    return json_pack("{s:i, s:i, s:I, s:s, s:o, s:o, s:o, s:o}", "format", FORMAT, "phase",
                     (int)lab->phase, "since", (json_int_t)lab->since, "boot", lab->boot,
                     "supervisor", proc_to_json(&lab->supervisor), "config",
                     config_to_json(&lab->config), "procs", procs, "netns", netns);
}

int
lab_save(struct lab *lab)
{
    char path[LAB_PATH_MAX], fresh[LAB_PATH_MAX];
    json_t *root = lab_to_json(lab);
    int error = 0;

    lab_path(path, sizeof path, lab->config.dir, "state.json");
    lab_path(fresh, sizeof fresh, lab->config.dir, "state.json.new");
    if (!root) {
        return lab_fail(lab, ENOMEM, "no memory for the lab's state");
    }
    if (json_dump_file(root, fresh, JSON_INDENT(1)) || rename(fresh, path)) {
        error = lab_fail(lab, errno ? errno : EIO, "cannot write %s: %s", path, strerror(errno));
        unlink(fresh);
    }
    json_decref(root);
    return error;
}

/* --- reading ---------------------------------------------------------------- */

static bool
copy_string(char *to, size_t size, const char *from)
{
    return (size_t)snprintf(to, size, "%s", from) < size;
}

static bool
config_from_json(json_t *j, struct lab_config *c)
{
    const char *name, *dir, *datapath, *mask, *bin, *share, *stock;
    int hosts, guests, nic, maxsleep, queues, static_grants, hash, multicast, mtu, pool, n_stock,
        spare, cells;
    json_t *vlans;

    memset(c, 0, sizeof *c);
    if (json_unpack(j,
                    "{s:s, s:s, s:i, s:i, s:o, s:s, s:i, s:i, s:s, s:i, s:b, s:b, s:b, s:i, s:s, "
                    "s:s, s:b, s:i, s:s, s:b, s:i}",
                    "name", &name, "dir", &dir, "hosts", &hosts, "guests_per_host", &guests,
                    "vlans", &vlans, "datapath", &datapath, "nic", &nic, "pmd_maxsleep", &maxsleep,
                    "pmd_mask", &mask, "queues", &queues, "static_grants", &static_grants, "hash",
                    &hash, "multicast", &multicast, "guest_mtu", &mtu, "bin", &bin, "share", &share,
                    "pool", &pool, "stock", &n_stock, "stock_vswitchd", &stock, "spare", &spare,
                    "cells_per_host", &cells) ||
        cells < 0 || cells > (int)LAB_MAX_CELLS || n_stock < 0 || n_stock > hosts || hosts < 1 ||
        hosts > (int)LAB_MAX_HOSTS || guests < 0 || guests > (int)LAB_MAX_GUESTS ||
        json_array_size(vlans) > LAB_MAX_VLANS || strchr(name, '/')) {
        return false;
    }
    c->n_hosts = hosts;
    c->guests_per_host = guests;
    c->n_vlans = json_array_size(vlans);
    for (unsigned i = 0; i < c->n_vlans; i++) {
        c->vlans[i] = json_integer_value(json_array_get(vlans, i));
    }
    c->nic = nic;
    c->pool = pool;
    c->n_stock = n_stock;
    c->spare = spare;
    c->cells_per_host = cells;
    c->pmd_maxsleep_us = maxsleep;
    c->queues = queues;
    c->static_grants = static_grants;
    c->hash = hash;
    c->multicast = multicast;
    c->guest_mtu = mtu;
    return copy_string(c->name, sizeof c->name, name) && copy_string(c->dir, sizeof c->dir, dir) &&
           copy_string(c->datapath, sizeof c->datapath, datapath) &&
           copy_string(c->pmd_mask, sizeof c->pmd_mask, mask) &&
           copy_string(c->bin, sizeof c->bin, bin) &&
           copy_string(c->stock_vswitchd, sizeof c->stock_vswitchd, stock) &&
           copy_string(c->share, sizeof c->share, share);
}

static bool
proc_from_json(json_t *j, struct lab_proc *p)
{
    const char *name;
    int pid, restarts, failed;
    json_int_t start;

    if (json_unpack(j, "{s:s, s:i, s:I, s:i, s:b}", "name", &name, "pid", &pid, "start", &start,
                    "restarts", &restarts, "failed", &failed) ||
        pid < 0 || pid == 1 || !copy_string(p->name, sizeof p->name, name)) {
        return false;
    }
    p->pid = pid;
    p->start = start;
    p->restarts = restarts;
    p->failed = failed;
    p->pidfd = -1;
    return true;
}

static bool
fill(struct lab *lab, json_t *root)
{
    json_t *supervisor, *procs, *netns;
    json_int_t since, inode;
    const char *boot, *name;
    int phase;

    if (json_unpack(root, "{s:i, s:I, s:s, s:o, s:o, s:o}", "phase", &phase, "since", &since,
                    "boot", &boot, "supervisor", &supervisor, "procs", &procs, "netns", &netns) ||
        !copy_string(lab->boot, sizeof lab->boot, boot) || json_array_size(procs) != lab->n_procs ||
        json_array_size(netns) != lab->n_netns || !proc_from_json(supervisor, &lab->supervisor)) {
        return false;
    }
    lab->phase = phase;
    lab->since = since;
    for (unsigned i = 0; i < lab->n_procs; i++) {
        if (!proc_from_json(json_array_get(procs, i), lab->procs[i])) {
            return false;
        }
    }
    for (unsigned i = 0; i < lab->n_netns; i++) {
        if (json_unpack(json_array_get(netns, i), "{s:s, s:I}", "name", &name, "inode", &inode) ||
            strcmp(name, lab->netns[i]->name) != 0) {
            return false;
        }
        lab->netns[i]->inode = inode;
    }
    return true;
}

int
lab_load(const char *dir, struct lab **labp, char *why, size_t why_size)
{
    char path[LAB_PATH_MAX];
    struct lab_config config;
    json_error_t json_error;
    struct lab *lab = NULL;

    lab_path(path, sizeof path, dir, "state.json");
    if (access(path, F_OK)) {
        snprintf(why, why_size, "no lab in %s", dir);
        return ENOENT;
    }
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &json_error);
    json_int_t format = json_integer_value(json_object_get(root, "format"));
    if (!root || format != FORMAT || !config_from_json(json_object_get(root, "config"), &config) ||
        strcmp(config.dir, dir) != 0) {
        goto malformed;
    }
    lab = lab_new(&config);
    if (!lab || !fill(lab, root)) {
        goto malformed;
    }
    json_decref(root);
    *labp = lab;
    return 0;

malformed:
    snprintf(why, why_size,
             "%s is not a state file of this version of weft; take the lab down with the weft "
             "that made it",
             path);
    lab_free(lab);
    json_decref(root);
    return EINVAL;
}
