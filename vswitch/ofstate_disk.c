/* Bridges' files and sockets.  A file is written under another name, synced and renamed. */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dirs.h"
#include "ofstate_priv.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/vlog.h"
#include "socket-util.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(ofstate_disk);

int
ofstate_read(const char *path, char **text)
{
    struct ds all = DS_EMPTY_INITIALIZER;
    FILE *f = fopen(path, "r");
    char chunk[65536];
    int error = 0;
    size_t n;

    if (!f) {
        return errno;
    }
    while ((n = fread(chunk, 1, sizeof chunk, f))) {
        ds_put_buffer(&all, chunk, n);
    }
    if (ferror(f)) {
        error = errno ? errno : EIO;
    }
    fclose(f);
    if (error) {
        ds_destroy(&all);
        return error;
    }
    *text = ds_steal_cstr(&all);
    return 0;
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

int
ofstate_replace(const char *path, const struct ds *text)
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

void
ofstate_keep_aside(const char *file)
{
    char *aside = xasprintf("%s.bad", file), *tmp = xasprintf("%s.bad.new", file);

    /* One that is there stays if the file is gone.  (To rename a file to itself does nothing.) */
    unlink(tmp);
    if ((link(file, tmp) || rename(tmp, aside)) && errno != ENOENT && errno != EPERM) {
        VLOG_WARN("%s: %s", aside, ovs_strerror(errno));
    }
    unlink(tmp);
    free(tmp);
    free(aside);
}

struct stat
ofstate_stat(const char *file)
{
    struct stat s;

    if (stat(file, &s)) {
        memset(&s, 0, sizeof s);
    }
    return s;
}

bool
ofstate_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

char *
ofstate_target(const char *bridge)
{
    return xasprintf("unix:%s/%s.mgmt", ovs_rundir(), bridge);
}

bool
ofstate_is_up(const char *bridge)
{
    char *path = xasprintf("%s/%s.mgmt", ovs_rundir(), bridge);
    struct stat s;
    bool up = !stat(path, &s) && S_ISSOCK(s.st_mode);

    free(path);
    return up;
}

void
ofstate_remove_dead_sockets(void)
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
