/* The pool database against a real ovsdb-server: changes as one transaction or
 * none, keys, others' edits, status, a server that dies, two controllers. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ctl_side.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/vlog.h"
#include "packets.h"
#include "pool_row.h"
#include "timeval.h"
#include "util.h"
#include "uuid.h"

static struct answer
removal(struct side *s, enum rec_kind kind, const char *name)
{
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_create();
    struct answer a;

    memset(&a, 0, sizeof a);
    doc_add_removal(doc, kind, name, &errors);
    pool_db_apply(s->db, doc, POOL_MERGE, false, NULL, got, &a);
    until(s, NULL, is_done, &a);
    return a;
}

static const char sound[] =
    "{\"version\":1,\"pool\":{\"name\":\"lab\"},\"tenants\":[{\"name\":\"red\"}],"
    "\"hosts\":[{\"name\":\"h1\",\"ovsdb\":\"unix:/run/h1\"}],"
    "\"networks\":[{\"name\":\"web\",\"type\":\"vlan\",\"tag\":10},"
    "{\"name\":\"net2\",\"type\":\"overlay\",\"vni\":5000,\"tenant\":\"red\"}],"
    "\"vms\":[{\"name\":\"a\",\"tenant\":\"red\"},{\"name\":\"b\"}],"
    "\"vifs\":[{\"name\":\"a0\",\"vm\":\"a\",\"network\":\"web\",\"mac\":\"02:00:00:00:00:01\","
    "\"locking_mode\":\"locked\",\"ipv4_allowed\":[\"10.0.0.1\"]},"
    "{\"name\":\"b0\",\"vm\":\"b\",\"network\":\"web\",\"mac\":\"02:00:00:00:00:02\"}],"
    "\"groups\":[{\"name\":\"all\",\"vms\":[\"a\"],\"groups\":[\"more\"]},"
    "{\"name\":\"more\",\"vifs\":[\"b0\"],\"addresses\":[\"192.168.0.0/16\"]}],"
    "\"policies\":[{\"name\":\"base\",\"scope\":\"pool\",\"rules\":["
    "{\"name\":\"web\",\"order\":10,\"direction\":\"in\",\"action\":\"allow\",\"protocol\":\"tcp\","
    "\"ports\":[\"80\",\"8000-8080\"],\"remote_group\":\"all\"},"
    "{\"name\":\"ping\",\"order\":20,\"direction\":\"in\",\"action\":\"allow\","
    "\"protocol\":\"icmp\",\"icmp_type\":8}]}]}";

static void
test_import(struct side *s)
{
    struct answer a;
    struct model_network *net;
    struct model_obj *obj;
    uint64_t keys = 0;

    CASE("a new database gets a pool");
    CHECK(until(s, NULL, connected, NULL));
    CHECK(s->m->generation == 1 && s->m->default_action == MODEL_DENY);

    CASE("an import is one transaction");
    a = apply(s, sound, POOL_REPLACE);
    CHECK(!a.error && a.created == 13 && a.changed == 1 && !a.deleted);
    CHECK(a.generation == 2 && s->m->generation == 2);

    CASE("all of it is live, with keys of its own");
    for (enum rec_kind k = REC_HOST; k < REC_N_KINDS; k++) {
        MODEL_FOR_EACH (obj, s->m, k) {
            CHECK(obj->live && obj->key && obj->key < 64 && !(keys & 1ull << obj->key));
            keys |= 1ull << obj->key;
        }
    }
    net = model_network(model_by_name(s->m, REC_NETWORK, "web"));
    CHECK(net && net->zone && net->policy_epoch == 1);

    CASE("the same again changes nothing");
    a = apply(s, sound, POOL_REPLACE);
    CHECK(!a.error && !a.created && !a.changed && !a.deleted && a.generation == 2);
}

/* The pool as a document would leave it, beside the pool as it is. */
static void
test_aside(struct side *s)
{
    const char *text =
        "{\"version\":1,\"policies\":[{\"name\":\"base\",\"scope\":\"pool\",\"rules\":["
        "{\"name\":\"ping\",\"order\":20,\"direction\":\"in\",\"action\":\"deny\","
        "\"protocol\":\"icmp\"},"
        "{\"name\":\"new\",\"order\":30,\"direction\":\"out\",\"action\":\"allow\"}]}]}";
    struct model_host *h1 = model_host(model_by_name(s->m, REC_HOST, "h1"));
    struct model_vif *a0 = model_vif(model_by_name(s->m, REC_VIF, "a0"));
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_parse(text, strlen(text), &errors);
    struct model_obj *obj, *now;
    struct uuid ping = UUID_ZERO;
    struct model *aside;
    size_t n_rules = 0, n_same = 0;

    CASE("a model aside is what a document would make of the pool");
    model_ports_begin(s->m);
    model_port_report(s->m, h1, "tap0", &a0->xs_uuid, &a0->mac, 7);
    model_ports_end(s->m, h1);
    model_settle(s->m);
    aside = pool_db_aside(s->db, doc, &errors);
    CHECK(aside && !errors.n);
    MODEL_FOR_EACH (obj, aside, REC_RULE) {
        now = model_any_by_uuid(s->m, REC_RULE, &obj->uuid);
        n_rules += obj->live;
        ping = !strcmp(obj->name, "ping") ? obj->uuid : ping;
        n_same += now && now->key == obj->key && model_rule(obj)->action == MODEL_DENY &&
                  model_rule(now)->action == MODEL_ALLOW;
    }
    CHECK(n_rules == 2 && n_same == 1); /* "ping" is the same rule, "web" is gone */
    obj = model_by_name(aside, REC_VIF, "a0");
    CHECK(obj && obj->key == a0->obj.key && model_vif(obj)->host &&
          !strcmp(model_vif(obj)->host->obj.name, "h1") &&
          model_vif_port(model_vif(obj), model_vif(obj)->host)->ofport == 7);
    CHECK(model_rule(model_any_by_uuid(s->m, REC_RULE, &ping))->action == MODEL_ALLOW &&
          s->m->generation == 2);
    model_destroy(aside);
    doc_free(doc);

    CASE("a document that is wrong makes none");
    text = "{\"version\":1,\"networks\":[]}";
    doc = doc_parse(text, strlen(text), &errors);
    CHECK(!pool_db_aside(s->db, doc, &errors) && errors.n);
    doc_free(doc);
    doc_errors_clear(&errors);
    model_ports_begin(s->m);
    model_ports_end(s->m, h1);
    model_settle(s->m);
    rest(s, 100);
    CHECK(hmap_count(&s->m->objs[REC_RULE]) == 2 && model_by_name(s->m, REC_NETWORK, "web"));
}

