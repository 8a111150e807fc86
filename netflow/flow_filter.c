/* Theory of operation.
 *
 * Recursive descent; depth and number of nodes are bounded, so that neither
 * stack nor memory depend on the text.
 *
 *     expression = conjunction { "or" conjunction }
 *     conjunction = factor { "and" factor }
 *     factor = "not" factor | "(" expression ")" | test
 *     test = [ "src" | "dst" ] ( address | "port" number | "vif" name | ... )
 *
 * A test's word stands in one of the tables below. */
#include "flow_filter.h"
#include "hex.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct token {
    size_t at, length;
    char text[FLOW_FILTER_NAME]; /* empty at the end */
    bool quoted;
};

struct parser {
    const char *text;
    size_t next; /* behind 'token' */
    struct token token;
    unsigned depth;
    bool failed;
    struct flow_filter *f;
    struct flow_filter_error *error;
};

enum side { EITHER, SOURCE, DESTINATION };

/* --- tokens -------------------------------------------------------------------- */

static unsigned __attribute__((format(printf, 3, 4)))
fail(struct parser *p, size_t at, const char *format, ...)
{
    va_list args;

    if (!p->failed) {
        p->failed = true;
        p->error->column = at;
        va_start(args, format);
        vsnprintf(p->error->message, sizeof p->error->message, format, args);
        va_end(args);
    }
    return 0;
}

static bool
word_char(char c)
{
    return c && !isspace((unsigned char)c) && !strchr("()<>=!\"", c);
}

static void
advance(struct parser *p)
{
    struct token *t = &p->token;
    const char *s;
    size_t skip = 0;

    while (isspace((unsigned char)p->text[p->next])) {
        p->next++;
    }
    *t = (struct token){.at = p->next};
    s = p->text + p->next;
    if (*s == '"') {
        t->quoted = true;
        skip = 1;
        t->length = strcspn(s + 1, "\"");
        if (!s[1 + t->length]) {
            fail(p, t->at, "the quotation mark is not closed");
            t->length = 0;
        }
    } else if (word_char(*s)) {
        while (word_char(s[t->length])) {
            t->length++;
        }
    } else if (*s) {
        t->length = (*s == '<' || *s == '>' || *s == '!') && s[1] == '=' ? 2 : 1;
    }
    if (t->length >= sizeof t->text) {
        fail(p, t->at, "longer than %zu bytes", sizeof t->text - 1);
        t->length = 0;
    }
    memcpy(t->text, s + skip, t->length);
    p->next += t->length + (t->quoted ? 2 : 0);
    if (p->failed) {
        p->next = t->at + strlen(p->text + t->at);
    }
}

static bool
is(const struct parser *p, const char *word)
{
    return !p->token.quoted && !strcasecmp(p->token.text, word);
}

static bool
take(struct parser *p, const char *word)
{
    if (!is(p, word)) {
        return false;
    }
    advance(p);
    return true;
}

/* "WANTED is expected here, not ..." */
static unsigned
expected(struct parser *p, const char *wanted)
{
    const struct token *t = &p->token;

    if (!t->length && !t->quoted) {
        return fail(p, t->at, "%s is expected here", wanted);
    }
    return fail(p, t->at, "%s is expected here, not \"%.40s\"", wanted, t->text);
}

/* --- nodes ----------------------------------------------------------------------- */

static unsigned
add(struct parser *p, struct flow_node node)
{
    if (p->f->n == FLOW_FILTER_NODES) {
        return fail(p, p->token.at, "too many tests: at most about %d", FLOW_FILTER_NODES / 2);
    }
    p->f->nodes[p->f->n] = node;
    return p->f->n++;
}

static unsigned
join(struct parser *p, enum flow_op op, unsigned left, unsigned right)
{
    return add(p, (struct flow_node){.op = op, .left = left, .right = right});
}

