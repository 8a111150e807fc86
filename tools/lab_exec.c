/* "weft lab exec GUEST|HOST -- CMD...": becomes the command, inside. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_cmd.h"
#include "lab_build.h"
#include "lab_cmd.h"
#include "lab_manage.h"
#include "lab_netns.h"
#include "lab_proc.h"
#include "lab_sweep.h"
#include "lab_xapid.h"

/* The names that a lab knows, for the one who mistyped. */
static int
unknown_name(const struct lab *lab, const char *name)
{
    fprintf(stderr, "weft lab exec: there is no \"%.40s\"; hosts are h1 to h%u", name,
            lab->config.n_hosts);
    if (lab->n_guests) {
        fprintf(stderr, ", guests g1 to g%u", lab->n_guests);
    }
    fputc('\n', stderr);
    return CLI_USAGE;
}

/* Our own programs first, so that ovs-vsctl is the one that fits. */
static void
set_environment(const struct lab *lab, const char *dir)
{
    static struct lab_env env;
    const char *path = getenv("PATH");
    char full[4096];

    snprintf(full, sizeof full, "%s:%s", lab->config.bin,
             path ? path : "/usr/sbin:/usr/bin:/sbin:/bin");
    setenv("PATH", full, 1);
    if (dir) {
        lab_env_of(dir, &env);
        for (unsigned i = 0; env.vars[i]; i++) {
            putenv((char *)env.vars[i]);
        }
    }
}

static void
set_controller(const struct lab *lab)
{
    static struct lab_xapid_env env;

    if (lab->n_cells) {
        lab_xapid_environment(lab, &env);
    } else {
        lab_manage_environment(lab, &env.manage);
    }
    for (unsigned i = 0; i < LAB_MANAGE_N_ARGS; i++) {
        putenv(env.manage.text[i]);
    }
    if (lab->n_cells) {
        putenv(env.xapi);
    }
}

static int
enter(const struct lab_netns *ns, const char *hostname)
{
    int fd = lab_netns_open(ns);
    int error = fd < 0 ? errno : lab_netns_join(fd);

    if (fd >= 0) {
        close(fd);
    }
    if (!error && (unshare(CLONE_NEWUTS) || sethostname(hostname, strlen(hostname)))) {
        error = errno;
    }
    return error;
}

static int
run_inside(struct lab *lab, const char *name, char **command)
{
    struct lab_host *host = lab_find_host(lab, name);
    struct lab_guest *guest = host ? NULL : lab_find_guest(lab, name);
    /* The controller's namespace, the pool's files, a certificate. */
    bool pool = lab->config.pool && !strcmp(name, "pool");
    char *shell[] = {getenv("SHELL") ? getenv("SHELL") : "/bin/sh", NULL};
    char **argv = command[0] ? command : shell;
    char why[160];
    int error;

    if (!host && !guest && !pool) {
        return unknown_name(lab, name);
    }
    error = lab_exec_register(lab->config.dir);
    if (!error) {
        error = enter(host    ? &host->netns
                      : guest ? &guest->netns
                              : &lab->pool.netns,
                      host    ? host->name
                      : guest ? guest->name
                              : "pool");
    }
    if (error) {
        snprintf(why, sizeof why, "cannot enter %s: %s", name, strerror(error));
        return lab_cmd_failed("exec", why);
    }
    set_environment(lab, host ? host->dir : pool ? lab->pool.dir : NULL);
    if (pool) {
        set_controller(lab);
    }
    execvp(argv[0], argv);
    error = errno;
    snprintf(why, sizeof why, "cannot run %.80s: %s", argv[0], strerror(error));
    lab_cmd_failed("exec", why);
    return error == ENOENT ? 127 : 126;
}

static bool
take_options(struct lab_where *where, int *argc, char ***argv, int *code)
{
    const struct cli_opt opts[] = {LAB_WHERE_OPTIONS(where)};

    return lab_cmd_options(
        "exec", "[OPTION...] GUEST|HOST|pool [--] [CMD...]",
        "  weft lab exec g1 -- ping -c 3 10.0.0.3\n"
        "  weft lab exec h1 -- ovs-ofctl dump-flows xenbr0\n"
        "  weft lab exec g1                            a shell in the guest\n"
        "  weft lab exec pool -- weft status           with --pool: ask the controller\n",
        opts, sizeof opts / sizeof opts[0], argc, argv, code);
}

int
lab_exec_main(int argc, char **argv)
{
    struct lab_where where = {0};
    struct lab_config config = {0};
    const char *name;
    struct lab *lab;
    char why[400];
    int code;

    if (!take_options(&where, &argc, &argv, &code)) {
        return code;
    }
    if (argc == 0) {
        return cli_usage_error("weft lab exec", "in which guest or host?");
    }
    name = *argv++;
    argc--;
    /* No command begins with a dash: what does are options behind the name. */
    if (!take_options(&where, &argc, &argv, &code)) {
        return code;
    }
    if (lab_where_resolve(&where, &config, why, sizeof why)) {
        return cli_usage_error("weft lab exec", why);
    }
    if (lab_cmd_root("exec")) {
        return CLI_FAILED;
    }
    code = lab_load(config.dir, &lab, why, sizeof why);
    if (code) {
        return lab_cmd_failed("exec", code == ENOENT ? "no lab is up: weft lab up" : why);
    }
    if (!lab_proc_alive(&lab->supervisor)) {
        return lab_cmd_failed("exec", "the lab is dead (its supervisor is gone): weft lab down");
    }
    code = run_inside(lab, name, argv);
    lab_free(lab);
    return code;
}
