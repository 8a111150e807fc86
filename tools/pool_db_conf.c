#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "pool_db.h"

static const char *const roles[] = {"primary", "copy", "member", "left"};

const char *
pdb_role_name(enum pdb_role role)
{
    return roles[role];
}

void
pdb_path(const struct pdb *p, const char *file, char path[PDB_PATH])
{
    snprintf(path, PDB_PATH, "%s/%s", p->dir, file);
}

void
pdb_raft_target(const char *ip, unsigned port, char target[128])
{
    snprintf(target, 128, "ssl:%s:%u", ip, port + 2);
}

void
pdb_sync_target(const struct pdb *p, bool peer, char target[128])
{
    snprintf(target, 128, "ssl:%s:%u", peer ? p->peer_ip : p->ip,
             (peer ? p->peer_port : p->port) + 1);
}

void
pdb_peer_target(const struct pdb *p, char target[PDB_PATH])
{
    char ssl[128];

    if (*p->crl && pdb_runner(p)) {
        snprintf(target, PDB_PATH, "unix:%s/peer.sock", p->dir);
    } else {
        pdb_sync_target(p, true, ssl);
        snprintf(target, PDB_PATH, "%s", ssl);
    }
}

int
pdb_parse_address(const char *text, char ip[64], unsigned *port, char *why)
{
    const char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');
    char *end = "";
    size_t n;

    if (colon && bracket && colon < bracket) {
        colon = NULL;
    }
    n = colon ? (size_t)(colon - text) : strlen(text);
    *port = PDB_PORT;
    if (colon) {
        *port = isdigit((unsigned char)colon[1]) ? (unsigned)strtoul(colon + 1, &end, 10) : 0;
    }
    if (!n || n >= 64 || *end || *port < 1 || *port > 65536 - PDB_PORTS ||
        strspn(text, "0123456789abcdefABCDEF.:[]") < n || (memchr(text, ':', n) && *text != '[')) {
        snprintf(why, PDB_WHY, "\"%.80s\" is no address: 10.0.0.1, 10.0.0.1:6641 or [fd00::1]:6641",
                 text);
        return EINVAL;
    }
    memcpy(ip, text, n);
    ip[n] = '\0';
    return 0;
}

/* --- server.json ---------------------------------------------------------------- */

static bool
take_string(const json_t *root, const char *key, char *to, size_t size)
{
    const char *s = json_string_value(json_object_get(root, key));

    return s && (size_t)snprintf(to, size, "%s", s) < size;
}

static bool
take_role(const json_t *root, enum pdb_role *role)
{
    const char *s = json_string_value(json_object_get(root, "role"));

    for (unsigned i = 0; s && i < sizeof roles / sizeof roles[0]; i++) {
        if (!strcmp(s, roles[i])) {
            *role = (enum pdb_role)i;
            return true;
        }
    }
    return false;
}