/* The test 'node' of 'source', 'destination' or either. */
static unsigned
of_side(struct parser *p, enum side side, struct flow_node node, const char *source,
        const char *destination)
{
    unsigned left = 0, right = 0;

    if (side != DESTINATION) {
        node.column = flow_column_find(source);
        left = add(p, node);
    }
    if (side != SOURCE) {
        node.column = flow_column_find(destination);
        right = add(p, node);
    }
    return side == SOURCE ? left : side == DESTINATION ? right : join(p, FLOW_OP_OR, left, right);
}

static unsigned
of_column(struct parser *p, struct flow_node node, const char *column)
{
    node.column = flow_column_find(column);
    return add(p, node);
}

/* --- values ------------------------------------------------------------------------ */

/* A number at '*s' with a unit: k, M, G, T (of 1000), Ki, Mi ... */
static bool
number(const char **s, bool units, uint64_t *v)
{
    static const char letters[] = "kmgt";
    char *end;

    if (!isdigit((unsigned char)**s)) {
        return false;
    }
    errno = 0;
    *v = strtoull(*s, &end, **s == '0' && (*s)[1] == 'x' ? 16 : 10);
    const char *letter = units && *end ? strchr(letters, tolower((unsigned char)*end)) : NULL;
    if (letter) {
        uint64_t base = end[1] == 'i' ? 1024 : 1000;
        for (const char *l = letters; l <= letter; l++) {
            errno = *v > INT64_MAX / base ? ERANGE : errno;
            *v *= base;
        }
        end += base == 1024 ? 2 : 1;
    }
    *s = end;
    return !errno && *v <= INT64_MAX;
}

/* "N" or "N-M", up to 'max'. */
static bool
range(struct parser *p, uint64_t max, struct flow_node *node)
{
    const char *s = p->token.text;
    uint64_t low, high;

    if (!number(&s, false, &low)) {
        expected(p, "a number or a range such as 1000-1999");
        return false;
    }
    high = low;
    if (*s == '-') {
        s++;
        if (!number(&s, false, &high)) {
            expected(p, "a range such as 1000-1999");
            return false;
        }
    }
    if (*s || low > high || high > max) {
        fail(p, p->token.at, "must be a number up to %llu, or a range of them",
             (unsigned long long)max);
        return false;
    }
    node->op = FLOW_OP_RANGE;
    node->low.number = (int64_t)low;
    node->high.number = (int64_t)high;
    advance(p);
    return true;
}

/* Whether 'text' is "ADDRESS" or "ADDRESS/LENGTH"; the range of it. */
static bool
prefix(const char *text, struct in6_addr *low, struct in6_addr *high)
{
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    struct in_addr v4;
    unsigned long length, max = 128;
    char *end;

    if (n >= sizeof address) {
        return false;
    }
    memcpy(address, text, n);
    address[n] = '\0';
    if (inet_pton(AF_INET, address, &v4) == 1) {
        memset(low, 0, sizeof *low);
        low->s6_addr[10] = low->s6_addr[11] = 0xff;
        memcpy(&low->s6_addr[12], &v4, 4);
        max = 32;
    } else if (inet_pton(AF_INET6, address, low) != 1) {
        return false;
    }
    length = slash ? strtoul(slash + 1, &end, 10) : max;
    if (slash && (!isdigit((unsigned char)slash[1]) || *end || length > max)) {
        return false;
    }
    *high = *low;
    for (unsigned bit = 128 - max + length; bit < 128; bit++) {
        uint8_t mask = 0x80 >> bit % 8;
        low->s6_addr[bit / 8] &= ~mask;
        high->s6_addr[bit / 8] |= mask;
    }
    return true;
}

/* "syn,ack" or a number. */
static bool
tcp_flags(const char *text, int64_t *v)
{
    static const char *const names[] = {"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"};
    const char *s = text;
    uint64_t n;

    if (number(&s, false, &n) && !*s) {
        *v = (int64_t)n;
        return n <= 0xfff;
    }
    for (*v = 0; *text;) {
        size_t length = strcspn(text, ","), i = 0;
        while (i < 8 && (strlen(names[i]) != length || strncasecmp(names[i], text, length))) {
            i++;
        }
        if (i == 8) {
            return false;
        }
        *v |= 1 << i;
        text += length + (text[length] == ',');
    }
    return *v != 0;
}

