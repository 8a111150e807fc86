/* shadow_file: records in a file that outlives the process.
 *
 * What a killed switch must leave to its successor is kept in a file of a
 * tmpfs, mapped shared, so that a record is safe the moment it is written.
 * Records are put, replaced and taken away one by one at the cost of copying
 * them once; the file grows with the most there ever was at a time and is
 * never rewritten.  See docs/restart.md for the format.
 *
 * The file is its owner's alone.  A successor believes a record whose checksum
 * is right in a file of the same boot, kind and layout; all else it ignores.
 *
 * Threads: one at a time per file. */
#ifndef SHADOW_FILE_H
#define SHADOW_FILE_H

#include <stddef.h>
#include <stdint.h>

struct shadow_file;

/* Longest body of a record, bytes. */
#define SHADOW_BODY_MAX 4080u

/* Path of 'name' in the directory of such files, made if it is not there.
 * malloc'ed. */
char *shadow_path(const char *name);

/* An empty file at 'path', in place of any other.  'kind' and 'layout' must
 * be the reader's.  NULL, with errno set. */
struct shadow_file *shadow_file_create(const char *path, uint32_t kind, uint32_t layout);
/* The file stays, at 'path' from now on. */
int shadow_file_rename(struct shadow_file *, const char *path);
void shadow_file_close(struct shadow_file *); /* accepts NULL; keeps the file */

/* Room for a record of 'len' bytes, 8-byte aligned: fill it, then commit.
 * NULL if there is none; '*slot' is then 0. */
void *shadow_file_reserve(struct shadow_file *, size_t len, uint32_t *slot);
void shadow_file_commit(struct shadow_file *, uint32_t slot);
/* Takes a committed or reserved record away.  Slot 0 is none. */
void shadow_file_drop(struct shadow_file *, uint32_t slot);

/* --- the successor ---------------------------------------------------------- */

/* A private copy of a file's records. */
struct shadow_image {
    uint8_t *data; /* malloc'ed */
    size_t size;
};

/* ENOENT, EINVAL (not a file of this kind, layout or boot, or not ours alone)
 * or another errno. */
int shadow_image_load(const char *path, uint32_t kind, uint32_t layout, struct shadow_image *);
void shadow_image_free(struct shadow_image *);
/* The records one after another: '*pos' is 0 at first.  NULL at the end.  The
 * body is 8-byte aligned, lives as long as the image, and may be changed. */
void *shadow_image_next(const struct shadow_image *, size_t *pos, size_t *len);

#endif
