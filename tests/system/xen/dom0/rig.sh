# What cases of check-xen can use in dom0: the runner puts it in front of each
# script it runs there.  A failing command ends the script, and is named.
# shellcheck shell=bash
set -Eeuo pipefail
export PATH=/bin:/sbin HOME=/root
export OVS_RUNDIR=/run/openvswitch OVS_LOGDIR=/var/log/openvswitch OVS_DBDIR=/etc/openvswitch
export OVS_PKGDATADIR=/usr/share/openvswitch
trap '' HUP # from the console of a guest that goes
trap 'echo "line $LINENO: \"$BASH_COMMAND\" failed"' ERR

# This host's address.
read -r self </proc/sys/kernel/hostname
self=10.9.0.10${self#h}

die() {
    echo "$*"
    trap - ERR
    exit 1
}

# note TEXT: adds to the line of the case.
note() { echo "note: $*"; }

# state: what runs here and how far it has come, for the log of a case that failed.
state() {
    local p f
    trap - ERR
    set +e
    echo "--- $(cat /proc/sys/kernel/hostname), up $(cut -d ' ' -f 1 /proc/uptime) s"
    for p in /proc/[0-9]*; do
        f=$(tr '\0' ' ' <"$p/cmdline" | head -c 150)
        [ -z "$f" ] || echo "${p#/proc/} $(sed 's/.*) //' "$p/stat" |
            awk '{ print $1, ($12 + $13) / 100 "s" }') $(cat "$p/wchan"): $f"
    done 2>/dev/null
    ss -Htnoi | tr '\n' ' ' | sed 's/ESTAB/\n&/g'
    echo
    xl list
    for p in $(guests); do
        xenstore-ls "/local/domain/$(domid "$p")/control" | sed "s/^/$p: /"
        tail -n 3 "/var/log/xen/console/guest-$p.log" | sed "s/^/$p: /"
    done
    for f in /tmp/{weft-xapid.log,weft-vm,migrate,bg.log,pings} "$OVS_LOGDIR/ovs-vswitchd.log"; do
        [ ! -s "$f" ] || tail -n 6 "$f" | sed "s|^|${f##*/}: |"
    done
}

# rig_watchdog SECONDS: ends the script that calls it then.
rig_watchdog() {
    {
        trap - ERR
        trap 'kill $!; exit' TERM
        sleep "$1" &
        wait
        # Nor does this take for ever.
        (sleep 10; kill -KILL -- "-$$") &
        state
        kill -KILL -- "-$$"
    } 2>/dev/null &
    rig_watchdog=$!
}

# until_true SECONDS COMMAND...: tries it until it succeeds.
until_true() {
    local end=$((SECONDS + $1))
    shift
    while ! "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# bg COMMAND...: runs on after the script; the end of the case ends it.
bg() {
    setsid "$@" </dev/null >/tmp/bg.log 2>&1 &
    echo $! >>/run/bg.pids
}

# --- the switch ------------------------------------------------------------

vsctl() { ovs-vsctl --timeout=30 "$@"; }
appctl() { ovs-appctl --timeout=30 "$@"; }
switch_pid() { cat "$OVS_RUNDIR/ovs-vswitchd.pid"; }

# As a host's boot does: the database, and after it the switch.
database_start() {
    mkdir -p "$OVS_RUNDIR" "$OVS_LOGDIR" "$OVS_DBDIR"
    rm -f "$OVS_DBDIR/conf.db"
    ovsdb-tool create "$OVS_DBDIR/conf.db" "$OVS_PKGDATADIR/vswitch.ovsschema"
    ovsdb-server --remote="punix:$OVS_RUNDIR/db.sock" --pidfile --detach --no-chdir --log-file \
        -vconsole:off 2>/dev/null
    vsctl --no-wait init
    vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true \
        other_config:dpdk-extra=--no-pci other_config:weft-hv=xen \
        other_config:userspace-tso-enable=true other_config:weft-small-mbufs=8192 other_config:weft-large-mbufs=512 \
        other_config:weft-max-queues=4 other_config:n-handler-threads=1 \
        other_config:n-revalidator-threads=1
}
switch_start() {
    weft-vswitchd --pidfile --detach --no-chdir --log-file -vconsole:off 2>/dev/null
}
# xenbr0 with the trunk eth1 and this host's address 10.9.0.10N.
switch_setup() {
    database_start
    switch_start
    ip link set eth1 mtu 9000 up
    vsctl add-br xenbr0 -- set bridge xenbr0 datapath_type=weft -- \
        add-port xenbr0 eth1
    switch_address
    bad_messages >/dev/null # of booting
}
# The address of this host, which goes with a switch that dies.
switch_address() {
    until_true 20 ip link show xenbr0 || die "the switch does not make xenbr0"
    ip addr replace "$self/24" dev xenbr0
    ip link set xenbr0 up
}
# trunk up|down: whether the link to the other host is a port of xenbr0.
trunk() {
    case $1 in
    up) vsctl --may-exist add-port xenbr0 eth1 ;;
    down) vsctl --if-exists del-port xenbr0 eth1 ;;
    esac
}
# For a new program in /bin.
switch_restart() {
    appctl exit || true
    until_true 20 eval '! pidof weft-vswitchd' || die "weft-vswitchd does not exit"
    switch_start
    switch_address
}

