/* flow_row: a flow record as it is stored: with the names it had at its time.
 *
 * The columns are one table, flow_columns: stores make their tables of it,
 * filters name its columns, answers are printed by it.  Names (of vifs, rules
 * ...) are ids of flow_names.h.
 *
 * Plain data; the table is constant: any thread may read it. */
#ifndef FLOW_ROW_H
#define FLOW_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flow_names.h"
#include "flow_record.h"

/* What is known of the end of a flow; ids, 0: nothing. */
struct flow_side {
    int64_t vif, vm, tenant, network, groups;
};

struct flow_row {
    struct flow_record r;
    struct in6_addr exporter;
    struct flow_side src, dst;
    int64_t network; /* in which it was seen */
    int64_t rule_out, rule_in, host;
    uint64_t time_ms; /* of its last packet, or of its arrival if that cannot be right */
    uint64_t duration_ms;
    uint16_t service; /* the lower port */
    uint8_t dropped;
    uint8_t again; /* another exporter counts the same packets: where they left their vif */
};

enum flow_kind { FLOW_COL_UINT, FLOW_COL_ADDRESS, FLOW_COL_MAC, FLOW_COL_NAME };

struct flow_column {
    const char *name;
    enum flow_kind kind;
    enum name_class class; /* FLOW_COL_NAME */
    bool rollup;           /* rollups have it, too */
    size_t offset, size;   /* in struct flow_row */
    const char *help;
};

extern const struct flow_column flow_columns[];
extern const unsigned n_flow_columns;
enum { FLOW_COLUMNS_MAX = 64, FLOW_COLUMN_NONE = UINT16_MAX };

/* Its index, or FLOW_COLUMN_NONE. */
unsigned flow_column_find(const char *name);

/* A column's value: of FLOW_COL_ADDRESS the address, of the others the number.
 * Numbers beyond INT64_MAX are INT64_MAX. */
struct flow_value {
    int64_t number;
    struct in6_addr address;
};
void flow_row_get(const struct flow_row *, unsigned column, struct flow_value *);
void flow_row_set(struct flow_row *, unsigned column, const struct flow_value *);

enum { FLOW_TEXT_MAX = 600 };
/* A value for people: addresses, names, protocols, reasons.  Empty: nothing is
 * known.  Returns 'text'. */
const char *flow_value_text(unsigned column, const struct flow_value *, const struct flow_names *,
                            char text[FLOW_TEXT_MAX]);

/* Numbers of protocol names and back; -1 and NULL if there is none. */
int flow_proto_number(const char *name);
const char *flow_proto_name(unsigned number);
/* Of a reason of lib/drop.h its number + 1, as in records; of "unknown" 0; -1: there is none. */
int flow_drop_number(const char *name);

#endif
