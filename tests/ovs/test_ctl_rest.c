/* The REST interface, with a pool in memory behind it: what it answers, who may
 * do what, and what of it is in the audit log. */
#include <gnutls/crypto.h>
#include <sys/stat.h>

#include "doc.h"
#include "rest_rig.h"

/* --- what it answers ------------------------------------------------------------------ */

static void
test_objects(void)
{
    json_t *json;

    CASE("rest/whoami");
    CHECK(ask("GET", "/v1/whoami", NULL, &json) == 200);
    CHECK(says(json, "role", "admin"));
    json_decref(json);

    CASE("rest/list and get");
    CHECK(ask("GET", "/v1/networks", NULL, &json) == 200);
    CHECK(json_array_size(json_object_get(json, "networks")) == 2);
    json_decref(json);
    CHECK(ask("GET", "/v1/networks/8a2f1d6e-0000-4000-8000-000000000001", NULL, &json) == 200);
    CHECK(says(json, "name", "nr"));
    json_decref(json);
    CHECK(ask("GET", "/v1/rules/base/ssh", NULL, &json) == 200);
    CHECK(says(json, "policy", "base"));
    json_decref(json);
    CHECK(ask("GET", "/v1/networks/none", NULL, &json) == 404);
    CHECK(says(json, "error", "not_found"));
    json_decref(json);
    CHECK(ask("GET", "/v1/pool", NULL, &json) == 200);
    json_decref(json);

    CASE("rest/add, set, remove");
    CHECK(ask("POST", "/v1/groups", "{\"name\": \"web\", \"vms\": [\"r1\"]}", &json) == 201);
    CHECK(json_integer_value(json_object_get(json, "generation")) == 2);
    json_decref(json);
    CHECK(ask("POST", "/v1/groups", "{\"name\": \"web\"}", &json) == 409);
    CHECK(says(json, "field", "name") && says(json, "object", "group web"));
    json_decref(json);
    CHECK(ask("PATCH", "/v1/groups/web",
              "{\"vms\": {\"add\": [\"g1\", \"r1\"], \"remove\": [\"none\"]}}", NULL) == 200);
    CHECK(ask("GET", "/v1/groups/web", NULL, &json) == 200);
    CHECK(json_array_size(json_object_get(json, "vms")) == 2);
    json_decref(json);
    CHECK(ask("PATCH", "/v1/groups/web", "{\"vms\": {\"remove\": [\"r1\"]}}", NULL) == 200);
    CHECK(ask("GET", "/v1/groups/web", NULL, &json) == 200);
    CHECK(json_array_size(json_object_get(json, "vms")) == 1);
    json_decref(json);
    CHECK(ask("DELETE", "/v1/groups/web", NULL, NULL) == 200);
    CHECK(ask("DELETE", "/v1/groups/web", NULL, NULL) == 404);
    CHECK(ask("POST", "/v1/rules", "{\"name\": \"dns\", \"policy\": \"base\", \"order\": 2}",
              NULL) == 201);
    CHECK(ask("DELETE", "/v1/rules/base/dns", NULL, NULL) == 200);
}

