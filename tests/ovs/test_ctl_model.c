/* The model without a database: what a change makes of it, and what of it a
 * change touches. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ctl_rig.h"
#include "plan.h"

/* --- cases ------------------------------------------------------------------------------- */

static void
test_changes(void)
{
    struct model_vif *v;
    struct rec *r;

    begin();
    CASE("nothing stated, nothing changed");
    model_settle(m);
    CHECK(!model_has_changes(m) && !n_changed());

    CASE("a field of a vif is that vif's change");
    r = vif_rec(1, 1, 1, 1);
    rec_set_int(r, REC_VIF_RATE_IN, 1000);
    put(r);
    model_settle(m);
    CHECK(n_changed() == 1 && changed(obj(REC_VIF, 1), MODEL_CFG));
    model_changes_clear(m);

    CASE("a vif that changes networks: both networks hear of it");
    vif(1, 1, 2, 1);
    model_settle(m);
    v = model_vif(obj(REC_VIF, 1));
    CHECK(v->network == model_network(obj(REC_NETWORK, 2)));
    CHECK(n_changed() == 3 && changed(obj(REC_NETWORK, 1), MODEL_MEMBERS) &&
          changed(obj(REC_NETWORK, 2), MODEL_MEMBERS));
    CHECK(ovs_list_size(&v->network->vifs) == 1);
    model_changes_clear(m);

    CASE("what went is shown once, with what it referred to");
    v = model_vif(obj(REC_VIF, 1));
    take(REC_VIF, 1);
    CHECK(v->obj.change & MODEL_DELETED && !v->obj.live && v->network && v->vm);
    CHECK(ovs_list_is_empty(&v->network->vifs) && !model_by_key(m, v->obj.key));
    model_changes_clear(m);
    CHECK(!any(REC_VIF, 1));

    CASE("what came and went between two looks was never there");
    vif(3, 2, 2, 9);
    model_settle(m);
    take(REC_VIF, 3);
    CHECK(ovs_list_is_empty(&m->changed[REC_VIF]));
    model_changes_clear(m);
    end();
}

static void
test_dependants(void)
{
    begin();
    CASE("what depends on what is in error is left out, nothing else");
    network(1, 20, "");
    model_settle(m);
    CHECK(!obj(REC_NETWORK, 2) && says(REC_NETWORK, 2, "tag: network \"network1\" has the same"));
    CHECK(obj(REC_NETWORK, 1) && obj(REC_VIF, 1) && obj(REC_VIF, 2));
    model_changes_clear(m);

    CASE("the older one keeps what both claim");
    network(1, 10, "");
    model_settle(m);
    network(2, 10, "");
    model_settle(m);
    CHECK(obj(REC_NETWORK, 1) && !obj(REC_NETWORK, 2));
    take(REC_NETWORK, 1);
    CHECK(obj(REC_NETWORK, 2) && !obj(REC_VIF, 1) &&
          says(REC_VIF, 1, "network: names network \"network1\", which is not there any more"));
    model_changes_clear(m);

    CASE("they come back with it");
    network(1, 11, "");
    model_settle(m);
    CHECK(obj(REC_VIF, 1) && obj(REC_VIF, 1)->change & MODEL_CREATED);
    CHECK(model_vif(obj(REC_VIF, 1))->network == model_network(obj(REC_NETWORK, 1)));
    model_changes_clear(m);

    CASE("a MAC twice in a network, but not in two");
    vif(3, 2, 2, 1);
    vif(4, 2, 1, 1);
    model_settle(m);
    CHECK(obj(REC_VIF, 3) && says(REC_VIF, 4, "mac: vif \"vif1\" has the same"));

    CASE("a vif in another tenant's network");
    network(2, 10, ref(REC_TENANT, 1));
    model_settle(m);
    CHECK(says(REC_VIF, 3, "network: network \"network2\" is tenant \"tenant1\"'s"));
    vm(2, ref(REC_TENANT, 1));
    model_settle(m);
    CHECK(obj(REC_VIF, 3));

    CASE("a record that is wrong leaves its name to mend it by");
    put(new_rec(REC_NETWORK, 1));
    model_settle(m);
    CHECK(says(REC_NETWORK, 1, "type: is missing"));
    CHECK(model_any_by_name(m, REC_NETWORK, "network1", NULL) == any(REC_NETWORK, 1));
    CHECK(says(REC_VIF, 1, "which is in error"));
    end();
}

