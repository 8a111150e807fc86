/* Theory of Operation
 * ===================
 *
 * ovsdb-server reads no lists of revoked certificates.  With one it listens at
 * db.sock only, and its ports are weft-dbgate's, which lets in whose certificate is
 * good, and as long as it is:
 *
 *     controllers, the peer --> PORT, PORT + 1 (weft-dbgate) --> db.sock
 *     the server, "weft pool db" --> peer.sock (another weft-dbgate) --> PORT + 1 of the peer
 *
 * A copy answers hosts at PORT + 1, too: nobody can write it.  They are of another
 * authority, which has a list of its own.  A process of its own asks the peer, because it
 * believes the servers' authority alone: a host could take the peer's address.
 * Not so PORT + 2: a cluster's members know each other by the addresses at which their
 * servers themselves listen. */
#include "pool_db.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ARGS = 20 };

struct args {
    const char *v[ARGS + 1];
    char text[ARGS][PDB_PATH + 32];
    unsigned n;
};

static void __attribute__((format(printf, 2, 3))) add(struct args *a, const char *format, ...)
{
    va_list va;

    va_start(va, format);
    vsnprintf(a->text[a->n], sizeof a->text[0], format, va);
    va_end(va);
    a->v[a->n] = a->text[a->n];
    a->v[++a->n] = NULL;
}

/* Adds the file's text, and ends its last line.  0 or errno. */
static int
add_file(const char *path, FILE *to)
{
    char bytes[4096];
    FILE *f = fopen(path, "re");
    size_t n;
    int error;

    if (!f) {
        return errno;
    }
    while ((n = fread(bytes, 1, sizeof bytes, f))) {
        fwrite(bytes, 1, n, to);
    }
    error = ferror(f) ? EIO : 0;
    fclose(f);
    fputc('\n', to);
    return error;
}

/* The file's text, to be freed; NULL: with 'why'. */
static char *
text_of(const char *path, char *why)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    int error = f ? add_file(path, f) : errno;

    if (f && fclose(f) && !error) {
        error = errno;
    }
    if (error) {
        snprintf(why, PDB_WHY, "%s: %s", path, strerror(error));
        free(text);
        return NULL;
    }
    return text;
}

/* As text_of(); not one of which only a part has been written yet. */
static char *
certificates_of(const char *path, char *why)
{
    static const char end[] = "-----END CERTIFICATE-----";
    char *text = text_of(path, why);
    size_t n = text ? strlen(text) : 0;

    while (n && isspace((unsigned char)text[n - 1])) {
        n--;
    }
    if (text && (n < strlen(end) || strncmp(text + n - strlen(end), end, strlen(end)))) {
        snprintf(why, PDB_WHY, "%s: does not end with \"%s\"", path, end);
        free(text);
        return NULL;
    }
    return text;
}

/* Of both, to be freed; NULL: with 'why'. */
static char *
both_of(const char *a, const char *b, char *why)
{
    char *first = certificates_of(a, why), *second = first ? certificates_of(b, why) : NULL;
    char *both = NULL;

    if (second && asprintf(&both, "%s%s", first, second) < 0) {
        snprintf(why, PDB_WHY, "%s: %s", a, strerror(ENOMEM));
        both = NULL;
    }
    free(first);
    free(second);
    return both;
}

/* Who reads it sees the old one or the new one. */
static int
replace(const char *path, const char *text, char *why)
{
    char new[PDB_PATH + 8];
    FILE *f;
    int error;

    snprintf(new, sizeof new, "%s.new", path);
    f = fopen(new, "we");
    error = f && fputs(text, f) >= 0 ? 0 : errno;
    if (f && fclose(f) && !error) {
        error = errno;
    }
    if (!error && rename(new, path)) {
        error = errno;
    }
    if (error) {
        snprintf(why, PDB_WHY, "%s: %s", path, strerror(error));
    }
    return error;
}

int
pdb_both_authorities(const struct pdb *p, char path[PDB_PATH], char *why)
{
    char *text = both_of(p->ca, p->hosts_ca, why), *was;
    char none[PDB_WHY];
    int error = text ? 0 : EIO;

    pdb_path(p, "both-ca.crt", path);
    if (!error) {
        was = text_of(path, none);
        /* A line end is added to what is read. */
        if (!was || strncmp(was, text, strlen(text)) || strcmp(was + strlen(text), "\n")) {
            error = replace(path, text, why);
        }
        free(was);
    }
    free(text);
    return error;
}

bool
pdb_asks(const struct pdb *p)
{
    return *p->crl && p->role != PDB_MEMBER && *p->peer_ip;
}

bool
pdb_relay_ready(const struct pdb *p)
{
    char path[PDB_PATH];

    pdb_path(p, "peer.sock", path);
    return !pdb_asks(p) || !access(path, F_OK);
}

static void
add_ports(struct args *a, const struct pdb *p)
{
    char socket[PDB_PATH];

    pdb_path(p, "db.sock", socket);
    if (p->role != PDB_COPY) {
        add(a, "--listen=pssl:%u:%s", p->port, p->ip);
        add(a, "--server=unix:%s", socket);
    }
    if (p->role != PDB_MEMBER) {
        add(a, "--listen=pssl:%u:%s", p->port + 1, p->ip);
        add(a, "--server=unix:%s", socket);
    }
}

/* Who it is, and what it writes to "NAME.ctl" and "NAME.log". */
static void
add_common(struct args *a, const struct pdb *p, const char *ca, const char *name)
{
    char file[32], path[PDB_PATH];

    add(a, "--private-key=%s", p->key);
    add(a, "--certificate=%s", p->certificate);
    add(a, "--ca-cert=%s", ca);
    add(a, "--crl=%s", p->crl);
    snprintf(file, sizeof file, "%s.ctl", name);
    pdb_path(p, file, path);
    unlink(path);
    add(a, "--unixctl=%s", path);
    snprintf(file, sizeof file, "%s.log", name);
    pdb_path(p, file, path);
    add(a, "--log-file=%s", path);
    add(a, "-vconsole:off");
    add(a, "-vsyslog:off");
}

int
pdb_relay_start(const struct pdb *p, pid_t *pidp, char *why)
{
    bool for_hosts = p->role == PDB_COPY && *p->hosts_ca;
    char path[PDB_PATH], ca[PDB_PATH];
    struct args a = {.n = 0};

    snprintf(ca, sizeof ca, "%s", p->ca);
    if (for_hosts && pdb_both_authorities(p, ca, why)) {
        return EIO;
    }
    pdb_program("weft-dbgate", path);
    add(&a, "%s", path);
    add(&a, "--relay");
    add_ports(&a, p);
    add_common(&a, p, ca, "relay");
    if (for_hosts) {
        add(&a, "--crl=%s", p->hosts_crl);
    }
    return pdb_spawn(a.v, pidp, why);
}

int
pdb_asker_start(const struct pdb *p, pid_t *pidp, char *why)
{
    char path[PDB_PATH], peer[128];
    struct args a = {.n = 0};

    pdb_program("weft-dbgate", path);
    add(&a, "%s", path);
    add(&a, "--relay");
    pdb_path(p, "peer.sock", path);
    unlink(path);
    add(&a, "--listen=punix:%s", path);
    pdb_sync_target(p, true, peer);
    add(&a, "--server=%s", peer);
    add_common(&a, p, p->ca, "peer");
    return pdb_spawn(a.v, pidp, why);
}