static void
test_faults(void)
{
    static const struct {
        const char *method, *path, *body;
        int status;
        const char *field;
    } cases[] = {
        {"GET", "/", NULL, 404, NULL},
        {"GET", "/v1/", NULL, 404, NULL},
        {"GET", "/v1/nothing", NULL, 404, NULL},
        {"GET", "/v1/networks/", NULL, 404, NULL},
        {"GET", "/v1/pool/x", NULL, 404, NULL},
        {"PUT", "/v1/networks", NULL, 405, NULL},
        {"DELETE", "/v1/pool", NULL, 405, NULL},
        {"POST", "/v1/networks", NULL, 400, NULL},
        {"POST", "/v1/networks", "{}", 422, "name"},
        {"POST", "/v1/rules", "{\"name\": \"x\"}", 422, "policy"},
        {"POST", "/v1/networks", "{\"name\": \"a\", \"colour\": 1}", 422, "colour"},
        {"POST", "/v1/networks", "{\"name\": 5}", 422, "name"},
        {"POST", "/v1/networks", "{\"name\": \"a\\u0000b\"}", 400, NULL},
        {"POST", "/v1/networks", "{\"name\": \"a\", \"tag\": \"7\"}", 422, "tag"},
        {"POST", "/v1/networks", "{\"name\": \"a\", \"tag\": 7.5}", 422, "tag"},
        {"POST", "/v1/networks", "{\"name\": \"a\", \"tag\": 99999999999999999999}", 400, NULL},
        {"POST", "/v1/networks", "{\"name\": \"a\", \"policy_epoch\": {}}", 422, "policy_epoch"},
        {"PATCH", "/v1/pool", "{\"generation\": 9}", 403, "generation"},
        {"PATCH", "/v1/hosts/h1", "{\"connected\": true}", 403, "connected"},
        {"PATCH", "/v1/groups/gr", "{\"vms\": {\"add\": [1]}}", 422, "vms"},
        {"PATCH", "/v1/groups/gr", "{\"vms\": {\"ad\": []}}", 422, "vms"},
        {"PATCH", "/v1/groups/gr", "{\"vms\": \"r1\"}", 422, "vms"},
        {"POST", "/v1/networks", "{\"name\": \"blue\", \"encapsulation\": \"pigeon\"}", 422,
         "encapsulation"},
        {"POST", "/v1/commit", "{\"edits\": []}", 422, "edits"},
        {"POST", "/v1/commit", "{\"edits\": [7]}", 422, "op"},
        {"POST", "/v1/commit", "{\"edits\": [{\"op\": \"set\", \"class\": \"cat\"}]}", 422,
         "class"},
        {"POST", "/v1/commit",
         "{\"edits\": [{\"op\": \"remove\", \"class\": \"pool\", \"name\": \"x\"}]}", 422, "op"},
        {"POST", "/v1/commit",
         "{\"edits\": [{\"op\": \"set\", \"class\": \"vm\", \"name\": \"r1\", \"values\": {}, "
         "\"force\": true}]}",
         422, "force"},
        {"POST", "/v1/commit?confirm=x", "{\"version\": 1}", 400, "confirm"},
        /* Nothing that was meant is passed over. */
        {"POST", "/v1/commit?confrim=60", "{\"version\": 1}", 400, NULL},
        {"POST", "/v1/commit?confirm", "{\"version\": 1}", 400, "confirm"},
        {"POST", "/v1/commit?confirm=60&confirm=0", "{\"version\": 1}", 400, "confirm"},
        {"POST", "/v1/import?confirm=60", "{\"version\": 1}", 400, NULL},
        {"GET", "/v1/networks?name=nr", NULL, 400, NULL},
        {"POST", "/v1/commit", "{\"edits\": [], \"confirm\": 60}", 422, "confirm"},
        {"POST", "/v1/commit", "{\"edits\": [], \"version\": 1, \"vms\": []}", 422, "version"},
        {"POST", "/v1/shadow", "{\"document\": {}, \"flow\": []}", 422, "flow"},
        {"GET", "/v1/cookies/ssh", NULL, 422, "cookie"},
        {"DELETE", "/v1/cookies/0x1", NULL, 405, NULL},
        {"GET", "/v1/wait?timeout=601", NULL, 400, "timeout"},
        {"GET", "/v1/wait?generation=-1", NULL, 400, "generation"},
        {"POST", "/v1/confirm", NULL, 409, "pending_deadline"},
        {"POST", "/v1/rollback", NULL, 409, "pending_deadline"},
    };
    int before = atomic_load(&pool.submitted);
    json_t *json;

    CASE("rest/faults name the field");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int status = ask(cases[i].method, cases[i].path, cases[i].body, &json);
        bool ok = status == cases[i].status && json_object_get(json, "message") &&
                  (!cases[i].field || says(json, "field", cases[i].field));
        if (!ok) {
            char *text = json ? json_dumps(json, 0) : NULL;
            printf("# %s %s %s: %d %s\n", cases[i].method, cases[i].path,
                   cases[i].body ? cases[i].body : "", status, text ? text : "");
            free(text);
        }
        CHECK(ok);
        json_decref(json);
    }
    /* One got as far as the pool, which refused it. */
    CHECK(atomic_load(&pool.submitted) == before + 1);
}

