/* What lwIP asks of a compiler and a platform. */
#ifndef CELL_ARCH_CC_H
#define CELL_ARCH_CC_H

#include "../guest.h"

#define LWIP_NO_INTTYPES_H 1
#define LWIP_NO_CTYPE_H 1
#define U8_F "u"
#define S8_F "d"
#define X8_F "x"
#define U16_F "u"
#define S16_F "d"
#define X16_F "x"
#define U32_F "u"
#define S32_F "d"
#define X32_F "x"
#define SZT_F "u"
#define LWIP_PLATFORM_DIAG(x)                                                                      \
    do {                                                                                           \
    } while (0)
#define LWIP_PLATFORM_ASSERT(x) guest_panic(x)
#define LWIP_RAND() guest_random()

#endif
