#include "cli_term.h"

#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

void
term_resize(struct term *t)
{
    struct winsize ws;

    t->rows = 24;
    t->cols = 80;
    if (t->tty && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) && ws.ws_row > 2 && ws.ws_col > 20) {
        t->rows = ws.ws_row;
        t->cols = ws.ws_col;
    }
}

void
term_open(struct term *t, bool no_color)
{
    const char *kind = getenv("TERM");
    const char *no = getenv("NO_COLOR");

    memset(t, 0, sizeof *t);
    setlocale(LC_CTYPE, "");
    t->tty = isatty(STDOUT_FILENO) && kind && strcmp(kind, "dumb") != 0;
    t->color = t->tty && !no_color && !(no && *no);
    t->utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
    term_resize(t);
}

const char *
term_green(const struct term *t)
{
    return t->color ? "\033[32m" : "";
}

const char *
term_red(const struct term *t)
{
    return t->color ? "\033[31m" : "";
}

const char *
term_dim(const struct term *t)
{
    return t->color ? "\033[2m" : "";
}

const char *
term_bold(const struct term *t)
{
    return t->color ? "\033[1m" : "";
}

const char *
term_off(const struct term *t)
{
    return t->color ? "\033[0m" : "";
}

/* Prints one line without its newline, cut to the window's width.  Escape
 * sequences and UTF-8 continuation bytes take no column. */
static void
put_line(const struct term *t, const char *line, size_t len)
{
    unsigned column = 0;

    for (size_t i = 0; i < len; i++) {
        if (line[i] == '\033') {
            while (i < len && line[i] != 'm') {
                putchar(line[i++]);
            }
            putchar('m');
            continue;
        }
        if (((unsigned char)line[i] & 0xc0) != 0x80 && ++column >= t->cols) {
            break;
        }
        putchar(line[i]);
    }
    printf("%s\033[K", term_off(t));
}

void
term_frame(struct term *t, const char *text)
{
    unsigned drawn = 0;

    if (!t->tty) {
        fputs(text, stdout);
        fflush(stdout);
        return;
    }
    if (t->drawn) {
        printf("\033[%uA\r", t->drawn);
    }
    while (*text && drawn + 1 < t->rows) {
        size_t len = strcspn(text, "\n");
        put_line(t, text, len);
        putchar('\n');
        drawn++;
        text += len + (text[len] == '\n');
    }
    fputs("\033[J", stdout);
    t->drawn = drawn;
    fflush(stdout);
}

void
term_frame_end(struct term *t)
{
    t->drawn = 0;
}

void
term_frame_clear(struct term *t)
{
    if (t->drawn) {
        printf("\033[%uA\r\033[J", t->drawn);
        t->drawn = 0;
    }
}
