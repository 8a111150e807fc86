/* Says which instructions the CPU lacks, before one of them kills us.
 *
 * Compiled for plain x86-64 (see the Makefile) and run ahead of every
 * constructor, those of shared libraries included: ours is compiled for
 * x86-64-v3, and the distribution's DPDK wants SSE4.2. */
#include <cpuid.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define OSXSAVE (1u << 27)

/* AVX state must also be enabled by the operating system (XCR0). */
static int
os_saves_avx(void)
{
    unsigned a, b, c, d;
    uint32_t lo, hi;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE)) {
        return 0;
    }
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (lo & 6) == 6;
}

static int
has_lzcnt(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & (1u << 5));
}

static int
has_bit(unsigned leaf, int reg, unsigned bit)
{
    unsigned r[4] = {0, 0, 0, 0};

    return __get_cpuid_count(leaf, 0, &r[0], &r[1], &r[2], &r[3]) && (r[reg] & (1u << bit));
}

static void
cpu_check(void)
{
    static const struct {
        const char *name;
        unsigned leaf;
        int reg; /* eax, ebx, ecx, edx */
        unsigned bit;
    } wanted[] = {
        {"sse4.2", 1, 2, 20}, {"popcnt", 1, 2, 23}, {"fma", 1, 2, 12},
        {"movbe", 1, 2, 22},  {"f16c", 1, 2, 29},   {"avx", 1, 2, 28},
        {"avx2", 7, 1, 5},    {"bmi1", 7, 1, 3},    {"bmi2", 7, 1, 8},
    };
    char msg[256] = "this program needs a CPU with x86-64-v3; missing:";
    size_t len = strlen(msg);
    int missing = 0;

    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (!has_bit(wanted[i].leaf, wanted[i].reg, wanted[i].bit)) {
            size_t n = strlen(wanted[i].name);
            msg[len++] = ' ';
            memcpy(msg + len, wanted[i].name, n);
            len += n;
            missing = 1;
        }
    }
    if (!has_lzcnt()) {
        memcpy(msg + len, " lzcnt", 6);
        len += 6;
        missing = 1;
    }
    if (!os_saves_avx()) {
        memcpy(msg + len, " xsave-avx", 10);
        len += 10;
        missing = 1;
    }
    if (missing) {
        msg[len++] = '\n';
        (void)!write(STDERR_FILENO, msg, len);
        _exit(1);
    }
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = cpu_check;
