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
 * talking to controllers.  A bridge is restored when its socket answers.  One that
 * does not come up in time, or whose file cannot be read or is refused, is held
 * (ofstate_hold.h) before anything is decided: nothing passes that its policy would
 * have denied.  Its file stays where it is, for the next start, too, and is tried
 * again for as long as nobody else gives the bridge flows.
 */
#include <config.h>

#include "ofstate.h"

#include <errno.h>
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
#include "ofstate_hold.h"
#include "ofstate_priv.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "ovs-thread.h"
#include "ovsdb-idl.h"
#include "smap.h"
#include "timeval.h"
#include "unixctl.h"
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
 * set up what it can (a broken datapath) must not keep the others waiting; see
 * weft-restore-ms. */
#define RESTORE_TIMEOUT_MS 10000
/* Those that are held are looked at so often, and tried again after a pause that doubles, or when
 * the file is another one. */
#define HELD_LOOK_MS 200
#define HELD_RETRY_MS 1000
#define HELD_RETRY_MAX_MS 60000

struct bridge {
    char *name;
    char *file;
    uint32_t saved_hash; /* of what the file holds; 0: unknown */
    bool restore;        /* has a file from before the start */
    bool restored;       /* which it has got */
    bool uplink;         /* ofstate_is_uplink_bridge() */
    /* The thread's, of one whose restoration has failed. */
    char *why;                     /* NULL: it has not */
    struct stat tried;             /* the file that was tried */
    long long int next_try, pause; /* in ms */
};

static struct ovsdb_idl *idl;
static unsigned int seen_seqno;
static char *directory;

/* Between the main thread and ours. */
static struct ovs_mutex lock = OVS_MUTEX_INITIALIZER;
static struct shash bridges OVS_GUARDED_BY(lock) = SHASH_INITIALIZER(&bridges);
static bool known OVS_GUARDED_BY(lock); /* 'bridges' has been filled once */
static bool enabled OVS_GUARDED_BY(lock) = true;
static int restore_timeout_ms OVS_GUARDED_BY(lock) = RESTORE_TIMEOUT_MS;

static struct latch wake, hurry, quit;
static atomic_bool dirty = false;
static atomic_bool ending = false;     /* what is asked for from now on is the last */
static atomic_bool ended = false;      /* the thread's work is done */
static atomic_bool restoring = false;  /* until the thread is done with it */
static atomic_bool configured = false; /* bridge.c has set up the bridges once */
static pthread_t thread;
static clockid_t main_clock; /* of what the main thread computes */
static int keep_turns;       /* the main thread's: see ofstate_keeps_flows() */

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
    ofstate_hold_flow_changed(rule, abbrev_ofconn);
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
 * not before something changes, which may never be: where a bridge has any we say
 * that something has. */
static bool
has_controllers(void)
{
    return idl && ovsrec_controller_first(idl);
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
    if (waited && !ours && has_controllers()) {
        if_notifier_manual_report();
        keep_turns = 2;
    }
    waited = ours;
}

/* A bridge whose controllers are its own to call gets them now, and Open vSwitch flushes a bridge
 * that gets its first ones: not what has just been restored, which is to hold until they say
 * otherwise. */
bool
ofstate_keeps_flows(const char *name)
{
    const struct bridge *b;
    bool keeps = false;

    if (keep_turns) {
        ovs_mutex_lock(&lock);
        b = shash_find_data(&bridges, name);
        keeps = b && b->restored;
        ovs_mutex_unlock(&lock);
    }
    return keeps;
}

/* --- the thread ------------------------------------------------------------ */

static struct bridge *
bridge_clone(const struct bridge *b)
{
    struct bridge *copy = xmemdup(b, sizeof *b);

    copy->name = xstrdup(b->name);
    copy->file = xstrdup(b->file);
    copy->why = nullable_xstrdup(b->why);
    return copy;
}

