/* weft: the command line for all of Weft. */
#include <stdio.h>
#include <string.h>

#include "cli_cmd.h"
#include "lab_cmd.h"

static int
version(int argc, char **argv)
{
    puts("weft 0.1");
    return CLI_OK;
}

static const struct cli_cmd commands[] = {
    {"lab", "hosts and guests on this machine, for tests and trying out", lab_main},
    {"version", "print the version", version},
};

static const struct cli_group weft = {
    .prefix = "weft",
    .about = "the network half of a virtualization pool",
    .examples = "  weft lab up --guests 4 --vlan 10,20    four guests on two VLANs\n"
                "  weft lab exec g1 -- ping 10.0.0.3      run something in a guest\n"
                "  weft lab status                        what is up\n"
                "  weft lab down                          take it all down\n",
    .cmds = commands,
    .n_cmds = sizeof commands / sizeof commands[0],
};

int
main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--version")) {
        return version(0, NULL);
    }
    return cli_dispatch(&weft, argc - 1, argv + 1);
}