static void
test_bad(struct side *s)
{
    struct answer a;

    CASE("an error changes nothing, and names object and field");
    a = apply(s,
              "{\"version\":1,\"networks\":[{\"name\":\"new\",\"type\":\"vlan\",\"tag\":77},"
              "{\"name\":\"web\",\"tag\":77}]}",
              POOL_MERGE);
    CHECK(a.error == EINVAL && !strcmp(a.object, "network new") && !strcmp(a.field, "tag"));
    CHECK(strstr(a.message, "web"));
    CHECK(!model_by_name(s->m, REC_NETWORK, "new"));
    CHECK(model_network(model_by_name(s->m, REC_NETWORK, "web"))->tag == 10);
    rest(s, 200);
    CHECK(s->m->generation == 2);

    CASE("what others refer to is not removed");
    a = removal(s, REC_NETWORK, "web");
    CHECK(a.error == EINVAL && !strcmp(a.field, "network") && strstr(a.message, "\"web\""));
    a = removal(s, REC_GROUP, "all");
    CHECK(a.error == EINVAL && !strcmp(a.object, "rule base/web") &&
          !strcmp(a.field, "remote_group"));
    a = removal(s, REC_TENANT, "nobody");
    CHECK(a.error == EINVAL && !strcmp(a.object, "tenant nobody"));

    CASE("a loop of groups is refused");
    a = apply(s, "{\"version\":1,\"groups\":[{\"name\":\"more\",\"groups\":[\"all\"]}]}",
              POOL_MERGE);
    CHECK(a.error == EINVAL && !strcmp(a.field, "groups") && strstr(a.message, "in itself"));
    CHECK(model_by_name(s->m, REC_GROUP, "all") && model_by_name(s->m, REC_GROUP, "more"));
}

