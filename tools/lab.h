/* lab: a pool on one machine, its hosts and guests network namespaces.
 *
 * This header is the model: what a lab consists of, kept in memory and in
 * DIR/state.json.  The state file is the lab's ledger: every process (with
 * its start time, against reuse of pids), namespace and directory stands in
 * it before it is made, so that whoever finds the file can take the lab down.
 *
 * Threads: a lab belongs to one thread of one process; other processes read
 * the state file.  DIR/lock is held (flock) by the lab's supervisor as long
 * as it lives, so a state file without a held lock is a dead lab's.
 *
 * Errors: 0 or a positive errno, with a sentence in lab->why (and, if a
 * daemon's log explains it, that log's path in lab->why_log). */
#ifndef LAB_H
#define LAB_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define LAB_PATH_MAX 256
/* Sockets under DIR must fit sockaddr_un's 108 bytes. */
#define LAB_DIR_MAX 60
#define LAB_MAX_HOSTS 16u
#define LAB_MAX_GUESTS 250u /* per host; a /16 and 16 bits of MAC hold 16 times that */
#define LAB_MAX_CELLS 16u   /* per host */
#define LAB_MAX_VLANS 32u
#define LAB_BRIDGE "xenbr0"
#define LAB_GUEST_IF "eth0"
#define LAB_MANAGE_SUBNET "192.168.78"  /* of the hosts towards their controller */
#define LAB_TUNNEL_SUBNET "192.168.77"  /* of the hosts' tunnel endpoints, with a pool */
#define LAB_MIGRATE_SUBNET "192.168.79" /* of the hosts among themselves, for VMs that move */
#define LAB_WIRE_IF "wire0"             /* a host's end of the wire between hosts */

enum lab_nic {
    LAB_NIC_VETH, /* the switch opens the veth as an ordinary interface */
    LAB_NIC_DPDK, /* the switch opens it through DPDK's af_packet driver */
};

enum lab_phase {
    LAB_BUILDING,
    LAB_UP,
    LAB_STOPPING,
};

struct lab_config {
    char name[16]; /* prefix of the namespaces */
    char dir[LAB_DIR_MAX + 1];
    unsigned n_hosts;
    unsigned guests_per_host;
    uint16_t vlans[LAB_MAX_VLANS]; /* 0: untagged */
    unsigned n_vlans;              /* 0: all guests untagged */
    bool pool;                     /* a controller programs the hosts; VLANs are its networks' */
    unsigned cells_per_host;       /* VMs that are processes (docs/lab.md); with a pool */
    char datapath[16];
    bool spare; /* switches keep a second process ready (docs/restart.md) */
    enum lab_nic nic;
    unsigned pmd_maxsleep_us;
    char pmd_mask[20];  /* pmd-cpu-mask */
    unsigned queues;    /* per vif; 0: as the backend offers */
    bool static_grants; /* guests ask for static grant mappings */
    bool hash;          /* guests choose queues by Toeplitz hash */
    bool multicast;     /* guests filter multicast in the backend */
    unsigned guest_mtu; /* 0: the default */
    unsigned n_stock;   /* the last hosts run stock_vswitchd in place of ours */
    char stock_vswitchd[LAB_PATH_MAX];
    char bin[LAB_PATH_MAX];   /* where the programs are */
    char share[LAB_PATH_MAX]; /* where vswitch.ovsschema is */
};

enum lab_proc_kind {
    LAB_JOB,      /* a command that ends by itself */
    LAB_LOCALXEN, /* the order of the daemons is that of starting */
    LAB_OVSDB,
    LAB_VSWITCHD,
    LAB_POOLDB,
    LAB_CONTROLLERD,
    LAB_FLOWD,
    LAB_XAPID,
    LAB_NETFRONT,
};

struct lab_proc {
    enum lab_proc_kind kind;
    unsigned owner; /* index of its host, or of its guest (LAB_NETFRONT); the pool's: 0 */
    char name[24];
    char log[LAB_DIR_MAX + 48];
    pid_t pid;      /* 0: not running */
    uint64_t start; /* clock ticks since boot, /proc/PID/stat field 22 */
    unsigned restarts;
    bool failed; /* given up */
    /* The supervisor's only. */
    int pidfd; /* -1: none */
    unsigned quick_deaths;
    int64_t started_ms;
    int64_t restart_at_ms; /* 0: no restart due */
};

