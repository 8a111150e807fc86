#include "flow_names.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct flow_name name;
    int64_t next; /* in its bucket; 0: the last */
};

enum { N_BUCKETS = 4096 };

struct flow_names {
    pthread_mutex_t mutex; /* guards all below */
    struct entry *entries; /* of id 1 at 0 */
    int64_t n, cap;
    int64_t bucket[N_BUCKETS];
};

static unsigned
bucket_of(enum name_class class, const char *text)
{
    uint64_t h = 0xcbf29ce484222325u ^ class;

    for (; *text; text++) {
        h = (h ^ (uint8_t)*text) * 0x100000001b3u;
    }
    return (h ^ h >> 32) % N_BUCKETS;
}

struct flow_names *
flow_names_create(void)
{
    struct flow_names *n = calloc(1, sizeof *n);

    if (n) {
        pthread_mutex_init(&n->mutex, NULL);
    }
    return n;
}

void
flow_names_destroy(struct flow_names *n)
{
    if (n) {
        for (int64_t i = 0; i < n->n; i++) {
            free((char *)n->entries[i].name.text);
            free((char *)n->entries[i].name.extra);
        }
        free(n->entries);
        pthread_mutex_destroy(&n->mutex);
        free(n);
    }
}

static int64_t
add(struct flow_names *n, enum name_class class, const char *text, const char *extra, unsigned b)
{
    struct flow_name name = {class, strdup(text), strdup(extra)};

    if (n->n == n->cap) {
        int64_t cap = n->cap ? n->cap * 2 : 64;
        struct entry *entries = realloc(n->entries, cap * sizeof *entries);
        if (entries) {
            n->entries = entries;
            n->cap = cap;
        }
    }
    if (!name.text || !name.extra || n->n == n->cap) {
        free((char *)name.text);
        free((char *)name.extra);
        return 0;
    }
    n->entries[n->n++] = (struct entry){name, n->bucket[b]};
    return n->bucket[b] = n->n;
}

int64_t
flow_names_id(struct flow_names *n, enum name_class class, const char *text, const char *extra)
{
    unsigned b = bucket_of(class, text);
    int64_t id;

    if (!*text) {
        return 0;
    }
    pthread_mutex_lock(&n->mutex);
    for (id = n->bucket[b]; id; id = n->entries[id - 1].next) {
        const struct flow_name *e = &n->entries[id - 1].name;
        if (e->class == class && !strcmp(e->text, text) && !strcmp(e->extra, extra)) {
            break;
        }
    }
    if (!id) {
        id = add(n, class, text, extra, b);
    }
    pthread_mutex_unlock(&n->mutex);
    return id;
}

bool
flow_names_get(const struct flow_names *n_, int64_t id, struct flow_name *name)
{
    struct flow_names *n = (struct flow_names *)n_;
    bool ok;

    pthread_mutex_lock(&n->mutex);
    ok = id > 0 && id <= n->n;
    if (ok) {
        *name = n->entries[id - 1].name;
    }
    pthread_mutex_unlock(&n->mutex);
    return ok;
}

int64_t
flow_names_count(const struct flow_names *n_)
{
    struct flow_names *n = (struct flow_names *)n_;
    int64_t count;

    pthread_mutex_lock(&n->mutex);
    count = n->n;
    pthread_mutex_unlock(&n->mutex);
    return count;
}

/* Whether 'list', with commas, has 'text'. */
static bool
among(const char *list, const char *text)
{
    size_t length = strlen(text);

    for (const char *p = list; p; p = strchr(p, ','), p = p ? p + 1 : NULL) {
        if (!strncmp(p, text, length) && (p[length] == ',' || !p[length])) {
            return true;
        }
    }
    return false;
}

size_t
flow_names_find(const struct flow_names *n_, enum name_class class, const char *text, int64_t *ids,
                size_t max)
{
    struct flow_names *n = (struct flow_names *)n_;
    size_t found = 0;
    char *end;

    if (*text == '#' && text[1] >= '0' && text[1] <= '9' && max) {
        unsigned long key = strtoul(text + 1, &end, 10);
        if (!*end && key <= UINT32_MAX) {
            ids[found++] = -(int64_t)key;
        }
    }
    pthread_mutex_lock(&n->mutex);
    for (int64_t id = 1; id <= n->n && found < max; id++) {
        const struct flow_name *e = &n->entries[id - 1].name;
        if (e->class == class &&
            (class == NAME_GROUPS ? among(e->text, text) : !strcmp(e->text, text))) {
            ids[found++] = id;
        }
    }
    pthread_mutex_unlock(&n->mutex);
    return found;
}
