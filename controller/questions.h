/* questions: what is asked about packets, and the answers, as JSON text.
 *
 *   {"from": "web1-0", "to": "db-0" or "10.0.0.9", "protocol": "tcp", "port": 80}
 *   {"host": "h1", "flow": "in_port=eth1,dl_vlan=10,tcp,..."}
 *
 * docs/rest.md lists the members.  Text, because jansson and Open vSwitch's JSON
 * do not meet in one file; so this header includes neither.
 *
 * Threads: the main loop.  Answers are malloc'ed. */
#ifndef CTL_QUESTIONS_H
#define CTL_QUESTIONS_H

#include <stdbool.h>

struct compile;
struct model;

/* What is wrong with a question. */
struct trace_fault {
    char field[64]; /* or "" */
    char message[400];
};

/* The way of a packet (trace.h): JSON, or its lines for people alone.  NULL: see
 * the fault. */
char *trace_answer(struct model *, struct compile *, const char *question, bool people,
                   struct trace_fault *);
/* Whose the flows of a cookie ("0xd5...", or decimal) are: JSON.  NULL: see the fault. */
char *trace_cookie(const struct model *, const char *cookie, struct trace_fault *);

#endif
