# shellcheck shell=bash disable=SC2154,SC2054
# The Xen hosts of check-xen: two QEMUs, linked by a Unix socket, and a way to
# run scripts in their dom0s.  Sourced by run.sh, which says how to use it.
#
#            h1                                     h2
#   guests - xenbr0 - eth1 ====== $lab/link ====== eth1 - xenbr0 - guests
#               10.9.0.101                            10.9.0.102
#                       eth2 ====== $lab/link2 ====== eth2    (for comparisons)
#
# A host's state is in $lab: HOST.pid (QEMU), HOST.port (the shell's on
# loopback, chosen by the kernel), HOST.serial (all its consoles have said),
# HOST.mon (QEMU's monitor).  $lab, $here and $images are run.sh's.

# AVX2 for our programs; AMD's name because PVH guests of a CPU that has SVM and
# calls itself Intel's fail at Intel's MSRs.  QEMU intercepts rdtscp as rdtsc,
# which Xen refuses; it counts "rep movsb" as an instruction a byte, which the
# kernel uses for copies where erms says it is fast.
host_cpu=Haswell-noTSX,vendor=AuthenticAMD,+svm,+npt,-rdtscp,-erms
# A host's time is counted in instructions (4 ns each), so that what happens in
# it, and what it measures, hardly depends on the load of this machine.  That
# costs a third of its speed; without it TCP crawls when the machine is busy.
# QEMU then delivers an interrupt that Xen injects into a PVH guest twice if one of
# Xen's timers is due before the guest exits again (VMRUN leaves the vector in
# exception_index, which the end of the budget of instructions takes for a new
# exception), the second time even with interrupts disabled.  That does no harm
# but while the kernel writes its clock and the guest's own timer is due: then it
# reads the clock for ever.  Writing takes long while memory is being logged, and a
# guest that wakes from an idle time without ticks does it in any interrupt: guests
# that migrate alive keep their tick.
# Room for translations: with 128 MiB several guests' kernels push each other out.
host_accel=(-accel tcg,thread=single,tb-size=512 -icount shift=2,sleep=on)
# Without eager-fpu Xen relies on CR0.TS, which QEMU ignores for AVX: registers
# of one process would be seen in another.  Without tsc=reliable the kernel
# takes a slow machine for an unreliable clock, and Xen's clock costs much more.
xen_options="console=com1 com1=115200,8n1 loglvl=warning guest_loglvl=warning bootscrub=no \
xpti=off spec-ctrl=no,eager-fpu noreboot"
# A root on tmpfs could take half the memory that the packed root leaves.  The rest
# saves seconds (dom0/rig.sh says the same of guests).
kernel_options="console=hvc0 rootfstype=ramfs loglevel=4 mitigations=off tsc=reliable cryptomgr.notests \
initcall_blacklist=load_system_certificate_list"
patience=${PATIENCE:-5}
host_guard=()
host_memory=${HOST_MEMORY:-1536}
dom0_memory=${DOM0_MEMORY:-512}

host_start() { # HOST QEMU-OPTION...
    local host=$1
    shift
    rm -f "$lab/$host".*
    # Unix sockets' names are short: they are relative to $lab.
    (cd "$lab" && exec setsid "${host_guard[@]}" qemu-system-x86_64 -name "$host" -M pc \
        "${host_accel[@]}" -cpu "$host_cpu" -smp 1 -m "$host_memory" \
        -nodefaults -no-reboot -display none \
        -serial "file:$host.serial" -monitor "unix:$host.mon,server=on,wait=off" \
        -kernel "$images/xen" \
        -append "$xen_options dom0_mem=${dom0_memory}M,max:${dom0_memory}M" \
        -initrd "$images/vmlinux $kernel_options,$lab/dom0.cpio" \
        -netdev user,id=shell,restrict=on,hostfwd=tcp:127.0.0.1:0-10.0.2.15:2222 \
        -device virtio-net-pci,netdev=shell,romfile=,addr=3 \
        "$@" </dev/null >"$host.qemu" 2>&1) 9>&- &
    echo $! >"$lab/$host.pid"
}

host_wait() { # HOST: until its dom0 answers
    local host=$1 end=$((SECONDS + 60 * patience))
    while ((SECONDS < end)); do
        kill -0 "$(cat "$lab/$host.pid")" 2>/dev/null || break
        if grep -qs DOM0-READY "$lab/$host.serial"; then
            (cd "$lab" && echo "info usernet" | socat -t 5 - "UNIX-CONNECT:$host.mon") |
                awk '/HOST_FORWARD/ { print $4 }' >"$lab/$host.port"
            echo "hostname $host" | host_exec "$host" 20 && return
            break
        fi
        pause 0.1
    done
    echo "$host does not start: $(tail -n 3 "$lab/$host.serial" "$lab/$host.qemu" 2>&1)"
    return 1
}

