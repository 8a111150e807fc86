/* Options of NetFlow v9 and IPFIX: sampling rates, interfaces' names, type information (RFC
 * 5610), exporters' statistics. */
#include <string.h>

#include "bytes.h"
#include "collect_priv.h"
#include "ie.h"

#define V9_SCOPE_INTERFACE 2u
#define FLOW_SAMPLER_ID 48u
#define FLOW_SAMPLER_RANDOM_INTERVAL 50u
#define IGNORED_PACKETS 164u
#define SELECTOR_ID 302u
#define SAMPLING_SIZE 309u
#define SAMPLING_POPULATION 310u
#define TYPES_MAX 256u
#define SAMPLERS_MAX 1024u

struct text {
    const uint8_t *p;
    size_t len;
};

/* What a record of options says, in no order. */
struct options {
    uint32_t interface, sampler, rate, interval, space, size, population;
    uint32_t enterprise;
    uint16_t element;
    uint8_t type, semantics;
    bool has_interface, has_sampler, has_element;
    struct text if_name, if_description, name;
};

static void
read_scope_v9(struct options *o, uint16_t scope, uint64_t v)
{
    if (scope == V9_SCOPE_INTERFACE) {
        o->interface = v;
        o->has_interface = true;
    }
}

static void
read_sampling(struct options *o, uint16_t element, uint64_t v)
{
    switch (element) {
    case FLOW_SAMPLER_ID:
    case SELECTOR_ID:
        o->sampler = v;
        o->has_sampler = true;
        break;
    case IE_SAMPLING_INTERVAL:
    case FLOW_SAMPLER_RANDOM_INTERVAL:
        o->rate = v < UINT32_MAX ? v : UINT32_MAX;
        break;
    case IE_SAMPLING_PACKET_INTERVAL:
        o->interval = v;
        break;
    case IE_SAMPLING_PACKET_SPACE:
        o->space = v;
        break;
    case SAMPLING_SIZE:
        o->size = v;
        break;
    case SAMPLING_POPULATION:
        o->population = v;
        break;
    }
}

static void
read_type(struct options *o, uint16_t element, uint64_t v)
{
    switch (element) {
    case IE_ENTERPRISE:
        o->enterprise = v;
        break;
    case IE_ID:
        o->element = v & 0x7fff;
        o->has_element = true;
        break;
    case IE_DATA_TYPE:
        o->type = v;
        break;
    case IE_SEMANTICS:
        o->semantics = v;
        break;
    }
}

static void
read_statistics(struct exporter *e, uint16_t element, uint64_t v)
{
    switch (element) {
    case IE_EXPORTED_FLOWS:
        e->n.exported_records = v;
        break;
    case IE_EXPORTED_MESSAGES:
        e->n.exported_messages = v;
        break;
    case IE_NOT_SENT_FLOWS:
        e->n.not_sent = v;
        break;
    case IGNORED_PACKETS:
        e->n.ignored_packets = v;
        break;
    }
}

static void
read_field(struct exporter *e, struct options *o, uint16_t element, const uint8_t *p, size_t len)
{
    uint64_t v = template_uint(p, len);

    switch (element) {
    case IE_IN_IF:
    case IE_OUT_IF:
        o->interface = v;
        o->has_interface = true;
        break;
    case IE_IF_NAME:
        o->if_name = (struct text){p, len};
        break;
    case IE_IF_DESCRIPTION:
        o->if_description = (struct text){p, len};
        break;
    case IE_NAME:
        o->name = (struct text){p, len};
        break;
    default:
        read_sampling(o, element, v);
        read_type(o, element, v);
        read_statistics(e, element, v);
    }
}

/* Printable, ended, and no longer than a name of ours; fields of fixed length are padded with
 * zeros. */
static void
copy_name(char to[FLOW_NAME_MAX + 1], struct text from)
{
    size_t n = 0;

    while (n < from.len && n < FLOW_NAME_MAX && from.p[n]) {
        to[n] = from.p[n] >= ' ' && from.p[n] <= '~' ? from.p[n] : '?';
        n++;
    }
    while (n && to[n - 1] == ' ') {
        n--;
    }
    to[n] = '\0';
}

