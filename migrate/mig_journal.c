#include "mig_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define LINE_MAX_BYTES 256
#define MIG_JOURNAL_MAX_BYTES (1 << 20)
#define PENDING_PAGES_MAX (1ull << 36)

struct mig_journal {
    char *path, *vm_lock;
    int fd, vm_fd;
};

static const char *const names[] = {
    [MIG_JOURNAL_NONE] = "none",         [MIG_JOURNAL_BEGIN] = "begin",
    [MIG_JOURNAL_PREPARED] = "prepared", [MIG_JOURNAL_PAUSING] = "pausing",
    [MIG_JOURNAL_READY] = "ready",       [MIG_JOURNAL_COMMITTED] = "committed",
    [MIG_JOURNAL_ABORTED] = "aborted",   [MIG_JOURNAL_RUNNING] = "running",
    [MIG_JOURNAL_DONE] = "done",
};
#define POSTCOPY "postcopy"
#define COMPLETE "complete"
#define LOST "lost"

const char *
mig_journal_step_name(enum mig_journal_step step)
{
    return step < sizeof names / sizeof names[0] ? names[step] : "?";
}

/* "CHECKSUM TEXT\n" */
static int
append(struct mig_journal *j, const char *text, bool sync)
{
    char line[LINE_MAX_BYTES];
    int n = snprintf(line, sizeof line, "%016" PRIx64 " %s\n",
                     (uint64_t)XXH3_64bits(text, strlen(text)), text);
    ssize_t done;
    off_t at;

    if (n < 0 || (size_t)n >= sizeof line) {
        return EINVAL;
    }
    at = lseek(j->fd, 0, SEEK_CUR);
    done = write(j->fd, line, n);
    if (done != n) {
        int error = done < 0 ? errno : EIO;

        /* Half a line (a full disk) would hide every later one from a reader. */
        if (done > 0 && (ftruncate(j->fd, at) || lseek(j->fd, at, SEEK_SET) < 0)) {
            error = errno;
        }
        return error;
    }
    return sync && fdatasync(j->fd) ? errno : 0;
}

/* The next whole line of `text`, checked and without its checksum; NULL: no more.
 * *at moves behind it. */
static char *
next_line(char *text, size_t len, size_t *at)
{
    char *line = text + *at, *end = memchr(line, '\n', len - *at);
    char sum[17];

    if (!end || end - line < 18 || line[16] != ' ') {
        return NULL;
    }
    snprintf(sum, sizeof sum, "%016" PRIx64, (uint64_t)XXH3_64bits(line + 17, end - line - 17));
    if (memcmp(sum, line, 16)) {
        return NULL;
    }
    *end = '\0';
    *at = end + 1 - text;
    return line + 17;
}

static void
format_head(char *out, size_t room, const struct mig_journal_head *h, bool lost)
{
    snprintf(out, room, "%s weft-migrate 1 %s %s %s %" PRIu64 "%s", names[MIG_JOURNAL_BEGIN],
             h->source ? "source" : "destination", h->migration, h->vm, h->epoch,
             lost ? " " LOST : "");
}

static void
note(struct mig_journal_past *past, const char *line)
{
    if (!strcmp(line, POSTCOPY)) {
        past->postcopy = true;
        return;
    }
    if (!strcmp(line, COMPLETE)) {
        past->complete = true;
        return;
    }
    for (int i = MIG_JOURNAL_PREPARED; i <= MIG_JOURNAL_DONE; i++) {
        if (!strcmp(line, names[i])) {
            past->step = i;
            past->pausing |= i == MIG_JOURNAL_PAUSING;
            past->ready |= i == MIG_JOURNAL_READY;
            past->committed |= i == MIG_JOURNAL_COMMITTED;
            past->aborted |= i == MIG_JOURNAL_ABORTED;
        }
    }
}

/* Reads what there is and cuts off what was torn. */
static int
replay(struct mig_journal *j, const struct mig_journal_head *head, struct mig_journal_past *past)
{
    char want[LINE_MAX_BYTES], lost[LINE_MAX_BYTES], *text = NULL, *line;
    struct stat st;
    size_t at = 0;
    int error = 0;

    format_head(want, sizeof want, head, false);
    format_head(lost, sizeof lost, head, true);
    past->head = *head;
    if (fstat(j->fd, &st)) {
        return errno;
    }
    if (st.st_size > MIG_JOURNAL_MAX_BYTES) {
        return EBADMSG;
    }
    text = malloc(st.st_size + 1);
    if (!text) {
        return ENOMEM;
    }
    if (pread(j->fd, text, st.st_size, 0) != st.st_size) {
        error = EIO;
        goto out;
    }
    line = next_line(text, st.st_size, &at);
    if (line && strcmp(line, want) && strcmp(line, lost)) {
        error = ESTALE;
    } else if (line) {
        past->step = MIG_JOURNAL_BEGIN;
        past->lost = !strcmp(line, lost);
        while ((line = next_line(text, st.st_size, &at))) {
            note(past, line);
        }
    } else if (memchr(text, '\n', st.st_size)) {
        error = EBADMSG;
    }
    /* A first line that was torn: nothing had been done yet. */
    if (!error && (ftruncate(j->fd, at) || lseek(j->fd, at, SEEK_SET) < 0)) {
        error = errno;
    }
out:
    free(text);
    return error;
}

