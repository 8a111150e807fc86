/* Theory of Operation
 * ===================
 *
 * Two kinds of files, beside those of the shadow:
 *
 *   ct-DP-BOOT              all connections, as of some moment of the time it
 *                           took to write them (docs/conntrack-records.md)
 *   ct-DP-BOOT.log.NUMBER   what happened since (shadow_file.h), numbers rising
 *
 * A sweep begins a new log, then writes the first file anew, under another name
 * that replaces the old one at once, then removes the logs before the new one.
 * A connection that ends is unlinked before it is logged, so one that ended
 * before the new log began is not met by the sweep, and one that ends later is
 * in the new log.  Hence the file followed by whatever logs there are, in
 * their order, ends with what was true, wherever a kill comes between; that an
 * older log is gone through again after the file does no harm, because the
 * logs' order is the order of what happened.
 *
 * Logged are existence, mark and label, not every packet.  Of TCP the state in
 * the files is some seconds old, so windows are loosened as connections are
 * put back (ct_entry_loosen()).
 *
 * If a log cannot be written, nothing in the files can be relied upon: a
 * connection that was cut must not come back.  They are removed until the next
 * sweep is through. */
#include <config.h>

#include "ctlog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conntrack.h"
#include "ct.h"
#include "ct_entry.h"
#include "latch.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovs-rcu.h"
#include "ovs-thread.h"
#include "shadow_file.h"
#include "socket-util.h"
#include "svec.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(ctlog);

/* Between sweeps, and as a multiple of what the last one took. */
#define SWEEP_MS 2000
#define SWEEP_REST 20
/* What a log may hold before it is worth a sweep of its own. */
#define LOG_RECORDS 65536u
#define CHUNK_BYTES (1u << 20)

#define LOG_KIND 2u
#define LOG_LAYOUT (1u << 16 | sizeof(struct ct_entry))

struct log_record {
    uint32_t gone;
    uint32_t unused;
    struct ct_entry entry;
};

struct ctlog {
    struct ct_watcher watcher; /* first */
    char *base;
    pthread_t thread;
    struct latch wake;
    bool quit; /* under 'lock' */

    struct ovs_mutex lock;
    struct shadow_file *file OVS_GUARDED; /* NULL: nothing can be relied upon */
    size_t n_records OVS_GUARDED;
    uint32_t number OVS_GUARDED;   /* of 'file' */
    struct svec older OVS_GUARDED; /* logs that the next sweep makes superfluous */
};

static bool in_use; /* main thread */

static char *
log_path(const struct ctlog *log, uint32_t number)
{
    return xasprintf("%s.log.%08" PRIx32, log->base, number);
}

/* --- what happens ----------------------------------------------------------------- */

static void
remove_files(struct ctlog *log) OVS_REQUIRES(log->lock)
{
    char *path = log_path(log, log->number);
    const char *older;
    size_t i;

    unlink(log->base);
    unlink(path);
    SVEC_FOR_EACH(i, older, &log->older)
    {
        unlink(older);
    }
    svec_clear(&log->older);
    free(path);
}

static void
append(struct ctlog *log, const struct ct_entry *e, bool gone) OVS_REQUIRES(log->lock)
{
    struct log_record *r;
    uint32_t slot;

    r = shadow_file_reserve(log->file, sizeof *r, &slot);
    if (r) {
        r->gone = gone;
        r->unused = 0;
        r->entry = *e;
        shadow_file_commit(log->file, slot);
        if (++log->n_records == LOG_RECORDS) {
            latch_set(&log->wake);
        }
    } else {
        remove_files(log);
        shadow_file_close(log->file);
        log->file = NULL;
        latch_set(&log->wake);
    }
}

static void
tell(struct ct_watcher *w, const struct ct_entry *e, bool gone)
{
    struct ctlog *log = CONTAINER_OF(w, struct ctlog, watcher);

    ovs_mutex_lock(&log->lock);
    if (log->file) {
        append(log, e, gone);
    }
    ovs_mutex_unlock(&log->lock);
}

/* --- sweeps ------------------------------------------------------------------------- */

/* A new log takes over, unless the old one is empty. */
static bool
turn(struct ctlog *log)
{
    struct shadow_file *file;
    bool ok = true;

    ovs_mutex_lock(&log->lock);
    if (!log->file || log->n_records) {
        char *path = log_path(log, log->number + 1);

        file = shadow_file_create(path, LOG_KIND, LOG_LAYOUT);
        ok = file != NULL;
        if (ok) {
            if (log->file) {
                svec_add_nocopy(&log->older, log_path(log, log->number));
                shadow_file_close(log->file);
            }
            log->file = file;
            log->n_records = 0;
            log->number++;
        }
        free(path);
    }
    ovs_mutex_unlock(&log->lock);
    return ok;
}

