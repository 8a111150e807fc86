#include "pki_cmd.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli_cmd.h"
#include "cli_opt.h"
#include "pki.h"

#define DIR_DEFAULT "/etc/weft/pki"

/* What the commands' options say. */
struct pki_args {
    char prefix[32];
    const char *dir, *key, *role, *tenant;
    unsigned days;
    struct cli_list addresses;
    bool json;
    const char *name; /* the operand */
};

enum { DIR = 1, KEY = 2, DAYS = 4, ADDRESS = 8, ROLE = 16, JSON = 32, NAME = 64, MAYBE_NAME = 128 };

/* Options before and behind the one operand.  False: '*exit_code' is set. */
static bool
parse(struct pki_args *a, const char *verb, unsigned takes, const char *usage, const char *examples,
      int argc, char **argv, int *exit_code)
{
    const struct {
        unsigned if_taken;
        struct cli_opt opt;
    } all[] = {
        {DIR, {"dir", CLI_STRING, &a->dir, "DIR", "the authority's ($WEFT_PKI, " DIR_DEFAULT ")"}},
        {ADDRESS, {"address", CLI_LIST, &a->addresses, "IP", "or another name; may be repeated"}},
        {ROLE, {"role", CLI_STRING, &a->role, "ROLE", "admin, operator or viewer"}},
        {ROLE, {"tenant", CLI_STRING, &a->tenant, "NAME", "a user of this tenant only"}},
        {KEY, {"key", CLI_STRING, &a->key, "KIND", "ec (P-256, the default) or rsa (3072 bits)"}},
        {DAYS, {"days", CLI_UINT, &a->days, "N", "how long it is good", 1, PKI_DAYS_MAX}},
        {JSON, {"json", CLI_FLAG, &a->json, NULL, "for programs"}},
    };
    struct cli_opt opts[8];
    size_t n = 0;
    char why[200];
    int error = 0;

    snprintf(a->prefix, sizeof a->prefix, "weft pki %s", verb);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (takes & all[i].if_taken) {
            opts[n++] = all[i].opt;
        }
    }
    while (!error && argc > 0) {
        error = cli_parse(opts, n, &argc, &argv, why, sizeof why);
        if (!error && argc > 0) {
            if (a->name || !(takes & (NAME | MAYBE_NAME))) {
                snprintf(why, sizeof why, "\"%.80s\" is too much", argv[0]);
                error = EINVAL;
            }
            a->name = *argv++;
            argc--;
        }
    }
    if (error == ECANCELED) {
        printf("Usage: %s %s\n\nOptions:\n", a->prefix, usage);
        cli_print_options(opts, n);
        printf("\nExamples:\n%s", examples);
        *exit_code = CLI_OK;
        return false;
    }
    if (!error && takes & NAME && !a->name) {
        snprintf(why, sizeof why, "which one? %s", usage);
        error = EINVAL;
    }
    if (!error && a->key && strcmp(a->key, "ec") && strcmp(a->key, "rsa")) {
        snprintf(why, sizeof why, "--key takes ec or rsa");
        error = EINVAL;
    }
    if (error) {
        *exit_code = cli_usage_error(a->prefix, why);
        return false;
    }
    if (!a->dir) {
        const char *env = getenv("WEFT_PKI");
        a->dir = env && *env ? env : DIR_DEFAULT;
    }
    return true;
}

static enum pki_key
key_of(const struct pki_args *a)
{
    return a->key && !strcmp(a->key, "rsa") ? PKI_RSA_3072 : PKI_EC_P256;
}

static int
ended(const struct pki_args *a, int error, const char *why, const char *what)
{
    if (error) {
        fprintf(stderr, "%s: %s\n", a->prefix, why);
        return CLI_FAILED;
    }
    puts(what);
    return CLI_OK;
}

static int
init_main(int argc, char **argv)
{
    struct pki_args a = {.days = PKI_CA_DAYS};
    char why[600], what[700];
    int code;

    if (!parse(&a, "init", NAME | KEY | DAYS, "DIR [OPTION...]", "  weft pki init /etc/weft/pki\n",
               argc, argv, &code)) {
        return code;
    }
    code = pki_init(a.name, "Weft pool CA", key_of(&a), a.days, why, sizeof why);
    snprintf(what, sizeof what,
             "%.500s/ca.crt and crl.pem go to every host; ca.key stays here, and safe", a.name);
    return ended(&a, code, why, what);
}

static int
issue(struct pki_args *a, const char *role)
{
    struct pki_request q = {.name = a->name,
                            .role = role,
                            .key = key_of(a),
                            .days = a->days,
                            .addresses = a->addresses.v,
                            .n_addresses = a->addresses.n};
    char why[600], what[700];
    int error = pki_issue(a->dir, &q, why, sizeof why);

    snprintf(what, sizeof what, "%.500s/%.64s.crt and .key", a->dir, a->name);
    return ended(a, error, why, what);
}

static int
host_main(int argc, char **argv)
{
    struct pki_args a = {.days = PKI_DAYS};
    int code;

    if (!parse(&a, "host", NAME | DIR | KEY | DAYS | ADDRESS, "NAME [OPTION...]",
               "  weft pki host h1 --address 10.0.0.11 --address fd00::11\n"
               "  weft pki host controller --address 10.0.0.2\n",
               argc, argv, &code)) {
        return code;
    }
    return issue(&a, NULL);
}