/* --- tests -------------------------------------------------------------------------- */

static const struct {
    const char *word, *source, *destination; /* destination NULL: no side */
    uint64_t max;
} ranges[] = {
    {"port", "sport", "dport", 65535},
    {"service", "service", NULL, 65535},
    {"vlan", "vlan", NULL, 4095},
    {"customer-vlan", "customer_vlan", NULL, 4095},
    {"tunnel", "tunnel_key", NULL, UINT32_MAX},
    {"interface", "in_if", "out_if", UINT32_MAX},
    {"domain", "domain", NULL, UINT32_MAX},
    {"ethertype", "eth_type", NULL, 65535},
    {"tos", "tos", NULL, 255},
    {"ttl", "min_ttl", NULL, 255},
};

static const struct {
    const char *word, *source, *destination, *third;
} names[] = {
    {"vif", "src_vif", "dst_vif", NULL},
    {"vm", "src_vm", "dst_vm", NULL},
    {"tenant", "src_tenant", "dst_tenant", NULL},
    {"group", "src_groups", "dst_groups", NULL},
    {"network", "src_network", "dst_network", "network"},
    {"rule", "rule_out", "rule_in", NULL},
    {"host", "host", NULL, NULL},
};

static const struct {
    const char *word, *column;
    int64_t low, high;
} words[] = {
    {"dropped", "dropped", 1, 1},      {"forwarded", "dropped", 0, 0},
    {"fragment", "fragments", 1, 255}, {"ingress", "direction", 0, 0},
    {"egress", "direction", 1, 1},     {"again", "again", 1, 1},
};

static unsigned
compare(struct parser *p, const char *column)
{
    struct flow_node node = {.op = FLOW_OP_RANGE, .high.number = INT64_MAX};
    char op[3] = "";
    uint64_t v;
    const char *s;

    if (p->token.quoted || !*p->token.text || !strchr("<>=", *p->token.text)) {
        return expected(p, "one of < <= = >= >");
    }
    memcpy(op, p->token.text, 2);
    advance(p);
    s = p->token.text;
    if (!number(&s, true, &v) || *s) {
        return expected(p, "a number such as 1500, 10k or 1M");
    }
    if (*op == '=') {
        node.low.number = node.high.number = (int64_t)v;
    } else if (*op == '<') {
        node.high.number = (int64_t)v - !op[1]; /* of < 0: an empty range */
    } else {
        node.low.number = (int64_t)v + (!op[1] && v < INT64_MAX);
    }
    advance(p);
    return of_column(p, node, column);
}

static unsigned
address_test(struct parser *p, enum side side, const char *column)
{
    struct flow_node node = {.op = FLOW_OP_RANGE};

    if (!prefix(p->token.text, &node.low.address, &node.high.address)) {
        return expected(p, "an address or a prefix such as 10.1.0.0/16");
    }
    advance(p);
    return column ? of_column(p, node, column) : of_side(p, side, node, "src", "dst");
}

static unsigned
name_test(struct parser *p, enum side side, size_t i)
{
    struct flow_node node = {.op = FLOW_OP_NAME};
    char wanted[60];
    unsigned test;

    if (!*p->token.text || (!p->token.quoted && !word_char(*p->token.text))) {
        snprintf(wanted, sizeof wanted, "the name of a %s", names[i].word);
        return expected(p, wanted);
    }
    strcpy(node.text, p->token.text);
    node.at = p->token.at;
    advance(p);
    if (!names[i].destination) {
        return of_column(p, node, names[i].source);
    }
    test = of_side(p, side, node, names[i].source, names[i].destination);
    if (side == EITHER && names[i].third) {
        test = join(p, FLOW_OP_OR, test, of_column(p, node, names[i].third));
    }
    return test;
}

