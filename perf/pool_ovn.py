"""OVN in the place of the controller: the distribution's ovn-northd with its
databases, and an ovn-controller for each host of a PoolModel, on the same
ovsdb-servers and light switches."""
import contextlib
import time

import pool_model
from pool_rig import JsonRpc, PoolRig, cpu_seconds, memory_mib, until
from rig import ROOT, run as run_command


class OvnPool(PoolRig):
    QUIET_S = 1  # a port's move takes several turns between host and databases

    def __init__(self, programs, model):
        super().__init__(programs, model, "ovn")
        self.ovn = run_command([f"{ROOT}/perf/stock_ovn.sh"], timeout=300).strip()
        self.nb = None
        self.northd, self.controllers, self.servers = None, [], []
        self._nb_cfg = self._hv_cfg = 0
        self._salt = 0
        self._acls = {}

    def _start(self):
        super()._start()
        for name in ("nb", "sb"):
            path = f"{self.dir}/{name}"
            self.create_db(f"{path}.db", f"{self.ovn}/usr/share/ovn/ovn-{name}.ovsschema")
            self.servers.append(self.serve(name, f"{path}.db", f"{path}.sock"))
        # As ovn-nbctl init and ovn-sbctl init, without which ovn-controller crashes.
        with contextlib.closing(JsonRpc(f"{self.dir}/sb.sock")) as sb:
            sb.transact("OVN_Southbound", {"op": "insert", "table": "SB_Global", "row": {}})
        self.nb = JsonRpc(f"{self.dir}/nb.sock")
        # Rows that refer to each other by name: one transaction.
        self.nb.transact("OVN_Northbound", {"op": "insert", "table": "NB_Global", "row": {}},
                         *self.model.ovn_rows())
        rows = self.nb.transact("OVN_Northbound", {
            "op": "select", "table": "ACL", "where": [], "columns": ["_uuid", "external_ids"]})
        for row in rows[0]["rows"]:
            ids = dict(row["external_ids"][1])
            if "rule" in ids:
                self._acls[int(ids["rule"])] = row["_uuid"]
        self.nb.call("monitor", "OVN_Northbound", "global", {"NB_Global": {"columns": ["hv_cfg"]}})

    def start(self):
        at = time.monotonic()
        for i in range(self.model.n_hosts):
            self.host_db(i).transact("Open_vSwitch", {
                "op": "mutate", "table": "Open_vSwitch", "where": [],
                "mutations": [["external_ids", "insert",
                               pool_model.as_map({"ovn-remote": f"unix:{self.dir}/sb.sock"})]]})
        self.northd = self.spawn("northd", [
            f"{self.ovn}/usr/bin/ovn-northd", f"--ovnnb-db=unix:{self.dir}/nb.sock",
            f"--ovnsb-db=unix:{self.dir}/sb.sock", f"--unixctl={self.dir}/northd.ctl",
            "-vconsole:info", "-vsyslog:off"])
        for i in range(self.model.n_hosts):
            self.controllers.append(self.spawn(f"ovn{i}", [
                f"{self.ovn}/usr/bin/ovn-controller", f"unix:{self.dir}/{i}/db.sock",
                "-vconsole:info", "-vsyslog:off"],
                env=dict(self.env, OVS_RUNDIR=f"{self.dir}/{i}", OVN_RUNDIR=f"{self.dir}/{i}")))
        return at

    def number_ports(self):
        """What ovs-vswitchd would do with ports that ovn-controller adds; how many
        there were."""
        n = 0
        for i in range(self.model.n_hosts):
            rows = self.host_db(i).transact("Open_vSwitch", {
                "op": "select", "table": "Interface", "where": [["ofport", "==", ["set", []]]],
                "columns": ["_uuid"]})[0]["rows"]
            ops = [{"op": "update", "table": "Interface", "where": [["_uuid", "==", row["_uuid"]]],
                    "row": {"ofport": 20000 + int(row["_uuid"][1][:4], 16) % 10000}}
                   for row in rows]
            if ops:
                self.host_db(i).transact("Open_vSwitch", *ops)
            n += len(ops)
        return n

    def _processes(self):
        return [self.northd] + self.servers + self.controllers

    def cpu(self):
        return sum(cpu_seconds(p.pid) for p in self._processes())

    def memory(self):
        """MiB of ovn-northd, its databases and all ovn-controllers."""
        return sum(memory_mib(p.pid) for p in self._processes())

    def _bump(self, *ops):
        self._nb_cfg += 1
        self.nb.transact("OVN_Northbound", *ops, {
            "op": "update", "table": "NB_Global", "where": [], "row": {"nb_cfg": self._nb_cfg}})

    def wait_applied(self, timeout=600, number=False):
        """As ovn-nbctl --wait=hv; returns when that was."""
        end = time.monotonic() + timeout
        while self._hv_cfg < self._nb_cfg:
            if time.monotonic() > end:
                self.controllers[0].fail(f"is not at nb_cfg {self._nb_cfg}")
            if number:
                self.number_ports()
            for update in self.nb.updates(0.5):
                for row in update.get("NB_Global", {}).values():
                    self._hv_cfg = row["new"]["hv_cfg"]
            self.northd.check()
        return time.monotonic()

    def cold_start(self):
        """(wall seconds, CPU seconds of northd, databases and ovn-controllers)."""
        before = sum(cpu_seconds(p.pid) for p in self.servers)
        start = self.start()
        until("chassis", lambda: self._n_chassis() == self.model.n_hosts)
        self._bump()
        end = self.wait_applied(number=True)
        return end - start, self.cpu() - before

    def _n_chassis(self):
        with contextlib.closing(JsonRpc(f"{self.dir}/sb.sock")) as sb:
            return len(sb.transact("OVN_Southbound", {"op": "select", "table": "Chassis",
                                                      "where": [], "columns": ["name"]})[0]["rows"])

    def change_rule(self, i):
        """As WeftPool.change_rule()."""
        self._salt += 1
        acl = self.model.ovn_acl(i, self._salt)
        start = time.monotonic()
        self._bump({"op": "update", "table": "ACL", "where": [["_uuid", "==", self._acls[i]]],
                    "row": {"match": acl["match"]}})
        told = self.wait_applied()
        return self.last_confirmed() - start, told - start
