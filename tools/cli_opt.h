/* cli_opt: long options from a table, with ranges, help and "did you mean".
 *
 * Options are "--name", "--name VALUE" or "--name=VALUE"; parsing ends at the
 * first operand or after "--".  Not thread-safe; strings stored are those of
 * argv and live as long. */
#ifndef CLI_OPT_H
#define CLI_OPT_H

#include <stdbool.h>
#include <stddef.h>

enum cli_kind {
    CLI_FLAG,   /* 'to' is a bool *, becomes true */
    CLI_UINT,   /* 'to' is an unsigned *, within min..max */
    CLI_STRING, /* 'to' is a const char ** */
    CLI_LIST,   /* 'to' is a struct cli_list *; the option may be repeated */
};

struct cli_list {
    const char *v[16];
    size_t n;
};

struct cli_opt {
    const char *name; /* without the dashes */
    enum cli_kind kind;
    void *to;
    const char *arg; /* the value's name in the help; NULL for a flag */
    const char *help;
    unsigned min, max; /* CLI_UINT */
};

/* Takes options off the front of '*argc', '*argv' (which start behind the
 * command's name).  Returns 0, ECANCELED if --help was among them, or EINVAL
 * with a sentence in 'why'. */
int cli_parse(const struct cli_opt *, size_t n, int *argc, char ***argv, char *why,
              size_t why_size);

/* One line for each option, to stdout. */
void cli_print_options(const struct cli_opt *, size_t n);

/* The one of 'n' names (at 'stride' bytes from each other, starting at
 * 'names') that 'word' most likely meant, or NULL. */
const char *cli_nearest(const char *word, const char *const *names, size_t n, size_t stride);

#endif
