// The runtime of the CUDA emulator: runs the blocks of a grid one after another on the calling thread.
//
// A CUDA thread that may wait for others is a fiber, a stack of its own switched to and from by hand; threads that
// never wait share one fiber and run as a plain loop. So a thread always runs on a fiber, and whatever goes wrong in it
// (a trap, a memory fault, a division by zero) ends the launch by switching back to the scheduler and not returning.
//
// Built once and loaded into the process. Launches must not overlap: the Python side holds a lock.
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "emu_abi.h"
#include "emu_fiber.h"

namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kStackBytes = 256 * 1024;
constexpr size_t kGuardBytes = 1 << 20;
constexpr unsigned char kPoison = 0xff;  // a NaN in every floating type, -1 in the integer ones

enum class State : uint8_t { ready, at_warp, at_block, done };

struct Thread {
    Context context;
    unsigned char* stack;
    emu_index index;
    State state;
    emu_warp_operation operation;
    unsigned line;
    unsigned mask;
    unsigned source_lane;
    uint64_t value;  // what it brings to a warp or block operation, and then the result
};

struct Launch {
    const emu_kernel* kernel;
    const unsigned char* arguments;
    unsigned threads;
    size_t dynamic_bytes, static_limit;
    unsigned order;
    uint64_t random;
    bool failed;
    char* error;
    size_t error_bytes;
};

Thread threads[kMaxThreads];
unsigned visiting[kMaxThreads];       // the order in which a block's threads get their turn
unsigned waiting_lanes[kMaxThreads / kWarp], live_lanes[kMaxThreads / kWarp];
unsigned current;
uint64_t blocks_run;
Context scheduler;
Launch launch;

enum Order { kForward, kReverse, kShuffled };

uint64_t random_below(uint64_t bound) {  // xorshift64
    uint64_t& x = launch.random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x % bound;
}

void shuffle_visiting() {
    for (unsigned i = launch.threads - 1; i > 0; i--) {
        unsigned other = random_below(i + 1), held = visiting[i];
        visiting[i] = visiting[other];
        visiting[other] = held;
    }
}

void yield() { switch_context(&threads[current].context, &scheduler); }

__attribute__((format(printf, 1, 2))) void report(const char* format, ...) {
    if (launch.failed) return;
    launch.failed = true;
    va_list values;
    va_start(values, format);
    vsnprintf(launch.error, launch.error_bytes, format, values);
    va_end(values);
}

struct Place {
    char text[96];
};

Place where() {
    const emu_state& s = *launch.kernel->state;
    Place place;
    snprintf(place.text, sizeof place.text, "block (%u, %u, %u), thread (%u, %u, %u)", s.block.x, s.block.y, s.block.z,
             s.thread.x, s.thread.y, s.thread.z);
    return place;
}

void fail(const char* what) {
    report("%s in %s", what, where().text);
    yield();
    abort();  // a failed launch resumes no thread
}

// ---- warp and block operations --------------------------------------------------------------------------------------

void require_cooperative() {
    if (!launch.kernel->cooperative) fail("a barrier or warp operation that the emulator did not see in the source");
}

void release_warp_group(unsigned first, unsigned lanes) {
    uint64_t values[kWarp], ballot = 0;
    for (unsigned lane = 0; lane < kWarp; lane++) {
        if (!(lanes >> lane & 1)) continue;
        values[lane] = threads[first + lane].value;
        if (values[lane]) ballot |= uint64_t(1) << lane;
    }
    for (unsigned lane = 0; lane < kWarp; lane++) {
        if (!(lanes >> lane & 1)) continue;
        Thread& thread = threads[first + lane];
        if (thread.operation == EMU_WARP_BALLOT) {
            thread.value = ballot;
        } else if (thread.operation == EMU_WARP_SHUFFLE) {  // what a lane that takes no part holds is undefined
            thread.value = lanes >> thread.source_lane & 1 ? values[thread.source_lane] : ~uint64_t(0);
        }
        thread.state = State::ready;
    }
    waiting_lanes[first / kWarp] &= ~lanes;
}

