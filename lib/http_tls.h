/* http_tls: certificates of an HTTP server's TLS connections.
 *
 * Credentials are read from files and replaced when these change; a connection
 * keeps the ones it began with.  Every client that is asked must show a
 * certificate of the CA that is valid now, not revoked, and made for clients; the
 * handshake fails otherwise.
 *
 * http_tls_attach, _detach and _identity may be called from any thread, the
 * rest from one. */
#ifndef HTTP_TLS_H
#define HTTP_TLS_H

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>

#define HTTP_TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3"

struct http_tls;
struct http_creds; /* counted */

int http_tls_create(const char *key, const char *certificate, const char *ca, const char *crl,
                    struct http_tls **, char *why, size_t why_size);
void http_tls_destroy(struct http_tls *);
/* Reads files that have changed, and those that could not be used.  1: new
 * credentials; 0: nothing new; -1: new ones cannot be used, 'why' says why, the old
 * ones stay. */
int http_tls_refresh(struct http_tls *, char *why, size_t why_size);

/* Before the handshake.  The caller detaches when the session is gone. */
struct http_creds *http_tls_attach(struct http_tls *, gnutls_session_t);
/* Whether these are what handshakes are made with now. */
bool http_tls_is_current(struct http_tls *, const struct http_creds *);
/* Whether the client's certificate is good by the credentials that the session has now. */
bool http_tls_good(gnutls_session_t);
bool http_tls_expired(gnutls_session_t);
/* After that: clients need not have a certificate, and are not asked for one. */
void http_tls_ask_nobody(gnutls_session_t);
/* Or: clients need not have a certificate; one that is shown must be good. */
void http_tls_ask_politely(gnutls_session_t);
void http_tls_detach(struct http_creds *);

/* A source of certificates that has none. */
int http_tls_no_certificate(gnutls_session_t, const gnutls_datum_t *, int,
                            const gnutls_pk_algorithm_t *, int, gnutls_pcert_st **, unsigned *,
                            gnutls_privkey_t *);

/* Common name and organizational unit of the peer's (verified) certificate;
 * false if there is no usable common name.  'ou' is empty if there is none. */
bool http_tls_identity(gnutls_session_t, char *cn, size_t cn_size, char *ou, size_t ou_size);

#endif
