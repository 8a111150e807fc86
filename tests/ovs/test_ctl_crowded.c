/* More rules of one order than a flow can tell apart: their policies say so. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "compile.h"
#include "crowded.h"
#include "ctl_rig.h"
#include "ctl_switch.h"
#include "openvswitch/vlog.h"
#include "pflow.h"

#define FIRST_KEY 1000000u

static struct compile *compile;
static struct crowded crowded;

static struct uuid
rule_id(unsigned n)
{
    return (struct uuid){.parts = {0xabc, REC_RULE, 1, n}};
}

/* Rule 'n': one of its remotes is everybody's, the others and its ports are its own.  So many that
 * it is a conjunction. */
static void
put_rule(unsigned n, unsigned policy, unsigned order)
{
    struct rec *r = rule_rec(1, policy, order, "allow");
    struct uuid uuid = rule_id(n);
    char text[32];

    free(r->name);
    r->name = xasprintf("r%u", n);
    r->key = FIRST_KEY + n;
    rec_set_string(r, REC_RULE_PROTOCOL, "tcp");
    rec_add(r, REC_RULE_REMOTE_CIDRS, "10.9.0.0/16");
    for (unsigned i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "10.%u.%u.%u", i, n / 256, n % 256);
        rec_add(r, REC_RULE_REMOTE_CIDRS, text);
        snprintf(text, sizeof text, "%u", 10000 * (i + 1) + n);
        rec_add(r, REC_RULE_PORTS, text);
    }
    rec_normalize(r);
    model_put(m, &uuid, r);
}

static void
remove_rule(unsigned n)
{
    struct uuid uuid = rule_id(n);

    model_remove(m, REC_RULE, &uuid);
}

static void
run(void)
{
    model_settle(m);
    compile_run(compile);
    model_changes_clear(m);
    crowded_run(&crowded, m, compile);
}

static bool
complains(unsigned policy)
{
    const char *error = any(REC_POLICY, policy)->refused;

    return error && strstr(error, "rules: on host \"host") &&
           strstr(error, "more than 4000 rules") && strstr(error, "\"r") &&
           strstr(error, "another order");
}

static bool
is_content(unsigned policy)
{
    return !any(REC_POLICY, policy)->refused;
}

/* Bytes of actions of the flow that has most clauses. */
static size_t
shared_actions(void)
{
    struct ftable *ft = compile_host_flows(compile, obj(REC_HOST, 1)->key);
    size_t most = 0;
    const struct pflow *f;

    FTABLE_FOR_EACH (f, ft) {
        most = f->clause ? MAX(most, f->actions_len) : most;
    }
    return most;
}

static void
test_crowded(void)
{
    CASE("crowded: as many as a flow holds are no error");
    put(policy_rec(1, "pool"));
    put(policy_rec(2, "pool"));
    put(policy_rec(3, "pool"));
    put(policy_rec(4, "pool"));
    for (unsigned n = 0; n < FTABLE_CLAUSES_MAX; n++) {
        put_rule(n, n % 2 ? 1 : 2, 10);
    }
    put_rule(FTABLE_CLAUSES_MAX + 1, 3, 11);
    run();
    CHECK(is_content(1) && is_content(2) && is_content(3));
    CHECK(shared_actions() >= FTABLE_CLAUSES_MAX * 16);

    CASE("crowded: one more is, of each policy that has such rules and of no other");
    put_rule(FTABLE_CLAUSES_MAX, 1, 10);
    run();
    CHECK(complains(1) && complains(2) && is_content(3));
    CHECK(shared_actions() < 1000);
    run();
    CHECK(complains(1) && complains(2));

    CASE("crowded: tables are looked through only when a crowd has changed");
    uint64_t walks = crowded.walks;

    CHECK(walks);
    put_rule(FTABLE_CLAUSES_MAX + 1, 3, 13);
    run();
    vif(3, 2, 2, 3);
    run();
    CHECK(crowded.walks == walks && complains(1) && complains(2) && is_content(3));
    put_rule(FTABLE_CLAUSES_MAX + 1, 3, 10);
    run();
    CHECK(crowded.walks > walks && complains(1) && complains(2) && complains(3));

    CASE("crowded: whose the rules are may change though no flow does");
    walks = crowded.walks;
    put_rule(FTABLE_CLAUSES_MAX + 1, 4, 10);
    run();
    CHECK(complains(1) && complains(2) && is_content(3) && complains(4));
    put_rule(FTABLE_CLAUSES_MAX + 1, 3, 11);
    run();
    CHECK(complains(1) && complains(2) && is_content(3) && is_content(4));

    CASE("crowded: another order mends it");
    put_rule(FTABLE_CLAUSES_MAX, 1, 12);
    run();
    CHECK(is_content(1) && is_content(2));
    CHECK(shared_actions() >= FTABLE_CLAUSES_MAX * 16);

    CASE("crowded: a policy that is in error for another reason does not keep it");
    put_rule(FTABLE_CLAUSES_MAX, 1, 10);
    run();
    CHECK(complains(2));
    put(policy_rec(2, "network")); /* of none */
    run();
    CHECK(!obj(REC_POLICY, 2) && is_content(1) && is_content(2));
    put(policy_rec(2, "pool"));
    run();
    CHECK(complains(1) && complains(2));

    CASE("crowded: what goes takes the error along");
    for (unsigned n = 0; n <= FTABLE_CLAUSES_MAX + 1; n++) {
        remove_rule(n);
    }
    run();
    CHECK(is_content(1) && is_content(2) && is_content(3));
}

