#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "claim.h"

#define CLAIM_BYTES 512

/* The lock; negative errno. */
static int
lock(const struct claim_file *f, int timeout_ms)
{
    char path[PATH_MAX];
    int fd, n = snprintf(path, sizeof path, "%s.lock", f->path);

    if (n < 0 || (size_t)n >= sizeof path) {
        return -ENAMETOOLONG;
    }
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    for (int waited = 0; flock(fd, LOCK_EX | LOCK_NB); waited += 5) {
        if (errno != EWOULDBLOCK || waited >= timeout_ms) {
            n = errno == EWOULDBLOCK ? ETIMEDOUT : errno;
            close(fd);
            return -n;
        }
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return fd;
}

static int
get(const struct claim_file *f, char host[MIG_HOST], uint64_t *epoch)
{
    char text[CLAIM_BYTES], vm[37];
    ssize_t n;
    int end = 0, fd = open(f->path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return errno;
    }
    n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) {
        return EBADMSG;
    }
    text[n] = '\0';
    if (sscanf(text, "{\"vm\":\"%36[0-9a-f-]\",\"host\":\"%63[^\"\\]\",\"epoch\":%" SCNu64 "}\n%n",
               vm, host, epoch, &end) != 3 ||
        end != n || *epoch > INT64_MAX) {
        return EBADMSG;
    }
    return strcmp(vm, f->vm) ? ENOENT : 0;
}

/* The new content is on the disk before the old one's name is its own. */
static int
put(const struct claim_file *f, const char *host, uint64_t epoch)
{
    char text[CLAIM_BYTES], temp[PATH_MAX];
    int fd, n, error = 0;

    if (!*host || strlen(host) >= MIG_HOST || strpbrk(host, "\"\\")) {
        return EINVAL;
    }
    n = snprintf(temp, sizeof temp, "%s.new", f->path);
    if (n < 0 || (size_t)n >= sizeof temp) {
        return ENAMETOOLONG;
    }
    n = snprintf(text, sizeof text, "{\"vm\":\"%.36s\",\"host\":\"%s\",\"epoch\":%" PRIu64 "}\n",
                 f->vm, host, epoch);
    fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errno;
    }
    if (write(fd, text, n) != n || fsync(fd)) {
        error = errno ? errno : EIO;
    }
    close(fd);
    return error ? error : rename(temp, f->path) ? errno : 0;
}

static int
file_read(void *aux, char host[MIG_HOST], uint64_t *epoch, int timeout_ms)
{
    const struct claim_file *f = aux;
    int error, fd = lock(f, timeout_ms);

    if (fd < 0) {
        return -fd;
    }
    error = get(f, host, epoch);
    close(fd);
    return error;
}

static int
file_swap(void *aux, const char *from, uint64_t epoch, const char *to, uint64_t epoch2,
          int timeout_ms)
{
    const struct claim_file *f = aux;
    int error, fd = lock(f, timeout_ms);
    char host[MIG_HOST];
    uint64_t have;

    if (fd < 0) {
        return -fd;
    }
    error = get(f, host, &have);
    if (!error) {
        error = have != epoch || strcmp(host, from) ? ESTALE : put(f, to, epoch2);
    }
    close(fd);
    return error;
}

struct mig_claim
claim_file(const struct claim_file *f)
{
    return (struct mig_claim){.read = file_read, .swap = file_swap, .aux = (void *)f};
}

int
claim_file_create(const struct claim_file *f, const char *host, uint64_t epoch)
{
    int error, fd = lock(f, 1000);

    if (fd < 0) {
        return -fd;
    }
    error = access(f->path, F_OK) ? put(f, host, epoch) : EEXIST;
    close(fd);
    return error;
}
