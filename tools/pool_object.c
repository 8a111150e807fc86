/* "weft NOUN list|show|add|set|remove", one implementation for all classes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool_cmd.h"
#include "pool_db.h"
#include "vm_cmd.h"

/* Of the noun that is being dealt with. */
static const struct pool_class *class;

static int
usage_error(const struct pool_args *a, const char *why)
{
    return cli_usage_error(a->prefix, why);
}

static void
path_of(const char *name, char *path, size_t size)
{
    snprintf(path, size, "/v1/%s%s%s", class->plural, name ? "/" : "", name ? name : "");
}

/* --- reading -------------------------------------------------------------------- */

static int
list_main(int argc, char **argv)
{
    struct pool_args a;
    struct pool_client *client;
    char path[60];
    json_t *answer;
    int code;

    if (!pool_args_parse(&a, class->noun, "list", "[OPTION...]",
                         "  weft network list\n  weft vif list --json | jq .vifs\n", NULL, 0, argc,
                         argv, &code)) {
        return code;
    }
    if (a.n) {
        return usage_error(&a, "takes options only");
    }
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    path_of(NULL, path, sizeof path);
    if (pool_call(client, "GET", path, NULL, NULL, POOL_CALL_S, &answer)) {
        code = pool_call_failed(&a, client);
    } else {
        if (a.json) {
            pool_print_json(answer);
        } else {
            pool_print_table(class, json_object_get(answer, class->plural));
        }
        json_decref(answer);
        code = CLI_OK;
    }
    pool_client_close(client);
    return code;
}

/* The rules of a policy, as one reads them. */
static int
print_rules(const struct pool_args *a, struct pool_client *client, const json_t *policy)
{
    const struct pool_class *rules = pool_class_by_noun("rule");
    json_t *answer, *mine = json_array(), *rule;
    size_t i;

    if (pool_call(client, "GET", "/v1/rules", NULL, NULL, POOL_CALL_S, &answer)) {
        json_decref(mine);
        return pool_call_failed(a, client);
    }
    json_array_foreach(json_object_get(answer, "rules"), i, rule)
    {
        if (json_equal(json_object_get(rule, "policy"), json_object_get(policy, "name"))) {
            json_object_del(rule, "policy");
            json_array_append(mine, rule);
        }
    }
    if (json_array_size(mine)) {
        putchar('\n');
        pool_print_table(rules, mine);
    }
    json_decref(mine);
    json_decref(answer);
    return CLI_OK;
}

static int
show_main(int argc, char **argv)
{
    struct pool_args a;
    struct pool_client *client;
    char path[700];
    json_t *answer;
    int code;

    if (!pool_args_parse(&a, class->noun, "show",
                         class->single ? "[OPTION...]" : "NAME [OPTION...]",
                         "  weft network show blue\n  weft rule show base/ssh --json\n", NULL, 0,
                         argc, argv, &code)) {
        return code;
    }
    if (a.n != !class->single) {
        return usage_error(&a, class->single ? "takes options only" : "takes one name or uuid");
    }
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    path_of(class->single ? NULL : a.operands[0], path, sizeof path);
    if (pool_call(client, "GET", path, NULL, NULL, POOL_CALL_S, &answer)) {
        code = pool_call_failed(&a, client);
    } else {
        code = CLI_OK;
        if (a.json) {
            pool_print_json(answer);
        } else {
            pool_print_object(class, answer);
            if (!strcmp(class->noun, "policy")) {
                code = print_rules(&a, client, answer);
            }
        }
        json_decref(answer);
    }
    pool_client_close(client);
    return code;
}

/* --- FIELD=VALUE ------------------------------------------------------------------- */

/* "a,b" or a JSON array of strings, for names that hold commas. */
static json_t *
set_of(const char *text)
{
    json_t *array;

    if (*text == '[') {
        return json_loads(text, 0, NULL);
    }
    array = json_array();
    while (*text) {
        size_t n = strcspn(text, ",");
        if (json_array_append_new(array, json_stringn(text, n))) { /* not UTF-8 */
            json_decref(array);
            return NULL;
        }
        text += n + (text[n] == ',');
    }
    return array;
}

