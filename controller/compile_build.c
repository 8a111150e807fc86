/* Flows from matches and actions. */
#include <config.h>

#include "compile_impl.h"
#include "flow.h"
#include "openvswitch/meta-flow.h"
#include "util.h"

void
flows_add(struct flows *fl, struct pflow *f)
{
    if (fl->n == fl->allocated) {
        /* One is common, and so are a vif's two dozen; there is little in between. */
        fl->allocated = fl->n == 1 ? 24 : fl->n ? 2 * fl->n : 1;
        fl->f = xrealloc(fl->f, fl->allocated * sizeof *fl->f);
    }
    fl->f[fl->n++] = f;
}

void
flows_clear(struct flows *fl)
{
    for (size_t i = 0; i < fl->n; i++) {
        pflow_unref(fl->f[i]);
    }
    free(fl->f);
    *fl = (struct flows){0};
}

void
build_init(struct build *b, struct compile *c, struct flows *out, uint64_t cookie)
{
    b->c = c;
    b->out = out;
    b->cookie = cookie;
    fm_init(&b->m);
    ofpbuf_use_stub(&b->acts, b->stub, sizeof b->stub);
}

void
build_uninit(struct build *b)
{
    ofpbuf_uninit(&b->acts);
}

void
emit_keep(struct build *b, uint8_t table, uint16_t priority)
{
    flows_add(b->out, pflow_make(table, priority, b->cookie, &b->m, b->acts.data, b->acts.size));
    b->c->stats.flows++;
    ofpbuf_clear(&b->acts);
}

void
emit(struct build *b, uint8_t table, uint16_t priority)
{
    emit_keep(b, table, priority);
    fm_init(&b->m);
}

void
act_field(struct build *b, enum mf_field_id id, const void *value)
{
    ofpact_put_set_field(&b->acts, mf_from_id(id), value, NULL);
}

void
act_reg(struct build *b, unsigned reg, uint32_t value)
{
    ovs_be32 v = htonl(value);

    act_field(b, MFF_REG0 + reg, &v);
}

void
act_goto(struct build *b, uint8_t table)
{
    ofpact_put_GOTO_TABLE(&b->acts)->table_id = table;
}

void
act_resubmit(struct build *b, uint8_t table)
{
    struct ofpact_resubmit *r = ofpact_put_RESUBMIT(&b->acts);

    r->in_port = OFPP_IN_PORT;
    r->table_id = table;
}

void
act_output(struct build *b, uint32_t ofport)
{
    ofpact_put_OUTPUT(&b->acts)->port = u16_to_ofp(ofport);
}

void
act_conjunction(struct build *b, uint32_t id, unsigned clause, unsigned n_clauses)
{
    struct ofpact_conjunction *conj = ofpact_put_CONJUNCTION(&b->acts);

    conj->id = id;
    conj->clause = clause;
    conj->n_clauses = n_clauses;
}

static struct mf_subfield
bits(enum mf_field_id id, unsigned ofs, unsigned n)
{
    return (struct mf_subfield){.field = mf_from_id(id), .ofs = ofs, .n_bits = n};
}

void
act_commit(struct build *b, uint32_t epoch)
{
    size_t start = b->acts.size;
    struct ofpact_conntrack *ct = ofpact_put_CT(&b->acts);

    ct->flags = NX_CT_F_COMMIT;
    ct->zone_src = bits(MFF_REG0 + REG_ZONE, 0, 16);
    ct->recirc_table = NX_CT_RECIRC_NONE;

    /* The nested actions come right behind, as if they were alone. */
    ofpbuf_pull(&b->acts, start + sizeof *ct);
    ovs_be32 mark = htonl(epoch);
    act_field(b, MFF_CT_MARK, &mark);
    static const unsigned regs[] = {REG_OUT_RULE, REG_IN_RULE, REG_OPENER, REG_OTHER};
    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
        struct ofpact_reg_move *move = ofpact_put_REG_MOVE(&b->acts);

        move->src = bits(MFF_REG0 + regs[i], 0, 32);
        move->dst = bits(MFF_CT_LABEL, i * 32, 32);
    }
    ct = ofpbuf_push_uninit(&b->acts, sizeof *ct);
    b->acts.header = ct;
    ofpact_finish_CT(&b->acts, &ct);
    ofpbuf_push_uninit(&b->acts, start);
}

void
match_network(struct fmatch *m, uint32_t key)
{
    fm_metadata(m, htonll(key));
}

void
match_prefix(struct fmatch *m, const struct model_prefix *p, bool src)
{
    if (model_prefix_is_v4(p)) {
        ovs_be32 addr = in6_addr_get_mapped_ipv4(&p->addr);
        ovs_be32 mask = be32_prefix_mask(p->plen - 96);

        fm_dl_type(m, htons(ETH_TYPE_IP));
        fm_set_masked(m, src ? FM_NW_SRC : FM_NW_DST, &addr, &mask, sizeof addr);
    } else {
        struct in6_addr mask = ipv6_create_mask(p->plen);

        fm_dl_type(m, htons(ETH_TYPE_IPV6));
        fm_set_masked(m, src ? FM_IPV6_SRC : FM_IPV6_DST, &p->addr, &mask, sizeof mask);
    }
}
