#!/bin/bash
# Runs every test and fuzz target and ends on "N passed, N failed, N skipped".
#
# usage: run.sh [PART...]     parts: unit fuzz smoke (default: all), smoke/NAME
# VARIANT (default plain) is the build whose unit tests run.
#
# A test prints "ok NAME", "not ok NAME: why" or "skip NAME: why", a line a
# case, and exits non-zero when a case failed.
# FUZZ_SECONDS (default 6) bounds each fuzz target; with one FUZZ_SEED (default 1)
# the same inputs come in the same order on every machine, a faster one gets
# further; another seed explores elsewhere.  TEST_JOBS (default: two a core, for
# tests mostly wait) run at once.
set -u
cd "$(dirname "$0")/.."
fuzz_seconds=${FUZZ_SECONDS:-6}
variant=${VARIANT:-plain}
parts=" ${*:-unit fuzz smoke} "
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0 failed=0 skipped=0
recap=

# count LABEL STATUS FILE SECONDS: adds up a test's lines; a test that failed
# without saying so counts as one failure.
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
    printf '%-44s %4d passed %3d failed %3d skipped %4d s\n' "$1" "$p" "$f" "$s" "$4"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# attempt LABEL COMMAND...: runs a test; its output and exit status go to files.
# A test whose cases fail runs once more: machines are shared, and a test of
# threads and daemons may be held up beyond its patience.  What fails only once
# is named at the end.  Nothing that crashed, hung or made a sanitizer speak is
# given another chance.
attempt() {
    local log=$out/${1//\//_} status
    shift
    timeout --kill-after=10 "${TEST_TIMEOUT:-300}" "$@" >"$log" 2>&1 </dev/null
    status=$?
    if [ $status -eq 1 ] && grep -q '^not ok ' "$log" && ! grep -q 'Sanitizer' "$log"; then
        grep '^not ok ' "$log" >"$log.first"
        timeout --kill-after=10 "${TEST_TIMEOUT:-300}" "$@" >"$log" 2>&1 </dev/null
        status=$?
    fi
    echo $status >"$log.status"
}

fixed=()
setarch -R true 2>/dev/null && fixed=(setarch -R)

fuzz_one() {
    local target=$1 name corpus log
    name=$(basename "$target")
    corpus=tests/fuzz/corpus/$name
    log=$out/fuzz_$name
    mkdir -p "$out/$name.corpus"
    # Addresses, times and the corpus that grows would each change the order of inputs.
    (cd "$out" && timeout --kill-after=10 $((fuzz_seconds + 60)) "${fixed[@]}" "$OLDPWD/$target" \
        -timeout=10 -rss_limit_mb=2048 -max_total_time="$fuzz_seconds" -seed="${FUZZ_SEED:-1}" \
        -entropic=0 -reload=0 -artifact_prefix="$OLDPWD/build/fuzz/" "$out/$name.corpus" \
        $([ -d "$OLDPWD/$corpus" ] && echo "$OLDPWD/$corpus")) >"$log" 2>&1
    echo $? >"$log.status"
    [ "$(cat "$log.status")" -eq 0 ] && echo "ok $name" >>"$log"
}

# --- two at once for each core, as they mostly wait; tests keep out of each other's way -----------
jobs_max=${TEST_JOBS:-$((2 * $(nproc)))}
declare -A label_of=() began=()

# Waits for one of the running tests to end and adds it up.
reap() {
    local pid label log
    wait -n -p pid "${!label_of[@]}"
    label=${label_of[$pid]}
    unset "label_of[$pid]"
    log=$out/${label//\//_}
    if [ -e "$log.first" ]; then
        sed "s|^|$label: first run: |" "$log.first"
        recap+=$(sed "s|^|$label: first run: |" "$log.first")$'\n'
    fi
    # What a fuzz target found, ahead of the stack; the input is in build/fuzz/.
    [[ $label == fuzz/* ]] &&
        grep -E 'runtime error|ERROR|SUMMARY|must|Base64|Test unit' "$log" | head -n 8
    count "$label" "$(cat "$log.status")" "$log" $((SECONDS - began[$pid]))
}

# launch LABEL COMMAND...: starts it when there is room.
launch() {
    local label=$1
    shift
    [ ${#label_of[@]} -lt "$jobs_max" ] || reap
    "$@" &
    label_of[$!]=$label began[$!]=$SECONDS
}

unit() {
    local t
    for t in build/"$variant"/tests/test_*; do
        [ -x "$t" ] && launch "unit/$(basename "$t")" attempt "unit/$(basename "$t")" "$t"
    done
}

fuzz() {
    local t
    for t in build/fuzz/fuzz_*; do
        [ -x "$t" ] && launch "fuzz/$(basename "$t")" fuzz_one "$t"
    done
}

# All smoke tests, or those that are named.
smoke() {
    local t name
    for t in tests/smoke/*.sh; do
        name=smoke/$(basename "$t" .sh)
        case $parts in *" smoke "* | *" $name "*) launch "$name" attempt "$name" "$t" ;; esac
    done
}

# The longest first, so that none runs on alone at the end.
case $parts in *" smoke"*) smoke ;; esac
case $parts in *" unit "*) unit ;; esac
case $parts in *" fuzz "*) fuzz ;; esac

while [ ${#label_of[@]} -gt 0 ]; do
    reap
done
if [ -n "$recap" ]; then
    echo "What did not pass, or not at once:"
    printf '%s' "$recap"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
