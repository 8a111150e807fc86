/* The flow service's queue: what it takes is stored once, in order; what finds it full is
 * dropped and counted. */
#include <sqlite3.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "flow_service_priv.h"

static char dir[] = "/tmp/weft-service-XXXXXX";
static char path[200];

static struct flow_service *
open_service(void)
{
    struct flow_service_config c = {.store = {.path = path, .raw_hours = 1}};
    struct flow_service *s;
    char why[300];

    if (flow_service_open(&c, &s, why, sizeof why)) {
        printf("# %s\n", why);
        exit(1);
    }
    return s;
}

/* Records numbered from 'first' on, in messages of 'step'. */
static void
put(struct flow_service *s, uint32_t first, uint32_t n, uint32_t step)
{
    const struct flow_sink *sink = flow_service_sink(s);
    struct flow_source from = {.id = 1};
    struct flow_record r[256] = {0};

    for (uint32_t done = 0, k; done < n; done += k) {
        k = n - done < step ? n - done : step;
        for (uint32_t i = 0; i < k; i++) {
            r[i].end_ms = (uint64_t)flow_now_ms();
            r[i].in_if = first + done + i;
        }
        sink->records(sink->context, &from, r, k);
    }
}

struct seen {
    uint32_t *numbers, n;
};

static void
see(void *aux, const struct flow_row *row, int64_t id)
{
    struct seen *seen = aux;

    (void)id;
    seen->numbers[seen->n++] = row->r.in_if;
}

/* That the store has these and no others, each once and in order. */
static void
check_stored(struct flow_service *s, uint32_t n)
{
    struct seen seen = {calloc(FLOW_QUEUE, sizeof(uint32_t)), 0};
    struct flow_filter_error error;
    struct flow_filter *f = flow_filter_parse("", &error);
    struct store_query q = {
        .to_ms = INT64_MAX, .filter = f, .again = true, .limit = FLOW_QUEUE, .timeout_ms = 60000};
    char why[300] = "";
    uint32_t wrong = 0;

    CHECK(f && flow_filter_resolve(f, s->names) == 0);
    CHECK(s->store->ops->list(s->store, &q, see, &seen, why, sizeof why) == 0);
    CHECK(seen.n == n);
    for (uint32_t i = 0; i < seen.n; i++) {
        wrong += seen.numbers[i] != n - 1 - i; /* the newest first */
    }
    CHECK(wrong == 0);
    flow_filter_free(f);
    free(seen.numbers);
}

static void
test_order(void)
{
    struct flow_service *s = open_service();
    uint32_t n = 0;

    CASE("messages of any size, across chunks and batches");
    for (uint32_t step = 1; step <= 256; step += 51) {
        put(s, n, FLOW_BATCH / 2 + step, step);
        n += FLOW_BATCH / 2 + step;
        if (step % 2) {
            CHECK(flow_service_flush(s, 20000) == 0); /* a chunk that is not full goes */
        }
    }
    CHECK(flow_service_flush(s, 20000) == 0);
    CHECK(s->n == 0 && s->taken == n && s->committed == n && s->dropped_full == 0);
    check_stored(s, n);
    flow_service_close(s);
    unlink(path);
}

static void
test_full(void)
{
    struct flow_service *s = open_service();
    sqlite3 *other = NULL;
    uint32_t total = FLOW_QUEUE + 2 * FLOW_BATCH + 100;

    CASE("the rest is dropped when the queue is full");
    CHECK(sqlite3_open(path, &other) == SQLITE_OK);
    CHECK(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
    put(s, 0, total, 255);
    pthread_mutex_lock(&s->mutex);
    CHECK(s->taken + s->dropped_full == total);
    CHECK(s->n <= FLOW_QUEUE && s->taken <= FLOW_QUEUE + FLOW_BATCH && s->taken >= FLOW_QUEUE);
    pthread_mutex_unlock(&s->mutex);
    CHECK(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(other);
    CHECK(flow_service_flush(s, 60000) == 0);
    CHECK(s->n == 0 && s->committed == s->taken);
    flow_service_close(s);
}

int
main(void)
{
    char command[100];

    if (!mkdtemp(dir)) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/flows.db", dir);
    test_order();
    test_full();
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return check_done() | (system(command) != 0);
}
