#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "flow_cmd.h"

/* Names and reasons are others': no escape sequences of theirs reach a terminal. */
void
flow_put_text(FILE *f, const char *s)
{
    for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
        if (*p < ' ' || *p == 0x7f) {
            fputc('?', f);
        } else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) { /* C1 in UTF-8 */
            fputc('?', f);
            p++;
        } else {
            fputc(*p, f);
        }
    }
}

const char *
flow_human(double v, const char *unit, char text[24])
{
    static const char *const prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
    size_t i = 0;

    while (v >= 1000 && i < 6) {
        v /= 1000;
        i++;
    }
    snprintf(text, 24, i && v < 100 ? "%.1f%s%s%s" : "%.0f%s%s%s", v, *unit || i ? " " : "",
             prefixes[i], unit);
    return text;
}

static void
put_cell(FILE *f, const struct flow_field *field, const json_t *row)
{
    const json_t *v = json_object_get(row, field->key);
    char text[40];

    if (json_is_string(v)) {
        flow_put_text(f, json_string_value(v));
    } else if (json_is_number(v) && field->form == FLOW_TIME) {
        time_t t = (time_t)(json_integer_value(v) / 1000);
        struct tm tm;
        strftime(text, sizeof text, "%m-%d %H:%M:%S", gmtime_r(&t, &tm));
        fprintf(f, "%s.%03d", text, (int)(json_integer_value(v) % 1000));
    } else if (json_is_number(v) && field->form == FLOW_BYTES) {
        fputs(flow_human(json_number_value(v), "B", text), f);
    } else if (json_is_number(v) && field->form == FLOW_COUNT) {
        fputs(flow_human(json_number_value(v), "", text), f);
    } else if (json_is_integer(v)) {
        fprintf(f, "%lld", (long long)json_integer_value(v));
    }
}

static size_t
width_of(const char *s)
{
    size_t n = 0;

    for (; *s; s++) {
        n += (*s & 0xc0) != 0x80;
    }
    return n;
}

static char *
cell(const struct flow_field *field, const json_t *row)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    if (!f) {
        abort();
    }
    put_cell(f, field, row);
    fclose(f);
    return text;
}

static char *
heading(const char *title)
{
    char *text = strdup(title);

    if (!text) {
        abort();
    }
    for (char *p = text; *p; p++) {
        *p = *p == '_' ? ' ' : (char)toupper((unsigned char)*p);
    }
    return text;
}

void
flow_print_table(const struct flow_field *fields, size_t n, const json_t *rows)
{
    size_t width[FLOW_FIELDS_MAX], i;
    bool used[FLOW_FIELDS_MAX];
    json_t *row;

    for (size_t c = 0; c < n; c++) { /* columns in which nothing stands are left out */
        width[c] = strlen(fields[c].title);
        used[c] = false;
        json_array_foreach(rows, i, row)
        {
            char *text = cell(&fields[c], row);
            size_t w = width_of(text);
            used[c] |= w > 0;
            width[c] = w > width[c] ? w : width[c];
            free(text);
        }
    }
    for (i = 0; i <= json_array_size(rows); i++) {
        const char *gap = "";
        for (size_t c = 0; c < n; c++) {
            char *text =
                i ? cell(&fields[c], json_array_get(rows, i - 1)) : heading(fields[c].title);
            int pad = (int)(width[c] - width_of(text));
            bool right = fields[c].form == FLOW_BYTES || fields[c].form == FLOW_COUNT ||
                         fields[c].form == FLOW_INT;
            if (used[c]) {
                printf("%s%*s%s%*s", gap, right ? pad : 0, "", text, right || c + 1 == n ? 0 : pad,
                       "");
                gap = "  ";
            }
            free(text);
        }
        putchar('\n');
    }
}

static void
put_csv(const json_t *v)
{
    const char *s = json_string_value(v);

    if (!s) {
        if (json_is_integer(v)) {
            printf("%lld", (long long)json_integer_value(v));
        }
        return;
    }
    bool quote = strpbrk(s, ",\"\r\n") != NULL;
    if (quote) {
        putchar('"');
    }
    for (; *s; s++) {
        if (*s == '"') {
            putchar('"');
        }
        putchar(*s);
    }
    if (quote) {
        putchar('"');
    }
}

void
flow_print_csv_header(const char *const *keys, size_t n)
{
    for (size_t c = 0; c < n; c++) {
        printf("%s%s", c ? "," : "", keys[c]);
    }
    printf("\r\n");
}

void
flow_print_csv(const char *const *keys, size_t n, const json_t *row)
{
    for (size_t c = 0; c < n; c++) {
        if (c) {
            putchar(',');
        }
        put_csv(json_object_get(row, keys[c]));
    }
    printf("\r\n");
}

void
flow_print_csv_rows(const char *const *keys, size_t n, const json_t *rows)
{
    json_t *row;
    size_t i;

    flow_print_csv_header(keys, n);
    json_array_foreach(rows, i, row)
    {
        flow_print_csv(keys, n, row);
    }
}
