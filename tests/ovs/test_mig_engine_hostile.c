/* An end of a migration whose other end has its certificates and means harm: it says much,
 * and never what is waited for.  The engine ends all the same, in time, and can be told to. */
#include "check.h"
#include "end.h"
#include "mig_both.h"

enum { ANSWER_MS = 1000, IN_TIME_MS = 10000, ROUNDS = 20000 };

static int
put(struct transport *t, const struct mig_msg *m)
{
    uint8_t body[8192];

    return transport_tx_record(t, m->type, body, mig_msg_put(body, sizeof body, m));
}

static struct transport_config
config_of(const struct party *p, bool source, uint8_t *memory)
{
    struct transport_config c = {.identity.epoch = p->job.epoch,
                                 .n_connections = p->job.connections,
                                 .memory = source ? memory : NULL,
                                 .n_pages = source ? FAKE_PAGES : 0};

    mig_uuid_parse(p->job.vm, c.identity.vm);
    mig_uuid_parse(p->job.migration, c.identity.migration);
    return c;
}

/* Takes all that comes, until something of that type has, or the connections end. */
static bool
drain_until(struct transport *t, uint32_t type)
{
    struct transport_message m;
    bool found = false;

    while (!found && !transport_rx(t, &m, -1)) {
        found = m.type == type;
        transport_message_done(&m);
    }
    return found;
}

/* --- a destination ------------------------------------------------------------------------ */

enum chatter { QUESTIONS, NEWS, SILENCE };

/* What it says instead of READY, all the time. */
static void
chat(struct transport *t, enum chatter what)
{
    const struct mig_msg question = {.type = MIG_CLOCK, .clock.asked_ns = 1};
    const struct mig_msg news = {.type = MIG_ARRIVED};

    struct transport_message m;

    while (!transport_error(t, NULL)) {
        while (!transport_rx(t, &m, 0)) {
            transport_message_done(&m);
        }
        if (what == QUESTIONS) {
            put(t, &question);
        } else if (what == NEWS) {
            put(t, &news);
            poll(NULL, 0, 20);
        } else {
            poll(NULL, 0, 20);
        }
    }
}

/* A child: as a destination should be, up to FINAL. */
static void
hostile_destination(const struct party *p, struct transport_listener *l, enum chatter what)
{
    const struct mig_msg accept = {.type = MIG_ACCEPT, .accept.n_pages = FAKE_PAGES};
    struct transport_config c = config_of(p, false, NULL);
    uint8_t *memory = calloc(FAKE_PAGES, MIG_PAGE_BYTES);
    char why[TRANSPORT_WHY];
    struct transport *t;

    if (!transport_accept(l, &c, RIG_PATIENCE_MS, -1, &t, why) && drain_until(t, MIG_CONFIG) &&
        !transport_set_memory(t, memory, FAKE_PAGES) && !put(t, &accept) &&
        drain_until(t, MIG_FINAL)) {
        chat(t, what);
    }
    _exit(0);
}

/* A source against it; the child's pid. */
static pid_t
begin(struct party *s, enum chatter what)
{
    struct transport_listener *l;
    char why[TRANSPORT_WHY];
    pid_t parent = getpid(), pid;

    rig_boot(0, RATE);
    *s = rig_party(0, 0);
    if (transport_listen("127.0.0.1:0", &l, why)) {
        abort();
    }
    snprintf(s->address, sizeof s->address, "%s", transport_listener_address(l));
    pid = fork();
    if (!pid) {
        rig_die_with_parent(parent);
        hostile_destination(s, l, what);
    }
    transport_listener_close(l);
    return pid;
}

static void
end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void
test_never_ready(enum chatter what, const char *name)
{
    struct party s;
    uint64_t since;
    pid_t pid = begin(&s, what);

    CASE(name);
    s.job.answer_ms = ANSWER_MS;
    rig_start(&s);
    CHECK(rig_until(&s, MIG_EVENT_PHASE, MIG_PHASE_FINAL));
    since = mig_now_ns();
    CHECK(rig_finish(&s) == MIG_ROLLED_BACK && runs_at(0) == 0);
    CHECK(mig_now_ns() - since < IN_TIME_MS * 1000000ull);
    end(pid);
}

static void
test_cancelled(enum chatter what, const char *name)
{
    struct party s;
    uint64_t since;
    pid_t pid = begin(&s, what);

    CASE(name);
    s.job.answer_ms = 600000;
    rig_start(&s);
    CHECK(rig_until(&s, MIG_EVENT_PHASE, MIG_PHASE_FINAL));
    rig_tell(&s, 'x');
    since = mig_now_ns();
    CHECK(rig_finish(&s) == MIG_ROLLED_BACK && runs_at(0) == 0);
    CHECK(mig_now_ns() - since < IN_TIME_MS * 1000000ull);
    end(pid);
}

/* --- a source ------------------------------------------------------------------------------- */

/* Round after round of nothing: what is told of them is not more than somebody could read. */
static void
test_rounds(void)
{
    struct pair p = prepare(0, RATE);
    struct mig_msg m = {.type = MIG_CONFIG, .config.n_pages = FAKE_PAGES};
    uint8_t *memory = calloc(FAKE_PAGES, MIG_PAGE_BYTES);
    struct transport_config c;
    char why[TRANSPORT_WHY], identity[32];
    struct transport *t = NULL;

    CASE("engine_rounds_without_end_are_not_all_told");
    rig_start(&p.d);
    CHECK(rig_until(&p.d, MIG_EVENT_LISTENING, -1));
    c = config_of(&p.d, true, memory);
    CHECK(!transport_connect(p.d.address, &c, &t, why));
    strcpy(m.config.driver, "fake");
    m.config.data.n = (uint32_t)snprintf(identity, sizeof identity, "fake %d", FAKE_PAGES);
    m.config.data.p = (uint8_t *)identity;
    fake->told[1] = 0;
    CHECK(t && !put(t, &m) && drain_until(t, MIG_ACCEPT));
    m = (struct mig_msg){.type = MIG_ROUND};
    for (uint32_t i = 0; i < ROUNDS && t; i++) {
        m.round.round = i;
        CHECK(!put(t, &m));
    }
    m = (struct mig_msg){.type = MIG_ABORT, .abort.code = MIG_ABORT_CANCELLED};
    CHECK(t && !put(t, &m));
    CHECK(rig_finish(&p.d) == MIG_ROLLED_BACK);
    CHECK(fake->told[1] > 0 && fake->told[1] < ROUNDS / 20);
    transport_close(t);
    free(memory);
}

int
main(void)
{
    rig_setup();
    test_never_ready(SILENCE, "engine_destination_that_says_nothing");
    test_never_ready(QUESTIONS, "engine_destination_that_asks_without_end");
    test_never_ready(NEWS, "engine_destination_that_tells_without_end");
    test_cancelled(QUESTIONS, "engine_cancelled_while_asked_without_end");
    test_cancelled(NEWS, "engine_cancelled_while_told_without_end");
    test_rounds();
    rig_teardown();
    return check_done();
}
