/* flow_cmd: "weft flow list|top|graph ...": recorded flows, from weft-flowd.
 *
 * Each takes what follows its name and returns an exit code (cli_cmd.h).
 * Single-threaded. */
#ifndef FLOW_CMD_H
#define FLOW_CMD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cli_cmd.h"
#include "cli_opt.h"
#include "cli_term.h"
#include "pool_client.h"

int flow_main(int argc, char **argv);

/* --- what the commands share (flow_cmd.c) ---------------------------------------- */

struct flow_cli {
    char prefix[40]; /* "weft flow top", for messages */
    struct pool_where where;
    const char *last, *from, *to, *metric;
    bool json, csv, no_color;
    char filter[2100]; /* the operands, with blanks between */
    struct pool_client *client;
};

/* Parses 'argv' with the common options and 'more'; connects.  False: '*exit_code'
 * is set. */
bool flow_cli_open(struct flow_cli *, const char *verb, const char *about, const char *examples,
                   const struct cli_opt *more, size_t n_more, int argc, char **argv,
                   int *exit_code);
/* Without a command line: weft-flowd is where the environment says.  False: why is said. */
bool flow_cli_begin(struct flow_cli *, const char *prefix);
void flow_cli_close(struct flow_cli *);
/* "name=value" pairs up to a NULL name, and those of the common options; a NULL
 * value leaves its name out.  malloc'ed. */
char *flow_cli_query(const struct flow_cli *, const char *const pairs[][2]);
/* The answer, or NULL: what is wrong is said (a filter's error with a caret). */
json_t *flow_cli_ask(struct flow_cli *, const char *path, const char *const pairs[][2]);
/* Says that there are none. */
void flow_cli_none(const struct flow_cli *);
/* After a refusal; CLI_FAILED. */
int flow_cli_refused(struct flow_cli *);
int flow_cli_failed(const struct flow_cli *, const char *why);

/* --- flow_table.c ------------------------------------------------------------------- */

enum flow_form {
    FLOW_TEXT,
    FLOW_TIME,  /* ms since 1970 */
    FLOW_BYTES, /* 1.5 MB */
    FLOW_COUNT, /* 12.3 k */
    FLOW_INT,
};

struct flow_field {
    const char *key, *title;
    enum flow_form form;
};

enum { FLOW_FIELDS_MAX = 24 };
/* A column for each field, of 'rows' an array of objects. */
void flow_print_table(const struct flow_field *, size_t n, const json_t *rows);
/* RFC 4180, numbers as they are; the keys as a header, one object, all of an array with a header.
 */
void flow_print_csv_header(const char *const *keys, size_t n);
void flow_print_csv(const char *const *keys, size_t n, const json_t *row);
void flow_print_csv_rows(const char *const *keys, size_t n, const json_t *rows);
/* Appends to the stream, without control characters. */
void flow_put_text(FILE *, const char *);
/* "1.5 MB", "12.3 k"; 'unit' "B" or "". */
const char *flow_human(double v, const char *unit, char text[24]);

/* What a record has, for CSV. */
extern const char *const flow_record_keys[];
extern const size_t n_flow_record_keys;

/* --- the commands ---------------------------------------------------------------------- */

int flow_list_main(int argc, char **argv);
int flow_top_main(int argc, char **argv);
int flow_why_main(int argc, char **argv);
int flow_matrix_main(int argc, char **argv);
int flow_graph_main(int argc, char **argv);
int flow_watch_main(int argc, char **argv);
int flow_status_main(int argc, char **argv);
int flow_help_main(int argc, char **argv);

/* The connections of the last TIME ("24h") as POST /v1/shadow takes them, most
 * frequent first, at most 10,000; NULL: why is said. */
json_t *flow_stored(const char *prefix, const char *last);

/* The SVG of an answer of /v1/series. */
void flow_svg(FILE *, const json_t *series, const char *title);

#endif
