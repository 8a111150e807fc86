#include "lab_cmd.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli_cmd.h"
#include "lab_traffic.h"

static const struct cli_cmd commands[] = {
    {"up", "make a lab and leave it running", lab_up_main},
    {"run", "make a lab, watch it live, take it down at the end", lab_run_main},
    {"exec", "run a command in a guest or on a host", lab_exec_main},
    {"status", "what is up", lab_status_main},
    {"traffic", "hold connections to a VM that moves, and check every byte", lab_traffic_main},
    {"down", "take a lab down, or what a crash left of one", lab_down_main},
};

static const struct cli_group lab_group = {
    .prefix = "weft lab",
    .about = "a pool on this machine: hosts and guests are network namespaces",
    .examples = "  weft lab up --guests 4 --vlan 10,20      one host, four guests on two VLANs\n"
                "  weft lab up --hosts 2 --guests 2         two hosts joined by a trunk\n"
                "  weft lab exec g1 -- ping 10.0.0.3\n"
                "  weft lab exec h1 -- ovs-vsctl show\n"
                "  weft lab status --json\n"
                "  weft lab down\n",
    .cmds = commands,
    .n_cmds = sizeof commands / sizeof commands[0],
};

int
lab_main(int argc, char **argv)
{
    return cli_dispatch(&lab_group, argc, argv);
}

bool
lab_cmd_options(const char *command, const char *usage, const char *examples,
                const struct cli_opt *opts, size_t n, int *argc, char ***argv, int *exit_code)
{
    char why[200], prefix[48];
    int error = cli_parse(opts, n, argc, argv, why, sizeof why);

    if (error == ECANCELED) {
        printf("Usage: weft lab %s %s\n\nOptions:\n", command, usage);
        cli_print_options(opts, n);
        printf("\nExamples:\n%s", examples);
        *exit_code = CLI_OK;
    } else if (error) {
        snprintf(prefix, sizeof prefix, "weft lab %s", command);
        *exit_code = cli_usage_error(prefix, why);
    }
    return error == 0;
}

int
lab_cmd_failed(const char *command, const char *why)
{
    fprintf(stderr, "weft lab %s: %s\n", command, why);
    return CLI_FAILED;
}

int
lab_cmd_root(const char *command)
{
    if (geteuid() == 0) {
        return 0;
    }
    return lab_cmd_failed(command, "network namespaces need root; try it with sudo");
}

int
lab_where_resolve(const struct lab_where *w, struct lab_config *c, char *why, size_t why_size)
{
    const char *name = w->name ? w->name : "weft";
    size_t len = strlen(name);
    int n;

    for (size_t i = 0; i < len; i++) {
        if (!islower((unsigned char)name[i]) && !isdigit((unsigned char)name[i])) {
            len = 0;
        }
    }
    if (len < 1 || len >= sizeof c->name) {
        snprintf(why, why_size, "--name takes 1 to %zu lower-case letters and digits",
                 sizeof c->name - 1);
        return EINVAL;
    }
    snprintf(c->name, sizeof c->name, "%s", name);
    if (!w->dir) {
        n = snprintf(c->dir, sizeof c->dir, "/run/weft-lab%s%s", w->name ? "-" : "",
                     w->name ? name : "");
    } else {
        n = snprintf(c->dir, sizeof c->dir, "%s", w->dir);
    }
    if (c->dir[0] != '/' || n > LAB_DIR_MAX) {
        snprintf(why, why_size, "--dir takes an absolute path of at most %d characters",
                 LAB_DIR_MAX);
        return EINVAL;
    }
    while (n > 1 && c->dir[n - 1] == '/') {
        c->dir[--n] = '\0';
    }
    return 0;
}
