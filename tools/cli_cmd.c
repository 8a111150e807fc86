#include "cli_cmd.h"

#include <stdio.h>
#include <string.h>

#include "cli_opt.h"

static void
print_help(const struct cli_group *g)
{
    int width = 10;

    for (size_t i = 0; i < g->n_cmds; i++) {
        int n = (int)strlen(g->cmds[i].name);
        width = n > width ? n : width;
    }
    printf("%s: %s\n\nUsage: %s COMMAND [OPTION...]\n\nCommands:\n", g->prefix, g->about,
           g->prefix);
    for (size_t i = 0; i < g->n_cmds; i++) {
        printf("  %-*s %s\n", width, g->cmds[i].name, g->cmds[i].summary);
    }
    printf("\nExamples:\n%s\n%s COMMAND --help says more about a command.\n", g->examples,
           g->prefix);
}

int
cli_usage_error(const char *prefix, const char *why)
{
    fprintf(stderr, "%s: %s\n%s --help shows how it is used\n", prefix, why, prefix);
    return CLI_USAGE;
}

int
cli_dispatch(const struct cli_group *g, int argc, char **argv)
{
    char why[160];
    const char *near;

    if (argc > 0 &&
        (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h") || !strcmp(argv[0], "help"))) {
        print_help(g);
        return CLI_OK;
    }
    if (argc == 0) {
        return cli_usage_error(g->prefix, "which command?");
    }
    for (size_t i = 0; i < g->n_cmds; i++) {
        if (!strcmp(argv[0], g->cmds[i].name)) {
            return g->cmds[i].run(argc - 1, argv + 1);
        }
    }
    near = cli_nearest(argv[0], &g->cmds[0].name, g->n_cmds, sizeof g->cmds[0]);
    if (near) {
        snprintf(why, sizeof why, "unknown command \"%.40s\"; did you mean \"%s\"?", argv[0], near);
    } else {
        snprintf(why, sizeof why, "unknown command \"%.40s\"", argv[0]);
    }
    return cli_usage_error(g->prefix, why);
}
