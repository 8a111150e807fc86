/* pool_cmd: "weft network|vif|policy|status ...": the pool, through its
 * controller.
 *
 * Each takes what follows its name and returns an exit code (cli_cmd.h).
 * Single-threaded. */
#ifndef POOL_CMD_H
#define POOL_CMD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli_cmd.h"
#include "cli_opt.h"
#include "pool_class.h"
#include "pool_client.h"

int pool_main(int argc, char **argv);
int pool_host_main(int argc, char **argv);
int pool_tenant_main(int argc, char **argv);
int pool_network_main(int argc, char **argv);
int pool_vm_main(int argc, char **argv);
int pool_vif_main(int argc, char **argv);
int pool_group_main(int argc, char **argv);
int pool_policy_main(int argc, char **argv);
int pool_rule_main(int argc, char **argv);
int pool_user_main(int argc, char **argv);
int pool_mirror_main(int argc, char **argv);
int pool_exporter_main(int argc, char **argv);
int pool_bond_main(int argc, char **argv);
int pool_pif_main(int argc, char **argv);
int pool_status_main(int argc, char **argv);
int pool_login_main(int argc, char **argv);
int pool_logout_main(int argc, char **argv);
int pool_session_main(int argc, char **argv);
int pool_trace_main(int argc, char **argv);
int pool_log_main(int argc, char **argv);
int pool_shadow_main(int argc, char **argv);

/* --- what the commands share -------------------------------------------------- */

/* A command line, parsed: options may stand before, between and behind the
 * operands. */
struct pool_args {
    char prefix[60]; /* "weft network add", for messages */
    struct pool_where where;
    bool json, wait;
    unsigned timeout_s; /* for --wait */
    char **operands;    /* in argv */
    int n;
};

enum { POOL_WAIT_S = 60, POOL_CALL_S = 60 };

/* Parses 'argv' with the common options and 'more'.  False: '*exit_code' is set
 * (help was printed, or what is wrong). */
bool pool_args_parse(struct pool_args *, const char *noun, const char *verb, const char *usage,
                     const char *examples, const struct cli_opt *more, size_t n_more, int argc,
                     char **argv, int *exit_code);
/* "PREFIX: why" to stderr; CLI_FAILED. */
int pool_failed(const struct pool_args *, const char *why);
/* NULL: said why. */
struct pool_client *pool_connect(const struct pool_args *);
/* After a failed pool_call(): all that was refused, to stderr; CLI_FAILED. */
int pool_call_failed(const struct pool_args *, struct pool_client *);
/* After a change: waits if --wait, says what there is to say.  Takes 'answer'
 * (of the change; it has "generation", maybe "warnings"). */
int pool_changed(const struct pool_args *, struct pool_client *, json_t *answer);
/* Waits until every connected host has the generation; CLI_OK or CLI_FAILED. */
int pool_wait(const struct pool_args *, struct pool_client *, int64_t generation);
void pool_print_json(const json_t *);

/* --- pool_table.c ----------------------------------------------------------------- */

/* Objects in rows, the class's columns that any of them has something in. */
void pool_print_table(const struct pool_class *, const json_t *objects);
/* One object, a field a line. */
void pool_print_object(const struct pool_class *, const json_t *object);
/* "errors" and "warnings" of a report, one a line; how many. */
size_t pool_print_report(const json_t *report, const char *key, const char *label);
/* A string of somebody else's to stdout, without control characters. */
void pool_print_text(const char *);

/* --- pool_policy.c -------------------------------------------------------------------- */

/* A JSON file; "-" is stdin.  NULL: said why. */
json_t *pool_read_document(const struct pool_args *, const char *file);

extern const struct cli_cmd pool_policy_cmds[];
extern const size_t n_pool_policy_cmds;

#endif
