#include <config.h>

#include "stranger.h"

#include <string.h>

#include "hash.h"
#include "stream.h"
#include "util.h"

uint32_t
stranger_address(const struct stream *stream, uint32_t basis)
{
    const char *name = stream_get_name(stream), *colon = strrchr(name, ':');
    bool has = !strncmp(name, "ssl:", 4) && colon;

    return has ? MAX(hash_bytes(name, colon - name, basis), 1) : 0;
}

size_t
stranger_count(const struct ovs_list *list, uint32_t address)
{
    const struct stranger *s;
    size_t n = 0;

    LIST_FOR_EACH (s, node, list) {
        n += address && s->address == address;
    }
    return n;
}

struct stranger *
stranger_makes_room(const struct ovs_list *list)
{
    struct stranger *s, *most = NULL;
    size_t n_most = 0;

    LIST_FOR_EACH (s, node, list) {
        size_t n = MAX(stranger_count(list, s->address), 1);

        if (n > n_most) {
            n_most = n;
            most = s;
        }
    }
    return most;
}
