/* announce: the frames by which a guest tells the network where it is now.
 *
 * RARP (as Linux's and QEMU's), gratuitous ARP (RFC 5227), unsolicited neighbour
 * advertisement (RFC 4861 7.2.6), IGMPv2 and MLDv1 reports of multicast groups
 * (RFC 2236, RFC 2710: what every snooping switch understands).
 *
 * Threads: pure functions.  Each writes a frame of at most ANNOUNCE_MAX bytes and
 * returns its length, at least 60; 0 if it cannot be. */
#ifndef ANNOUNCE_H
#define ANNOUNCE_H

#include <stddef.h>
#include <stdint.h>

#define ANNOUNCE_MAX 128u

/* 'vlan' 0: no tag. */
size_t announce_rarp(uint8_t *frame, const uint8_t mac[6], uint16_t vlan);
/* 'address' is text, IPv4 (ARP) or IPv6 (advertisement). */
size_t announce_address(uint8_t *frame, const uint8_t mac[6], uint16_t vlan, const char *address);
/* 'group' is text, a multicast address that is worth a report (not of the link's own).  From
 * 0.0.0.0, or the link-local address that belongs to the MAC. */
size_t announce_group(uint8_t *frame, const uint8_t mac[6], uint16_t vlan, const char *group);

#endif