# --- guests ------------------------------------------------------------------

mac_of() { # ADDRESS: A.B.C.D has 00:16:3e:00:CC:DD
    local c d
    IFS=. read -r _ _ c d <<<"$1"
    printf '00:16:3e:00:%02x:%02x' "$c" "$d"
}

# Left out because they take seconds in an emulation: the self-tests of ciphers
# and the certificates for signed modules.
kernel_options="loglevel=4 mitigations=off tsc=reliable cryptomgr.notests \
initcall_blacklist=load_system_certificate_list"

# Xen would trap each reading of the time stamp counter (tsc_mode).
# guest NAME pv|pvh ADDRESS [KEY=VALUE...]: creates it; returns when libxl does.
# Keys: uuid, memory, vcpus, bridge (xenbr0; xenbr0.10 is VLAN 10), mtu, vif (further
# settings of the vif, after a comma), extra (kernel's command line), paused=1.
guest() {
    local name=$1 type=$2 address=$3 memory=128 vcpus=1 bridge=xenbr0 mtu='' vif='' extra='' paused='' uuid=''
    shift 3
    [ $# -eq 0 ] || local "$@"
    [ -z "$uuid" ] || uuid="uuid = \"$uuid\""
    cat >"/tmp/$name.cfg" <<END
name = "$name"
type = "$type"
kernel = "/guest/vmlinux"
ramdisk = "/guest/guest.cpio.gz"
cmdline = "console=hvc0 $kernel_options rig.ip=$address/24 ${mtu:+rig.mtu=$mtu} $extra"
memory = $memory
vcpus = $vcpus
$uuid
tsc_mode = "native"
vif = [ "mac=$(mac_of "$address"),bridge=$bridge,script=vif-weft${mtu:+,mtu=$mtu}${vif:+,$vif}" ]
on_reboot = "restart"
on_crash = "destroy"
END
    timeout 60 xl create -q ${paused:+-p} "/tmp/$name.cfg" || die "xl create $name: status $?"
}

domid() { xl domid "$1"; }
gone() { ! xl domid "$1" 2>/dev/null || die "$1 is still here"; } # GUEST

# reach ADDRESS [SECONDS]: waits until it answers a ping.
reach() {
    until_true "${2:-30}" ping -q -c 1 -W 0.3 "$1" || die "no answer from $1"
}

# in_guest NAME COMMAND [SECONDS]: one line of shell, on the guest's console,
# which needs no network; its output and status.
in_guest() {
    local name=$1 command=$2 tag=$RANDOM$RANDOM line begun='' status='' end=$((SECONDS + ${3:-20})) tty
    tty=$(xenstore-read "/local/domain/$(domid "$name")/console/tty")
    exec 8<>"$tty"
    flock 8
    printf 'echo "@@%s"; sh -c %q </dev/null; echo "@@%s $?"\n' "$tag" "$command" "$tag" >&8
    while [ -z "$status" ] && ((SECONDS < end)); do
        IFS= read -r -t 1 line <&8 || [ -e "$tty" ] || break
        line=${line%$'\r'}
        case $line in
        "@@$tag") begun=1 ;;
        *"@@$tag "*) status=${line##* } ;;
        *) [ -z "$begun" ] || printf '%s\n' "$line" ;;
        esac
    done
    exec 8>&-
    [ -n "$status" ] || die "guest $name did not end \"$command\""
    return "$status"
}

# shut_down NAME...: the guests end themselves.
shut_down() {
    local name
    for name; do timeout 30 xl shutdown -w "$name" >/dev/null || die "$name does not shut down"; done
}

# tcp ADDRESS [IPERF3-OPTION...]: prints Mbit/s as received.
tcp() {
    timeout 60 iperf3 -f m -c "$@" >/tmp/iperf 2>&1 || die "iperf3 -c $*: $(tail -n 1 /tmp/iperf)"
    awk '/receiver/ { r = $(NF - 2) } END { print r + 0; exit !(r > 0) }' /tmp/iperf
}

