/* lab_tell: the listener's side of what a supervisor tells (lab_super.h).
 *
 * Single-threaded. */
#ifndef LAB_TELL_H
#define LAB_TELL_H

#include <stdbool.h>
#include <stddef.h>

struct lab_tell {
    int fd; /* -1 after the supervisor's end */
    char buf[2048];
    size_t len;
};

void lab_tell_open(struct lab_tell *, int fd);
/* Reads once and hands each whole line to 'line'.  False at the end. */
bool lab_tell_read(struct lab_tell *, void (*line)(void *aux, char kind, const char *text),
                   void *aux);
void lab_tell_close(struct lab_tell *);

#endif
