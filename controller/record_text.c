/* Text forms of addresses, ports and protocols. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "record.h"

/* Digits only, at most 'max'; -1 if it is anything else. */
static long
parse_number(const char *s, size_t len, long max)
{
    long n = 0;

    if (!len || len > 9 || (len > 1 && s[0] == '0')) {
        return -1;
    }
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return -1;
        }
        n = n * 10 + (s[i] - '0');
    }
    return n <= max ? n : -1;
}

static bool
host_bits_clear(const uint8_t addr[16], unsigned plen)
{
    for (unsigned bit = plen; bit < 128; bit++) {
        if (addr[bit / 8] & (0x80 >> bit % 8)) {
            return false;
        }
    }
    return true;
}

bool
rec_parse_prefix(const char *s, uint8_t addr[16], uint8_t *plen)
{
    const char *slash = strchr(s, '/');
    size_t len = slash ? (size_t)(slash - s) : strlen(s);
    unsigned base = 96, width = 32;
    char text[INET6_ADDRSTRLEN];
    long n;

    if (len >= sizeof text) {
        return false;
    }
    memcpy(text, s, len);
    text[len] = '\0';
    memset(addr, 0, 16);
    addr[10] = addr[11] = 0xff;
    if (inet_pton(AF_INET, text, addr + 12) != 1) {
        if (inet_pton(AF_INET6, text, addr) != 1 ||
            !memcmp(addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12)) {
            return false;
        }
        base = 0;
        width = 128;
    }
    n = slash ? parse_number(slash + 1, strlen(slash + 1), width) : (long)width;
    if (n < 0) {
        return false;
    }
    *plen = base + n;
    return host_bits_clear(addr, *plen);
}

bool
rec_parse_ports(const char *s, uint16_t *first, uint16_t *last)
{
    const char *dash = strchr(s, '-');
    long a = parse_number(s, dash ? (size_t)(dash - s) : strlen(s), 65535);
    long b = dash ? parse_number(dash + 1, strlen(dash + 1), 65535) : a;

    if (a < 1 || b < a) {
        return false;
    }
    *first = a;
    *last = b;
    return true;
}

int
rec_parse_protocol(const char *s)
{
    static const struct {
        const char *name;
        int number;
    } names[] = {{"any", -1}, {"icmp", 1}, {"tcp", 6}, {"udp", 17}, {"icmpv6", 58}, {"sctp", 132}};
    long n;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!strcmp(s, names[i].name)) {
            return names[i].number;
        }
    }
    n = parse_number(s, strlen(s), 255);
    return n < 0 ? -2 : (int)n;
}

bool
rec_is_uuid(const char *s)
{
    if (strlen(s) != 36) {
        return false;
    }
    for (unsigned i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? s[i] != '-' : !isxdigit((unsigned char)s[i])) {
            return false;
        }
    }
    return true;
}