static void
test_commit(void)
{
    static const char edits[] =
        "{\"edits\": [{\"op\": \"add\", \"class\": \"vm\", \"name\": \"v\", \"values\": {\"name\": "
        "\"v\"}}, {\"op\": \"set\", \"class\": \"vm\", \"name\": \"r1\", \"values\": {\"tenant\": "
        "\"red\"}}]}";
    static const char *const rename_red[] = {
        "{\"edits\": [{\"op\": \"set\", \"class\": \"tenant\", \"name\": \"red\", "
        "\"values\": {\"name\": \"rouge\"}}]}",
        "{\"edits\": [{\"op\": \"set\", \"class\": \"tenant\", \"name\": \"rouge\", "
        "\"values\": {\"name\": \"red\"}}]}"};
    json_t *json;

    CASE("rest/commit with confirm");
    CHECK(ask("POST", "/v1/commit?confirm=60", edits, NULL) == 200);
    CHECK(ask("POST", "/v1/vms", "{\"name\": \"w\"}", &json) == 409);
    CHECK(says(json, "field", "pending_deadline"));
    json_decref(json);
    CHECK(ask("POST", "/v1/confirm", NULL, NULL) == 200);
    CHECK(ask("DELETE", "/v1/vms/v", NULL, NULL) == 200);
    CHECK(ask("POST", "/v1/commit?confirm=60", "{\"version\": 1}", NULL) == 200);
    CHECK(ask("POST", "/v1/rollback", NULL, NULL) == 200);
    CHECK(ask("POST", "/v1/rollback", NULL, NULL) == 409);

    CASE("rest/an admin's commit is an admin's to confirm");
    struct cert olga = cert_make("o", "operator", CERT_CLIENT, &ca);
    CHECK(ask("POST", "/v1/commit?confirm=60",
              "{\"edits\": [{\"op\": \"set\", \"class\": \"host\", \"name\": \"h1\", \"values\": "
              "{\"uplink\": \"eth7\"}}]}",
              NULL) == 200);
    CHECK(tls_ask(&olga, "POST", "/v1/confirm", NULL, &json) == 403);
    CHECK(says(json, "object", "hosts"));
    json_decref(json);
    CHECK(tls_ask(&olga, "POST", "/v1/rollback", NULL, NULL) == 403);
    CHECK(ask("POST", "/v1/confirm", NULL, NULL) == 200);
    CHECK(ask("POST", "/v1/commit?confirm=60", "{\"version\": 1}", NULL) == 200);
    CHECK(tls_ask(&olga, "POST", "/v1/confirm", NULL, NULL) == 200);

    CASE("rest/who may not make it any more does not decide on it");
    struct cert was = cert_make("ann", "admin", CERT_CLIENT, &ca);
    struct cert is = cert_make("ann", "operator", CERT_CLIENT, &ca);
    CHECK(tls_ask(&was, "POST", "/v1/commit?confirm=60",
                  "{\"edits\": [{\"op\": \"set\", \"class\": \"host\", \"name\": \"h1\", "
                  "\"values\": {\"uplink\": \"eth8\"}}]}",
                  NULL) == 200);
    CHECK(tls_ask(&is, "POST", "/v1/confirm", NULL, &json) == 403);
    CHECK(says(json, "object", "hosts"));
    json_decref(json);
    CHECK(tls_ask(&is, "POST", "/v1/rollback", NULL, NULL) == 403);
    CHECK(tls_ask(&was, "POST", "/v1/confirm", NULL, NULL) == 200);
    cert_free(&was);
    cert_free(&is);

    CASE("rest/an operator's commit is his to decide, though users name what has a new name");
    CHECK(tls_ask(&olga, "POST", "/v1/commit?confirm=60", rename_red[0], NULL) == 200);
    CHECK(tls_ask(&olga, "POST", "/v1/rollback", NULL, NULL) == 200);
    CHECK(tls_ask(&olga, "POST", "/v1/commit?confirm=60", rename_red[1], NULL) == 200);
    CHECK(tls_ask(&olga, "POST", "/v1/confirm", NULL, NULL) == 200);
    cert_free(&olga);

    CASE("rest/check changes nothing");
    CHECK(ask("POST", "/v1/check", "{\"version\": 1}", &json) == 200);
    CHECK(json_array_size(json_object_get(json, "warnings")) == 1);
    json_decref(json);
    CHECK(ask("GET", "/v1/check", NULL, &json) == 200);
    CHECK(json_array_size(json_object_get(json, "errors")) == 0);
    json_decref(json);
}

/* By another controller, once the next change has come and before it is decided. */
static void
meanwhile(const char *edit)
{
    atomic_store(&pool.meanwhile, json_loads(edit, 0, NULL));
}