// Lets the lanes of `mask` go on if all of them that live have arrived.
void try_release(unsigned warp, unsigned mask) {
    unsigned needed = mask & live_lanes[warp], first = warp * kWarp;
    if (!needed || (waiting_lanes[warp] & needed) != needed) return;
    const Thread& leader = threads[first + __builtin_ctz(needed)];
    for (unsigned lane = 0; lane < kWarp; lane++) {
        const Thread& thread = threads[first + lane];
        if (!(needed >> lane & 1)) continue;
        if (thread.mask != leader.mask || thread.operation != leader.operation || thread.line != leader.line) {
            const emu_index& b = launch.kernel->state->block;
            report("warp divergence in block (%u, %u, %u), warp %u: lane %u is at line %u with mask %08x, lane %u at "
                   "line %u with mask %08x", b.x, b.y, b.z, warp, unsigned(__builtin_ctz(needed)), leader.line,
                   leader.mask, lane, thread.line, thread.mask);
            return;
        }
    }
    release_warp_group(first, needed);
}

unsigned long long warp_operation(emu_warp_operation operation, unsigned line, unsigned mask, unsigned long long value,
                                  unsigned source) {
    require_cooperative();
    Thread& thread = threads[current];
    unsigned warp = current / kWarp, lane = current % kWarp;
    if (!(mask >> lane & 1)) fail("a warp operation whose mask leaves out the calling lane");
    thread.operation = operation;
    thread.line = line;
    thread.mask = mask;
    thread.value = value;
    thread.source_lane = source % kWarp;
    thread.state = State::at_warp;
    waiting_lanes[warp] |= 1u << lane;
    try_release(warp, mask);
    yield();
    return thread.value;
}

unsigned block_sync(unsigned line, unsigned value) {
    require_cooperative();
    Thread& thread = threads[current];
    thread.line = line;
    thread.value = value != 0;
    thread.state = State::at_block;
    yield();
    return unsigned(thread.value);
}

unsigned active_lanes() {
    require_cooperative();
    return live_lanes[current / kWarp];
}

const emu_runtime kRuntime = {block_sync, warp_operation, active_lanes, fail};

// All threads wait or are done: opens the barrier if every one of them stands at the same one.
bool release_block() {
    unsigned at_block = 0, at_warp = 0, done = 0, voted = 0, line = 0;
    bool lines_differ = false;
    for (unsigned i = 0; i < launch.threads; i++) {
        const Thread& thread = threads[i];
        if (thread.state == State::at_block) {
            lines_differ |= at_block++ && thread.line != line;
            line = thread.line;
            voted += unsigned(thread.value);
        }
        at_warp += thread.state == State::at_warp;
        done += thread.state == State::done;
    }
    if (at_block == launch.threads && !lines_differ) {
        for (unsigned i = 0; i < launch.threads; i++) {
            threads[i].value = voted;
            threads[i].state = State::ready;
        }
        return true;
    }
    const emu_index& b = launch.kernel->state->block;
    report("barrier divergence in block (%u, %u, %u): of %u threads %u wait at __syncthreads%s (line %u), %u at a warp "
           "operation, %u have returned", b.x, b.y, b.z, launch.threads, at_block,
           lines_differ ? " on different lines" : "", line, at_warp, done);
    return false;
}

// ---- running blocks -------------------------------------------------------------------------------------------------

