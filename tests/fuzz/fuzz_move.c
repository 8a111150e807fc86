/* Fuzzes what another host says of a vif that moves here: late frames, settings of
 * its backend, the network's state. */
#include <stdlib.h>
#include <string.h>

#include "late.h"
#include "netback.h"
#include "network_state.h"
#include "offload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is taken must say the same again. */
static void
check_state(const uint8_t *data, size_t size)
{
    static struct vif_known k[3], again[3];
    uint8_t *out;
    size_t len;

    if (network_state_get(k, 3, data, size)) {
        return;
    }
    if (network_state_put(k, 3, &out, &len) || network_state_get(again, 3, out, len)) {
        abort();
    }
    for (int i = 0; i < 3; i++) {
        if (again[i].n_macs != k[i].n_macs || again[i].n_groups != k[i].n_groups ||
            again[i].blob_len != k[i].blob_len) {
            abort();
        }
        vif_known_clear(&again[i]);
        vif_known_clear(&k[i]);
    }
    free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame_layout l;
    size_t n;

    if (!size) {
        return 0;
    }
    switch (data[0] % 3) {
    case 0:
        n = late_check(data + 1, size - 1);
        if (n && data[2] & LATE_GSO &&
            (!frame_parse(data + 1 + LATE_HEADER, n, &l) || !l.payload)) {
            abort();
        }
        break;
    case 1:
        netback_import_check(data + 1, size - 1);
        break;
    default: {
        char *text = malloc(size);
        struct vif_known k = {.n_macs = 0};

        check_state(data + 1, size - 1);
        memcpy(text, data + 1, size - 1);
        text[size - 1] = '\0';
        vif_known_add_macs(&k, text, 3);
        vif_known_add_groups(&k, text, 3);
        free(text);
    }
    }
    return 0;
}
