/* Matrix product for devices with lanes and local memory: a work group of 16 x 16 lanes computes a 64 x 64 tile, a lane
   4 x 4 of it, 16 columns of A and rows of B at a time. */
#define TILE 64
#define DEPTH 16
#define SIDE 16
#define EACH (TILE / SIDE)

kernel __attribute__((reqd_work_group_size(SIDE, SIDE, 1)))
void ID(gemm)(PARAMS, const Gemm g)
{
    #pragma OPENCL FP_CONTRACT ON
    local T a_tile[DEPTH][TILE + 1], b_tile[DEPTH][TILE + 1];
    const int x = get_local_id(0), y = get_local_id(1), lane = y * SIDE + x;
    const long row = (long)get_group_id(0) * TILE, column = (long)get_group_id(1) * TILE;
    const long batch = get_global_id(2), outer = batch / g.inner, inner = batch % g.inner;
    global const TA *a = FIRST(g) + g.a + outer * g.a_outer + inner * g.a_inner;
    global const TB *b = SECOND(g) + g.b + outer * g.b_outer + inner * g.b_inner;

    T sum[EACH][EACH];
    #pragma unroll
    for (int i = 0; i < EACH; i++) {
        #pragma unroll
        for (int j = 0; j < EACH; j++) {
            sum[i][j] = 0;
        }
    }
    for (long depth = 0; depth < g.k; depth += DEPTH) {
        #pragma unroll
        for (int part = 0; part < TILE * DEPTH / (SIDE * SIDE); part++) {
            /* Neighbouring lanes read along the axis that is contiguous. */
            const int place = lane + part * SIDE * SIDE;
            const int am = g.a_column == 1 ? place / DEPTH : place % TILE;
            const int ak = g.a_column == 1 ? place % DEPTH : place / TILE;
            const int bn = g.b_row == 1 ? place / DEPTH : place % TILE;
            const int bk = g.b_row == 1 ? place % DEPTH : place / TILE;
            const long m = row + am, n = column + bn;
            a_tile[ak][am] = m < g.m && depth + ak < g.k ? LOAD_A(a, m * g.a_row + (depth + ak) * g.a_column) : (T)0;
            b_tile[bk][bn] = n < g.n && depth + bk < g.k ? LOAD_B(b, (depth + bk) * g.b_row + n * g.b_column) : (T)0;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        #pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            T u[EACH], v[EACH];
            #pragma unroll
            for (int i = 0; i < EACH; i++) {
                u[i] = a_tile[k][y + i * SIDE];
                v[i] = b_tile[k][x + i * SIDE];
            }
            #pragma unroll
            for (int i = 0; i < EACH; i++) {
                #pragma unroll
                for (int j = 0; j < EACH; j++) {
                    sum[i][j] = u[i] * v[j] + sum[i][j];
                }
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    #pragma unroll
    for (int i = 0; i < EACH; i++) {
        #pragma unroll
        for (int j = 0; j < EACH; j++) {
            const long m = row + y + i * SIDE, n = column + x + j * SIDE;
            const T value = sum[i][j];
            if (m < g.m && n < g.n) {
                ID(finish_tile)(ARGUMENTS, &g, batch, m, 1, n, 1, &value, 1);
            }
        }
    }
}
