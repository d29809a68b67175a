// What a compiled batch of kernels and the emulator's runtime know of each other. No includes: every batch parses this.
#pragma once

typedef __SIZE_TYPE__ size_t;

struct emu_index {
    unsigned x, y, z;
};

// One warp operation as a lane sees it: how the values of the lanes that take part are combined into its own result.
enum emu_warp_operation { EMU_WARP_SYNC, EMU_WARP_SHUFFLE, EMU_WARP_BALLOT };

// What kernels ask of the runtime.
struct emu_runtime {
    // Waits for the whole block; gives the number of its threads that passed a value other than 0.
    unsigned (*block_sync)(unsigned line, unsigned value);
    // Waits for the lanes of `mask`, then combines their values.
    unsigned long long (*warp)(emu_warp_operation operation, unsigned line, unsigned mask, unsigned long long value,
                               unsigned source_lane);
    // The lanes of the caller's warp that have not returned.
    unsigned (*active_lanes)();
    // Ends the launch with an error; does not return.
    void (*fail)(const char* what);
};

// The built-in variables of the thread that runs. One per batch, written by the runtime before a thread goes on.
struct emu_state {
    emu_index thread, block, block_dim, grid_dim;
    unsigned char* dynamic_shared;
    unsigned long long block_serial;  // differs for every block that has run
    size_t shared_bytes;              // declared by what the block has reached so far
    const emu_runtime* runtime;
};

// One kernel: how to run one thread of it, and what a launch has to check and prepare.
struct emu_kernel {
    const char* name;
    void (*thread)(const unsigned char* arguments);  // one slot of 8 bytes an argument
    emu_state* state;
    const unsigned char* argument_sizes;
    unsigned argument_count;
    unsigned cooperative;  // its threads wait for one another: each needs a stack of its own
};
