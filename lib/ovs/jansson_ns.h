/* jansson_ns: jansson beside libopenvswitch in one program.
 *
 * Both define the six functions below.  Ours call them by these names; the
 * build links a copy of jansson's archive in which they are called so.  The
 * headers clash as well (enumerators): a file includes either this one or Open
 * vSwitch's, and headers that both kinds of file include say "struct json_t". */
#ifndef JANSSON_NS_H
#define JANSSON_NS_H

#define json_array weft_json_array
#define json_equal weft_json_equal
#define json_integer weft_json_integer
#define json_object weft_json_object
#define json_real weft_json_real
#define json_string weft_json_string
#include <jansson.h>

#endif
