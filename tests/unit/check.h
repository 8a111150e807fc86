/* check: the smallest test frame that can fail.
 *
 * A test program calls CASE("name") before each case, CHECK() in it, and
 * returns check_done() from main.  One line a case on stdout: "ok NAME" or
 * "not ok NAME: why". */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdio.h>

static const char *check_case_;
static bool check_failed_;
static int check_n_failed_;

static inline void
check_end_case_(void)
{
    if (check_case_ && !check_failed_) {
        printf("ok %s\n", check_case_);
    }
    check_n_failed_ += check_case_ && check_failed_;
    check_failed_ = false;
    fflush(stdout);
}

#define CASE(name)                                                                                 \
    do {                                                                                           \
        check_end_case_();                                                                         \
        check_case_ = (name);                                                                      \
    } while (0)

/* Reports the first failure of a case; the case goes on. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond) && !check_failed_) {                                                           \
            printf("not ok %s: %s:%d: %s\n", check_case_, __FILE__, __LINE__, #cond);              \
            check_failed_ = true;                                                                  \
        }                                                                                          \
    } while (0)

static inline int
check_done(void)
{
    check_end_case_();
    return check_n_failed_ != 0;
}

#endif
