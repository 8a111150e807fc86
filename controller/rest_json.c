#include "rest_json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Length of the well-formed UTF-8 character at 's' (RFC 3629), 0 if it is none. */
static size_t
utf8_length(const unsigned char *s, size_t n)
{
    static const struct {
        unsigned char from, to, second_from, second_to, length;
    } forms[] = {
        {0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        size_t length = forms[i].length;
        if (s[0] < forms[i].from || s[0] > forms[i].to) {
            continue;
        }
        if (length > n ||
            (length > 1 && (s[1] < forms[i].second_from || s[1] > forms[i].second_to))) {
            return 0;
        }
        for (size_t j = 2; j < length; j++) {
            if ((s[j] & 0xc0) != 0x80) {
                return 0;
            }
        }
        return length;
    }
    return 0;
}

static bool
look_over(const unsigned char *s, size_t n, char *why, size_t why_size)
{
    size_t max = n / 10 > REST_JSON_VALUES ? n / 10 : REST_JSON_VALUES;
    bool in_string = false;
    unsigned depth = 0;
    size_t values = 0, length;

    for (size_t i = 0; i < n; i += length) {
        length = utf8_length(s + i, n - i);
        if (!length) {
            snprintf(why, why_size, "byte %zu is not UTF-8", i);
            return false;
        }
        if (in_string) {
            if (s[i] == '\\' && i + 1 < n && s[i + 1] < 0x80) {
                length++;
            }
            in_string = s[i] != '"';
            continue;
        }
        in_string = s[i] == '"';
        if (s[i] == '{' || s[i] == '[') {
            depth++;
        } else if ((s[i] == '}' || s[i] == ']') && depth) {
            depth--;
        }
        values += s[i] == ',' || s[i] == '{' || s[i] == '[';
        if (depth > REST_JSON_DEPTH || values > max) {
            snprintf(why, why_size, "at byte %zu: more than %zu %s", i,
                     depth > REST_JSON_DEPTH ? REST_JSON_DEPTH : max,
                     depth > REST_JSON_DEPTH ? "levels" : "values");
            return false;
        }
    }
    return true;
}

json_t *
rest_json_parse(const char *text, size_t n, char *why, size_t why_size)
{
    json_error_t error;
    json_t *json;

    if (!look_over((const unsigned char *)text, n, why, why_size)) {
        return NULL;
    }
    json = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (!json) {
        snprintf(why, why_size, "line %d, column %d: %s", error.line, error.column, error.text);
    } else if (!json_is_object(json)) {
        snprintf(why, why_size, "a JSON object is expected");
        json_decref(json);
        json = NULL;
    }
    return json;
}
