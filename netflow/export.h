/* export: flow records to collectors, as NetFlow v5, v9 or IPFIX.
 *
 * An exporter is one observation domain: it has one form of messages and any
 * number of collectors, each with a transport, a queue and sequence numbers of
 * its own.  Collectors over UDP get templates first and then every so often;
 * over TCP and TLS at the start of each connection.
 *
 * Nothing here waits: sockets do not block, and a collector over TCP or TLS
 * that does not keep up, or is away, loses messages once its queue is full,
 * which are counted and told of in the options (exporter statistics).
 *
 * Threads: an exporter belongs to one thread; export_stats() from any.
 * Ownership: configurations are copied; records are the caller's. */
#ifndef EXPORT_H
#define EXPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flow_record.h"

enum export_version { EXPORT_V5 = 5, EXPORT_V9 = 9, EXPORT_IPFIX = 10 };

#define EXPORT_COLLECTORS_MAX 16u
#define EXPORT_TARGET_MAX 128u
#define EXPORT_FILE_MAX 256u
#define EXPORT_QUEUE_DEFAULT (4u << 20)

struct export_config {
    enum export_version version;
    uint32_t domain;    /* observation domain; source id (v9); engine type << 8 | id (v5) */
    uint32_t sampling;  /* one packet in so many is counted; 1: all */
    bool mediator;      /* IPFIX: records are others', see export_original() */
    unsigned refresh_s; /* templates and options again, over UDP; 0: 60 */
    /* "ADDRESS:PORT" or "[IPV6]:PORT" (UDP), or with "udp:", "tcp:" or "tls:"
     * in front. */
    unsigned n_targets;
    char targets[EXPORT_COLLECTORS_MAX][EXPORT_TARGET_MAX];
    uint16_t source_port; /* of UDP; 0: any, and then always that */
    size_t queue_bytes;   /* of each collector over TCP or TLS */
    char certificate[EXPORT_FILE_MAX], key[EXPORT_FILE_MAX], ca[EXPORT_FILE_MAX];
};

/* What is said of an interface in the options. */
struct export_interface {
    uint32_t index; /* as in flow_record's in_if, out_if */
    char name[FLOW_NAME_MAX + 1], description[FLOW_NAME_MAX + 1];
    char vif[40], vm[40], network[40]; /* UUIDs; empty: none */
};

struct export_stats {
    uint64_t records, messages, bytes; /* told, to each collector once */
    uint64_t dropped_messages;         /* not sent: queue full, error, no connection */
    uint64_t dropped_records, dropped_packets, dropped_bytes;
    uint64_t not_v5; /* records that the version has no form for: IPv6 or no IP */
};

/* What the datapath could not keep, for the statistics. */
struct export_losses {
    uint64_t records, packets, bytes;
};

struct export;

/* EINVAL with a sentence in 'why': a target is none, or a file cannot be read. */
int export_create(const struct export_config *, struct export **, char *why, size_t why_size);
/* One collector more, which the configuration need not name; as export_create(). */
int export_add(struct export *, const struct export_config *, const char *target, char *why,
               size_t why_size);
/* The certificates of the configuration's files, as they are now, for connections from
 * now on.  An errno with a sentence in 'why': those from before stay. */
int export_reload_tls(struct export *, const struct export_config *, char *why, size_t why_size);
/* The same if there are other files than were read last. */
int export_renew_tls(struct export *, const struct export_config *, bool *renewed, char *why,
                     size_t why_size);
void export_destroy(struct export *); /* sends what is gathered; accepts NULL */

/* Of a mediator (RFC 7119): whose the records to come are, which each says of itself: the
 * exporter's address (IPv4 as ::ffff:a.b.c.d) and its observation domain. */
void export_original(struct export *, const struct in6_addr *, uint32_t domain);
/* 'now' in ms of Unix time, never going back much. */
void export_records(struct export *, const struct flow_record *, size_t n, uint64_t now);
/* Replaces what is known of interfaces; collectors are told with the next options. */
void export_interfaces(struct export *, const struct export_interface *, size_t n);
void export_losses(struct export *, const struct export_losses *);
/* Sends what is gathered, templates that are due, queues.  Call some times a second. */
void export_run(struct export *, uint64_t now);

void export_stats(const struct export *, struct export_stats *);
struct export_collector_stats {
    const char *target;
    bool connected;
    uint64_t messages, records, connects;
    uint64_t dropped_messages, dropped_records, dropped_packets, dropped_bytes;
    size_t queued;
    int error; /* the last one; 0 */
};
size_t export_n_collectors(const struct export *);
void export_collector_stats(const struct export *, size_t i, struct export_collector_stats *);

#endif
