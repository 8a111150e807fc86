/* plug: vifs become ports of the switch by themselves.
 *
 * For each vif in the hypervisor's store, a port "vifD.H" of type netback is
 * kept on the bridge that the toolstack named, with its VLAN settings and the
 * external_ids that XenServer sets; it goes with the vif.  Ports that someone
 * else made are left alone: ours carry external_ids:weft-plugged=true.
 * other_config:weft-plug=false of table Open_vSwitch turns it off.
 *
 * Threads: the main thread only. */
#ifndef PLUG_H
#define PLUG_H

void plug_init(const char *database);
void plug_run(void);
void plug_wait(void);
void plug_exit(void);

#endif
