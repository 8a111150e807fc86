/* tls_files: key, certificate and authorities of Open vSwitch's streams ("ssl:", "pssl:"),
 * taken up again when their files change.
 *
 * New connections use what was read last; open ones keep what they have.  A key and a
 * certificate are taken up together, and only if the one is the other's: between the two
 * moments at which they are replaced the old pair holds.  Files that cannot be used change
 * nothing and are logged, once.  A key of another kind (RSA for EC) needs a restart, since
 * OpenSSL would go on showing the old one to some.
 *
 * Threads: that of the streams. */
#ifndef OVS_TLS_FILES_H
#define OVS_TLS_FILES_H

#include <stdbool.h>

#include "file_seen.h"

struct tls_files {
    const char *private_key, *certificate, *ca_cert; /* NULL: none; the caller's */
    /* Private; zeros at first. */
    struct file_seen seen[3];
    bool respelt[3];         /* the name by which stream-ssl knows the file */
    bool unusable[2];        /* the pair, the authorities; as last read */
    int kind;                /* of key */
    long long int next_look; /* in ms */
};

enum {
    TLS_FILES_OWN = 1, /* key and certificate */
    TLS_FILES_CA = 2,
};

/* Looks at the files, once a second at most, and takes up what is new; says what it was. */
unsigned tls_files_refresh(struct tls_files *);
/* Wakes the poll loop for the next look. */
void tls_files_wait(const struct tls_files *);

#endif
