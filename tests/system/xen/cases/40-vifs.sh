# Vifs and guests that come and go, in order and not.
# shellcheck shell=bash disable=SC2016,SC2154

# Traffic both ways between dom0 and a guest, for as long as the case lasts.
traffic='
    traffic() {
        bg iperf3 -c "$1" -t 1000 -i 1 --bidir --forceflush
        until_true 30 grep -q "[1-9][0-9.]* [KMG]bits/sec" /tmp/bg.log || die "no traffic to $1"
    }
    gone() { ! xl list | grep -q "^$1 " && ! xenstore-ls "/local/domain/0/backend/vif/$2" 2>/dev/null; }
    # A domain with a page still mapped stays behind as "(null)", dying.
    all_gone() { gone "$1" "$2" && ! xl list | grep -q "(null)"; }
'

case_hot_attach() {
    h1 '
        guest g1 pvh 10.9.0.11
        reach 10.9.0.11
        for turn in 1 2 3; do
            xl network-attach g1 mac=00:16:3e:00:01:0b bridge=xenbr0 script=vif-weft
            until_true 10 in_guest g1 "ip addr add 10.9.1.11/24 dev eth1 && ip link set eth1 up"
            ip addr replace 10.9.1.101/24 dev xenbr0
            reach 10.9.1.11
            xl network-detach g1 1
            until_true 10 eval "! vsctl list-ports xenbr0 | grep -q [.]1\$" || die "the port stays"
            reach 10.9.0.11
        done
        ip addr del 10.9.1.101/24 dev xenbr0
        # A vif whose network is missing fails at once, and says why.
        ! timeout 60 xl network-attach g1 bridge=nowhere script=vif-weft 2>/tmp/attach ||
            die "a vif on a missing bridge was attached"
        grep -q nowhere /tmp/attach || die "the reason is missing: $(tail -n 3 /tmp/attach)"
        reach 10.9.0.11
    '
}

case_reboot() {
    h1 '
        guest g1 pvh 10.9.0.11
        reach 10.9.0.11
        old=$(domid g1)
        (in_guest g1 "sleep 0.2; reboot -f" 3 >/dev/null) || true
        until_true 40 eval "id=\$(xl domid g1 2>/dev/null) && [ \$id != $old ]" || die "no reboot"
        reach 10.9.0.11 40
        [ ! -e "$OVS_RUNDIR/weft/vif-$old.0" ] || die "the old journal is still there"
    '
}

# Mapped rings, copies under way: the switch must let go of everything at once,
# and others must not notice.
ended_in_traffic() { # TYPE COMMAND
    h1 "$traffic
        guest g1 $1 10.9.0.11
        guest g2 pvh 10.9.0.12
        reach 10.9.0.11
        reach 10.9.0.12
        id=\$(domid g1) pid=\$(switch_pid)
        traffic 10.9.0.11 vif\$id.0
        $2
        until_true 15 all_gone g1 \$id || die \"g1 is not gone: \$(xl list | tail -n +2 | tr '\n' ';')\"
        [ \$(switch_pid) = \$pid ] || die 'the switch has been restarted'
        reach 10.9.0.12 5
    "
}
case_destroy_in_traffic() { ended_in_traffic pv 'timeout 40 xl destroy g1'; }
case_panic_in_traffic() {
    ended_in_traffic pvh '(in_guest g1 "sleep 0.2; echo c >/proc/sysrq-trigger" 3 >/dev/null) || true'
}