static void
test_merge(struct side *s)
{
    struct model_group *all;
    struct answer a;
    uint32_t key = model_by_name(s->m, REC_NETWORK, "web")->key;

    CASE("a merge changes what it names, no more");
    s->changes = 0;
    a = apply(s, "{\"version\":1,\"vifs\":[{\"name\":\"b0\",\"addresses\":[\"10.9.9.9\"]}]}",
              POOL_MERGE);
    CHECK(!a.error && a.changed == 1 && !a.created && a.generation == 3);
    CHECK(s->changes <= 8);
    all = model_group(model_by_name(s->m, REC_GROUP, "all"));
    CHECK(all && model_group_prefixes(s->m, all)->n == 3);

    CASE("a rename keeps the key");
    {
        struct doc_errors errors = {NULL, 0, false};
        struct doc *doc = doc_create();
        struct rec *r;

        memset(&a, 0, sizeof a);
        r = &doc_append(doc, REC_NETWORK)->rec;
        doc->items[0].rename = xstrdup("web");
        free(r->name);
        r->name = xstrdup("www");
        pool_db_apply(s->db, doc, POOL_MERGE, false, NULL, got, &a);
        until(s, NULL, is_done, &a);
        doc_errors_clear(&errors);
    }
    CHECK(!a.error && model_by_name(s->m, REC_NETWORK, "www") &&
          model_by_name(s->m, REC_NETWORK, "www")->key == key &&
          !model_by_name(s->m, REC_NETWORK, "web"));

    CASE("a policy goes with its rules, a VM with its vifs, a vif with its trunk");
    a = apply(
        s,
        "{\"version\":1,\"policies\":[{\"name\":\"x\",\"scope\":\"global\",\"rules\":["
        "{\"order\":1,\"direction\":\"in\",\"action\":\"deny\"}]}],\"vms\":[{\"name\":\"c\"}],"
        "\"vifs\":[{\"name\":\"c0\",\"vm\":\"c\",\"network\":\"www\","
        "\"mac\":\"02:00:00:00:00:03\"}]}",
        POOL_MERGE);
    CHECK(!a.error && a.created == 4);
    a = removal(s, REC_POLICY, "x");
    CHECK(!a.error && a.deleted == 2);
    a = apply(s,
              "{\"version\":1,\"networks\":[{\"name\":\"in\",\"type\":\"vlan\",\"tag\":999}],"
              "\"vifs\":[{\"name\":\"c1\",\"vm\":\"c\",\"network\":\"in\",\"parent\":\"c0\","
              "\"tag\":5,\"mac\":\"02:00:00:00:00:03\"}]}",
              POOL_MERGE);
    CHECK(!a.error && a.created == 2 && model_vif(model_by_name(s->m, REC_VIF, "c1"))->parent);
    a = removal(s, REC_VIF, "c0");
    CHECK(!a.error && a.deleted == 2 && !model_any_by_name(s->m, REC_VIF, "c1", NULL));
    a = removal(s, REC_NETWORK, "in");
    CHECK(!a.error && a.deleted == 1);
    a = apply(s,
              "{\"version\":1,\"vifs\":[{\"name\":\"c0\",\"vm\":\"c\",\"network\":\"www\","
              "\"mac\":\"02:00:00:00:00:03\"}]}",
              POOL_MERGE);
    a = removal(s, REC_VM, "c");
    CHECK(!a.error && a.deleted == 2 && !model_by_name(s->m, REC_VIF, "c0"));

    CASE("rules of a named policy are replaced as a whole");
    a = apply(s,
              "{\"version\":1,\"policies\":[{\"name\":\"base\",\"rules\":["
              "{\"name\":\"web\",\"order\":11,\"direction\":\"in\",\"action\":\"allow\"}]}]}",
              POOL_MERGE);
    CHECK(!a.error && a.changed == 1 && a.deleted == 1 && !a.created);
}

static bool
network_has(struct side *s, const void *name)
{
    return model_by_name(s->m, REC_NETWORK, name);
}

static bool
has_error(struct side *s, const void *name)
{
    const struct model_obj *obj = model_any_by_name(s->m, REC_NETWORK, name, NULL);
    const struct ovsdb_idl_row *row =
        obj ? pool_row_find(pool_db_idl(s->db), REC_NETWORK, &obj->uuid) : NULL;

    return row && *pool_row_get_string(row, REC_NETWORK, "error");
}

static bool
error_is_gone(struct side *s, const void *name)
{
    return network_has(s, name) && !has_error(s, name);
}

#define INSERT(NAME, TAG)                                                                          \
    "[\"Weft_Pool\",{\"op\":\"insert\",\"table\":\"Network\",\"row\":{\"name\":\"" NAME            \
    "\",\"type\":\"vlan\",\"tag\":" TAG ",\"encapsulation\":\"vxlan\",\"mtu\":1500,"               \
    "\"default_locking_mode\":\"unlocked\",\"policy_epoch\":1}}]"

