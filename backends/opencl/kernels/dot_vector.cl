/* Few rows of A times a B whose columns are contiguous (a transposed weight): a dot product per element.

   A work item takes g.columns columns, DOT_COLUMNS at a time. */
#define DOT_COLUMNS 4

static T ID(sum_lanes)(TV x)
{
    T lanes[LANES], sum = 0;
    VSTORE(x, 0, lanes);
    for (int j = 0; j < LANES; j++) {
        sum += lanes[j];
    }
    return sum;
}

kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void ID(dot)(PARAMS, const Gemm g)
{
    #pragma OPENCL FP_CONTRACT ON
    const long first = get_group_id(0) * g.columns;
    const long last = min(g.n, first + g.columns);
    const long batch = get_global_id(2), outer = batch / g.inner, inner = batch % g.inner;
    global const TA *a = FIRST(g) + g.a + outer * g.a_outer + inner * g.a_inner;
    global const TB *b = SECOND(g) + g.b + outer * g.b_outer + inner * g.b_inner;

    SCALAR_LOOP
    for (long column = first; column < last; column += DOT_COLUMNS) {
        const int columns = (int)min((long)DOT_COLUMNS, last - column);
        global const TB *line[DOT_COLUMNS];
        #pragma unroll
        for (int j = 0; j < DOT_COLUMNS; j++) {
            line[j] = b + min(column + j, last - 1) * g.b_column;
        }
        SCALAR_LOOP
        for (long row = 0; row < g.m; row++) {
            global const TA *x = a + row * g.a_row;
            TV sum[DOT_COLUMNS];
            T values[DOT_COLUMNS];
            #pragma unroll
            for (int j = 0; j < DOT_COLUMNS; j++) {
                sum[j] = (TV)0;
            }
            long k = 0;
            SCALAR_LOOP
            for (; k + LANES <= g.k; k += LANES) {
                const TV y = LOADV_A(x, k);
                #pragma unroll
                for (int j = 0; j < DOT_COLUMNS; j++) {
                    sum[j] = y * LOADV_B(line[j], k) + sum[j];
                }
            }
            #pragma unroll
            for (int j = 0; j < DOT_COLUMNS; j++) {
                values[j] = ID(sum_lanes)(sum[j]);
            }
            SCALAR_LOOP
            for (; k < g.k; k++) {
                const T y = LOAD_A(x, k);
                #pragma unroll
                for (int j = 0; j < DOT_COLUMNS; j++) {
                    values[j] += y * LOAD_B(line[j], k);
                }
            }
            ID(finish_tile)(ARGUMENTS, &g, batch, row, 1, column, columns, values, DOT_COLUMNS);
        }
    }
}