/* Is it still the file of that name?  Whoever is done removes it. */
static bool
is_named(int fd, const char *path)
{
    struct stat held, named;

    return !fstat(fd, &held) && !stat(path, &named) && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

/* One migration at a time is about this VM here. */
static int
lock_vm(struct mig_journal *j, const char *vm)
{
    char path[PATH_MAX], *copy = strdup(j->path);
    int n, fd;

    if (!copy) {
        return ENOMEM;
    }
    n = snprintf(path, sizeof path, "%s/vm-%s.lock", dirname(copy), vm);
    free(copy);
    if (n < 0 || (size_t)n >= sizeof path) {
        return ENAMETOOLONG;
    }
    for (;;) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0) {
            return errno;
        }
        if (flock(fd, LOCK_EX | LOCK_NB)) {
            n = errno == EWOULDBLOCK ? EBUSY : errno;
            close(fd);
            return n;
        }
        if (is_named(fd, path)) {
            break;
        }
        close(fd);
    }
    j->vm_fd = fd;
    j->vm_lock = strdup(path);
    return j->vm_lock ? 0 : ENOMEM;
}

int
mig_journal_open(const char *path, const struct mig_journal_head *head, struct mig_journal **out,
                 struct mig_journal_past *past)
{
    struct mig_journal *j = calloc(1, sizeof *j);
    char line[LINE_MAX_BYTES];
    int error;

    *out = NULL;
    *past = (struct mig_journal_past){0};
    if (!j) {
        return ENOMEM;
    }
    j->vm_fd = -1;
    j->path = strdup(path);
    j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (!j->path || j->fd < 0) {
        error = j->path ? errno : ENOMEM;
        goto fail;
    }
    if (flock(j->fd, LOCK_EX | LOCK_NB)) {
        error = errno == EWOULDBLOCK ? EBUSY : errno;
        goto fail;
    }
    error = lock_vm(j, head->vm);
    if (!error) {
        error = replay(j, head, past);
    }
    if (!error && past->step == MIG_JOURNAL_NONE) {
        past->lost = head->recovers;
        format_head(line, sizeof line, head, past->lost);
        error = append(j, line, true);
    }
    if (error) {
        goto fail;
    }
    *out = j;
    return 0;

fail:
    mig_journal_close(j);
    return error;
}

void
mig_journal_close(struct mig_journal *j)
{
    if (j) {
        if (j->fd >= 0) {
            close(j->fd);
        }
        if (j->vm_fd >= 0) {
            if (j->vm_lock) {
                unlink(j->vm_lock); /* first: whoever opens it from here on makes another */
            }
            close(j->vm_fd);
        }
        free(j->vm_lock);
        free(j->path);
        free(j);
    }
}

/* The file beside it, of what post-copy owes. */
static bool
pending_path(const struct mig_journal *j, char path[PATH_MAX])
{
    int n = snprintf(path, PATH_MAX, "%s.pending", j->path);

    return n > 0 && n < PATH_MAX;
}

int
mig_journal_write(struct mig_journal *j, enum mig_journal_step step, bool sync)
{
    char path[PATH_MAX];

    if (j && step == MIG_JOURNAL_DONE && pending_path(j, path)) {
        unlink(path);
    }
    return j ? append(j, names[step], sync) : 0;
}

/* --- what post-copy owes ------------------------------------------------------- */

struct pending_head {
    char magic[8];
    uint64_t n_pages, check;
};
#define PENDING_MAGIC "WEFTPEND"

static size_t
bitmap_bytes(uint64_t n_pages)
{
    return (n_pages + 63) / 64 * 8;
}

static FILE *
pending_file(struct mig_journal *j, const char *mode)
{
    char path[PATH_MAX];

    if (!pending_path(j, path)) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    return fopen(path, mode);
}

int
mig_journal_save_pending(struct mig_journal *j, const uint64_t *bitmap, uint64_t n_pages)
{
    struct pending_head h = {.magic = PENDING_MAGIC, .n_pages = n_pages};
    size_t n = bitmap_bytes(n_pages);
    FILE *f;
    bool ok;

    if (!j) {
        return 0;
    }
    f = pending_file(j, "we");
    if (!f) {
        return errno;
    }
    h.check = XXH3_64bits(bitmap, n);
    ok = fwrite(&h, sizeof h, 1, f) == 1 && fwrite(bitmap, 1, n, f) == n;
    if (fclose(f) || !ok) {
        return EIO;
    }
    return append(j, POSTCOPY, false);
}

int
mig_journal_complete(struct mig_journal *j)
{
    return j ? append(j, COMPLETE, false) : 0;
}

int
mig_journal_load_pending(struct mig_journal *j, uint64_t **bitmap, uint64_t *n_pages)
{
    struct pending_head h;
    uint64_t *bits = NULL;
    int error = EBADMSG;
    size_t n;
    FILE *f;

    if (!j) {
        return ENOENT;
    }
    f = pending_file(j, "re");
    if (!f) {
        return errno;
    }
    if (fread(&h, sizeof h, 1, f) != 1 || memcmp(h.magic, PENDING_MAGIC, sizeof h.magic) ||
        h.n_pages > PENDING_PAGES_MAX) {
        goto out;
    }
    n = bitmap_bytes(h.n_pages);
    bits = malloc(n + 8);
    if (!bits) {
        error = ENOMEM;
    } else if (fread(bits, 1, n, f) == n && XXH3_64bits(bits, n) == h.check) {
        *bitmap = bits;
        *n_pages = h.n_pages;
        bits = NULL;
        error = 0;
    }
out:
    free(bits);
    fclose(f);
    return error;
}
