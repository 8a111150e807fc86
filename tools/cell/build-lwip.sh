#!/bin/bash
# Fetches the source of lwIP, the TCP/IP stack of the cell's guest, from the
# distribution's source package into DIR/src; DIR/stamp is made last.
# The system's own package lists and sources stay as they are.
#
# usage: build-lwip.sh DIR
set -euo pipefail

[ $# -eq 1 ] || { sed -n '5,5s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt fetches as a user of its own

# The binary sources of this system, asked for source packages.
mkdir -p "$work"/{parts,lists/partial,src}
{
    cat /etc/apt/sources.list 2>/dev/null || true
    find /etc/apt/sources.list.d -name '*.list' -exec cat {} +
} | sed -n 's/^[[:space:]]*deb[[:space:]]/deb-src /p' | sort -u >"$work/parts/source.list"
n=0
while IFS= read -r file; do
    n=$((n + 1))
    sed 's/^Types:.*/Types: deb-src/' "$file" >"$work/parts/source$n.sources"
done < <(find /etc/apt/sources.list.d -name '*.sources')
if [ ! -s "$work/parts/source.list" ]; then
    rm "$work/parts/source.list"
    [ "$n" -gt 0 ] || { echo "build-lwip: no package sources in /etc/apt" >&2; exit 1; }
fi
private=(-o Dir::Etc::sourceparts="$work/parts" -o Dir::Etc::sourcelist=/dev/null
         -o Dir::State::lists="$work/lists" -o pkgCacheFile="" -o srcpkgCacheFile=""
         -o APT::Sandbox::User=root)
apt-get "${private[@]}" -qq update
(cd "$work/src" && apt-get "${private[@]}" -qq -o APT::Get::Download-Only=true source lwip)
# Without dpkg-source, which only dpkg-dev has; Debian's changes concern the
# build of a shared library.
archive=$(find "$work/src" -name 'lwip_*.orig.tar.*' ! -name '*.asc' | head -n 1)
[ -n "$archive" ] || { echo "build-lwip: the source package holds no source" >&2; exit 1; }
rm -rf "$dir/src" "$dir/src.new"
mkdir "$dir/src.new"
tar -C "$dir/src.new" -xf "$archive" --strip-components=1
[ -f "$dir/src.new/src/core/tcp_in.c" ] || { echo "build-lwip: $archive is not lwIP" >&2; exit 1; }
mv "$dir/src.new" "$dir/src"
basename "$archive" >"$dir/stamp"
