#include <config.h>

#include "ovs/appctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jsonrpc.h"
#include "openvswitch/json.h"
#include "openvswitch/poll-loop.h"
#include "ovs/rpc.h"
#include "socket-util.h"
#include "stream.h"
#include "timeval.h"
#include "util.h"

static int
positive(int error)
{
    return error == EOF ? ECONNRESET : error;
}

static int
receive(struct jsonrpc *rpc, const struct json *id, long long int until, struct jsonrpc_msg **reply)
{
    for (;;) {
        int error = jsonrpc_recv(rpc, reply);

        if (!error) {
            if (((*reply)->type == JSONRPC_REPLY || (*reply)->type == JSONRPC_ERROR) &&
                json_equal((*reply)->id, id)) {
                return 0;
            }
            jsonrpc_msg_destroy(*reply);
            continue;
        }
        if (error != EAGAIN) {
            return positive(error);
        }
        if (time_msec() >= until) {
            return ETIMEDOUT;
        }
        jsonrpc_run(rpc);
        jsonrpc_wait(rpc);
        jsonrpc_recv_wait(rpc);
        poll_timer_wait_until(until);
        poll_block();
    }
}

int
rpc_call(const char *socket, const char *method, struct json *params, int timeout_ms,
         struct jsonrpc_msg **reply)
{
    long long int until = time_msec() + timeout_ms;
    char *target = xasprintf("unix:%s", socket);
    struct jsonrpc_msg *request;
    struct stream *stream;
    struct jsonrpc *rpc;
    struct json *id;
    int error;

    error = stream_open_block(stream_open(target, &stream, DSCP_DEFAULT), timeout_ms, &stream);
    free(target);
    if (error) {
        json_destroy(params);
        return positive(error);
    }
    rpc = jsonrpc_open(stream);
    request = jsonrpc_create_request(method, params, &id);
    error = jsonrpc_send(rpc, request);
    error = error ? positive(error) : receive(rpc, id, until, reply);
    json_destroy(id);
    jsonrpc_close(rpc);
    return error;
}

/* RUN_DIR/PROGRAM.PID.ctl, malloc'ed; NULL: it does not run. */
static char *
control_socket(const char *run_dir, const char *program)
{
    char *name = xasprintf("%s/%s.pid", run_dir, program), *socket = NULL;
    FILE *file = fopen(name, "re");
    long pid;

    if (file) {
        if (fscanf(file, "%ld", &pid) == 1 && pid > 0) {
            socket = xasprintf("%s/%s.%ld.ctl", run_dir, program, pid);
        }
        fclose(file);
    }
    free(name);
    return socket;
}

int
appctl(const char *run_dir, const char *program, const char *command, const char *const *args,
       int timeout_ms, char **text)
{
    char *socket = control_socket(run_dir, program);
    struct json *params = json_array_create_empty();
    struct jsonrpc_msg *reply;
    const struct json *said;
    int error;

    *text = NULL;
    if (!socket) {
        json_destroy(params);
        return ENOENT;
    }
    for (; *args; args++) {
        json_array_add(params, json_string_create(*args));
    }
    error = rpc_call(socket, command, params, timeout_ms, &reply);
    free(socket);
    if (error) {
        return error;
    }
    said = reply->type == JSONRPC_REPLY ? reply->result : reply->error;
    *text = xstrdup(said && said->type == JSON_STRING ? json_string(said) : "");
    error = reply->type == JSONRPC_REPLY ? 0 : EREMOTEIO;
    jsonrpc_msg_destroy(reply);
    return error;
}
