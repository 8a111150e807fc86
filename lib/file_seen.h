/* file_seen: whether a file is another than when it was last looked at.
 *
 * Its time of change alone does not tell: tools that copy files set it to the original's,
 * and images and packages set it to one that is always the same.  So the inode is compared, too,
 * and the time of the inode's own change, which nobody sets.
 *
 * Threads: the caller's. */
#ifndef FILE_SEEN_H
#define FILE_SEEN_H

#include <stdbool.h>
#include <sys/stat.h>

/* Zeros at first: every file is new. */
struct file_seen {
    struct stat st;
    bool settled; /* its clock has gone on since: another change would show */
};

/* 0, or an errno: there is no such file, and '*is_new' is false. */
int file_seen_look(struct file_seen *, const char *name, bool *is_new);

#endif
