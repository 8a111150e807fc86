/* A host's flows in slots: what is given is there, what is withdrawn is not, however the table
 * grows and shrinks. */
#include <config.h>

#include "check.h"
#include "flow.h"
#include "fmatch.h"
#include "openflow/openflow.h"
#include "openvswitch/match.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofp-flow.h"
#include "openvswitch/ofp-msgs.h"
#include "openvswitch/ofp-protocol.h"
#include "openvswitch/ofpbuf.h"
#include "pflow.h"
#include "random.h"

#define N_FLOWS 20000u

static struct pflow *flows[N_FLOWS], *others[N_FLOWS]; /* of the same keys, higher cookies */
static unsigned char given[N_FLOWS];                   /* bit 0: flows[i], bit 1: others[i] */
static struct ftable table;

static struct pflow *
make_flow(unsigned i, uint64_t cookie)
{
    uint64_t stub[64 / 8];
    struct ofpbuf acts = OFPBUF_STUB_INITIALIZER(stub);
    struct pflow *f;
    struct fmatch m;

    fm_init(&m);
    fm_reg(&m, 14, i);
    ofpact_put_OUTPUT(&acts)->port = u16_to_ofp(1 + cookie % 100);
    f = pflow_make(TBL_OUTPUT, 100, cookie, &m, acts.data, acts.size);
    ofpbuf_uninit(&acts);
    return f;
}

static void
set_given(unsigned i, unsigned char want)
{
    struct pflow *both[] = {flows[i], others[i]};

    for (unsigned b = 0; b < 2; b++) {
        if ((want & ~given[i]) >> b & 1) {
            ftable_give(&table, both[b]);
        } else if ((given[i] & ~want) >> b & 1) {
            ftable_withdraw(&table, both[b]);
        }
    }
    given[i] = want;
}

static bool
is_right(void)
{
    size_t n = 0, n_met = 0, n_bad = 0;
    const struct pflow *f;

    for (unsigned i = 0; i < N_FLOWS; i++) {
        const struct pflow *want = given[i] & 1 ? flows[i] : given[i] ? others[i] : NULL;

        n += want != NULL;
        n_bad += ftable_find(&table, flows[i]) != want;
    }
    FTABLE_FOR_EACH (f, &table) {
        n_met++;
    }
    return !n_bad && n == n_met && n == ftable_count(&table);
}

static void
test_shrinking(void)
{
    size_t full, few;

    CASE("table: a host that loses most of its flows keeps no slots for them");
    for (unsigned i = 0; i < N_FLOWS; i++) {
        set_given(i, i % 10 ? 1 : 3);
    }
    ftable_settle(&table);
    CHECK(is_right());
    full = table.n_slots;
    CHECK(full >= N_FLOWS);
    for (unsigned i = 0; i < N_FLOWS; i++) {
        set_given(i, i % 100 ? 0 : i % 200 ? 1 : 2);
    }
    ftable_settle(&table);
    CHECK(is_right());
    few = table.n_slots;
    CHECK(few <= 8 * ftable_count(&table));

    CASE("table: it does not shrink and grow with each flow");
    for (unsigned i = 1; i < 50; i++) {
        set_given(i, 1);
    }
    ftable_settle(&table);
    CHECK(table.n_slots == few);
    for (unsigned i = 1; i < 50; i++) {
        set_given(i, 0);
    }
    ftable_settle(&table);
    CHECK(table.n_slots == few);

    CASE("table: nothing is left of an empty one but a few slots, and it fills again");
    for (unsigned i = 0; i < N_FLOWS; i++) {
        set_given(i, 0);
    }
    ftable_settle(&table);
    CHECK(is_right() && table.n_slots <= 64);
    for (unsigned i = 0; i < N_FLOWS; i++) {
        set_given(i, 1);
    }
    ftable_settle(&table);
    CHECK(is_right() && table.n_slots == full);
}

static void
test_random(void)
{
    size_t n_bad = 0;

    CASE("table: any part comes and goes, from one giver or two");
    for (unsigned round = 0; round < 60; round++) {
        unsigned from = random_range(N_FLOWS), n = 1 + random_range(N_FLOWS - from);
        unsigned odds = 1 + random_range(40);

        for (unsigned i = from; i < from + n; i++) {
            set_given(i, random_range(odds) ? 0 : random_range(4));
        }
        ftable_settle(&table);
        n_bad += !is_right();
        n_bad += table.n_slots > 64 && table.n_slots > 8 * ftable_count(&table) + 8;
    }
    CHECK(!n_bad);
}