static void
test_keys(void)
{
    struct rec *r;

    begin();
    CASE("what has no key waits without an error");
    r = new_rec(REC_TENANT, 5);
    r->key = 0;
    struct uuid uuid = id(REC_TENANT, 5);
    model_put(m, &uuid, r);
    model_settle(m);
    CHECK(any(REC_TENANT, 5) && !any(REC_TENANT, 5)->error && !obj(REC_TENANT, 5));
    r = new_rec(REC_TENANT, 5);
    model_put(m, &uuid, r);
    model_settle(m);
    CHECK(obj(REC_TENANT, 5) && model_by_key(m, r->key) == obj(REC_TENANT, 5));

    CASE("free keys and zones are free");
    uint32_t next = 1, key = model_free_key(m, &next);
    CHECK(key && !model_by_key(m, key));
    next = 0xffffffff;
    key = model_free_key(m, &next);
    CHECK(key == 1 && next == 2);
    next = obj(REC_NETWORK, 1)->key;
    key = model_free_key(m, &next);
    CHECK(key > obj(REC_NETWORK, 1)->key && !model_by_key(m, key));
    next = 1;
    CHECK(model_free_zone(m, &next) == 3);
    end();
}

static size_t
n_vifs(unsigned n)
{
    size_t count;

    model_group_vifs(m, model_group(obj(REC_GROUP, n)), &count);
    return count;
}

static void
count_group(struct model_group *g, void *n)
{
    ++*(unsigned *)n;
}

static void
test_groups(void)
{
    struct model_vif *v;
    unsigned found = 0;
    struct rec *r;

    begin();
    CASE("a group holds addresses, vifs, VMs and groups, each once");
    group(1, NULL, LIST(ref(REC_VIF, 1)), LIST(ref(REC_VM, 1)), NULL);
    group(2, "10.0.0.0/24", LIST(ref(REC_VIF, 2)), NULL, LIST(ref(REC_GROUP, 1)));
    CHECK(n_vifs(1) == 1 && n_vifs(2) == 2);
    CHECK(model_group_prefixes(m, model_group(obj(REC_GROUP, 2)))->n == 1);
    CHECK(model_group_prefixes(m, model_group(obj(REC_GROUP, 1)))->n == 1);
    v = model_vif(obj(REC_VIF, 1));
    model_vif_groups(m, v, count_group, &found);
    CHECK(found == 2 && model_group_has_vif(m, model_group(obj(REC_GROUP, 2)), v));
    model_changes_clear(m);

    CASE("an address of a vif is a change of all that hold it");
    r = vif_rec(1, 1, 1, 1);
    rec_add(r, REC_VIF_ADDRESSES, "172.16.0.1");
    put(r);
    model_settle(m);
    CHECK(changed(obj(REC_GROUP, 1), MODEL_MEMBERS) && changed(obj(REC_GROUP, 2), MODEL_MEMBERS));
    CHECK(model_group_prefixes(m, model_group(obj(REC_GROUP, 2)))->n == 2);
    model_changes_clear(m);

    CASE("so is a new vif of a VM in it");
    vif(5, 1, 2, 5);
    model_settle(m);
    CHECK(obj(REC_GROUP, 2)->change & MODEL_MEMBERS && n_vifs(2) == 3);
    model_changes_clear(m);

    CASE("a locked vif counts with what it may use");
    r = vif_rec(1, 1, 1, 1);
    rec_set_string(r, REC_VIF_LOCKING, "locked");
    rec_add(r, REC_VIF_IPV6, "fd00::1");
    put(r);
    model_settle(m);
    CHECK(v->locking == MODEL_LOCKED && v->effective.n == 1 &&
          !model_prefix_is_v4(&v->effective.p[0]));

    end();
}

static void
test_groups_loop(void)
{
    begin();
    group(1, NULL, LIST(ref(REC_VIF, 1)), NULL, NULL);
    group(2, "10.0.0.0/24", LIST(ref(REC_VIF, 2)), NULL, LIST(ref(REC_GROUP, 1)));
    CASE("a loop is an error of all that are in it, and of nobody else");
    group(3, "192.168.0.0/16", NULL, NULL, NULL);
    group(1, NULL, NULL, NULL, LIST(ref(REC_GROUP, 2)));
    CHECK(sick(REC_GROUP, 1, "in itself") && sick(REC_GROUP, 2, "in itself") && obj(REC_GROUP, 3) &&
          !obj(REC_GROUP, 3)->error);
    group(1, NULL, LIST(ref(REC_VIF, 1)), NULL, NULL);
    CHECK(obj(REC_GROUP, 1) && obj(REC_GROUP, 2) && n_vifs(2) == 2);

    CASE("a vif that goes leaves the group");
    take(REC_VIF, 2);
    CHECK(sick(REC_GROUP, 2, "vifs: names vif \"vif2\", which is not there any more"));
    group(2, "10.0.0.0/24", NULL, NULL, LIST(ref(REC_GROUP, 1)));
    CHECK(n_vifs(2) == 1);

    CASE("a vif in error is not in the group, and no reason to drop the group");
    network(1, 0, "");
    model_settle(m);
    CHECK(!obj(REC_VIF, 1) && obj(REC_GROUP, 1) && n_vifs(1) == 0);
    network(1, 10, "");
    model_settle(m);
    CHECK(n_vifs(1) == 1);
    end();
}

