/* "weft audit FILE...": is the audit log as the controller wrote it?
 *
 * Each line ends with the SHA-256 of the chain before it and itself
 * (controller/rest_audit.h).  Files are given oldest first. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_cmd.h"
#include "cli_opt.h"
#include "pki.h"
#include "pki_cmd.h"

#define HEX 64

/* The chain that the line states; 'line' becomes what it was made from.  False:
 * not in form. */
static bool
split(char *line, char said[HEX + 1])
{
    static const char mark[] = ", \"chain\": \"";
    char *at = NULL;

    for (char *p = line; (p = strstr(p, mark)); p++) {
        at = p; /* the last one: the text before may hold the words, too */
    }
    if (!at || strlen(at) != sizeof mark - 1 + HEX + strlen("\"}\n")) {
        return false;
    }
    memcpy(said, at + sizeof mark - 1, HEX);
    said[HEX] = '\0';
    strcpy(at, "}");
    return true;
}

/* Lines that are right, added to '*n'; false: said which is not. */
static bool
check_file(const char *file, char chain[HEX + 1], bool *begun, unsigned long *n)
{
    FILE *f = fopen(file, "re");
    char *line = NULL, said[HEX + 1], is[HEX + 1];
    unsigned long number = 0;
    size_t size = 0;
    bool ok = true;

    if (!f) {
        fprintf(stderr, "weft audit: %s: %s\n", file, strerror(errno));
        return false;
    }
    while (ok && getline(&line, &size, f) > 0) {
        number++;
        ok = split(line, said);
        if (ok && !*begun) {
            /* Older files may be gone: the first line is taken at its word
             * unless it says that it is the first of all. */
            *begun = true;
            ok = pki_sha256(chain, HEX, line, strlen(line), is);
            if (ok && strcmp(is, said) != 0) {
                printf("%s begins with a line that continues an older file\n", file);
                memcpy(is, said, sizeof is);
            }
        } else if (ok) {
            ok = pki_sha256(chain, HEX, line, strlen(line), is) && !strcmp(is, said);
        }
        memcpy(chain, is, sizeof is);
        *n += ok;
    }
    if (!ok) {
        fprintf(stderr, "weft audit: %s: line %lu is not what was written there\n", file, number);
    }
    free(line);
    fclose(f);
    return ok;
}

int
audit_main(int argc, char **argv)
{
    char why[200], chain[HEX + 1];
    unsigned long n = 0;
    bool ok = true, begun = false;
    int error = cli_parse(NULL, 0, &argc, &argv, why, sizeof why);

    if (error == ECANCELED) {
        printf("Usage: weft audit FILE...\n\nFiles of the controller's audit log, oldest first: "
               "was a line changed, put in or taken out?\n\nExamples:\n"
               "  weft audit weft-audit.log.1 weft-audit.log\n");
        return CLI_OK;
    }
    if (error || argc < 1) {
        return cli_usage_error("weft audit", error ? why : "which file?");
    }
    memset(chain, '0', HEX);
    chain[HEX] = '\0';
    for (int i = 0; ok && i < argc; i++) {
        ok = check_file(argv[i], chain, &begun, &n);
    }
    if (ok) {
        printf("%lu lines, none changed\n", n);
    }
    return ok ? CLI_OK : CLI_FAILED;
}