static void
test_meanwhile(void)
{
    static const char uplink[] =
        "{\"edits\": [{\"op\": \"set\", \"class\": \"host\", \"name\": \"h1\", \"values\": "
        "{\"uplink\": \"eth9\"}}]}";
    struct cert ann = cert_make("ann", "admin", CERT_CLIENT, &ca);
    struct cert alice = cert_make("alice", "", CERT_CLIENT, &ca);
    json_t *json;

    CASE("rest/meanwhile: a role that is taken away while a request waits");
    CHECK(tls_ask(&ann, "POST", "/v1/commit?confirm=60", uplink, NULL) == 200);
    meanwhile("{\"op\": \"add\", \"class\": \"user\", \"name\": \"ann\", \"values\": "
              "{\"name\": \"ann\", \"role\": \"operator\"}}");
    CHECK(tls_ask(&ann, "POST", "/v1/confirm", NULL, &json) == 403);
    CHECK(says(json, "object", "hosts"));
    json_decref(json);
    meanwhile("{\"op\": \"set\", \"class\": \"user\", \"name\": \"ann\", \"values\": "
              "{\"role\": \"viewer\"}}");
    CHECK(tls_ask(&ann, "POST", "/v1/rollback", NULL, NULL) == 403);
    CHECK(ask("POST", "/v1/confirm", NULL, NULL) == 200);
    CHECK(ask("PATCH", "/v1/users/ann", "{\"role\": \"admin\"}", NULL) == 200);
    meanwhile("{\"op\": \"set\", \"class\": \"user\", \"name\": \"ann\", \"values\": "
              "{\"enabled\": false}}");
    CHECK(tls_ask(&ann, "POST", "/v1/vms", "{\"name\": \"w\"}", &json) == 403);
    json_decref(json);
    CHECK(ask("DELETE", "/v1/users/ann", NULL, NULL) == 200);

    CASE("rest/meanwhile: what is another tenant's by then");
    meanwhile("{\"op\": \"set\", \"class\": \"group\", \"name\": \"gr\", \"values\": "
              "{\"tenant\": \"green\"}}");
    CHECK(tls_ask(&alice, "PATCH", "/v1/groups/gr", "{\"addresses\": [\"10.0.0.9\"]}", NULL) ==
          404);
    CHECK(ask("GET", "/v1/groups/gr", NULL, &json) == 200 && !json_object_get(json, "addresses"));
    json_decref(json);
    CHECK(ask("PATCH", "/v1/groups/gr", "{\"tenant\": \"red\"}", NULL) == 200);
    CHECK(tls_ask(&alice, "PATCH", "/v1/groups/gr", "{\"addresses\": [\"10.0.0.9\"]}", NULL) ==
          200);
    CHECK(ask("PATCH", "/v1/groups/gr", "{\"addresses\": null}", NULL) == 200);

    CASE("rest/meanwhile: members of a set that others add stay");
    meanwhile("{\"op\": \"set\", \"class\": \"group\", \"name\": \"all\", \"values\": "
              "{\"addresses\": [\"10.0.0.0/8\", \"192.0.2.0/24\"]}}");
    CHECK(ask("PATCH", "/v1/groups/all",
              "{\"addresses\": {\"add\": [\"198.51.100.0/24\"], \"remove\": [\"10.0.0.0/8\"]}}",
              NULL) == 200);
    CHECK(ask("GET", "/v1/groups/all", NULL, &json) == 200);
    CHECK(json_array_size(json_object_get(json, "addresses")) == 2);
    json_decref(json);
    CHECK(ask("PATCH", "/v1/groups/all", "{\"addresses\": [\"10.0.0.0/8\"]}", NULL) == 200);

    CASE("rest/meanwhile: one of that name");
    meanwhile("{\"op\": \"add\", \"class\": \"vm\", \"name\": \"w\", \"values\": {\"name\": "
              "\"w\"}}");
    CHECK(ask("POST", "/v1/vms", "{\"name\": \"w\"}", NULL) == 409);
    CHECK(ask("DELETE", "/v1/vms/w", NULL, NULL) == 200);
    cert_free(&ann);
    cert_free(&alice);
}

static void
test_unknown(void)
{
    static const struct {
        const char *method, *path, *body;
    } asked[] = {
        {"GET", "/v1/vifs", NULL},      {"GET", "/v1/vms/r1", NULL},
        {"GET", "/v1/export", NULL},    {"GET", "/v1/wait?timeout=0", NULL},
        {"GET", "/v1/whoami", NULL},    {"POST", "/v1/vms", "{\"name\": \"u\"}"},
        {"POST", "/v1/sessions", "{}"},
    };
    struct cert none = cert_make("nobody", "", CERT_CLIENT, &ca);
    json_t *json;

    CASE("rest/nothing is said of what is not known yet");
    atomic_store(&pool.unknown, true);
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        CHECK(ask(asked[i].method, asked[i].path, asked[i].body, &json) == 503);
        CHECK(says(json, "error", "unavailable"));
        json_decref(json);
    }
    CHECK(ask("GET", "/v1/status", NULL, NULL) == 200);
    CHECK(ask("GET", "/v1/openapi.json", NULL, NULL) == 200);
    /* Who has no role by his certificate may have one by his row. */
    CHECK(tls_ask(&none, "GET", "/v1/vms", NULL, &json) == 503 &&
          says(json, "error", "unavailable"));
    json_decref(json);
    atomic_store(&pool.unknown, false);
    CHECK(ask("GET", "/v1/vms/r1", NULL, NULL) == 200);
    CHECK(ask("GET", "/v1/vms/r1", NULL, NULL) == 200);
    CHECK(tls_ask(&none, "GET", "/v1/vms", NULL, NULL) == 403);
    cert_free(&none);
}

static void *
poll_long(void *status)
{
    *(int *)status = ask("GET", "/v1/wait?generation=1000&timeout=30", NULL, NULL);
    return NULL;
}

