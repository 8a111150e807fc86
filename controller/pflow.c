#include <config.h>

#include "pflow.h"

#include <stdlib.h>
#include <string.h>

#include "byte-order.h"
#include "fold_hash.h"
#include "openflow/openflow.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/match.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofp-flow.h"
#include "openvswitch/ofp-match.h"
#include "openvswitch/ofp-msgs.h"
#include "openvswitch/ofpbuf.h"
#include "pflow_bytes.h"
#include "slab.h"
#include "util.h"

/* The version whose encoding is the canonical one. */
#define CANONICAL OFP15_VERSION

static const char *const kind_names[] = {
    [FLOW_BASE] = "base",       [FLOW_VIF] = "vif",   [FLOW_REMOTE] = "remote",
    [FLOW_NETWORK] = "network", [FLOW_RULE] = "rule", [FLOW_DEFAULT] = "default",
    [FLOW_TAP] = "tap",
};

enum flow_kind
flow_cookie_kind(uint64_t cookie)
{
    uint8_t kind = cookie >> 48;

    return (cookie & FLOW_COOKIE_MASK) == FLOW_COOKIE_OURS && kind <= FLOW_TAP ? kind : 0;
}

const char *
flow_kind_name(enum flow_kind kind)
{
    return kind < ARRAY_SIZE(kind_names) && kind_names[kind] ? kind_names[kind] : "unknown";
}

const char *
flow_table_name(uint8_t table)
{
    static const char *const names[TBL_TUNNEL_OUT + 1] = {
        [TBL_CLASSIFY] = "classify",
        [TBL_TUNNEL_IN] = "tunnel-in",
        [TBL_SPOOF] = "spoof",
        [TBL_SPOOF_ND] = "spoof-nd",
        [TBL_KIND] = "kind",
        [TBL_LOOKUP] = "lookup",
        [TBL_FLOOD] = "flood",
        [TBL_ISOLATE] = "isolate",
        [TBL_SENDER] = "sender",
        [TBL_RECEIVER] = "receiver",
        [TBL_REJUDGE] = "rejudge",
        [TBL_STATE] = "state",
        [TBL_POLICY_OUT] = "policy-out",
        [TBL_POLICY_IN] = "policy-in",
        [TBL_VERDICT] = "verdict",
        [TBL_OUTPUT] = "output",
        [TBL_TUNNEL_OUT] = "tunnel-out",
    };

    return table < ARRAY_SIZE(names) ? names[table] : NULL;
}

bool
flow_table_is_ours(uint8_t table)
{
    return flow_table_name(table) != NULL;
}

/* --- one flow ----------------------------------------------------------------- */

uint32_t
pflow_key_hash(uint8_t table, uint16_t priority, const uint8_t *match, size_t len)
{
    return fold_hash(match, len, (uint32_t)table << 16 | priority);
}

static size_t
flow_size(size_t match_len, size_t actions_len)
{
    return sizeof(struct pflow) + match_len + actions_len;
}

/* 'actions' are instructions. */
static struct pflow *
new_flow(uint8_t table, uint16_t priority, uint64_t cookie, const void *match, size_t match_len,
         const struct ofpbuf *actions)
{
    struct pflow *f;

    ovs_assert(actions->size <= UINT16_MAX);
    f = slab_alloc(flow_size(match_len, actions->size));
    f->cookie = cookie;
    f->n_refs = 1;
    f->priority = priority;
    f->table = table;
    f->match_len = match_len;
    f->actions_len = actions->size;
    memcpy(f->bytes, match, match_len);
    memcpy(f->bytes + match_len, actions->data, actions->size);
    f->hash = pflow_key_hash(table, priority, f->bytes, match_len);
    return f;
}

static bool
is_clause(const struct ofpact *ofpacts, size_t len)
{
    return len && ofpacts->type == OFPACT_CONJUNCTION;
}

struct pflow *
pflow_create(uint8_t table, uint16_t priority, uint64_t cookie, const struct match *match,
             const struct ofpact *ofpacts, size_t len)
{
    uint64_t match_stub[512 / 8], stub[1024 / 8];
    struct ofpbuf m = OFPBUF_STUB_INITIALIZER(match_stub), actions = OFPBUF_STUB_INITIALIZER(stub);
    struct pflow *f;

    pflow_put_match(&m, match);
    pflow_put_instructions(&actions, ofpacts, len);
    f = new_flow(table, priority, cookie, m.data, m.size, &actions);
    f->clause = is_clause(ofpacts, len);
    ofpbuf_uninit(&m);
    ofpbuf_uninit(&actions);
    return f;
}

