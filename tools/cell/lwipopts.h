/* lwIP in a cell's guest: no threads, TCP and UDP over IPv4, large windows,
 * hundreds of connections. */
#ifndef CELL_LWIPOPTS_H
#define CELL_LWIPOPTS_H

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_IPV4 1
#define LWIP_IPV6 0
#define LWIP_ARP 1
#define LWIP_ETHERNET 1
#define LWIP_ICMP 1
#define LWIP_RAW 0
#define LWIP_DHCP 0
#define LWIP_DNS 0
#define LWIP_STATS 0
#define LWIP_TIMERS 1
#define ETHARP_TABLE_MATCH_NETIF 0
#define ARP_TABLE_SIZE 64

#define MEM_ALIGNMENT 8
#define MEM_SIZE (12 * 1024 * 1024)
#define MEMP_NUM_TCP_PCB 1024
#define MEMP_NUM_TCP_PCB_LISTEN 4
#define MEMP_NUM_UDP_PCB 4
#define MEMP_NUM_TCP_SEG 16384
#define MEMP_NUM_PBUF 16384
#define MEMP_NUM_SYS_TIMEOUT 16
#define PBUF_POOL_SIZE 8192
#define PBUF_POOL_BUFSIZE 1600

#define LWIP_TCP 1
#define TCP_MSS 1460
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 4
#define TCP_WND (512 * 1024)
#define TCP_SND_BUF (128 * 1024)
#define TCP_SND_QUEUELEN 512
#define TCP_SNDLOWAT 32768
/* A sender that has sent much must not wait for a delayed acknowledgement. */
#define TCP_WND_UPDATE_THRESHOLD 8192
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_KEEPALIVE 1
/* Finer than lwIP's 250: what is lost while a guest moves is sent again sooner. */
#define TCP_TMR_INTERVAL 50
#define LWIP_TCP_RTO_TIME 1000

/* The interface says per netif, and for a frame that has been checked. */
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define LWIP_CHKSUM_ALGORITHM 3

#endif
