#include "file_seen.h"

#include <errno.h>
#include <stdint.h>
#include <time.h>

/* A file system's clock goes in ticks of 10 ms at most. */
#define TICK_NS 20000000

static bool
same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Whether the change is so long ago that the next one has another time. */
static bool
is_settled(const struct timespec *changed)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    int64_t s = (int64_t)now.tv_sec - changed->tv_sec;

    /* A time to come is of another machine's clock, and says nothing. */
    return s < 0 || s > 1 || s * 1000000000 + now.tv_nsec - changed->tv_nsec > TICK_NS;
}

int
file_seen_look(struct file_seen *seen, const char *name, bool *is_new)
{
    struct stat st;

    *is_new = false;
    if (stat(name, &st)) {
        return errno;
    }
    *is_new = !seen->settled || st.st_dev != seen->st.st_dev || st.st_ino != seen->st.st_ino ||
              st.st_size != seen->st.st_size || !same_time(&st.st_mtim, &seen->st.st_mtim) ||
              !same_time(&st.st_ctim, &seen->st.st_ctim);
    seen->st = st;
    seen->settled = is_settled(&st.st_ctim);
    return 0;
}
