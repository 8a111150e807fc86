/* cli_cmd: tables of subcommands.
 *
 * "weft NOUN VERB": each noun is one table of verbs, so that a new noun is
 * one line in main_weft.c.  Exit codes: CLI_OK, CLI_FAILED (the thing asked
 * for did not work out), CLI_USAGE (it was not asked for rightly). */
#ifndef CLI_CMD_H
#define CLI_CMD_H

#include <stddef.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

struct cli_cmd {
    const char *name;
    const char *summary;
    /* 'argv' starts behind the command's name. */
    int (*run)(int argc, char **argv);
};

struct cli_group {
    const char *prefix;   /* "weft lab" */
    const char *about;    /* one sentence */
    const char *examples; /* lines, indented, ended by newlines */
    const struct cli_cmd *cmds;
    size_t n_cmds;
};

/* Runs the command that argv[0] names, or prints the group's help. */
int cli_dispatch(const struct cli_group *, int argc, char **argv);

/* Prints "PREFIX: why" and where to find help; returns CLI_USAGE. */
int cli_usage_error(const char *prefix, const char *why);

#endif
