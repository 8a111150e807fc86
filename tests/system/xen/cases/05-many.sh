# Many guests.  First of all, because it takes longest: meanwhile the other host
# goes through the rest.
# shellcheck shell=bash disable=SC2016

# As many as memory allows, all alive at once.
# case_many: 240 s
case_many() {
    h1 '
        each=128
        n=$((($(xl info | sed -n "s/^free_memory *: //p") - 16) / (each + 4)))
        n=$((n > 16 ? 16 : n))
        [ $n -ge 3 ] || die "memory for $n guests only"
        for ((i = 1; i <= n; i++)); do
            guest m$i pv 10.9.0.$((20 + i))
        done
        for ((i = 1; i <= n; i++)); do
            reach 10.9.0.$((20 + i)) 60
        done
        in_guest m1 "ping -q -c 3 -W 2 10.9.0.$((20 + n))" >/dev/null
        [ "$(appctl netback/show | grep -c "carrier up")" -eq "$n" ] || die "not all are connected"
        for ((i = 1; i <= n; i++)); do xl destroy m$i; done
        note "$n guests"
    ' 240
}
