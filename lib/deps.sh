#!/bin/bash
# Sees to it that distribution packages are installed.
#
# usage: deps.sh LIST...
#
# Each LIST names one package a line.  As root on Debian the missing ones are
# installed; otherwise they are named, nothing is changed, and the exit
# status is 2.
set -euo pipefail

mapfile -t wanted < <(cat "$@" | sed 's/#.*//; s/[[:space:]]//g; /^$/d' | sort -u)
missing=()
for p in "${wanted[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] ||
        missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ ! -e /etc/debian_version ] || ! command -v apt-get >/dev/null; then
    echo "Weft's build wants Debian 12 packages, and this is not Debian." >&2
    echo "Install what corresponds to: ${missing[*]}" >&2
    exit 2
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "Packages are missing: ${missing[*]}" >&2
    echo "Install them as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 2
fi

echo "  APT   ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# Package lists may be absent or old: refresh them once, then install.
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "apt-get could not install: ${missing[*]}" >&2
    exit 2
fi
