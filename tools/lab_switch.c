/* lab_switch: see lab_switch.h. */
#include "lab_switch.h"

#include <stdio.h>
#include <string.h>

struct lab_switch
lab_switch_of(const struct lab_config *c, const struct lab_host *h)
{
    struct lab_switch s = {.pid = h->vswitchd.pid, .restarts = h->vswitchd.restarts};
    char path[LAB_PATH_MAX], line[80], state[16];
    unsigned n;
    FILE *f = NULL;
    int pid;

    if (c->spare && !h->stock && s.pid) {
        lab_path(path, sizeof path, h->dir, "run/weft/spare");
        f = fopen(path, "re");
    }
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "active %d", &pid) == 1) {
            s.pid = pid;
        } else if (sscanf(line, "spare %d %15s", &pid, state) == 2) {
            s.spare = strcmp(state, "ready") ? 0 : pid;
        } else if (sscanf(line, "restarts %u", &n) == 1) {
            s.restarts += n;
        }
    }
    if (f) {
        fclose(f);
    }
    return s;
}
