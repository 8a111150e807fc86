/* xen_config: what a domain's configuration may say when another host sends it.
 *
 * It is libxl's JSON.  Whoever sends it has the pool's certificate, and still gets
 * nothing of this host by it: no disk, device, path or program, no backend in another
 * domain, no more memory than it announced.  What is carried over is on a list; what
 * is this host's own matter (where vcpus run, the script that plugs a vif in, kernel and
 * ramdisk, which the image has in memory) is left out; all else is refused by name.  libxl reads
 * the text that is written here, never the sender's.
 *
 * Any thread. */
#ifndef WEFT_MIGRATE_XEN_CONFIG_H
#define WEFT_MIGRATE_XEN_CONFIG_H

#include <stddef.h>
#include <stdint.h>

enum { XEN_CONFIG_WHY = 120, XEN_CONFIG_NICS = 16 };

/* In '*out' the configuration that libxl may have; the caller frees it.  EINVAL with a
 * sentence in 'why', or ENOMEM. */
int xen_config_check(const char *text, size_t n, uint64_t max_memkb, char **out,
                     char why[XEN_CONFIG_WHY]);

#endif
