/* lab_cmd: "weft lab": up, run, exec, status, down.
 *
 * Each takes what follows its name and returns an exit code (cli_cmd.h).
 * Single-threaded. */
#ifndef LAB_CMD_H
#define LAB_CMD_H

#include <stdbool.h>
#include <stddef.h>

#include "cli_opt.h"
#include "lab.h"

int lab_main(int argc, char **argv);
int lab_up_main(int argc, char **argv);
int lab_run_main(int argc, char **argv);
int lab_down_main(int argc, char **argv);
int lab_exec_main(int argc, char **argv);
int lab_status_main(int argc, char **argv);

/* Which lab: --name and --dir, common to all commands. */
struct lab_where {
    const char *name, *dir;
};
#define LAB_WHERE_OPTIONS(w)                                                                       \
    {"name", CLI_STRING, &(w)->name, "NAME", "which lab; prefix of its namespaces (weft)"},        \
    {                                                                                              \
        "dir", CLI_STRING, &(w)->dir, "DIR",                                                       \
            "its directory (/run/weft-lab, or /run/weft-lab-NAME)"                                 \
    }
/* Checks them and fills in 'name' and 'dir' of the configuration. */
int lab_where_resolve(const struct lab_where *, struct lab_config *, char *why, size_t why_size);

/* Parses options as all lab commands do: 0 to go on, else '*exit_code' is set
 * (help printed, or what is wrong). */
bool lab_cmd_options(const char *command, const char *usage, const char *examples,
                     const struct cli_opt *, size_t n, int *argc, char ***argv, int *exit_code);
/* "weft lab COMMAND: why" to stderr; returns CLI_FAILED. */
int lab_cmd_failed(const char *command, const char *why);
/* The lab commands need root: CLI_FAILED with a line, or 0. */
int lab_cmd_root(const char *command);

/* A lab takes this long to go at most, guests and switches closing cleanly. */
#define LAB_DOWN_TIMEOUT_MS 30000

/* Ends the lab in 'dir', alive or dead.  ENOENT if there is none. */
int lab_end(const char *dir, char *why, size_t why_size);
/* Clears what the state file in a directory still lists; the caller holds the
 * lock.  ENOENT if there is no state file. */
struct lab_swept;
int lab_sweep_leftover(const char *dir, struct lab_swept *, char *why, size_t why_size);

#endif
