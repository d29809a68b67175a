/* Few rows of A, for devices with lanes: a work group of 256 lanes computes g.columns columns, several lanes to a column.

   64 columns lie side by side, 4 lanes to each, so that neighbouring lanes read along a row of B; 4 columns get 64 lanes each,
   for a B whose columns are contiguous. */
#define FEW 4
#define WIDE 64
#define GROUP (FEW * WIDE)

kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void ID(gemv)(PARAMS, const Gemm g)
{
    #pragma OPENCL FP_CONTRACT ON
    local T parts[GROUP];
    const int lane = get_local_id(0), wide = (int)g.columns, count = GROUP / wide;
    const int part = wide == WIDE ? lane / WIDE : lane % WIDE;
    const int step = wide == WIDE ? WIDE : 1;
    const long column = (long)get_group_id(0) * wide + (wide == WIDE ? lane % WIDE : lane / WIDE);
    const long batch = get_global_id(2), outer = batch / g.inner, inner = batch % g.inner;
    global const TA *a = FIRST(g) + g.a + outer * g.a_outer + inner * g.a_inner;
    global const TB *b = SECOND(g) + g.b + outer * g.b_outer + inner * g.b_inner;

    for (long row = 0; row < g.m; row += FEW) {
        T sum[FEW] = {0, 0, 0, 0};
        for (long k = part; column < g.n && k < g.k; k += count) {
            const T x = LOAD_B(b, k * g.b_row + column * g.b_column);
            #pragma unroll
            for (int i = 0; i < FEW; i++) {
                sum[i] = LOAD_A(a, min(row + i, g.m - 1) * g.a_row + k * g.a_column) * x + sum[i];
            }
        }
        #pragma unroll
        for (int i = 0; i < FEW && row + i < g.m; i++) {
            parts[lane] = sum[i];
            barrier(CLK_LOCAL_MEM_FENCE);
            for (int span = count / 2; span > 0; span /= 2) {
                if (part < span) {
                    parts[lane] += parts[lane + span * step];
                }
                barrier(CLK_LOCAL_MEM_FENCE);
            }
            const T value = parts[lane];
            if (part == 0 && column < g.n) {
                ID(finish_tile)(ARGUMENTS, &g, batch, row + i, 1, column, 1, &value, 1);
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
    }
}