/* Nobody gets more than was stated because something is wrong. */
static void
test_deny_in_error(void)
{
    struct rec *r;

    begin();
    group(1, NULL, LIST(ref(REC_VIF, 1)), NULL, NULL);
    group(2, NULL, LIST(ref(REC_VIF, 2)), NULL, LIST(ref(REC_GROUP, 1)));
    put(policy_rec(1, "pool"));
    r = policy_rec(2, "group");
    rec_set_string(r, REC_POLICY_GROUP, ref(REC_GROUP, 2));
    put(r);
    for (unsigned n = 1; n <= 2; n++) {
        r = rule_rec(n, 1, n, n == 1 ? "deny" : "allow");
        rec_set_string(r, REC_RULE_REMOTE_GROUP, ref(REC_GROUP, 1));
        put(r);
        put(rule_rec(n + 2, 2, n, n == 1 ? "deny" : "allow"));
    }
    model_settle(m);
    CHECK(model_rule(obj(REC_RULE, 1))->remote_group && obj(REC_RULE, 2));
    model_changes_clear(m);

    CASE("a deny rule whose remote group is in error is about everybody, an allow rule about "
         "nobody");
    group(1, NULL, LIST(ref(REC_VIF, 1)), NULL, LIST(ref(REC_GROUP, 2)));
    CHECK(sick(REC_RULE, 1, "which is in error; until that is corrected"));
    CHECK(obj(REC_RULE, 1) && !model_rule(obj(REC_RULE, 1))->remote_group &&
          obj(REC_RULE, 1)->change & MODEL_CFG);
    CHECK(says(REC_RULE, 2, "remote_group: names group \"group1\", which is in error"));

    CASE("a policy whose scope is in error denies for those whom it can mean, and allows nothing");
    CHECK(sick(REC_POLICY, 2, "group: names group \"group2\", which is in error"));
    CHECK(n_vifs(2) == 2 && sick(REC_RULE, 3, "policy: names policy") &&
          says(REC_RULE, 4, "policy: names policy"));

    CASE("all comes back when it is corrected");
    model_changes_clear(m);
    group(1, NULL, LIST(ref(REC_VIF, 1)), NULL, NULL);
    for (unsigned n = 1; n <= 4; n++) {
        CHECK(obj(REC_RULE, n) && !obj(REC_RULE, n)->error);
    }
    CHECK(model_rule(obj(REC_RULE, 1))->remote_group && obj(REC_RULE, 1)->change & MODEL_CFG);

    CASE("a deny rule whose record is wrong is about everything of its direction");
    for (unsigned n = 1; n <= 2; n++) {
        r = rule_rec(n, 1, n, n == 1 ? "deny" : "allow");
        rec_add(r, REC_RULE_REMOTE_CIDRS, "10.0.0.0/33");
        rec_set_string(r, REC_RULE_PROTOCOL, "tcp");
        rec_add(r, REC_RULE_PORTS, "80");
        put(r);
    }
    model_settle(m);
    CHECK(sick(REC_RULE, 1, "remote_cidrs: \"10.0.0.0/33\"") &&
          says(REC_RULE, 2, "remote_cidrs: \"10.0.0.0/33\""));
    CHECK(obj(REC_RULE, 1) && model_rule(obj(REC_RULE, 1))->in &&
          model_rule(obj(REC_RULE, 1))->protocol == -1 && !model_rule(obj(REC_RULE, 1))->n_ports &&
          !model_rule(obj(REC_RULE, 1))->remote_cidrs.n &&
          !model_rule(obj(REC_RULE, 1))->remote_group);

    CASE("a group with a bad address keeps its members where it is a scope");
    group(2, "10.0.0.1/8", LIST(ref(REC_VIF, 2)), NULL, LIST(ref(REC_GROUP, 1)));
    CHECK(sick(REC_GROUP, 2, "addresses: \"10.0.0.1/8\"") && n_vifs(2) == 2 &&
          sick(REC_RULE, 3, "policy: names policy"));

    CASE("of two policies of one name both deny, the older one alone allows");
    group(2, NULL, LIST(ref(REC_VIF, 2)), NULL, LIST(ref(REC_GROUP, 1)));
    r = policy_rec(2, "global");
    free(r->name);
    r->name = xstrdup("policy1");
    put(r);
    model_settle(m);
    CHECK(sick(REC_POLICY, 2, "name: ") && sick(REC_RULE, 3, "policy: names policy") &&
          says(REC_RULE, 4, "policy: names policy"));
    CHECK(model_by_name(m, REC_POLICY, "policy1") == obj(REC_POLICY, 1));

    CASE("a deny rule that is disabled, or whose policy is not there, denies nothing");
    r = rule_rec(1, 1, 1, "deny");
    rec_add(r, REC_RULE_REMOTE_CIDRS, "10.0.0.0/33");
    rec_set_int(r, REC_RULE_ENABLED, 0);
    put(r);
    model_settle(m);
    CHECK(!obj(REC_RULE, 1));
    take(REC_POLICY, 2);
    CHECK(says(REC_RULE, 3, "policy: names policy"));
    end();
}

