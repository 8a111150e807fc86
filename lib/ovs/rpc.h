/* rpc: one JSON-RPC call to a Unix socket, with a deadline.
 *
 * For the files of this folder; Open vSwitch's headers. */
#ifndef OVS_RPC_H
#define OVS_RPC_H

struct json;
struct jsonrpc_msg;

/* Consumes 'params'.  0 with a reply (or error) in '*reply', ETIMEDOUT, or a
 * positive errno. */
int rpc_call(const char *socket, const char *method, struct json *params, int timeout_ms,
             struct jsonrpc_msg **reply);

#endif
