#include "lab_cpu.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lab_proc.h"

void
lab_cpu_init(struct lab_cpu *c)
{
    memset(c, 0, sizeof *c);
    c->total = c->vif = c->pmd = -1;
}

/* utime + stime of a thread (proc(5): fields 14 and 15) and its name. */
static uint64_t
thread_ticks(pid_t pid, const char *tid, char *name, size_t size)
{
    char path[320], stat[1024];
    unsigned long utime = 0, stime = 0;

    snprintf(path, sizeof path, "/proc/%d/task/%s/stat", (int)pid, tid);
    FILE *f = fopen(path, "re");
    if (!f) {
        return 0;
    }
    size_t n = fread(stat, 1, sizeof stat - 1, f);
    fclose(f);
    stat[n] = '\0';
    char *open = strchr(stat, '('), *close = strrchr(stat, ')');
    if (!open || !close) {
        return 0;
    }
    snprintf(name, size, "%.*s", (int)(close - open - 1), open + 1);
    if (sscanf(close + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &utime, &stime) !=
        2) {
        return 0;
    }
    return utime + stime;
}

void
lab_cpu_sample(struct lab_cpu *c, pid_t pid)
{
    struct lab_cpu now = {.pid = pid, .at_ms = lab_now_ms(), .total = -1, .vif = -1, .pmd = -1};
    double per_tick = 100000.0 / (double)sysconf(_SC_CLK_TCK);
    char path[64], name[32];
    struct dirent *entry;

    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = pid > 0 ? opendir(path) : NULL;
    while (tasks && (entry = readdir(tasks))) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        name[0] = '\0';
        uint64_t ticks = thread_ticks(pid, entry->d_name, name, sizeof name);
        now.ticks += ticks;
        now.vif_ticks += !strncmp(name, "vif", 3) ? ticks : 0;
        now.pmd_ticks += !strncmp(name, "pmd", 3) ? ticks : 0;
    }
    if (tasks) {
        closedir(tasks);
    }
    int64_t passed = now.at_ms - c->at_ms;
    /* A thread that ended takes its time along: then there is no figure. */
    if (c->pid == pid && passed > 0 && now.ticks >= c->ticks && now.vif_ticks >= c->vif_ticks &&
        now.pmd_ticks >= c->pmd_ticks) {
        now.total = (double)(now.ticks - c->ticks) * per_tick / (double)passed;
        now.vif = (double)(now.vif_ticks - c->vif_ticks) * per_tick / (double)passed;
        now.pmd = (double)(now.pmd_ticks - c->pmd_ticks) * per_tick / (double)passed;
    }
    *c = now;
}