static void
test_reduce(void)
{
    begin();
    CASE("prefixes within others are left out, families apart");
    struct rec *r = new_rec(REC_GROUP, 1);
    static const char *const all[] = {"::/0",        "2001:db8::/32", "fd00::1",   "10.0.0.0/8",
                                      "10.1.0.0/16", "10.1.2.3",      "11.0.0.0/8"};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        rec_add(r, REC_GROUP_ADDRESSES, all[i]);
    }
    rec_normalize(r);
    put(r);
    model_settle(m);
    CHECK(model_group_prefixes(m, model_group(obj(REC_GROUP, 1)))->n == 3);
    end();
}

static void
test_ports(void)
{
    struct model_host *h1, *h2;
    struct model_vif *v;
    struct eth_addr mac = ETH_ADDR_C(02, 00, 00, 00, 00, 01);
    struct eth_addr mac7 = ETH_ADDR_C(02, 00, 00, 00, 00, 07);

    begin();
    h1 = model_host(obj(REC_HOST, 1));
    h2 = model_host(obj(REC_HOST, 2));
    v = model_vif(obj(REC_VIF, 1));

    CASE("a port is found by uuid, else by MAC");
    model_port_report(m, h1, "vif1.0", &v->xs_uuid, &mac7, 5);
    CHECK(v->host == h1 && model_vif_port(v, h1)->ofport == 5);
    CHECK(model_presence(m, v->network, h1) && !model_presence(m, v->network, h2));
    CHECK(v->obj.change == MODEL_PLACE && v->network->obj.change == MODEL_PRESENCE);
    model_changes_clear(m);
    model_port_report(m, h1, "vif1.0", NULL, &mac, 5);
    CHECK(v->host == h1 && model_vif_port(v, h1));

    CASE("the same report again is no change");
    model_changes_clear(m);
    model_port_report(m, h1, "vif1.0", NULL, &mac, 5);
    CHECK(!model_has_changes(m));

    CASE("while it moves it has two ports, and is where it came last");
    model_port_report(m, h2, "vif9.0", NULL, &mac, 3);
    CHECK(v->host == h2 && model_vif_port(v, h1) && model_vif_port(v, h2));
    model_port_gone(m, h1, "vif1.0");
    CHECK(v->host == h2 && !model_presence(m, v->network, h1));

    CASE("a port may come before its vif");
    model_port_report(m, h1, "vif7.0", NULL, &mac7, 8);
    CHECK(!model_port_by_name(m, h1, "vif7.0")->vif);
    vif(7, 2, 2, 7);
    model_settle(m);
    CHECK(model_vif(obj(REC_VIF, 7))->host == h1);

    CASE("a MAC in two networks is the vif that is expected there");
    struct rec *r = vif_rec(8, 2, 1, 7);
    rec_set_string(r, REC_VIF_HOST, ref(REC_HOST, 1));
    put(r);
    model_settle(m);
    CHECK(model_port_by_name(m, h1, "vif7.0")->vif == model_vif(obj(REC_VIF, 8)));
    take(REC_VIF, 8);
    CHECK(model_port_by_name(m, h1, "vif7.0")->vif == model_vif(obj(REC_VIF, 7)));

    end();
}

/* --- trunks --- */