static void
test_others(struct side *s)
{
    CASE("a row that somebody else inserts gets a key and a zone");
    CHECK(!ctl_db_transact(&server, INSERT("by-hand", "200")));
    CHECK(until(s, NULL, network_has, "by-hand"));
    CHECK(model_network(model_by_name(s->m, REC_NETWORK, "by-hand"))->zone);

    CASE("one that is wrong is left out, and says why in the database");
    CHECK(!ctl_db_transact(&server, INSERT("second", "200")));
    CHECK(until(s, NULL, has_error, "second"));
    CHECK(network_has(s, "by-hand") && !network_has(s, "second"));

    CASE("it comes in when the cause has gone");
    CHECK(!ctl_db_transact(&server, "[\"Weft_Pool\",{\"op\":\"delete\",\"table\":\"Network\","
                                    "\"where\":[[\"name\",\"==\",\"by-hand\"]]}]"));
    CHECK(until(s, NULL, error_is_gone, "second"));

    CASE("the database refuses to lose what is referred to");
    CHECK(!ctl_db_transact(&server, "[\"Weft_Pool\",{\"op\":\"delete\",\"table\":\"Network\","
                                    "\"where\":[[\"name\",\"==\",\"www\"]]}]"));
    rest(s, 200);
    CHECK(network_has(s, "www"));
}

static const char *
column(struct side *s, enum rec_kind kind, const char *name, const char *what)
{
    const struct model_obj *obj = model_any_by_name(s->m, kind, name, NULL);

    return pool_row_get_string(pool_row_find(pool_db_idl(s->db), kind, &obj->uuid), kind, what);
}

static bool
vif_seen(struct side *s, const void *host)
{
    return !strcmp(column(s, REC_VIF, "a0", "seen_host"), host);
}

static bool
host_error(struct side *s, const void *error)
{
    return !strcmp(column(s, REC_HOST, "h1", "error"), error);
}

static bool
rule_warned(struct side *s, const void *aux)
{
    return strstr(column(s, REC_POLICY, "w", "warning"), "1 of its rules");
}

static void
test_status(struct side *s)
{
    struct model_host_status status = {.connected = true, .drift = 3, .switch_type = "weft"};
    struct model_host *host = model_host(model_by_name(s->m, REC_HOST, "h1"));
    struct model_vif *vif = model_vif(model_by_name(s->m, REC_VIF, "a0"));
    int64_t generation = s->m->generation;
    struct answer a;

    CASE("status reaches the database");
    model_port_report(s->m, host, "vif1.0", NULL, &vif->mac, 7);
    ovs_strlcpy(status.error, "no route", sizeof status.error);
    model_host_set_status(s->m, host, &status);
    CHECK(until(s, NULL, vif_seen, "h1"));
    CHECK(until(s, NULL, host_error, "no route"));
    CHECK(s->m->generation == generation);

    CASE("status is taken back");
    status.error[0] = '\0';
    model_host_set_status(s->m, host, &status);
    model_port_gone(s->m, host, "vif1.0");
    CHECK(until(s, NULL, vif_seen, "") && until(s, NULL, host_error, ""));

    CASE("an unreachable rule is told");
    a = apply(s,
              "{\"version\":1,\"policies\":[{\"name\":\"w\",\"scope\":\"pool\",\"rules\":["
              "{\"name\":\"all\",\"order\":1,\"direction\":\"out\",\"action\":\"allow\"},"
              "{\"name\":\"ssh\",\"order\":2,\"direction\":\"out\",\"action\":\"deny\","
              "\"protocol\":\"tcp\",\"ports\":[\"22\"]}]}]}",
              POOL_MERGE);
    CHECK(!a.error && until(s, NULL, rule_warned, NULL));
}

