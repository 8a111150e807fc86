/* The lab's model, state file, lock and processes, and the option parser. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "cli_opt.h"
#include "lab.h"
#include "lab_proc.h"
#include "lab_sweep.h"

static char dir[] = "/tmp/test_lab.XXXXXX";

/* --- options ---------------------------------------------------------------- */

static struct {
    bool flag;
    unsigned number;
    const char *text;
} opt;

static const struct cli_opt opts[] = {
    {"flag", CLI_FLAG, &opt.flag, NULL, ""},
    {"number", CLI_UINT, &opt.number, "N", "", 2, 9},
    {"text", CLI_STRING, &opt.text, "T", ""},
};

/* Parses the words of 'text'; returns how many operands are left, or -errno. */
static int
parse(const char *text, char *why)
{
    static char line[100]; /* what the options point into */
    char *words[8], **argv = words;
    int argc = 0, error;

    memset(&opt, 0, sizeof opt);
    why[0] = '\0';
    snprintf(line, sizeof line, "%s", text);
    for (char *w = strtok(line, " "); w; w = strtok(NULL, " ")) {
        words[argc++] = w;
    }
    error = cli_parse(opts, 3, &argc, &argv, why, 200);
    return error ? -error : argc;
}

static void
test_options(void)
{
    char why[200];

    CASE("options");
    CHECK(parse("--flag --number=3 --text a b", why) == 1);
    CHECK(opt.flag && opt.number == 3 && !strcmp(opt.text, "a"));
    CHECK(parse("--number 9 -- --flag", why) == 1 && !opt.flag && opt.number == 9);
    CHECK(parse("a --flag", why) == 2 && !opt.flag);
    CHECK(parse("--help", why) == -ECANCELED);
    CHECK(parse("--number 10", why) == -EINVAL && strstr(why, "from 2 to 9"));
    CHECK(parse("--number -3", why) == -EINVAL);
    CHECK(parse("--number 3x", why) == -EINVAL);
    CHECK(parse("--number 99999999999999999999", why) == -EINVAL);
    CHECK(parse("--number", why) == -EINVAL && strstr(why, "needs a value"));
    CHECK(parse("--flag=1", why) == -EINVAL);
    CHECK(parse("--nubmer 3", why) == -EINVAL && strstr(why, "--number?"));
    CHECK(parse("--zzzzzzzzzzzz", why) == -EINVAL && !strstr(why, "mean"));
}

/* --- the model --------------------------------------------------------------- */

static struct lab_config
config(unsigned hosts, unsigned guests)
{
    struct lab_config c = {.name = "t",
                           .n_hosts = hosts,
                           .guests_per_host = guests,
                           .datapath = "netdev",
                           .vlans = {10, 20},
                           .n_vlans = 2};

    snprintf(c.dir, sizeof c.dir, "%s", dir);
    return c;
}

static void
test_model(void)
{
    struct lab_config c = config(LAB_MAX_HOSTS, LAB_MAX_GUESTS);
    struct lab *lab = lab_new(&c);
    bool unique = true;

    CASE("model");
    CHECK(lab && lab->n_guests == LAB_MAX_HOSTS * LAB_MAX_GUESTS);
    for (unsigned i = 0; i < lab->n_guests; i++) {
        for (unsigned j = i + 1; j < lab->n_guests; j++) {
            unique &= strcmp(lab->guests[i].ip, lab->guests[j].ip) != 0;
            unique &= strcmp(lab->guests[i].mac, lab->guests[j].mac) != 0;
            unique &= strcmp(lab->guests[i].netns.name, lab->guests[j].netns.name) != 0;
        }
    }
    CHECK(unique);
    CHECK(lab_find_guest(lab, "g1") == &lab->guests[0]);
    CHECK(lab_find_guest(lab, "t-g2") == &lab->guests[1]);
    CHECK(!lab_find_guest(lab, "g0") && !lab_find_guest(lab, "h1"));
    CHECK(lab_find_host(lab, "h16") == &lab->hosts[15] && !lab_find_host(lab, "h17"));
    CHECK(lab_same_network(&lab->guests[0], &lab->guests[2]));
    CHECK(!lab_same_network(&lab->guests[0], &lab->guests[1]));
    CHECK(lab->guests[LAB_MAX_GUESTS].domid == 1 && lab->guests[LAB_MAX_GUESTS].host == 1);
    lab_free(lab);
}

/* --- the state file ------------------------------------------------------------ */

static void
write_state(const char *text)
{
    char path[LAB_PATH_MAX];
    FILE *f;

    lab_path(path, sizeof path, dir, "state.json");
    f = fopen(path, "we");
    fputs(text, f);
    fclose(f);
}