static unsigned
proto_test(struct parser *p)
{
    struct flow_node node = {.op = FLOW_OP_RANGE};
    int known = flow_proto_number(p->token.text);

    if (known >= 0) {
        node.low.number = node.high.number = known;
        advance(p);
    } else if (!isdigit((unsigned char)*p->token.text)) {
        return expected(p, "a protocol: tcp, udp, icmp, icmpv6, sctp ... or a number");
    } else if (!range(p, 255, &node)) {
        return 0;
    }
    return of_column(p, node, "proto");
}

static unsigned
mac_test(struct parser *p, enum side side)
{
    struct flow_node node = {.op = FLOW_OP_RANGE};
    uint8_t mac[6];

    if (!hex_mac(p->token.text, mac)) {
        return expected(p, "a MAC address such as 02:00:00:00:00:01");
    }
    node.low.number = (int64_t)hex_mac_number(mac);
    node.high = node.low;
    advance(p);
    return of_side(p, side, node, "src_mac", "dst_mac");
}

static unsigned
flags_test(struct parser *p)
{
    struct flow_node node = {.op = FLOW_OP_BITS};

    if (!tcp_flags(p->token.text, &node.low.number)) {
        return expected(p, "TCP flags such as syn,ack (fin syn rst psh ack urg ece cwr)");
    }
    advance(p);
    return of_column(p, node, "tcp_flags");
}

static unsigned
drop_test(struct parser *p)
{
    struct flow_node node = {.op = FLOW_OP_RANGE}, dropped = {.op = FLOW_OP_RANGE};
    int reason = flow_drop_number(p->token.text);

    if (reason < 0) {
        return expected(p, "a reason such as dp_policy or grx_queue_full, or unknown");
    }
    node.low.number = node.high.number = reason;
    dropped.low.number = dropped.high.number = 1;
    advance(p);
    unsigned left = of_column(p, node, "drop");
    return join(p, FLOW_OP_AND, left, of_column(p, dropped, "dropped"));
}

/* By the destination, which rollups have as well; it is :: if it is not IP. */
static unsigned
family_test(struct parser *p, bool v6)
{
    struct flow_node mapped = {.op = FLOW_OP_RANGE}, some = {.op = FLOW_OP_RANGE};
    unsigned left;

    prefix("0.0.0.0/0", &mapped.low.address, &mapped.high.address);
    left = of_column(p, mapped, "dst");
    if (!v6) {
        return left;
    }
    prefix("::/0", &some.low.address, &some.high.address);
    some.low.address.s6_addr[15] = 1;
    left = join(p, FLOW_OP_NOT, left, 0);
    return join(p, FLOW_OP_AND, left, of_column(p, some, "dst"));
}

/* What may not have a side. */
static unsigned
plain_test(struct parser *p)
{
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (take(p, words[i].word)) {
            struct flow_node node = {
                .op = FLOW_OP_RANGE, .low.number = words[i].low, .high.number = words[i].high};
            return of_column(p, node, words[i].column);
        }
    }
    if (is(p, "ipv4") || is(p, "ipv6")) {
        bool v6 = is(p, "ipv6");
        advance(p);
        return family_test(p, v6);
    }
    if (take(p, "proto")) {
        return proto_test(p);
    }
    if (take(p, "flags")) {
        return flags_test(p);
    }
    if (take(p, "drop")) {
        return drop_test(p);
    }
    if (take(p, "exporter")) {
        return address_test(p, EITHER, "exporter");
    }
    for (const char *const *c = (const char *const[]){"bytes", "packets", "duration", NULL}; *c;
         c++) {
        if (take(p, *c)) {
            return compare(p, *c);
        }
    }
    return expected(p, "a test (such as src 10.0.0.0/8, port 443, vif NAME, dropped)");
}

