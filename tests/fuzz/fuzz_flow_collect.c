/* Feeds the collector's decoders (NetFlow v5 and v9, IPFIX, sFlow v5) with hostile messages.
 *
 * Input: messages, each behind a byte that says from which exporter it comes, over
 * what, and how much later, and two bytes with its length (big-endian).  Beyond the
 * sanitizers' own checks: limits hold, records are in form, all memory is given
 * back. */
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "collect_priv.h"

static void
require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static const struct collect_limits limits = {
    .exporters = 6,
    .exporters_per_host = 4,
    .templates = 8,
    .fields = 64,
    .exporter_bytes = 32 << 10,
    .total_bytes = 96 << 10,
    .records_per_s = 5000,
    .template_ms = 60000,
    .idle_ms = 120000,
    .wait_ms = 10000,
    .wait_bytes = 4 << 10,
};

static void
check_records(void *context, const struct flow_source *from, const struct flow_record *records,
              size_t n)
{
    require(n >= 1 && n <= BATCH);
    for (size_t i = 0; i < n; i++) {
        const struct flow_record *r = &records[i];

        require(r->start_ms <= r->end_ms);
        require(r->vlan <= 4095 && r->customer_vlan <= 4095);
        require(r->domain == from->domain && from->id);
    }
}

static void
check_interface(void *context, const struct flow_source *from, uint32_t index, const char *name)
{
    require(*name && strlen(name) <= FLOW_NAME_MAX);
    for (const char *p = name; *p; p++) {
        require(*p >= ' ' && *p <= '~');
    }
}

static void
check_limits(const struct collect *c)
{
    require(c->n_exporters <= limits.exporters);
    require(c->bytes <= limits.total_bytes + limits.exporters * sizeof(struct host));
    for (unsigned i = 0; i <= c->table_mask; i++) {
        for (const struct exporter *e = c->table[i]; e; e = e->next) {
            require(e->bytes <= limits.exporter_bytes && e->n_templates <= limits.templates);
            require(e->waiting_bytes <= limits.wait_bytes && e->n_waiting <= 64);
        }
    }
}

static void
feed(struct collect *c, uint8_t how, uint64_t now_ms, const uint8_t *data, size_t len)
{
    struct collect_peer peer = {
        .address.s6_addr = {[10] = 0xff, 0xff, 10, 0, 0, how & 3},
        .port = 2055 + (how >> 2 & 1),
        .connection = how & 8 ? 1 + (how & 3) : 0,
        .transport = how & 8 ? FLOW_TCP : FLOW_UDP,
    };
    uint8_t *copy = malloc(len ? len : 1); /* so that its end is watched */

    memcpy(copy, data, len);
    collect_message(c, &peer, now_ms, copy, len);
    free(copy);
    if (how & 16) {
        collect_closed(c, peer.connection ? peer.connection : 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct flow_sink sink = {.records = check_records, .interface = check_interface};
    struct collect *c = collect_create(&limits, &sink);
    struct cursor in = cursor_on(data, size);
    uint64_t now_ms = UINT64_C(1700000000000);
    const uint8_t *head;

    require(c);
    while ((head = cursor_take(&in, 3))) {
        size_t len = get_be16(head + 1);
        const uint8_t *body;

        len = len < in.left ? len : in.left;
        body = cursor_take(&in, len);
        feed(c, head[0], now_ms, body, len);
        now_ms += (head[0] >> 5) * 1500u;
        if ((head[0] & 0x30) == 0x30) { /* the clock is set */
            collect_clock_stepped(c, 3600000);
            now_ms += 3600000;
        }
        collect_tick(c, now_ms);
        check_limits(c);
    }
    exporters_destroy(c);
    require(!c->bytes && !c->n_exporters);
    c->table = NULL;
    c->hosts = NULL;
    c->fresh.next = c->lasting.next = NULL;
    collect_destroy(c);
    return 0;
}
