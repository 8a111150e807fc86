/* What hosts may write of the pool's database: transactions of h1, judged and then done
 * by a real database in memory. */
#include "ctl_gate.h"

#include "check.h"
#include "openvswitch/dynamic-string.h"

#define UPDATE(TABLE, WHERE, ROW)                                                                  \
    "{\"op\":\"update\",\"table\":\"" TABLE "\",\"where\":[" WHERE "],\"row\":{" ROW "}}"
#define MUTATE(TABLE, WHERE, COLUMN)                                                               \
    "{\"op\":\"mutate\",\"table\":\"" TABLE "\",\"where\":[" WHERE "],\"mutations\":[[\"" COLUMN   \
    "\",\"+=\",1]]}"
#define DELETE(TABLE, WHERE) "{\"op\":\"delete\",\"table\":\"" TABLE "\",\"where\":[" WHERE "]}"
#define INSERT(TABLE, ROW)                                                                         \
    "{\"op\":\"insert\",\"table\":\"" TABLE "\",\"uuid-name\":\"n\",\"row\":{" ROW "}}"
#define WAIT(TIMEOUT, NAME)                                                                        \
    "{\"op\":\"wait\"," TIMEOUT "\"table\":\"VM\",\"where\":[[\"name\",\"==\",\"" NAME             \
    "\"]],\"columns\":[\"name\"],\"until\":\"==\",\"rows\":[{\"name\":\"" NAME "\"}]}"
#define NAMED(NAME) "[\"name\",\"==\",\"" NAME "\"]"
#define AT(DIGIT) "[\"_uuid\",\"==\",[\"uuid\",\"" GATE_UUID(DIGIT) "\"]]"
#define GIVE_UP UPDATE("VM", NAMED("at1"), "\"resident_on\":\"\",\"destination\":\"\"")
#define SEEN UPDATE("Host", NAMED("h1"), "\"xapi_seen\":3")

