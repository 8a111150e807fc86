/* main: the guest's loop; see guest.h. */
#include <stdarg.h>

#include "guest.h"
#include "lwip/init.h"
#include "lwip/timeouts.h"

#define STACK_BYTES (256 * 1024)
/* With nothing to do the guest looks a little longer before it sleeps. */
#define LINGER_NS 20000

extern void cell_main(void);

static uint8_t stack[STACK_BYTES] __attribute__((aligned(4096)));
__attribute__((section(".info"), used)) struct cell_info cell_info = {
    .magic = CELL_MAGIC,
    .version = CELL_ABI_VERSION,
    .stack_top = (uint64_t)(stack + STACK_BYTES),
    .net_start = (uint64_t)net_memory,
    .net_bytes = NET_BYTES,
};

uint64_t
guest_clock(void)
{
    return hypercall(CELL_HC_CLOCK, 0, 0, 0);
}

uint32_t sys_now(void);
uint32_t
sys_now(void)
{
    return (uint32_t)(guest_clock() / 1000000);
}

void
guest_log(const char *format, ...)
{
    char text[CELL_LOG_MAX];
    va_list args;

    va_start(args, format);
    size_t n = guest_vformat(text, sizeof text, format, args);
    va_end(args);
    hypercall(CELL_HC_LOG, (uintptr_t)text, n, 0);
}

void
guest_panic(const char *why)
{
    guest_log("panic: %s", why);
    for (;;) {
        hypercall(CELL_HC_HALT, 1, 0, 0);
    }
}

static uint64_t
next_deadline(uint64_t now)
{
    uint32_t ms = sys_timeouts_sleeptime();
    uint64_t deadline = ms == SYS_TIMEOUTS_SLEEPTIME_INFINITE ? UINT64_MAX : now + ms * 1000000ull;
    uint64_t others[] = {peer_deadline(), dirty_deadline()};

    for (unsigned i = 0; i < 2; i++) {
        deadline = others[i] < deadline ? others[i] : deadline;
    }
    return deadline;
}

/* One turn; true if there may be more to do. */
static bool
turn(uint64_t now)
{
    bool busy = net_poll();

    sys_check_timeouts();
    peer_poll(now);
    busy |= dirty_poll(now);
    net_flush();
    return busy;
}

static void
react(uint64_t events)
{
    net_event(events);
    if (events & CELL_EV_SHUTDOWN) {
        hypercall(CELL_HC_HALT, 0, 0, 0);
    }
}

void
guest_yield(void)
{
    react(hypercall(CELL_HC_YIELD, 0, 0, 0));
}

void
cell_main(void)
{
    uint64_t idle_since = 0;

    lwip_init();
    net_init();
    echo_init();
    http_init();
    dirty_fill(guest_number(cell_info.cmdline, "fill", 0));
    dirty_set(guest_number(cell_info.cmdline, "rate", 0),
              guest_number(cell_info.cmdline, "set", 0));
    guest_log("up, %llu MiB", (unsigned long long)cell_info.memory_bytes >> 20);
    for (;;) {
        uint64_t now = guest_clock();
        if (turn(now)) {
            idle_since = 0;
            guest_yield();
            continue;
        }
        idle_since = idle_since ? idle_since : now;
        if (now - idle_since < LINGER_NS) {
            guest_yield();
            continue;
        }
        if (!net_arm()) {
            react(hypercall(CELL_HC_WAIT, next_deadline(now), 0, 0));
        }
        idle_since = 0;
    }
}