/* What an Open vSwitch with that flow answers. */
static struct ofpbuf *
make_answer(const struct pflow *f, uint16_t hard_timeout)
{
    struct ofputil_flow_stats_request request = {.table_id = 0xff};
    struct ovs_list replies;
    struct ofpbuf ofpacts, *asked, *msg;
    struct match match;
    enum ofpraw raw;

    ofpbuf_init(&ofpacts, 0);
    pflow_get_match(f, &match);
    pflow_get_ofpacts(f, &ofpacts);
    struct ofputil_flow_stats fs = {
        .match = match,
        .cookie = htonll(f->cookie),
        .table_id = f->table,
        .priority = f->priority,
        .hard_timeout = hard_timeout,
        .packet_count = 7,
        .byte_count = UINT64_MAX, /* unknown: is left out */
        .ofpacts = ofpacts.data,
        .ofpacts_len = ofpacts.size,
    };
    asked = ofputil_encode_flow_stats_request(&request, OFPUTIL_P_OF15_OXM);
    ofpmp_init(&replies, asked->data);
    ofputil_append_flow_stats_reply(&fs, &replies, NULL);
    msg = ofpbuf_from_list(ovs_list_pop_front(&replies));
    ofpmsg_update_length(msg);
    ovs_assert(!ofpraw_pull(&raw, msg) && raw == OFPRAW_OFPST15_FLOW_REPLY);
    ofpbuf_delete(asked);
    ofpbuf_uninit(&ofpacts);
    return msg;
}

/* Whether the answer's flow is found in the table, and taken from it. */
static bool
is_pulled(struct ofpbuf *msg, const struct pflow *f)
{
    size_t before = msg->size;
    const struct pflow *pulled = ftable_pull(&table, msg);

    ovs_assert(pulled ? !msg->size : msg->size == before);
    ofpbuf_delete(msg);
    return pulled == f && f;
}

/* With one byte changed, or cut off behind it. */
static bool
is_pulled_damaged(const struct pflow *f, size_t at, bool cut)
{
    struct ofpbuf *msg = make_answer(f, 0), *whole;
    bool is;

    if (cut) {
        msg->size = at;
        whole = ofpbuf_clone_data(msg->data, at); /* the bytes behind it are not there */
        ofpbuf_delete(msg);
        msg = whole;
    } else {
        ((uint8_t *)msg->data)[at] ^= 0xff;
    }
    is = ftable_pull(&table, msg) != NULL;
    ofpbuf_delete(msg);
    return is;
}

/* Of an answer's bytes, what is neither padding nor what the switch counted. */
static bool
matters(const struct pflow *f, size_t at, size_t size)
{
    const size_t desc = sizeof(struct ofp15_flow_desc);

    return at < 2 || at == 4 || (at >= 6 && at < desc + 4 + f->match_len) ||
           at >= size - f->actions_len;
}

static void
test_pulling(void)
{
    struct pflow *absent = make_flow(N_FLOWS, 1);
    struct ofpbuf *msg;
    size_t n_bad = 0, size;

    CASE("table: what a switch answers is found by its bytes, and only that");
    for (unsigned i = 0; i < N_FLOWS; i++) {
        set_given(i, 1);
    }
    ftable_settle(&table);
    for (unsigned i = 0; i < N_FLOWS; i += 97) {
        n_bad += !is_pulled(make_answer(flows[i], 0), flows[i]);
        n_bad += is_pulled(make_answer(others[i], 0), flows[i]); /* other actions and cookie */
        n_bad += is_pulled(make_answer(flows[i], 5), flows[i]);
    }
    CHECK(!n_bad);
    CHECK(!is_pulled(make_answer(absent, 0), absent));
    pflow_unref(absent);

    CASE("table: nor with a byte changed, or without its end");
    msg = make_answer(flows[3], 0);
    size = msg->size;
    ofpbuf_delete(msg);
    for (size_t i = 0; i < size; i++) {
        n_bad += is_pulled_damaged(flows[3], i, false) && matters(flows[3], i, size);
        n_bad += is_pulled_damaged(flows[3], i, true);
    }
    CHECK(!n_bad);
}

int
main(void)
{
    random_set_seed(1);
    ftable_init(&table);
    for (unsigned i = 0; i < N_FLOWS; i++) {
        flows[i] = make_flow(i, flow_cookie(FLOW_VIF, i));
        others[i] = make_flow(i, flow_cookie(FLOW_REMOTE, i));
    }
    test_shrinking();
    test_random();
    test_pulling();
    ftable_destroy(&table);
    ftable_drop_spare();
    for (unsigned i = 0; i < N_FLOWS; i++) {
        pflow_unref(flows[i]);
        pflow_unref(others[i]);
    }
    return check_done();
}
