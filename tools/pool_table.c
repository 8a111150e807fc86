#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool_cmd.h"

#define WIDTH_MAX 40

/* A value as text: sets with commas.  malloc'ed; control characters (of either
 * kind, C1 is two bytes in UTF-8) become '?'. */
static char *
text_of(const json_t *v)
{
    char *text = NULL;
    size_t n = 0, i;
    FILE *f = open_memstream(&text, &n);
    json_t *member;

    if (!f) {
        abort();
    }
    if (json_is_integer(v)) {
        fprintf(f, "%lld", (long long)json_integer_value(v));
    } else if (json_is_boolean(v)) {
        fputs(json_is_true(v) ? "yes" : "no", f);
    } else if (json_is_string(v)) {
        fputs(json_string_value(v), f);
    }
    json_array_foreach(v, i, member)
    {
        fprintf(f, "%s%s", i ? "," : "", json_is_string(member) ? json_string_value(member) : "?");
    }
    fclose(f);
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        if (*p < ' ' || *p == 0x7f) {
            *p = '?';
        } else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) {
            p[0] = p[1] = '?';
        }
    }
    return text;
}

void
pool_print_text(const char *s)
{
    json_t *json = json_string(s);
    char *text = text_of(json);

    fputs(text, stdout);
    free(text);
    json_decref(json);
}

/* Characters, not bytes. */
static size_t
width_of(const char *s)
{
    size_t n = 0;

    for (; *s; s++) {
        n += (*s & 0xc0) != 0x80;
    }
    return n;
}

static void
print_cell(const char *s, size_t width, bool last)
{
    size_t n = width_of(s);

    if (n <= width) {
        printf("%s%*s", s, last ? 0 : (int)(width - n + 2), "");
        return;
    }
    for (n = 0; *s && (n < width - 3 || (*s & 0xc0) == 0x80); s++) {
        n += (*s & 0xc0) != 0x80;
        putchar(*s);
    }
    printf("...%s", last ? "" : "  ");
}

struct column {
    const char *name;
    size_t width;
};

static size_t
choose_columns(const struct pool_class *class, const json_t *objects, struct column *columns)
{
    size_t n = 0, i;
    json_t *o;

    for (size_t f = 0; f <= class->n_fields; f++) {
        const char *name = f ? class->fields[f - 1].name : "name";
        struct column c = {name, 0};
        if (f && (!(class->fields[f - 1].flags & POOL_COLUMN))) {
            continue;
        }
        json_array_foreach(objects, i, o)
        {
            char *text = text_of(json_object_get(o, name));
            size_t width = width_of(text);
            c.width = width > c.width ? width : c.width;
            free(text);
        }
        if (!f || c.width) {
            size_t head = strlen(name);
            c.width = c.width < head ? head : c.width > WIDTH_MAX ? WIDTH_MAX : c.width;
            columns[n++] = c;
        }
    }
    return n;
}

void
pool_print_table(const struct pool_class *class, const json_t *objects)
{
    struct column columns[32];
    size_t n = choose_columns(class, objects, columns), i;
    json_t *o;

    for (size_t c = 0; c < n; c++) {
        char head[40];
        snprintf(head, sizeof head, "%s", columns[c].name);
        for (char *p = head; *p; p++) {
            *p = *p >= 'a' && *p <= 'z' ? *p - 32 : *p == '_' ? ' ' : *p;
        }
        print_cell(head, columns[c].width, c + 1 == n);
    }
    putchar('\n');
    json_array_foreach(objects, i, o)
    {
        for (size_t c = 0; c < n; c++) {
            char *text = text_of(json_object_get(o, columns[c].name));
            /* The last may be long: it is what is wrong, if anything is. */
            print_cell(text, c + 1 == n ? 1000 : columns[c].width, c + 1 == n);
            free(text);
        }
        putchar('\n');
    }
}

void
pool_print_object(const struct pool_class *class, const json_t *object)
{
    const char *const first[] = {"name", "uuid", "key"};

    for (size_t f = 0; f < class->n_fields + 3; f++) {
        const char *name = f < 3 ? first[f] : class->fields[f - 3].name;
        const json_t *v = json_object_get(object, name);
        char *text = text_of(v);
        if (*text) {
            printf("%-22s %s\n", name, text);
        }
        free(text);
    }
}

size_t
pool_print_report(const json_t *report, const char *key, const char *label)
{
    json_t *list = json_object_get(report, key), *e;
    size_t i;

    json_array_foreach(list, i, e)
    {
        const char *const keys[] = {"object", "field", "message"};
        printf("%s", label);
        for (int k = 0; k < 3; k++) {
            const char *s = json_string_value(json_object_get(e, keys[k]));
            if (s && *s) {
                printf(": ");
                pool_print_text(s);
            }
        }
        putchar('\n');
    }
    return json_array_size(list);
}
