/* weft-localxen: the memory-backed stand-in for Xen (hv/local.h) as a daemon. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "hv/local_broker.h"

struct options {
    const char *dir;
    int ready_fd; /* -1 if not wanted */
    bool verbose;
};

static void
usage(FILE *to)
{
    fputs("weft-localxen: plays the hypervisor for Weft on any Linux machine\n"
          "\n"
          "usage: weft-localxen --dir DIR [--ready-fd N] [-v]\n"
          "\n"
          "  --dir DIR       serve in DIR (made if missing; what a dead one left is reused):\n"
          "                    DIR/xenstored       xenstore with dom0's rights\n"
          "                    DIR/domN-xenstored  xenstore with domain N's rights\n"
          "                    DIR/broker          domains, grants, event channels\n"
          "  --ready-fd N    write a line to descriptor N, and close it, once serving\n"
          "  -v, --verbose   say what domains come and go\n"
          "  -h, --help      this text\n"
          "\n"
          "Backends open it as \"local:DIR\".  For xenstore's tools:\n"
          "  XENSTORED_PATH=DIR/xenstored xenstore-ls\n"
          "Ends cleanly on SIGTERM and SIGINT.\n",
          to);
}

static struct options
parse(int argc, char **argv)
{
    static const struct option longs[] = {
        {"dir", required_argument, NULL, 'd'},
        {"ready-fd", required_argument, NULL, 'r'},
        {"verbose", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options o = {.ready_fd = -1};
    char *end;
    int c;

    while ((c = getopt_long(argc, argv, "vh", longs, NULL)) != -1) {
        switch (c) {
        case 'd':
            o.dir = optarg;
            break;
        case 'r':
            o.ready_fd = strtol(optarg, &end, 10);
            if (*end || end == optarg || o.ready_fd < 0) {
                fprintf(stderr, "weft-localxen: --ready-fd wants a descriptor's number\n");
                exit(2);
            }
            break;
        case 'v':
            o.verbose = true;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            fprintf(stderr, "Try weft-localxen --help.\n");
            exit(2);
        }
    }
    if (!o.dir || optind < argc) {
        fprintf(stderr, "weft-localxen: %s\nTry weft-localxen --help.\n",
                o.dir ? "too many arguments" : "--dir is missing");
        exit(2);
    }
    return o;
}

int
main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    struct local_broker *broker;
    char why[512];
    sigset_t stops;
    int error, stop_fd;

    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM);
    sigaddset(&stops, SIGINT);
    sigprocmask(SIG_BLOCK, &stops, NULL);
    stop_fd = signalfd(-1, &stops, SFD_CLOEXEC);
    if (stop_fd < 0) {
        fprintf(stderr, "weft-localxen: signalfd: %s\n", strerror(errno));
        return 1;
    }
    if (local_broker_open(o.dir, o.verbose, &broker, why, sizeof why)) {
        fprintf(stderr, "weft-localxen: %s\n", why);
        return 1;
    }
    if (o.ready_fd >= 0) {
        if (write(o.ready_fd, "ready\n", 6) != 6) {
            fprintf(stderr, "weft-localxen: --ready-fd %d: %s\n", o.ready_fd, strerror(errno));
        }
        close(o.ready_fd);
    }
    error = local_broker_run(broker, stop_fd);
    if (error) {
        fprintf(stderr, "weft-localxen: %s\n", strerror(error));
    }
    local_broker_close(broker);
    return error != 0;
}
