#!/bin/bash
# The pool database's pair of servers: see pool_cluster.sh.
exec "$(dirname "$0")/pool_cluster.sh" pair
