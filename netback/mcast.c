/* mcast: the multicast addresses a guest wants (ring.h).
 *
 * A set of 64 words, each changed by compare-and-swap.  Two threads that add
 * the same address at the same moment may both place it; deleting removes
 * every copy, so nobody notices. */
#include "ring.h"

#include <errno.h>

static uint64_t
mac_word(const uint8_t mac[6])
{
    uint64_t word = 0;

    for (int i = 0; i < 6; i++) {
        word = word << 8 | mac[i];
    }
    return word;
}

static bool
mcast_has(const struct mcast_list *l, uint64_t word)
{
    for (unsigned i = 0; i < MCAST_MAX; i++) {
        if (atomic_load_explicit(&l->addr[i], memory_order_relaxed) == word) {
            return true;
        }
    }
    return false;
}

int
mcast_add(struct mcast_list *l, const uint8_t mac[6])
{
    uint64_t word = mac_word(mac);

    if (!(mac[0] & 1)) {
        return EINVAL;
    }
    if (mcast_has(l, word)) {
        return 0;
    }
    for (unsigned i = 0; i < MCAST_MAX; i++) {
        uint64_t none = 0;
        if (atomic_compare_exchange_strong(&l->addr[i], &none, word)) {
            return 0;
        }
    }
    return ENOSPC;
}

int
mcast_del(struct mcast_list *l, const uint8_t mac[6])
{
    uint64_t word = mac_word(mac);
    int error = ENOENT;

    for (unsigned i = 0; word && i < MCAST_MAX; i++) {
        uint64_t found = word;
        if (atomic_compare_exchange_strong(&l->addr[i], &found, 0)) {
            error = 0;
        }
    }
    return error;
}

bool
mcast_pass(const struct mcast_list *l, const uint8_t mac[6])
{
    uint64_t word = mac_word(mac);

    return !(mac[0] & 1) || !atomic_load_explicit(&l->enabled, memory_order_relaxed) ||
           word == 0xffffffffffff || mcast_has(l, word);
}
