#include "vm_cmd.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli_opt.h"
#include "cli_term.h"
#include "xapi_client.h"

enum { LOOK_MS = 200 };

static volatile sig_atomic_t interrupted;

/* A command line, parsed, and the session. */
struct vm_cli {
    char prefix[40];
    struct xapi_where where;
    struct xapi_client *client;
    struct term term;
    bool json, no_wait;
    char *told; /* the last line of progress */
    const char *operands[3];
    int n;
};

static int
failed(const struct vm_cli *c, const char *why)
{
    fprintf(stderr, "%s: %s\n", c->prefix, why);
    return CLI_FAILED;
}

/* The name of what has that reference; the caller's.  NULL: it has none, or is gone. */
static char *
name_of(struct vm_cli *c, const char *ref)
{
    static const char *const methods[] = {"VM.get_name_label", "host.get_name_label"};
    char *name = NULL;
    json_t *answer;

    for (size_t i = 0; !name && i < sizeof methods / sizeof methods[0]; i++) {
        if (!xapi_call(c->client, methods[i], json_pack("[s]", ref), &answer)) {
            name = strdup(json_string_value(answer) ? json_string_value(answer) : "");
            json_decref(answer);
        }
    }
    return name;
}

/* What XenAPI says, with names for references. */
static int
failed_call(struct vm_cli *c, const char *what)
{
    enum { UUID_CHARS = 36 };
    static const char prefix[] = "OpaqueRef:";
    char text[700], out[1400], ref[sizeof prefix + UUID_CHARS], *at = text, *found, *name;
    size_t n = 0;

    snprintf(text, sizeof text, "%s", what); /* it is the client's until the next call */
    *out = '\0';
    while ((found = strstr(at, prefix)) && n < sizeof out) {
        snprintf(ref, sizeof ref, "%s", found);
        name = strlen(ref) == sizeof ref - 1 ? name_of(c, ref) : NULL;
        n += (size_t)snprintf(out + n, sizeof out - n, "%.*s%s", (int)(found - at), at,
                              name ? name : ref);
        at = found + strlen(ref);
        free(name);
    }
    if (n < sizeof out) {
        snprintf(out + n, sizeof out - n, "%s", at);
    }
    return failed(c, out);
}

/* --- the command line ------------------------------------------------------------------- */

static int
parse(struct vm_cli *c, const struct cli_opt *opts, size_t n, int argc, char **argv, char *why,
      size_t why_size)
{
    int error = 0;

    while (!error && argc > 0) {
        error = cli_parse(opts, n, &argc, &argv, why, why_size);
        if (!error && argc > 0) {
            if (c->n == 3) {
                snprintf(why, why_size, "\"%.40s\" is too much", *argv);
                return EINVAL;
            }
            c->operands[c->n++] = *argv++;
            argc--;
        }
    }
    return error;
}

/* Parses 'argv', of which so many operands must be left, and logs in.  False:
 * '*code' is what to end with. */
static bool
begin(struct vm_cli *c, const char *command, const char *usage, int operands, const char *examples,
      const struct cli_opt *more, size_t n_more, int argc, char **argv, int *code)
{
    struct cli_opt opts[24] = {
        {"json", CLI_FLAG, &c->json, NULL, "for programs"},
        {"no-wait", CLI_FLAG, &c->no_wait, NULL, "print the task and leave it to itself"},
        XAPI_WHERE_OPTIONS(&c->where),
    };
    size_t n = 7;
    char why[600];
    int error;

    memset(c, 0, sizeof *c);
    snprintf(c->prefix, sizeof c->prefix, "weft %s", command);
    for (size_t i = 0; i < n_more; i++) {
        opts[n++] = more[i];
    }
    error = parse(c, opts, n, argc, argv, why, sizeof why);
    if (error == ECANCELED) {
        printf("Usage: %s %s [OPTION...]\n\nOptions:\n", c->prefix, usage);
        cli_print_options(opts, n);
        printf("\nExamples:\n%s", examples);
        *code = CLI_OK;
        return false;
    }
    if (!error && c->n != operands) {
        snprintf(why, sizeof why, "it takes %s", usage);
        error = EINVAL;
    }
    if (error) {
        *code = cli_usage_error(c->prefix, why);
        return false;
    }
    if (xapi_open(&c->where, &c->client, why, sizeof why)) {
        *code = failed(c, why);
        return false;
    }
    term_open(&c->term, false);
    return true;
}

/* --- a task's way --------------------------------------------------------------------------- */

static void
on_interrupt(int signal)
{
    interrupted = 1;
}