struct pflow *
pflow_make(uint8_t table, uint16_t priority, uint64_t cookie, const struct fmatch *match,
           const struct ofpact *ofpacts, size_t len)
{
    uint8_t bytes[PFLOW_MATCH_BYTES];
    uint64_t stub[1024 / 8];
    struct ofpbuf actions = OFPBUF_STUB_INITIALIZER(stub);
    size_t match_len = pflow_encode_fmatch(bytes, match);
    struct pflow *f;

    pflow_put_instructions(&actions, ofpacts, len);
    f = new_flow(table, priority, cookie, bytes, match_len, &actions);
    f->clause = is_clause(ofpacts, len);
    ofpbuf_uninit(&actions);
    return f;
}

struct pflow *
pflow_join(const struct pflow *key, uint64_t cookie, const struct pflow *const *flows, size_t n)
{
    /* Clauses have one instruction each, which applies their actions. */
    struct ofp11_instruction_actions *apply;
    uint64_t stub[1024 / 8];
    struct ofpbuf actions = OFPBUF_STUB_INITIALIZER(stub);
    struct pflow *f;

    for (size_t i = 0; i < n; i++) {
        size_t skip = i ? sizeof *apply : 0;

        ovs_assert(flows[i]->clause);
        ofpbuf_put(&actions, flows[i]->bytes + flows[i]->match_len + skip,
                   flows[i]->actions_len - skip);
    }
    if (n) {
        apply = actions.data;
        apply->len = htons(actions.size);
    }
    f = new_flow(key->table, key->priority, cookie, key->bytes, key->match_len, &actions);
    f->clause = n;
    ofpbuf_uninit(&actions);
    return f;
}

struct pflow *
pflow_from_stats(const struct ofputil_flow_stats *fs)
{
    if (fs->idle_timeout || fs->hard_timeout || fs->importance || fs->flags) {
        return NULL;
    }
    return pflow_create(fs->table_id, fs->priority, ntohll(fs->cookie), &fs->match, fs->ofpacts,
                        fs->ofpacts_len);
}

struct pflow *
pflow_ref(const struct pflow *f_)
{
    struct pflow *f = CONST_CAST(struct pflow *, f_);

    if (f) {
        f->n_refs++;
    }
    return f;
}

void
pflow_unref(struct pflow *f)
{
    if (f && !--f->n_refs) {
        slab_free(f, flow_size(f->match_len, f->actions_len));
    }
}

bool
pflow_same_key(const struct pflow *a, const struct pflow *b)
{
    return a == b || (a->hash == b->hash && a->table == b->table && a->priority == b->priority &&
                      a->match_len == b->match_len && !memcmp(a->bytes, b->bytes, a->match_len));
}

bool
pflow_equal(const struct pflow *a, const struct pflow *b)
{
    return a == b ||
           (pflow_same_key(a, b) && a->cookie == b->cookie && a->actions_len == b->actions_len &&
            !memcmp(a->bytes + a->match_len, b->bytes + b->match_len, a->actions_len));
}

void
pflow_get_match(const struct pflow *f, struct match *match)
{
    uint64_t stub[512 / 8];
    struct ofpbuf b = OFPBUF_STUB_INITIALIZER(stub);
    struct ofp11_match_header omh = {
        .type = htons(OFPMT_OXM),
        .length = htons(sizeof omh + f->match_len),
    };

    ofpbuf_put(&b, &omh, sizeof omh);
    ofpbuf_put(&b, f->bytes, f->match_len);
    ofpbuf_put_zeros(&b, PAD_SIZE(b.size, 8));
    /* Our own encoding of what was a match. */
    enum ofperr error = ofputil_pull_ofp11_match(&b, NULL, NULL, match, NULL);
    ovs_assert(!error);
    ofpbuf_uninit(&b);
}

