/* Xen's public interface headers, included the one right way: interface
 * version pinned, barriers for ring.h defined.  Include this, never
 * <xen/...> directly. */
#ifndef XEN_ABI_H
#define XEN_ABI_H

#include <stdint.h>

#define __XEN_INTERFACE_VERSION__ 0x00040e00
#define xen_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define xen_rmb() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define xen_wmb() __atomic_thread_fence(__ATOMIC_RELEASE)

#include <xen/grant_table.h>
#include <xen/io/netif.h>
#include <xen/io/ring.h>
#include <xen/io/xenbus.h>
#include <xen/xen.h>

#endif
