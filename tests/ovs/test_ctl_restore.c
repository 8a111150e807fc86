/* A commit that waits is rolled back, and what weft-xapid does to VMs meanwhile. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ctl_side.h"
#include "openvswitch/vlog.h"
#include "pool_db_priv.h"
#include "uuid.h"

static bool
is_live(struct side *s, const void *vif)
{
    return model_by_name(s->m, REC_VIF, vif);
}

/* By weft-xapid, past every controller: with a vif "NAME-'device'". */
static int
make_vm_called(const struct model_obj *network, const char *name, int device)
{
    char text[700];

    snprintf(text, sizeof text,
             "[\"Weft_Pool\",{\"op\":\"insert\",\"table\":\"VM\",\"uuid-name\":\"made\",\"row\":"
             "{\"name\":\"%s\",\"driver\":\"cell\"}},{\"op\":\"insert\",\"table\":\"VIF\",\"row\":"
             "{\"name\":\"%s-%d\",\"device\":\"%d\",\"vm\":[\"named-uuid\",\"made\"],\"network\":"
             "[\"uuid\",\"" UUID_FMT "\"],\"mac\":\"02:00:00:00:00:%02d\","
             "\"locking_mode\":\"network_default\"}}]",
             name, name, device, device, UUID_ARGS(&network->uuid), device + 11);
    return ctl_db_transact(&server, text);
}

static int
make_vm(const struct model_obj *network)
{
    return make_vm_called(network, "made", 0);
}

static void
test_restore(struct side *s)
{
    static const char before[] =
        "{\"version\":1,\"networks\":[{\"name\":\"n\",\"type\":\"vlan\",\"tag\":7}],"
        "\"vms\":[{\"name\":\"old\"}],\"vifs\":[]}";
    struct answer a;

    CASE("what weft-xapid has made since outlives a rollback");
    a = apply(s, before, POOL_MERGE);
    CHECK(!a.error);
    a = apply(s, "{\"version\":1,\"vms\":[{\"name\":\"new\"}],\"tenants\":[{\"name\":\"t\"}]}",
              POOL_MERGE);
    CHECK(!a.error);
    CHECK(!make_vm(model_by_name(s->m, REC_NETWORK, "n")) && until(s, NULL, is_live, "made-0"));
    a = apply(s, before, POOL_RESTORE);
    CHECK(!a.error && a.deleted == 1);
    CHECK(model_by_name(s->m, REC_VM, "old") && !model_by_name(s->m, REC_VM, "new"));
    CHECK(is_live(s, "made-0") && model_by_name(s->m, REC_TENANT, "t"));

    CASE("but not without the network that it is in");
    a = apply(s, "{\"version\":1,\"networks\":[],\"vms\":[],\"vifs\":[]}", POOL_RESTORE);
    CHECK(!a.error && a.deleted == 3 && !is_live(s, "made-0"));
    CHECK(model_by_name(s->m, REC_VM, "made"));
}

/* --- a commit that waits, and what becomes of VMs meanwhile --------------------------------- */

static struct answer
change(struct side *s, struct doc *doc, enum pool_apply_mode mode,
       const struct pool_pending *pending)
{
    struct answer a;

    memset(&a, 0, sizeof a);
    pool_db_apply(s->db, doc, mode, false, pending, got, &a);
    until(s, NULL, is_done, &a);
    if (a.error) {
        printf("# [%s] [%s] %s\n", a.object, a.field, a.message);
    }
    return a;
}

static const struct pool_pending pends = {NULL, INT64_MAX / 2, "admin"};

static struct doc *
parsed(const char *text)
{
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_parse(text, strlen(text), &errors);

    ovs_assert(doc);
    return doc;
}

static struct answer
commit(struct side *s, const char *text, enum pool_apply_mode mode)
{
    return change(s, parsed(text), mode, &pends);
}

static struct answer
roll_back(struct side *s)
{
    return change(s, parsed(pool_db_pending(s->db)->document), POOL_RESTORE,
                  &(struct pool_pending){"", 0, ""});
}

static bool
is_gone(struct side *s, const void *vif)
{
    return !model_any_by_name(s->m, REC_VIF, vif, NULL);
}

/* By weft-xapid, past every controller. */
static bool
destroy_vm(struct side *s)
{
    return !ctl_db_transact(&server,
                            "[\"Weft_Pool\",{\"op\":\"delete\",\"table\":\"VIF\",\"where\":"
                            "[[\"name\",\"==\",\"made-0\"]]},{\"op\":\"delete\",\"table\":"
                            "\"VM\",\"where\":[[\"name\",\"==\",\"made\"]]}]") &&
           until(s, NULL, is_gone, "made-0");
}