static void
bridge_free(struct bridge *b)
{
    if (b) {
        free(b->name);
        free(b->file);
        free(b->why);
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

/* The bridge behind 'copy', if it is still the same one. */
static struct bridge *
original(const struct bridge *copy) OVS_REQUIRES(lock)
{
    struct bridge *b = shash_find_data(&bridges, copy->name);

    return b && !strcmp(b->file, copy->file) ? b : NULL;
}

static void
set_result(const struct bridge *copy, uint32_t saved_hash)
{
    struct bridge *b;

    ovs_mutex_lock(&lock);
    b = original(copy);
    if (b) {
        b->saved_hash = saved_hash;
        b->restored |= b->restore;
        b->restore = false;
    }
    ovs_mutex_unlock(&lock);
}

/* Goes on without what was saved: other bridges reach the wire through it. */
static void
let_go(struct bridge *b) OVS_REQUIRES(lock)
{
    VLOG_WARN("%s: not held: it is other bridges' uplink", b->name);
    ofstate_keep_aside(b->file);
    b->restore = false;
    b->saved_hash = 0;
}

/* It is held from here on, so that what somebody gives it stays, and will be tried again, later or
 * when the file is another than 'tried'. */
static void
set_failed(const struct bridge *copy, const struct stat *tried, int error, const char *why)
{
    bool news = !copy->why || strcmp(copy->why, why);
    struct bridge *b;

    if (news) {
        VLOG_ERR("%s: the OpenFlow state in %s is not restored: %s. Until it is, or somebody gives "
                 "the bridge flows, nothing passes but between the host itself and its uplinks",
                 copy->name, copy->file, why);
        if (error == EINVAL || error == EPROTO || error == EPROTONOSUPPORT) {
            ofstate_keep_aside(copy->file);
        }
    }
    ovs_mutex_lock(&lock);
    b = original(copy);
    if (b) {
        free(b->why);
        b->why = xstrdup(why);
        b->tried = *tried;
        b->pause = b->pause ? MIN(2 * b->pause, HELD_RETRY_MAX_MS) : HELD_RETRY_MS;
        b->next_try = time_msec() + b->pause;
    }
    if (b && b->restore && b->uplink) {
        let_go(b);
    } else if (b && b->restore) {
        ofstate_hold(b->name, why);
        ofstate_hold_why(b->name, why);
    }
    ovs_mutex_unlock(&lock);
}

/* 0; EAGAIN: the bridge is not ready to talk, which is said if it is 'late' and is another error
 * then, as all others are.  '*torn': as with ofstate_load(). */
static int
restore(const struct bridge *b, bool late, bool *torn)
{
    char *target = ofstate_target(b->name), *text = NULL, *why = NULL;
    long long int start = time_msec();
    struct stat tried = ofstate_stat(b->file);
    size_t n_flows = 0;
    int error = ofstate_read(b->file, &text);
    bool sent = !error;

    *torn = false;
    if (sent) {
        error = ofstate_load(target, text, &n_flows, torn, &why);
    }
    if (!error) {
        VLOG_INFO("%s: %" PRIuSIZE " flows restored in %lld ms", b->name, n_flows,
                  time_msec() - start);
    } else if (sent && !late && error != EINVAL && error != EPROTO && error != EPROTONOSUPPORT) {
        error = EAGAIN;
    } else {
        set_failed(b, &tried, error, why ? why : ovs_strerror(error));
        error = error == EAGAIN ? EIO : error;
    }
    if (!error) {
        set_result(b, 0);
    }
    free(why);
    free(text);
    free(target);
    return error;
}

/* Restores what can be.  True when nothing is left that may come with time. */
static bool
restore_all(bool late)
{
    bool done = true, have;
    struct bridge **list;
    size_t n;

    ovs_mutex_lock(&lock);
    have = known;
    ovs_mutex_unlock(&lock);
    list = snapshot(true, &n);
    for (size_t i = 0; i < n; i++) {
        struct bridge *b = list[i];
        bool torn;

        if (!b->why && ofstate_is_up(b->name)) {
            done &= restore(b, late, &torn) != EAGAIN;
        } else if (!b->why && late) {
            struct stat none = ofstate_stat("");

            set_failed(b, &none, 0, "the bridge does not come up");
        } else if (!b->why) {
            done = false;
        }
        bridge_free(b);
    }
    free(list);
    return have && (done || late);
}

/* Every bridge whose state is not back, those too that came to the database late. */
static void
hold_all(void)
{
    struct shash_node *node;

    ovs_mutex_lock(&lock);
    SHASH_FOR_EACH (node, &bridges) {
        struct bridge *b = node->data;

        if (b->restore && b->uplink) {
            let_go(b);
        } else if (b->restore) {
            ofstate_hold(b->name, b->why ? b->why : "it came late");
        }
    }
    ovs_mutex_unlock(&lock);
}

static void
retry(const struct bridge *b)
{
    struct stat now = ofstate_stat(b->file);
    bool loaded, torn;

    if (!ofstate_is_up(b->name) ||
        (b->why && time_msec() < b->next_try && ofstate_same_file(&now, &b->tried)) ||
        !ofstate_hold_loads(b->name)) {
        return;
    }
    loaded = !restore(b, true, &torn);
    ofstate_hold_loaded(b->name, loaded ? OFSTATE_HOLD_LOADED
                                 : torn ? OFSTATE_HOLD_TORN
                                        : OFSTATE_HOLD_STAYS);
    changed();
}

/* Tries once more what is held.  True if there was something. */
static bool
retry_all(void)
{
    size_t n;
    struct bridge **list = snapshot(true, &n);

    for (size_t i = 0; i < n; i++) {
        retry(list[i]);
        bridge_free(list[i]);
    }
    free(list);
    return n > 0;
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
    char *target = ofstate_target(b->name), *why = NULL;
    struct ds text = DS_EMPTY_INITIALIZER;
    int error = ofstate_dump(target, &text, &why);

    if (!error) {
        uint32_t hash = hash_bytes(text.string, text.length, 0) | 1;

        if (hash != b->saved_hash) {
            error = ofstate_replace(b->file, &text);
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
        int error = ofstate_is_up(list[i]->name) ? save(list[i]) : 0;

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

/* Sleeps a little; false: the process ends first. */
static bool
rest(void)
{
    if (latch_is_set(&hurry)) {
        return false;
    }
    sleep_until(time_msec() + RESTORE_RETRY_MS, &hurry);
    return true;
}

/* False: the process ends first; the files are as they were. */
static bool
restore_first(void)
{
    long long int since = LLONG_MAX;
    bool up, late = false;

    while (!restore_all(late)) {
        if (!rest()) {
            return false;
        }
        atomic_read_relaxed(&configured, &up);
        since = up ? MIN(since, time_msec()) : since;
        ovs_mutex_lock(&lock);
        late = up && time_msec() >= since + restore_timeout_ms;
        ovs_mutex_unlock(&lock);
    }
    hold_all();
    while (!ofstate_hold_in_effect()) {
        if (!rest()) {
            return false;
        }
    }
    return true;
}

/* Saves what changes, until the process ends. */
static void
save_changes(void)
{
    for (int tries = 0; tries < LAST_TRIES && !latch_is_set(&quit);) {
        long long int computed;
        bool work, last, held = retry_all();
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
            if (held) {
                poll_timer_wait(HELD_LOOK_MS);
            }
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
    bool was_enabled, news = false;

    ovs_mutex_lock(&lock);
    was_enabled = enabled;
    enabled = !cfg || smap_get_bool(&cfg->other_config, "weft-save-openflow", true);
    restore_timeout_ms =
        cfg ? MAX(0, smap_get_int(&cfg->other_config, "weft-restore-ms", RESTORE_TIMEOUT_MS))
            : RESTORE_TIMEOUT_MS;
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
            /* One that cannot even be looked at is no reason to believe that there was none. */
            b->restore = !known && (!access(file, F_OK) || errno != ENOENT);
            if (known) {
                /* Another one by this name, perhaps, which has no policy yet. */
                ofstate_hold_loaded(b->name, OFSTATE_HOLD_NOTHING);
            }
            news = true;
        }
        b->uplink = ofstate_is_uplink_bridge(br);
        if (b->restore && !enabled) {
            b->restore = false;
            ofstate_hold_loaded(b->name, OFSTATE_HOLD_NOTHING);
        }
        shash_replace(&bridges, br->name, b);
    }
    SHASH_FOR_EACH (node, &old) {
        struct bridge *b = node->data;

        unlink(b->file);
        if (!shash_find(&bridges, b->name)) {
            ofstate_hold_forget(b->name);
        }
        bridge_free(b);
    }
    shash_destroy(&old);
    news |= known != (cfg != NULL) || enabled != was_enabled;
    known = cfg != NULL;
    ovs_mutex_unlock(&lock);
    if (news) {
        changed();
    }
}

/* Somebody else has given a held bridge flows: these are to be kept from now on. */
static void
bridge_taken(const char *name)
{
    struct bridge *b;

    ovs_mutex_lock(&lock);
    b = shash_find_data(&bridges, name);
    if (b) {
        if (b->restore) {
            ofstate_keep_aside(b->file);
        }
        b->restore = false;
        b->saved_hash = 0;
    }
    ovs_mutex_unlock(&lock);
    changed();
}

static void
show(struct unixctl_conn *conn, int argc OVS_UNUSED, const char *argv[] OVS_UNUSED,
     void *aux OVS_UNUSED)
{
    struct ds out = DS_EMPTY_INITIALIZER;
    const struct shash_node **nodes;
    bool ours;

    atomic_read_relaxed(&restoring, &ours);
    ovs_mutex_lock(&lock);
    nodes = shash_sort(&bridges);
    for (size_t i = 0; i < shash_count(&bridges); i++) {
        const struct bridge *b = nodes[i]->data;

        if (ours && b->restore && !b->why) {
            ds_put_format(&out, "%s: being restored\n", b->name);
        } else {
            ofstate_hold_show(b->name, &out);
        }
    }
    free(nodes);
    ovs_mutex_unlock(&lock);
    unixctl_command_reply(conn, ds_cstr(&out));
    ds_destroy(&out);
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
    ofstate_remove_dead_sockets();
    atomic_store_relaxed(&restoring, true);
    latch_init(&wake);
    latch_init(&hurry);
    latch_init(&quit);
    pthread_getcpuclockid(pthread_self(), &main_clock);
    idl = ovsdb_idl_create(database, &ovsrec_idl_class, false, true);
    ovsdb_idl_add_column(idl, &ovsrec_bridge_col_name);
    ovsdb_idl_add_column(idl, &ovsrec_open_vswitch_col_other_config);
    ovsdb_idl_add_column(idl, &ovsrec_controller_col_target);
    ovsdb_idl_add_column(idl, &ovsrec_bridge_col_external_ids);
    ovsdb_idl_add_column(idl, &ovsrec_bridge_col_ports);
    ovsdb_idl_add_column(idl, &ovsrec_port_col_name);
    ovsdb_idl_add_column(idl, &ovsrec_port_col_interfaces);
    ovsdb_idl_add_column(idl, &ovsrec_interface_col_name);
    ovsdb_idl_add_column(idl, &ovsrec_interface_col_type);
    ovsdb_idl_add_column(idl, &ovsrec_interface_col_options);
    ovsdb_idl_add_column(idl, &ovsrec_interface_col_external_ids);
    ofstate_hold_init(idl);
    unixctl_command_register("ofstate/show", "", 0, 0, show, NULL);
    thread = ovs_thread_create("weft-ofstate", ofstate_main, NULL);
}

void
ofstate_run(void)
{
    if (!idl) {
        return;
    }
    keep_turns -= keep_turns > 0;
    ovsdb_idl_run(idl);
    if (ovsdb_idl_has_ever_connected(idl) && ovsdb_idl_get_seqno(idl) != seen_seqno) {
        seen_seqno = ovsdb_idl_get_seqno(idl);
        take_bridges();
    }
    ofstate_hold_run(bridge_taken);
}

void
ofstate_wait(void)
{
    bool ours;

    if (!idl) {
        return;
    }
    ovsdb_idl_wait(idl);
    ofstate_hold_wait();
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
    ofstate_hold_exit();
    ovsdb_idl_destroy(idl);
    idl = NULL;
    latch_destroy(&wake);
    latch_destroy(&hurry);
    latch_destroy(&quit);
    free(directory);
}