struct lab_netns {
    char name[32];
    uint64_t inode; /* 0: not made */
};

struct lab_host {
    char name[12]; /* "h1" */
    bool stock;    /* see lab_stock.h; then it has no localxen, and its guests no netfront */
    char dir[LAB_DIR_MAX + 16];
    struct lab_netns netns;
    struct lab_proc localxen, ovsdb, vswitchd;
    struct lab_proc xapid; /* with cells, and not on a stock host */
};

/* The pool's database, controller and flow collector; with config.pool only. */
struct lab_pool {
    char dir[LAB_DIR_MAX + 16];
    struct lab_netns netns; /* the controller's; a network of their own joins it to the hosts */
    struct lab_proc ovsdb, controllerd, flowd;
};

struct lab_guest {
    char name[12]; /* "g1" */
    unsigned host;
    uint16_t domid;
    uint16_t vlan;
    unsigned network; /* index into lab_networks[] (lab_pool.h), with config.pool */
    char ip[16];
    char ip6[40]; /* with a pool; else "" */
    char mac[18];
    struct lab_netns netns;
    struct lab_proc netfront;
};

/* A VM of the pool's database with the driver "cell": weft-xapid starts it and
 * moves it, so that its process is none of the lab's. */
struct lab_cell {
    char name[16];    /* "cell1" */
    unsigned host;    /* where it starts */
    unsigned network; /* index into lab_networks[] */
    char ip[16];
    char mac[18];
};

struct lab {
    struct lab_config config;
    enum lab_phase phase;
    time_t since;
    char boot[40]; /* boot id: pids mean nothing in another one */
    struct lab_proc supervisor;
    struct lab_proc job;
    struct lab_netns wire; /* joins the hosts; only with two or more */
    struct lab_host *hosts;
    struct lab_guest *guests;
    struct lab_pool pool;
    struct lab_cell *cells;
    unsigned n_guests, n_cells;
    /* Everything of one kind, for loops. */
    struct lab_proc **procs; /* all but the supervisor */
    unsigned n_procs;
    struct lab_netns **netns;
    unsigned n_netns;

    int lock_fd;
    char why[400];
    char why_log[LAB_PATH_MAX];
};

/* A lab as 'config' wants it, nothing made yet.  NULL without memory. */
struct lab *lab_new(const struct lab_config *);
void lab_free(struct lab *); /* accepts NULL; makes and removes nothing */

/* Its addresses with prefixes, "10.0.0.1/16" or "10.1.0.1/8,fd77::1:1/32".
 * With a pool everything is on-link, so that only the controller keeps
 * networks apart. */
void lab_guest_addresses(const struct lab *, const struct lab_guest *, char *buf, size_t size);
/* Whether weft-xapid runs on the host. */
bool lab_host_has_xapid(const struct lab *, const struct lab_host *);
/* Bytes; 0: the default. */
unsigned lab_guest_mtu(const struct lab *, const struct lab_guest *);

int lab_fail(struct lab *, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "h1", "g12", with or without the lab's prefix; NULL if there is none. */
struct lab_host *lab_find_host(struct lab *, const char *name);
struct lab_guest *lab_find_guest(struct lab *, const char *name);
/* True if both guests are on one VLAN, or one network of the pool. */
bool lab_same_network(const struct lab_guest *, const struct lab_guest *);
/* True if one of 'from''s own network, or 'from' itself, has the address of
 * 'to' as well, which is of another network. */
bool lab_same_address(const struct lab *, const struct lab_guest *from, const struct lab_guest *to);

/* --- the state file (lab_state.c) ------------------------------------------ */

/* Takes DIR/lock, making DIR if need be.  EWOULDBLOCK if another still holds
 * it after 'wait_s' seconds. */
int lab_lock(const char *dir, unsigned wait_s, int *fd, char *why, size_t why_size);
/* Replaces DIR/state.json; readers see the old or the new one. */
int lab_save(struct lab *);
/* ENOENT if DIR has none. */
int lab_load(const char *dir, struct lab **, char *why, size_t why_size);
/* The path of a file in DIR. */
void lab_path(char *buf, size_t size, const char *dir, const char *file);

#endif