static int
user_main(int argc, char **argv)
{
    struct pki_args a = {.days = PKI_DAYS};
    char role[100];
    int code;

    if (!parse(&a, "user", NAME | DIR | KEY | DAYS | ROLE, "NAME --role ROLE | --tenant NAME",
               "  weft pki user alice --role operator\n"
               "  weft pki user bob --tenant acme --days 30\n",
               argc, argv, &code)) {
        return code;
    }
    if (!a.role == !a.tenant) {
        return cli_usage_error(a.prefix, "takes --role or --tenant");
    }
    snprintf(role, sizeof role, "%s%.70s", a.tenant ? "tenant:" : "", a.tenant ? a.tenant : a.role);
    return issue(&a, role);
}

static int
rotate_main(int argc, char **argv)
{
    struct pki_args a = {.days = PKI_DAYS};
    char why[600], what[700];
    int code;

    if (!parse(&a, "rotate", NAME | DIR | DAYS, "NAME [OPTION...]", "  weft pki rotate h1\n", argc,
               argv, &code)) {
        return code;
    }
    code = pki_rotate(a.dir, a.name, a.days, why, sizeof why);
    snprintf(what, sizeof what,
             "%.500s/%.64s.crt and .key are new; the old ones are good until "
             "they expire, or: weft pki revoke (before)",
             a.dir, a.name);
    return ended(&a, code, why, what);
}

static int
revoke_main(int argc, char **argv)
{
    struct pki_args a = {0};
    char why[600], what[700];
    int code;

    if (!parse(&a, "revoke", NAME | DIR, "NAME [OPTION...]", "  weft pki revoke bob\n", argc, argv,
               &code)) {
        return code;
    }
    code = pki_revoke(a.dir, a.name, why, sizeof why);
    snprintf(what, sizeof what, "%.500s/crl.pem is new: bring it to every controller", a.dir);
    return ended(&a, code, why, what);
}

/* --- show ------------------------------------------------------------------------------- */

struct shown {
    const char *name; /* NULL: all */
    json_t *list;     /* NULL: a table */
    unsigned n;
};

static void
show_one(const struct pki_cert *c, void *shown_)
{
    struct shown *s = shown_;
    char date[24] = "?", state[60];
    time_t after = (time_t)c->not_after;
    long days = (long)((c->not_after - time(NULL)) / 86400);
    struct tm tm;

    if (s->name && (c->ca || strcmp(s->name, c->name) != 0)) {
        return;
    }
    s->n++;
    if (s->list) {
        json_array_append_new(s->list,
                              json_pack("{s:s, s:b, s:s, s:s, s:s, s:I, s:I, s:b, s:s}", "name",
                                        c->name, "ca", c->ca, "ou", c->ou, "names", c->names, "key",
                                        c->key, "not_before", (json_int_t)c->not_before,
                                        "not_after", (json_int_t)c->not_after, "key_there",
                                        c->key_there, "state", c->wrong ? c->wrong : "good"));
        return;
    }
    if (gmtime_r(&after, &tm)) {
        strftime(date, sizeof date, "%Y-%m-%d", &tm);
    }
    if (c->wrong) {
        snprintf(state, sizeof state, "%s", c->wrong);
    } else {
        snprintf(state, sizeof state, "%ld days%s", days, c->key_there ? "" : ", no key here");
    }
    if (s->n == 1) {
        printf("%-20s %-16s %-11s %-20s %-8s %s\n", "NAME", "ROLE", "UNTIL", "STATE", "KEY",
               "NAMES");
    }
    printf("%-20s %-16s %-11s %-20s %-8s %s\n", c->name, c->ou, date, state, c->key, c->names);
}

static int
show_main(int argc, char **argv)
{
    struct pki_args a = {0};
    struct shown s = {NULL, NULL, 0};
    char why[600];
    int code;

    if (!parse(&a, "show", MAYBE_NAME | DIR | JSON, "[NAME] [OPTION...]",
               "  weft pki show\n  weft pki show h1 --json\n", argc, argv, &code)) {
        return code;
    }
    s.name = a.name;
    s.list = a.json ? json_array() : NULL;
    code = pki_list(a.dir, show_one, &s, why, sizeof why);
    if (!code && a.name && !s.n) {
        snprintf(why, sizeof why, "%.80s has no certificate in %.400s", a.name, a.dir);
        code = ENOENT;
    }
    if (s.list && !code) {
        json_dumpf(s.list, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(s.list);
    if (code) {
        fprintf(stderr, "%s: %s\n", a.prefix, why);
    }
    return code ? CLI_FAILED : CLI_OK;
}

static const struct cli_cmd commands[] = {
    {"init", "a new authority", init_main},
    {"host", "a certificate for a host or a controller", host_main},
    {"user", "a certificate for somebody who uses the REST interface", user_main},
    {"show", "what there is, and until when", show_main},
    {"rotate", "a new key and certificate for whom there is one", rotate_main},
    {"revoke", "a certificate is good no more", revoke_main},
};

static const struct cli_group pki_group = {
    .prefix = "weft pki",
    .about = "certificates of the pool: an authority, hosts, users",
    .examples = "  weft pki init /etc/weft/pki\n"
                "  weft pki host h1 --address 10.0.0.11\n"
                "  weft pki user alice --role admin\n"
                "  weft pki show\n"
                "  weft pki rotate h1\n",
    .cmds = commands,
    .n_cmds = sizeof commands / sizeof commands[0],
};

int
pki_main(int argc, char **argv)
{
    return cli_dispatch(&pki_group, argc, argv);
}