static void
test_wait(void)
{
    pthread_t thread;
    int status = 0;
    json_t *json;
    double start;

    struct cert red = cert_make("r", "tenant:red", CERT_CLIENT, &ca);

    CASE("rest/wait");
    CHECK(ask("GET", "/v1/wait?generation=1&timeout=30", NULL, &json) == 200);
    CHECK(json_is_true(json_object_get(json, "applied")));
    CHECK(json_array_size(json_object_get(json, "not_connected")) == 1);
    json_decref(json);
    CHECK(tls_ask(&red, "GET", "/v1/wait?generation=1&timeout=30", NULL, &json) == 200);
    CHECK(json_array_size(json_object_get(json, "not_connected")) == 0);
    json_decref(json);
    cert_free(&red);
    start = now_s();
    CHECK(ask("GET", "/v1/wait?generation=1000&timeout=1", NULL, &json) == 200);
    CHECK(json_is_false(json_object_get(json, "applied")));
    CHECK(json_array_size(json_object_get(json, "waiting_for")) == 1);
    CHECK(now_s() - start > 0.9);
    json_decref(json);
    pthread_create(&thread, NULL, poll_long, &status);
    usleep(200000);
    start = now_s();
    CHECK(ask("GET", "/v1/status", NULL, NULL) == 200); /* a long poll holds nobody up */
    CHECK(now_s() - start < 1);
    atomic_store(&pool.applied, 1000);
    pthread_join(thread, NULL);
    CHECK(status == 200);
    CHECK(now_s() - start < 5);
    atomic_store(&pool.applied, 1);
}

static void
test_tables(void)
{
    FILE *f;
    json_t *made = rest_openapi(), *stored;

    CASE("rest/openapi.json of the source is what is served");
    f = fopen("controller/openapi.json", "r");
    stored = f ? json_loadf(f, 0, NULL) : NULL;
    CHECK(stored && json_equal(stored, made));
    if (f) {
        fclose(f);
    }
    json_decref(stored);
    json_decref(made);

    CASE("rest/fields are the records'");
    for (size_t i = 0; i < n_pool_classes; i++) {
        const struct pool_class *c = &pool_classes[i];
        const struct rec_table *t = &rec_tables[rec_kind_by_name(c->noun)];
        CHECK(rec_kind_by_name(c->noun) < REC_N_KINDS);
        CHECK(!strcmp(t->member, c->plural));
        for (size_t j = 0; j < c->n_fields; j++) {
            const struct pool_field *pf = &c->fields[j];
            int at = rec_field_index((enum rec_kind)(t - rec_tables), pf->name);
            const struct rec_field *rf = at < 0 ? NULL : &t->fields[at];
            bool list = rf && (rf->type == REC_STRINGS || rf->type == REC_REFS);
            bool ok =
                (pf->flags & POOL_STATUS)
                    ? !rf
                    : rf && list == !!(pf->flags & POOL_SET) &&
                          (pf->type == POOL_REF) == (rf->type == REC_REF || rf->type == REC_REFS) &&
                          (pf->type == POOL_INTEGER) ==
                              (rf->type == REC_INT || rf->type == REC_OPT_INT) &&
                          (pf->type == POOL_BOOLEAN) == (rf->type == REC_BOOL) &&
                          !rf->def == !!(pf->flags & POOL_REQUIRED) &&
                          (!pf->ref || !strcmp(pf->ref, rec_tables[rf->ref].noun));
            if (!ok) {
                printf("# %s.%s differs\n", c->noun, pf->name);
            }
            CHECK(ok);
        }
        for (size_t j = 0; j < t->n_fields; j++) {
            if (!pool_field_find(c, t->fields[j].name)) {
                printf("# %s.%s is missing\n", c->noun, t->fields[j].name);
            }
            CHECK(pool_field_find(c, t->fields[j].name));
        }
    }
}

/* --- roles ------------------------------------------------------------------------------ */

enum { VIEWER = 1, TENANT = 2, OPERATOR = 4, ADMIN = 8 };

/* A certificate of each role; every cell of the matrix, and the denials leave
 * a trace. */