static const struct {
    const char *name, *operations;
    bool may;
} cases[] = {
    /* what hosts do */
    {"its Host", SEEN, true},
    {"its Host by uuid", UPDATE("Host", AT("1"), "\"xapi_address\":\"x\""), true},
    {"its VM", UPDATE("VM", AT("3"), "\"power_state\":\"Running\""), true},
    {"a VM that it is to start",
     UPDATE("VM", NAMED("told"), "\"resident_on\":\"h1\",\"destination\":\"\",\"epoch\":1"), true},
    {"a VM that comes to it", UPDATE("VM", NAMED("comes"), "\"resident_on\":\"h1\""), true},
    {"gives a VM away", GIVE_UP, true},
    {"all that are its own", UPDATE("VM", "[\"resident_on\",\"==\",\"h1\"]", "\"epoch\":1"), true},
    {"none at all", UPDATE("VM", NAMED("nobody"), "\"epoch\":1"), true},
    {"counts", MUTATE("VM", NAMED("at1"), "epoch"), true},
    {"adds a Task", INSERT("Task", "\"host\":\"h1\",\"params\":\"x\""), true},
    {"and removes it", DELETE("Task", NAMED("t1")), true},
    {"of a Task just added",
     INSERT("Task", "\"host\":\"h1\"") "," UPDATE(
         "Task", "[\"_uuid\",\"==\",[\"named-uuid\",\"n\"]]", "\"status\":\"x\""),
     true},
    {"adds a Migration to it", INSERT("Migration", "\"from_host\":\"h2\",\"to_host\":\"h1\""),
     true},
    {"removes its Migration", DELETE("Migration", AT("a")), true},
    {"reads", "{\"op\":\"select\",\"table\":\"User\",\"where\":[true]}", true},
    {"looks first", WAIT("\"timeout\":0,", "at1") "," SEEN, true},
    {"comments", "{\"op\":\"comment\",\"comment\":\"x\"},{\"op\":\"commit\",\"durable\":true}",
     true},
    {"nothing", "", true},
    /* others' rows */
    {"another's VM", UPDATE("VM", NAMED("at2"), "\"resident_on\":\"h1\""), false},
    {"by uuid", UPDATE("VM", AT("4"), "\"epoch\":9"), false},
    {"by uuid and name", UPDATE("VM", AT("4") "," NAMED("at2"), "\"epoch\":9"), false},
    {"all rows", UPDATE("VM", "", "\"epoch\":9"), false},
    {"true", UPDATE("VM", "true", "\"epoch\":9"), false},
    {"its own and another's", UPDATE("VM", "[\"resident_on\",\"!=\",\"\"]", "\"epoch\":9"), false},
    {"by another column", UPDATE("VM", "[\"epoch\",\"<\",5]", "\"epoch\":9"), false},
    {"by includes", UPDATE("VM", "[\"name\",\"includes\",\"at2\"]", "\"epoch\":9"), false},
    {"by excludes", UPDATE("VM", "[\"name\",\"excludes\",\"at1\"]", "\"epoch\":9"), false},
    {"one that runs nowhere", UPDATE("VM", NAMED("off"), "\"resident_on\":\"h1\""), false},
    {"one that it has just given away", GIVE_UP "," UPDATE("VM", NAMED("at1"), "\"epoch\":9"),
     false},
    {"what it made look like others'",
     GIVE_UP "," UPDATE("VM", "[\"resident_on\",\"==\",\"\"],[\"destination\",\"==\",\"\"]",
                        "\"resident_on\":\"h1\""),
     false},
    {"counts another's", MUTATE("VM", NAMED("at2"), "epoch"), false},
    {"counts all", MUTATE("VM", "", "epoch"), false},
    {"another's Host", UPDATE("Host", NAMED("h2"), "\"migration_address\":\"x\""), false},
    {"removes another's Task", DELETE("Task", NAMED("t2")), false},
    {"removes all", DELETE("Migration", ""), false},
    {"adds another's Task", INSERT("Task", "\"host\":\"h2\""), false},
    {"adds nobody's Task", INSERT("Task", "\"name\":\"x\""), false},
    {"adds others' Migration", INSERT("Migration", "\"from_host\":\"h2\",\"to_host\":\"h3\""),
     false},
    {"an owner in another form", INSERT("Task", "\"host\":[\"set\",[\"h1\"]]"), false},
    {"an owner twice", INSERT("Task", "\"host\":\"h1\",\"host\":\"h2\""), false},
    {"a table twice",
     "{\"op\":\"update\",\"table\":\"Host\",\"table\":\"User\",\"where\":[],"
     "\"row\":{\"role\":\"admin\"}}",
     false},
    {"first its own", SEEN "," UPDATE("Host", NAMED("h2"), "\"xapi_seen\":9"), false},
    /* columns and tables that are not for it */
    {"its Host's switch", UPDATE("Host", NAMED("h1"), "\"ovsdb\":\"x\""), false},
    {"its Host's name", UPDATE("Host", NAMED("h1"), "\"name\":\"h2\""), false},
    {"its VM's driver", UPDATE("VM", NAMED("at1"), "\"driver\":\"x\""), false},
    {"another's task of its own", UPDATE("Task", NAMED("t1"), "\"host\":\"h2\""), false},
    {"removes its Host", DELETE("Host", NAMED("h1")), false},
    {"removes its VM", DELETE("VM", NAMED("at1")), false},
    {"adds a VM", INSERT("VM", "\"resident_on\":\"h1\""), false},
    {"adds a Host", INSERT("Host", "\"name\":\"h1\""), false},
    {"users", UPDATE("User", NAMED("ada"), "\"role\":\"admin\""), false},
    {"adds a user", INSERT("User", "\"name\":\"h1\""), false},
    {"mutates a column not its own",
     "{\"op\":\"mutate\",\"table\":\"VM\",\"where\":[],\"mutations\":[[\"name\",\"insert\",\"x\"]]"
     "}",
     false},
    /* other operations, and what is none */
    {"waits", WAIT("\"timeout\":1000,", "at1"), false},
    {"waits for ever", WAIT("", "at1"), false},
    {"waits in vain", WAIT("\"timeout\":0,", "nobody") "," SEEN, false},
    {"a lock", "{\"op\":\"assert\",\"lock\":\"x\"}", false},
    {"gives up", SEEN ",{\"op\":\"abort\"}", false},
    {"an operation of no name", "{\"table\":\"Host\",\"where\":[],\"row\":{}}", false},
    {"an unknown one", "{\"op\":\"upsert\",\"table\":\"Host\"}", false},
    {"no object", "[],1,null", false},
    {"no table", "{\"op\":\"delete\",\"where\":[]}", false},
    {"no condition", "{\"op\":\"delete\",\"table\":\"Task\"}", false},
    {"conditions of no form", DELETE("Task", "[\"host\"]"), false},
    {"a column that is not there", DELETE("Task", "[\"x\",\"==\",\"h1\"]"), false},
    {"an update of nothing said", "{\"op\":\"update\",\"table\":\"Host\",\"where\":[]}", false},
};