void
pflow_get_ofpacts(const struct pflow *f, struct ofpbuf *ofpacts)
{
    uint64_t stub[1024 / 8], bitmap = 0;
    struct ofpbuf b = OFPBUF_STUB_INITIALIZER(stub);
    size_t start = ofpacts->size;

    /* The puller clears its output; what the caller has stays. */
    ovs_assert(!start);
    ofpbuf_put(&b, f->bytes + f->match_len, f->actions_len); /* the stub is aligned, bytes[] not */
    enum ofperr error =
        ofpacts_pull_openflow_instructions(&b, b.size, CANONICAL, NULL, &bitmap, ofpacts);
    ovs_assert(!error);
    ofpbuf_uninit(&b);
}

/* --- messages ----------------------------------------------------------------- */

/* The same version: the bytes are there already. */
static struct ofpbuf *
encode_canonical(const struct pflow *f, uint8_t command, bool any_cookie)
{
    bool add = command == OFPFC_ADD;
    size_t match_len = sizeof(struct ofp11_match_header) + f->match_len;
    struct ofp11_match_header omh = {.type = htons(OFPMT_OXM), .length = htons(match_len)};
    struct ofp11_flow_mod ofm = {
        .cookie = htonll(add || !any_cookie ? f->cookie : 0),
        .cookie_mask = add || any_cookie ? 0 : OVS_BE64_MAX,
        .table_id = f->table,
        .command = command,
        .priority = htons(f->priority),
        .buffer_id = OVS_BE32_MAX,
        .out_port = OVS_BE32_MAX,
        .out_group = htonl(OFPG_ANY),
    };
    struct ofpbuf *msg = ofpraw_alloc(OFPRAW_OFPT11_FLOW_MOD, CANONICAL,
                                      sizeof ofm + ROUND_UP(match_len, 8) + f->actions_len);

    ofpbuf_put(msg, &ofm, sizeof ofm);
    ofpbuf_put(msg, &omh, sizeof omh);
    ofpbuf_put(msg, f->bytes, f->match_len);
    ofpbuf_put_zeros(msg, PAD_SIZE(match_len, 8));
    if (add) {
        ofpbuf_put(msg, f->bytes + f->match_len, f->actions_len);
    }
    ofpmsg_update_length(msg);
    return msg;
}

static struct ofpbuf *
encode(const struct pflow *f, uint8_t command, bool any_cookie, enum ofp_version version)
{
    bool add = command == OFPFC_ADD;
    struct ofpbuf ofpacts, *msg;
    struct match match;

    if (version == CANONICAL) {
        return encode_canonical(f, command, any_cookie);
    }
    ofpbuf_init(&ofpacts, 0);
    pflow_get_match(f, &match);
    pflow_get_ofpacts(f, &ofpacts);
    struct ofputil_flow_mod fm = {
        .priority = f->priority,
        .cookie = htonll(add || any_cookie ? 0 : f->cookie),
        .cookie_mask = add || any_cookie ? 0 : OVS_BE64_MAX,
        .new_cookie = add ? htonll(f->cookie) : OVS_BE64_MAX,
        .table_id = f->table,
        .command = command,
        .buffer_id = UINT32_MAX,
        .out_port = OFPP_ANY,
        .out_group = OFPG_ANY,
        .ofpacts = ofpacts.data,
        .ofpacts_len = add ? ofpacts.size : 0,
    };
    minimatch_init(&fm.match, &match);
    msg = ofputil_encode_flow_mod(&fm, ofputil_protocol_from_ofp_version(version));
    minimatch_destroy(&fm.match);
    ofpbuf_uninit(&ofpacts);
    return msg;
}

struct ofpbuf *
pflow_encode_add(const struct pflow *f, enum ofp_version version)
{
    return encode(f, OFPFC_ADD, true, version);
}

struct ofpbuf *
pflow_encode_delete(const struct pflow *f, bool any_cookie, enum ofp_version version)
{
    return encode(f, OFPFC_DELETE_STRICT, any_cookie, version);
}

void
pflow_format(const struct pflow *f, struct ds *s)
{
    struct ofpbuf ofpacts;
    struct match match;

    ofpbuf_init(&ofpacts, 0);
    pflow_get_match(f, &match);
    pflow_get_ofpacts(f, &ofpacts);
    ds_put_format(s, "cookie=0x%" PRIx64 ", table=%u, ", f->cookie, f->table);
    match_format(&match, NULL, s, f->priority);
    ds_put_cstr(s, " actions=");
    ofpacts_format(ofpacts.data, ofpacts.size, &(struct ofpact_format_params){.s = s});
    ofpbuf_uninit(&ofpacts);
}