static struct uuid
uuid_of(struct side *s, enum rec_kind kind, const char *name)
{
    const struct model_obj *obj = model_any_by_name(s->m, kind, name, NULL);

    return obj ? obj->uuid : UUID_ZERO;
}

static size_t
members(struct side *s, const char *group)
{
    struct pool_object o;
    size_t n;

    if (!pool_object_read(s->db, REC_GROUP, group, &o)) {
        return SIZE_MAX;
    }
    n = o.rec.v[REC_GROUP_VMS].n + o.rec.v[REC_GROUP_VIFS].n;
    pool_object_destroy(&o);
    return n;
}

static const char alone[] =
    "{\"version\":1,\"groups\":[{\"name\":\"g\",\"vms\":[\"old\"]}],\"policies\":[],"
    "\"mirrors\":[]}";

static const char old_only[] =
    "{\"version\":1,\"vms\":[{\"name\":\"old\"}],\"vifs\":[],\"groups\":[],\"policies\":[],"
    "\"mirrors\":[]}";

/* The group names what is made, and so do policies and mirrors. */
static bool
make_pool(struct side *s)
{
    return !apply(s,
                  "{\"version\":1,\"networks\":[{\"name\":\"n\",\"type\":\"vlan\",\"tag\":7}],"
                  "\"vms\":[{\"name\":\"old\"}],\"vifs\":[],\"groups\":[],\"policies\":[],"
                  "\"mirrors\":[]}",
                  POOL_REPLACE)
                .error &&
           !make_vm(model_by_name(s->m, REC_NETWORK, "n")) && until(s, NULL, is_live, "made-0") &&
           !apply(s,
                  "{\"version\":1,\"groups\":[{\"name\":\"g\",\"vms\":[\"made\",\"old\"],"
                  "\"vifs\":[\"made-0\"]}],\"policies\":["
                  "{\"name\":\"p\",\"scope\":\"group\",\"group\":\"g\",\"rules\":[]},"
                  "{\"name\":\"q\",\"scope\":\"vif\",\"vif\":\"made-0\",\"rules\":[{\"name\":"
                  "\"r\",\"order\":1,\"direction\":\"in\",\"action\":\"allow\"}]}],\"mirrors\":["
                  "{\"name\":\"one\",\"vifs\":[\"made-0\"],\"output_vlan\":8},"
                  "{\"name\":\"two\",\"vifs\":[\"made-0\"],\"networks\":[\"n\"],"
                  "\"output_vlan\":9}]}",
                  POOL_MERGE)
                .error;
}

static const struct {
    enum rec_kind kind;
    const char *from, *to;
} renamed[] = {{REC_VM, "made", "fresh"}, {REC_NETWORK, "n", "n2"}, {REC_TENANT, "t", "gone"}};
enum { RENAMED = ARRAY_SIZE(renamed) };

static void
add_rename(struct doc *doc, enum rec_kind kind, const char *from, const char *to)
{
    struct doc_item *item = doc_append(doc, kind);

    free(item->rec.name);
    item->rec.name = xstrdup(to);
    item->rename = xstrdup(from);
}

/* And removes the tenant whose name another one takes. */
static struct answer
commit_names(struct side *s)
{
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_create();

    doc_add_removal(doc, REC_TENANT, "gone", &errors);
    for (size_t i = 0; i < RENAMED; i++) {
        add_rename(doc, renamed[i].kind, renamed[i].from, renamed[i].to);
    }
    return change(s, doc, POOL_MERGE, &pends);
}

/* Each takes the name of the next, and the last one goes. */
static struct answer
commit_chain(struct side *s)
{
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_create();

    doc_add_removal(doc, REC_VM, "last", &errors);
    add_rename(doc, REC_VM, "old", "last");
    add_rename(doc, REC_VM, "made", "old");
    return change(s, doc, POOL_MERGE, &pends);
}

