#include <config.h>

#include "audit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "http_serve.h"
#include "openvswitch/json.h"
#include "openvswitch/token-bucket.h"
#include "openvswitch/vlog.h"
#include "timeval.h"
#include "util.h"
#include "xapi.h"

VLOG_DEFINE_THIS_MODULE(audit);

static const char *path;
static int fd = -1;
/* Denials: ten a second, that a flood of them fills no disk. */
static struct token_bucket denials = TOKEN_BUCKET_INIT(10 * 1000, 100 * 1000);
static unsigned left_out;

static int
reopen(void)
{
    if (fd >= 0) {
        close(fd);
    }
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0 ? errno : 0;
}

int
audit_open(const char *file)
{
    path = file;
    return path ? reopen() : 0;
}

void
audit_close(void)
{
    if (fd >= 0) {
        close(fd);
        fd = -1;
    }
}

static void
write_line(const char *line)
{
    struct stat there, ours;

    if (fd < 0 || stat(path, &there) || fstat(fd, &ours) || there.st_ino != ours.st_ino) {
        reopen();
    }
    if (fd < 0 || write(fd, line, strlen(line)) != (ssize_t)strlen(line)) {
        static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);
        VLOG_ERR_RL(&rl, "the audit log %s cannot be written: %s", path, ovs_strerror(errno));
    }
}

static bool
is_denial(const struct fault *f)
{
    return f && (!strncmp(f->code, "SESSION_", 8) || !strncmp(f->code, "RBAC_", 5));
}

/* Reading leaves no line, a login and what needs more than a reader's role does. */
static bool
worth_it(const struct request *q, const struct fault *f)
{
    if (!q->method) {
        return false;
    }
    if (is_denial(f)) {
        bool ok = token_bucket_withdraw(&denials, 1000);
        left_out += !ok;
        return ok;
    }
    return q->method->role != POOL_ROLE_VIEWER;
}

void
audit_request(const struct request *q, const struct fault *f)
{
    struct json *line;
    char *text, *ended;

    if (!path || !worth_it(q, f)) {
        return;
    }
    line = json_object_create();
    json_object_put(line, "time", value_time(time_wall_msec()));
    json_object_put_string(line, "user", q->user);
    json_object_put_string(line, "address", q->http->peer->address);
    json_object_put_string(line, "method", q->call->method);
    if (q->n_args && q->args[0].row) {
        json_object_put_string(line, "object", q->args[0].s);
    }
    json_object_put_string(line, "outcome", f ? f->code : "Success");
    if (left_out) {
        json_object_put(line, "denials_left_out", json_integer_create(left_out));
        left_out = 0;
    }
    text = json_to_string(line, 0);
    ended = xasprintf("%s\n", text);
    write_line(ended);
    free(ended);
    free(text);
    json_destroy(line);
}
