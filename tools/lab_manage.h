/* lab_manage: how a lab's controller reaches its hosts: a network of their own
 * and certificates.
 *
 * The controller lives in the namespace "pool", at 192.168.78.254; each host has
 * a port towards it, mgmt0, 192.168.78.HOST, which no switch has.  Two
 * authorities, so that a host obeys controllers and nobody else:
 *
 *   pool/pki/           hosts, and users of the REST interface
 *   pool/pki-control/   the controller
 *
 * With config.pool only.  Called by the supervisor.  Errors: 0 or a positive
 * errno with lab->why set. */
#ifndef LAB_MANAGE_H
#define LAB_MANAGE_H

#include "lab_super.h"

#define LAB_MANAGE_IF "mgmt0"
#define LAB_MANAGE_CONTROLLER LAB_MANAGE_SUBNET ".254"
enum { LAB_MANAGE_OVSDB_PORT = 6640, LAB_MANAGE_REST_PORT = 8443, LAB_MANAGE_N_ARGS = 4 };

/* What a program gets on its command line, one after the other. */
struct lab_manage_args {
    char text[LAB_MANAGE_N_ARGS][LAB_PATH_MAX];
};

/* Makes the namespace and the cables between it and the hosts', which are there,
 * and all certificates. */
int lab_manage_build(struct super *);

/* For a host's ovsdb-server: where it listens, --private-key, --certificate and
 * --ca-cert. */
void lab_manage_host_args(const struct lab *, const struct lab_host *, struct lab_manage_args *);
/* For its switch, which listens for the controller: "ovs-vsctl set-ssl ...". */
void lab_manage_ssl(const struct lab *, const struct lab_host *, struct lab_manage_args *);
/* For the controller: REST over TLS, --private-key, --certificate and --ca-cert. */
void lab_manage_controller_args(const struct lab *, struct lab_manage_args *);
/* For whom uses it: WEFT_CONTROLLER, WEFT_PRIVATE_KEY, WEFT_CERTIFICATE and
 * WEFT_CA_CERT as "NAME=VALUE". */
void lab_manage_environment(const struct lab *, struct lab_manage_args *);

#endif
