/* Where Open vSwitch asks which datapath it has, by name or by the address of
 * a function, and means what the datapath can do. */
#include <config.h>

#include "dp.h"
#include "wrap.h"

/* Tunnels are pushed and popped in the datapath. */
bool
__wrap_dpif_supports_tnl_push_pop(const struct dpif *dpif)
{
    return dpif_is_weft(dpif) || __real_dpif_supports_tnl_push_pop(dpif);
}

bool
__wrap_dpif_supports_explicit_drop_action(const struct dpif *dpif)
{
    return dpif_is_weft(dpif) || __real_dpif_supports_explicit_drop_action(dpif);
}

bool
__wrap_dpif_supports_lb_output_action(const struct dpif *dpif)
{
    return dpif_is_weft(dpif) || __real_dpif_supports_lb_output_action(dpif);
}

/* A bridge's type, as the bridge sees it: weft if the database names none.
 * Where "system" is a dummy, tests ask for that by naming none. */
const char *
__wrap_ofproto_normalize_type(const char *type)
{
    return (type && type[0]) || !dpif_weft_is_default ? __real_ofproto_normalize_type(type)
                                                      : DP_TYPE;
}
