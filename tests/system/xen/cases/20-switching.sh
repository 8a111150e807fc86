# Guests among themselves: on one host, and on two over the VLAN trunk.
# shellcheck shell=bash disable=SC2016

# Inside one switch frames of 64 KiB pass from guest to guest uncut.
case_neighbours() {
    h1 '
        guest g1 pv 10.9.0.11
        guest g2 pvh 10.9.0.12
        reach 10.9.0.11
        reach 10.9.0.12
        in_guest g1 "ping -q -c 10 -i 0.1 -W 2 10.9.0.12"
        a=$(vif_of g1) b=$(vif_of g2)
        note "there $(tcp_between g1 10.9.0.12 -t 2), back $(tcp_between g1 10.9.0.12 -t 2 -R) Mbit/s"
        for vif in $a $b; do
            [ "$(port_stat $vif netback_rx_gso)" -gt 10 ] || die "$vif: the guest sent no large frames"
            [ "$(port_stat $vif netback_tx_gso)" -gt 10 ] || die "$vif: the guest was sent no large frames"
            [ "$(port_stat $vif netback_segments_cut)" -eq 0 ] || die "$vif: frames were cut"
        done
        shut_down g1 g2
    ' 90
}

# Without its offloads a guest gets frames cut and summed, and its own pass.
case_no_offloads() {
    h1 '
        guest g1 pvh 10.9.0.11
        reach 10.9.0.11
        in_guest g1 "ethtool -K eth0 tso off gso off gro off tx off sg off"
        a=$(vif_of g1)
        note "to the guest $(tcp 10.9.0.11 -t 2), from it $(tcp 10.9.0.11 -t 2 -R) Mbit/s"
        [ "$(port_stat $a netback_rx_gso)" -eq 0 ] || die "the guest sent large frames all the same"
    '
}

# case_vlans: two hosts
# VLAN 10 reaches over the trunk, VLAN 20 does not reach VLAN 10.
case_vlans() {
    h1 '
        guest g1 pv 10.9.1.11 bridge=xenbr0.10
        guest g2 pvh 10.9.1.12 bridge=xenbr0.20
    ' &
    h2 'guest g3 pvh 10.9.1.13 bridge=xenbr0.10' || die "g3 is not created"
    wait $! || die "g1 or g2 is not created"
    h1 '
        until_true 30 in_guest g1 "ping -q -c 1 -W 1 10.9.1.13" || die "VLAN 10 does not reach over the trunk"
        in_guest g1 "ping -q -c 5 -i 0.2 -W 2 10.9.1.13"
        until_true 30 in_guest g2 "ip addr show eth0 | grep 10.9.1.12"
        ! in_guest g2 "ping -q -c 3 -W 1 10.9.1.13" || die "VLAN 20 reaches VLAN 10 over the trunk"
        ! in_guest g2 "ping -q -c 3 -W 1 10.9.1.11" || die "VLAN 20 reaches VLAN 10 on one host"
        appctl fdb/show xenbr0 | awk "\$2 == 10 && \$3 == \"$(mac_of 10.9.1.13)\" { found = 1 } END { exit !found }" ||
            die "the guest of h2 is not known in VLAN 10"
        # The trunk takes larger frames than the guests: they must still be cut
        # to what the guests can take.
        rate=$(tcp_between g1 10.9.1.13 -t 2)
        note "$rate Mbit/s from host to host"
        [ "${rate%.*}" -ge 5 ] || die "TCP from host to host: $rate Mbit/s"
    ' 90
}

# case_jumbo: two hosts
# From a guest on h1 to one on h2, nothing fragmented.
case_jumbo() {
    h1 'guest g1 pvh 10.9.0.11 mtu=9000' &
    h2 'guest g2 pvh 10.9.0.12 mtu=9000' || die "g2 is not created"
    wait $! || die "g1 is not created"
    h1 '
        reach 10.9.0.11
        reach 10.9.0.12
        vsctl set interface xenbr0 mtu_request=9000
        until_true 10 grep 9000 /sys/class/net/xenbr0/mtu
        for guest in 11 12; do
            ping -q -M do -s 8972 -c 5 -i 0.2 -W 2 10.9.0.$guest || die "no answer to 9000 bytes"
        done
        in_guest g1 "ethtool -K eth0 tso off gso off"
        rate=$(tcp_between g1 10.9.0.12 -t 2)
        note "$rate Mbit/s from host to host"
        vsctl remove interface xenbr0 mtu_request 9000
        ip link set xenbr0 mtu 1500
    ' 90
}

# A guest of two CPUs has two queues, and both are used.
case_queues() {
    h1 '
        guest g1 pvh 10.9.0.11 vcpus=2
        reach 10.9.0.11
        appctl netback/show "$(vif_of g1)" | grep "queues 2" || die "$(appctl netback/show)"
        tcp 10.9.0.11 -t 2 -P 8 >/dev/null
        tcp 10.9.0.11 -t 2 -P 8 -R >/dev/null
        in_guest g1 "grep -E q[01]-[rt]x /proc/interrupts" >/tmp/interrupts
        cat /tmp/interrupts
        awk "{ n = \$2 + \$3; if (n < 20) low = 1; rows++ } END { exit low || rows != 4 }" /tmp/interrupts ||
            die "a queue is not used: $(tr "\n" ";" </tmp/interrupts)"
        shut_down g1
    '
}