static struct rec *
child_rec(unsigned n, unsigned vm_n, unsigned net, unsigned parent, int64_t tag)
{
    struct rec *r = vif_rec(n, vm_n, net, n);

    rec_set_string(r, REC_VIF_PARENT, ref(REC_VIF, parent));
    rec_set_int(r, REC_VIF_TAG, tag);
    return r;
}

static void
put_child(unsigned n, unsigned vm_n, unsigned net, unsigned parent, int64_t tag)
{
    put(child_rec(n, vm_n, net, parent, tag));
    model_settle(m);
}

static void
test_trunk_errors(void)
{
    struct rec *r;

    begin();
    network(3, 30, "");
    CASE("trunk: parent and tag go together, host and uuid are the parent's");
    r = vif_rec(5, 1, 2, 5);
    rec_set_int(r, REC_VIF_TAG, 100);
    put(r);
    model_settle(m);
    CHECK(says(REC_VIF, 5, "parent: is missing"));
    put_child(5, 1, 2, 1, -1);
    CHECK(says(REC_VIF, 5, "tag: is missing"));
    r = child_rec(5, 1, 2, 1, 100);
    rec_set_string(r, REC_VIF_HOST, ref(REC_HOST, 1));
    put(r);
    model_settle(m);
    CHECK(says(REC_VIF, 5, "host: is the parent's"));

    CASE("trunk: of the same VM, of another network, each tag and network once");
    put_child(5, 2, 2, 1, 100);
    CHECK(says(REC_VIF, 5, "parent: vif \"vif1\" is another VM's"));
    put_child(5, 1, 1, 1, 100);
    CHECK(says(REC_VIF, 5, "network: is that of the parent"));
    put_child(5, 1, 2, 1, 100);
    CHECK(obj(REC_VIF, 5) && !obj(REC_VIF, 5)->error);
    put_child(6, 1, 3, 1, 100);
    CHECK(obj(REC_VIF, 5) && says(REC_VIF, 6, "tag: vif \"vif5\" has the same one"));
    put_child(6, 1, 2, 1, 101);
    CHECK(says(REC_VIF, 6, "network: vif \"vif5\" has the same one"));
    put_child(6, 1, 3, 1, 101);
    CHECK(obj(REC_VIF, 6));

    CASE("trunk: a parent has none itself, also by a loop");
    put_child(7, 1, 1, 5, 7);
    CHECK(says(REC_VIF, 7, "parent: vif \"vif5\" has a parent itself"));
    put_child(1, 1, 1, 5, 8);
    CHECK(says(REC_VIF, 1, "has a parent itself") && !obj(REC_VIF, 5) && !obj(REC_VIF, 7));
    vif(1, 1, 1, 1);
    model_settle(m);
    CHECK(obj(REC_VIF, 1) && obj(REC_VIF, 5) && obj(REC_VIF, 6));
    CHECK(says(REC_VIF, 7, "has a parent itself"));
    vif(5, 1, 2, 5);
    model_settle(m);
    CHECK(obj(REC_VIF, 5) && obj(REC_VIF, 7) && model_vif(obj(REC_VIF, 7))->parent);

    CASE("trunk: when the parent changes VM or network its children are looked at again");
    vif(1, 2, 1, 1);
    model_settle(m);
    CHECK(obj(REC_VIF, 1) && says(REC_VIF, 6, "is another VM's"));
    vif(1, 1, 3, 1);
    model_settle(m);
    CHECK(obj(REC_VIF, 1) && says(REC_VIF, 6, "network: is that of the parent"));
    vif(1, 1, 1, 1);
    model_settle(m);
    CHECK(obj(REC_VIF, 6));

    CASE("trunk: none of it gets a mirror's copies");
    r = new_rec(REC_MIRROR, 1);
    rec_add(r, REC_MIRROR_VIFS, ref(REC_VIF, 2));
    rec_set_string(r, REC_MIRROR_OUTPUT_VIF, ref(REC_VIF, 1));
    put(r);
    model_settle(m);
    CHECK(says(REC_MIRROR, 1, "output_vif: vif \"vif1\" is of a trunk"));
    take(REC_VIF, 6);
    CHECK(obj(REC_MIRROR, 1));
    put_child(6, 1, 3, 1, 101);
    CHECK(obj(REC_VIF, 6) && says(REC_MIRROR, 1, "is of a trunk"));
    r = new_rec(REC_MIRROR, 1);
    rec_add(r, REC_MIRROR_VIFS, ref(REC_VIF, 2));
    rec_set_string(r, REC_MIRROR_OUTPUT_VIF, ref(REC_VIF, 8));
    put(r);
    vif(8, 1, 3, 8);
    take(REC_VIF, 6);
    CHECK(obj(REC_MIRROR, 1) && obj(REC_VIF, 8));
    put_child(8, 1, 3, 1, 101);
    CHECK(obj(REC_VIF, 8) && says(REC_MIRROR, 1, "output_vif: vif \"vif8\" is of a trunk"));
    vif(8, 1, 3, 8);
    model_settle(m);
    CHECK(obj(REC_MIRROR, 1) && obj(REC_VIF, 8));
    end();
}