static void
test_pending(struct side *s)
{
    struct pool_pending pending = {"{\"version\":1}", 123456789, "admin"};
    struct answer a = {.done = false};
    int64_t generation = s->m->generation;

    CASE("a pending commit is kept, also without another change");
    pool_db_apply(s->db, doc_create(), POOL_MERGE, false, &pending, got, &a);
    CHECK(until(s, NULL, is_done, &a) && !a.error && a.generation == generation);
    rest(s, 100);
    CHECK(pool_db_pending(s->db)->deadline_ms == 123456789 &&
          !strcmp(pool_db_pending(s->db)->author, "admin") &&
          !strcmp(pool_db_pending(s->db)->document, "{\"version\":1}"));
    memset(&a, 0, sizeof a);
    pending = (struct pool_pending){"", 0, ""};
    pool_db_apply(s->db, doc_create(), POOL_MERGE, false, &pending, got, &a);
    CHECK(until(s, NULL, is_done, &a) && !a.error);
    rest(s, 100);
    CHECK(!pool_db_pending(s->db)->deadline_ms && !*pool_db_pending(s->db)->document);
}

static void
test_check(struct side *s)
{
    const char *text =
        "{\"version\":1,\"policies\":[{\"name\":\"c\",\"scope\":\"global\",\"rules\":["
        "{\"name\":\"x\",\"order\":1,\"direction\":\"in\",\"action\":\"allow\"},"
        "{\"name\":\"y\",\"order\":1,\"direction\":\"in\",\"action\":\"deny\"}]}]}";
    struct doc_errors errors = {NULL, 0, false};
    struct answer a = {.done = false};

    CASE("a check says what would be, and does nothing");
    pool_db_apply(s->db, doc_parse(text, strlen(text), &errors), POOL_MERGE, true, NULL, got, &a);
    CHECK(a.done && !a.error && a.created == 3 && a.n_warnings >= 2);
    rest(s, 100);
    CHECK(!model_by_name(s->m, REC_POLICY, "c"));
}

static void
test_two(struct side *s)
{
    struct side other;
    struct answer a[8], b[8];
    char text[160];

    CASE("two controllers that write at once give no key twice");
    side_open(&other);
    CHECK(until(&other, s, connected, NULL));
    for (int i = 0; i < 8; i++) {
        snprintf(text, sizeof text, "{\"version\":1,\"tenants\":[{\"name\":\"one-%d\"}]}", i);
        start(s, text, POOL_MERGE, &a[i]);
        snprintf(text, sizeof text, "{\"version\":1,\"tenants\":[{\"name\":\"two-%d\"}]}", i);
        start(&other, text, POOL_MERGE, &b[i]);
    }
    for (int i = 0; i < 8; i++) {
        CHECK(until(s, &other, is_done, &a[i]) && until(&other, s, is_done, &b[i]));
        CHECK(!a[i].error && !b[i].error);
    }
    rest(s, 100);
    for (int i = 0; i < 8; i++) {
        snprintf(text, sizeof text, "one-%d", i);
        CHECK(model_by_name(s->m, REC_TENANT, text));
        snprintf(text, sizeof text, "two-%d", i);
        CHECK(model_by_name(s->m, REC_TENANT, text));
    }
    side_close(&other);
}

/* A change that depends on what stands. */
struct asked {
    struct answer answer; /* first: of got() */
    struct side *side;
    const char *word;
    unsigned n; /* times */
};

/* The group "more" with one address more. */
static struct doc *
one_more(void *asked_, struct doc_errors *errors)
{
    struct asked *asked = asked_;
    const struct model_obj *obj = model_any_by_name(asked->side->m, REC_GROUP, "more", NULL);
    const struct ovsdb_idl_row *row =
        pool_row_find(pool_db_idl(asked->side->db), REC_GROUP, &obj->uuid);
    struct ds text = DS_EMPTY_INITIALIZER;
    size_t n;
    char **list = pool_row_get_list(row, REC_GROUP, "addresses", &n);
    struct doc *doc;

    asked->n++;
    ds_put_format(&text, "{\"version\":1,\"groups\":[{\"name\":\"more\",\"addresses\":[\"%s\"",
                  asked->word);
    for (size_t i = 0; i < n; i++) {
        ds_put_format(&text, ",\"%s\"", list[i]);
        free(list[i]);
    }
    ds_put_cstr(&text, "]}]}");
    doc = doc_parse(ds_cstr(&text), text.length, errors);
    ds_destroy(&text);
    free(list);
    return doc;
}

static bool
is_pending(const struct asked *asked)
{
    return pool_db_pending(asked->side->db)->deadline_ms;
}

static struct doc *
confirm(void *asked_, struct doc_errors *errors)
{
    return is_pending(asked_) ? doc_create() : NULL;
}

static struct doc *
roll_back(void *asked_, struct doc_errors *errors)
{
    struct asked *asked = asked_;
    const char *text = pool_db_pending(asked->side->db)->document;

    return is_pending(asked) ? doc_parse(text, strlen(text), errors) : NULL;
}

