/* What the C code writes, read by somebody who has only read docs/migration-stream.md.
 *
 * A guest's memory goes over two connections, in rounds, in all kinds of pages, with
 * post-copy at the end; both directions are written to files as a capture of the transport
 * has them.  tests/migrate/stream_damage.py checks them, and damaged copies of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "mig_stream.h"

static bool
write_file(const char *dir, const char *name, const void *p, size_t n)
{
    char path[256];
    FILE *f;
    bool wrote;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    wrote = f && fwrite(p, 1, n, f) == n;
    return f && !fclose(f) && wrote;
}

static bool
write_stream(const char *dir, struct mig_stream *s)
{
    bool wrote = write_file(dir, "memory", s->memory, sizeof s->memory);
    char name[32];

    for (unsigned c = 0; c < STREAM_CONNECTIONS; c++) {
        snprintf(name, sizeof name, "conn%u.source", c);
        wrote &= write_file(dir, name, s->source[c].p, s->source[c].n);
        snprintf(name, sizeof name, "conn%u.destination", c);
        wrote &= write_file(dir, name, s->destination[c].p, s->destination[c].n);
    }
    return wrote;
}

int
main(void)
{
    static const char reader[] = "tests/migrate/stream_damage.py";
    static struct mig_stream s;
    char dir[] = "/tmp/test_mig_stream.XXXXXX", command[256];
    int status;

    if (access(reader, X_OK) || system("command -v zstd >/dev/null")) {
        printf("skip streams read by another reader: %s or zstd is not there\n", reader);
        return 0;
    }
    CASE("a stream of every kind of page and record can be written");
    CHECK(mkdtemp(dir) != NULL);
    CHECK(mig_stream_make(&s, true, 3));
    CHECK(write_stream(dir, &s));
    mig_stream_free(&s);
    status = check_done();
    snprintf(command, sizeof command, "PYTHONDONTWRITEBYTECODE=1 %s %s %s/memory", reader, dir,
             dir);
    status |= system(command) != 0;
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) || status;
}
