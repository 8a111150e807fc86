#include "lab_manage.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lab_link.h"
#include "lab_netns.h"
#include "pki.h"

#define BRIDGE "manage"
#define USER "admin"
#define CONTROLLER "controller"

static unsigned
number(const struct lab *lab, const struct lab_host *h)
{
    return (unsigned)(h - lab->hosts) + 1;
}

/* --- the network ------------------------------------------------------------- */

static int
join_host(struct lab *lab, int pool, const struct lab_host *h)
{
    int host = lab_netns_open(&h->netns);
    int error = host < 0 ? errno : lab_link_cable(pool, h->name, host, LAB_MANAGE_IF);
    char address[32];

    snprintf(address, sizeof address, LAB_MANAGE_SUBNET ".%u/24", number(lab, h));
    if (!error) {
        error = lab_link_enslave(pool, h->name, BRIDGE);
    }
    if (!error) {
        error = lab_link_address(host, LAB_MANAGE_IF, address);
    }
    if (host >= 0) {
        close(host);
    }
    return error;
}

static int
build_network(struct lab *lab)
{
    int error = lab_netns_make(lab, &lab->pool.netns);
    int pool;

    if (error) {
        return error;
    }
    pool = lab_netns_open(&lab->pool.netns);
    error = pool < 0 ? errno : lab_link_bridge(pool, BRIDGE);
    if (!error) {
        error = lab_link_address(pool, BRIDGE, LAB_MANAGE_CONTROLLER "/24");
    }
    for (unsigned i = 0; !error && i < lab->config.n_hosts; i++) {
        error = join_host(lab, pool, &lab->hosts[i]);
    }
    if (pool >= 0) {
        close(pool);
    }
    return error ? lab_fail(lab, error, "cannot cable hosts to the controller: %s", strerror(error))
                 : 0;
}

/* --- certificates --------------------------------------------------------------- */

static int
issue(const char *dir, const char *name, const char *role, const char *address, char *why,
      size_t why_size)
{
    const struct pki_request q = {.name = name,
                                  .role = role,
                                  .key = PKI_EC_P256,
                                  .days = PKI_DAYS,
                                  .addresses = &address,
                                  .n_addresses = address ? 1 : 0};

    return pki_issue(dir, &q, why, why_size);
}

static int
build_certificates(struct lab *lab)
{
    char hosts[LAB_PATH_MAX], control[LAB_PATH_MAX], address[32], why[300];
    int error;

    lab_path(hosts, sizeof hosts, lab->pool.dir, "pki");
    lab_path(control, sizeof control, lab->pool.dir, "pki-control");
    error = pki_init(hosts, "lab hosts", PKI_EC_P256, PKI_CA_DAYS, why, sizeof why);
    if (!error) {
        error = pki_init(control, "lab control", PKI_EC_P256, PKI_CA_DAYS, why, sizeof why);
    }
    if (!error) {
        error = issue(control, CONTROLLER, NULL, LAB_MANAGE_CONTROLLER, why, sizeof why);
    }
    if (!error) {
        error = issue(hosts, USER, "admin", NULL, why, sizeof why);
    }
    for (unsigned i = 0; !error && i < lab->config.n_hosts; i++) {
        snprintf(address, sizeof address, LAB_MANAGE_SUBNET ".%u", i + 1);
        error = issue(hosts, lab->hosts[i].name, NULL, address, why, sizeof why);
    }
    return error ? lab_fail(lab, error, "certificates: %.200s", why) : 0;
}

int
lab_manage_build(struct super *s)
{
    int error = build_network(s->lab);

    return error ? error : build_certificates(s->lab);
}

/* --- who is told what --------------------------------------------------------------- */

/* Key, certificate and the others' authority, from the second argument on. */
static void
tls_args(const struct lab *lab, const char *format[3], const char *own, const char *name,
         const char *ca, struct lab_manage_args *a)
{
    const char *dir = lab->pool.dir;

    snprintf(a->text[1], sizeof a->text[1], "%s%s/%s/%s.key", format[0], dir, own, name);
    snprintf(a->text[2], sizeof a->text[2], "%s%s/%s/%s.crt", format[1], dir, own, name);
    snprintf(a->text[3], sizeof a->text[3], "%s%s/%s/ca.crt", format[2], dir, ca);
}

static const char *options[] = {"--private-key=", "--certificate=", "--ca-cert="};

void
lab_manage_host_args(const struct lab *lab, const struct lab_host *h, struct lab_manage_args *a)
{
    snprintf(a->text[0], sizeof a->text[0], "--remote=pssl:%d:" LAB_MANAGE_SUBNET ".%u",
             LAB_MANAGE_OVSDB_PORT, number(lab, h));
    tls_args(lab, options, "pki", h->name, "pki-control", a);
}

void
lab_manage_ssl(const struct lab *lab, const struct lab_host *h, struct lab_manage_args *a)
{
    static const char *plain[] = {"", "", ""};

    snprintf(a->text[0], sizeof a->text[0], "set-ssl");
    tls_args(lab, plain, "pki", h->name, "pki-control", a);
}

void
lab_manage_controller_args(const struct lab *lab, struct lab_manage_args *a)
{
    snprintf(a->text[0], sizeof a->text[0], "--rest=ssl:%d:" LAB_MANAGE_CONTROLLER,
             LAB_MANAGE_REST_PORT);
    tls_args(lab, options, "pki-control", CONTROLLER, "pki", a);
}

void
lab_manage_environment(const struct lab *lab, struct lab_manage_args *a)
{
    static const char *names[] = {"WEFT_PRIVATE_KEY=", "WEFT_CERTIFICATE=", "WEFT_CA_CERT="};

    snprintf(a->text[0], sizeof a->text[0], "WEFT_CONTROLLER=https://" LAB_MANAGE_CONTROLLER ":%d",
             LAB_MANAGE_REST_PORT);
    tls_args(lab, names, "pki", USER, "pki-control", a);
}
