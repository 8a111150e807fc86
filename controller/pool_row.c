#include <config.h>

#include "pool_row.h"

#include <stdlib.h>
#include <string.h>

#include "hex.h"
#include "openvswitch/json.h"
#include "ovsdb-data.h"
#include "ovsdb-idl-provider.h"
#include "ovsdb-types.h"
#include "util.h"
#include "uuid.h"

/* Columns of stated fields, NULL until they are looked up. */
static const struct ovsdb_idl_table_class *tables[REC_N_KINDS];
static const struct ovsdb_idl_column *fields[REC_N_KINDS][REC_MAX_FIELDS];
static const struct ovsdb_idl_column *names[REC_N_KINDS], *keys[REC_N_KINDS], *zone;
static const struct ovsdb_idl_column *resident_on, *destination;

static const struct ovsdb_idl_column *
find_column(const struct ovsdb_idl_table_class *table, const char *name)
{
    for (size_t i = 0; i < table->n_columns; i++) {
        if (!strcmp(table->columns[i].name, name)) {
            return &table->columns[i];
        }
    }
    return NULL;
}

static void
look_up(void)
{
    if (tables[REC_POOL]) {
        return;
    }
    for (enum rec_kind k = 0; k < REC_N_KINDS; k++) {
        for (size_t i = 0; i < poolrec_idl_class.n_tables; i++) {
            if (!strcmp(poolrec_idl_class.tables[i].name, rec_tables[k].table)) {
                tables[k] = &poolrec_idl_class.tables[i];
            }
        }
        ovs_assert(tables[k]);
        for (unsigned f = 0; f < rec_tables[k].n_fields; f++) {
            fields[k][f] = find_column(tables[k], rec_tables[k].fields[f].name);
            ovs_assert(fields[k][f]);
        }
        names[k] = find_column(tables[k], "name");
        keys[k] = find_column(tables[k], "pool_key");
    }
    zone = find_column(tables[REC_NETWORK], "zone");
    resident_on = find_column(tables[REC_VM], "resident_on");
    destination = find_column(tables[REC_VM], "destination");
}

const struct ovsdb_idl_table_class *
pool_row_table(enum rec_kind kind)
{
    look_up();
    return tables[kind];
}

const struct ovsdb_idl_column *
pool_row_column(enum rec_kind kind, const char *name)
{
    look_up();
    return find_column(tables[kind], name);
}

bool
pool_row_has(const struct ovsdb_idl *idl, enum rec_kind kind, const char *name)
{
    return ovsdb_idl_server_has_column(idl, pool_row_column(kind, name));
}

const struct ovsdb_idl_row *
pool_row_find(struct ovsdb_idl *idl, enum rec_kind kind, const struct uuid *uuid)
{
    look_up();
    return ovsdb_idl_get_row_for_uuid(idl, tables[kind], uuid);
}

void
pool_row_monitor(struct ovsdb_idl *idl)
{
    look_up();
    for (enum rec_kind k = 0; k < REC_N_KINDS; k++) {
        for (size_t i = 0; i < tables[k]->n_columns; i++) {
            const struct ovsdb_idl_column *column = &tables[k]->columns[i];
            bool tracked = column == names[k] || column == keys[k] || column == zone ||
                           column == resident_on || column == destination || k == REC_POOL;

            for (unsigned f = 0; f < rec_tables[k].n_fields; f++) {
                tracked = tracked || column == fields[k][f];
            }
            if (tracked) {
                ovsdb_idl_track_add_column(idl, column);
            } else {
                ovsdb_idl_omit_alert(idl, column);
            }
        }
    }
    /* Of weft-xapid alone. */
    for (size_t i = 0; i < POOLREC_TASK_N_COLUMNS; i++) {
        ovsdb_idl_omit(idl, &poolrec_task_columns[i]);
    }
    for (size_t i = 0; i < POOLREC_MIGRATION_N_COLUMNS; i++) {
        ovsdb_idl_omit(idl, &poolrec_migration_columns[i]);
    }
    ovsdb_idl_set_write_changed_only_all(idl, true);
}

/* --- reading ---------------------------------------------------------------------------- */

static char *
atom_text(const union ovsdb_atom *atom, enum ovsdb_atomic_type type)
{
    char *text;

    if (type != OVSDB_TYPE_UUID) {
        return xstrdup(json_string(atom->s));
    }
    text = xmalloc(UUID_LEN + 1);
    hex_put_uuid(text, atom->uuid.parts);
    return text;
}

