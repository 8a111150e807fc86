/* The log of a cluster's member: OVSDB's records (pool_db_file.c), the first of them the snapshot
 * that the rest builds on. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool_db.h"

static const char magic[] = "OVSDB CLUSTER ";

struct record {
    const char *at; /* its head */
    size_t head, body;
    uint64_t index; /* an entry's place in the log; 0: it is none */
};

struct log {
    const char *at, *end;
    struct record *entries;
    size_t n, n_room;
    uint64_t next; /* the place that the next entry has, or one before it */
};

/* --- reading -------------------------------------------------------------------------- */

/* False: there is no further record that is whole. */
static bool
next_record(struct log *l, struct record *r)
{
    *r = (struct record){.at = l->at};
    if (!pdb_record(magic, l->at, l->end, &r->head, &r->body)) {
        return false;
    }
    l->at += r->head + r->body;
    return true;
}

static int
keep(struct log *l, const struct record *r, char *why)
{
    if (l->n == l->n_room) {
        size_t room = l->n_room ? 2 * l->n_room : 1024;
        struct record *more = realloc(l->entries, room * sizeof *more);

        if (!more) {
            snprintf(why, PDB_WHY, "%s", strerror(ENOMEM));
            return ENOMEM;
        }
        l->entries = more;
        l->n_room = room;
    }
    l->entries[l->n++] = *r;
    return 0;
}

/* An entry replaces those that had its place, and all behind them: another leader's, who had lost
 * the quorum by then. */
static int
read_record(struct log *l, struct record *r, char *why)
{
    json_t *json = json_loadb(r->at + r->head, r->body, 0, NULL);
    json_t *index = json_object_get(json, "index");
    int error = 0;

    if (index) {
        r->index = json_integer_value(index);
        l->next = l->next ? l->next : r->index;
        while (l->n && l->entries[l->n - 1].index >= r->index) {
            l->next = l->entries[--l->n].index;
        }
    }
    if (!json_is_object(json) || (index && (!r->index || r->index != l->next))) {
        snprintf(why, PDB_WHY, "its log cannot be understood %s entry %llu",
                 index ? "at" : "behind", (unsigned long long)(index ? r->index : l->next));
        error = EINVAL;
    } else if (index) {
        error = keep(l, r, why);
        l->next = r->index + 1;
    }
    json_decref(json);
    return error;
}

/* --- writing -------------------------------------------------------------------------- */

static bool
put(FILE *f, const struct record *r)
{
    return fwrite(r->at, r->head + r->body, 1, f) == 1;
}

static int
write_log(const struct log *l, const struct record *first, const char *to, char *why)
{
    FILE *f = fopen(to, "we");
    bool ok = f && put(f, first);

    for (size_t i = 0; i < l->n && ok; i++) {
        ok = put(f, &l->entries[i]);
    }
    if (f && fclose(f)) {
        ok = false;
    }
    if (!ok) {
        snprintf(why, PDB_WHY, "%s: %s", to, strerror(errno));
        return errno ? errno : EIO;
    }
    return 0;
}

int
pdb_log_copy(const char *from, const char *to, size_t *torn, char *why)
{
    struct record first, r;
    struct log l = {.n = 0};
    struct pdb_file f;
    int error = pdb_file_map(from, &f, why);

    if (error) {
        return error;
    }
    l.at = f.at;
    l.end = f.at + f.n;
    if (!next_record(&l, &first)) {
        snprintf(why, PDB_WHY, "%s is not the log of a cluster's member", from);
        error = EINVAL;
    }
    while (!error && next_record(&l, &r)) {
        error = read_record(&l, &r, why);
    }
    *torn = error ? 0 : l.end - l.at;
    error = error ? error : write_log(&l, &first, to, why);
    free(l.entries);
    pdb_file_unmap(&f);
    return error;
}

/* --- a cluster of one --------------------------------------------------------------------- */

/* 'alone': a database without cluster, with the next number. */
static int
make_alone(const struct pdb *p, const struct pdb *only, struct pdb_rescue *made, char *why)
{
    char db[PDB_PATH], log[PDB_PATH], alone[PDB_PATH], columns[200];
    struct pdb_row row;
    int error;

    pdb_path(p, "pool.db", db);
    pdb_path(only, "log", log);
    pdb_path(only, "pool.db", alone);
    unlink(alone);
    error = pdb_log_copy(db, log, &made->torn, why);
    if (!error) {
        error = pdb_tool("cluster-to-standalone", (const char *[]){alone, log, NULL}, NULL, why);
    }
    if (!error) {
        error = pdb_read_row(only, NULL, &row, why);
    }
    if (!error) {
        made->number = row.fence + 1;
        snprintf(columns, sizeof columns, "\"fence\":%lld,\"leader\":\"\",\"leader_epoch\":%lld",
                 (long long)made->number, (long long)made->number << 40);
        error = pdb_write_row(only, NULL, &row, columns, why);
    }
    unlink(log);
    return error;
}

int
pdb_rescue(const struct pdb *p, struct pdb_rescue *made, char *why)
{
    char db[PDB_PATH], alone[PDB_PATH], fresh[PDB_PATH], old[PDB_PATH], local[128];
    struct pdb only = *p;
    int error;

    if ((size_t)snprintf(only.dir, sizeof only.dir, "%.240s/rescue", p->dir) !=
        strlen(p->dir) + 7) {
        snprintf(why, PDB_WHY, "the directory's name is too long");
        return ENAMETOOLONG;
    }
    if (mkdir(only.dir, 0700) && errno != EEXIST) {
        snprintf(why, PDB_WHY, "%s: %s", only.dir, strerror(errno));
        return errno;
    }
    pdb_path(p, "pool.db", db);
    pdb_path(p, "pool.db.lost", old);
    pdb_path(&only, "pool.db", alone);
    pdb_path(&only, "fresh", fresh);
    unlink(fresh);
    pdb_raft_target(p->ip, p->port, local);
    error = make_alone(p, &only, made, why);
    if (!error) {
        error = pdb_tool("create-cluster", (const char *[]){fresh, alone, local, NULL}, NULL, why);
    }
    if (!error && link(db, old)) {
        error = errno;
        snprintf(why, PDB_WHY, "%s: %s%s", old, strerror(error),
                 error == EEXIST ? ", from a rescue before: move it away first" : "");
    }
    error = error ? error : pdb_replace(fresh, db, p->dir, why);
    unlink(alone);
    unlink(fresh);
    rmdir(only.dir);
    return error;
}
