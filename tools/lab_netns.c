#include "lab_netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lab_link.h"

#define NETNS_DIR "/run/netns"

static void
netns_path(const struct lab_netns *ns, char *buf, size_t size)
{
    snprintf(buf, size, NETNS_DIR "/%s", ns->name);
}

/* The inode of the namespace mounted at 'path', 0 if there is none. */
static uint64_t
mounted_inode(const char *path)
{
    struct statfs fs;
    struct stat st;

    if (statfs(path, &fs) || fs.f_type != NSFS_MAGIC || stat(path, &st)) {
        return 0;
    }
    return st.st_ino;
}

/* Makes /run/netns a shared mount as ip-netns does, so that names appear and
 * go in every mount namespace. */
static int
prepare_directory(void)
{
    if (mkdir(NETNS_DIR, 0755) && errno != EEXIST) {
        return errno;
    }
    if (!mount("", NETNS_DIR, "none", MS_SHARED | MS_REC, NULL)) {
        return 0;
    }
    if (errno != EINVAL || mount(NETNS_DIR, NETNS_DIR, "none", MS_BIND | MS_REC, NULL) ||
        mount("", NETNS_DIR, "none", MS_SHARED | MS_REC, NULL)) {
        return errno;
    }
    return 0;
}

/* A new, unnamed network namespace. */
static int
fresh_namespace(int *fdp)
{
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int error = 0;

    if (home < 0) {
        return errno;
    }
    if (unshare(CLONE_NEWNET)) {
        error = errno;
        goto out;
    }
    *fdp = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (*fdp < 0) {
        error = errno;
    }
    /* Staying in the wrong namespace would harm the machine's own network. */
    if (setns(home, CLONE_NEWNET)) {
        abort();
    }
out:
    close(home);
    return error;
}

static int
name_namespace(const char *path, int fd)
{
    char link[64];
    int file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);

    if (file < 0) {
        return errno;
    }
    close(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (mount(link, path, "none", MS_BIND, NULL)) {
        int error = errno;
        unlink(path);
        return error;
    }
    return 0;
}

int
lab_netns_make(struct lab *lab, struct lab_netns *ns)
{
    char path[LAB_PATH_MAX];
    struct stat st;
    int fd = -1;
    int error = prepare_directory();

    netns_path(ns, path, sizeof path);
    if (error) {
        return lab_fail(lab, error, "cannot prepare " NETNS_DIR ": %s", strerror(error));
    }
    error = fresh_namespace(&fd);
    if (error) {
        return lab_fail(lab, error, "cannot make a network namespace: %s", strerror(error));
    }
    if (fstat(fd, &st)) {
        error = lab_fail(lab, errno, "cannot identify a network namespace: %s", strerror(errno));
        goto out;
    }
    ns->inode = st.st_ino;
    error = lab_save(lab);
    if (error) {
        goto out;
    }
    error = name_namespace(path, fd);
    if (error) {
        ns->inode = 0;
        lab_fail(lab, error, "cannot name the network namespace %s: %s", path, strerror(error));
        goto out;
    }
    error = lab_link_up(fd, "lo");
    if (error) {
        lab_fail(lab, error, "cannot bring up lo in %s: %s", ns->name, strerror(error));
    }
out:
    close(fd);
    return error;
}

bool
lab_netns_remove(const struct lab_netns *ns)
{
    char path[LAB_PATH_MAX];
    struct stat st;

    netns_path(ns, path, sizeof path);
    if (!ns->inode || lstat(path, &st)) {
        return true;
    }
    uint64_t mounted = mounted_inode(path);
    if (mounted && mounted != ns->inode) {
        return true; /* somebody else's by now */
    }
    if (!mounted && !(S_ISREG(st.st_mode) && st.st_size == 0)) {
        return true;
    }
    return (!mounted || !umount2(path, MNT_DETACH)) && !unlink(path);
}

bool
lab_netns_name_taken(const struct lab_netns *ns)
{
    char path[LAB_PATH_MAX];

    netns_path(ns, path, sizeof path);
    return !access(path, F_OK);
}

int
lab_netns_open(const struct lab_netns *ns)
{
    char path[LAB_PATH_MAX];

    netns_path(ns, path, sizeof path);
    if (!ns->inode || mounted_inode(path) != ns->inode) {
        errno = ENOENT;
        return -1;
    }
    return open(path, O_RDONLY | O_CLOEXEC);
}

int
lab_netns_join(int netns_fd)
{
    if (setns(netns_fd, CLONE_NEWNET) || unshare(CLONE_NEWNS) ||
        mount("", "/", "none", MS_SLAVE | MS_REC, NULL)) {
        return errno;
    }
    /* Best effort, as in ip-netns: a machine may have no sysfs mounted. */
    umount2("/sys", MNT_DETACH);
    if (mount("weft", "/sys", "sysfs", 0, NULL) && errno != EPERM && errno != ENOENT) {
        return errno;
    }
    return 0;
}

int
lab_netns_call(int netns_fd, int (*fn)(void *), void *aux)
{
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int error;

    if (home < 0) {
        return errno;
    }
    if (setns(netns_fd, CLONE_NEWNET)) {
        error = errno;
        close(home);
        return error;
    }
    error = fn(aux);
    if (setns(home, CLONE_NEWNET)) {
        abort();
    }
    close(home);
    return error;
}
