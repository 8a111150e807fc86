/* enrich_priv: kinds of bindings, and how a state of the pool becomes them. */
#ifndef ENRICH_PRIV_H
#define ENRICH_PRIV_H

#include <netinet/in.h>
#include <string.h>

#include "enrich.h"

/* Numbers and values are in the store: only add at the end, before PORT not at all. */
enum enrich_kind {
    ENRICH_VIF = 1,       /* key */
    ENRICH_NET = 2,       /* key */
    ENRICH_RULE = 3,      /* key */
    ENRICH_PORT = 10,     /* id of the host's name, OpenFlow port */
    ENRICH_ADDRESS = 11,  /* key of the network, address */
    ENRICH_MAC = 12,      /* key of the network, MAC */
    ENRICH_TAG = 13,      /* VLAN id */
    ENRICH_VNI = 14,      /* network id of an overlay */
    ENRICH_EXPORTER = 15, /* address */
};

/* Indices of a binding's values, ids of names but for the key. */
enum enrich_value {
    ENRICH_NAME,
    ENRICH_VM,
    ENRICH_TENANT,
    ENRICH_NETWORK,
    ENRICH_GROUPS,
    ENRICH_HOST,
    ENRICH_NETWORK_KEY,
};
_Static_assert((int)ENRICH_NETWORK_KEY < (int)STORE_BINDING_VALUES, "see store.h");

static inline void
enrich_key_numbers(uint8_t key[STORE_KEY_SIZE], uint64_t high, uint64_t low)
{
    memset(key, 0, STORE_KEY_SIZE);
    memcpy(key, &high, sizeof high);
    memcpy(key + sizeof high, &low, sizeof low);
}

static inline void
enrich_key_address(uint8_t key[STORE_KEY_SIZE], uint32_t network, const struct in6_addr *a)
{
    memcpy(key, a, sizeof *a);
    memcpy(key + sizeof *a, &network, sizeof network);
}
_Static_assert(sizeof(struct in6_addr) + sizeof(uint32_t) == STORE_KEY_SIZE, "see store.h");

/* With the mutex: the state says so. */
int enrich_say(struct enrich *, uint8_t kind, const uint8_t key[STORE_KEY_SIZE],
               const int64_t value[STORE_BINDING_VALUES], int64_t since_ms, int64_t now_ms);
/* enrich_read.c: all that 'pool' says, with enrich_say(). */
int enrich_read(struct enrich *, struct flow_names *, const json_t *pool, int64_t since_ms,
                int64_t now_ms);

#endif
