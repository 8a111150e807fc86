/* Starting DPDK, also where no hugepages are reserved.
 *
 * Open vSwitch starts DPDK with dpdk_init(), which it calls on each round of
 * the main loop with other_config.  We stand in front of it: the first call
 * that asks for DPDK gets memory options that work here, and every call
 * brings us the current other_config. */
#include <config.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>

#include <rte_memory.h>

#include "dpdk.h"
#include "openvswitch/vlog.h"
#include "pools.h"
#include "settings.h"
#include "smap.h"
#include "spare.h"
#include "util.h"
#include "wrap.h"

VLOG_DEFINE_THIS_MODULE(weft_dpdk);

/* DPDK memory beside our pools: Open vSwitch's own pools for NICs.  Without
 * hugepages it is only taken from the system as it is touched. */
#define OTHER_MIB 512u

static bool
hugepages_free(void)
{
    static const char dir[] = "/sys/kernel/mm/hugepages";
    bool found = false;
    struct dirent *e;
    DIR *d = opendir(dir);

    while (d && !found && (e = readdir(d))) {
        char path[sizeof dir + sizeof e->d_name + 32];
        unsigned long n = 0;
        FILE *f;

        snprintf(path, sizeof path, "%s/%s/free_hugepages", dir, e->d_name);
        f = fopen(path, "re");
        if (f) {
            found = fscanf(f, "%lu", &n) == 1 && n > 0;
            fclose(f);
        }
    }
    if (d) {
        closedir(d);
    }
    return found;
}

/* True if dpdk-extra says anything about memory: then it is the user's. */
static bool
extra_sets_memory(const char *extra)
{
    static const char *const options[] = {
        "-m",         "--no-huge",    "--legacy-mem",   "--in-memory",
        "--huge-dir", "--socket-mem", "--socket-limit", "--single-file-segments"};
    char *copy = xstrdup(extra);
    char *save = NULL;
    bool found = false;

    for (char *word = strtok_r(copy, " \t", &save); word; word = strtok_r(NULL, " \t", &save)) {
        for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
            size_t len = strlen(options[i]);

            found |= !strncmp(word, options[i], len) && (!word[len] || word[len] == '=');
        }
    }
    free(copy);
    return found;
}

/* The sum of "1024,1024": memory per NUMA node, in MiB. */
static unsigned
sum_mib(const char *list)
{
    unsigned sum = 0;

    for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        sum += strtoul(p, NULL, 10);
    }
    return sum;
}

static unsigned
choose_mib(const struct smap *cfg)
{
    const struct settings *s = settings();
    unsigned asked = sum_mib(smap_get_def(cfg, "dpdk-socket-mem", ""));

    if (!asked) {
        asked = sum_mib(smap_get_def(cfg, "dpdk-alloc-mem", ""));
    }
    return asked ? asked : (pools_memory(s->small_mbufs, s->large_mbufs) >> 20) + OTHER_MIB;
}

/* Rewrites the memory options of 'cfg' for ordinary pages.  Without shared
 * configuration files, as with Open vSwitch's --in-memory, so that several
 * switches run side by side. */
static void
use_ordinary_memory(struct smap *cfg)
{
    unsigned mib = choose_mib(cfg);
    char *extra = xasprintf("%s --no-huge --legacy-mem --no-shconf -m %u",
                            smap_get_def(cfg, "dpdk-extra", ""), mib);

    smap_replace(cfg, "dpdk-extra", extra);
    free(extra);
    smap_remove(cfg, "dpdk-socket-mem");
    smap_remove(cfg, "dpdk-alloc-mem");
    smap_remove(cfg, "dpdk-socket-limit");
    smap_remove(cfg, "dpdk-hugepage-dir");
    VLOG_WARN("no hugepages are free: DPDK runs on ordinary memory (%u MiB), which is slower; to "
              "change that run 'sysctl vm.nr_hugepages=%u' and restart",
              mib, mib / 2);
}

/* Where the kernel lends transparent huge pages to shared memory, ask for
 * them.  A refusal is the normal case and changes nothing. */
static int
advise_hugepage(const struct rte_memseg_list *msl, void *aux OVS_UNUSED)
{
    if (msl->page_sz < 2u << 20) {
        madvise(msl->base_va, msl->len, MADV_HUGEPAGE);
    }
    return 0;
}

void
__wrap_dpdk_init(const struct smap *cfg)
{
    static bool done;
    struct smap ours;
    const char *init;

    if (cfg) {
        settings_update(cfg);
    }
    init = cfg ? smap_get_def(cfg, "dpdk-init", "false") : "false";
    if (done || (strcasecmp(init, "true") && strcasecmp(init, "try"))) {
        __real_dpdk_init(cfg);
        return;
    }

    /* Open vSwitch tries once, too. */
    done = true;
    smap_clone(&ours, cfg);
    if (!extra_sets_memory(smap_get_def(cfg, "dpdk-extra", "")) && !hugepages_free()) {
        use_ordinary_memory(&ours);
    }
    __real_dpdk_init(&ours);
    if (dpdk_available()) {
        rte_memseg_list_walk(advise_hugepage, NULL);
        spare_save_config(cfg);
    }
    smap_destroy(&ours);
}
