#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pki_priv.h"

#define INIT_FIRST "; \"weft pki init DIR\" makes an authority"

bool
pki_name_ok(const char *name)
{
    size_t n = strlen(name);

    if (n < 1 || n > PKI_NAME_MAX || *name == '.' || *name == '-') {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)name[i]) && !strchr(".-_", name[i])) {
            return false;
        }
    }
    return true;
}

int
pki_path(const char *dir, const char *name, const char *suffix, char *to, size_t size)
{
    int n = snprintf(to, size, "%s/%s%s", dir, name, suffix);

    return n < 0 || (size_t)n >= size ? ENAMETOOLONG : 0;
}

bool
pki_exists(const char *dir, const char *name, const char *suffix)
{
    char path[600];

    return !pki_path(dir, name, suffix, path, sizeof path) && !access(path, F_OK);
}

int
pki_lock(const char *dir, char *why, size_t why_size)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || flock(fd, LOCK_EX)) {
        snprintf(why, why_size, "%s: %s%s", dir, strerror(errno),
                 errno == ENOENT ? INIT_FIRST : "");
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

/* --- reading ----------------------------------------------------------------------- */

static FILE *
open_file(const char *dir, const char *name, const char *suffix, char *why, size_t why_size)
{
    char path[600];
    FILE *f = NULL;

    if (pki_path(dir, name, suffix, path, sizeof path)) {
        snprintf(why, why_size, "%s: the path is too long", dir);
    } else if (!(f = fopen(path, "re"))) {
        snprintf(why, why_size, "%s: %s%s", path, strerror(errno),
                 errno == ENOENT && !strcmp(name, "ca") && !strcmp(suffix, ".crt") ? INIT_FIRST
                                                                                   : "");
    }
    return f;
}

X509 *
pki_read_cert(const char *dir, const char *name, char *why, size_t why_size)
{
    FILE *f = open_file(dir, name, ".crt", why, why_size);
    X509 *crt = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
    char what[600];

    if (f && !crt) {
        snprintf(what, sizeof what, "%.500s/%s.crt is no certificate", dir, name);
        pki_library_error(what, why, why_size);
    }
    if (f) {
        fclose(f);
    }
    return crt;
}

/* Encrypted keys are not for daemons: no passphrase is asked for. */
static int
no_passphrase(char *to, int size, int writing, void *aux)
{
    return -1;
}

EVP_PKEY *
pki_read_key(const char *dir, const char *name, char *why, size_t why_size)
{
    FILE *f = open_file(dir, name, ".key", why, why_size);
    EVP_PKEY *key = f ? PEM_read_PrivateKey(f, NULL, no_passphrase, NULL) : NULL;
    char what[600];

    if (f && !key) {
        snprintf(what, sizeof what, "%.500s/%s.key is no private key", dir, name);
        pki_library_error(what, why, why_size);
    }
    if (f) {
        fclose(f);
    }
    return key;
}

X509_CRL *
pki_read_crl(const char *dir)
{
    char why[100];
    FILE *f = open_file(dir, "crl", ".pem", why, sizeof why);
    X509_CRL *crl = f ? PEM_read_X509_CRL(f, NULL, NULL, NULL) : NULL;

    if (f) {
        fclose(f);
    }
    return crl;
}

/* --- writing -------------------------------------------------------------------------- */

typedef int write_pem(FILE *, void *);

static int
write_cert(FILE *f, void *crt)
{
    return PEM_write_X509(f, crt);
}

static int
write_key(FILE *f, void *key)
{
    return PEM_write_PKCS8PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
}

static int
write_crl(FILE *f, void *crl)
{
    return PEM_write_X509_CRL(f, crl);
}

/* PATH.new, on disk. */
static int
write_new(const char *path, mode_t mode, write_pem *pem, void *what, char *why, size_t why_size)
{
    char fresh[620];
    int fd, error = 0;
    FILE *f;

    snprintf(fresh, sizeof fresh, "%s.new", path);
    unlink(fresh);
    fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f) {
        error = errno;
        if (fd >= 0) {
            close(fd);
        }
    } else {
        errno = 0;
        if (fchmod(fd, mode) || !pem(f, what) || fflush(f) || fsync(fd)) {
            error = errno ? errno : EIO;
        }
        if (fclose(f) && !error) {
            error = errno;
        }
    }
    if (error) {
        snprintf(why, why_size, "%s: %s", fresh, strerror(error));
        unlink(fresh);
    }
    return error;
}

static int
put_in_place(const char *path, char *why, size_t why_size)
{
    char fresh[620];

    snprintf(fresh, sizeof fresh, "%s.new", path);
    if (rename(fresh, path)) {
        int error = errno;
        snprintf(why, why_size, "%s: %s", path, strerror(error));
        unlink(fresh);
        return error;
    }
    return 0;
}

/* Renames are on disk. */
static int
sync_dir(const char *dir, char *why, size_t why_size)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 || fsync(fd) ? errno : 0;

    if (fd >= 0) {
        close(fd);
    }
    if (error) {
        snprintf(why, why_size, "%s: %s", dir, strerror(error));
    }
    return error;
}

int
pki_write_pair(const char *dir, const char *name, EVP_PKEY *key, X509 *crt, char *why,
               size_t why_size)
{
    char key_path[620], crt_path[620];
    int error;

    if (pki_path(dir, name, ".key", key_path, 600) || pki_path(dir, name, ".crt", crt_path, 600)) {
        snprintf(why, why_size, "%s: the path is too long", dir);
        return ENAMETOOLONG;
    }
    error = write_new(key_path, 0600, write_key, key, why, why_size);
    if (!error) {
        error = write_new(crt_path, 0644, write_cert, crt, why, why_size);
        if (error) {
            strcat(key_path, ".new");
            unlink(key_path);
        }
    }
    /* The certificate first: Open vSwitch looks at it only once the key has changed, and
     * one that came after such a look would not be read before the next rotation. */
    if (!error) {
        error = put_in_place(crt_path, why, why_size);
    }
    if (!error) {
        error = put_in_place(key_path, why, why_size);
    }
    return error ? error : sync_dir(dir, why, why_size);
}

int
pki_write_crl(const char *dir, X509_CRL *crl, char *why, size_t why_size)
{
    char path[600];
    int error = pki_path(dir, "crl", ".pem", path, sizeof path);

    if (error) {
        snprintf(why, why_size, "%s: the path is too long", dir);
        return error;
    }
    error = write_new(path, 0644, write_crl, crl, why, why_size);
    if (!error) {
        error = put_in_place(path, why, why_size);
    }
    return error ? error : sync_dir(dir, why, why_size);
}
