/* Files of OVSDB: records ("OVSDB JSON" or "OVSDB CLUSTER", length, SHA-1, then JSON; OVS's
 * ovsdb(5) and ovsdb/log.c).
 *
 * ovsdb-server, when it starts, drops what a crash has left of a last record, and goes past one
 * that it cannot replay.  ovsdb-tool reads no file that ends in the former, and where it meets
 * the latter takes the file to end: what it writes then replaces the rest.  So it works on a
 * copy of what is whole, and its work counts only if nothing of that is gone. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hex.h"
#include "pool_db.h"

enum { HEAD_MAX = 128, SHA1_LEN = 20 };

static const char standalone[] = "OVSDB JSON ";

/* --- records --------------------------------------------------------------------------- */

static bool
sum_is_right(const char *body, size_t len, const char *digits)
{
    uint8_t sum[EVP_MAX_MD_SIZE], said[SHA1_LEN];

    return hex_read(digits, said, SHA1_LEN, 0) &&
           EVP_Digest(body, len, sum, NULL, EVP_sha1(), NULL) && !memcmp(sum, said, SHA1_LEN);
}

bool
pdb_record(const char *magic, const char *at, const char *end, size_t *head, size_t *body)
{
    size_t left = end - at, digits = strlen(magic), len = 0;
    const char *line = left ? memchr(at, '\n', left < HEAD_MAX ? left : HEAD_MAX) : NULL;
    const char *hex;

    if (!line || (size_t)(line - at) < digits || memcmp(at, magic, digits)) {
        return false;
    }
    for (hex = at + digits; hex < line && *hex >= '0' && *hex <= '9' && len <= left; hex++) {
        len = len * 10 + (*hex - '0');
    }
    if (*hex != ' ' || line - hex != 1 + 2 * SHA1_LEN || len > (size_t)(end - line - 1) ||
        !sum_is_right(line + 1, len, hex + 1)) {
        return false;
    }
    *head = line + 1 - at;
    *body = len;
    return true;
}

/* --- files ------------------------------------------------------------------------------ */

void
pdb_file_unmap(struct pdb_file *f)
{
    if (f->n) {
        munmap(f->at, f->n);
    }
}

int
pdb_file_map(const char *path, struct pdb_file *f, char *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), error = 0;
    struct stat st = {.st_size = 0};

    *f = (struct pdb_file){.at = NULL};
    if (fd < 0 || fstat(fd, &st)) {
        error = errno;
    } else if (st.st_size) {
        f->at = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        error = f->at == MAP_FAILED ? errno : 0;
        f->n = error ? 0 : (size_t)st.st_size;
    }
    if (error) {
        snprintf(why, PDB_WHY, "%s: %s", path, strerror(error));
    }
    if (fd >= 0) {
        close(fd);
    }
    return error;
}

/* How much of it is whole records.  EINVAL: what follows is more than the rest of one. */
static int
measure(const char *path, const struct pdb_file *f, size_t *whole, char *why)
{
    const char *at = f->at, *end = f->at + f->n;
    size_t head, body;

    while (at < end && pdb_record(standalone, at, end, &head, &body)) {
        at += head + body;
    }
    *whole = at - f->at;
    if (!*whole || (at < end && memmem(at + 1, end - at - 1, standalone, sizeof standalone - 1))) {
        snprintf(why, PDB_WHY, "%s is damaged at byte %zu", path, *whole);
        return EINVAL;
    }
    return 0;
}

static int
write_whole(const struct pdb_file *f, size_t whole, const char *to, char *why)
{
    FILE *out = fopen(to, "we");
    bool ok = out && !fchmod(fileno(out), 0640) && fwrite(f->at, whole, 1, out) == 1;

    if (out && fclose(out)) {
        ok = false;
    }
    if (!ok) {
        snprintf(why, PDB_WHY, "%s: %s", to, strerror(errno));
        unlink(to);
        return errno ? errno : EIO;
    }
    return 0;
}

/* The copy has all that was whole. */
static int
check_kept(const struct pdb_file *f, size_t whole, const char *copy, char *why)
{
    struct pdb_file now;
    int error = pdb_file_map(copy, &now, why);

    if (!error && (now.n < whole || memcmp(now.at, f->at, whole))) {
        snprintf(why, PDB_WHY, "its log cannot be replayed to its end; nothing is changed");
        error = EIO;
    }
    pdb_file_unmap(&now);
    return error;
}

int
pdb_replace(const char *copy, const char *path, const char *dir, char *why)
{
    int fd = open(copy, O_RDONLY | O_CLOEXEC), dir_fd = open(dir, O_RDONLY | O_CLOEXEC), error = 0;

    if (fd < 0 || dir_fd < 0 || fsync(fd) || rename(copy, path) || fsync(dir_fd)) {
        error = errno;
        snprintf(why, PDB_WHY, "%s: %s", path, strerror(error));
    }
    if (fd >= 0) {
        close(fd);
    }
    if (dir_fd >= 0) {
        close(dir_fd);
    }
    return error;
}

/* As ovsdb-server and ovsdb-tool do for a file that they write.  -1: 'why'. */
static int
lock(const char *dir, const char *path, char *why)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char name[PDB_PATH + 16];
    int fd;

    snprintf(name, sizeof name, "%s/.pool.db.~lock~", dir);
    fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && !fcntl(fd, F_SETLK, &all)) {
        return fd;
    }
    snprintf(why, PDB_WHY, "%s is in use: %s", path, strerror(errno));
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

/* --- the tool ---------------------------------------------------------------------------- */

static int
work_on_copy(const struct pdb *p, const char *path, const char *json, bool writes, char **out,
             char *why)
{
    char name[32], copy[PDB_PATH], hidden[40], left[PDB_PATH];
    struct pdb_file f;
    size_t whole;
    int error = pdb_file_map(path, &f, why);

    /* Readers take no lock: each has its own. */
    snprintf(name, sizeof name, "pool.db.tool.%d", writes ? 0 : (int)getpid());
    snprintf(hidden, sizeof hidden, ".%s.~lock~", name);
    pdb_path(p, name, copy);
    pdb_path(p, hidden, left);
    error = error ? error : measure(path, &f, &whole, why);
    error = error ? error : write_whole(&f, whole, copy, why);
    if (!error) {
        error =
            pdb_tool(writes ? "transact" : "query", (const char *[]){copy, json, NULL}, out, why);
        if (!error && writes) {
            error = check_kept(&f, whole, copy, why);
            error = error ? error : pdb_replace(copy, path, p->dir, why);
        }
        unlink(copy);
        unlink(left);
    }
    pdb_file_unmap(&f);
    return error;
}

int
pdb_file_transact(const struct pdb *p, const char *json, bool writes, char **out, char *why)
{
    char path[PDB_PATH];
    int error, fd = -1;

    pdb_path(p, "pool.db", path);
    *out = NULL;
    if (!writes && !pdb_tool("query", (const char *[]){path, json, NULL}, out, why)) {
        return 0;
    }
    if (writes && (fd = lock(p->dir, path, why)) < 0) {
        return EBUSY;
    }
    error = work_on_copy(p, path, json, writes, out, why);
    if (fd >= 0) {
        close(fd);
    }
    if (error) {
        free(*out);
        *out = NULL;
    }
    return error;
}