static void
test_roles(void)
{
    static const struct {
        const char *method, *path, *body;
        int who; /* is not turned away */
    } cells[] = {
        {"GET", "/v1/openapi.json", NULL, VIEWER | TENANT | OPERATOR | ADMIN},
        {"GET", "/v1/whoami", NULL, VIEWER | TENANT | OPERATOR | ADMIN},
        {"GET", "/v1/status", NULL, VIEWER | TENANT | OPERATOR | ADMIN},
        {"GET", "/v1/wait?timeout=0", NULL, VIEWER | TENANT | OPERATOR | ADMIN},
        {"GET", "/v1/export", NULL, VIEWER | OPERATOR | ADMIN},
        {"GET", "/v1/check", NULL, VIEWER | OPERATOR | ADMIN},
        {"POST", "/v1/check", "{}", VIEWER | OPERATOR | ADMIN},
        {"GET", "/v1/cookies/0xd505000000000007", NULL, VIEWER | OPERATOR | ADMIN},
        {"GET", "/v1/log?after=3", NULL, VIEWER | OPERATOR | ADMIN},
        {"POST", "/v1/samples?seconds=5", NULL, OPERATOR | ADMIN},
        {"GET", "/v1/samples", NULL, VIEWER | OPERATOR | ADMIN},
        {"POST", "/v1/shadow", "{\"from\":\"x\"}", OPERATOR | ADMIN},
        {"POST", "/v1/capture", "{\"from\":\"x\"}", OPERATOR | ADMIN},
        {"GET", "/v1/capture", NULL, OPERATOR | ADMIN},
        {"POST", "/v1/trace", "{\"from\":\"r1-0\"}", VIEWER | OPERATOR | ADMIN},
        {"POST", "/v1/import", "{\"version\":1}", OPERATOR | ADMIN},
        {"POST", "/v1/import", "{\"hosts\":[]}", ADMIN},
        {"POST", "/v1/import", "{\"users\":[]}", ADMIN},
        {"POST", "/v1/commit", "{\"version\":1}", OPERATOR | ADMIN},
        {"POST", "/v1/confirm", NULL, OPERATOR | ADMIN},
        {"POST", "/v1/rollback", NULL, OPERATOR | ADMIN},
        {"GET", "/v1/pool", NULL, VIEWER | TENANT | OPERATOR | ADMIN},
        {"PATCH", "/v1/pool", "{\"default_action\":\"deny\"}", ADMIN},
        {"GET", "/v1/hosts", NULL, VIEWER | TENANT | OPERATOR | ADMIN},
        {"POST", "/v1/hosts", "{\"name\":\"x\",\"error\":1}", 0},
        {"PATCH", "/v1/hosts/h1", "{\"uplink\":\"eth0\"}", ADMIN},
        {"DELETE", "/v1/hosts/none", NULL, ADMIN},
        {"POST", "/v1/tenants", "{\"name\":1}", OPERATOR | ADMIN},
        {"DELETE", "/v1/tenants/none", NULL, OPERATOR | ADMIN},
        {"GET", "/v1/networks/nr", NULL, VIEWER | TENANT | OPERATOR | ADMIN},
        {"PATCH", "/v1/networks/nr", "{\"mtu\":1400}", OPERATOR | ADMIN},
        {"PATCH", "/v1/networks/nr", "{\"zone\":7}", 0},
        {"DELETE", "/v1/networks/none", NULL, OPERATOR | ADMIN},
        {"PATCH", "/v1/vms/r1", "{\"tenant\":\"red\"}", OPERATOR | ADMIN},
        {"PATCH", "/v1/vifs/r1-0", "{\"mac\":\"02:00:00:00:00:01\"}", OPERATOR | ADMIN},
        {"PATCH", "/v1/vifs/r1-0", "{\"locking_mode\":\"unlocked\"}", OPERATOR | ADMIN},
        {"PATCH", "/v1/vifs/r1-0", "{\"ofport\":1}", 0},
        {"PATCH", "/v1/groups/gr", "{\"addresses\":[]}", TENANT | OPERATOR | ADMIN},
        {"PATCH", "/v1/groups/gg", "{\"addresses\":[]}", OPERATOR | ADMIN},
        {"PATCH", "/v1/groups/all", "{\"addresses\":[]}", OPERATOR | ADMIN},
        {"POST", "/v1/policies", "{\"name\":1}", TENANT | OPERATOR | ADMIN},
        {"PATCH", "/v1/rules/pr/web", "{\"order\":2}", TENANT | OPERATOR | ADMIN},
        {"PATCH", "/v1/rules/pr/web", "{\"error\":\"\"}", 0},
        {"PATCH", "/v1/rules/base/ssh", "{\"order\":2}", OPERATOR | ADMIN},
        {"GET", "/v1/users", NULL, ADMIN},
        {"GET", "/v1/users/alice", NULL, ADMIN},
        {"POST", "/v1/users", "{\"name\":1}", ADMIN},
        {"PATCH", "/v1/users/alice", "{\"role\":\"tenant\"}", ADMIN},
        {"DELETE", "/v1/users/none", NULL, ADMIN},
    };
    struct {
        int role;
        struct cert cert;
    } who[] = {
        {0, cert_make("h9", "host", CERT_CLIENT, &ca)},
        {0, cert_make("mallory", "admin", CERT_CLIENT, &ca)}, /* a disabled user */
        {0, cert_make("x", "tenant", CERT_CLIENT, &ca)},
        {0, cert_make("x", "Admin", CERT_CLIENT, &ca)},
        {VIEWER, cert_make("v", "viewer", CERT_CLIENT, &ca)},
        {TENANT, cert_make("t", "tenant:red", CERT_CLIENT, &ca)},
        {TENANT, cert_make("alice", "admin", CERT_CLIENT, &ca)}, /* class user wins */
        {OPERATOR, cert_make("o", "operator", CERT_CLIENT, &ca)},
        {ADMIN, cert_make("a", "admin", CERT_CLIENT, &ca)},
    };

    CASE("rest/role matrix");
    for (size_t w = 0; w < sizeof who / sizeof who[0]; w++) {
        for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++) {
            json_t *json = NULL;
            int status =
                tls_ask(&who[w].cert, cells[i].method, cells[i].path, cells[i].body, &json);
            bool may = cells[i].who & who[w].role;
            /* What a tenant may not even see is not there for it. */
            bool hidden = who[w].role == TENANT && status == 404 && !may;
            bool ok = status && (hidden || (status == 403) == !may);
            if (!ok) {
                char *text = json ? json_dumps(json, 0) : NULL;
                printf("# who %zu %s %s: %d %s\n", w, cells[i].method, cells[i].path, status,
                       text ? text : "");
                free(text);
            }
            CHECK(ok);
            json_decref(json);
        }
        cert_free(&who[w].cert);
    }
}

