/* dpif_weft: the parts of the dpif class "weft" among themselves.
 *
 * Threads: dpif_weft_for_each() on the main thread; the class's functions as
 * lib/dpif-provider.h says. */
#ifndef DPIF_WEFT_H
#define DPIF_WEFT_H

#include <stdbool.h>
#include <stdint.h>

#include "ct-dpif.h"
#include "dpif-provider.h"

struct dp;

/* Calls cb() for each datapath, or only for the one called 'name'; false if
 * there is none. */
bool dpif_weft_for_each(const char *name, void (*cb)(struct dp *, void *aux), void *aux);

/* dpif_weft_show.c: registers the appctl command weft/show. */
void dpif_weft_show_init(void);

/* dpif_weft_ct.c: the class's functions for connection tracking. */
int weft_ct_dump_start(struct dpif *, struct ct_dpif_dump_state **, const uint16_t *zone,
                       int *n_buckets);
int weft_ct_dump_next(struct dpif *, struct ct_dpif_dump_state *, struct ct_dpif_entry *);
int weft_ct_dump_done(struct dpif *, struct ct_dpif_dump_state *);
int weft_ct_flush(struct dpif *, const uint16_t *zone, const struct ct_dpif_tuple *);
int weft_ct_set_maxconns(struct dpif *, uint32_t);
int weft_ct_get_maxconns(struct dpif *, uint32_t *);
int weft_ct_get_nconns(struct dpif *, uint32_t *);
int weft_ct_set_tcp_seq_chk(struct dpif *, bool);
int weft_ct_get_tcp_seq_chk(struct dpif *, bool *);
int weft_ct_set_limits(struct dpif *, const uint32_t *default_limit, const struct ovs_list *zones);
int weft_ct_get_limits(struct dpif *, uint32_t *default_limit, const struct ovs_list *in,
                       struct ovs_list *out);
int weft_ct_del_limits(struct dpif *, const struct ovs_list *zones);
int weft_ct_set_timeout_policy(struct dpif *, const struct ct_dpif_timeout_policy *);
int weft_ct_get_timeout_policy(struct dpif *, uint32_t id, struct ct_dpif_timeout_policy *);
int weft_ct_del_timeout_policy(struct dpif *, uint32_t id);
int weft_ct_get_timeout_policy_name(struct dpif *, uint32_t id, uint16_t dl_type, uint8_t nw_proto,
                                    char **name, bool *is_generic);
int weft_ct_get_features(struct dpif *, enum ct_features *);
int weft_ipf_set_enabled(struct dpif *, bool v6, bool enable);
int weft_ipf_set_min_frag(struct dpif *, bool v6, uint32_t bytes);
int weft_ipf_set_max_nfrags(struct dpif *, uint32_t);
int weft_ipf_get_status(struct dpif *, struct dpif_ipf_status *);
int weft_ipf_dump_start(struct dpif *, struct ipf_dump_ctx **);
int weft_ipf_dump_next(struct dpif *, void *ctx, char **text);
int weft_ipf_dump_done(struct dpif *, void *ctx);

#endif
