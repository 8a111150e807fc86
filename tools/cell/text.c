/* text: memory, strings and numbers; see guest.h.  The memory functions are also
 * what the compiler calls. */
#include <stdarg.h>

#include "guest.h"

void *
memcpy(void *to, const void *from, size_t n)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
    return to;
}

void *
memmove(void *to, const void *from, size_t n)
{
    uint8_t *d = to;
    const uint8_t *s = from;

    if (d <= s || d >= s + n) {
        return memcpy(to, from, n);
    }
    while (n--) {
        ((volatile uint8_t *)d)[n] = s[n];
    }
    return to;
}

void *
memset(void *to, int value, size_t n)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(value) : "memory");
    return to;
}

int
memcmp(const void *a, const void *b, size_t n)
{
    const volatile uint8_t *x = a, *y = b;

    for (size_t i = 0; i < n; i++) {
        if (x[i] != y[i]) {
            return x[i] < y[i] ? -1 : 1;
        }
    }
    return 0;
}

size_t
strlen(const char *s)
{
    const volatile char *at = s;
    size_t n = 0;

    while (at[n]) {
        n++;
    }
    return n;
}

int
strncmp(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (a[i] != b[i] || !a[i]) {
            return (uint8_t)a[i] - (uint8_t)b[i];
        }
    }
    return 0;
}

int
strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX);
}

/* --- formatting ------------------------------------------------------------- */

struct out {
    char *buf;
    size_t size, n;
};

static void
put(struct out *o, char c)
{
    if (o->n + 1 < o->size) {
        o->buf[o->n++] = c;
    }
}

static void
put_number(struct out *o, uint64_t n, unsigned base)
{
    char digits[20];
    unsigned len = 0;

    do {
        digits[len++] = "0123456789abcdef"[n % base];
        n /= base;
    } while (n);
    while (len) {
        put(o, digits[--len]);
    }
}

size_t
guest_vformat(char *buf, size_t size, const char *format, va_list args)
{
    struct out o = {.buf = buf, .size = size};

    for (const char *f = format; *f; f++) {
        if (*f != '%') {
            put(&o, *f);
            continue;
        }
        bool wide = f[1] == 'l' && f[2] == 'l';
        f += wide ? 3 : 1;
        switch (*f) {
        case 's':
            for (const char *s = va_arg(args, const char *); *s; s++) {
                put(&o, *s);
            }
            break;
        case 'd': {
            int n = va_arg(args, int);
            if (n < 0) {
                put(&o, '-');
            }
            put_number(&o, n < 0 ? -(uint64_t)n : (uint64_t)n, 10);
            break;
        }
        case 'u':
        case 'x':
            put_number(&o, wide ? va_arg(args, unsigned long long) : va_arg(args, unsigned),
                       *f == 'x' ? 16 : 10);
            break;
        case 'c':
            put(&o, (char)va_arg(args, int));
            break;
        default:
            put(&o, *f);
        }
    }
    if (size) {
        buf[o.n] = '\0';
    }
    return o.n;
}

size_t
guest_format(char *buf, size_t size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    size_t n = guest_vformat(buf, size, format, args);
    va_end(args);
    return n;
}

uint64_t
guest_number(const char *text, const char *key, uint64_t fallback)
{
    size_t len = strlen(key);

    for (const char *at = text; *at; at++) {
        bool starts = at == text || at[-1] == '&' || at[-1] == ' ' || at[-1] == '?';
        if (!starts || strncmp(at, key, len) || at[len] != '=') {
            continue;
        }
        const char *digit = at + len + 1;
        uint64_t n = 0;
        if (*digit < '0' || *digit > '9') {
            return fallback;
        }
        for (; *digit >= '0' && *digit <= '9' && n < UINT64_MAX / 100; digit++) {
            n = n * 10 + (uint64_t)(*digit - '0');
        }
        return n;
    }
    return fallback;
}

uint32_t
guest_random(void)
{
    static uint64_t state;

    if (!state) {
        state = __builtin_ia32_rdtsc() | 1;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}
