#!/bin/bash
# Static analysis: cppcheck over every folder, and the rule of who may include
# system headers that no include path can guard.
set -u
cd "$(dirname "$0")/.."
status=0

# forbid PATTERN WHY FOLDER...: no file of the folders includes PATTERN.
forbid() {
    local pattern=$1 why=$2
    shift 2
    if grep -nE "^#include [<\"]($pattern)" -r --include='*.[ch]' "$@"; then
        echo "lint: $why" >&2
        status=1
    fi
}
forbid 'xen/' 'Xen headers come through hv/xen_abi.h' netback vlan netflow vswitch controller xapi-net tools
forbid 'xenctrl|xengnttab|xenevtchn' "only lib/hv talks to Xen's libraries" \
    netback vlan netflow vswitch controller xapi-net tools
forbid 'xenctrl|xengnttab|xenevtchn|xenguest|libxl' "only migrate/driver_xen*.c is Xen's toolstack" \
    --exclude='driver_xen*' migrate
forbid 'openssl/' 'only tls*.c include OpenSSL' --exclude='tls*' lib netback vlan vswitch
forbid 'openssl/' 'only pki_*.c and pool_db_file.c (SHA-1 of records) include OpenSSL' \
    --exclude='pki*' --exclude=pool_db_file.c tools
forbid 'openssl/' 'only tls*.c include OpenSSL' --exclude='tls*' netflow migrate xapi-net
forbid 'sqlite3' 'only store_sqlite*.c include SQLite' --exclude='store_sqlite*' netflow
forbid 'gnutls/|microhttpd' 'only rest*.c and http*.c include GnuTLS and libmicrohttpd' \
    --exclude='rest*' --exclude='http*' \
    lib netback vlan netflow migrate vswitch controller xapi-net tools

forbid 'jansson\.h' 'jansson beside libopenvswitch comes through jansson_ns.h' --exclude=jansson_ns.h controller xapi-net

cppcheck --quiet --error-exitcode=1 --inline-suppr -j "$(nproc)" \
    --enable=warning,portability,performance --std=c11 --suppressions-list=tests/cppcheck.suppress \
    -D_GNU_SOURCE -D__x86_64__ -DDPDK_NETDEV -Ilib -Inetback -Ivlan -Inetflow -Ivswitch -Icontroller -Imigrate -Ixapi-net -Itools -Itests/unit \
    lib netback vlan netflow migrate vswitch controller xapi-net tools perf tests/unit || status=1
[ $status -eq 0 ] && echo "lint: clean"
exit $status
