/* weft-domain on a hypervisor with one domain, which the test plays: what becomes of
 * it, also where somebody killed the one that watched. */
#include <sys/wait.h>

int domain_main(int argc, char *argv[]);
#define main domain_main
#include "main_domain.c"
#undef main

#include "check.h"
#include "driver_list.h"
#include "mig_toolstack.h"

#define WATCH "{\"start\":false,\"uuid\":\"" UUID "\",\"epoch\":7" CONFIG
#define START "{\"start\":true,\"uuid\":\"" UUID "\",\"epoch\":7" CONFIG
#define CONFIG                                                                                     \
    ",\"name\":\"g\",\"type\":\"pv\",\"kernel\":\"/dev/null\",\"cmdline\":\"a=b c\","              \
    "\"memory_kb\":65536,\"vcpus\":2,\"tsc_mode\":\"native\",\"vifs\":[{\"device\":3,"             \
    "\"mac\":\"02:00:00:00:00:07\",\"bridge\":\"xenbr0\",\"script\":\"vif-weft\",\"mtu\":1400}]}"

enum { WAIT_MS = 20000 };

/* --- the program -------------------------------------------------------------------------- */

static struct {
    pid_t pid;
    int to, from;
} program;

/* One whose domain an earlier program made, in that epoch. */
static void
begin_with(const char *name, uint64_t key, bool paused, uint64_t cpu_time)
{
    begin(name);
    xen->there = true;
    xen->domid = 9;
    snprintf(xen->name, sizeof xen->name, "g");
    xen->key = key;
    xen->paused = paused;
    xen->cpu_time = cpu_time;
}

static void
tell_program(const char *line)
{
    CHECK(dprintf(program.to, "%s\n", line) > 0);
}

static void
run_program(const char *job)
{
    int in[2], out[2];
    char *argv[] = {"weft-domain", NULL};

    CHECK(!pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC));
    fflush(stdout);
    program.pid = fork();
    if (!program.pid) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        close(in[1]);
        _exit(domain_main(1, argv));
    }
    close(in[0]);
    close(out[1]);
    program.to = in[1];
    program.from = out[0];
    tell_program(job);
}

/* The next line is that event; 'why' is part of it. */
static bool
says(const char *event, const char *why)
{
    struct pollfd p = {.fd = program.from, .events = POLLIN};
    char line[1024], wanted[64];
    size_t n = 0;

    while (n < sizeof line - 1 && poll(&p, 1, WAIT_MS) == 1 &&
           read(program.from, line + n, 1) == 1 && line[n] != '\n') {
        n++;
    }
    line[n] = '\0';
    snprintf(wanted, sizeof wanted, "\"event\":\"%s\"", event);
    return strstr(line, wanted) && strstr(line, why);
}

