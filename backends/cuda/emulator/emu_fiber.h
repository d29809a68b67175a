// Fibers: a function on a stack of its own, switched to and from by hand. In assembly where we have it, a few
// nanoseconds a switch; elsewhere by ucontext, which asks the kernel each time.
#pragma once
#include <stddef.h>

#if !defined(__x86_64__) || defined(EMU_PORTABLE_FIBERS)
#include <ucontext.h>
#define EMU_UCONTEXT 1
#endif

namespace {

#ifdef EMU_UCONTEXT
using Context = ucontext_t;
void switch_context(Context* from, Context* to) { swapcontext(from, to); }
void prepare_context(Context* context, unsigned char* stack, size_t bytes, void (*entry)()) {
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = bytes;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
}
#else
// The stack pointer is the context: everything else that a call preserves lies on the stack it points to.
using Context = void*;
extern "C" void emu_switch(void** from, void* to);
asm(R"(
.text
.type emu_switch, @function
emu_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size emu_switch, .-emu_switch
)");
void switch_context(Context* from, Context* to) { emu_switch(from, *to); }
void prepare_context(Context* context, unsigned char* stack, size_t bytes, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + bytes);
    *--top = nullptr;  // where a call would have left its return address: keeps the stack aligned as the ABI wants
    *--top = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    *context = top;
}
#endif

}  // namespace