/* As ct_export_file(), but not synced: the file need not outlive the machine,
 * and a thread that waits for a disk holds up the death of its process, which
 * the successor waits for. */
static int
write_connections(struct ctlog *log)
{
    char *tmp = xasprintf("%s.tmp", log->base);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int error = fd < 0 ? errno : 0;

    if (!error) {
        struct ct_exporter *x = ct_exporter_create(log->watcher.ct, NULL);
        const uint8_t *data;
        size_t len, done;

        while (!error && ct_exporter_next(x, CHUNK_BYTES, &data, &len)) {
            error = write_fully(fd, data, len, &done);
        }
        ct_exporter_destroy(x);
        close(fd);
        if (!error && rename(tmp, log->base)) {
            error = errno;
        }
    }
    if (error) {
        unlink(tmp);
    }
    free(tmp);
    return error;
}

static void
sweep(struct ctlog *log)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 1);
    int error;

    if (!turn(log)) {
        VLOG_WARN_RL(&rl, "cannot create a log of connections beside %s: %s", log->base,
                     ovs_strerror(errno));
        return;
    }
    error = write_connections(log);
    if (error) {
        VLOG_WARN_RL(&rl, "%s: cannot be written: %s", log->base, ovs_strerror(error));
        return;
    }
    ovs_mutex_lock(&log->lock);
    if (log->file) {
        const char *older;
        size_t i;

        SVEC_FOR_EACH(i, older, &log->older)
        {
            unlink(older);
        }
        svec_clear(&log->older);
    } else {
        /* The log gave out in the meantime. */
        unlink(log->base);
    }
    ovs_mutex_unlock(&log->lock);
}

/* Whether a sweep would find anything, or anything new. */
static bool
worthwhile(struct ctlog *log)
{
    unsigned int n = 0;
    bool yes;

    conntrack_get_nconns(log->watcher.ct, &n);
    ovs_mutex_lock(&log->lock);
    yes = n || !log->file || log->n_records || !svec_is_empty(&log->older);
    ovs_mutex_unlock(&log->lock);
    return yes;
}

static bool
told_to_quit(struct ctlog *log)
{
    bool quit;

    ovs_mutex_lock(&log->lock);
    quit = log->quit;
    ovs_mutex_unlock(&log->lock);
    return quit;
}

static void *
ctlog_main(void *log_)
{
    struct ctlog *log = log_;
    long long took = 0;

    while (!told_to_quit(log)) {
        long long start = time_msec(), earliest = start + SWEEP_REST * took;

        for (long long due = MAX(earliest, start + SWEEP_MS);
             time_msec() < due && !told_to_quit(log);) {
            /* A log that fills up brings the sweep forward. */
            if (latch_poll(&log->wake)) {
                due = earliest;
            } else {
                poll_timer_wait_until(due);
                latch_wait(&log->wake);
                poll_block();
            }
        }
        if (!told_to_quit(log) && worthwhile(log)) {
            start = time_msec();
            sweep(log);
            took = time_msec() - start;
        }
    }
    return NULL;
}

/* --- putting back ----------------------------------------------------------------- */

static void
import_all(struct ctlog *log, struct ct_import_result *result)
{
    int fd = open(log->base, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char why[256] = "it is not ours";
    struct stat st;
    void *data;

    if (fd < 0) {
        return;
    }
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077) {
        VLOG_WARN("%s: not used: %s", log->base, why);
    } else if (st.st_size) {
        /* Never changed, only replaced. */
        data = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            VLOG_WARN("%s: not used: %s", log->base, ovs_strerror(errno));
        } else {
            if (ct_import_old(log->watcher.ct, data, st.st_size, result, why, sizeof why)) {
                VLOG_WARN("%s: not used: %s", log->base, why);
            }
            munmap(data, st.st_size);
        }
    }
    close(fd);
}

static bool
entry_valid(const struct ct_entry *e)
{
    return memchr(e->alg, 0, sizeof e->alg) && !ct_entry_check(e);
}