static void
learn_interface(struct collect *c, struct exporter *e, uint32_t index, struct text said)
{
    struct interface **bucket = &e->interfaces[bucket_in(e, index)], *i = *bucket;
    char name[FLOW_NAME_MAX + 1];

    copy_name(name, said);
    while (i && i->index != index) {
        i = i->next;
    }
    if (!*name || (i && !strcmp(i->name, name))) {
        return;
    }
    if (!i) {
        if (!(i = exporter_alloc(c, e, sizeof *i))) {
            return;
        }
        i->index = index;
        i->next = *bucket;
        *bucket = i;
    }
    memcpy(i->name, name, sizeof name);
    if (c->sink.interface) {
        collect_flush(c);
        c->sink.interface(c->sink.context, &e->source, index, i->name);
    }
}

static void
learn_sampling(struct collect *c, struct exporter *e, const struct options *o)
{
    uint64_t rate = o->rate;
    struct sampler **bucket = &e->samplers[bucket_in(e, o->sampler)], *s = *bucket;

    if (o->interval) {
        rate = ((uint64_t)o->interval + o->space) / o->interval;
    } else if (o->size) {
        rate = o->population / o->size;
    }
    if (!rate) {
        return;
    }
    rate = rate < UINT32_MAX ? rate : UINT32_MAX;
    if (!o->has_sampler) {
        e->sampling = rate;
        return;
    }
    while (s && s->id != o->sampler) {
        s = s->next;
    }
    if (!s) {
        if (e->n_samplers == SAMPLERS_MAX) {
            e->n.refused++;
            return;
        }
        if (!(s = exporter_alloc(c, e, sizeof *s))) {
            return;
        }
        s->id = o->sampler;
        s->next = *bucket;
        *bucket = s;
        e->n_samplers++;
    }
    s->rate = rate;
    if (!e->sampling) {
        e->sampling = rate; /* for records that do not name their sampler */
    }
}

static void
learn_type(struct collect *c, struct exporter *e, const struct options *o)
{
    struct element_type *t = e->types;

    while (t && (t->enterprise != o->enterprise || t->element != o->element)) {
        t = t->next;
    }
    if (!t) {
        if (e->n_types == TYPES_MAX) {
            e->n.refused++;
            return;
        }
        if (!(t = exporter_alloc(c, e, sizeof *t))) {
            return;
        }
        t->next = e->types;
        e->types = t;
        e->n_types++;
    }
    t->enterprise = o->enterprise;
    t->element = o->element;
    t->type = o->type;
    t->semantics = o->semantics;
    copy_name(t->name, o->name);
}

void
decode_options(struct collect *c, struct exporter *e, const struct template *t,
               const uint8_t *record, const struct template_layout *at)
{
    struct options o = {0};

    e->n.options++;
    for (unsigned i = 0; i < t->n_fields; i++) {
        const uint8_t *p = record + at->ofs[i];

        if (i < t->n_scope && e->key.protocol == FLOW_NETFLOW9) {
            read_scope_v9(&o, t->fields[i].element, template_uint(p, at->len[i]));
        } else if (!t->fields[i].enterprise) {
            read_field(e, &o, t->fields[i].element, p, at->len[i]);
        }
    }
    if (o.has_interface && (o.if_name.len || o.if_description.len)) {
        learn_interface(c, e, o.interface, o.if_name.len ? o.if_name : o.if_description);
    }
    if (o.has_element) {
        learn_type(c, e, &o);
    }
    learn_sampling(c, e, &o);
}

void
decode_names(struct collect *c, struct exporter *e, const struct template *t, const uint8_t *record,
             const struct template_layout *at)
{
    for (unsigned i = 0; i < t->n_names; i++) {
        unsigned index = t->names[i].index, name = t->names[i].name;
        uint32_t v = template_uint(record + at->ofs[index], at->len[index]);

        if (v) {
            learn_interface(c, e, v, (struct text){record + at->ofs[name], at->len[name]});
        }
    }
}

const char *
collect_interface(const struct collect *c, uint32_t source_id, uint32_t index)
{
    const struct link *lists[] = {&c->fresh, &c->lasting};

    for (int i = 0; i < 2; i++) {
        for (const struct link *l = lists[i]->next; l != lists[i]; l = l->next) {
            const struct exporter *e =
                (const struct exporter *)((const char *)l - offsetof(struct exporter, idle));
            const struct interface *f = e->interfaces[bucket_in(e, index)];

            while (e->source.id == source_id && f) {
                if (f->index == index) {
                    return f->name;
                }
                f = f->next;
            }
        }
    }
    return NULL;
}