static void
test_trunk_ports(void)
{
    struct eth_addr mac = ETH_ADDR_C(02, 00, 00, 00, 00, 01);
    struct eth_addr mac5 = ETH_ADDR_C(02, 00, 00, 00, 00, 05);
    struct model_host *h1, *h2;
    struct model_vif *v, *child;
    struct model_port *trunk;
    struct rec *r;

    begin();
    h1 = model_host(obj(REC_HOST, 1));
    h2 = model_host(obj(REC_HOST, 2));
    v = model_vif(obj(REC_VIF, 1));
    model_port_report(m, h1, "vif1.0", NULL, &mac, 5);

    CASE("trunk: its vifs are where the parent's port is");
    put_child(5, 1, 2, 1, 100);
    child = model_vif(obj(REC_VIF, 5));
    trunk = model_vif_port(v, h1);
    CHECK(child && child->host == h1 && model_vif_port(child, h1)->ofport == 5);
    CHECK(model_port_tagged(trunk, 100) == model_vif_port(child, h1) &&
          model_port_tagged(trunk, 0) == trunk && !model_port_tagged(trunk, 7));
    CHECK(model_presence(m, child->network, h1));
    model_port_report(m, h2, "vif1.0", NULL, &mac, 8);
    CHECK(child->host == h2 && model_vif_port(child, h2)->ofport == 8);
    model_port_gone(m, h2, "vif1.0");
    CHECK(child->host == h1 && !model_presence(m, child->network, h2));
    model_changes_clear(m);
    model_port_report(m, h1, "vif1.0", NULL, &mac, 6);
    CHECK(model_vif_port(child, h1)->ofport == 6 && child->obj.change == MODEL_PLACE);

    CASE("trunk: a port that names one of its vifs is not that vif's");
    model_port_report(m, h2, "vif5.0", &child->xs_uuid, &mac5, 9);
    CHECK(child->host == h1 && !model_port_by_name(m, h2, "vif5.0")->vif);

    CASE("trunk: with another tag, and with its parent's host");
    put_child(5, 1, 2, 1, 200);
    CHECK(model_vif_port(child, h1)->tag == 200 && !model_port_tagged(trunk, 100));
    r = vif_rec(1, 1, 1, 1);
    rec_set_string(r, REC_VIF_HOST, ref(REC_HOST, 2));
    put(r);
    model_settle(m);
    CHECK(v->host == h2 && child->host == h2);
    vif(1, 1, 1, 1);
    model_settle(m);
    CHECK(child->host == h1);

    CASE("trunk: by itself again it has the port that names it, and back");
    vif(5, 1, 2, 5);
    model_settle(m);
    CHECK(child->host == h2 && ovs_list_is_empty(&trunk->subs));
    put_child(5, 1, 2, 1, 100);
    CHECK(child->host == h1 && model_port_tagged(trunk, 100) &&
          !model_port_by_name(m, h2, "vif5.0")->vif);

    CASE("trunk: without the parent it is nowhere");
    take(REC_VIF, 1);
    CHECK(!obj(REC_VIF, 5) && !model_presence(m, model_network(obj(REC_NETWORK, 2)), h1));
    vif(1, 1, 1, 1);
    model_settle(m);
    child = model_vif(obj(REC_VIF, 5));
    CHECK(child && child->host == h1);

    CASE("trunk: one that was seen somewhere, and goes wrong when its parent goes");
    network(3, 30, "");
    r = child_rec(6, 1, 3, 1, 101);
    r->seen_host = xstrdup("host2");
    put(r);
    model_port_gone(m, h1, "vif1.0");
    model_settle(m);
    child = model_vif(obj(REC_VIF, 6));
    CHECK(child->host == h2 && child->host_remembered);
    r = vif_rec(6, 1, 3, 6);
    rec_set_int(r, REC_VIF_TAG, 101);
    put(r);
    take(REC_VIF, 1);
    CHECK(says(REC_VIF, 6, "parent: is missing"));
    model_changes_clear(m);
    model_ports_begin(m);
    model_ports_end(m, h2);
    CHECK(!child->host && !child->host_remembered);
    end();
}