static void
read_field(const struct ovsdb_idl_row *row, struct rec *r, unsigned f)
{
    const struct ovsdb_idl_column *column = fields[r->kind][f];
    const struct ovsdb_datum *datum = ovsdb_idl_read(row, column);
    enum ovsdb_atomic_type type = column->type.key.type;
    char *text;

    switch (rec_tables[r->kind].fields[f].type) {
    case REC_STRING:
    case REC_ENUM:
    case REC_REF:
        text = datum->n ? atom_text(&datum->keys[0], type) : xstrdup("");
        rec_set_string(r, f, text);
        free(text);
        break;
    case REC_INT:
    case REC_OPT_INT:
        rec_set_int(r, f, datum->n ? datum->keys[0].integer : -1);
        break;
    case REC_BOOL:
        rec_set_int(r, f, datum->n && datum->keys[0].boolean);
        break;
    case REC_STRINGS:
    case REC_REFS:
        for (size_t i = 0; i < datum->n; i++) {
            text = atom_text(&datum->keys[i], type);
            rec_add(r, f, text);
            free(text);
        }
        break;
    }
}

static int64_t
read_integer(const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column)
{
    return ovsdb_idl_read(row, column)->keys[0].integer;
}

void
pool_row_read(const struct ovsdb_idl_row *row, enum rec_kind kind, struct rec *r)
{
    look_up();
    rec_init(r, kind);
    free(r->name);
    r->name = atom_text(&ovsdb_idl_read(row, names[kind])->keys[0], OVSDB_TYPE_STRING);
    for (unsigned f = 0; f < rec_tables[kind].n_fields; f++) {
        read_field(row, r, f);
    }
    rec_normalize(r);
    r->given = UINT32_MAX;
    r->key = keys[kind] ? read_integer(row, keys[kind]) : 0;
    r->zone = kind == REC_NETWORK ? read_integer(row, zone) : 0;
    if (kind == REC_VIF) {
        r->seen_host = xstrdup(pool_row_get_string(row, kind, "seen_host"));
        r->of_toolstack = *pool_row_get_string(row, kind, "device");
    } else if (kind == REC_VM) {
        r->resident_on = xstrdup(pool_row_get_string(row, kind, "resident_on"));
        r->destination = xstrdup(pool_row_get_string(row, kind, "destination"));
        r->of_toolstack = *pool_row_get_string(row, kind, "driver");
    }
}

const char *
pool_row_get_string(const struct ovsdb_idl_row *row, enum rec_kind kind, const char *column)
{
    return json_string(ovsdb_idl_read(row, pool_row_column(kind, column))->keys[0].s);
}

/* Of a boolean, too. */
int64_t
pool_row_get_int(const struct ovsdb_idl_row *row, enum rec_kind kind, const char *name)
{
    const struct ovsdb_idl_column *column = pool_row_column(kind, name);
    const struct ovsdb_datum *datum = ovsdb_idl_read(row, column);

    return column->type.key.type == OVSDB_TYPE_BOOLEAN ? datum->keys[0].boolean
                                                       : datum->keys[0].integer;
}

char **
pool_row_get_list(const struct ovsdb_idl_row *row, enum rec_kind kind, const char *name, size_t *n)
{
    const struct ovsdb_idl_column *column = pool_row_column(kind, name);
    const struct ovsdb_datum *datum = ovsdb_idl_read(row, column);
    bool map = column->type.value.type != OVSDB_TYPE_VOID;
    char **list = xcalloc(datum->n + 1, sizeof *list);

    for (size_t i = 0; i < datum->n; i++) {
        const char *key = json_string(datum->keys[i].s);

        list[i] = map ? xasprintf("%s=%s", key, json_string(datum->values[i].s)) : xstrdup(key);
    }
    *n = datum->n;
    return list;
}

/* --- writing -------------------------------------------------------------------------------- */

static void
set_atom(union ovsdb_atom *atom, enum ovsdb_atomic_type type, const char *text)
{
    if (type == OVSDB_TYPE_UUID) {
        bool ok = uuid_from_string(&atom->uuid, text);

        ovs_assert(ok);
    } else {
        atom->s = ovsdb_atom_string_create(text);
    }
}

static void
write_datum(const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column,
            struct ovsdb_datum *datum)
{
    ovsdb_datum_sort_unique(datum, &column->type);
    ovsdb_idl_txn_write(row, column, datum);
}

