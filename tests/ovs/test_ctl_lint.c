/* Lint: rules that look wrong though each is right by itself. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ctl_rig.h"
#include "model_lint.h"

static const char *
warning(unsigned n)
{
    const char *w = any(REC_RULE, n)->warning;

    return w ? w : "";
}

static void
lint(void)
{
    struct model_lint *l;

    model_settle(m);
    l = model_lint_create(m);
    while (!model_lint_run(l, 3)) {
        continue;
    }
    model_lint_finish(l);
    model_lint_destroy(l);
}

static void
tcp(struct rec *r, const char *ports, const char *cidr)
{
    rec_set_string(r, REC_RULE_PROTOCOL, "tcp");
    if (ports) {
        rec_add(r, REC_RULE_PORTS, ports);
    }
    if (cidr) {
        rec_add(r, REC_RULE_REMOTE_CIDRS, cidr);
    }
    put(r);
}

/* Policies of the pool, of vif 1 and of network 2. */
static void
policies(void)
{
    struct rec *r;

    begin();
    put(policy_rec(1, "pool"));
    r = policy_rec(2, "vif");
    rec_set_string(r, REC_POLICY_VIF, ref(REC_VIF, 1));
    put(r);
    r = policy_rec(3, "network");
    rec_set_string(r, REC_POLICY_NETWORK, ref(REC_NETWORK, 2));
    put(r);
}

static void
test_shadows(void)
{
    struct rec *r;

    policies();
    CASE("a rule behind a wider one of the same scope is unreachable");
    tcp(rule_rec(1, 1, 1, "allow"), "1000-2000", "10.0.0.0/8");
    tcp(rule_rec(2, 1, 2, "deny"), "1500", "10.1.0.0/16");
    tcp(rule_rec(3, 1, 3, "deny"), "1500", "11.0.0.0/16");
    tcp(rule_rec(4, 1, 4, "deny"), "1500-2001", "10.1.0.0/16");
    lint();
    CHECK(strstr(warning(2), "unreachable: policy1/rule1"));
    CHECK(!*warning(1) && !*warning(3) && !*warning(4));
    CHECK(strstr(any(REC_POLICY, 1)->warning, "1 of its rules has"));

    CASE("a mandatory rule of a wider scope shadows a narrow one");
    r = rule_rec(5, 1, 9, "deny");
    rec_set_string(r, REC_RULE_PART, "mandatory");
    rec_add(r, REC_RULE_REMOTE_CIDRS, "10.0.0.0/8");
    put(r);
    r = rule_rec(6, 2, 1, "allow");
    rec_add(r, REC_RULE_REMOTE_CIDRS, "10.2.0.0/16");
    put(r);
    lint();
    CHECK(strstr(warning(6), "unreachable: policy1/rule5") && strstr(warning(6), "mandatory"));

    CASE("a default rule of a wider scope does not");
    put(rule_rec(5, 1, 9, "deny"));
    lint();
    CHECK(!*warning(6));

    CASE("another network's rule does not");
    r = rule_rec(7, 3, 0, "deny");
    rec_set_string(r, REC_RULE_PART, "mandatory");
    put(r);
    lint();
    CHECK(!*warning(6) && !*warning(7));

    end();
}

static void
put_policy(unsigned n, enum rec_kind scope, unsigned of)
{
    static const struct {
        const char *name;
        unsigned field;
    } scopes[REC_N_KINDS] = {[REC_NETWORK] = {"network", REC_POLICY_NETWORK},
                             [REC_GROUP] = {"group", REC_POLICY_GROUP},
                             [REC_VM] = {"vm", REC_POLICY_VM},
                             [REC_VIF] = {"vif", REC_POLICY_VIF}};
    struct rec *r = policy_rec(n, scopes[scope].name);

    rec_set_string(r, scopes[scope].field, ref(scope, of));
    put(r);
}

/* A mandatory rule about everything leaves one of the narrow scope nothing to decide. */
static bool
covers(enum rec_kind wide, unsigned of, enum rec_kind narrow, unsigned what)
{
    struct rec *r;

    put_policy(4, wide, of);
    put_policy(5, narrow, what);
    r = rule_rec(1, 4, 1, "deny");
    rec_set_string(r, REC_RULE_PART, "mandatory");
    put(r);
    put(rule_rec(2, 5, 1, "allow"));
    lint();
    return strstr(warning(2), "unreachable: policy4/rule1");
}

