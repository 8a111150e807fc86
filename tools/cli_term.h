/* cli_term: what the terminal on stdout can do, and redrawing in place.
 *
 * Single-threaded.  On anything but a terminal every function degrades to
 * plain lines without escape sequences. */
#ifndef CLI_TERM_H
#define CLI_TERM_H

#include <stdbool.h>
#include <stddef.h>

struct term {
    bool tty;   /* redraw in place */
    bool color; /* tty, and neither NO_COLOR nor --no-color */
    bool utf8;
    unsigned rows, cols;
    unsigned drawn; /* lines of the frame on screen now */
};

void term_open(struct term *, bool no_color);
/* Reads the window's size again (after SIGWINCH). */
void term_resize(struct term *);

/* Escape sequences, empty without color. */
const char *term_green(const struct term *);
const char *term_red(const struct term *);
const char *term_dim(const struct term *);
const char *term_bold(const struct term *);
const char *term_off(const struct term *);

/* Draws 'text' (lines) over the frame drawn before, cut to the window. */
void term_frame(struct term *, const char *text);
/* Leaves the frame where it is; what is printed next goes below. */
void term_frame_end(struct term *);
/* Removes the frame, so that a line can be printed above the next one. */
void term_frame_clear(struct term *);

#endif