static json_t *
value_of(const struct pool_field *f, const char *text)
{
    char *end;

    if (f->flags & POOL_SET) {
        return set_of(text);
    }
    if (!*text) {
        return json_null();
    }
    if (f->type == POOL_BOOLEAN) {
        bool yes = !strcmp(text, "true") || !strcmp(text, "yes");
        return yes || !strcmp(text, "false") || !strcmp(text, "no") ? json_boolean(yes) : NULL;
    }
    if (f->type == POOL_INTEGER) {
        errno = 0;
        long long v = strtoll(text, &end, 10);
        return errno || end == text || *end ? NULL : json_integer(v);
    }
    return json_string(text);
}

static int
no_such_field(const struct pool_args *a, const char *name)
{
    char why[200];
    const char *near =
        cli_nearest(name, &class->fields[0].name, class->n_fields, sizeof class->fields[0]);

    snprintf(why, sizeof why, "a %s has no field \"%.40s\"%s%s%s", class->noun, name,
             near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return usage_error(a, why);
}

/* Takes 'v'.  What is added or removed may be said in several words; else a field is
 * stated once, or one word would undo the other. */
static int
state(const struct pool_args *a, json_t *body, const char *name, char op, json_t *v)
{
    const char *member = op == '+' ? "add" : "remove";
    json_t *before = json_object_get(body, name), *list = json_object_get(before, member);
    char why[100];

    if (before && (op == '=' || !json_is_object(before))) {
        json_decref(v);
        snprintf(why, sizeof why, "%.40s is stated twice", name);
        return usage_error(a, why);
    }
    if (op == '=') {
        json_object_set_new(body, name, v);
        return CLI_OK;
    }
    if (!before) {
        before = json_object();
        json_object_set_new(body, name, before);
    }
    if (list) {
        json_array_extend(list, v);
        json_decref(v);
    } else {
        json_object_set_new(before, member, v);
    }
    return CLI_OK;
}

/* One "FIELD=VALUE", "FIELD+=..." or "FIELD-=..." into 'body'. */
static int
assign(const struct pool_args *a, const char *word, json_t *body)
{
    size_t n = strcspn(word, "=");
    char op = n && strchr("+-", word[n - 1]) ? word[n - 1] : '=';
    char name[40], why[200];
    const struct pool_field *f;
    json_t *v;

    snprintf(name, sizeof name, "%.*s", (int)(op == '=' ? n : n - 1), word);
    if (!word[n] || !*name) {
        snprintf(why, sizeof why, "FIELD=VALUE is expected, not \"%.60s\"", word);
        return usage_error(a, why);
    }
    if (!strcmp(name, "name") && op == '=') {
        v = json_string(word + n + 1);
        return v ? state(a, body, name, op, v) : usage_error(a, "name takes text");
    }
    f = pool_field_find(class, name);
    if (!f) {
        return no_such_field(a, name);
    }
    v = op != '=' && !(f->flags & POOL_SET) ? NULL : value_of(f, word + n + 1);
    if (!v) {
        static const char *const kinds[] = {"text", "a number", "true or false", "a name"};
        snprintf(why, sizeof why, op == '=' ? "%s takes %s" : "%s is no set, and takes %s", name,
                 f->flags & POOL_SET ? "a,b,c or a JSON array" : kinds[f->type]);
        return usage_error(a, why);
    }
    return state(a, body, name, op, v);
}

static void
print_fields(void)
{
    printf("\nFields:\n");
    for (size_t i = 0; i < class->n_fields; i++) {
        const struct pool_field *f = &class->fields[i];
        if (!(f->flags & POOL_STATUS)) {
            printf("  %-22s %s%s%s\n", f->name, f->help, f->flags & POOL_SET ? " (a,b,c)" : "",
                   f->flags & POOL_REQUIRED ? " (must be given)" : "");
        }
    }
}

/* Each class has its own of these. */
static const char *const change_examples[] = {
    "  weft pool set default_action=allow --wait\n",
    "  weft host add h1 ovsdb=ssl:10.0.0.11:6640 uplink=eth1 tunnel_ip=10.0.0.11\n",
    "  weft host set h1 enabled=false              (is left alone)\n",
    "  weft tenant add acme\n",
    "  weft network add blue type=vlan tag=10 tenant=acme\n",
    "  weft network add red type=overlay vni=5001\n",
    "  weft vm add web1 tenant=acme\n",
    "  weft vif add web1-0 vm=web1 network=blue mac=02:00:00:00:00:01\n",
    "  weft vif set web1-0 locking_mode=locked ipv4_allowed=10.0.0.3,10.0.0.4\n",
    "  weft group add web vms=web1\n",
    "  weft group set web vms+=web2 vms-=web1 --wait\n",
    "  weft policy add base scope=global author=\"the network team\"\n",
    "  weft rule add base/ssh order=10 direction=in action=allow protocol=tcp ports=22\n",
    "  weft rule set base/ssh ports=               (its default: all)\n",
    "  weft user add alice role=operator\n",
    "  weft mirror add look vifs=web1-0 output_ip=192.0.2.9 encapsulation=erspan\n",
    "  weft exporter add flows protocol=ipfix targets=192.0.2.9:4739\n",
    "  weft bond add h1-uplink host=h1 port=bond0 interfaces=eth0,eth1\n",
    "  weft pif add h1-eth0 host=h1 device=eth0\n",
};

/* Those of the noun that is being dealt with, in a static buffer. */
static const char *
examples(void)
{
    static char text[400];
    char begin[40];
    size_t n = 0;
    int len = snprintf(begin, sizeof begin, "  weft %s ", class->noun);

    text[0] = '\0';
    for (size_t i = 0; i < sizeof change_examples / sizeof change_examples[0]; i++) {
        if (!strncmp(change_examples[i], begin, (size_t)len) && n < sizeof text) {
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", change_examples[i]);
        }
    }
    return text;
}

/* What is added has its name, and a rule its policy, from the first word. */
static int
name_in(const struct pool_args *a, json_t *body, const char *name)
{
    const char *slash = class->within ? strchr(name, '/') : NULL;
    json_t *own = json_string(slash ? slash + 1 : name);
    int code = own ? CLI_OK : usage_error(a, "the name is not UTF-8");

    if (!code && slash) {
        code = state(a, body, class->within, '=', json_stringn(name, slash - name));
    }
    if (!code) {
        code = state(a, body, "name", '=', own);
    } else {
        json_decref(own);
    }
    return code;
}

/* "add" and "set". */
static int
change_main(const char *verb, int argc, char **argv)
{
    bool add = !strcmp(verb, "add");
    struct pool_args a;
    struct pool_client *client = NULL;
    const char *name;
    char path[700];
    json_t *body, *answer;
    int code;

    if (!pool_args_parse(&a, class->noun, verb,
                         class->single ? "FIELD=VALUE... [OPTION...]"
                                       : "NAME FIELD=VALUE... [OPTION...]",
                         examples(), NULL, 0, argc, argv, &code)) {
        if (code == CLI_OK) {
            print_fields();
        }
        return code;
    }
    name = class->single ? NULL : a.n ? a.operands[0] : "";
    if (name && (!*name || (strchr(name, '=') && !strchr(name, '/')))) {
        return usage_error(&a, "which one? Its name comes first");
    }
    body = json_object();
    code = CLI_OK;
    for (int i = !!name; !code && i < a.n; i++) {
        code = assign(&a, a.operands[i], body);
    }
    if (!code && !add && !json_object_size(body)) {
        code = usage_error(&a, "FIELD=VALUE is missing");
    }
    if (!code && add) {
        code = name_in(&a, body, name);
    }
    if (!code) {
        client = pool_connect(&a);
        path_of(add ? NULL : name, path, sizeof path);
        if (!client) {
            code = CLI_FAILED;
        } else if (pool_call(client, add ? "POST" : "PATCH", path, NULL, body, POOL_CALL_S,
                             &answer)) {
            code = pool_call_failed(&a, client);
        } else {
            code = pool_changed(&a, client, answer);
        }
    }
    pool_client_close(client);
    json_decref(body);
    return code;
}

static int
add_main(int argc, char **argv)
{
    return change_main("add", argc, argv);
}

static int
set_main(int argc, char **argv)
{
    return change_main("set", argc, argv);
}

/* Several go in one transaction, or none. */
static int
remove_main(int argc, char **argv)
{
    struct pool_args a;
    struct pool_client *client;
    json_t *edits, *body, *answer;
    char path[700];
    int code, error;

    if (!pool_args_parse(&a, class->noun, "remove", "NAME... [OPTION...]",
                         "  weft vm remove web1 web2\n  weft rule remove base/ssh --wait\n", NULL,
                         0, argc, argv, &code)) {
        return code;
    }
    if (!a.n) {
        return usage_error(&a, "which one?");
    }
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    edits = json_array();
    for (int i = 0; i < a.n; i++) {
        json_array_append_new(edits, json_pack("{s:s, s:s, s:s}", "op", "remove", "class",
                                               class->noun, "name", a.operands[i]));
    }
    body = json_pack("{s:o}", "edits", edits);
    path_of(a.operands[0], path, sizeof path);
    error = a.n == 1 ? pool_call(client, "DELETE", path, NULL, NULL, POOL_CALL_S, &answer)
                     : pool_call(client, "POST", "/v1/commit", NULL, body, POOL_CALL_S, &answer);
    code = error ? pool_call_failed(&a, client) : pool_changed(&a, client, answer);
    json_decref(body);
    pool_client_close(client);
    return code;
}

/* --- the groups of commands ------------------------------------------------------------ */

static int
class_main(const char *noun, int argc, char **argv)
{
    struct cli_cmd cmds[16] = {
        {"list", "all of them, in a table", list_main},
        {"show", "one of them, every field", show_main},
        {"add", "a new one", add_main},
        {"set", "change fields", set_main},
        {"remove", "take one or several away", remove_main},
    };
    const struct cli_cmd single[] = {{"show", "every field", show_main},
                                     {"set", "change fields", set_main},
                                     {"db", "servers of the pool's database", pool_db_main}};
    char prefix[32];
    struct cli_group group = {.prefix = prefix, .cmds = cmds};

    class = pool_class_by_noun(noun);
    group.examples = examples();
    snprintf(prefix, sizeof prefix, "weft %s", noun);
    group.about = class->about;
    group.n_cmds = 5;
    if (class->single) {
        group.cmds = single;
        group.n_cmds = 3;
        group.examples = "  weft pool set default_action=allow --wait\n"
                         "  weft pool db status /var/lib/weft/pool\n";
    } else if (!strcmp(noun, "policy")) {
        memcpy(cmds + 5, pool_policy_cmds, n_pool_policy_cmds * sizeof *cmds);
        group.n_cmds += n_pool_policy_cmds;
        group.examples = "  weft policy add base scope=global author=\"the network team\"\n"
                         "  weft rule add base/ssh order=10 direction=in action=allow "
                         "protocol=tcp ports=22\n"
                         "  weft policy lint\n"
                         "  weft policy export pool.json\n"
                         "  weft policy check pool.json\n"
                         "  weft policy commit pool.json --confirm 120s --wait\n"
                         "  weft policy confirm\n";
    } else if (!strcmp(noun, "vm")) {
        memcpy(cmds + 5, vm_cmds, n_vm_cmds * sizeof *cmds);
        group.n_cmds += n_vm_cmds;
        group.examples = vm_examples;
    } else if (!strcmp(noun, "host")) {
        memcpy(cmds + 5, host_cmds, n_host_cmds * sizeof *cmds);
        group.n_cmds += n_host_cmds;
        group.examples = host_examples;
    }
    return cli_dispatch(&group, argc, argv);
}

#define CLASS_MAIN(function, noun)                                                                 \
    int function(int argc, char **argv)                                                            \
    {                                                                                              \
        return class_main(noun, argc, argv);                                                       \
    }
CLASS_MAIN(pool_main, "pool")
CLASS_MAIN(pool_host_main, "host")
CLASS_MAIN(pool_tenant_main, "tenant")
CLASS_MAIN(pool_network_main, "network")
CLASS_MAIN(pool_vm_main, "vm")
CLASS_MAIN(pool_vif_main, "vif")
CLASS_MAIN(pool_group_main, "group")
CLASS_MAIN(pool_policy_main, "policy")
CLASS_MAIN(pool_rule_main, "rule")
CLASS_MAIN(pool_user_main, "user")
CLASS_MAIN(pool_mirror_main, "mirror")
CLASS_MAIN(pool_exporter_main, "exporter")
CLASS_MAIN(pool_bond_main, "bond")
CLASS_MAIN(pool_pif_main, "pif")
