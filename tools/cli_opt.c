#include "cli_opt.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Levenshtein's distance, capped to words of this length. */
#define WORD_MAX 40u

static unsigned
min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;

    return m < c ? m : c;
}

static unsigned
distance(const char *a, const char *b)
{
    unsigned row[WORD_MAX + 1];
    size_t n_a = strlen(a), n_b = strlen(b);

    if (n_a > WORD_MAX || n_b > WORD_MAX) {
        return UINT_MAX;
    }
    for (size_t j = 0; j <= n_b; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= n_a; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            unsigned above = row[j];
            row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[n_b];
}

const char *
cli_nearest(const char *word, const char *const *names, size_t n, size_t stride)
{
    const char *best = NULL;
    unsigned best_distance = 1 + (unsigned)strlen(word) / 3;

    for (size_t i = 0; i < n; i++) {
        const char *name = *(const char *const *)((const char *)names + i * stride);
        unsigned d = distance(word, name);
        if (d <= best_distance) {
            best_distance = d;
            best = name;
        }
    }
    return best;
}

static const struct cli_opt *
find(const struct cli_opt *opts, size_t n, const char *word, size_t len)
{
    for (size_t i = 0; i < n; i++) {
        if (strlen(opts[i].name) == len && !memcmp(opts[i].name, word, len)) {
            return &opts[i];
        }
    }
    return NULL;
}

static int
unknown(const struct cli_opt *opts, size_t n, const char *word, size_t len, char *why, size_t size)
{
    char name[WORD_MAX + 1];
    const char *near;

    snprintf(name, sizeof name, "%.*s", (int)len, word);
    near = n ? cli_nearest(name, &opts[0].name, n, sizeof opts[0]) : NULL;
    if (near) {
        snprintf(why, size, "unknown option --%s; did you mean --%s?", name, near);
    } else {
        snprintf(why, size, "unknown option --%s; --help lists them", name);
    }
    return EINVAL;
}

static int
store(const struct cli_opt *o, const char *value, char *why, size_t size)
{
    if (o->kind == CLI_FLAG) {
        *(bool *)o->to = true;
    } else if (o->kind == CLI_STRING) {
        *(const char **)o->to = value;
    } else if (o->kind == CLI_LIST) {
        struct cli_list *list = o->to;
        if (list->n == sizeof list->v / sizeof list->v[0]) {
            snprintf(why, size, "too many of --%s: at most %zu", o->name, list->n);
            return EINVAL;
        }
        list->v[list->n++] = value;
    } else {
        char *end;
        errno = 0;
        unsigned long v = strtoul(value, &end, 10);
        if (errno || end == value || *end || !isdigit((unsigned char)*value) || v < o->min ||
            v > o->max) {
            snprintf(why, size, "--%s takes a number from %u to %u, not \"%.40s\"", o->name, o->min,
                     o->max, value);
            return EINVAL;
        }
        *(unsigned *)o->to = (unsigned)v;
    }
    return 0;
}

int
cli_parse(const struct cli_opt *opts, size_t n, int *argc, char ***argv, char *why, size_t why_size)
{
    while (*argc > 0 && (*argv)[0][0] == '-' && (*argv)[0][1]) {
        const char *word = (*argv)[0] + 1;
        --*argc;
        ++*argv;
        if (!strcmp(word, "-")) {
            return 0;
        }
        if (!strcmp(word, "-help") || !strcmp(word, "h")) {
            return ECANCELED;
        }
        word += *word == '-';
        size_t len = strcspn(word, "=");
        const struct cli_opt *o = find(opts, n, word, len);
        const char *value = word[len] ? word + len + 1 : NULL;
        if (!o) {
            return unknown(opts, n, word, len, why, why_size);
        }
        if (o->kind == CLI_FLAG && value) {
            snprintf(why, why_size, "--%s takes no value", o->name);
            return EINVAL;
        }
        if (o->kind != CLI_FLAG && !value) {
            if (*argc == 0) {
                snprintf(why, why_size, "--%s needs a value: --%s %s", o->name, o->name, o->arg);
                return EINVAL;
            }
            value = (*argv)[0];
            --*argc;
            ++*argv;
        }
        int error = store(o, value, why, why_size);
        if (error) {
            return error;
        }
    }
    return 0;
}

void
cli_print_options(const struct cli_opt *opts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char left[48];
        snprintf(left, sizeof left, "--%s%s%s", opts[i].name, opts[i].arg ? " " : "",
                 opts[i].arg ? opts[i].arg : "");
        printf("  %-22s %s\n", left, opts[i].help);
    }
}