static void
test_state(void)
{
    struct lab_config c = config(2, 3);
    struct lab *lab = lab_new(&c), *read = NULL;
    char why[300];

    CASE("state");
    CHECK(lab_load(dir, &read, why, sizeof why) == ENOENT);
    lab->phase = LAB_UP;
    lab->since = 12345;
    lab->guests[4].netfront.pid = 77;
    lab->guests[4].netfront.start = 1ULL << 40;
    lab->hosts[1].vswitchd.restarts = 3;
    lab->hosts[0].netns.inode = 4026531999;
    CHECK(lab_save(lab) == 0);
    CHECK(lab_load(dir, &read, why, sizeof why) == 0);
    CHECK(read->phase == LAB_UP && read->since == 12345 && read->n_guests == 6);
    CHECK(read->guests[4].netfront.pid == 77 && read->guests[4].netfront.start == 1ULL << 40);
    CHECK(read->hosts[1].vswitchd.restarts == 3 && read->hosts[0].netns.inode == 4026531999);
    CHECK(read->guests[1].vlan == 20 && !strcmp(read->wire.name, "t-wire"));
    lab_free(read);
    lab_free(lab);

    CASE("state-malformed");
    static const char *const bad[] = {
        "", "{", "[]", "{\"format\":2}", "{\"format\":1}", "{\"format\":1,\"config\":{}}"};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_state(bad[i]);
        CHECK(lab_load(dir, &read, why, sizeof why) == EINVAL);
    }
}

static void
test_lock(void)
{
    char why[300];
    int fd, other;

    CASE("lock");
    CHECK(lab_lock(dir, 0, &fd, why, sizeof why) == 0);
    CHECK(lab_lock(dir, 0, &other, why, sizeof why) == EWOULDBLOCK);
    CHECK(lab_lock(dir, 1, &other, why, sizeof why) == EWOULDBLOCK);
    close(fd);
    CHECK(lab_lock(dir, 0, &other, why, sizeof why) == 0);
    close(other);
}

/* --- processes ------------------------------------------------------------------- */

static void
test_processes(void)
{
    struct lab_config c = config(1, 0);
    struct lab *lab = lab_new(&c);
    const char *argv[] = {"sleep", "100", NULL};
    struct lab_spawn spawn = {
        .program = "sleep", .argv = argv, .netns_fd = -1, .stdout_fd = -1, .pass_fd = -1};
    struct lab_proc *p = &lab->hosts[0].ovsdb, stranger;
    char how[80];
    int status;

    CASE("process");
    CHECK(lab_proc_spawn(lab, p, &spawn) == 0 && lab_proc_alive(p));

    /* The same pid with another start time is another process. */
    stranger = *p;
    stranger.pidfd = -1;
    stranger.start++;
    CHECK(!lab_proc_alive(&stranger));
    lab_proc_signal(&stranger, SIGKILL);
    CHECK(lab_proc_alive(p) && !lab_proc_reap(p, &status));

    CHECK(lab_proc_end(&p, 1, SIGTERM, 5000) == 0 && p->pid == 0);

    argv[0] = spawn.program = "no-such-program";
    CHECK(lab_proc_spawn(lab, p, &spawn) == ENOENT && p->pid == 0);
    lab_proc_describe(W_EXITCODE(3, 0), how, sizeof how);
    CHECK(!strcmp(how, "exited with status 3"));
    lab_proc_describe(SIGKILL, how, sizeof how);
    CHECK(strstr(how, "signal 9"));
    lab_free(lab);
}

/* Whoever starts a process and dies takes it along, whatever it was doing. */
static void
test_orphans(void)
{
    struct lab_config c = config(1, 0);
    const char *argv[] = {"sleep", "100", NULL};
    struct lab_spawn spawn = {
        .program = "sleep", .argv = argv, .netns_fd = -1, .stdout_fd = -1, .pass_fd = -1};
    struct lab *read;
    struct lab_proc *left;
    char why[300];
    pid_t starter;

    CASE("orphan");
    starter = fork();
    if (starter == 0) {
        struct lab *lab = lab_new(&c);
        _exit(lab_proc_spawn(lab, &lab->hosts[0].ovsdb, &spawn));
    }
    waitpid(starter, NULL, 0);
    CHECK(lab_load(dir, &read, why, sizeof why) == 0);
    left = &read->hosts[0].ovsdb;
    CHECK(left->pid > 1);
    CHECK(lab_proc_end(&left, 1, 0, 5000) == 0);
    lab_free(read);
}

int
main(void)
{
    if (!mkdtemp(dir)) {
        return 1;
    }
    test_options();
    test_model();
    test_state();
    test_lock();
    test_processes();
    test_orphans();
    char path[LAB_PATH_MAX];
    lab_path(path, sizeof path, dir, "state.json");
    unlink(path);
    lab_sweep_lock(dir);
    return check_done();
}
