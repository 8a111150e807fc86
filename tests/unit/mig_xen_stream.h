/* mig_xen_stream: streams as libxl and libxenguest write them, made by hand, and
 * ways to damage them.  One thread. */
#ifndef MIG_XEN_STREAM_H
#define MIG_XEN_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    STREAM_MAX = 32 << 20,
    STREAM_PFNS = 1 << 16, /* the domain's frames */
};

struct stream {
    bool pv;
    uint32_t seed;
    size_t n;
    uint8_t *bytes; /* STREAM_MAX of the caller's */
    /* Where the parts of stream_typical() are, for who damages them. */
    size_t image, statics, batch, state, end;
};

enum page_content { PAGE_ZERO, PAGE_TEXT, PAGE_RANDOM };

/* Headers and static data; pages; registers and ends. */
void stream_begin(struct stream *, bool pv);
void stream_pages(struct stream *, uint64_t pfn, unsigned n, enum page_content);
void stream_pages_down(struct stream *, uint64_t last, unsigned n); /* descending, random */
void stream_again(struct stream *, uint64_t pfn,
                  unsigned n); /* as in the batch before, some changed a little */
void stream_finish(struct stream *);

/* All of it, with pages of every type and content. */
void stream_typical(struct stream *, bool pv);

struct damage {
    const char *name;
    bool pv;
    bool (*apply)(struct stream *); /* of stream_typical() */
    bool cut;                       /* what is left is well, but not all */
};
extern const struct damage stream_damages[]; /* ends with one without a name */

#endif