/* Its exit status; -1 if it was killed. */
static int
ends(void)
{
    int status = 0;

    close(program.to);
    close(program.from);
    waitpid(program.pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void
guest_ends(libxl_shutdown_reason reason)
{
    uint64_t one = 1;

    xen->reason = reason;
    xen->shut_down = true;
    CHECK(write(release, &one, sizeof one) == sizeof one);
}

static void
goes(void)
{
    uint64_t one = 1;

    xen->there = false;
    CHECK(write(release, &one, sizeof one) == sizeof one);
}

/* --- cases ----------------------------------------------------------------------------------- */

static void
test_life(void)
{
    begin("domain_shutdown");
    run_program(START);
    CHECK(says("running", "\"domid\":5"));
    CHECK(xen->as_told && xen->key == 7 && xen->unpaused == 1);
    tell_program("{\"cmd\":\"nonsense\"}\n{\"cmd\":\"shutdown\"}");
    CHECK(says("ended", "\"why\":\"\"") && !ends());
    CHECK(xen->asked == 1 && xen->destroyed == 1 && !xen->there);

    begin("domain_destroy");
    run_program(START "\n{\"cmd\":\"destroy\"}"); /* while it is made */
    CHECK(says("running", "") && says("ended", "\"why\":\"\"") && !ends() && !xen->there);

    begin("domain_crash");
    run_program(START);
    CHECK(says("running", ""));
    guest_ends(LIBXL_SHUTDOWN_REASON_CRASH);
    CHECK(says("ended", "crashed") && !ends() && !xen->there && xen->created == 1);

    begin("domain_reboot_move");
    run_program(START);
    CHECK(says("running", "\"domid\":5"));
    guest_ends(LIBXL_SHUTDOWN_REASON_REBOOT);
    CHECK(says("running", "\"domid\":6") && xen->key == 7);
    guest_ends(LIBXL_SHUTDOWN_REASON_SUSPEND); /* weft-migrate's, which then destroys it */
    goes();
    CHECK(says("ended", "\"domid\":6,\"why\":\"\"") && !ends() && xen->destroyed == 1);
}

/* Whoever watched is killed while there is no domain, or half of one. */
static void
test_reboot(void)
{
    begin("domain_reboot_cut_off");
    run_program(START);
    CHECK(says("running", "\"domid\":5"));
    xen->dies = true;
    guest_ends(LIBXL_SHUTDOWN_REASON_REBOOT);
    CHECK(ends() == 9 && xen->there && xen->paused && xen->created == 2 && xen->reboot == 7);
    xen->dies = false;
    run_program(WATCH);
    CHECK(says("running", "\"domid\":7") && xen->as_told && xen->key == 7 && !xen->reboot);
    goes();
    CHECK(says("ended", "") && !ends());

    begin("domain_reboot_before_it_was_made");
    xen->reboot = 7;
    run_program(WATCH);
    CHECK(says("running", "\"domid\":5") && !xen->reboot);
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_reboot_of_before", 7, false, 5); /* what was cut off is only the note */
    xen->reboot = 7;
    run_program(WATCH);
    CHECK(says("running", "\"domid\":9") && !xen->reboot);
    kill(program.pid, SIGKILL);
    CHECK(ends() == -1);
    xen->there = false; /* it was switched off, and destroyed by one that was killed then */
    run_program(WATCH);
    CHECK(says("ended", "not here any more") && !ends() && !xen->created);

    begin_with("domain_reboot_begun_anew", 7, false, 5); /* killed before the old one went */
    xen->reboot = 7;
    xen->shut_down = true;
    xen->reason = LIBXL_SHUTDOWN_REASON_REBOOT;
    run_program(WATCH);
    CHECK(says("running", "\"domid\":9") && says("running", "\"domid\":5") && !xen->reboot);
    goes();
    CHECK(says("ended", "") && !ends());

    begin("domain_reboot_of_another_epoch"); /* it has moved since, or was started anew */
    xen->reboot = 6;
    run_program(WATCH);
    CHECK(says("ended", "not here any more") && !ends() && !xen->created);

    begin("domain_reboot_refused"); /* that is its end, also for who comes after */
    run_program(START);
    CHECK(says("running", ""));
    xen->refuses = true;
    guest_ends(LIBXL_SHUTDOWN_REASON_REBOOT);
    CHECK(says("ended", "libxl does not make") && !ends() && !xen->reboot);

    begin("domain_name_taken"); /* at its start, and at a reboot */
    snprintf(xen->taken[0], sizeof xen->taken[0], "g");
    run_program(START);
    CHECK(says("running", "") && xen->as_told && !strcmp(xen->name, UUID));
    guest_ends(LIBXL_SHUTDOWN_REASON_REBOOT);
    CHECK(says("running", "") && xen->as_told && !strcmp(xen->name, UUID));
    goes();
    CHECK(says("ended", "") && !ends());
}

static void
test_adopt(void)
{
    begin("domain_watch_none");
    run_program(WATCH);
    CHECK(says("ended", "not here any more") && !ends());

    begin_with("domain_watch", 7, false, 5);
    run_program(WATCH);
    CHECK(says("running", "\"domid\":9"));
    kill(program.pid, SIGKILL);
    CHECK(ends() == -1 && xen->there);
    run_program(WATCH);
    CHECK(says("running", "\"domid\":9"));
    tell_program("{\"cmd\":\"destroy\"}");
    CHECK(says("ended", "") && !ends() && !xen->there && !xen->unpaused);

    begin_with("domain_watch_paused", 7, true, 5); /* by somebody else */
    run_program(WATCH);
    CHECK(says("running", "") && !xen->unpaused);
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_watch_incoming", 0, true, 0);
    snprintf(xen->name, sizeof xen->name, "g" XEN_INCOMING);
    run_program(WATCH);
    CHECK(says("running", "") && !xen->destroyed && !xen->unpaused);
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_watch_foreign", 0, true, 5); /* none of ours made it, and it has run */
    run_program(WATCH);
    CHECK(says("running", "") && !xen->destroyed && !xen->unpaused);
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_watch_silence", 7, false, 5); /* nobody knows: that is no end */
    xen->silent = true;
    run_program(WATCH);
    CHECK(!says("", "") && ends() == 1 && xen->there);
    xen->silent = false;
    run_program(WATCH);
    CHECK(says("running", "\"domid\":9"));
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_made_not_begun", 7, true, 0);
    run_program(WATCH);
    CHECK(says("running", "") && xen->unpaused == 1);
    goes();
    CHECK(says("ended", "") && !ends());
}

static void
test_start(void)
{
    begin("domain_cut_off");
    xen->dies = true;
    run_program(START);
    CHECK(ends() == 9 && xen->there && xen->paused);
    xen->dies = false;
    run_program(WATCH);
    CHECK(says("ended", "not here any more") && !ends() && !xen->there);

    begin_with("domain_start_again", 7, false, 5); /* the same start */
    run_program(START);
    CHECK(says("running", "\"domid\":9") && !xen->created);
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_in_the_way", 6, false, 5);
    run_program(START);
    CHECK(says("ended", "exists here already") && !ends() && xen->there && !xen->destroyed);

    begin("domain_refused");
    xen->refuses = true;
    run_program(START);
    CHECK(says("ended", "libxl does not make") && !ends());
    xen->memory_kb = 1024;
    run_program(START);
    CHECK(says("ended", "64 MiB of memory are needed, 1 are free") && !ends());
    CHECK(!xen->there && !xen->unpaused);
}

/* weft-migrate's driver finds the domain, and runs it in epoch 8. */
static int
run_here(void)
{
    static const struct mig_guest_config config = {.vm = UUID, .epoch = 7};
    struct mig_guest *guest;
    char why[MIG_WHY];
    int error = mig_driver_xen.attach(&config, &guest, why);

    if (!error) {
        error = mig_driver_xen.run(guest, 8);
        mig_driver_xen.detach(guest);
    }
    return error;
}

/* One that has been received whole. */
static void
begin_loaded(const char *name)
{
    begin_with(name, 0, true, 0);
    snprintf(xen->name, sizeof xen->name, "g" XEN_INCOMING);
    xen->loaded = true;
}

static bool
runs_as(const char *name)
{
    return xen->there && !xen->paused && xen->unpaused == 1 && xen->key == 8 && !xen->loaded &&
           !strcmp(xen->name, name);
}

static void
test_run(void)
{
    begin_loaded("domain_run");
    CHECK(!run_here() && runs_as("g"));
    CHECK(!run_here() && runs_as("g"));
    xen->paused = true; /* by somebody else */
    CHECK(!run_here() && xen->paused && xen->unpaused == 1);

    begin_loaded("domain_run_key_only"); /* killed before it ran */
    xen->key = 8;
    CHECK(!run_here() && runs_as("g"));

    begin_loaded("domain_run_no_name_yet"); /* killed behind that */
    xen->key = 8;
    xen->paused = false;
    xen->unpaused = 1;
    CHECK(!run_here() && runs_as("g"));

    begin_loaded("domain_run_name_taken");
    snprintf(xen->taken[0], sizeof xen->taken[0], "g");
    CHECK(!run_here() && runs_as(UUID));
    begin_loaded("domain_run_no_name");
    snprintf(xen->taken[0], sizeof xen->taken[0], "g");
    snprintf(xen->taken[1], sizeof xen->taken[1], UUID);
    CHECK(!run_here() && runs_as("g" XEN_INCOMING));

    begin_loaded("domain_run_half");
    xen->loaded = false;
    CHECK(run_here() == EINVAL && xen->paused && !xen->unpaused);

    begin_loaded("domain_run_silence");
    xen->silent = true;
    CHECK(run_here() == EIO && xen->paused);
    begin("domain_run_none");
    CHECK(run_here() == ENOENT);
}

static void
test_jobs(void)
{
    static const struct {
        const char *job, *why;
    } bad[] = {
        {"{\"start\":true,\"uuid\":\"" UUID "\"}", "without a name"},
        {"{\"start\":true,\"uuid\":\"" UUID "\",\"name\":\"g\"}", "kernel"},
        {"{\"start\":true,\"uuid\":\"" UUID "\",\"name\":\"g\",\"type\":\"hvm\"}", "pv or pvh"},
        {"{\"start\":true,\"uuid\":\"" UUID "\",\"name\":\"g\",\"kernel\":\"/dev/null\"}", "size"},
        {"{\"start\":true,\"uuid\":\"" UUID "\",\"name\":\"g\",\"kernel\":\"/dev/null\","
         "\"memory_kb\":65536,\"vifs\":[{\"device\":0,\"mac\":\"02:00:00:00:00:0\","
         "\"bridge\":\"b\",\"script\":\"s\"}]}",
         "MAC"},
        {"{\"start\":true,\"uuid\":\"x\"}", "uuid"},
    };

    begin("domain_jobs");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        run_program(bad[i].job);
        CHECK(says("ended", bad[i].why) && !ends());
    }
    run_program("{\"uuid\":5}");
    CHECK(ends() == 2);
    CHECK(!xen->created);
}

int
main(void)
{
    setlinebuf(stdout);
    signal(SIGPIPE, SIG_IGN);
    toolstack_setup();
    test_life();
    test_reboot();
    test_adopt();
    test_start();
    test_run();
    test_jobs();
    return check_done();
}