static size_t
list_size(const struct cert *who, const char *plural)
{
    char path[40];
    json_t *json;
    size_t n;

    snprintf(path, sizeof path, "/v1/%s", plural);
    tls_ask(who, "GET", path, NULL, &json);
    n = json_array_size(json_object_get(json, plural));
    json_decref(json);
    return n;
}

static void
test_tenant(void)
{
    struct cert red = cert_make("r", "tenant:red", CERT_CLIENT, &ca);
    static const struct {
        const char *method, *path, *body;
        int status;
    } cases[] = {
        {"POST", "/v1/groups", "{\"name\":\"mine\",\"tenant\":\"red\",\"vms\":[\"r1\"]}", 201},
        {"POST", "/v1/groups", "{\"name\":\"a\",\"tenant\":\"green\"}", 403},
        {"POST", "/v1/groups", "{\"name\":\"a\"}", 403},
        {"POST", "/v1/groups", "{\"name\":\"a\",\"tenant\":\"red\",\"vms\":[\"g1\"]}", 422},
        {"POST", "/v1/groups", "{\"name\":\"a\",\"tenant\":\"red\",\"groups\":[\"all\"]}", 201},
        {"PATCH", "/v1/groups/mine", "{\"tenant\":null}", 403},
        {"PATCH", "/v1/groups/mine", "{\"tenant\":\"green\"}", 403},
        {"PATCH", "/v1/groups/mine", "{\"groups\":{\"add\":[\"gg\"]}}", 422},
        {"DELETE", "/v1/groups/mine", NULL, 200},
        {"DELETE", "/v1/groups/gg", NULL, 404},
        {"DELETE", "/v1/groups/all", NULL, 403},
        {"POST", "/v1/policies", "{\"name\":\"p\",\"scope\":\"global\"}", 403},
        {"POST", "/v1/policies", "{\"name\":\"p\",\"scope\":\"vm\",\"vm\":\"g1\"}", 403},
        {"POST", "/v1/policies", "{\"name\":\"p\",\"scope\":\"group\",\"group\":\"all\"}", 403},
        {"POST", "/v1/policies", "{\"name\":\"p\",\"scope\":\"vif\",\"vif\":\"r1-0\"}", 201},
        {"PATCH", "/v1/policies/p", "{\"vif\":null,\"scope\":\"global\"}", 403},
        {"PATCH", "/v1/policies/p", "{\"vif\":\"g1-0\"}", 403},
        {"POST", "/v1/rules", "{\"name\":\"x\",\"policy\":\"p\",\"remote_group\":\"all\"}", 201},
        {"POST", "/v1/rules", "{\"name\":\"y\",\"policy\":\"p\",\"remote_group\":\"gg\"}", 422},
        {"POST", "/v1/rules", "{\"name\":\"y\",\"policy\":\"base\"}", 403},
        {"POST", "/v1/rules", "{\"name\":\"y\",\"policy\":\"pg\"}", 403},
        {"PATCH", "/v1/rules/p/x", "{\"policy\":\"base\"}", 403},
        {"GET", "/v1/policies/base", NULL, 404},
        {"GET", "/v1/vifs/g1-0", NULL, 404},
        {"GET", "/v1/hosts/h1", NULL, 404},
    };

    CASE("rest/a tenant sees its own");
    CHECK(list_size(&red, "tenants") == 1);
    CHECK(list_size(&red, "networks") == 1);
    CHECK(list_size(&red, "vms") == 1);
    CHECK(list_size(&red, "vifs") == 1);
    CHECK(list_size(&red, "groups") == 2); /* and the pool's */
    CHECK(list_size(&red, "policies") == 1);
    CHECK(list_size(&red, "rules") == 1);
    CHECK(list_size(&red, "hosts") == 0);

    CASE("rest/a tenant changes its own");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int status = tls_ask(&red, cases[i].method, cases[i].path, cases[i].body, NULL);
        if (status != cases[i].status) {
            printf("# %s %s %s: %d\n", cases[i].method, cases[i].path,
                   cases[i].body ? cases[i].body : "", status);
        }
        CHECK(status == cases[i].status);
    }
    cert_free(&red);
}

/* --- the audit log ------------------------------------------------------------------------- */

