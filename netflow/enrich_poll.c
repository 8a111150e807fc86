#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "enrich.h"

enum { PERIOD_MS = 1000, CALL_S = 20 };
#define ANSWER_MAX ((size_t)128 << 20)

struct enrich_poll {
    struct enrich *enrich;
    CURL *curl;
    pthread_t thread;
    int stop_fd;
    char base[300], socket[108];
    json_t *pool; /* the last answers */
    char *answer;
    size_t n_answer;

    pthread_mutex_t mutex; /* guards those below */
    int64_t generation;    /* -1: none yet */
    bool connected;
    char error[200];
};

static size_t
take(char *data, size_t size, size_t n, void *poll_)
{
    struct enrich_poll *p = poll_;
    char *more;

    n *= size;
    if (p->n_answer + n > ANSWER_MAX || !(more = realloc(p->answer, p->n_answer + n))) {
        return 0;
    }
    p->answer = more;
    memcpy(p->answer + p->n_answer, data, n);
    p->n_answer += n;
    return n;
}

/* NULL: why. */
static json_t *
get(struct enrich_poll *p, const char *path, char *why, size_t size)
{
    char url[400];
    long status = 0;
    json_t *json = NULL;
    CURLcode code;

    snprintf(url, sizeof url, "%s/v1/%s", p->base, path);
    curl_easy_setopt(p->curl, CURLOPT_URL, url);
    p->n_answer = 0;
    code = curl_easy_perform(p->curl);
    curl_easy_getinfo(p->curl, CURLINFO_RESPONSE_CODE, &status);
    if (code) {
        snprintf(why, size, "%s", curl_easy_strerror(code));
    } else if (status != 200) {
        snprintf(why, size, "%s: HTTP status %ld", path, status);
    } else if (!(json = json_loadb(p->answer, p->n_answer, 0, NULL))) {
        snprintf(why, size, "%s: the answer is not JSON", path);
    }
    return json;
}

/* The whole state: where vifs are is no part of the configuration, so that an
 * unchanged generation does not mean that nothing has changed.  Of what is
 * configuration the last answer serves until there is another generation. */
static int
poll_once(struct enrich_poll *p, int64_t *generation, char *why, size_t size)
{
    static const char *const classes[] = {"vifs",   "hosts",    "networks", "vms",
                                          "groups", "policies", "rules"};
    json_t *status = get(p, "status", why, size);
    int64_t now = json_integer_value(json_object_get(status, "generation")), ms;
    size_t n = now == *generation ? 1 : sizeof classes / sizeof classes[0];
    struct timespec t;
    int error = 0;

    if (!status) {
        return EIO;
    }
    json_decref(status);
    clock_gettime(CLOCK_REALTIME, &t);
    ms = t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
    for (size_t i = 0; i < n && !error; i++) {
        json_t *answer = get(p, classes[i], why, size);
        error = answer && json_object_update(p->pool, answer) == 0 ? 0 : EIO;
        json_decref(answer);
    }
    if (!error) {
        error = enrich_update(p->enrich, p->pool, ms);
    }
    *generation = error ? -1 : now;
    return error;
}

static void *
run(void *poll_)
{
    struct enrich_poll *p = poll_;
    struct pollfd stop = {.fd = p->stop_fd, .events = POLLIN};
    int64_t generation = -1;

    do {
        char why[200] = "";
        int error = poll_once(p, &generation, why, sizeof why);
        pthread_mutex_lock(&p->mutex);
        if (error && (p->connected || !*p->error)) {
            fprintf(stderr, "weft-flowd: names do not come from the controller: %s\n", why);
        } else if (!error && *p->error) {
            fprintf(stderr, "weft-flowd: names come from the controller again\n");
        }
        p->connected = !error;
        p->generation = generation;
        snprintf(p->error, sizeof p->error, "%s", why);
        pthread_mutex_unlock(&p->mutex);
    } while (poll(&stop, 1, PERIOD_MS) == 0);
    return NULL;
}

static int
where(struct enrich_poll *p, const struct enrich_poll_config *c, char *why, size_t size)
{
    size_t n = strlen(c->controller);

    if (!strncmp(c->controller, "unix:", 5) && n > 5 && n - 5 < sizeof p->socket) {
        strcpy(p->socket, c->controller + 5);
        strcpy(p->base, "http://localhost");
        curl_easy_setopt(p->curl, CURLOPT_UNIX_SOCKET_PATH, p->socket);
        return 0;
    }
    if (strncmp(c->controller, "https://", 8) != 0 || n >= sizeof p->base) {
        snprintf(why, size, "the controller is unix:PATH or https://HOST:PORT, not \"%.80s\"",
                 c->controller);
        return EINVAL;
    }
    if (!c->private_key || !c->certificate || !c->ca_cert) {
        snprintf(why, size, "https needs a private key, a certificate and a CA certificate");
        return EINVAL;
    }
    snprintf(p->base, sizeof p->base, "%.*s", (int)(n - (c->controller[n - 1] == '/')),
             c->controller);
    curl_easy_setopt(p->curl, CURLOPT_SSLKEY, c->private_key);
    curl_easy_setopt(p->curl, CURLOPT_SSLCERT, c->certificate);
    curl_easy_setopt(p->curl, CURLOPT_CAINFO, c->ca_cert);
    curl_easy_setopt(p->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
    return 0;
}

int
enrich_poll_start(const struct enrich_poll_config *c, struct enrich *e, struct enrich_poll **pp,
                  char *why, size_t why_size)
{
    struct enrich_poll *p = calloc(1, sizeof *p);
    int error = ENOMEM;

    *pp = NULL;
    snprintf(why, why_size, "out of memory");
    if (!p) {
        return ENOMEM;
    }
    p->enrich = e;
    p->generation = -1;
    pthread_mutex_init(&p->mutex, NULL);
    p->pool = json_object();
    p->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (!p->pool || p->stop_fd < 0 || curl_global_init(CURL_GLOBAL_DEFAULT) ||
        !(p->curl = curl_easy_init())) {
        goto error;
    }
    error = where(p, c, why, why_size);
    if (error) {
        goto error;
    }
    curl_easy_setopt(p->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(p->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(p->curl, CURLOPT_TIMEOUT, (long)CALL_S);
    curl_easy_setopt(p->curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(p->curl, CURLOPT_WRITEDATA, p);
    error = pthread_create(&p->thread, NULL, run, p);
    if (error) {
        goto error;
    }
    *pp = p;
    return 0;

error:
    curl_easy_cleanup(p->curl);
    if (p->stop_fd >= 0) {
        close(p->stop_fd);
    }
    pthread_mutex_destroy(&p->mutex);
    json_decref(p->pool);
    free(p);
    return error;
}

void
enrich_poll_stop(struct enrich_poll *p)
{
    if (p) {
        eventfd_write(p->stop_fd, 1);
        pthread_join(p->thread, NULL);
        curl_easy_cleanup(p->curl);
        close(p->stop_fd);
        pthread_mutex_destroy(&p->mutex);
        json_decref(p->pool);
        free(p->answer);
        free(p);
    }
}

json_t *
enrich_poll_status(struct enrich_poll *p)
{
    json_t *o;

    pthread_mutex_lock(&p->mutex);
    o = json_pack("{s:s, s:b, s:I, s:s}", "controller", *p->socket ? p->socket : p->base,
                  "connected", p->connected, "generation", (json_int_t)p->generation, "error",
                  p->error);
    pthread_mutex_unlock(&p->mutex);
    return o;
}
