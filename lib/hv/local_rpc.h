/* local_rpc: one connection to weft-localxen's broker, request by request.
 *
 * Threads: a connection may be shared; calls take turns.  No call waits
 * longer than LOCAL_RPC_TIMEOUT_S for the broker. */
#ifndef LOCAL_RPC_H
#define LOCAL_RPC_H

#include <pthread.h>

#include "local_proto.h"

struct xs_handle;

struct local_rpc {
    int fd;
    pthread_mutex_t lock; /* held over a request and its reply */
    uint32_t seq;
};

int local_rpc_open(struct local_rpc *, const char *dir);
void local_rpc_close(struct local_rpc *);

/* Sends 'req' with its first 'n_refs' refs; 'rep' is what came back.
 * Descriptors received go to 'fds' (of 'n_fds' <= LOCAL_MAX_FDS, which must
 * be what the operation yields) and are the caller's to close.  Returns the
 * reply's error, EPIPE once the broker is gone, ETIMEDOUT, or EPROTO. */
int local_rpc_call(struct local_rpc *, struct local_req *req, unsigned n_refs,
                   struct local_rep *rep, int *fds, unsigned n_fds);

/* Opens libxenstore on the socket DIR/'name'. */
int local_xs_open(const char *dir, const char *name, struct xs_handle **);

#endif
