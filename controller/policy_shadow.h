/* policy_shadow: what another policy would do with packets that were seen.
 *
 * Flows are scored by the flows of two compilers: each is traced (trace.h) as the
 * first packet of its connection through the pool as it is and as it would be.
 *
 * A flow, in JSON:
 *   {"from": VIF, "to": VIF, "network": NETWORK, "source": IP, "destination": IP,
 *    "protocol": "tcp", "port": N, "source_port": N, "icmp_type": N, "icmp_code": N,
 *    "count": N}
 * "from" or "to" may be left out: what is not a vif of the pool, on "network".
 *
 * Threads: the main loop. */
#ifndef CTL_POLICY_SHADOW_H
#define CTL_POLICY_SHADOW_H

#include "questions.h"

#define SHADOW_FLOWS 10000u /* of one question */

/* Scores flows: JSON (docs/rest.md), malloc'ed.  NULL: see the fault. */
char *shadow_score(struct model *, struct compile *, struct model *aside, const char *flows,
                   struct trace_fault *);
/* Ends a model that was made for it; NULL is fine. */
void shadow_forget(struct model *aside);

#endif
