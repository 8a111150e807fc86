/* pki_cmd: "weft pki" (the pool's certificates) and "weft audit" (the
 * controller's audit log).  Each takes what follows its name and returns an
 * exit code (cli_cmd.h).  Single-threaded. */
#ifndef PKI_CMD_H
#define PKI_CMD_H

int pki_main(int argc, char **argv);
int audit_main(int argc, char **argv);

#endif
