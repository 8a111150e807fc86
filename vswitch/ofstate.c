/* Theory of Operation
 * ===================
 *
 * An IDL of our own tells which bridges there are and their UUIDs, which name
 * the files: a bridge that is removed and made again under the same name does
 * not inherit anything.
 *
 * What changes a bridge's state in ofproto ends in ofmonitor_report() or
 * connmgr_send_requestforward(); ours stand in front of both and only raise a
 * flag.  A thread of our own then asks every bridge for all it has, over the
 * same management socket as ovs-ofctl, and writes the file anew if it differs.
 * It rests ten times as long as that was computed, SAVE_DELAY_MS at least, so that a
 * table in constant change costs a tenth of a core at most.  When the process ends it
 * does not rest, and ends with the first save of what was said before then.
 *
 * At start the thread restores first.  As long as it does, ours in front of
 * ofproto_set_flow_restore_wait() keeps ofproto from deciding packets and from
 * talking to controllers.  A bridge is restored when its socket answers; one
 * whose file cannot be used gets no flow at all, so that nothing passes that a
 * lost policy would have denied, and the file is kept aside.
 *
 * A file is written under another name, synced and renamed. */
#include <config.h>

#include "ofstate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dirs.h"
#include "hash.h"
#include "if-notifier.h"
#include "latch.h"
#include "lib/vswitch-idl.h"
#include "ofstate_priv.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "ovs-thread.h"
#include "ovsdb-idl.h"
#include "smap.h"
#include "socket-util.h"
#include "timeval.h"
#include "util.h"
#include "uuid.h"
#include "wrap.h"

VLOG_DEFINE_THIS_MODULE(ofstate);

#define SUFFIX ".openflow"
#define SAVE_DELAY_MS 50
#define RESTORE_RETRY_MS 20
#define LAST_TRIES 5 /* to save when the process ends */
#define LAST_RETRY_MS 200
/* A bridge in the database that does not come up in this time after bridge.c has
 * set up what it can (a broken datapath) must not keep the others waiting. */
#define RESTORE_TIMEOUT_MS 10000

struct bridge {
    char *name;
    char *file;
    uint32_t saved_hash; /* of what the file holds; 0: unknown */
    bool restore;        /* has a file from before the start */
};

static struct ovsdb_idl *idl;
static unsigned int seen_seqno;
static char *directory;

/* Between the main thread and ours. */
static struct ovs_mutex lock = OVS_MUTEX_INITIALIZER;
static struct shash bridges OVS_GUARDED_BY(lock) = SHASH_INITIALIZER(&bridges);
static bool known OVS_GUARDED_BY(lock); /* 'bridges' has been filled once */
static bool enabled OVS_GUARDED_BY(lock) = true;

static struct latch wake, hurry, quit;
static atomic_bool dirty = false;
static atomic_bool ending = false;     /* what is asked for from now on is the last */
static atomic_bool ended = false;      /* the thread's work is done */
static atomic_bool restoring = false;  /* until the thread is done with it */
static atomic_bool configured = false; /* bridge.c has set up the bridges once */
static pthread_t thread;
static clockid_t main_clock; /* of what the main thread computes */

/* --- what stands in front of ofproto ------------------------------------ */

static void
changed(void)
{
    bool was;

    atomic_read_relaxed(&dirty, &was);
    if (!was) {
        atomic_store_relaxed(&dirty, true);
        if (idl) {
            latch_set(&wake);
        }
    }
}

void
__wrap_ofmonitor_report(struct connmgr *mgr, struct rule *rule, int event, int reason,
                        const struct ofconn *abbrev_ofconn, ovs_be32 abbrev_xid,
                        const struct rule_actions *old_actions)
{
    changed();
    __real_ofmonitor_report(mgr, rule, event, reason, abbrev_ofconn, abbrev_xid, old_actions);
}

void
__wrap_connmgr_send_requestforward(struct connmgr *mgr, const struct ofconn *source,
                                   const struct ofputil_requestforward *rf)
{
    changed();
    __real_connmgr_send_requestforward(mgr, source, rf);
}

/* bridge.c gives bridges no controllers while flows are restored, and afterwards
 * not before something changes, which may never be: where a bridge is to listen
 * for them we say that something has.  (One that is to connect by itself would
 * lose its flows for it: Open vSwitch flushes them.) */
static bool
has_listeners(void)
{
    const struct ovsrec_controller *c;

    if (idl) {
        OVSREC_CONTROLLER_FOR_EACH(c, idl)
        {
            if (c->target[0] == 'p') {
                return true;
            }
        }
    }
    return false;
}

