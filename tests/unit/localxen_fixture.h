/* localxen_fixture: a broker of its own for a test program, as a child process
 * that dies with it, in a private directory; and a guest with a backend in it.
 *
 * Threads: one.  One broker at a time. */
#ifndef LOCALXEN_FIXTURE_H
#define LOCALXEN_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/hv.h"
#include "hv/local.h"

#define RIG_DOMID 7
#define RIG_PAGES 64
#define RIG_GRANTS 256

/* One backend handle and one guest, as most cases need them. */
struct rig {
    struct hv *hv;
    struct hv_grants *grants;
    struct hv_evtchns *evtchns;
    struct local_domain *dom;
    uint8_t *memory; /* the domain's */
};

/* Makes up a path for the broker's directory, inside a new private one. */
void fixture_dir(char *dir, size_t size);
/* Starts a broker and waits until it serves. */
bool fixture_start(const char *dir);
/* Ends it with SIGTERM or SIGKILL and waits for that. */
void fixture_stop(int signal);
/* Stops it if it runs, and removes the directory and the private one. */
void fixture_remove(const char *dir);

/* Open what a rig has, or end the test. */
void rig_open_backend(struct rig *, const char *dir);
void rig_open(struct rig *, const char *dir);
void rig_close_backend(struct rig *);
void rig_close(struct rig *);

/* Runs 'body' as another process that, once it has come back from it, is
 * killed.  False if it did not get so far. */
bool run_and_kill(void (*body)(void *), void *arg);

#endif