bool grow_stacks(unsigned count) {
    const size_t page = sysconf(_SC_PAGESIZE);
    for (unsigned i = 0; i < count; i++) {
        if (threads[i].stack) continue;
        void* memory = mmap(nullptr, page + kStackBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (memory == MAP_FAILED) return false;
        mprotect(memory, page, PROT_NONE);  // an overflow faults
        threads[i].stack = static_cast<unsigned char*>(memory) + page;
    }
    return true;
}

void start_fiber(unsigned thread, void (*entry)()) {
    // Stacks lie a power of two apart: without an offset of their own their tops would share one set of the cache.
    size_t stagger = thread % 32 * 192;
    prepare_context(&threads[thread].context, threads[thread].stack, kStackBytes - stagger, entry);
}

void resume(unsigned thread) {
    current = thread;
    launch.kernel->state->thread = threads[thread].index;
    switch_context(&scheduler, &threads[thread].context);
}

void cooperative_thread() {
    launch.kernel->thread(launch.arguments);
    Thread& thread = threads[current];
    thread.state = State::done;
    unsigned warp = current / kWarp;
    live_lanes[warp] &= ~(1u << current % kWarp);
    if (unsigned waiting = waiting_lanes[warp]) try_release(warp, threads[warp * kWarp + __builtin_ctz(waiting)].mask);
    yield();
    abort();
}

void run_cooperative_block() {
    for (unsigned i = 0; i < launch.threads; i++) {
        threads[i].state = State::ready;
        start_fiber(i, cooperative_thread);
    }
    for (unsigned warp = 0; warp * kWarp < launch.threads; warp++) {
        unsigned lanes = launch.threads - warp * kWarp;
        live_lanes[warp] = lanes >= kWarp ? ~0u : (1u << lanes) - 1;
        waiting_lanes[warp] = 0;
    }
    for (unsigned done = 0; done < launch.threads;) {
        bool ran = false;
        for (unsigned i = 0; i < launch.threads; i++) {
            Thread& thread = threads[visiting[i]];
            if (thread.state != State::ready) continue;
            ran = true;
            resume(visiting[i]);
            if (launch.failed) return;
            done += thread.state == State::done;
        }
        if (!ran && !release_block()) return;
    }
}

void run_independent_block() {
    emu_state& state = *launch.kernel->state;
    void (*run)(const unsigned char*) = launch.kernel->thread;
    for (unsigned i = 0; i < launch.threads; i++) {
        state.thread = threads[visiting[i]].index;
        run(launch.arguments);
    }
}

uint64_t greatest_common_divisor(uint64_t a, uint64_t b) { return b ? greatest_common_divisor(b, a % b) : a; }

template <class Run>
void for_each_block(Run run) {
    emu_state& state = *launch.kernel->state;
    const emu_index grid = state.grid_dim;
    const uint64_t total = uint64_t(grid.x) * grid.y * grid.z;
    // A stride that shares no factor with the total visits every block once.
    uint64_t stride = 1, start = 0;
    if (launch.order == kReverse) stride = total - 1, start = total - 1;
    if (launch.order == kShuffled) {
        start = random_below(total);
        stride = random_below(total) + 1;
        while (greatest_common_divisor(stride, total) != 1) stride++;
    }
    uint64_t at = start;
    for (uint64_t n = 0; n < total && !launch.failed; n++) {
        state.block = {unsigned(at % grid.x), unsigned(at / grid.x % grid.y), unsigned(at / grid.x / grid.y)};
        state.block_serial = ++blocks_run;
        state.shared_bytes = 0;
        if (launch.dynamic_bytes) memset(state.dynamic_shared, kPoison, launch.dynamic_bytes);
        if (launch.order == kShuffled) shuffle_visiting();
        run();
        if (state.shared_bytes > launch.static_limit) {
            report("%zu bytes of shared memory are declared, the limit is %zu", state.shared_bytes,
                   launch.static_limit);
        }
        at = (at + stride) % total;
    }
}

void independent_grid() {
    for_each_block(run_independent_block);
    threads[current].state = State::done;
    yield();
    abort();
}

// ---- faults ---------------------------------------------------------------------------------------------------------

const int kFaults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
constexpr int kFaultCount = sizeof kFaults / sizeof *kFaults;
pthread_t launching_thread;
bool on_fiber;
uintptr_t fault_address;
struct sigaction old_actions[kFaultCount];

void on_fault(int signal, siginfo_t* info, void*) {
    if (!on_fiber || !pthread_equal(pthread_self(), launching_thread)) {  // not ours: whoever was here before gets it
        for (int i = 0; i < kFaultCount; i++)
            if (kFaults[i] == signal) sigaction(signal, &old_actions[i], nullptr);
        return;
    }
    if (signal == SIGFPE) fail("integer division by zero");
    if (signal == SIGILL) fail("an illegal instruction");
    fault_address = reinterpret_cast<uintptr_t>(info->si_addr);
    fail("an illegal memory access");
}

// Catches faults of the launching thread while it lives. They are handled on a stack of their own, since an overflowed
// one cannot be; SA_NODEFER because the handler never returns to unblock the signal.
class FaultGuard {
  public:
    FaultGuard() {
        static unsigned char* handler_stack = static_cast<unsigned char*>(
            mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        stack_t stack = {};
        stack.ss_sp = handler_stack;
        stack.ss_size = kStackBytes;
        sigaltstack(&stack, &old_stack_);
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (int i = 0; i < kFaultCount; i++) sigaction(kFaults[i], &action, &old_actions[i]);
        launching_thread = pthread_self();
        on_fiber = true;
    }
    ~FaultGuard() {
        on_fiber = false;
        for (int i = 0; i < kFaultCount; i++) sigaction(kFaults[i], &old_actions[i], nullptr);
        sigaltstack(&old_stack_, nullptr);
    }

  private:
    stack_t old_stack_;
};

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

// ---- what the Python side calls -------------------------------------------------------------------------------------

#define EMU_EXPORT extern "C" __attribute__((visibility("default")))

// Runs a grid to its end. `arguments` holds `count` slots of 8 bytes, `sizes` the bytes used of each. Gives 0, or 1
// with the reason in `error`; `fault` is the address of an illegal access, else 0.
EMU_EXPORT int emu_launch(const emu_kernel* kernel, const unsigned* grid, const unsigned* block, size_t dynamic_bytes,
                          size_t static_limit, const unsigned char* arguments, const unsigned char* sizes,
                          unsigned count, unsigned order, uint64_t seed, char* error, size_t error_bytes,
                          uintptr_t* fault) {
    const uint64_t random = seed * 2654435761u + 88172645463325252u;
    const unsigned block_threads = block[0] * block[1] * block[2];
    launch = {kernel, arguments, block_threads, dynamic_bytes, static_limit, order, random, false, error, error_bytes};
    *fault = fault_address = 0;
    if (count != kernel->argument_count) {
        report("%u arguments were passed, the kernel takes %u", count, kernel->argument_count);
        return 1;
    }
    for (unsigned i = 0; i < count; i++) {
        if (sizes[i] == kernel->argument_sizes[i]) continue;
        report("argument %u has %u bytes, the kernel takes %u", i, sizes[i], kernel->argument_sizes[i]);
        return 1;
    }
    if (!grow_stacks(kernel->cooperative ? launch.threads : 1)) {
        report("no memory for the stacks of %u threads", launch.threads);
        return 1;
    }
    emu_state& state = *kernel->state;
    state.block_dim = {block[0], block[1], block[2]};
    state.grid_dim = {grid[0], grid[1], grid[2]};
    state.runtime = &kRuntime;
    state.dynamic_shared = static_cast<unsigned char*>(aligned_alloc(128, round_up(dynamic_bytes + 1, 128)));
    for (unsigned i = 0; i < launch.threads; i++) {
        threads[i].index = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
        visiting[i] = order == kReverse ? launch.threads - 1 - i : i;
    }
    {
        FaultGuard guard;
        if (kernel->cooperative) {
            for_each_block(run_cooperative_block);
        } else {
            current = 0;
            start_fiber(0, independent_grid);
            switch_context(&scheduler, &threads[0].context);
        }
    }
    free(state.dynamic_shared);
    *fault = fault_address;
    return launch.failed;
}

// Memory between pages that fault, its end (to within `alignment`) touching them: an access out of bounds is an error
// that names the kernel, not a wrong number. Poisoned. Gives null when there is none.
EMU_EXPORT unsigned char* emu_alloc(size_t bytes, size_t alignment, void** mapping, size_t* mapping_bytes) {
    const size_t page = sysconf(_SC_PAGESIZE), body = round_up(bytes, page);
    *mapping_bytes = body + 2 * kGuardBytes;
    void* memory = mmap(nullptr, *mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    unsigned char* first = static_cast<unsigned char*>(memory) + kGuardBytes;
    if (mprotect(first, body, PROT_READ | PROT_WRITE) != 0) {
        munmap(memory, *mapping_bytes);
        return nullptr;
    }
    memset(first, kPoison, body);
    *mapping = memory;
    return first + body - round_up(bytes, alignment);
}

EMU_EXPORT void emu_free(void* mapping, size_t mapping_bytes) { munmap(mapping, mapping_bytes); }
