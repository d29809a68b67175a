/* Matrix product for devices whose cores run one work item after the other.

   A work item takes g.columns columns of B, packs them into panels of PANEL columns, and takes a tile of TILE_ROWS x PANEL sums
   in vector registers down its g.rows rows of A. */
#define PANEL (TILE_VECTORS * LANES)

/* `columns` columns of b as panels: k rows of PANEL elements each; columns that are not there are 0. */
static void ID(pack)(global const TB *b, long b_row, long b_column, long depth, int columns, global T *panels)
{
    const int whole = columns / PANEL;
    if (b_column == 1) {
        SCALAR_LOOP
        for (long k = 0; k < depth; k++) {
            SCALAR_LOOP
            for (int p = 0; p < whole; p++) {
                #pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++) {
                    const TV x = LOADV_B(b, k * b_row + p * PANEL + v * LANES);
                    VSTORE(x, 0, panels + (p * depth + k) * PANEL + v * LANES);
                }
            }
        }
    }
    const long paired = b_row == 1 ? depth / LANES * LANES : 0;
    SCALAR_LOOP
    for (int p = 0; b_column != 1 && p < whole * TILE_VECTORS; p++) {
        const int column = p * LANES;
        global T *panel = panels + p / TILE_VECTORS * depth * PANEL + p % TILE_VECTORS * LANES;
        SCALAR_LOOP
        for (long k = 0; k < paired; k += LANES) {
            TV x[LANES], y[LANES];
            #pragma unroll
            for (int j = 0; j < LANES; j++) {
                x[j] = LOADV_B(b, (column + j) * b_column + k);
            }
            /* Interleaving the halves log2(LANES) times transposes. */
            #pragma unroll
            for (int stage = 1; stage < LANES; stage *= 2) {
                #pragma unroll
                for (int j = 0; j < LANES / 2; j++) {
                    y[2 * j] = shuffle2(x[j], x[j + LANES / 2], INTERLEAVE_LOW);
                    y[2 * j + 1] = shuffle2(x[j], x[j + LANES / 2], INTERLEAVE_HIGH);
                }
                #pragma unroll
                for (int j = 0; j < LANES; j++) {
                    x[j] = y[j];
                }
            }
            #pragma unroll
            for (int j = 0; j < LANES; j++) {
                VSTORE(x[j], 0, panel + (k + j) * PANEL);
            }
        }
        SCALAR_LOOP
        for (long k = paired; k < depth; k++) {
            SCALAR_LOOP
            for (int j = 0; j < LANES; j++) {
                panel[k * PANEL + j] = LOAD_B(b, k * b_row + (column + j) * b_column);
            }
        }
    }
    SCALAR_LOOP
    for (long k = 0; whole * PANEL < columns && k < depth; k++) {
        SCALAR_LOOP
        for (int j = 0; j < PANEL; j++) {
            const int column = whole * PANEL + j;
            panels[(whole * depth + k) * PANEL + j] = column < columns ? LOAD_B(b, k * b_row + column * b_column) : (T)0;
        }
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void ID(gemm)(BUFFERS, global T *scratch AND_SIZES, const Gemm g)
{
    #pragma OPENCL FP_CONTRACT ON
    const long first_column = get_global_id(0) * g.columns, last_column = min(g.n, first_column + g.columns);
    const long first_row = get_group_id(1) * g.rows, last_row = min(g.m, first_row + g.rows);
    const long batch = get_global_id(2), outer = batch / g.inner, inner = batch % g.inner;
#if SAME_A
    global const T *a = (g.dense ? (global const T *)scratch : FIRST(g)) + g.a;
#else
    global const T *a = scratch;
#endif
    a += outer * g.a_outer + inner * g.a_inner;
    global const TB *b = SECOND(g) + g.b + outer * g.b_outer + inner * g.b_inner;
#if DIRECT
    global T *c = RESULT + g.c + outer * g.c_outer + inner * g.c_inner;
#endif

    const long item = (get_group_id(2) * get_num_groups(1) + get_group_id(1)) * get_num_groups(0) + get_group_id(0);
    global T *panels = scratch + g.panels + item * g.columns * g.k;
    ID(pack)(b + first_column * g.b_column, g.b_row, g.b_column, g.k, (int)(last_column - first_column), panels);

    SCALAR_LOOP
    for (long column = first_column; column < last_column; column += PANEL) {
        global const T *panel = panels + (column - first_column) * g.k;
        const int columns = (int)min((long)PANEL, last_column - column);
        SCALAR_LOOP
        for (long row = first_row; row < last_row; row += TILE_ROWS) {
            const int rows = (int)min((long)TILE_ROWS, last_row - row);
            TV sum[TILE_ROWS][TILE_VECTORS];
            global const T *line[TILE_ROWS];
            #pragma unroll
            for (int i = 0; i < TILE_ROWS; i++) {
                line[i] = a + min(row + i, last_row - 1) * g.a_row;
                #pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++) {
                    sum[i][v] = (TV)0;
                }
            }
            SCALAR_LOOP
            for (long k = 0; k < g.k; k++) {
                TV x[TILE_VECTORS];
                #pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++) {
                    x[v] = VLOAD(0, panel + k * PANEL + v * LANES);
                }
                #pragma unroll
                for (int i = 0; i < TILE_ROWS; i++) {
                    const TV y = (TV)line[i][k * g.a_column];
                    #pragma unroll
                    for (int v = 0; v < TILE_VECTORS; v++) {
                        sum[i][v] = y * x[v] + sum[i][v];
                    }
                }
            }
#if DIRECT
            if (columns == PANEL && g.c_column == 1) {
                #pragma unroll
                for (int i = 0; i < TILE_ROWS; i++) {
                    #pragma unroll
                    for (int v = 0; v < TILE_VECTORS; v++) {
                        if (i < rows) {
                            VSTORE(sum[i][v], 0, c + (row + i) * g.c_row + column + v * LANES);
                        }
                    }
                }
                continue;
            }
#endif
            T values[TILE_ROWS * PANEL];
            #pragma unroll
            for (int i = 0; i < TILE_ROWS; i++) {
                #pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++) {
                    VSTORE(sum[i][v], 0, values + i * PANEL + v * LANES);
                }
            }
            ID(finish_tile)(ARGUMENTS, &g, batch, row, rows, column, columns, values, PANEL);
        }
    }
}