static void
test_pending_vms(struct side *s)
{
    struct uuid uuids[RENAMED];

    CASE("a VM that was destroyed while a commit waited stays away when that is rolled back");
    CHECK(make_pool(s) && members(s, "g") == 3);
    CHECK(!commit(s, alone, POOL_REPLACE).error && members(s, "g") == 1);
    CHECK(destroy_vm(s));
    CHECK(!roll_back(s).error && !pool_db_pending(s->db)->deadline_ms);
    CHECK(!model_any_by_name(s->m, REC_VM, "made", NULL) && is_gone(s, "made-0"));

    CASE("what named it comes back without it, or not if it was about nothing else");
    CHECK(members(s, "g") == 1 && model_by_name(s->m, REC_POLICY, "p"));
    CHECK(!model_any_by_name(s->m, REC_POLICY, "q", NULL));
    CHECK(model_by_name(s->m, REC_MIRROR, "two"));
    CHECK(!model_any_by_name(s->m, REC_MIRROR, "one", NULL));

    CASE("one that took its name is left alone");
    CHECK(make_pool(s) && !commit(s, alone, POOL_REPLACE).error);
    CHECK(destroy_vm(s) && !make_vm(model_by_name(s->m, REC_NETWORK, "n")) &&
          until(s, NULL, is_live, "made-0"));
    uuids[0] = uuid_of(s, REC_VM, "made");
    CHECK(!roll_back(s).error && members(s, "g") == 1);
    uuids[1] = uuid_of(s, REC_VM, "made");
    CHECK(is_live(s, "made-0") && uuid_equals(&uuids[0], &uuids[1]));

    CASE("one that the commit itself removed comes back");
    CHECK(make_pool(s) && !commit(s, old_only, POOL_REPLACE).error && is_gone(s, "made-0"));
    CHECK(!roll_back(s).error && is_live(s, "made-0") && members(s, "g") == 3);
    CHECK(model_by_name(s->m, REC_POLICY, "q"));

    CASE("what the commit renamed is the same again");
    CHECK(make_pool(s) &&
          !apply(s, "{\"version\":1,\"tenants\":[{\"name\":\"t\"},{\"name\":\"gone\"}]}",
                 POOL_REPLACE)
               .error);
    for (size_t i = 0; i < RENAMED; i++) {
        uuids[i] = uuid_of(s, renamed[i].kind, renamed[i].from);
    }
    CHECK(!commit_names(s).error && model_by_name(s->m, REC_VM, "fresh"));
    CHECK(!roll_back(s).error && is_live(s, "made-0") && members(s, "g") == 3);
    for (size_t i = 0; i < RENAMED; i++) {
        struct uuid now = uuid_of(s, renamed[i].kind, renamed[i].from);

        CHECK(uuid_equals(&now, &uuids[i]));
    }
    CHECK(hmap_count(&s->m->objs[REC_VM]) == 2 && hmap_count(&s->m->objs[REC_NETWORK]) == 1 &&
          hmap_count(&s->m->objs[REC_TENANT]) == 2 && model_by_name(s->m, REC_TENANT, "gone"));
}

/* The newcomer is there as it was, and what had its name before is 'fresh'. */
static bool
is_kept(struct side *s, const struct uuid *newcomer, const struct uuid *old, const char *fresh)
{
    struct uuid made = uuid_of(s, REC_VM, "made"), kept = uuid_of(s, REC_VM, fresh);

    return is_live(s, "made-0") && is_live(s, "made-1") && uuid_equals(&made, newcomer) &&
           uuid_equals(&kept, old);
}

static void
test_names(struct side *s)
{
    struct uuid old, second, newcomer;

    CASE("what was renamed keeps the name if one that was made since has the old one");
    CHECK(make_pool(s) &&
          !apply(s, "{\"version\":1,\"tenants\":[{\"name\":\"t\"},{\"name\":\"gone\"}]}",
                 POOL_REPLACE)
               .error);
    old = uuid_of(s, REC_VM, "made");
    CHECK(!commit_names(s).error &&
          !make_vm_called(model_by_name(s->m, REC_NETWORK, "n2"), "made", 1) &&
          until(s, NULL, is_live, "made-1"));
    newcomer = uuid_of(s, REC_VM, "made");
    CHECK(!roll_back(s).error && is_kept(s, &newcomer, &old, "fresh") && members(s, "g") == 3);
    CHECK(model_by_name(s->m, REC_NETWORK, "n") && model_by_name(s->m, REC_TENANT, "t"));

    CASE("so does what had that name, and what the commit deleted of that one's stays away");
    CHECK(make_pool(s) &&
          !apply(s, "{\"version\":1,\"vms\":[{\"name\":\"last\"}]}", POOL_MERGE).error);
    old = uuid_of(s, REC_VM, "made");
    second = uuid_of(s, REC_VM, "old");
    CHECK(!commit_chain(s).error &&
          !make_vm_called(model_by_name(s->m, REC_NETWORK, "n"), "made", 1) &&
          until(s, NULL, is_live, "made-1"));
    newcomer = uuid_of(s, REC_VM, "made");
    CHECK(!roll_back(s).error && is_kept(s, &newcomer, &old, "old") && members(s, "g") == 3);
    CHECK(is_kept(s, &newcomer, &second, "last") && hmap_count(&s->m->objs[REC_VM]) == 3);

    CASE("one that came since is not taken for the one of its name that the commit deleted");
    CHECK(make_pool(s) && !commit(s, old_only, POOL_REPLACE).error && is_gone(s, "made-0"));
    CHECK(!make_vm_called(model_by_name(s->m, REC_NETWORK, "n"), "made", 1) &&
          until(s, NULL, is_live, "made-1"));
    newcomer = uuid_of(s, REC_VM, "made");
    CHECK(!roll_back(s).error && is_live(s, "made-1") && is_gone(s, "made-0"));
    old = uuid_of(s, REC_VM, "made");
    CHECK(uuid_equals(&old, &newcomer) && members(s, "g") == 1);
}