/* VM 1 has vifs 1 and 3, as group 1; group 2 has vif 1, group 3 nothing. */
static void
test_scopes(void)
{
    begin();
    vif(3, 1, 1, 3);
    for (unsigned n = 1; n <= 3; n++) {
        struct rec *r = new_rec(REC_GROUP, n);

        for (unsigned i = 1; n < 3 && i <= (n == 1 ? 3 : 1); i += 2) {
            rec_add(r, REC_GROUP_VIFS, ref(REC_VIF, i));
        }
        put(r);
    }

    CASE("a scope covers another one if it has all its vifs");
    CHECK(covers(REC_NETWORK, 1, REC_VIF, 1) && !covers(REC_NETWORK, 2, REC_VIF, 1));
    CHECK(covers(REC_NETWORK, 1, REC_VM, 1) && covers(REC_NETWORK, 1, REC_GROUP, 1));
    CHECK(covers(REC_GROUP, 1, REC_VM, 1) && covers(REC_VM, 1, REC_GROUP, 1));
    CHECK(covers(REC_GROUP, 1, REC_GROUP, 2) && !covers(REC_GROUP, 2, REC_GROUP, 1));
    CHECK(covers(REC_VM, 1, REC_VIF, 3) && !covers(REC_VM, 1, REC_VIF, 2));
    CHECK(covers(REC_GROUP, 1, REC_VIF, 3) && !covers(REC_GROUP, 2, REC_VIF, 3));
    CHECK(covers(REC_VIF, 2, REC_VM, 2) && covers(REC_VIF, 1, REC_GROUP, 2));
    CHECK(!covers(REC_VIF, 1, REC_VM, 1) && !covers(REC_VIF, 3, REC_GROUP, 1));
    CHECK(!covers(REC_GROUP, 2, REC_VM, 1) && !covers(REC_VM, 2, REC_VM, 1));
    CHECK(!covers(REC_VM, 1, REC_NETWORK, 1) && covers(REC_NETWORK, 1, REC_NETWORK, 1));

    CASE("but not if it has some of them, nor one without any");
    CHECK(!covers(REC_NETWORK, 1, REC_GROUP, 3) && covers(REC_GROUP, 3, REC_GROUP, 3));
    vif(3, 1, 2, 3);
    CHECK(!covers(REC_NETWORK, 1, REC_VM, 1) && !covers(REC_NETWORK, 2, REC_VM, 1));
    CHECK(!covers(REC_NETWORK, 1, REC_GROUP, 1) && !covers(REC_NETWORK, 2, REC_GROUP, 1));
    end();
}

static void
test_conflicts(void)
{
    struct rec *r;

    policies();
    CASE("same order, other action, overlapping: a conflict, told at both");
    tcp(rule_rec(8, 1, 20, "allow"), "80", "172.16.0.0/12");
    tcp(rule_rec(9, 1, 20, "deny"), "1-100", "172.16.1.0/24");
    lint();
    CHECK(strstr(warning(8), "conflict: policy1/rule9") &&
          strstr(warning(9), "conflict: policy1/rule8"));

    CASE("no conflict: other ports, other direction, other order");
    tcp(rule_rec(9, 1, 20, "deny"), "81-100", "172.16.1.0/24");
    lint();
    CHECK(!*warning(8) && !*warning(9));
    r = rule_rec(9, 1, 20, "deny");
    rec_set_string(r, REC_RULE_DIRECTION, "out");
    tcp(r, "80", "172.16.1.0/24");
    lint();
    CHECK(!*warning(8) && !*warning(9));

    CASE("a stateless rule that allows what a stateful one of its order does: a conflict, too");
    r = rule_rec(9, 1, 20, "allow");
    rec_set_int(r, REC_RULE_STATEFUL, 0);
    tcp(r, "80", "172.16.1.0/24");
    lint();
    CHECK(strstr(warning(8), "conflict: policy1/rule9 has the same order and the other state") &&
          strstr(warning(9), "conflict: policy1/rule8"));
    r = rule_rec(9, 1, 20, "deny");
    rec_set_int(r, REC_RULE_STATEFUL, 0);
    tcp(r, "81", "172.16.1.0/24");
    lint();
    CHECK(!*warning(8) && !*warning(9));

    CASE("a remote group without an address is without effect");
    group(9, NULL, NULL, NULL, NULL);
    r = rule_rec(10, 1, 30, "allow");
    rec_set_string(r, REC_RULE_REMOTE_GROUP, ref(REC_GROUP, 9));
    put(r);
    lint();
    CHECK(strstr(warning(10), "without effect"));
    end();
}

int
main(void)
{
    test_shadows();
    test_scopes();
    test_conflicts();
    rec_destroy(new_rec(REC_TENANT, 0));
    return check_done();
}
