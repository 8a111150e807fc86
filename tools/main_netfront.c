/* weft-netfront: a guest of the local stand-in, its network interface only. */
#include "netfront.h"

int
main(int argc, char **argv)
{
    static struct nf_config config;
    static struct nf_guest guest;

    int status = nf_options_parse(&config, argc, argv);
    if (status >= 0) {
        return status;
    }
    if (nf_guest_open(&guest, &config)) {
        return 1;
    }
    status = nf_guest_run(&guest);
    nf_guest_close(&guest);
    return status;
}