static bool
destroy_other(struct side *s)
{
    return !ctl_db_transact(&server,
                            "[\"Weft_Pool\",{\"op\":\"delete\",\"table\":\"VIF\",\"where\":"
                            "[[\"name\",\"==\",\"other-0\"]]},{\"op\":\"delete\",\"table\":"
                            "\"VM\",\"where\":[[\"name\",\"==\",\"other\"]]}]") &&
           until(s, NULL, is_gone, "other-0");
}

static void
test_in_the_way(struct side *s)
{
    static const char before[] =
        "{\"version\":1,\"networks\":[{\"name\":\"n\",\"type\":\"vlan\",\"tag\":7}],"
        "\"vms\":[{\"name\":\"old\"}],\"vifs\":[{\"name\":\"old-0\",\"vm\":\"old\","
        "\"network\":\"n\",\"mac\":\"02:00:00:00:00:11\"}],\"groups\":[],\"policies\":[],"
        "\"mirrors\":[]}";
    const struct model_obj *n9;
    struct answer a;

    CASE("only the vif in the commit's network goes with it, not what was made elsewhere");
    CHECK(make_pool(s) &&
          !commit(s, "{\"version\":1,\"networks\":[{\"name\":\"n9\",\"type\":\"vlan\",\"tag\":6}]}",
                  POOL_MERGE)
               .error);
    n9 = model_by_name(s->m, REC_NETWORK, "n9");
    CHECK(n9 && !make_vm_called(n9, "there", 1) && until(s, NULL, is_live, "there-1") &&
          !make_vm_called(model_by_name(s->m, REC_NETWORK, "n"), "here", 2) &&
          until(s, NULL, is_live, "here-2"));
    a = roll_back(s);
    CHECK(!a.error && a.deleted == 2 && is_gone(s, "there-1") && is_live(s, "here-2"));
    CHECK(model_by_name(s->m, REC_VM, "there") && members(s, "g") == 3);

    CASE("a rollback that has no room beside what was made since deletes none of that");
    CHECK(make_pool(s) && !commit(s, old_only, POOL_REPLACE).error && is_gone(s, "made-0"));
    CHECK(!make_vm_called(model_by_name(s->m, REC_NETWORK, "n"), "other", 0) &&
          until(s, NULL, is_live, "other-0"));
    a = roll_back(s);
    CHECK(a.error == EINVAL && !strcmp(a.field, "mac") && pool_db_pending(s->db)->deadline_ms);
    CHECK(is_live(s, "other-0") && is_gone(s, "made-0"));
    CHECK(destroy_other(s) && !roll_back(s).error && is_live(s, "made-0"));

    CASE("unless an older controller has written what was before");
    CHECK(make_pool(s) && !apply(s, before, POOL_REPLACE).error && is_live(s, "old-0"));
    CHECK(!apply(s, old_only, POOL_REPLACE).error && is_gone(s, "old-0"));
    CHECK(!make_vm_called(model_by_name(s->m, REC_NETWORK, "n"), "other", 0) &&
          until(s, NULL, is_live, "other-0"));
    CHECK(!apply(s, before, POOL_RESTORE).error && is_live(s, "old-0") && is_gone(s, "other-0"));
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
    CHECK(until(&s, NULL, connected, NULL));
    test_restore(&s);
    test_pending_vms(&s);
    test_names(&s);
    test_in_the_way(&s);
    side_close(&s);
    ctl_db_stop(&server);
    return check_done();
}
