#!/bin/bash
# Runs every test and fuzz target and ends on "N passed, N failed, N skipped".
#
# usage: run.sh [PART...]     parts: unit fuzz smoke (default: all)
# VARIANT (default plain) is the build whose unit tests run.
#
# A test prints "ok NAME", "not ok NAME: why" or "skip NAME: why", a line a
# case, and exits non-zero when a case failed.
# FUZZ_SECONDS (default 10) bounds each fuzz target; FUZZ_SEED (default 1) makes a
# run repeatable, another seed explores elsewhere.
set -u
cd "$(dirname "$0")/.."
fuzz_seconds=${FUZZ_SECONDS:-10}
variant=${VARIANT:-plain}
parts=" ${*:-unit fuzz smoke} "
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0 failed=0 skipped=0
recap=

# count LABEL STATUS FILE: adds up a test's lines; a test that failed without
# saying so counts as one failure.
count() {
    local p f s
    p=$(grep -c '^ok ' "$3")
    f=$(grep -c '^not ok ' "$3")
    s=$(grep -c '^skip ' "$3")
    grep -E '^(not ok|skip) ' "$3" | sed "s|^|$1: |"
    [ "$f" -gt 0 ] && recap+=$(grep -E '^not ok ' "$3" | sed "s|^|$1: |")$'\n'
    if [ "$2" -ne 0 ] && [ "$f" -eq 0 ]; then
        echo "$1: exit status $2; its last lines:"
        tail -n 15 "$3"
        recap+="$1: exit status $2: $(tail -n 1 "$3")"$'\n'
        f=1
    elif [ "$2" -eq 0 ] && [ $((p + f + s)) -eq 0 ]; then
        echo "$1: ran no case"
        recap+="$1: ran no case"$'\n'
        f=1
    fi
    printf '%-44s %4d passed %3d failed %3d skipped\n' "$1" "$p" "$f" "$s"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# A test whose cases fail runs once more: machines are shared, and a test of
# threads and daemons may be held up beyond its patience.  What fails only once
# is named at the end.  Nothing that crashed, hung or made a sanitizer speak is
# given another chance.
run() {
    local label=$1 log status
    shift
    log=$out/${label//\//_}
    timeout --kill-after=10 "${TEST_TIMEOUT:-180}" "$@" >"$log" 2>&1 </dev/null
    status=$?
    if [ $status -eq 1 ] && grep -q '^not ok ' "$log" && ! grep -q 'Sanitizer' "$log"; then
        grep '^not ok ' "$log" | sed "s|^|$label: first run: |"
        recap+=$(grep '^not ok ' "$log" | sed "s|^|$label: first run: |")$'\n'
        timeout --kill-after=10 "${TEST_TIMEOUT:-180}" "$@" >"$log" 2>&1 </dev/null
        status=$?
    fi
    count "$label" $status "$log"
}

unit() {
    local t
    for t in build/"$variant"/tests/test_*; do
        [ -x "$t" ] && run "unit/$(basename "$t")" "$t"
    done
}

fuzz() {
    local t name corpus status
    for t in build/fuzz/fuzz_*; do
        [ -x "$t" ] || continue
        name=$(basename "$t")
        corpus=tests/fuzz/corpus/$name
        mkdir -p "$out/$name.corpus"
        (cd "$out" && timeout --kill-after=10 $((fuzz_seconds + 60)) "$OLDPWD/$t" -timeout=10 \
            -rss_limit_mb=2048 -max_total_time="$fuzz_seconds" -seed="${FUZZ_SEED:-1}" \
            -artifact_prefix="$OLDPWD/build/fuzz/" "$out/$name.corpus" \
            $([ -d "$OLDPWD/$corpus" ] && echo "$OLDPWD/$corpus")) >"$out/$name" 2>&1
        status=$?
        [ $status -eq 0 ] && echo "ok $name" >>"$out/$name"
        # What it found, ahead of the stack; the input is in build/fuzz/.
        grep -E 'runtime error|ERROR|SUMMARY|must|Base64|Test unit' "$out/$name" | head -n 8
        count "fuzz/$name" $status "$out/$name"
    done
}

smoke() {
    local t
    for t in tests/smoke/*.sh; do
        run "smoke/$(basename "$t" .sh)" "$t"
    done
}

case $parts in *" unit "*) unit ;; esac
case $parts in *" fuzz "*) fuzz ;; esac
case $parts in *" smoke "*) smoke ;; esac

if [ -n "$recap" ]; then
    echo "What did not pass, or not at once:"
    printf '%s' "$recap"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
