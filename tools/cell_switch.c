/* cell_switch: one thread, two stacks.
 *
 * cell_enter() pushes the host's callee-saved registers, leaves its stack pointer
 * in the switch, takes the guest's and pops what the guest had pushed; the guest's
 * call of cell_switch_entry() does the reverse.  Either side sees an ordinary call
 * that takes a while, so the compiler needs to know nothing.  A fault of the
 * guest's is turned into a return of cell_enter() by its signal handler. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ucontext.h>

#include "cell_host.h"

_Static_assert(offsetof(struct cell_switch, host_sp) == 0 &&
                   offsetof(struct cell_switch, guest_sp) == 8 &&
                   offsetof(struct cell_switch, nr) == 16 &&
                   offsetof(struct cell_switch, args) == 24,
               "known below");

/* The one that is running; also what the entry, which the guest calls without any
 * argument of ours, goes by. */
static struct cell_switch *volatile current __asm__("cell_switch_current")
    __attribute__((used)) = NULL;
static volatile bool in_guest __asm__("cell_switch_in_guest") __attribute__((used));

extern const char cell_switch_leave[], cell_switch_fault[];

__asm__(".text\n"
        ".globl cell_switch_to\n"
        ".type cell_switch_to,@function\n"
        "cell_switch_to:\n" /* (switch, result) */
        "  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
        "  movq %rsp, 0(%rdi)\n"
        "  movb $1, cell_switch_in_guest(%rip)\n"
        "  movq 8(%rdi), %rsp\n"
        "  movq %rsi, %rax\n"
        "  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
        "  ret\n"
        ".globl cell_switch_leave\n"
        "cell_switch_leave:\n" /* (nr, a, b, c), on the guest's stack */
        "  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
        "  movq cell_switch_current(%rip), %rax\n"
        "  movq %rsp, 8(%rax)\n"
        "  movq %rdi, 16(%rax)\n"
        "  movq %rsi, 24(%rax)\n"
        "  movq %rdx, 32(%rax)\n"
        "  movq %rcx, 40(%rax)\n"
        "cell_switch_back:\n"
        "  movq 0(%rax), %rsp\n"
        "  movb $0, cell_switch_in_guest(%rip)\n"
        "  cld\n"
        "  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
        "  ret\n"
        ".globl cell_switch_fault\n"
        "cell_switch_fault:\n" /* from the signal handler */
        "  movq cell_switch_current(%rip), %rax\n"
        "  jmp cell_switch_back\n"
        ".size cell_switch_to, . - cell_switch_to\n");

void cell_switch_to(struct cell_switch *, uint64_t result);

void
cell_enter(struct cell_switch *sw, uint64_t result)
{
    current = sw;
    cell_switch_to(sw, result);
}

uint64_t
cell_switch_entry(struct cell_switch *sw)
{
    return (uint64_t)(uintptr_t)cell_switch_leave;
}

/* As a call of 'entry' that has yet to be made: six registers, the address that
 * "ret" takes, and where 'entry' would return to. */
uint64_t
cell_switch_start(uint64_t stack_top, uint64_t entry)
{
    uint64_t *stack = (uint64_t *)(uintptr_t)(stack_top - 64);

    memset(stack, 0, 64);
    stack[6] = entry;
    return stack_top - 64;
}

bool
cell_switch_sp_ok(uint64_t sp, uint64_t bytes)
{
    return sp % 8 == 0 && sp >= CELL_BASE && sp - CELL_BASE <= bytes - 64;
}

/* --- faults ------------------------------------------------------------------------ */

static const int caught[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};

static void
on_fault(int signo, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

    if (!in_guest) {
        /* Ours: it shall end as it would without us, at the same place. */
        signal(signo, SIG_DFL);
        return;
    }
    current->nr = CELL_HC_FAULT;
    current->args[0] = (uint64_t)signo;
    current->args[1] = (uint64_t)regs[REG_RIP];
    current->args[2] = (uint64_t)(uintptr_t)info->si_addr;
    regs[REG_RIP] = (greg_t)(uintptr_t)cell_switch_fault;
}

static stack_t fault_stack, other_stack;

int
cell_switch_catch_faults(void)
{
    static const size_t stack_bytes = 64 * 1024;
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    fault_stack = (stack_t){.ss_size = stack_bytes, .ss_sp = malloc(stack_bytes)};
    if (!fault_stack.ss_sp) {
        return ENOMEM;
    }
    sigfillset(&action.sa_mask);
    if (sigaltstack(&fault_stack, &other_stack)) {
        int error = errno;
        free(fault_stack.ss_sp);
        fault_stack.ss_sp = NULL;
        return error;
    }
    for (unsigned i = 0; i < sizeof caught / sizeof caught[0]; i++) {
        if (sigaction(caught[i], &action, NULL)) {
            return errno;
        }
    }
    return 0;
}

void
cell_switch_release_faults(void)
{
    if (fault_stack.ss_sp) {
        sigaltstack(&other_stack, NULL);
        free(fault_stack.ss_sp);
        fault_stack.ss_sp = NULL;
    }
}