/* A document with 'n' rules of one order that share a remote; what is said of it. */
static int
compile_document(const struct ctl_switch *files, unsigned n)
{
    char *path = xasprintf("%s/pool.json", files->dir);
    FILE *f = fopen(path, "w");

    fputs("{\"version\":1,\"hosts\":[{\"name\":\"h1\",\"ovsdb\":\"unix:/run/x\"}],"
          "\"networks\":[{\"name\":\"n\",\"type\":\"vlan\",\"tag\":5}],"
          "\"vms\":[{\"name\":\"v\"}],\"vifs\":[{\"name\":\"i\",\"vm\":\"v\",\"network\":\"n\","
          "\"mac\":\"02:00:00:00:00:01\",\"host\":\"h1\"}],"
          "\"policies\":[{\"name\":\"tight\",\"scope\":\"pool\",\"rules\":[",
          f);
    for (unsigned i = 0; i < n; i++) {
        fprintf(f,
                "%s{\"name\":\"r%u\",\"order\":5,\"direction\":\"in\",\"action\":\"allow\","
                "\"protocol\":\"tcp\",\"ports\":[\"%u\",\"%u\",\"%u\"],"
                "\"remote_cidrs\":[\"10.9.0.0/16\",\"10.0.%u.%u\",\"10.1.%u.%u\"]}",
                i ? "," : "", i, 10000 + i, 20000 + i, 30000 + i, i / 256, i % 256, i / 256,
                i % 256);
    }
    fputs("]}]}", f);
    fclose(f);
    free(path);
    return ctl_sh(files,
                  "$BIN/weft-controllerd --compile $DIR/pool.json --host h1 2>&1 >$DIR/flows");
}

static void
test_document(void)
{
    struct ctl_switch files = {.db = 0};

    snprintf(files.dir, sizeof files.dir, "/tmp/weft-crowded-XXXXXX");
    ovs_assert(mkdtemp(files.dir));
    ctl_find_bin();
    CASE("crowded: --compile says so");
    CHECK(!compile_document(&files, FTABLE_CLAUSES_MAX) && !*ctl_said);
    CHECK(!compile_document(&files, FTABLE_CLAUSES_MAX + 1));
    CHECK(strstr(ctl_said, "policy \"tight\": rules: on host \"h1\" more than 4000 rules"));
    CHECK(!ctl_sh(&files, "test -s $DIR/flows"));
    ctl_switch_destroy(&files);
}

int
main(void)
{
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    begin();
    compile = compile_create(m);
    test_crowded();
    crowded_destroy(&crowded);
    compile_destroy(compile);
    end();
    test_document();
    return check_done();
}
