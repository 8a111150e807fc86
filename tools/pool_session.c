#include "pool_session.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE_MAX_ = 4096 };

/* The directory that 'path' ends in, made with all above it; 'path' then names the
 * file. */
static int
make_path(char path[PATH_MAX], bool make)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n;

    if (state && *state == '/') {
        n = snprintf(path, PATH_MAX, "%s/weft", state);
    } else if (home && *home == '/') {
        n = snprintf(path, PATH_MAX, "%s/.local/state/weft", home);
    } else {
        return ENOENT;
    }
    if (n + 10 >= PATH_MAX) {
        return ENAMETOOLONG;
    }
    for (char *slash = path + 1; make && (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    if (make && mkdir(path, 0700) && errno != EEXIST) {
        return errno;
    }
    strcat(path, "/session");
    return 0;
}

static bool
take_text(const json_t *json, const char *key, char *to, size_t size)
{
    const char *text = json_string_value(json_object_get(json, key));

    return text && (size_t)snprintf(to, size, "%s", text) < size;
}

/* What is not ours, or what others can read, may have been put there by others. */
static int
read_private(const char *path, char *text, size_t size, char *why, size_t why_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), error = 0;
    struct stat st;
    ssize_t n = 0;

    if (fd < 0) {
        error = errno;
        snprintf(why, why_size, "%s: %s", path, strerror(error));
        return error;
    }
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077) {
        snprintf(why, why_size, "%s is not a file of mode 0600 of our own; remove it", path);
        error = EPERM;
    } else if ((n = read(fd, text, size - 1)) <= 0) {
        snprintf(why, why_size, "%s is empty; remove it", path);
        error = EINVAL;
    }
    text[n > 0 ? n : 0] = '\0';
    close(fd);
    return error;
}

int
pool_session_read(struct pool_session *s, char *why, size_t why_size)
{
    char path[PATH_MAX], text[SIZE_MAX_];
    json_t *json;
    int error = make_path(path, false);

    memset(s, 0, sizeof *s);
    if (error) {
        snprintf(why, why_size, "no directory for the session: set HOME or XDG_STATE_HOME");
        return error;
    }
    error = read_private(path, text, sizeof text, why, why_size);
    if (error) {
        return error;
    }
    json = json_loads(text, 0, NULL);
    if (!take_text(json, "controller", s->controller, sizeof s->controller) ||
        !take_text(json, "ca_cert", s->ca_cert, sizeof s->ca_cert) ||
        !take_text(json, "token", s->token, sizeof s->token) ||
        strspn(s->token, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(s->token)) {
        snprintf(why, why_size, "%s holds no session; remove it", path);
        error = EINVAL;
    }
    json_decref(json);
    return error;
}

int
pool_session_write(const struct pool_session *s, char *why, size_t why_size)
{
    json_t *json = json_pack("{s:s, s:s, s:s}", "controller", s->controller, "ca_cert", s->ca_cert,
                             "token", s->token);
    char *text = json_dumps(json, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    char path[PATH_MAX], fresh[PATH_MAX + 8];
    int error = make_path(path, true), fd = -1;
    size_t n = text ? strlen(text) : 0;

    if (!error) {
        snprintf(fresh, sizeof fresh, "%s.XXXXXX", path);
        fd = mkstemp(fresh); /* mode 0600 */
        error = fd < 0 ? errno : 0;
    }
    if (!error && (!n || write(fd, text, n) != (ssize_t)n || rename(fresh, path))) {
        error = errno ? errno : EIO;
        unlink(fresh);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (error) {
        snprintf(why, why_size, "the session cannot be kept: %s", strerror(error));
    }
    json_decref(json);
    free(text);
    return error;
}

int
pool_session_remove(char *why, size_t why_size)
{
    char path[PATH_MAX];
    int error = make_path(path, false);

    if (!error && unlink(path)) {
        error = errno;
    }
    if (error) {
        snprintf(why, why_size, "there is no session here: %s", strerror(error));
    }
    return error;
}