static bool
chain_ok(const char *path, unsigned *lines)
{
    char line[4096], chain[65];
    FILE *f = fopen(path, "r");
    bool ok = f;

    memset(chain, '0', 64);
    chain[64] = '\0';
    *lines = 0;
    while (ok && fgets(line, sizeof line, f)) {
        char *mark = strstr(line, ", \"chain\": \""), said[65], text[4200], hex[65];
        unsigned char digest[32];
        if (!mark || sscanf(mark, ", \"chain\": \"%64[0-9a-f]\"}", said) != 1) {
            ok = false;
            break;
        }
        snprintf(text, sizeof text, "%s%.*s}", chain, (int)(mark - line), line);
        gnutls_hash_fast(GNUTLS_DIG_SHA256, text, strlen(text), digest);
        for (int i = 0; i < 32; i++) {
            snprintf(hex + 2 * i, 3, "%02x", digest[i]);
        }
        ok = !strcmp(hex, said);
        memcpy(chain, said, sizeof chain);
        ++*lines;
    }
    if (f) {
        fclose(f);
    }
    return ok;
}

static bool
file_says(const char *path, const char *a, const char *b)
{
    char line[4096];
    FILE *f = fopen(path, "r");
    bool found = false;

    while (f && !found && fgets(line, sizeof line, f)) {
        found = strstr(line, a) && strstr(line, b);
    }
    if (f) {
        fclose(f);
    }
    return found;
}

static void
test_audit(void)
{
    char moved[130];
    unsigned lines, more;
    json_t *json;
    struct stat st;

    CASE("rest/audit");
    CHECK(chain_ok(paths[AUDIT], &lines));
    CHECK(lines > 50);
    CHECK(!stat(paths[AUDIT], &st) && (st.st_mode & 0777) == 0600);
    CHECK(file_says(paths[AUDIT], "\"user\": \"uid:", "\"path\": \"/v1/groups/web\""));
    CHECK(file_says(paths[AUDIT], "\"user\": \"o\"", "\"status\": 403"));
    CHECK(file_says(paths[AUDIT], "\"left_out\"", "\"status\": 403"));

    CASE("rest/audit goes on in a new file");
    snprintf(moved, sizeof moved, "%s.1", paths[AUDIT]);
    CHECK(!rename(paths[AUDIT], moved));
    CHECK(ask("PATCH", "/v1/pool", "{\"default_action\": \"deny\"}", NULL) == 200);
    CHECK(file_says(paths[AUDIT], "/v1/pool", "\"status\": 200"));
    CHECK(!chain_ok(paths[AUDIT], &more)); /* alone it has no beginning */

    CASE("rest/audit: what cannot be written is not done");
    int64_t before = atomic_load(&pool.submitted);
    unlink(paths[AUDIT]);
    CHECK(!symlink("/dev/null", paths[AUDIT]));
    CHECK(ask("PATCH", "/v1/pool", "{\"default_action\": \"deny\"}", NULL) == 200); /* too late */
    CHECK(ask("PATCH", "/v1/pool", "{\"default_action\": \"deny\"}", &json) == 503);
    CHECK(says(json, "error", "unavailable"));
    json_decref(json);
    CHECK(atomic_load(&pool.submitted) == before + 1);
    CHECK(ask("GET", "/v1/pool", NULL, NULL) == 200);
    unlink(paths[AUDIT]);
    CHECK(ask("PATCH", "/v1/pool", "{\"default_action\": \"deny\"}", NULL) == 200);
}

/* --- life ------------------------------------------------------------------------------------ */

static void *
poll_forever(void *status)
{
    *(int *)status = ask("GET", "/v1/wait?generation=5000&timeout=600", NULL, NULL);
    return NULL;
}

static void
test_life(struct rest_config *config)
{
    struct rest_config bad = *config;
    const char *nowhere[] = {"tcp:1234"}, *same[] = {paths[UNIX]};
    struct rest *r;
    pthread_t thread;
    char why[300];
    int status = 0;

    CASE("rest/an address in use, and none");
    bad.audit = NULL;
    bad.n_listen = 1;
    bad.listen = same;
    CHECK(rest_create(&bad, &r, why, sizeof why) == EADDRINUSE);
    bad.listen = nowhere;
    CHECK(rest_create(&bad, &r, why, sizeof why) == EINVAL);

    CASE("rest/the end answers those who wait");
    pthread_create(&thread, NULL, poll_forever, &status);
    usleep(300000);
    fake_stop(&pool);
    pthread_join(thread, NULL);
    CHECK(status == 503);
    CHECK(access(paths[SOCK], F_OK));
}

int
main(int argc, char **argv)
{
    struct rest_config config;

    if (argc > 1 && !strcmp(argv[1], "--openapi")) { /* for controller/openapi.json */
        json_t *json = rest_openapi();
        json_dumpf(json, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
        putchar('\n');
        json_decref(json);
        return 0;
    }
    CASE("rest/start");
    if (rig_start(&config)) {
        CHECK(!"starts");
        return check_done();
    }
    test_objects();
    test_faults();
    test_commit();
    test_meanwhile();
    test_unknown();
    test_wait();
    test_tables();
    test_tenant();
    test_roles();
    test_audit();
    test_life(&config);
    rig_end();
    return check_done();
}