/* A tenant, unless a commit waits for its confirmation. */
static struct doc *
add_tenant(void *asked_, struct doc_errors *errors)
{
    struct asked *asked = asked_;
    struct doc *doc = NULL;

    if (!is_pending(asked)) {
        char *text = xasprintf("{\"version\":1,\"tenants\":[{\"name\":\"%s\"}]}", asked->word);

        doc = doc_parse(text, strlen(text), errors);
        free(text);
    }
    return doc;
}

static struct asked
begin(struct side *s, const char *word)
{
    return (struct asked){.side = s, .word = word};
}

static bool
both_done(struct side *s, const void *asked_)
{
    const struct asked *asked = asked_;

    return asked[0].answer.done && asked[1].answer.done;
}

static bool
sees_pending(struct side *s, const void *deadline)
{
    return pool_db_pending(s->db)->deadline_ms == *(const int64_t *)deadline;
}

/* One of both sides confirms what the other takes back. */
static void
meet(struct side *confirms, struct side *takes_back)
{
    struct pool_pending pending = {NULL, 123456789, "ada"}, none = {"", 0, ""};
    struct asked both[] = {begin(confirms, ""), begin(takes_back, "")};
    struct answer a = {.done = false};
    const char *text = "{\"version\":1,\"tenants\":[{\"name\":\"half\"}]}";
    struct doc_errors errors = {NULL, 0, false};

    pool_db_apply(confirms->db, doc_parse(text, strlen(text), &errors), POOL_MERGE, false, &pending,
                  got, &a);
    CHECK(until(confirms, takes_back, is_done, &a) && !a.error);
    CHECK(until(confirms, takes_back, sees_pending, &pending.deadline_ms));
    CHECK(until(takes_back, confirms, sees_pending, &pending.deadline_ms));
    pool_db_apply_asked(confirms->db, confirm, POOL_MERGE, false, &none, got, &both[0]);
    pool_db_apply_asked(takes_back->db, roll_back, POOL_RESTORE, false, &none, got, &both[1]);
    CHECK(until(confirms, takes_back, both_done, both));
    CHECK(!both[0].answer.error != !both[1].answer.error);
    rest(confirms, 100);
    CHECK(!both[0].answer.error == !!model_by_name(confirms->m, REC_TENANT, "half"));
    CHECK(!pool_db_pending(confirms->db)->deadline_ms);
    if (!both[0].answer.error) {
        CHECK(!removal(confirms, REC_TENANT, "half").error);
    }
}

static void
test_asked(struct side *s)
{
    struct pool_pending pending = {NULL, 123456789, "ada"}, none = {"", 0, ""};
    struct asked a[8][2];
    struct side other;
    struct answer done;
    char words[8][2][20];
    size_t n;

    side_open(&other);
    CHECK(until(&other, s, connected, NULL));

    CASE("two controllers that add to one set at once add both");
    n = model_group_prefixes(s->m, model_group(model_by_name(s->m, REC_GROUP, "more")))->n;
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 2; j++) {
            snprintf(words[i][j], sizeof words[i][j], "192.0.%d.%d", j, 2 * i);
            a[i][j] = begin(j ? &other : s, words[i][j]);
            pool_db_apply_asked(a[i][j].side->db, one_more, POOL_MERGE, false, NULL, got, &a[i][j]);
        }
    }
    for (int i = 0; i < 8; i++) {
        CHECK(until(s, &other, both_done, a[i]) && !a[i][0].answer.error && !a[i][1].answer.error);
    }
    rest(s, 100);
    CHECK(model_group_prefixes(s->m, model_group(model_by_name(s->m, REC_GROUP, "more")))->n ==
          n + 16);

    CASE("of a confirmation and a rollback at two controllers one is done");
    meet(s, &other);
    meet(&other, s);

    CASE("no change comes in between a commit that waits and its rollback");
    for (int i = 0; i < 2; i++) {
        struct side *first = i ? &other : s, *second = i ? s : &other;

        a[0][0] = begin(first, i ? "e1" : "e0");
        memset(&done, 0, sizeof done);
        if (i) { /* they meet in either order */
            pool_db_apply_asked(first->db, add_tenant, POOL_MERGE, false, NULL, got, &a[0][0]);
        }
        pool_db_apply(second->db, doc_create(), POOL_MERGE, false, &pending, got, &done);
        if (!i) {
            pool_db_apply_asked(first->db, add_tenant, POOL_MERGE, false, NULL, got, &a[0][0]);
        }
        CHECK(until(first, second, is_done, &a[0][0].answer) &&
              until(first, second, is_done, &done) && !done.error);
        CHECK(until(first, second, sees_pending, &pending.deadline_ms));
        CHECK(a[0][0].answer.error ||
              strstr(pool_db_pending(first->db)->document, i ? "\"e1\"" : "\"e0\""));
        memset(&done, 0, sizeof done);
        pool_db_apply(first->db, doc_create(), POOL_MERGE, false, &none, got, &done);
        CHECK(until(first, second, is_done, &done) && !done.error);
        CHECK(until(second, first, sees_pending, &none.deadline_ms));
    }
    side_close(&other);
}