static void
test_cases(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char *text =
            xasprintf("[\"Weft_Pool\"%s%s]", *cases[i].operations ? "," : "", cases[i].operations);
        struct json *params = gate_parse(text), *answer;
        struct ovsdb *db = gate_db_create();
        struct gate_state before, after;

        CASE(cases[i].name);
        gate_state_take(&before, db);
        answer = gate_transact(db, params);
        gate_state_take(&after, db);
        CHECK(gate_failed(answer) == !cases[i].may);
        CHECK(!gate_broken(&before, &after));
        /* One answer an operation. */
        CHECK(json_array(answer)->n == json_array(params)->n - 1);
        gate_state_clear(&before);
        gate_state_clear(&after);
        json_destroy(answer);
        json_destroy(params);
        ovsdb_destroy(db);
        free(text);
    }
}

static void
test_answers(void)
{
    struct json *params = gate_parse(
        "[\"Weft_Pool\"," SEEN "," UPDATE("Host", NAMED("h2"), "\"xapi_seen\":9") "," SEEN "]");
    struct ovsdb *db = gate_db_create();
    struct json *answer = gate_transact(db, params);
    char *text = json_to_string(answer, JSSF_SORT);

    CASE("an answer is of what was asked");
    CHECK(!strncmp(text, "[{\"count\":1},{\"details\":", 24));
    CHECK(strstr(text, "\"error\":\"permission error\"},null]"));
    free(text);
    json_destroy(answer);
    json_destroy(params);
    ovsdb_destroy(db);
}

/* What was its own may outlive a host. */
static void
test_no_host(void)
{
    static const char *const writes[] = {
        UPDATE("VM", NAMED("at1"), "\"epoch\":1"),
        UPDATE("VM", NAMED("nobody"), "\"epoch\":1"),
        DELETE("Task", NAMED("t1")),
        INSERT("Task", "\"host\":\"h1\""),
        MUTATE("VM", NAMED("at1"), "epoch"),
    };
    static const char reads[] = "[\"Weft_Pool\",{\"op\":\"select\",\"table\":\"VM\",\"where\":[]}]";
    struct json *gone = gate_parse("[\"Weft_Pool\"," DELETE("Host", NAMED("h1")) "]"), *params;
    struct ovsdb *db = gate_db_create();
    struct gate_state before, after;
    struct json *answer;

    json_destroy(gate_execute(db, gone));
    json_destroy(gone);
    gate_state_take(&before, db);
    for (size_t i = 0; i < ARRAY_SIZE(writes); i++) {
        char *text = xasprintf("[\"Weft_Pool\",%s]", writes[i]), *said;

        CASE("a host that is none any more writes nothing");
        params = gate_parse(text);
        answer = gate_transact(db, params);
        said = json_to_string(answer, JSSF_SORT);
        CHECK(json_array(answer)->n == 1 && strstr(said, "permission error"));
        gate_state_take(&after, db);
        CHECK(!gate_broken(&before, &after) &&
              shash_count(&before.rows) == shash_count(&after.rows));
        gate_state_clear(&after);
        json_destroy(answer);
        json_destroy(params);
        free(said);
        free(text);
    }
    CASE("and reads until its connection ends");
    params = gate_parse(reads);
    answer = gate_transact(db, params);
    CHECK(!gate_failed(answer));
    json_destroy(answer);
    json_destroy(params);
    gate_state_clear(&before);
    ovsdb_destroy(db);
}