static double
number(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

/* A line for programs, unless it says what the last one said. */
static void
tell(struct vm_cli *c, const json_t *record, const char *phase, const char *stats)
{
    char *line = NULL;

    if (asprintf(&line, "{\"progress\": %.3f, \"phase\": \"%s\", \"stats\": %s}",
                 number(record, "progress"), phase, stats) < 0) {
        return;
    }
    if (!c->told || strcmp(line, c->told) != 0) {
        puts(line);
        fflush(stdout);
    }
    free(c->told);
    c->told = line;
}

static void
show(struct vm_cli *c, const json_t *record)
{
    const json_t *config = json_object_get(record, "other_config");
    const char *text = json_string_value(json_object_get(config, "weft-stats"));
    const char *phase = json_string_value(json_object_get(config, "weft-phase"));
    json_t *stats = text ? json_loads(text, 0, NULL) : NULL;
    char line[300];
    int n;

    n = snprintf(line, sizeof line, "%3.0f %%  %-9s", number(record, "progress") * 100,
                 phase ? phase : "");
    if (json_object_get(stats, "bytes_wire")) {
        n += snprintf(line + n, sizeof line - (size_t)n,
                      "  round %.0f  %.1f MiB sent  %.0f Mb/s  dirty %.0f Mb/s",
                      number(stats, "round"), number(stats, "bytes_wire") / (1 << 20),
                      number(stats, "rate_mbps"), number(stats, "dirty_mbps"));
    }
    /* null: it cannot be said; rounds may not become smaller. */
    if (json_is_number(json_object_get(stats, "eta_s"))) {
        n += snprintf(line + n, sizeof line - (size_t)n, "  left %.0f s", number(stats, "eta_s"));
    }
    if (json_is_number(json_object_get(stats, "expected_blackout_ms"))) {
        snprintf(line + n, sizeof line - (size_t)n, "  blackout about %.0f ms",
                 number(stats, "expected_blackout_ms"));
    }
    if (c->json) {
        tell(c, record, phase ? phase : "", text && stats && !strchr(text, '\n') ? text : "null");
    } else if (c->term.tty) {
        strcat(line, "\n");
        term_frame(&c->term, line);
    }
    json_decref(stats);
}

/* How long each interface was out of reach, and what could not be carried. */
static void
show_vifs(struct vm_cli *c, const json_t *stats)
{
    const char *lost = json_string_value(json_object_get(stats, "lost"));
    const json_t *vif;
    size_t i;

    json_array_foreach(json_object_get(stats, "vifs"), i, vif)
    {
        const char *uuid = json_string_value(json_object_get(vif, "uuid"));
        json_t *ref = NULL, *device = NULL;

        if (!uuid || xapi_call(c->client, "VIF.get_by_uuid", json_pack("[s]", uuid), &ref) ||
            xapi_call(c->client, "VIF.get_device", json_pack("[O]", ref), &device)) {
            printf("  interface %s: ", uuid ? uuid : "");
        } else {
            printf("  interface %s: ", json_string_value(device));
        }
        if (json_object_get(vif, "blackout_ms")) {
            printf("%.1f ms from its last packet there to its first here\n",
                   number(vif, "blackout_ms"));
        } else {
            printf("no packet yet, or not known\n");
        }
        json_decref(device);
        json_decref(ref);
    }
    if (json_is_true(json_object_get(stats, "postcopy"))) {
        printf("  post-copy: %.0f pages followed it\n", number(stats, "postcopy_pages"));
    }
    while (lost && *lost) {
        int n = (int)strcspn(lost, "\n");

        printf("  not carried: %.*s\n", n, lost);
        lost += n + (lost[n] == '\n');
    }
}

static void
show_end(struct vm_cli *c, const json_t *record, bool good)
{
    const json_t *config = json_object_get(record, "other_config");
    const char *text = json_string_value(json_object_get(config, "weft-stats"));
    json_t *stats = text ? json_loads(text, 0, NULL) : NULL;
    bool moved = good && json_object_get(config, "weft-migration");

    if (c->json) {
        json_dumpf(record, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
        putchar('\n');
    } else if (moved && number(stats, "blackout_ms") > 0) {
        const json_t *phases = json_object_get(stats, "phases_ms");

        printf("done: blackout %.1f ms", number(stats, "blackout_ms"));
        if (phases) {
            printf(" (last pages %.1f, state %.1f, commit %.1f)", number(phases, "pause"),
                   number(phases, "final"), number(phases, "commit"));
        }
        putchar('\n');
        show_vifs(c, stats);
    } else if (moved) {
        printf("done: blackout not known\n"); /* who sent it has not heard that it runs */
        show_vifs(c, stats);
    } else if (good) {
        printf("done\n");
    }
    json_decref(stats);
}

/* "CODE: parameter, parameter" of a task's error_info. */
static void
error_text(const json_t *info, char *text, size_t size)
{
    size_t n = 0, i;
    json_t *word;

    snprintf(text, size, "failed");
    json_array_foreach(info, i, word)
    {
        const char *s = json_string_value(word);
        if (s && *s && n < size) {
            n += (size_t)snprintf(text + n, size - n, "%s%.300s", !i ? "" : i > 1 ? ", " : ": ", s);
        }
    }
}

/* Waits for the end; Ctrl-C cancels the task and goes on waiting. */
static int
follow(struct vm_cli *c, const char *task)
{
    struct sigaction act = {.sa_handler = on_interrupt};
    const char *status;
    json_t *record;
    char why[700];
    bool told = false;
    int code;

    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    for (;;) {
        if (xapi_call(c->client, "task.get_record", json_pack("[s]", task), &record)) {
            return failed_call(c, xapi_why(c->client));
        }
        status = json_string_value(json_object_get(record, "status"));
        if (!status || (strcmp(status, "pending") != 0 && strcmp(status, "cancelling") != 0)) {
            break;
        }
        show(c, record);
        json_decref(record);
        if (interrupted && !told) {
            told = true;
            xapi_call(c->client, "task.cancel", json_pack("[s]", task), NULL);
        }
        nanosleep(&(struct timespec){0, LOOK_MS * 1000000L}, NULL);
    }
    term_frame_clear(&c->term);
    code = status && !strcmp(status, "success") ? CLI_OK : CLI_FAILED;
    show_end(c, record, !code);
    free(c->told);
    c->told = NULL;
    if (code) {
        error_text(json_object_get(record, "error_info"), why, sizeof why);
        failed_call(c, status && !strcmp(status, "cancelled") ? "cancelled" : why);
    }
    json_decref(record);
    xapi_call(c->client, "task.destroy", json_pack("[s]", task), NULL);
    return code;
}

/* Calls the method's Async. form; takes 'params'. */
static int
run(struct vm_cli *c, const char *method, json_t *params)
{
    json_t *task = NULL;
    int code;

    if (xapi_call(c->client, method, params, &task)) {
        code = failed_call(c, xapi_why(c->client));
    } else if (c->no_wait) {
        puts(json_string_value(task));
        code = CLI_OK;
    } else {
        code = follow(c, json_string_value(task));
    }
    json_decref(task);
    xapi_close(c->client);
    return code;
}

/* References of the operands' names; NULL: it has been said why not, and the session
 * is closed. */
static char *
find(struct vm_cli *c, const char *class, const char *name)
{
    char *ref = xapi_find(c->client, class, name);

    if (!ref) {
        failed(c, xapi_why(c->client));
        xapi_close(c->client);
    }
    return ref;
}

/* --- the commands ------------------------------------------------------------------------------
 */

static int
start_main(int argc, char **argv)
{
    const char *on = NULL;
    const struct cli_opt more[] = {
        {"on", CLI_STRING, &on, "HOST", "there, instead of where there are fewest"},
    };
    char *vm, *host = NULL;
    json_t *params;
    struct vm_cli c;
    int code;

    if (!begin(&c, "vm start", "VM", 1, "  weft vm start web1\n  weft vm start web1 --on h2\n",
               more, 1, argc, argv, &code)) {
        return code;
    }
    vm = find(&c, "VM", c.operands[0]);
    if (!vm || (on && !(host = find(&c, "host", on)))) {
        free(vm);
        return CLI_FAILED;
    }
    params = on ? json_pack("[s, s, b, b]", vm, host, 0, 0) : json_pack("[s, b, b]", vm, 0, 0);
    code = run(&c, on ? "Async.VM.start_on" : "Async.VM.start", params);
    free(host);
    free(vm);
    return code;
}

static int
shutdown_main(int argc, char **argv)
{
    bool force = false;
    const struct cli_opt more[] = {
        {"force", CLI_FLAG, &force, NULL, "at once, without asking the guest"},
    };
    struct vm_cli c;
    char *vm;
    int code;

    if (!begin(&c, "vm shutdown", "VM", 1,
               "  weft vm shutdown web1\n  weft vm shutdown web1 --force\n", more, 1, argc, argv,
               &code)) {
        return code;
    }
    vm = find(&c, "VM", c.operands[0]);
    if (!vm) {
        return CLI_FAILED;
    }
    code =
        run(&c, force ? "Async.VM.hard_shutdown" : "Async.VM.clean_shutdown", json_pack("[s]", vm));
    free(vm);
    return code;
}

static void
put_number(json_t *options, const char *name, unsigned n)
{
    char text[20];

    if (n) {
        snprintf(text, sizeof text, "%u", n);
        json_object_set_new(options, name, json_string(text));
    }
}

static int
migrate_main(int argc, char **argv)
{
    unsigned limit = 0, cpu = 0, blackout = 0, rounds = 0, connections = 0;
    bool postcopy = false, force = false, offline = false;
    const char *compress = NULL;
    const struct cli_opt more[] = {
        {"limit", CLI_UINT, &limit, "MBPS", "at most so many Mb/s", 1, 1000000},
        {"cpu", CLI_UINT, &cpu, "PERCENT", "of a core, at each end", 1, 100},
        {"max-blackout", CLI_UINT, &blackout, "MS", "pause the guest when it will be less", 1,
         60000},
        {"max-rounds", CLI_UINT, &rounds, "N", "of copying what was written meanwhile", 1, 1000},
        {"connections", CLI_UINT, &connections, "N", "side by side", 1, 64},
        {"compress", CLI_STRING, &compress, "HOW", "auto, none, lz4 or zstd"},
        {"postcopy", CLI_FLAG, &postcopy, NULL, "allow \"weft vm postcopy\" while it moves"},
        {"offline", CLI_FLAG, &offline, NULL, "the guest stands still meanwhile"},
        {"force", CLI_FLAG, &force, NULL, "do not wait for the switch's confirmation"},
    };
    char *vm, *host = NULL;
    json_t *options;
    struct vm_cli c;
    int code;

    if (!begin(&c, "vm migrate", "VM HOST", 2,
               "  weft vm migrate web1 h2\n  weft vm migrate web1 h2 --limit 2000 --postcopy\n"
               "  weft vm migrate web1 h2 --json\nCtrl-C cancels it.\n",
               more, sizeof more / sizeof more[0], argc, argv, &code)) {
        return code;
    }
    vm = find(&c, "VM", c.operands[0]);
    if (!vm || !(host = find(&c, "host", c.operands[1]))) {
        free(vm);
        return CLI_FAILED;
    }
    options = json_pack("{s:s}", "live", offline ? "false" : "true");
    put_number(options, "limit_mbps", limit);
    put_number(options, "cpu_percent", cpu);
    put_number(options, "max_blackout_ms", blackout);
    put_number(options, "max_rounds", rounds);
    put_number(options, "connections", connections);
    if (compress) {
        json_object_set_new(options, "compress", json_string(compress));
    }
    if (postcopy) {
        json_object_set_new(options, "postcopy", json_string("true"));
    }
    if (force) {
        json_object_set_new(options, "force", json_string("true"));
    }
    code = run(&c, "Async.VM.pool_migrate", json_pack("[s, s, o]", vm, host, options));
    free(host);
    free(vm);
    return code;
}

/* The order, no more: who waits for the migration sees what comes of it. */
static int
postcopy_main(int argc, char **argv)
{
    struct vm_cli c;
    int code = CLI_OK;
    char *vm;

    if (!begin(&c, "vm postcopy", "VM", 1,
               "  weft vm migrate web1 h2 --postcopy --no-wait\n  weft vm postcopy web1\n", NULL, 0,
               argc, argv, &code)) {
        return code;
    }
    vm = find(&c, "VM", c.operands[0]);
    if (!vm) {
        return CLI_FAILED;
    }
    if (xapi_call(c.client, "VM.migrate_postcopy", json_pack("[s]", vm), NULL)) {
        code = failed_call(&c, xapi_why(c.client));
    }
    xapi_close(c.client);
    free(vm);
    return code;
}

static int
evacuate_main(int argc, char **argv)
{
    unsigned at_once = 3;
    const struct cli_opt more[] = {
        {"at-once", CLI_UINT, &at_once, "N", "migrations side by side (3)", 1, 32},
    };
    struct vm_cli c;
    char *host;
    int code;

    if (!begin(&c, "host evacuate", "HOST", 1, host_examples, more, 1, argc, argv, &code)) {
        return code;
    }
    host = find(&c, "host", c.operands[0]);
    if (!host) {
        return CLI_FAILED;
    }
    code = run(&c, "Async.host.evacuate",
               json_pack("[s, s, I]", host, "OpaqueRef:NULL", (json_int_t)at_once));
    free(host);
    return code;
}

const struct cli_cmd vm_cmds[] = {
    {"start", "have a host run it", start_main},
    {"shutdown", "end it", shutdown_main},
    {"migrate", "move it to another host while it runs", migrate_main},
    {"postcopy", "have it move now, its memory behind it", postcopy_main},
};
const size_t n_vm_cmds = sizeof vm_cmds / sizeof vm_cmds[0];
const struct cli_cmd host_cmds[] = {
    {"evacuate", "move its VMs to the other hosts", evacuate_main},
};
const size_t n_host_cmds = sizeof host_cmds / sizeof host_cmds[0];

const char vm_examples[] = "  weft vm list\n"
                           "  weft vm start web1 --on h1\n"
                           "  weft vm migrate web1 h2\n"
                           "  weft vm shutdown web1\n";
const char host_examples[] = "  weft host evacuate h1\n  weft host evacuate h1 --at-once 8\n";
