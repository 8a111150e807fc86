#!/bin/bash
# weft-vswitchd with everything changing at once under traffic: see churn.py.
#
# WEFT_BIN is the directory of the programs under test, which may be a
# sanitizer's build; CHURN_SECONDS (default 18) is how long things change.
set -u
cd "$(dirname "$0")/../.."
if [ "$(id -u)" -ne 0 ]; then
    echo "skip churn: needs root for network namespaces"
    exit 0
fi
# Whatever happens in there ends with it.
exec unshare --net --pid --mount --fork --kill-child --mount-proc \
    /usr/bin/python3 -B tests/smoke/churn.py
