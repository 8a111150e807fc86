/* hv: picks the implementation that a specification names. */
#include "hv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
hv_open(const char *spec, struct hv **hvp, char *why, size_t why_size)
{
    static const char local[] = "local:";

    if (!strcmp(spec, "xen")) {
        return hv_xen_open(hvp, why, why_size);
    }
    if (!strncmp(spec, local, sizeof local - 1) && spec[sizeof local - 1]) {
        return hv_local_open(spec + sizeof local - 1, hvp, why, why_size);
    }
    *hvp = NULL;
    snprintf(why, why_size,
             "\"%.200s\" names no hypervisor: use \"xen\", or \"local:DIR\" with DIR the directory "
             "of a running weft-localxen",
             spec);
    return EINVAL;
}

void
hv_close(struct hv *hv)
{
    if (hv) {
        hv->ops->close(hv);
    }
}

uint64_t
hv_grant_cost_ns(void)
{
    static const uint64_t most = 1000000; /* a slip of the pen shall not hang a benchmark */
    const char *s = getenv("WEFT_GRANT_COST_NS");
    uint64_t ns = s ? strtoull(s, NULL, 10) : 0;

    return ns < most ? ns : most;
}
