/* Few rows of A times a B whose rows are contiguous: a strip of columns is read once, several of its rows at a time.

   g.m * g.columns is at most SUMS. */
#define SUMS 2048
#define DEPTH 8

/* Adds `depth` rows of the strip, each times a number, to a row of sums. */
static inline void ID(add_rows)(global const TB *b, long b_row, const T *x, int depth, int columns, T *sum)
{
    #pragma OPENCL FP_CONTRACT ON
    int j = 0;
    SCALAR_LOOP
    for (; j + LANES <= columns; j += LANES) {
        TV total = VLOAD(0, sum + j);
        #pragma unroll
        for (int d = 0; d < depth; d++) {
            total = x[d] * LOADV_B(b, d * b_row + j) + total;
        }
        VSTORE(total, 0, sum + j);
    }
    SCALAR_LOOP
    for (; j < columns; j++) {
        SCALAR_LOOP
        for (int d = 0; d < depth; d++) {
            sum[j] = x[d] * LOAD_B(b, d * b_row + j) + sum[j];
        }
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void ID(strip)(PARAMS, const Gemm g)
{
    const long column = get_group_id(0) * g.columns;
    const int columns = (int)min(g.columns, g.n - column), rows = (int)g.m;
    const long batch = get_global_id(2), outer = batch / g.inner, inner = batch % g.inner;
    global const TA *a = FIRST(g) + g.a + outer * g.a_outer + inner * g.a_inner;
    global const TB *b = SECOND(g) + g.b + outer * g.b_outer + inner * g.b_inner + column;
    T sum[SUMS], x[DEPTH];
    SCALAR_LOOP
    for (int j = 0; j < rows * columns; j++) {
        sum[j] = 0;
    }
    long k = 0;
    SCALAR_LOOP
    for (; k + DEPTH <= g.k; k += DEPTH) {
        SCALAR_LOOP
        for (int i = 0; i < rows; i++) {
            #pragma unroll
            for (int d = 0; d < DEPTH; d++) {
                x[d] = LOAD_A(a, i * g.a_row + (k + d) * g.a_column);
            }
            ID(add_rows)(b + k * g.b_row, g.b_row, x, DEPTH, columns, sum + i * columns);
        }
    }
    SCALAR_LOOP
    for (; k < g.k; k++) {
        SCALAR_LOOP
        for (int i = 0; i < rows; i++) {
            x[0] = LOAD_A(a, i * g.a_row + k * g.a_column);
            ID(add_rows)(b + k * g.b_row, g.b_row, x, 1, columns, sum + i * columns);
        }
    }
    ID(finish_tile)(ARGUMENTS, &g, batch, 0, rows, column, columns, sum, columns);
}
