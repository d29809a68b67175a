/* Convolution for devices whose cores run one work item after the other, as a matrix product without its matrix.

   The input is copied with its padding, a stride's phases apart, so that for each product of an output the inputs of neighbouring
   outputs are neighbours: `offsets` says where they begin. A work item takes a strip of positions and walks through its output
   channels with a tile of TILE_ROWS x PANEL sums in vector registers. */
#define PANEL (TILE_VECTORS * LANES)

/* The padded copy: a work item for some rows of a channel. The first one also writes the offsets. */
kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void ID(pad)(BUFFERS, global T *scratch, const Conv g)
{
    const long plane = get_global_id(0), image = plane / (g.groups * g.channels), channel = plane % (g.groups * g.channels);
    const long rows = g.stride[0] * g.phase[0] * g.stride[1] * g.phase[1];
    const long first = get_global_id(1) * g.rows, last = min(rows, first + g.rows);
    global const TX *x = INPUT + g.x + image * g.x_image + channel * g.x_channel;
    for (long row = first; row < last; row++) {
        /* Rows lie in the order (phase z, phase y, z, y), each with the phases of x side by side. */
        const long y = row % g.phase[1], z = row / g.phase[1] % g.phase[0];
        const long phases = row / (g.phase[1] * g.phase[0]);
        const long from_y = y * g.stride[1] + phases % g.stride[1] - g.before[1];
        const long from_z = z * g.stride[0] + phases / g.stride[1] - g.before[0];
        const bool inside = 0 <= from_y && from_y < g.in[1] && 0 <= from_z && from_z < g.in[0];
        global const TX *line = x + from_z * g.x_axis[0] + from_y * g.x_axis[1];
        for (long phase = 0; phase < g.stride[2]; phase++) {
            const long shift = phase - g.before[2], step = g.stride[2] * g.x_axis[2];
            const long low = clamp((g.stride[2] - 1 - shift) / g.stride[2], 0L, g.phase[2]);
            const long high = inside ? clamp((g.in[2] - shift + g.stride[2] - 1) / g.stride[2], low, g.phase[2]) : low;
            global T *to = scratch + plane * g.plane
                + (((phases * g.stride[2] + phase) * g.phase[0] + z) * g.phase[1] + y) * g.phase[2];
            for (long j = 0; j < low; j++) {
                to[j] = 0;
            }
            if (step == 1) {
                for (long j = low; j < high; j++) {
                    to[j] = LOAD_X(line, shift + j);
                }
            } else {
                SCALAR_LOOP
                for (long j = low; j < high; j++) {
                    to[j] = LOAD_X(line, shift * g.x_axis[2] + j * step);
                }
            }
            for (long j = high; j < g.phase[2]; j++) {
                to[j] = 0;
            }
        }
    }
    if (plane == 0 && first == 0) {
        global long *offsets = (global long *)(scratch + g.offsets);
        SCALAR_LOOP
        for (long k = 0; k < g.k; k++) {
            long rest = k, to = 0, phase = 0, place[3];
            SCALAR_LOOP
            for (int axis = 2; axis >= 0; axis--) {
                place[axis] = rest % g.window[axis] * g.dilation[axis];
                rest /= g.window[axis];
            }
            SCALAR_LOOP
            for (int axis = 0; axis < 3; axis++) {
                phase = phase * g.stride[axis] + place[axis] % g.stride[axis];
                to = to * g.phase[axis] + place[axis] / g.stride[axis];
            }
            offsets[k] = rest * g.plane + phase * g.phase[0] * g.phase[1] * g.phase[2] + to;
        }
    }
}

/* The weights as rows of sums' type, one after the other. */
kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void ID(weights)(BUFFERS, global T *scratch, const Conv g)
{
    const long row = get_global_id(0);
    SCALAR_LOOP
    for (long k = 0; k < g.k; k++) {
        long rest = k, from = g.w + row * g.w_row;
        SCALAR_LOOP
        for (int axis = 2; axis >= 0; axis--) {
            from += rest % g.window[axis] * g.w_axis[axis];
            rest /= g.window[axis];
        }
        scratch[g.weights + row * g.k + k] = LOAD_W(WEIGHTS, from + rest * g.w_channel);
    }
}

