/* What spare.c and spare_child.c say to each other. */
#ifndef SPARE_PRIV_H
#define SPARE_PRIV_H

/* Bytes between the supervisor and a child: be the switch; be ready to; ready,
 * or serving. */
enum { GO = 'G', PREPARE = 'P', READY = 'R' };

/* Nice value of who is in a hurry, relative to what the switch was started with. */
#define HURRY_NICE (-10)

/* The pid file's path; 'name' as given with the option, NULL: none was.
 * malloc'ed. */
char *spare_pidfile_name(const char *name);

#endif