static void
test_remembered(struct side *s)
{
    struct model_host *host = model_host(model_by_name(s->m, REC_HOST, "h1"));
    struct model_vif *vif = model_vif(model_by_name(s->m, REC_VIF, "a0"));
    struct side other;

    CASE("a new controller takes a vif to be where it was");
    model_port_report(s->m, host, "vif1.0", &vif->xs_uuid, NULL, 7);
    CHECK(until(s, NULL, vif_seen, "h1"));
    side_open(&other);
    CHECK(until(&other, s, connected, NULL));
    host = model_host(model_by_name(other.m, REC_HOST, "h1"));
    vif = model_vif(model_by_name(other.m, REC_VIF, "a0"));
    CHECK(host && vif && vif->host == host && !model_vif_port(vif, host));
    rest(&other, 200);
    CHECK(vif_seen(&other, "h1"));

    CASE("until the host has said what it has");
    model_ports_begin(other.m);
    model_ports_end(other.m, host);
    CHECK(!vif->host && until(&other, NULL, vif_seen, ""));
    side_close(&other);
}

static void
test_server_dies(struct side *s)
{
    size_t n_rules = hmap_count(&s->m->objs[REC_RULE]);
    struct answer a;

    CASE("a dead server: told at once, nothing lost");
    ctl_db_kill(&server);
    rest(s, 200);
    a = apply(s, "{\"version\":1,\"tenants\":[{\"name\":\"late\"}]}", POOL_MERGE);
    CHECK(a.error == EAGAIN);
    CHECK(network_has(s, "www") && hmap_count(&s->m->objs[REC_RULE]) == n_rules);

    CASE("it comes back: nothing changed, work goes on");
    ctl_db_run(&server);
    CHECK(until(s, NULL, connected, NULL));
    CHECK(network_has(s, "www") && hmap_count(&s->m->objs[REC_RULE]) == n_rules);
    a = apply(s, "{\"version\":1,\"tenants\":[{\"name\":\"late\"}]}", POOL_MERGE);
    CHECK(!a.error && model_by_name(s->m, REC_TENANT, "late"));
}

static void
test_replace(struct side *s)
{
    struct answer a;

    CASE("a replacement takes away what it does not name, of the kinds it names");
    a = apply(s, "{\"version\":1,\"policies\":[]}", POOL_REPLACE);
    CHECK(!a.error && a.deleted == 5);
    CHECK(network_has(s, "www") && !model_by_name(s->m, REC_POLICY, "base"));
    a = apply(s,
              "{\"version\":1,\"policies\":[],\"groups\":[],\"vifs\":[],\"vms\":[],\"networks\":[],"
              "\"hosts\":[],\"tenants\":[]}",
              POOL_REPLACE);
    CHECK(!a.error);
    for (enum rec_kind k = REC_HOST; k < REC_N_KINDS; k++) {
        CHECK(hmap_is_empty(&s->m->objs[k]));
    }
}

int
main(int argc, char *argv[])
{
    struct side s;

    set_program_name(argv[0]);
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    if (ctl_db_start(&server)) {
        printf("not ok database: cannot start one\n");
        return 1;
    }
    side_open(&s);
    test_import(&s);
    test_aside(&s);
    test_bad(&s);
    test_merge(&s);
    test_others(&s);
    test_status(&s);
    test_pending(&s);
    test_check(&s);
    test_two(&s);
    test_asked(&s);
    test_remembered(&s);
    test_server_dies(&s);
    test_replace(&s);
    side_close(&s);
    ctl_db_stop(&server);
    return check_done();
}