/* Stores the part of a tile that stands for outputs: runs of positions within a row. `y` is the tile's first channel. */
static __attribute__((noinline)) void ID(store_runs)(
    const Conv *g, global TC *y, int rows, long position, long end, const T *values)
{
    const long wide = g->phase[2], high = g->phase[1], begin = position;
    SCALAR_LOOP
    while (position < end) {
        const long x = position % wide, line = position / wide % high, z = position / (wide * high);
        if (x >= g->out[2]) {
            position += wide - x;
        } else if (line >= g->out[1]) {
            position += wide * (high - line) - x;
        } else {
            const int run = (int)min(g->out[2] - x, end - position);
            global TC *to = y + z * g->y_axis[0] + line * g->y_axis[1] + x * g->y_axis[2];
            const T *from = values + (position - begin);
            SCALAR_LOOP
            for (int i = 0; i < rows; i++) {
                SCALAR_LOOP
                for (int j = 0; j < run; j++) {
                    ID(store)(to + i * g->y_channel + j * g->y_axis[2], from + i * PANEL + j);
                }
            }
            position += run;
        }
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void ID(conv)(BUFFERS, global T *scratch, const Conv g)
{
    #pragma OPENCL FP_CONTRACT ON
    const long first = get_global_id(0) * g.columns, last = min(g.positions, first + g.columns);
    const long first_row = get_global_id(1) * g.rows, last_row = min(g.m, first_row + g.rows);
    const long image = get_global_id(2) / g.groups, group = get_global_id(2) % g.groups;
#if SAME_W
    global const T *w = (g.dense ? (global const T *)scratch + g.weights : WEIGHTS + g.w) + group * g.m * g.k;
#else
    global const T *w = scratch + g.weights + group * g.m * g.k;
#endif
    global const T *x = scratch + get_global_id(2) * g.channels * g.plane;
    global const long *offsets = (global const long *)(scratch + g.offsets);
    global TC *y = RESULT + g.y + image * g.y_image + group * g.m * g.y_channel;

    SCALAR_LOOP
    for (long row = first_row; row < last_row; row += TILE_ROWS) {
        const int rows = (int)min((long)TILE_ROWS, last_row - row);
        global const T *line[TILE_ROWS];
        #pragma unroll
        for (int i = 0; i < TILE_ROWS; i++) {
            line[i] = w + min(row + i, last_row - 1) * g.k;
        }
        SCALAR_LOOP
        for (long position = first; position < last; position += PANEL) {
            TV sum[TILE_ROWS][TILE_VECTORS];
            #pragma unroll
            for (int i = 0; i < TILE_ROWS; i++) {
                #pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++) {
                    sum[i][v] = (TV)0;
                }
            }
            SCALAR_LOOP
            for (long k = 0; k < g.k; k++) {
                global const T *from = x + position + offsets[k];
                TV u[TILE_VECTORS];
                #pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++) {
                    u[v] = VLOAD(0, from + v * LANES);
                }
                #pragma unroll
                for (int i = 0; i < TILE_ROWS; i++) {
                    const TV y = (TV)line[i][k];
                    #pragma unroll
                    for (int v = 0; v < TILE_VECTORS; v++) {
                        sum[i][v] = y * u[v] + sum[i][v];
                    }
                }
            }
            T values[TILE_ROWS * PANEL];
            #pragma unroll
            for (int i = 0; i < TILE_ROWS; i++) {
                #pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++) {
                    VSTORE(sum[i][v], 0, values + i * PANEL + v * LANES);
                }
            }
            const long end = min(last, position + PANEL);
            ID(store_runs)(&g, y + row * g.y_channel, rows, position, end, values);
        }
    }
}