host_stop() { # HOST
    local pid
    pid=$(cat "$lab/$1.pid" 2>/dev/null) || return 0
    rm -f "$lab/$1.pid"
    kill -KILL "$pid" 2>/dev/null || true
    # As our child it may stay a zombie for as long as we ask.
    while grep -qs '^State:.[^Z]' "/proc/$pid/status"; do pause 0.05; done
}

pause() { read -rt "$1" <> <(:) || true; }

shell_to() { # HOST SECONDS: standard input goes to a new shell in dom0
    timeout --kill-after=5 "$2" socat -t "$2" - "TCP:127.0.0.1:$(cat "$lab/$1.port")"
}

# host_exec HOST SECONDS <SCRIPT: runs it in dom0 with rig.sh before it; its
# output and its status, 124 if it takes longer.  The seconds are the host's;
# of ours it may take as many times more as $patience says.
host_exec() {
    local host=$1 seconds=$2 tag=$RANDOM$RANDOM work status=124 begun=$SECONDS computed
    computed=$(host_computed "$host")
    work=$(mktemp -d "$lab/exec.XXXXXX")
    {
        echo "rig_tag=$tag"
        cat <<'END'
at_exit() {
    local status=$?
    [ "$status" -ne 0 ] || [ -n "${reached_end:-}" ] || status=125
    kill "${rig_watchdog:-}" 2>/dev/null || true
    rm -f "/run/exec.$rig_tag"
    echo "@@$rig_tag $status"
}
trap at_exit EXIT
END
        cat "$here/dom0/rig.sh"
        # Not before rig.sh: it tells, too, what ran when the time was over.
        echo "rig_watchdog $seconds"
        cat
        echo 'reached_end=1'
    } >"$work/script"
    {
        printf 'head -c %d >/run/exec.%s; exec bash /run/exec.%s </dev/null\n' \
            "$(stat -c %s "$work/script")" "$tag" "$tag"
        cat "$work/script"
    } | shell_to "$host" $((seconds * patience)) >"$work/out" 2>&1 || true
    if tail -n 1 "$work/out" | grep -q "@@$tag [0-9]"; then
        status=$(tail -n 1 "$work/out")
        status=${status##* }
        sed -i "s/@@$tag .*//; \${/^\$/d}" "$work/out"
    else
        echo "$host: no end after $seconds s; $((SECONDS - begun)) s here, of which it computed for" \
            "$(($(host_computed "$host") - computed)) s" >>"$work/out"
    fi
    cat "$work/out"
    rm -r "$work"
    return "$status"
}

# Seconds of this machine's time that a host has used so far.
host_computed() { awk '{ print int(($14 + $15) / 100) }' "/proc/$(cat "$lab/$1.pid")/stat" || echo 0; }

host_put() { # HOST FILE PATH
    { printf 'head -c %d >%s.new && chmod %o %s.new && mv %s.new %s\n' "$(stat -c %s "$2")" "$3" \
        "0$(stat -c %a "$2")" "$3" "$3" "$3"; cat "$2"; } | shell_to "$1" 60
}

link_start() { # HOST on|off MAC: off connects to the other's sockets
    host_start "$1" \
        -netdev "stream,id=link,server=$2,addr.type=unix,addr.path=link" \
        -device "virtio-net-pci,netdev=link,mac=52:54:00:00:01:$3,host_mtu=9000,romfile=,addr=4" \
        -netdev "stream,id=link2,server=$2,addr.type=unix,addr.path=link2" \
        -device "virtio-net-pci,netdev=link2,mac=52:54:00:00:02:$3,host_mtu=9000,romfile=,addr=5"
}

# The two hosts, with switches.
lab_start() {
    rm -f "$lab/link" "$lab/link2"
    cat "$images/dom0.cpio" "$images/weft.cpio" >"$lab/dom0.cpio"
    link_start h1 on 01
    while [ ! -S "$lab/link2" ] && kill -0 "$(cat "$lab/h1.pid")" 2>/dev/null; do pause 0.05; done
    link_start h2 off 02
    host_wait h1 && host_wait h2 || return
    echo switch_setup | host_exec h1 60 && echo switch_setup | host_exec h2 60 || return
    echo "reach 10.9.0.102" | host_exec h1 60
}

lab_stop() {
    host_stop h1
    host_stop h2
}
