# What a guest outlives: the death of the switch, being saved, migrating.
# shellcheck shell=bash disable=SC2016

# A guest's pings and its TCP connection go on when the switch is killed and
# started again; the guest's driver notices nothing.
case_sigkill() {
    h1 '
        guest g1 pv 10.9.0.11
        guest g2 pvh 10.9.0.12
        reach 10.9.0.11
        reach 10.9.0.12
        in_guest g1 "ping -i 0.1 -w 15 10.9.0.12 >/tmp/ping 2>&1 &"
        in_guest g2 "iperf3 -c 10.9.0.11 -t 9 -i 1 -f m >/tmp/iperf 2>&1 &"
        sleep 3
        kill -KILL "$(switch_pid)"
        sleep 0.5
        switch_start
        switch_address
        until_true 30 in_guest g2 "grep -q -E \"iperf Done|error\" /tmp/iperf" || die "the connection hangs"
        in_guest g2 "grep -q \"iperf Done\" /tmp/iperf" || die "the connection broke: $(in_guest g2 "tail -n 1 /tmp/iperf")"
        until_true 30 in_guest g1 "grep -q transmitted /tmp/ping"
        in_guest g1 "cat /tmp/ping" >/tmp/ping
        # The longest run of sequence numbers without an answer.
        most=$(awk -F"seq=" "/bytes from/ { d = \$2 - last; last = \$2 + 0; if (d > most) most = d } END { print most * 100 }" /tmp/ping)
        for g in g1 g2; do
            [ "$(xenstore-read "/local/domain/0/backend/vif/$(domid $g)/0/state")" = 4 ] ||
                die "$g: the backend is not connected"
            in_guest $g "dmesg | grep -i vif || true"
        done
        note "$(sed -n "s/ packets transmitted, / pings, /p" /tmp/ping), none for $most ms"
    ' 110
}