int
pdb_load(struct pdb *p, const char *dir, char *why)
{
    char path[PDB_PATH];
    json_error_t error;
    json_t *root;
    bool ok;

    memset(p, 0, sizeof *p);
    if ((size_t)snprintf(p->dir, sizeof p->dir, "%s", dir) >= sizeof p->dir) {
        snprintf(why, PDB_WHY, "the directory's name is too long");
        return EINVAL;
    }
    pdb_path(p, "server.json", path);
    root = json_load_file(path, 0, &error);
    if (!root && access(path, F_OK)) {
        snprintf(why, PDB_WHY,
                 "%s: %s; weft pool db create, follow, cluster or join makes a server", path,
                 strerror(errno));
        return ENOENT;
    }
    if (!root) {
        snprintf(why, PDB_WHY, "%s: %s", path, error.text);
        return ENOENT;
    }
    p->port = (unsigned)json_integer_value(json_object_get(root, "port"));
    p->peer_port = (unsigned)json_integer_value(json_object_get(root, "peer_port"));
    p->promote = json_integer_value(json_object_get(root, "promote"));
    p->promote_with_copy = json_is_true(json_object_get(root, "promote_with_copy"));
    ok = take_string(root, "name", p->name, sizeof p->name) && take_role(root, &p->role) &&
         take_string(root, "ip", p->ip, sizeof p->ip) &&
         take_string(root, "peer_ip", p->peer_ip, sizeof p->peer_ip) &&
         take_string(root, "private_key", p->key, sizeof p->key) &&
         take_string(root, "certificate", p->certificate, sizeof p->certificate) &&
         take_string(root, "ca_cert", p->ca, sizeof p->ca) &&
         (!json_object_get(root, "crl") || /* older ones have none */
          take_string(root, "crl", p->crl, sizeof p->crl)) &&
         (!json_object_get(root, "hosts_ca_cert") || /* likewise */
          take_string(root, "hosts_ca_cert", p->hosts_ca, sizeof p->hosts_ca)) &&
         (!json_object_get(root, "hosts_crl") || /* likewise */
          take_string(root, "hosts_crl", p->hosts_crl, sizeof p->hosts_crl)) &&
         p->port && p->promote >= 0;
    json_decref(root);
    if (!ok) {
        snprintf(why, PDB_WHY, "%s is not as \"weft pool db\" writes it", path);
    }
    return ok ? 0 : EINVAL;
}

static int
write_whole(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t n = strlen(text);
    int error = fd < 0 ? errno : 0;

    if (!error && (write(fd, text, n) != (ssize_t)n || fsync(fd))) {
        error = errno ? errno : ENOSPC;
    }
    if (fd >= 0 && close(fd) && !error) {
        error = errno;
    }
    return error;
}

/* The old one or the new one, whenever we die. */
int
pdb_save(const struct pdb *p, char *why)
{
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:i, s:s, s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:b}", "name", p->name,
        "role", roles[p->role], "ip", p->ip, "port", (int)p->port, "peer_ip", p->peer_ip,
        "peer_port", (int)p->peer_port, "private_key", p->key, "certificate", p->certificate,
        "ca_cert", p->ca, "crl", p->crl, "hosts_ca_cert", p->hosts_ca, "hosts_crl", p->hosts_crl,
        "promote", (json_int_t)p->promote, "promote_with_copy", p->promote_with_copy);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    char path[PDB_PATH], temporary[PDB_PATH];
    int error = text ? 0 : EINVAL;

    pdb_path(p, "server.json", path);
    pdb_path(p, "server.json.new", temporary);
    if (!error) {
        error = write_whole(temporary, text);
    }
    if (!error && rename(temporary, path)) {
        error = errno;
    }
    if (error) {
        snprintf(why, PDB_WHY, "%s: %s", path, strerror(error));
    }
    free(text);
    json_decref(root);
    return error;
}

/* --- the runner -------------------------------------------------------------------- */

/* The lock is the file's; the number in it says whose. */
pid_t
pdb_runner(const struct pdb *p)
{
    char path[PDB_PATH], text[24] = "";
    pid_t pid = 0;
    int fd;

    pdb_path(p, "run.pid", path);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK &&
        read(fd, text, sizeof text - 1) > 0) {
        pid = (pid_t)atol(text);
    }
    close(fd);
    return pid > 1 ? pid : 0;
}

int
pdb_become_runner(const struct pdb *p, char *why)
{
    char path[PDB_PATH];
    int fd;

    pdb_path(p, "run.pid", path);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        snprintf(why, PDB_WHY, "%s: %s", path, strerror(errno));
        return errno;
    }
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        snprintf(why, PDB_WHY, "%s is run already", p->dir);
        close(fd);
        return EBUSY;
    }
    if (ftruncate(fd, 0) || dprintf(fd, "%ld\n", (long)getpid()) < 0) {
        snprintf(why, PDB_WHY, "%s: %s", path, strerror(errno));
        close(fd);
        return EIO;
    }
    return 0; /* open as long as we live */
}
