/* http_flow: flowd's answers over HTTP (docs/flows.md), with libmicrohttpd.
 *
 * A thread for each connection, so that a question may take its time; how many
 * connections and questions there are at once is bounded.  On a Unix socket root
 * and the daemon's own user may ask; over TLS who has a certificate of the
 * pool's CA for the role viewer, operator or admin.  Nothing can be changed. */
#ifndef HTTP_FLOW_H
#define HTTP_FLOW_H

#include <stddef.h>

struct flow_service;
struct http_flow;

/* Listens on all of the service's addresses. */
int http_flow_start(struct flow_service *, struct http_flow **, char *why, size_t why_size);
/* NULL is fine. */
void http_flow_stop(struct http_flow *);

#endif
