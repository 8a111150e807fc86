/* flow_export: the datapath's records of flows on their way to collectors.
 *
 * A bridge of datapath "weft" whose row has a NetFlow or IPFIX row exports its
 * flows: flow_export_config.c reads the settings (docs/flows.md has them all)
 * and which port is whose; flow_export.c has the thread that collects from the
 * workers, gives the records their names, and sends them (netflow/export.h).
 * Open vSwitch's own exporters of such bridges stay off, so flows stay wide.
 *
 * Threads: all on the main thread. */
#ifndef FLOW_EXPORT_H
#define FLOW_EXPORT_H

/* 'database': as for bridge_init().  Registers flow-export/show. */
void flow_export_init(const char *database);
void flow_export_run(void);
void flow_export_wait(void);
/* Tells collectors what there is, and ends; before the bridges go. */
void flow_export_exit(void);

#endif