# still_flows LOG: of iperf3 -i 1: waits for three more seconds with traffic.
still_flows() {
    local from
    from=$(wc -l <"$1")
    until_true 60 eval "[ \$(tail -n +$((from + 1)) $1 | grep -c ' [1-9][0-9.]* [KMG]bits/sec') -ge 3 ]" ||
        die "the connection did not survive: $(tail -n 2 "$1" | tr '\n' ' ')"
}

# port_stat PORT NAME: a counter of it, as of now: rx_bytes and the like, or
# netback_NAME and drop_NAME of a vif.
port_stat() {
    ovs-ofctl -O OpenFlow14 dump-ports xenbr0 "$1" | tr -s ', \n' '\n' |
        awk -F= -v name="$2" '$1 == name { print $2; found = 1 } END { exit !found }'
}
vif_of() { echo "vif$(domid "$1").0"; } # GUEST: its port

# tcp_between GUEST ADDRESS [IPERF3-OPTION...]: Mbit/s, from guest to address.
tcp_between() {
    local guest=$1
    shift
    in_guest "$guest" "iperf3 -f m -c $* >/tmp/iperf 2>&1; grep receiver /tmp/iperf" 60 |
        awk '/receiver/ { r = $(NF - 2) } END { print r + 0; exit !(r > 0) }' ||
        die "no TCP from $guest to $1"
}

# --- the pool --------------------------------------------------------------------

pki=/etc/weft/pki
export WEFT_XAPI=unix:/run/weft/xapid.sock WEFT_CA_CERT=$pki/ca.crt
export WEFT_CERTIFICATE=$pki/root.crt WEFT_PRIVATE_KEY=$pki/root.key

# The pool's database, on this host, until the end of the case; both hosts and a
# network are in it.
pool_start() {
    mkdir -p /run/pool
    rm -f /run/pool/*
    ovsdb-tool create /run/pool/pool.db "$OVS_PKGDATADIR/pool.ovsschema"
    bg ovsdb-server /run/pool/pool.db --remote="pssl:6640:$self" --remote=punix:/run/pool/sock \
        --unixctl=/run/pool/ctl --private-key=$pki/h1.key --certificate=$pki/h1.crt --ca-cert=$pki/ca.crt
    until_true 10 pool_transact '{"op":"select","table":"VM","where":[]}'
    pool_insert "$(new_row Pool '"name":"rig","generation":1,"default_action":"deny"')" \
        "$(new_row Host '"name":"h1","enabled":true')" "$(new_row Host '"name":"h2","enabled":true')"
}
pool_transact() { # OPERATION[,OPERATION...]
    ovsdb-client --timeout=10 transact unix:/run/pool/sock "[\"Weft_Pool\",$1]"
}
new_row() { # TABLE MEMBERS [NAME]: an operation
    echo "{\"op\":\"insert\",\"table\":\"$1\",${3:+\"uuid-name\":\"$3\",}\"row\":{$2}}"
}
pool_insert() { # OPERATION...
    local said IFS=,
    said=$(pool_transact "$*")
    [[ $said != *'"error"'* ]] || die "the pool's database: $said"
}

# pool_vm NAME pv|pvh ADDRESS: makes the rows of such a guest, with one vif.
# Its tick goes on while it is idle (nohz=off): lab.sh says why.
pool_vm() {
    local config='' pair
    for pair in "type=$2" kernel=vmlinux ramdisk=guest.cpio.gz tsc_mode=native \
        "cmdline=console=hvc0 $kernel_options nohz=off rig.ip=$3/24"; do
        config+="${config:+,}[\"${pair%%=*}\",\"${pair#*=}\"]"
    done
    pool_insert \
        "$(new_row Network '"name":"red","mtu":1500,"type":"vlan","encapsulation":"geneve",
            "default_locking_mode":"unlocked","policy_epoch":1' net)" \
        "$(new_row VM "\"name\":\"$1\",\"driver\":\"xen\",\"power_state\":\"Halted\",
            \"memory_bytes\":$((128 << 20)),\"config\":[\"map\",[$config]]" vm)" \
        "$(new_row VIF "\"name\":\"$1-0\",\"vm\":[\"named-uuid\",\"vm\"],\"network\":[\"named-uuid\",\"net\"],
            \"mac\":\"$(mac_of "$3")\",\"device\":\"0\",\"locking_mode\":\"locked\",
            \"ipv4_allowed\":\"$3\"")"
}
# pool_says NAME COLUMN: of the VM's row.
pool_says() {
    pool_transact "{\"op\":\"select\",\"table\":\"VM\",\"where\":[[\"name\",\"==\",\"$1\"]],\"columns\":[\"$2\"]}" |
        sed -n "s/.*\"$2\":\"\{0,1\}\([^\"}]*\).*/\1/p"
}

