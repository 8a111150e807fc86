/* Connections in files, and the commands that put them there. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ct.h"
#include "openvswitch/dynamic-string.h"
#include "socket-util.h"
#include "unixctl.h"
#include "util.h"

#define CHUNK_BYTES (1u << 20)
/* A chunk is a few lists of the tracker, of 100; with millions of connections
 * a few MiB. */
#define CHUNK_MAX (1u << 30)

static int
say(int error, char *why, size_t why_size, const char *what, const char *name)
{
    snprintf(why, why_size, "%s: %s (%s)", name, what, ovs_strerror(error));
    return error;
}

static int
write_all(int fd, const uint8_t *data, size_t len)
{
    size_t done;

    return write_fully(fd, data, len, &done);
}

int
ct_export_file(struct conntrack *ct, const struct ct_filter *filter, const char *name,
               size_t *count, char *why, size_t why_size)
{
    struct ct_exporter *x = ct_exporter_create(ct, filter);
    char *tmp = xasprintf("%s.tmp%ld", name, (long)getpid());
    const uint8_t *data;
    size_t len;
    int error = 0, fd;

    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        error = say(errno, why, why_size, "cannot be created", tmp);
        goto out;
    }
    while (!error && ct_exporter_next(x, CHUNK_BYTES, &data, &len)) {
        error = write_all(fd, data, len);
    }
    if (!error && fsync(fd)) {
        error = errno;
    }
    close(fd);
    if (!error && rename(tmp, name)) {
        error = errno;
    }
    if (error) {
        say(error, why, why_size, "cannot be written", name);
        unlink(tmp);
    }
    *count = ct_exporter_count(x);
out:
    free(tmp);
    ct_exporter_destroy(x);
    return error;
}

/* Reads the next chunk to '*buf'.  0 with '*len' 0 at the end of the file. */
static int
read_chunk(int fd, uint8_t **buf, size_t *allocated, size_t *len)
{
    uint8_t header[CT_CHUNK_HEADER];
    uint64_t total;
    size_t n;
    int error;

    error = read_fully(fd, header, sizeof header, &n);
    if (error == EOF && !n) {
        *len = 0;
        return 0;
    }
    if (error) {
        return error == EOF ? EINVAL : error;
    }
    total = ct_chunk_length(header);
    if (!total || total > CHUNK_MAX) {
        return EINVAL;
    }
    if (total > *allocated) {
        free(*buf);
        *buf = malloc(total);
        *allocated = *buf ? total : 0;
        if (!*buf) {
            return ENOMEM;
        }
    }
    memcpy(*buf, header, sizeof header);
    error = read_fully(fd, *buf + sizeof header, total - sizeof header, &n);
    *len = total;
    return error == EOF ? EINVAL : error;
}

int
ct_import_file(struct conntrack *ct, const char *name, struct ct_import_result *result, char *why,
               size_t why_size)
{
    size_t allocated = 0, len;
    uint8_t *buf = NULL;
    int error, fd;

    fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return say(errno, why, why_size, "cannot be opened", name);
    }
    do {
        error = read_chunk(fd, &buf, &allocated, &len);
        if (error) {
            say(error, why, why_size, "is no file of connection records", name);
        } else if (len) {
            error = ct_import(ct, buf, len, result, why, why_size);
        }
    } while (!error && len);
    free(buf);
    close(fd);
    return error;
}

/* --- commands ---------------------------------------------------------------------- */

static struct conntrack *(*lookup)(const char *name);

/* FILE [zone=N] [dp=NAME], NULL if the arguments are wrong; the answer is
 * given then. */
static struct conntrack *
parse_args(struct unixctl_conn *conn, int argc, const char *argv[], uint16_t *zone, bool *has_zone)
{
    const char *dp = NULL;
    struct conntrack *ct;
    unsigned int n;

    *has_zone = false;
    for (int i = 2; i < argc; i++) {
        if (!strncmp(argv[i], "dp=", 3)) {
            dp = argv[i] + 3;
        } else if (!strncmp(argv[i], "zone=", 5) && str_to_uint(argv[i] + 5, 10, &n) &&
                   n <= UINT16_MAX) {
            *zone = n;
            *has_zone = true;
        } else {
            unixctl_command_reply_error(conn, "expected zone=0..65535 or dp=NAME");
            return NULL;
        }
    }
    ct = lookup(dp);
    if (!ct) {
        unixctl_command_reply_error(conn, dp ? "no such datapath" : "say which: dp=NAME");
    }
    return ct;
}

static void
export_command(struct unixctl_conn *conn, int argc, const char *argv[], void *aux OVS_UNUSED)
{
    struct ct_filter filter = {.zone = NULL};
    struct conntrack *ct;
    bool has_zone;
    char why[256];
    uint16_t zone;
    size_t count;

    ct = parse_args(conn, argc, argv, &zone, &has_zone);
    if (!ct) {
        return;
    }
    filter.zone = has_zone ? &zone : NULL;
    if (ct_export_file(ct, &filter, argv[1], &count, why, sizeof why)) {
        unixctl_command_reply_error(conn, why);
    } else {
        char *reply = xasprintf("%" PRIuSIZE " connections\n", count);

        unixctl_command_reply(conn, reply);
        free(reply);
    }
}

static void
import_command(struct unixctl_conn *conn, int argc, const char *argv[], void *aux OVS_UNUSED)
{
    struct ct_import_result result = {0};
    struct conntrack *ct;
    bool has_zone;
    char why[256];
    uint16_t zone;
    char *reply;

    ct = parse_args(conn, argc, argv, &zone, &has_zone);
    if (!ct) {
        return;
    }
    if (has_zone) {
        unixctl_command_reply_error(conn, "an import takes all zones that are in the file");
        return;
    }
    if (ct_import_file(ct, argv[1], &result, why, sizeof why)) {
        unixctl_command_reply_error(conn, why);
        return;
    }
    reply = xasprintf("%" PRIuSIZE " connections; %" PRIuSIZE " were there already, %" PRIuSIZE
                      " did not fit\n",
                      result.imported, result.existing, result.refused);
    unixctl_command_reply(conn, reply);
    free(reply);
}

struct conntrack *
ct_lookup(const char *name)
{
    return lookup ? lookup(name) : NULL;
}

void
ct_unixctl_init(struct conntrack *(*lookup_)(const char *name))
{
    lookup = lookup_;
    unixctl_command_register("weft/ct-export", "FILE [zone=N] [dp=NAME]", 1, 3, export_command,
                             NULL);
    unixctl_command_register("weft/ct-import", "FILE [dp=NAME]", 1, 2, import_command, NULL);
}