void
__wrap_ofproto_set_flow_restore_wait(bool wait)
{
    static bool waited, called;
    bool ours;

    /* bridge_run() comes here first and then sets up what the database says: who comes
     * a second time has done so, however long it took. */
    atomic_store_relaxed(&configured, called);
    called = true;
    atomic_read_relaxed(&restoring, &ours);
    __real_ofproto_set_flow_restore_wait(wait || ours);
    if (waited && !ours && has_listeners()) {
        if_notifier_manual_report();
    }
    waited = ours;
}

/* --- files ------------------------------------------------------------------ */

static char *
read_file(const char *path)
{
    struct ds text = DS_EMPTY_INITIALIZER;
    FILE *f = fopen(path, "r");
    char chunk[65536];
    size_t n;

    if (!f) {
        return NULL;
    }
    while ((n = fread(chunk, 1, sizeof chunk, f))) {
        ds_put_buffer(&text, chunk, n);
    }
    fclose(f);
    return ds_steal_cstr(&text);
}

static int
write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno != EINTR) {
            return errno;
        }
        p += MAX(done, 0);
        n -= MAX(done, 0);
    }
    return fsync(fd) ? errno : 0;
}

static int
replace_file(const char *path, const struct ds *text)
{
    char *tmp = xasprintf("%s.new", path);
    int fd = open(tmp, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    int error = fd < 0 ? errno : write_all(fd, text->string, text->length);

    if (fd >= 0) {
        close(fd);
    }
    if (!error && rename(tmp, path)) {
        error = errno;
    }
    if (error) {
        unlink(tmp);
    }
    free(tmp);
    return error;
}

/* --- the thread ------------------------------------------------------------ */

static char *
target_of(const struct bridge *b)
{
    return xasprintf("unix:%s/%s.mgmt", ovs_rundir(), b->name);
}

static bool
is_up(const struct bridge *b)
{
    char *path = xasprintf("%s/%s.mgmt", ovs_rundir(), b->name);
    struct stat s;
    bool up = !stat(path, &s) && S_ISSOCK(s.st_mode);

    free(path);
    return up;
}

/* A killed process leaves its sockets: they shall not be taken for those of
 * bridges that are up. */
static void
remove_dead_sockets(void)
{
    DIR *d = opendir(ovs_rundir());
    struct dirent *e;

    while (d && (e = readdir(d))) {
        char *path;
        int fd;

        if (!string_ends_with(e->d_name, ".mgmt")) {
            continue;
        }
        path = xasprintf("%s/%s", ovs_rundir(), e->d_name);
        fd = make_unix_socket(SOCK_STREAM, true, NULL, path);
        if (fd == -ECONNREFUSED) {
            unlink(path);
        } else if (fd >= 0) {
            close(fd);
        }
        free(path);
    }
    if (d) {
        closedir(d);
    }
}

static struct bridge *
bridge_clone(const struct bridge *b)
{
    struct bridge *copy = xmemdup(b, sizeof *b);

    copy->name = xstrdup(b->name);
    copy->file = xstrdup(b->file);
    return copy;
}

static void
bridge_free(struct bridge *b)
{
    if (b) {
        free(b->name);
        free(b->file);
        free(b);
    }
}

/* Copies of the bridges that wait to be restored, or of the others: bridges
 * come and go while the thread works. */
static struct bridge **
snapshot(bool restore, size_t *n)
{
    struct bridge **list;
    struct shash_node *node;

    ovs_mutex_lock(&lock);
    list = xmalloc(MAX(shash_count(&bridges), 1) * sizeof *list);
    *n = 0;
    SHASH_FOR_EACH (node, &bridges) {
        struct bridge *b = node->data;

        if (b->restore == restore && (restore || enabled)) {
            list[(*n)++] = bridge_clone(b);
        }
    }
    ovs_mutex_unlock(&lock);
    return list;
}

static void
set_result(const struct bridge *copy, uint32_t saved_hash)
{
    struct bridge *b;

    ovs_mutex_lock(&lock);
    b = shash_find_data(&bridges, copy->name);
    if (b && !strcmp(b->file, copy->file)) {
        b->saved_hash = saved_hash;
        b->restore = false;
    }
    ovs_mutex_unlock(&lock);
}

/* The bridge has a policy that cannot be read: until its controller says what
 * it is, nothing passes. */
static void
deny_all(const struct bridge *b, const char *target)
{
    char nothing[] = OFSTATE_NOTHING, *why = NULL;
    size_t n_flows;

    if (ofstate_load(target, nothing, &n_flows, &why)) {
        VLOG_ERR("%s: cannot take away the default flows: %s", b->name, why);
    }
    free(why);
}

/* False: worth another try. */
static bool
restore(const struct bridge *b, bool late)
{
    char *target = target_of(b), *text = read_file(b->file), *why = NULL;
    long long int start = time_msec();
    size_t n_flows = 0;
    bool done = true;
    int error = text ? ofstate_load(target, text, &n_flows, &why) : errno;

    if (!error) {
        VLOG_INFO("%s: %" PRIuSIZE " flows restored in %lld ms", b->name, n_flows,
                  time_msec() - start);
    } else if (text && !late && error != EINVAL && error != EPROTO && error != EPROTONOSUPPORT) {
        done = false; /* the bridge is not ready to talk */
    } else {
        char *aside = xasprintf("%s.bad", b->file);

        rename(b->file, aside);
        VLOG_ERR("%s: the OpenFlow state could not be restored (%s); it is kept in %s, and the "
                 "bridge drops everything until it is given flows",
                 b->name, why ? why : ovs_strerror(error), aside);
        free(aside);
        deny_all(b, target);
    }
    free(why);
    free(text);
    free(target);
    if (done) {
        set_result(b, 0);
    }
    return done;
}

/* Restores what can be.  True when nothing is left to do. */
static bool
restore_all(long long int deadline)
{
    bool late = time_msec() >= deadline, done = true, have;
    struct bridge **list;
    size_t n;

    ovs_mutex_lock(&lock);
    have = known;
    ovs_mutex_unlock(&lock);
    list = snapshot(true, &n);
    for (size_t i = 0; i < n; i++) {
        if (is_up(list[i])) {
            done &= restore(list[i], late);
        } else if (late) {
            VLOG_WARN("%s: not up after %d s, its OpenFlow state waits in %s", list[i]->name,
                      RESTORE_TIMEOUT_MS / 1000, list[i]->file);
        } else {
            done = false;
        }
        bridge_free(list[i]);
    }
    free(list);
    return have && (done || late);
}

/* Of the main thread, which answers, and this one. */
static long long int
computed_us(void)
{
    const clockid_t clocks[] = {main_clock, CLOCK_THREAD_CPUTIME_ID};
    long long int us = 0;

    for (size_t i = 0; i < ARRAY_SIZE(clocks); i++) {
        struct timespec t;

        clock_gettime(clocks[i], &t);
        us += t.tv_sec * 1000000LL + t.tv_nsec / 1000;
    }
    return us;
}

/* 0, or an error: to be tried again. */
static int
save(const struct bridge *b)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 1);
    char *target = target_of(b), *why = NULL;
    struct ds text = DS_EMPTY_INITIALIZER;
    int error = ofstate_dump(target, &text, &why);

    if (!error) {
        uint32_t hash = hash_bytes(text.string, text.length, 0) | 1;

        if (hash != b->saved_hash) {
            error = replace_file(b->file, &text);
            if (!error) {
                set_result(b, hash);
            } else {
                why = xasprintf("%s: %s", b->file, ovs_strerror(error));
            }
        }
    }
    if (error) {
        VLOG_WARN_RL(&rl, "%s: cannot save the OpenFlow state (%s), trying again", b->name, why);
        atomic_store_relaxed(&dirty, true);
    }
    free(why);
    free(target);
    ds_destroy(&text);
    return error;
}

