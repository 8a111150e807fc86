#include <config.h>

#include "rest_model.h"

#include <poll.h>
#include <stdio.h>

#include "fatal-signal.h"
#include "model.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "timeval.h"

VLOG_DEFINE_THIS_MODULE(rest);

int64_t
rest_model_generation(const struct model *m)
{
    return m->generation;
}

struct rest_model_hosts
rest_model_hosts(const struct model *m, int64_t generation, void (*late)(void *, const char *),
                 void *aux)
{
    struct rest_model_hosts sum = {.n = 0};
    struct model_obj *obj;

    MODEL_FOR_EACH (obj, m, REC_HOST) {
        const struct model_host *host = model_host(obj);
        if (!obj->live || !host->enabled) {
            continue;
        }
        sum.n++;
        if (!host->status.connected) {
            sum.awaited += host->awaited;
            if (host->awaited && late) {
                late(aux, obj->name);
            }
            continue;
        }
        sum.connected++;
        if (m->generation >= generation && host->status.applied_generation >= generation) {
            sum.applied++;
        } else if (late) {
            late(aux, obj->name);
        }
    }
    return sum;
}

void
rest_model_absent(const struct model *m, void (*absent)(void *, const char *), void *aux)
{
    struct model_obj *obj;

    MODEL_FOR_EACH (obj, m, REC_HOST) {
        const struct model_host *host = model_host(obj);

        if (obj->live && host->enabled && !host->status.connected) {
            absent(aux, obj->name);
        }
    }
}

void
rest_model_faults(const struct model *m,
                  void (*report)(void *, enum rec_kind, const char *, const char *, const char *),
                  void *aux)
{
    for (enum rec_kind kind = 0; kind < REC_N_KINDS; kind++) {
        struct model_obj *obj;
        MODEL_FOR_EACH (obj, m, kind) {
            const struct model_rule *rule = model_rule(obj);
            char name[300];
            if (!obj->error && !obj->warning) {
                continue;
            }
            snprintf(name, sizeof name, "%s%s%s",
                     rule && rule->policy ? rule->policy->obj.name : "",
                     rule && rule->policy ? "/" : "", obj->name);
            report(aux, kind, name, obj->error, obj->warning);
        }
    }
}

void
rest_model_log(enum rest_log level, const char *line)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(60, 20);

    VLOG_RL(&rl,
            level == REST_LOG_ERROR  ? VLL_ERR
            : level == REST_LOG_WARN ? VLL_WARN
                                     : VLL_INFO,
            "%s", line);
}

void
rest_model_wait(int fd, int timeout_ms)
{
    poll_fd_wait(fd, POLLIN);
    if (timeout_ms >= 0) {
        poll_timer_wait(timeout_ms);
    }
}

int64_t
rest_model_wall_ms(void)
{
    return time_wall_msec();
}

void
rest_model_remove_at_exit(const char *path)
{
    fatal_signal_add_file_to_unlink(path);
}
