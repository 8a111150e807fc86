"""A pool of a regular shape: the one of tests/ovs/ctl_big.h, as rows of the
databases that state it.

Networks of 128 vifs, 16 on each of 8 neighbouring hosts; a VM for each vif; a
group for each network, of its first 32 vifs.  Of 100 policies, five rules each,
2 are global or pool-wide, 30 for networks, 20 for groups, 24 for VMs, 24 for
vifs.  Half of the networks are VLANs, half overlays; half of the vifs are locked
to their addresses.

Weft's rows state this in Weft_Pool, OVN's in OVN_Northbound: networks are
logical switches (a VLAN has a localnet port with its tag), vifs are ports (with
port_security if locked), groups are port groups, and rules ACLs of the same
matches, verdicts and order of precedence: on the port group of all ports, on
the logical switch, on the group's port group, or on the logical switch with the
port in the match.
"""
SPAN = 8       # hosts that a network has vifs on
PER_NET = 16   # vifs of a network on one of these
BRIDGE = "xenbr0"
INT_BRIDGE = "br-int"

_KINDS = ("Host", "Network", "VM", "VIF", "Group", "Policy", "Rule")
# Columns whose default in the database is not the one they have in a document.
_WEFT_DEFAULTS = {
    "Host": {"bridge": BRIDGE, "enabled": True},
    "Network": {"encapsulation": "vxlan", "mtu": 1500, "default_locking_mode": "unlocked",
                "policy_epoch": 1},
    "Rule": {"ethertype": "any", "stateful": True, "enabled": True},
}


def uuid_of(kind, i):
    # Hash tables look at the first part only.
    mixed = ((i + 1) * 2654435761 + kind * 40503) & 0xffffffff
    return f"{mixed:08x}-{kind:04x}-4000-8000-{i + 1:012x}"


def ref(table, i):
    return ["uuid", uuid_of(_KINDS.index(table), i)]


def as_set(values):
    return ["set", list(values)]


def as_map(pairs):
    return ["map", [[k, v] for k, v in pairs.items()]]


def insert(table, row, uuid=None, name=None):
    op = {"op": "insert", "table": table, "row": row}
    if uuid:
        op["uuid"] = uuid
    if name:
        op["uuid-name"] = name
    return op


class Rule:
    """One rule in terms of both."""

    def __init__(self, model, i):
        part = i // 5 % 100
        kind = i % 4
        self.i, self.policy = i, i // 5
        self.mandatory, self.order = i % 3 == 0, i % 5
        self.into, self.allow = i % 2 == 1, i % 7 != 0
        self.protocol = "udp" if kind == 3 else "tcp"
        self.ports = ["1000-1999", "8443"] if kind else []
        self.group = i % model.n_groups if kind == 1 else None
        self.cidrs = [] if kind == 1 else [f"10.{i % 250}.0.0/16", "192.168.0.0/16",
                                           "fd00:1::/32"]
        vif = self.policy * 37 % model.n_vifs
        self.scope, self.on = (("global", None) if part < 1 else
                               ("pool", None) if part < 2 else
                               ("network", self.policy % model.n_nets) if part < 32 else
                               ("group", self.policy % model.n_groups) if part < 52 else
                               ("vm", vif) if part < 76 else ("vif", vif))

    def all_ports(self, salt):
        return [str(80 + salt)] + self.ports