save_restore() { # TYPE
    h1 "
        guest g1 $1 10.9.0.11
        reach 10.9.0.11
        xl save g1 /tmp/g1.save >/dev/null 2>&1
        [ -z \"\$(guests)\" ] || die 'the guest is still there'
        until_true 10 eval '! vsctl list-ports xenbr0 | grep ^vif' || die 'the port is still there'
        xl restore /tmp/g1.save >/dev/null 2>&1 || die 'restore failed'
        rm /tmp/g1.save
        reach 10.9.0.11
        in_guest g1 \"ping -q -c 3 -W 2 \$self\"
        tcp 10.9.0.11 -t 1 >/dev/null
        tcp 10.9.0.11 -t 1 -R >/dev/null
        shut_down g1
    " 90
}
case_save_restore_pv() { save_restore pv; }
case_save_restore_pvh() { save_restore pvh; }

# Guest g1 of this kind on h1, started by the pool; its connection with h1 shall
# survive all that follows.
moving_guest() { # TYPE
    h1 "
        pool_start
        pool_vm g1 $1 10.9.0.11
        xapid_start"
    h2 xapid_start
    h1 "
        weft_vm start g1 --on h1
        reach 10.9.0.11
        bg bash -c 'exec ping -D -i 0.05 10.9.0.11 >/tmp/pings'
        bg iperf3 -c 10.9.0.11 -t 1000 -b 2M -i 1 --forceflush --logfile /tmp/iperf.log
    " 120
}

# Guest g1 goes from host to host: by weft vm migrate, or by xl migrate over the trunk.
weft_migrate() { # FROM TO
    "$1" "$timed
        timed weft_vm migrate g1 $2 --max-blackout 300 --max-rounds 5
        echo \"\$(cat /tmp/timed), \$(sed -n 's/^done: //p' /tmp/weft-vm)\"" 120
}
xl_migrate() { # FROM TO
    "$2" 'bg socat -b 524288 -t 60 TCP-LISTEN:8002,reuseaddr EXEC:"xl migrate-receive"'
    "$1" "$timed
        timed xl migrate -s '' g1 'socat -b 524288 - TCP:10.9.0.10${2#h}:8002' >/tmp/migrate 2>&1 ||
            die \"xl migrate: \$(tail -n 1 /tmp/migrate)\"
        cat /tmp/timed" 90
}
# timed COMMAND...: notes the seconds it took, and the MB that left on the trunk.
timed='
    sent() { cat /sys/class/net/eth1/statistics/tx_bytes; }
    timed() {
        local bytes=$(sent) start=$EPOCHREALTIME
        "$@" || return
        echo "$start $EPOCHREALTIME $bytes $(sent)" |
            awk "{ printf \"%.1f s %.0f MB\", \$2 - \$1, (\$4 - \$3) / 1e6 }" >/tmp/timed
    }
'
# The longest time without an answer since the last call, in h1.
silence() {
    h1 'reach 10.9.0.11
        from=$(cat /tmp/pings.seen 2>/dev/null || echo 1)
        wc -l </tmp/pings >/tmp/pings.seen
        tail -n +$from /tmp/pings | awk -F"[][]" "/bytes from/ { d = last ? \$2 - last : 0
            last = \$2; if (d > most) most = d } END { printf \"%.2f s silent\", most }"'
}
# What both dom0s have computed, in seconds of their time: it hardly depends on how
# busy this machine is, as all others do.
computed() { both 'xl list Domain-0 | awk "END { print \$6 }"' | awk '{ s += $1 } END { print s }'; }
# row NAME COMMAND...: adds a migration to the case's table.
row() {
    local name=$1 before after what
    shift
    before=$(computed)
    what=$("$@") || die "$name: $what"
    after=$(computed)
    note "$name: ${what:+$what, }$(silence), $(awk -v a="$before" -v b="$after" 'BEGIN { printf "%.1f", b - a }') s of CPU"
}

# A VM of the pool whose name another domain has, as it starts and as it reboots, and what
# watches it killed between the domain that ended and the new one: it goes on.
case_pool_reboot() {
    h1 '
        pool_start
        pool_vm g1 pvh 10.9.0.11
        guest g1 pv 10.9.0.12 paused=1
        xapid_start --db="ssl:$self:6640"
        weft_vm start g1
        reach 10.9.0.11
        watcher=$(echo /run/weft/xapi/domain-*.pid)
        uuid=${watcher#*domain-} uuid=${uuid%.pid}
        old=$(domid "$uuid")
        (in_guest "$uuid" "sleep 0.2; reboot -f" 3 >/dev/null) || true
        until_true 40 xenstore-exists "/weft/reboot/$uuid" || die "no reboot"
        kill -KILL "$(cat "$watcher")"
        until_true 60 eval "id=\$(xl domid $uuid 2>/dev/null) && [ \$id != $old ] && ! xenstore-exists /weft/reboot/$uuid" ||
            die "it does not come back: $(tail -n 2 /tmp/weft-xapid.log)"
        reach 10.9.0.11 40
        [ "$(pool_says g1 power_state)" = Running ]
        xl domid g1
        weft_vm shutdown g1
        gone "$uuid"
    '
}

# case_migrate_pvh: 600 s, two hosts
# A PVH guest goes to h2 and back alive, by Weft, the second time without
# encryption, which costs much in this emulation, and by xl; its TCP connection with
# h1 survives.  Meanwhile weft-xapid dies, and what watches the domain: both go on.
case_migrate_pvh() {
    moving_guest pvh
    silence >/dev/null
    row 'weft (TLS)' weft_migrate h1 h2
    h1 'gone g1; [ "$(pool_says g1 resident_on)" = h2 ]'
    h2 'xl list g1 >/dev/null; vsctl list-ports xenbr0 | grep -q ^vif'
    both 'xapid_kill; xapid_start --plain-migration'
    row 'weft (plain) back' weft_migrate h2 h1
    h1 '[ "$(pool_says g1 resident_on)" = h1 ]'
    both xapid_kill
    row 'xl' xl_migrate h1 h2
    h2 'xl list g1 >/dev/null; vsctl list-ports xenbr0 | grep -q ^vif'
    row 'xl back' xl_migrate h2 h1
    h1 'xapid_start
        still_flows /tmp/iperf.log
        weft_vm shutdown g1
        gone g1
        [ "$(pool_says g1 power_state)" = Halted ]' 120
}

# case_migrate_pv: 300 s, two hosts
# Debian builds Xen without what PV guests need to migrate alive: they are
# stopped, copied through a connection and started.
case_migrate_pv() {
    moving_guest pv
    silence >/dev/null
    row 'weft (TLS)' weft_migrate h1 h2
    both xapid_kill
    row 'xl save, restore back' stop_and_copy h2 h1
    h1 'still_flows /tmp/iperf.log; shut_down g1' 90
}
stop_and_copy() { # FROM TO
    "$2" 'bg bash -c "socat -b 524288 -u TCP-LISTEN:8003,reuseaddr - | xl restore /proc/self/fd/0"'
    "$1" "xl save g1 /proc/self/fd/1 2>/tmp/save | socat -b 524288 -u - TCP:10.9.0.10${2#h}:8003" 90
    "$2" 'until_true 30 xl domid g1 || die "restore: $(tail -n 1 /tmp/bg.log)"; reach 10.9.0.11'
}