/* False if it cannot be read; '*empty' if nothing is in it. */
static bool
replay(struct ctlog *log, const char *path, struct ct_import_result *result, bool *empty)
{
    struct shadow_image image;
    const struct log_record *r;
    size_t pos = 0, len;
    int error;

    error = shadow_image_load(path, LOG_KIND, LOG_LAYOUT, &image);
    if (error) {
        VLOG_WARN("%s: not used: %s", path, ovs_strerror(error));
        return false;
    }
    *empty = true;
    while ((r = shadow_image_next(&image, &pos, &len))) {
        struct ct_entry e;

        *empty = false;
        if (len != sizeof *r || !entry_valid(&r->entry)) {
            continue;
        }
        e = r->entry;
        ct_entry_remove(log->watcher.ct, &e, time_msec());
        if (!r->gone) {
            ct_entry_loosen(&e);
            if (!ct_entry_create(log->watcher.ct, &e, time_msec())) {
                result->imported++;
            }
        }
    }
    shadow_image_free(&image);
    return true;
}

/* The predecessor's logs, in their order; the next sweep removes them. */
static void
find_logs(struct ctlog *log)
{
    char *dir = dir_name(log->base), *base = base_name(log->base);
    char *prefix = xasprintf("%s.log.", base);
    DIR *d = opendir(dir);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        if (!strncmp(e->d_name, prefix, strlen(prefix))) {
            svec_add_nocopy(&log->older, xasprintf("%s/%s", dir, e->d_name));
        }
    }
    if (d) {
        closedir(d);
    }
    /* Numbers have the same length. */
    svec_sort(&log->older);
    if (!svec_is_empty(&log->older)) {
        const char *last = log->older.names[log->older.n - 1];

        log->number = strtoul(strrchr(last, '.') + 1, NULL, 16);
    }
    free(prefix);
    free(base);
    free(dir);
}

static void
put_back(struct ctlog *log)
{
    struct ct_import_result result = {0};
    long long start = time_msec();
    bool broken = false;
    const char *path;
    size_t i;

    import_all(log, &result);
    find_logs(log);
    SVEC_FOR_EACH(i, path, &log->older)
    {
        bool empty = false;

        if (!replay(log, path, &result, &empty)) {
            broken = true;
        } else if (empty) {
            /* Not one more file for each of many kills in a row. */
            unlink(path);
        }
    }
    if (broken) {
        /* What ended is in there, too: better none than one that was cut. */
        conntrack_flush(log->watcher.ct, NULL);
    } else if (result.imported) {
        unsigned int n = 0;

        conntrack_get_nconns(log->watcher.ct, &n);
        VLOG_INFO("%u connections of the previous process, in %lld ms", n, time_msec() - start);
    }
}

/* --- life ----------------------------------------------------------------------------- */

static char *
base_path(const char *dp_name)
{
    char boot[9] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    char *name, *path;

    if (fd >= 0) {
        ignore(read(fd, boot, sizeof boot - 1));
        close(fd);
    }
    name = xasprintf("ct-%s-%s", dp_name, boot);
    path = shadow_path(name);
    free(name);
    return path;
}

struct ctlog *
ctlog_open(const char *dp_name, struct conntrack *ct)
{
    struct ctlog *log;
    char *path;

    if (in_use) {
        return NULL;
    }
    in_use = true;
    log = xzalloc(sizeof *log);
    log->watcher.ct = ct;
    log->watcher.tell = tell;
    log->base = base_path(dp_name);
    ovs_mutex_init(&log->lock);
    latch_init(&log->wake);
    svec_init(&log->older);
    put_back(log);

    ovs_mutex_lock(&log->lock);
    path = log_path(log, ++log->number);
    log->file = shadow_file_create(path, LOG_KIND, LOG_LAYOUT);
    if (!log->file) {
        VLOG_WARN("cannot create %s: %s; connections will not outlive this process", path,
                  ovs_strerror(errno));
        remove_files(log);
    }
    ovs_mutex_unlock(&log->lock);
    free(path);
    ct_watch(&log->watcher);
    log->thread = ovs_thread_create("weft-ctlog", ctlog_main, log);
    return log;
}

void
ctlog_close(struct ctlog *log, bool keep)
{
    if (!log) {
        return;
    }
    ct_watch(NULL);
    ovs_mutex_lock(&log->lock);
    log->quit = true;
    ovs_mutex_unlock(&log->lock);
    latch_set(&log->wake);
    xpthread_join(log->thread, NULL);
    ovsrcu_synchronize();

    ovs_mutex_lock(&log->lock);
    if (!keep) {
        remove_files(log);
    }
    shadow_file_close(log->file);
    ovs_mutex_unlock(&log->lock);
    svec_destroy(&log->older);
    latch_destroy(&log->wake);
    ovs_mutex_destroy(&log->lock);
    free(log->base);
    free(log);
    in_use = false;
}