static void
test_refused(void)
{
    static const char *const params[] = {
        "[]",
        "{}",
        "[1]",
        "[\"_Server\"," SEEN "]",
        "[\"Other\"," UPDATE("VM", "", "") "]",
        "[\"_Server\",{\"op\":\"wait\",\"timeout\":0}]",
    };

    CASE("databases and parameters that are not for hosts");
    for (size_t i = 0; i < ARRAY_SIZE(params); i++) {
        struct json *json = gate_parse(params[i]), *refusal;
        struct dbgate_plan plan;

        CHECK(!dbgate_admit("h1", json, &plan, &refusal));
        json_destroy(refusal);
        json_destroy(json);
    }
    CASE("nobody's name");
    struct json *json = gate_parse("[\"Weft_Pool\"," DELETE("Task", "[\"host\",\"==\",\"\"]") "]"),
                *refusal;
    struct dbgate_plan plan;

    CHECK(!dbgate_admit("", json, &plan, &refusal));
    json_destroy(refusal);
    json_destroy(json);
}

/* "[DB, SEEN, EACH, EACH...]" */
static bool
admits(const char *each, size_t n)
{
    struct ds s = DS_EMPTY_INITIALIZER;
    struct json *params, *admitted, *refusal;
    struct dbgate_plan plan;

    ds_put_cstr(&s, "[\"Weft_Pool\"," SEEN);
    for (size_t i = 0; i < n; i++) {
        ds_put_format(&s, ",%s", each);
    }
    ds_put_char(&s, ']');
    params = gate_parse(ds_cstr(&s));
    ds_destroy(&s);
    admitted = dbgate_admit("h1", params, &plan, &refusal);
    json_destroy(params);
    if (!admitted) {
        json_destroy(refusal);
        return false;
    }
    json_destroy(admitted);
    dbgate_plan_clear(&plan);
    return true;
}

static bool
admits_clauses(const char *format, size_t n)
{
    struct ds where = DS_EMPTY_INITIALIZER;
    char *op;
    bool may;

    for (size_t i = 0; i < n; i++) {
        ds_put_format(&where, "%s" NAMED("h1"), i ? "," : "");
    }
    op = xasprintf("{\"table\":\"Host\",%s,\"where\":[%s]}", format, ds_cstr(&where));
    may = admits(op, 1);
    free(op);
    ds_destroy(&where);
    return may;
}

static void
test_bounds(void)
{
    static const char *const select = "{\"op\":\"select\",\"table\":\"VM\",\"where\":[]}";
    static const char *const update = "\"op\":\"update\",\"row\":{\"xapi_seen\":3}";

    CASE("operations of a transaction");
    CHECK(admits(SEEN, 99));
    CHECK(!admits(SEEN, 100));
    CASE("selects of a transaction");
    CHECK(admits(select, 8));
    CHECK(!admits(select, 9));
    CASE("clauses of a condition");
    CHECK(admits_clauses(update, 16) && admits_clauses("\"op\":\"select\"", 16));
    CHECK(!admits_clauses(update, 17) && !admits_clauses("\"op\":\"select\"", 17));
    CASE("an update of nothing");
    CHECK(!admits(UPDATE("Host", NAMED("h1"), ""), 1));
}

static bool
may_call(struct dbgate_monitors *monitors, const char *method, const char *params)
{
    struct json *json = gate_parse(params);
    bool may = dbgate_may_call(method, json, monitors);

    json_destroy(json);
    return may;
}

