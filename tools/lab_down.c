/* Ending a lab, alive or dead; "weft lab down". */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "cli_cmd.h"
#include "lab_cmd.h"
#include "lab_proc.h"
#include "lab_sweep.h"

static void
print_note(void *aux, const char *line)
{
    printf("note: %s\n", line);
}

int
lab_sweep_leftover(const char *dir, struct lab_swept *swept, char *why, size_t size)
{
    struct lab *lab;
    int error = lab_load(dir, &lab, why, size);

    if (error) {
        return error;
    }
    lab_sweep(lab, false, print_note, NULL, swept);
    if (swept->left) {
        snprintf(why, size, "%u things could not be removed (see above)", swept->left);
        error = EBUSY;
    }
    lab_free(lab);
    return error;
}

/* Tells the supervisor to end and waits for it, killing it if need be. */
static void
end_supervisor(const char *dir)
{
    struct lab_proc *supervisor;
    struct lab *lab;
    char why[200];

    if (lab_load(dir, &lab, why, sizeof why)) {
        return;
    }
    supervisor = &lab->supervisor;
    lab_proc_end(&supervisor, 1, SIGTERM, LAB_DOWN_TIMEOUT_MS);
    lab_free(lab);
}

int
lab_end(const char *dir, char *why, size_t size)
{
    char lock[LAB_PATH_MAX], state[LAB_PATH_MAX];
    struct lab_swept swept = {0};
    int fd, error;

    lab_path(lock, sizeof lock, dir, "lock");
    lab_path(state, sizeof state, dir, "state.json");
    if (access(lock, F_OK) && access(state, F_OK)) {
        snprintf(why, size, "no lab in %s", dir);
        return ENOENT;
    }
    error = lab_lock(dir, 0, &fd, why, size);
    if (error == EWOULDBLOCK) {
        end_supervisor(dir);
        if (access(lock, F_OK) && access(state, F_OK)) {
            return 0;
        }
        error = lab_lock(dir, 10, &fd, why, size);
        if (!error) {
            error = lab_sweep_leftover(dir, &swept, why, size);
            error = error == ENOENT ? 0 : error; /* it went by itself */
        }
    } else if (!error) {
        error = lab_sweep_leftover(dir, &swept, why, size);
        if (!error) {
            printf("what a dead lab left is gone: %u processes, %u namespaces\n", swept.processes,
                   swept.namespaces);
        }
    }
    if (!error || error == ENOENT) {
        lab_sweep_lock(dir);
    }
    return error;
}

int
lab_down_main(int argc, char **argv)
{
    struct lab_where where = {0};
    const struct cli_opt opts[] = {LAB_WHERE_OPTIONS(&where)};
    struct lab_config config = {0};
    char why[400];
    int code, error;

    if (!lab_cmd_options("down", "[--name NAME] [--dir DIR]", "  weft lab down\n", opts,
                         sizeof opts / sizeof opts[0], &argc, &argv, &code)) {
        return code;
    }
    if (argc > 0) {
        return cli_usage_error("weft lab down", "takes options only");
    }
    if (lab_where_resolve(&where, &config, why, sizeof why)) {
        return cli_usage_error("weft lab down", why);
    }
    if (lab_cmd_root("down")) {
        return CLI_FAILED;
    }
    error = lab_end(config.dir, why, sizeof why);
    if (error == ENOENT) {
        printf("no lab is up\n");
        return CLI_OK;
    }
    if (error) {
        return lab_cmd_failed("down", why);
    }
    printf("the lab is down\n");
    return CLI_OK;
}