static void
test_ports_full(void)
{
    struct eth_addr mac = ETH_ADDR_C(02, 00, 00, 00, 00, 01);
    struct eth_addr mac7 = ETH_ADDR_C(02, 00, 00, 00, 00, 07);
    struct model_host *h1, *h2;
    struct model_vif *v;

    begin();
    h1 = model_host(obj(REC_HOST, 1));
    h2 = model_host(obj(REC_HOST, 2));
    v = model_vif(obj(REC_VIF, 1));
    vif(7, 2, 2, 7);
    model_settle(m);
    model_port_report(m, h1, "vif7.0", NULL, &mac7, 8);
    model_port_report(m, h2, "vif9.0", NULL, &mac, 3);

    CASE("presence follows a vif to another network");
    vif(7, 2, 1, 7);
    model_settle(m);
    CHECK(model_presence(m, model_network(obj(REC_NETWORK, 1)), h1) &&
          !model_presence(m, model_network(obj(REC_NETWORK, 2)), h1));

    CASE("ports that a full read does not show have gone");
    model_ports_begin(m);
    model_port_report(m, h1, "vif7.0", NULL, &mac7, 8);
    model_ports_end(m, h1);
    CHECK(model_port_by_name(m, h1, "vif7.0") && model_vif_port(v, h2));
    model_ports_begin(m);
    model_ports_end(m, h2);
    CHECK(!v->host && !model_vif_port(v, h2));

    CASE("a host goes with its ports");
    take(REC_HOST, 1);
    CHECK(!model_vif(obj(REC_VIF, 7))->host);
    CHECK(ovs_list_is_empty(&model_network(obj(REC_NETWORK, 1))->presences));
    end();
}

/* Policy n + 1 has scope n, rule n + 1 in its default part, n + 11 in its mandatory one. */
static void
policies(void)
{
    static const char *const scopes[] = {"global", "pool", "network", "group", "vm", "vif"};
    struct rec *r;

    begin();
    group(1, "10.0.0.0/8", LIST(ref(REC_VIF, 1)), NULL, NULL);
    for (unsigned i = 0; i < 6; i++) {
        r = policy_rec(i + 1, scopes[i]);
        if (i >= 2) {
            static const enum rec_kind kinds[] = {REC_NETWORK, REC_GROUP, REC_VM, REC_VIF};

            rec_set_string(r, REC_POLICY_NETWORK + i - 2, ref(kinds[i - 2], 1));
        }
        put(r);
        put(rule_rec(i + 1, i + 1, 5, "allow"));
        r = rule_rec(i + 11, i + 1, 5, "deny");
        rec_set_string(r, REC_RULE_PART, "mandatory");
        put(r);
    }
    model_settle(m);
}

static void
test_policies(void)
{
    policies();
    CASE("a policy hangs on its scope");
    CHECK(ovs_list_size(&m->global_policies) == 1 && ovs_list_size(&m->pool_policies) == 1);
    CHECK(ovs_list_size(&model_network(obj(REC_NETWORK, 1))->policies) == 1);
    CHECK(ovs_list_size(&model_vif(obj(REC_VIF, 1))->policies) == 1);

    CASE("bands: mandatory from wide to narrow, then default from narrow to wide");
    for (unsigned i = 0; i < 6; i++) {
        CHECK(model_rule_band(model_rule(obj(REC_RULE, i + 1))) == i);
        CHECK(model_rule_band(model_rule(obj(REC_RULE, i + 11))) == 11 - i);
    }

    CASE("a scope that changes moves the policy");
    model_changes_clear(m);
    put(policy_rec(1, "pool"));
    model_settle(m);
    CHECK(ovs_list_is_empty(&m->global_policies) && ovs_list_size(&m->pool_policies) == 2);
    CHECK(m->change & MODEL_POLICIES);

    end();
}

static void
test_policy_changes(void)
{
    struct rec *r;

    policies();
    CASE("a disabled rule is not there, and no error");
    r = rule_rec(1, 1, 5, "allow");
    rec_set_int(r, REC_RULE_ENABLED, 0);
    put(r);
    model_settle(m);
    CHECK(!obj(REC_RULE, 1) && !any(REC_RULE, 1)->error);

    CASE("a rule's family follows from protocol and addresses");
    r = rule_rec(1, 1, 5, "allow");
    rec_set_string(r, REC_RULE_PROTOCOL, "icmpv6");
    put(r);
    model_settle(m);
    CHECK(model_rule(obj(REC_RULE, 1))->ethertype == MODEL_ETH_IPV6);
    r = rule_rec(1, 1, 5, "allow");
    rec_add(r, REC_RULE_REMOTE_CIDRS, "10.0.0.0/8");
    put(r);
    model_settle(m);
    CHECK(model_rule(obj(REC_RULE, 1))->ethertype == MODEL_ETH_IPV4);

    CASE("policies go with what they are for");
    take(REC_VM, 1);
    CHECK(!obj(REC_POLICY, 5) && !obj(REC_POLICY, 6) && !obj(REC_RULE, 5) && obj(REC_RULE, 4));
    end();
}

