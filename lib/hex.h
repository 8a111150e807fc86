/* hex: bytes written as pairs of hexadecimal digits, read strictly, and written.
 *
 * sscanf("%2x") also takes signs, white space and "0x"; text that a stranger
 * wrote is read with this instead. */
#ifndef HEX_H
#define HEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline int
hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Reads 'n' bytes of two digits each from the start of 'text' to 'to', with
 * 'separator' between them (0: none).  Returns what is behind them, or NULL if
 * 'text' does not begin so ('to' is then partly written). */
static inline const char *
hex_read(const char *text, uint8_t *to, size_t n, char separator)
{
    for (size_t i = 0; i < n; i++) {
        int high, low;

        if (i && separator && *text++ != separator) {
            return NULL;
        }
        if ((high = hex_digit(text[0])) < 0 || (low = hex_digit(text[1])) < 0) {
            return NULL;
        }
        to[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    return text;
}

/* Whether the whole of 'text' is 'n' bytes. */
static inline bool
hex_bytes(const char *text, uint8_t *to, size_t n)
{
    const char *end = hex_read(text, to, n, 0);
    return end && !*end;
}

/* Whether the whole of 'text' is a MAC address, "02:00:00:00:00:01". */
static inline bool
hex_mac(const char *text, uint8_t mac[6])
{
    const char *end = hex_read(text, mac, 6, ':');
    return end && !*end;
}

/* The 'n' last digits of 'v'; returns what is behind them. */
static inline char *
hex_put(char *text, uint32_t v, unsigned n)
{
    for (unsigned i = n; i-- > 0; v >>= 4) {
        text[i] = "0123456789abcdef"[v & 15];
    }
    return text + n;
}

/* The uuid of these four parts, the most significant first, as text. */
static inline void
hex_put_uuid(char text[37], const uint32_t parts[4])
{
    static const uint8_t n_digits[] = {8, 4, 4, 4, 4, 8};
    const uint32_t v[] = {parts[0], parts[1] >> 16, parts[1], parts[2] >> 16, parts[2], parts[3]};

    for (unsigned i = 0; i < 6; i++) {
        if (i && i < 5) {
            *text++ = '-';
        }
        text = hex_put(text, v[i], n_digits[i]);
    }
    *text = '\0';
}

/* The 48 bits of a MAC address as a number. */
static inline uint64_t
hex_mac_number(const uint8_t mac[6])
{
    uint64_t v = 0;

    for (int i = 0; i < 6; i++) {
        v = v << 8 | mac[i];
    }
    return v;
}

#endif
