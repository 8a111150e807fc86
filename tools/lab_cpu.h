/* lab_cpu: CPU time of a switch, by kind of thread, from /proc.
 *
 * Single-threaded. */
#ifndef LAB_CPU_H
#define LAB_CPU_H

#include <stdint.h>
#include <sys/types.h>

struct lab_cpu {
    pid_t pid;
    int64_t at_ms;
    uint64_t ticks, vif_ticks, pmd_ticks;
    /* Percent of one core between the last two samples; negative: unknown. */
    double total, vif, pmd;
};

void lab_cpu_init(struct lab_cpu *);
void lab_cpu_sample(struct lab_cpu *, pid_t);

#endif