static void
test_locking(void)
{
    struct model_vif *v;
    struct rec *r;

    begin();
    v = model_vif(obj(REC_VIF, 1));
    CASE("a network's default locking mode reaches its vifs");
    CHECK(v->locking == MODEL_UNLOCKED && !v->isolated);
    r = new_rec(REC_NETWORK, 1);
    rec_set_string(r, REC_NETWORK_TYPE, "vlan");
    rec_set_int(r, REC_NETWORK_TAG, 10);
    rec_set_string(r, REC_NETWORK_LOCKING, "disabled");
    rec_set_int(r, REC_NETWORK_ISOLATED, 1);
    r->zone = 1;
    put(r);
    model_settle(m);
    CHECK(v->locking == MODEL_DISABLED && v->isolated && changed(&v->obj, MODEL_CFG));
    end();
}

/* A trial leaves everything as it was, but for marks. */
static bool
read_vif1(void *aux, enum rec_kind kind, const struct uuid *uuid, struct rec *r)
{
    struct rec *made =
        kind == REC_VIF ? vif_rec(uuid->parts[3], uuid->parts[3], 1, uuid->parts[3]) : NULL;

    if (made) {
        rec_copy(r, made);
        r->given = UINT32_MAX;
    }
    return made;
}

static void
test_trial(void)
{
    const char *text =
        "{\"version\":1,\"networks\":[{\"name\":\"extra\",\"type\":\"vlan\",\"tag\":99}],"
        "\"vifs\":[{\"name\":\"vif1\",\"network\":\"extra\"}]}";
    const char *clash =
        "{\"version\":1,\"vifs\":[{\"name\":\"vif2\",\"mac\":\"02:00:00:00:00:01\"}]}";
    struct doc_errors errors = {NULL, 0, false};
    struct model_host *h;
    struct model_vif *v;
    struct plan *plan;
    struct doc *doc;

    begin();
    h = model_host(obj(REC_HOST, 1));
    v = model_vif(obj(REC_VIF, 1));
    model_port_report(m, h, "p", &v->xs_uuid, NULL, 1);
    CASE("a plan tried leaves the model as it was");
    doc = doc_parse(text, strlen(text), &errors);
    plan = plan_create(m, doc, PLAN_MERGE, read_vif1, NULL, &errors);
    CHECK(plan && plan->n == 2 && plan_give_keys(m, plan, &errors) &&
          plan_try(m, plan, &errors, NULL));
    CHECK(!errors.n && obj(REC_VIF, 1) == &v->obj &&
          v->network == model_network(obj(REC_NETWORK, 1)));
    CHECK(v->host == h && model_presence(m, v->network, h)->n_ports == 1);
    model_changes_clear(m);
    CHECK(hmap_count(&m->objs[REC_NETWORK]) == 2 && hmap_count(&m->presences) == 1);
    plan_free(plan);
    doc_free(doc);

    CASE("so does one that is wrong");
    doc = doc_parse(clash, strlen(clash), &errors);
    plan = plan_create(m, doc, PLAN_MERGE, read_vif1, NULL, &errors);
    CHECK(plan && !plan_try(m, plan, &errors, NULL) && errors.n == 1 &&
          !strcmp(errors.e[0].object, "vif vif2") && !strcmp(errors.e[0].field, "mac"));
    CHECK(obj(REC_VIF, 1) && obj(REC_VIF, 2) && !obj(REC_VIF, 2)->error);
    plan_free(plan);
    doc_free(doc);
    doc_errors_clear(&errors);
    end();
}

int
main(void)
{
    test_changes();
    test_dependants();
    test_keys();
    test_groups();
    test_groups_loop();
    test_deny_in_error();
    test_reduce();
    test_ports();
    test_trunk_errors();
    test_trunk_ports();
    test_ports_full();
    test_policies();
    test_policy_changes();
    test_locking();
    test_trial();
    rec_destroy(new_rec(REC_TENANT, 0));
    return check_done();
}