class PoolModel:
    def __init__(self, n_hosts, vifs_per_host, n_rules):
        self.n_hosts, self.vifs_per_host, self.n_rules = n_hosts, vifs_per_host, n_rules
        self.n_vifs = n_hosts * vifs_per_host
        self.slots = (vifs_per_host + PER_NET - 1) // PER_NET
        self.n_nets = self.n_groups = (n_hosts + SPAN - 1) // SPAN * self.slots
        self.n_policies = (n_rules + 4) // 5

    def title(self):
        return f"{self.n_hosts} hosts x {self.vifs_per_host:,} vifs"

    # --- who is where ----------------------------------------------------------

    def host_of(self, vif):
        return vif // self.vifs_per_host

    def net_of(self, vif):
        return self.host_of(vif) // SPAN * self.slots + vif % self.vifs_per_host // PER_NET

    def vifs_on(self, host):
        return range(host * self.vifs_per_host, (host + 1) * self.vifs_per_host)

    def ofport(self, vif):
        return 10 + vif % self.vifs_per_host

    def group_members(self, group):
        for host in range(group // self.slots * SPAN, group // self.slots * SPAN + 2):
            if host < self.n_hosts:
                first = host * self.vifs_per_host + group % self.slots * PER_NET
                yield from range(first, min(first + PER_NET, (host + 1) * self.vifs_per_host))

    def is_vlan(self, net):
        return net % 2 == 1 and net // 2 < 4000

    @staticmethod
    def mac(vif):
        return f"02:00:{vif >> 24:02x}:{vif >> 16 & 255:02x}:{vif >> 8 & 255:02x}:{vif & 255:02x}"

    @staticmethod
    def ips(vif):
        return [f"10.{100 + (vif >> 16)}.{vif >> 8 & 255}.{vif & 255}",
                f"fd00::{vif >> 16:x}:{(vif & 65535) + 1:x}" if vif >> 16 else
                f"fd00::{(vif & 65535) + 1:x}"]

    @staticmethod
    def locked(vif):
        return vif % 2 == 1

    def rules_of(self, scope):
        """Numbers of all rules of policies with this scope."""
        return [i for i in range(self.n_rules) if Rule(self, i).scope == scope]

    # --- Weft_Pool ----------------------------------------------------------------

    def weft_rows(self, run_dir):
        """Insert operations; 'run_dir'/HOST/db.sock is a host's database."""
        yield insert("Pool", {"name": "pool", "default_action": "deny", "generation": 1,
                              "key_next": 9000000, "zone_next": self.n_nets + 1})
        for i in range(self.n_hosts):
            yield self._weft("Host", i, ovsdb=f"unix:{run_dir}/{i}/db.sock", uplink="eth1",
                             tunnel_ip=f"192.0.2.{i + 1}")
        for i in range(self.n_nets):
            kind = ({"type": "vlan", "tag": 1 + i // 2} if self.is_vlan(i)
                    else {"type": "overlay", "vni": 1 + i})
            yield self._weft("Network", i, zone=i + 1, **kind)
        for i in range(self.n_vifs):
            yield self._weft("VM", i)
            yield self._weft_vif(i)
        for i in range(self.n_groups):
            yield self._weft("Group", i, vifs=as_set(ref("VIF", v) for v in self.group_members(i)))
        for i in range(self.n_policies):
            rule = Rule(self, i * 5)
            on = {} if rule.on is None else {
                rule.scope: ref({"network": "Network", "group": "Group", "vm": "VM",
                                 "vif": "VIF"}[rule.scope], rule.on)}
            yield self._weft("Policy", i, scope=rule.scope, **on)
        for i in range(self.n_rules):
            yield self._weft_rule(i)

    @staticmethod
    def _weft(table, i, **row):
        kind = _KINDS.index(table)
        row = dict(_WEFT_DEFAULTS.get(table, {}), name=f"{table.lower()}{i}",
                   pool_key=(kind + 1) * 1000000 + i + 1, **row)
        return insert(table, row, uuid=uuid_of(kind, i))

    def _weft_vif(self, i):
        v4, v6 = self.ips(i)
        addresses = ({"locking_mode": "locked", "ipv4_allowed": v4, "ipv6_allowed": v6}
                     if self.locked(i) else
                     {"locking_mode": "network_default", "addresses": as_set([v4, v6])})
        return self._weft("VIF", i, vm=ref("VM", i), network=ref("Network", self.net_of(i)),
                          mac=self.mac(i), **addresses)

    def _weft_rule(self, i):
        r = Rule(self, i)
        remote = ({"remote_cidrs": as_set(r.cidrs)} if r.group is None
                  else {"remote_group": ref("Group", r.group)})
        return self._weft("Rule", i, policy=ref("Policy", r.policy),
                          part="mandatory" if r.mandatory else "default", order=r.order,
                          direction="in" if r.into else "out",
                          action="allow" if r.allow else "deny", protocol=r.protocol,
                          ports=as_set(r.all_ports(0)), **remote)

    def weft_change(self, i, salt):
        """Operations that give rule i another port, as one new generation."""
        uuid = ref("Rule", i)
        return [{"op": "update", "table": "Rule", "where": [["_uuid", "==", uuid]],
                 "row": {"ports": as_set(Rule(self, i).all_ports(salt))}},
                {"op": "mutate", "table": "Pool", "where": [],
                 "mutations": [["generation", "+=", 1]]},
                {"op": "select", "table": "Pool", "where": [], "columns": ["generation"]}]

    # --- Open_vSwitch on a host, for either ------------------------------------------

    def host_rows(self, host, system):
        """Bridge and ports as a toolstack and ovs-vswitchd leave them."""
        bridge = {"weft": BRIDGE, "ovn": INT_BRIDGE}[system]
        ports = [(bridge, 65534, {}, "internal", {}, {})]
        if system == "weft":
            ports += [("eth1", 1, {}, "", {}, {}),
                      ("weft-vxlan", 2, {}, "vxlan",
                       {"local_ip": f"192.0.2.{host + 1}", "remote_ip": "flow", "key": "flow"},
                       {"weft-controller": "tunnel"})]
        for v in self.vifs_on(host):
            ports.append((f"vif{v}.0", self.ofport(v), self.interface_ids(v), "", {}, {}))
        for i, port in enumerate(ports):
            yield from port_rows(i, *port)
        yield insert("Bridge", {
            "name": bridge, "fail_mode": "secure", "protocols": "OpenFlow15",
            "ports": as_set(["named-uuid", f"p{i}"] for i in range(len(ports))),
            "other_config": as_map({"hwaddr": f"02:ff:00:00:00:{host:02x}"})}, name="br")
        ids = {} if system == "weft" else {
            "system-id": f"host{host}", "ovn-encap-type": "geneve",
            "ovn-encap-ip": f"192.0.2.{host + 1}", "ovn-bridge-mappings": "phys:br-phys",
            "ovn-monitor-all": "false"}
        bridges = [["named-uuid", "br"]]
        if system == "ovn":
            yield insert("Bridge", {"name": "br-phys"}, name="phys")
            bridges.append(["named-uuid", "phys"])
        yield insert("Open_vSwitch", {"bridges": as_set(bridges), "ovs_version": "3.1.0",
                                      "external_ids": as_map(ids)})

    def interface_ids(self, vif):
        return {"xs-vif-uuid": uuid_of(_KINDS.index("VIF"), vif), "iface-id": f"vif{vif}",
                "attached-mac": self.mac(vif)}

    # --- OVN_Northbound -----------------------------------------------------------------

    def ovn_rows(self):
        acls = {}  # what they are on: names of rows
        for i in range(self.n_rules):
            rule = Rule(self, i)
            on = ("all", None) if rule.scope in ("global", "pool") else (
                ("group", rule.on) if rule.scope == "group" else
                ("net", rule.on if rule.scope == "network" else self.net_of(rule.on)))
            acls.setdefault(on, []).append(["named-uuid", f"a{i}"])
            yield insert("ACL", self.ovn_acl(i, 0), name=f"a{i}")
        for into in (False, True):
            yield insert("ACL", {
                "priority": 0, "action": "drop", "direction": "to-lport" if into else "from-lport",
                "match": f"{'outport' if into else 'inport'} == @all && ip"}, name=f"d{into:d}")
            acls.setdefault(("all", None), []).append(["named-uuid", f"d{into:d}"])
        for i in range(self.n_vifs):
            v4, v6 = self.ips(i)
            text = f"{self.mac(i)} {v4} {v6}"
            yield insert("Logical_Switch_Port", {
                "name": f"vif{i}", "addresses": text,
                "port_security": as_set([text] if self.locked(i) else [])}, name=f"l{i}")
        ports = [[] for _ in range(self.n_nets)]
        for i in range(self.n_vifs):
            ports[self.net_of(i)].append(["named-uuid", f"l{i}"])
        for i in range(self.n_nets):
            if self.is_vlan(i):
                yield insert("Logical_Switch_Port", {
                    "name": f"phys{i}", "type": "localnet", "addresses": "unknown",
                    "tag": 1 + i // 2, "options": as_map({"network_name": "phys"})}, name=f"n{i}")
                ports[i].append(["named-uuid", f"n{i}"])
            yield insert("Logical_Switch", {"name": f"net{i}", "ports": as_set(ports[i]),
                                            "acls": as_set(acls.get(("net", i), []))})
        for i in range(self.n_groups):
            yield insert("Port_Group", {
                "name": f"g{i}", "acls": as_set(acls.get(("group", i), [])),
                "ports": as_set(["named-uuid", f"l{v}"] for v in self.group_members(i))})
        yield insert("Port_Group", {
            "name": "all", "acls": as_set(acls[("all", None)]),
            "ports": as_set(["named-uuid", f"l{v}"] for v in range(self.n_vifs))})

    def ovn_acl(self, i, salt):
        r = Rule(self, i)
        band = {"global": 0, "pool": 1, "network": 2, "group": 3, "vm": 4, "vif": 5}[r.scope]
        band = 11 - band if r.mandatory else band
        end, port = ("src", "outport") if r.into else ("dst", "inport")
        on = {"global": "@all", "pool": "@all", "network": None, "group": f"@g{r.on}",
              "vm": f'"vif{r.on}"', "vif": f'"vif{r.on}"'}[r.scope]
        if r.group is None:
            v4 = [c for c in r.cidrs if ":" not in c]
            v6 = [c for c in r.cidrs if ":" in c]
            remote = f"(ip4.{end} == {{{', '.join(v4)}}} || ip6.{end} == {{{', '.join(v6)}}})"
        else:
            remote = f"(ip4.{end} == $g{r.group}_ip4 || ip6.{end} == $g{r.group}_ip6)"
        services = [(f"({first} <= {r.protocol}.dst <= {last})" if last else
                     f"{r.protocol}.dst == {first}")
                    for first, _, last in (p.partition("-") for p in r.all_ports(salt))]
        parts = ([f"{port} == {on}"] if on else []) + [remote, f"({' || '.join(services)})"]
        return {"priority": 1 + band * 20 + 2 * (4 - r.order) + (not r.allow),
                "direction": "to-lport" if r.into else "from-lport",
                "action": "allow-related" if r.allow else "drop",
                "match": " && ".join(parts), "external_ids": as_map({"rule": str(i)})}


def port_rows(i, name, ofport, iface_ids, iface_type, options, port_ids):
    """Interface and Port, the latter named p{i}."""
    yield insert("Interface", {"name": name, "type": iface_type, "ofport": ofport,
                               "options": as_map(options), "external_ids": as_map(iface_ids)},
                 name=f"i{i}")
    yield insert("Port", {"name": name, "interfaces": ["named-uuid", f"i{i}"],
                          "external_ids": as_map(port_ids)}, name=f"p{i}")