# This host's weft-xapid, with these options, until the end of the case.  The two
# hosts' clocks do not run alike: leases are long.
xapid_start() {
    local host=h${self##*0}
    mkdir -p /run/weft
    bg weft-xapid --db=ssl:10.9.0.101:6640 --host="$host" --listen=ssl:443 \
        --listen="$WEFT_XAPI" --advertise="https://$self" --migration-address="$self" \
        --private-key="$pki/$host.key" --certificate="$pki/$host.crt" --ca-cert=$pki/ca.crt \
        --run-dir=/run/weft/xapi --switch-dir="$OVS_RUNDIR" --share=/guest --lease=60 \
        --unixctl=/run/weft/xapid.ctl --pidfile=/run/weft/xapid.pid --audit-log=/tmp/xapid-audit \
        --log-file=/tmp/weft-xapid.log -vconsole:off "$@"
    until_true 20 test -s /run/weft/xapid.pid
}
# As if it had been killed, and what watches its domains, too.
xapid_kill() {
    local f
    for f in /run/weft/xapid.pid /run/weft/xapi/domain-*.pid; do
        [ ! -e "$f" ] || kill -KILL "$(cat "$f")" 2>/dev/null || true
    done
    rm -f /run/weft/xapid.{pid,sock}
}

# weft_vm COMMAND...: of "weft vm", as soon as the pool's hosts have found each other.
weft_vm() {
    local end=$((SECONDS + 60))
    until weft vm "$@" >/tmp/weft-vm 2>&1; do
        if ! grep -qE 'HOST_|onnect' /tmp/weft-vm || ((SECONDS >= end)); then
            die "weft vm $*: $(tail -n 1 /tmp/weft-vm)"
        fi
        sleep 0.5
    done
}

# --- the end of a case -------------------------------------------------------

end_processes() {
    local pid
    [ -e /run/bg.pids ] || return 0
    while read -r pid; do
        kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
    done </run/bg.pids
    rm /run/bg.pids
    { cat /run/weft/xapi/*.pid 2>/dev/null || true; } | while read -r pid; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    rm -rf /run/weft
}
guests() { xl list | awk 'NR > 1 && $1 != "Domain-0" { print $1 }'; }
destroy_guests() {
    local id
    for id in $(xl list | awk 'NR > 1 && $2 != 0 { print $2 }'); do
        timeout 30 xl destroy "$id" 2>/dev/null || true
    done
}

# What a guest that is gone may not leave behind; prints it.
leftovers() {
    xl list | awk 'NR > 1 && $2 != 0 { print "domain: " $0 }'
    xenstore-ls -f | grep -E '^/(local/domain/[1-9]|libxl/[1-9]|weft/reboot/|vm/[^ /]*/name = "[^D])' |
        sed 's/^/xenstore: /' || true
    xenstore-ls -f /local/domain/0/backend 2>/dev/null | grep -E '^[^ ]*/(vif|vbd|console)/[0-9]+' |
        sed 's/^/backend: /' || true
    lsevtchn 0 | grep Interdomain | grep -v 'Remote Domain 0,' | sed 's/^/event channel: /' || true
    vsctl list-ports xenbr0 | grep ^vif | sed 's/^/port: /' || true
    appctl netback/show | grep -E '^ *vif' | sed 's/^/netback: /' || true
    find "$OVS_RUNDIR/weft" -name 'vif-*' 2>/dev/null | sed 's/^/journal: /' || true
}
nothing_left() { [ -z "$(leftovers)" ]; }

# Messages that are an error in whatever case.
bad_messages() {
    dmesg -c | grep -E 'BUG|WARN|Oops|[Cc]all [Tt]race|segfault|protection fault|bad grant|rror' |
        sed 's/^/dom0: /' || true
    xl dmesg -c | grep -E 'BUG|WARN|Oops|[Cc]all trace|grant|gnttab|Bad |[Ee]rror|panic' |
        sed 's/^/xen: /' || true
    grep -E '\|(ERR|EMER)\|' "$OVS_LOGDIR/ovs-vswitchd.log" | sed 's/^/switch: /' || true
    : >"$OVS_LOGDIR/ovs-vswitchd.log"
}

# end_of_case: destroys what is left of guests and says what should not be.
end_of_case() {
    local bad
    end_processes
    destroy_guests
    pidof weft-vswitchd >/dev/null || switch_start
    until_true 10 nothing_left || true
    bad=$(leftovers; bad_messages)
    [ -z "$bad" ] || die "$bad"
}