static unsigned
test(struct parser *p)
{
    enum side side = take(p, "src") ? SOURCE : take(p, "dst") ? DESTINATION : EITHER;
    struct flow_node node = {.op = FLOW_OP_RANGE};
    struct in6_addr low, high;

    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (is(p, ranges[i].word) && (side == EITHER || ranges[i].destination)) {
            advance(p);
            if (!range(p, ranges[i].max, &node)) {
                return 0;
            }
            return ranges[i].destination
                       ? of_side(p, side, node, ranges[i].source, ranges[i].destination)
                       : of_column(p, node, ranges[i].source);
        }
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (is(p, names[i].word) && (side == EITHER || names[i].destination)) {
            advance(p);
            return name_test(p, side, i);
        }
    }
    if (take(p, "mac")) {
        return mac_test(p, side);
    }
    if (take(p, "address") || (!p->token.quoted && prefix(p->token.text, &low, &high))) {
        return address_test(p, side, NULL);
    }
    if (side != EITHER) {
        return expected(p, "an address, or port, vif, vm, tenant, network, group, mac or "
                           "interface,");
    }
    return plain_test(p);
}

/* --- expressions ------------------------------------------------------------------------ */

static unsigned expression(struct parser *p);

static unsigned
factor(struct parser *p)
{
    unsigned node;

    if (p->failed) {
        return 0;
    }
    if (p->depth == FLOW_FILTER_DEPTH) {
        return fail(p, p->token.at, "nested deeper than %d levels", FLOW_FILTER_DEPTH);
    }
    p->depth++;
    if (take(p, "not") || take(p, "!")) {
        node = join(p, FLOW_OP_NOT, factor(p), 0);
    } else if (is(p, "(")) {
        size_t open = p->token.at;
        advance(p);
        node = expression(p);
        if (!p->failed && !take(p, ")")) {
            fail(p, p->token.length ? p->token.at : open,
                 p->token.length ? "\"and\", \"or\" or \")\" is expected here"
                                 : "this parenthesis is not closed");
        }
    } else {
        node = test(p);
    }
    p->depth--;
    return node;
}

static unsigned
conjunction(struct parser *p)
{
    unsigned node = factor(p);

    while (!p->failed && take(p, "and")) {
        node = join(p, FLOW_OP_AND, node, factor(p));
    }
    return node;
}

static unsigned
expression(struct parser *p)
{
    unsigned node = conjunction(p);

    while (!p->failed && take(p, "or")) {
        node = join(p, FLOW_OP_OR, node, conjunction(p));
    }
    return node;
}

struct flow_filter *
flow_filter_parse(const char *text, struct flow_filter_error *error)
{
    struct parser p = {.text = text, .error = error};

    *error = (struct flow_filter_error){0};
    if (strlen(text) > FLOW_FILTER_LENGTH) {
        fail(&p, FLOW_FILTER_LENGTH, "longer than %d bytes", FLOW_FILTER_LENGTH);
        return NULL;
    }
    p.f = calloc(1, sizeof *p.f);
    if (!p.f) {
        fail(&p, 0, "out of memory");
        return NULL;
    }
    advance(&p);
    if (p.token.length || p.token.quoted || p.failed) {
        p.f->root = expression(&p);
        if (!p.failed && (p.token.length || p.token.quoted)) {
            expected(&p, "\"and\", \"or\" or the end");
        }
    }
    if (p.failed) {
        flow_filter_free(p.f);
        return NULL;
    }
    return p.f;
}

void
flow_filter_free(struct flow_filter *f)
{
    if (f) {
        for (unsigned i = 0; i < f->n; i++) {
            free(f->nodes[i].ids);
        }
        free(f);
    }
}

bool
flow_filter_require(struct flow_filter *f, const char *column, int64_t number)
{
    struct flow_filter_error error;
    struct parser p = {.text = "", .f = f, .error = &error};
    struct flow_node node = {.op = FLOW_OP_RANGE, .low.number = number, .high.number = number};
    bool all = !f->n;
    unsigned test = of_column(&p, node, column);

    f->root = all ? test : join(&p, FLOW_OP_AND, f->root, test);
    return !p.failed;
}