/* The first error, or 0. */
static int
save_all(void)
{
    struct bridge **list;
    int first = 0;
    size_t n;

    atomic_store_relaxed(&dirty, false);
    list = snapshot(false, &n);
    for (size_t i = 0; i < n; i++) {
        int error = is_up(list[i]) ? save(list[i]) : 0;

        first = first ? first : error;
        bridge_free(list[i]);
    }
    free(list);
    return first;
}

/* Or until 'latch' is set. */
static void
sleep_until(long long int when, const struct latch *latch)
{
    while (time_msec() < when && !latch_is_set(latch)) {
        poll_timer_wait_until(when);
        latch_wait(latch);
        poll_block();
    }
}

/* False: the process ends first; the files are as they were. */
static bool
restore_first(void)
{
    long long int deadline = LLONG_MAX;

    while (!restore_all(deadline)) {
        bool up;

        if (latch_is_set(&hurry)) {
            return false;
        }
        atomic_read_relaxed(&configured, &up);
        if (up) {
            deadline = MIN(deadline, time_msec() + RESTORE_TIMEOUT_MS);
        }
        sleep_until(time_msec() + RESTORE_RETRY_MS, &hurry);
    }
    return true;
}

/* Saves what changes, until the process ends. */
static void
save_changes(void)
{
    for (int tries = 0; tries < LAST_TRIES && !latch_is_set(&quit);) {
        long long int computed;
        bool work, last;
        int error;

        latch_poll(&wake);
        atomic_read(&ending, &last);
        atomic_read_relaxed(&dirty, &work);
        if (!work && last) {
            return;
        }
        if (!work) {
            latch_wait(&wake);
            latch_wait(&hurry);
            poll_block();
            continue;
        }
        /* One change is seldom alone. */
        sleep_until(time_msec() + SAVE_DELAY_MS, &hurry);
        atomic_read(&ending, &last);
        computed = computed_us();
        error = save_all();
        computed = computed_us() - computed;
        if (last && !error) {
            return; /* what was said since goes with the process */
        } else if (last && ++tries == LAST_TRIES) {
            VLOG_ERR("the last changes of OpenFlow state are not saved: %s",
                     ovs_retval_to_string(error));
        } else if (last) {
            sleep_until(time_msec() + LAST_RETRY_MS, &quit);
        }
        /* A tenth of a core at most.  On a machine that has no time for us that is not
         * a tenth of the time, nor is it with a slow disk. */
        sleep_until(time_msec() + 10 * computed / 1000, &hurry);
    }
}