static void
datum_room(struct ovsdb_datum *datum, size_t n)
{
    ovsdb_datum_init_empty(datum);
    if (n) {
        datum->n = n;
        datum->keys = xcalloc(n, sizeof *datum->keys);
    }
}

static void
write_string(const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column, const char *s)
{
    bool none = column->type.key.type == OVSDB_TYPE_UUID && !*s;
    struct ovsdb_datum datum;

    datum_room(&datum, !none);
    if (!none) {
        set_atom(&datum.keys[0], column->type.key.type, s);
    }
    write_datum(row, column, &datum);
}

static void
write_int(const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column, int64_t i)
{
    bool none = !column->type.n_min && i < 0;
    struct ovsdb_datum datum;

    datum_room(&datum, !none);
    if (!none && column->type.key.type == OVSDB_TYPE_BOOLEAN) {
        datum.keys[0].boolean = i;
    } else if (!none) {
        datum.keys[0].integer = i;
    }
    write_datum(row, column, &datum);
}

static void
write_field(const struct ovsdb_idl_row *row, const struct rec *r, unsigned f)
{
    const struct ovsdb_idl_column *column = fields[r->kind][f];
    const struct rec_value *v = &r->v[f];
    struct ovsdb_datum datum;

    switch (rec_tables[r->kind].fields[f].type) {
    case REC_STRING:
    case REC_ENUM:
    case REC_REF:
        write_string(row, column, v->s);
        break;
    case REC_INT:
    case REC_OPT_INT:
    case REC_BOOL:
        write_int(row, column, v->i);
        break;
    case REC_STRINGS:
    case REC_REFS:
        datum_room(&datum, v->n);
        for (size_t i = 0; i < v->n; i++) {
            set_atom(&datum.keys[i], column->type.key.type, v->list[i]);
        }
        write_datum(row, column, &datum);
        break;
    }
}

void
pool_row_write(const struct ovsdb_idl_row *row, const struct rec *before, const struct rec *after)
{
    enum rec_kind kind = after->kind;

    look_up();
    if (!before || strcmp(before->name, after->name)) {
        write_string(row, names[kind], after->name);
    }
    for (unsigned f = 0; f < rec_tables[kind].n_fields; f++) {
        if (!before ||
            !rec_value_equal(rec_tables[kind].fields[f].type, &before->v[f], &after->v[f])) {
            write_field(row, after, f);
        }
    }
    if (!before && keys[kind]) {
        write_int(row, keys[kind], after->key);
    }
    if (!before && kind == REC_NETWORK) {
        write_int(row, zone, after->zone);
    }
}

void
pool_row_set_string(const struct ovsdb_idl_row *row, enum rec_kind kind, const char *column,
                    const char *s)
{
    if (strcmp(pool_row_get_string(row, kind, column), s)) {
        write_string(row, pool_row_column(kind, column), s);
    }
}

void
pool_row_set_int(const struct ovsdb_idl_row *row, enum rec_kind kind, const char *column, int64_t i)
{
    if (pool_row_get_int(row, kind, column) != i) {
        write_int(row, pool_row_column(kind, column), i);
    }
}

void
pool_row_set_member(const struct ovsdb_idl_row *row, enum rec_kind kind, const char *name,
                    const char *member, bool there)
{
    const struct ovsdb_idl_column *column = pool_row_column(kind, name);
    const struct ovsdb_datum *now = ovsdb_idl_read(row, column);
    struct ovsdb_datum *datum;
    union ovsdb_atom atom;
    unsigned int at;
    bool is;

    set_atom(&atom, OVSDB_TYPE_STRING, member);
    is = ovsdb_datum_find_key(now, &atom, OVSDB_TYPE_STRING, &at);
    ovsdb_atom_destroy(&atom, OVSDB_TYPE_STRING);
    if (is == there) {
        return;
    }
    datum = xmalloc(sizeof *datum); /* the transaction's from now on */
    datum_room(datum, 1);
    set_atom(&datum->keys[0], OVSDB_TYPE_STRING, member);
    if (there) {
        ovsdb_idl_txn_write_partial_set(row, column, datum);
    } else {
        ovsdb_idl_txn_delete_partial_set(row, column, datum);
    }
}

void
pool_row_verify(const struct ovsdb_idl_row *row, enum rec_kind kind, const char *column)
{
    ovsdb_idl_txn_verify(row, pool_row_column(kind, column));
}
