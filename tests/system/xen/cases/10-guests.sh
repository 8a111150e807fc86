# One guest of each kind: created, pinged, TCP both ways.
# shellcheck shell=bash disable=SC2016

one_guest() { # TYPE
    h1 "
        guest g1 $1 10.9.0.11
        reach 10.9.0.11
        ping -q -c 20 -i 0.05 -W 1 10.9.0.11 >/dev/null
        in_guest g1 \"ping -q -c 3 -W 2 \$self\"
        note \"to the guest \$(tcp 10.9.0.11 -t 2), from it \$(tcp 10.9.0.11 -t 2 -R) Mbit/s\"
        shut_down g1
    "
}

case_pv() { one_guest pv; }
case_pvh() { one_guest pvh; }