static void
test_methods(void)
{
    static const struct {
        const char *method, *params;
        bool may;
    } calls[] = {
        {"echo", "[]", true},
        {"convert", "[]", false},
        {"steal", "[\"x\"]", false},
        {"lock", "[\"x\"]", false},
        {"unlock", "[\"x\"]", false},
        {"", "[]", false},
        {"monitor", "[\"Weft_Pool\",null,{}]", true},
        {"monitor", "[\"Weft_Pool\",\"m\",{}]", true},
        {"monitor_cond", "[\"Weft_Pool\",[\"monid\",\"Weft_Pool\"],{}]", true},
        {"monitor_cond_since", "[\"Weft_Pool\",[\"monid\",\"x\"],{},\"" GATE_UUID("0") "\"]", true},
        {"monitor_cond_change", "[\"m\",\"m\",{}]", true},
        {"monitor_cancel", "[\"m\"]", true},
        /* what the server would read beyond the end of */
        {"monitor", "[]", false},
        {"monitor", "[\"Weft_Pool\"]", false},
        {"monitor", "[\"Weft_Pool\",\"m\"]", false},
        {"monitor", "[\"Weft_Pool\",\"m\",{},{}]", false},
        {"monitor", "[\"Weft_Pool\",\"m\",[]]", false},
        {"monitor", "[1,\"m\",{}]", false},
        {"monitor", "[\"Weft_Pool\",{},{}]", false},
        {"monitor", "[\"Weft_Pool\",[[],[]],{}]", false},
        {"monitor", "{}", false},
        {"monitor_cond", "[\"Weft_Pool\",\"m\"]", false},
        {"monitor_cond_since", "[\"Weft_Pool\",\"m\",{}]", false},
        {"monitor_cond_since", "[\"Weft_Pool\",\"m\",{},1]", false},
        {"monitor_cond_change", "[\"m\",\"other\",{}]", false},
        {"monitor_cond_change", "[\"m\"]", false},
        {"monitor_cancel", "[]", false},
    };

    CASE("methods");
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        struct dbgate_monitors monitors = {.n = 0};

        CHECK(may_call(&monitors, calls[i].method, calls[i].params) == calls[i].may);
        dbgate_monitors_clear(&monitors);
    }
}

static void
test_monitors(void)
{
    struct dbgate_monitors monitors = {.n = 0};

    CASE("monitors of a session");
    for (int i = 0; i < DBGATE_MAX_MONITORS; i++) {
        char *params = xasprintf("[\"Weft_Pool\",%d,{}]", i);

        CHECK(may_call(&monitors, "monitor", params));
        CHECK(may_call(&monitors, "monitor_cond", params)); /* counts once */
        free(params);
    }
    CHECK(!may_call(&monitors, "monitor", "[\"Weft_Pool\",\"m\",{}]"));
    CHECK(may_call(&monitors, "monitor_cancel", "[\"m\"]")); /* none of it */
    CHECK(!may_call(&monitors, "monitor", "[\"Weft_Pool\",\"m\",{}]"));
    CHECK(may_call(&monitors, "monitor_cancel", "[0]"));
    CHECK(may_call(&monitors, "monitor", "[\"Weft_Pool\",\"m\",{}]"));
    CHECK(!may_call(&monitors, "monitor", "[\"Weft_Pool\",\"n\",{}]"));
    dbgate_monitors_clear(&monitors);
    CHECK(!monitors.n);
}

static void
test_ids(void)
{
    static const struct {
        const char *id;
        bool is;
    } ids[] = {
        {"1", true},     {"\"x\"", true}, {"null", false}, {"1.5", false},
        {"true", false}, {"[1]", false},  {"{}", false},
    };
    char *longest = xasprintf("[\"%064d\",\"%065d\"]", 0, 0);
    struct json *json = gate_parse(longest);

    CASE("ids of requests");
    CHECK(dbgate_is_id(json->array.elems[0]) && !dbgate_is_id(json->array.elems[1]));
    json_destroy(json);
    free(longest);
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        char *text = xasprintf("[%s]", ids[i].id);

        json = gate_parse(text);
        CHECK(dbgate_is_id(json->array.elems[0]) == ids[i].is);
        json_destroy(json);
        free(text);
    }
}

int
main(void)
{
    test_cases();
    test_answers();
    test_no_host();
    test_refused();
    test_bounds();
    test_methods();
    test_monitors();
    test_ids();
    return check_done();
}