static void *
ofstate_main(void *aux OVS_UNUSED)
{
    if (restore_first()) {
        atomic_store_relaxed(&restoring, false);
        save_changes();
    }
    atomic_store(&ended, true);
    return NULL;
}

/* --- the main thread ----------------------------------------------------- */

static void
take_bridges(void)
{
    const struct ovsrec_open_vswitch *cfg = ovsrec_open_vswitch_first(idl);
    const struct ovsrec_bridge *br;
    struct shash old;
    struct shash_node *node;

    ovs_mutex_lock(&lock);
    enabled = !cfg || smap_get_bool(&cfg->other_config, "weft-save-openflow", true);
    old = bridges;
    shash_moved(&old);
    shash_init(&bridges);
    OVSREC_BRIDGE_FOR_EACH (br, idl) {
        char *file = xasprintf("%s/" UUID_FMT SUFFIX, directory, UUID_ARGS(&br->header_.uuid));
        struct bridge *b = shash_find_data(&old, br->name);

        if (b && !strcmp(b->file, file)) {
            shash_find_and_delete(&old, br->name);
            free(file);
        } else {
            b = xzalloc(sizeof *b);
            b->name = xstrdup(br->name);
            b->file = file;
            b->restore = !known && !access(file, R_OK);
        }
        shash_replace(&bridges, br->name, b);
    }
    SHASH_FOR_EACH (node, &old) {
        struct bridge *b = node->data;

        unlink(b->file);
        bridge_free(b);
    }
    shash_destroy(&old);
    known = cfg != NULL;
    ovs_mutex_unlock(&lock);
    changed();
}

void
ofstate_init(const char *database)
{
    directory = xasprintf("%s/weft", ovs_dbdir());
    if (mkdir(directory, 0700) && errno != EEXIST) {
        VLOG_WARN("cannot create %s: %s; OpenFlow state will not outlive this process", directory,
                  ovs_strerror(errno));
        free(directory);
        return;
    }
    remove_dead_sockets();
    atomic_store_relaxed(&restoring, true);
    latch_init(&wake);
    latch_init(&hurry);
    latch_init(&quit);
    pthread_getcpuclockid(pthread_self(), &main_clock);
    idl = ovsdb_idl_create(database, &ovsrec_idl_class, false, true);
    ovsdb_idl_add_column(idl, &ovsrec_bridge_col_name);
    ovsdb_idl_add_column(idl, &ovsrec_open_vswitch_col_other_config);
    ovsdb_idl_add_column(idl, &ovsrec_controller_col_target);
    thread = ovs_thread_create("weft-ofstate", ofstate_main, NULL);
}

void
ofstate_run(void)
{
    if (!idl) {
        return;
    }
    ovsdb_idl_run(idl);
    if (ovsdb_idl_has_ever_connected(idl) && ovsdb_idl_get_seqno(idl) != seen_seqno) {
        seen_seqno = ovsdb_idl_get_seqno(idl);
        take_bridges();
    }
}

void
ofstate_wait(void)
{
    bool ours;

    if (!idl) {
        return;
    }
    ovsdb_idl_wait(idl);
    atomic_read_relaxed(&restoring, &ours);
    if (ours) {
        poll_timer_wait(RESTORE_RETRY_MS);
    }
}

void
ofstate_end(void)
{
    if (idl) {
        atomic_store(&ending, true);
        latch_set(&hurry);
    }
}

bool
ofstate_ended(void)
{
    bool is;

    atomic_read(&ended, &is);
    return !idl || is;
}

void
ofstate_give_up(void)
{
    if (idl) {
        latch_set(&quit);
    }
}

void
ofstate_exit(void)
{
    struct shash_node *node;

    if (!idl) {
        return;
    }
    xpthread_join(thread, NULL);
    SHASH_FOR_EACH (node, &bridges) {
        bridge_free(node->data);
    }
    shash_destroy(&bridges);
    ovsdb_idl_destroy(idl);
    idl = NULL;
    latch_destroy(&wake);
    latch_destroy(&hurry);
    latch_destroy(&quit);
    free(directory);
}
