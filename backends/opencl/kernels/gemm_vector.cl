/* Matrix product for devices whose cores run one work item after the other.

   A work item takes a panel of PANEL columns of B, packs it, and walks down its rows of A with a tile of TILE_ROWS x PANEL
   accumulators in vector registers. */
#define PANEL (TILE_VECTORS * LANES)

/* b's panel as k rows of PANEL elements; columns that are not there are 0. */
static void ID(pack)(global const TB *b, long b_row, long b_column, long depth, int columns, global T *panel)
{
    if (columns == PANEL && b_column == 1) {
        for (long k = 0; k < depth; k++) {
            for (int v = 0; v < TILE_VECTORS; v++) {
                VSTORE(LOADV_B(b, k * b_row + v * LANES), 0, panel + k * PANEL + v * LANES);
            }
        }
        return;
    }
    long k = 0;
    if (columns == PANEL && b_row == 1) {
        for (; k + LANES <= depth; k += LANES) {
            for (int v = 0; v < TILE_VECTORS; v++) {
                TV x[LANES], y[LANES];
                #pragma unroll
                for (int j = 0; j < LANES; j++) {
                    x[j] = LOADV_B(b, (v * LANES + j) * b_column + k);
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
                    VSTORE(x[j], 0, panel + (k + j) * PANEL + v * LANES);
                }
            }
        }
    }
    for (; k < depth; k++) {
        for (int j = 0; j < PANEL; j++) {
            panel[k * PANEL + j] = j < columns ? LOAD_B(b, k * b_row + j * b_column) : (T)0;
        }
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void ID(gemm)(BUFFERS, global T *scratch AND_SIZES, const Gemm g)
{
    #pragma OPENCL FP_CONTRACT ON
    const long column = get_global_id(0) * PANEL;
    const long first_row = get_group_id(1) * g.rows;
    const long last_row = min(g.m, first_row + g.rows);
    const long batch = get_global_id(2), outer = batch / g.inner, inner = batch % g.inner;
    const int columns = (int)min((long)PANEL, g.n - column);
    global const TA *a = FIRST(g) + g.a + outer * g.a_outer + inner * g.a_inner;
    global const TB *b = SECOND(g) + g.b + outer * g.b_outer + inner * g.b_inner + column * g.b_column;

    /* Of panels read in place, only the last may be a part, and so packed. */
    const long walk = get_group_id(2) * get_num_groups(1) + get_group_id(1);
    global T *packed = scratch + (g.direct ? walk : walk * get_num_groups(0) + get_group_id(0)) * g.k * PANEL;
    global const T *panel = packed;
    long panel_row = PANEL;
#if DIRECT
    if (g.direct && columns == PANEL) {
        panel = b;
        panel_row = g.b_row;
    } else
#endif
        ID(pack)(b, g.b_row, g.b_column, g.k, columns, packed);

    for (long row = first_row; row < last_row; row += TILE_ROWS) {
        TV sum[TILE_ROWS][TILE_VECTORS];
        global const TA *line[TILE_ROWS];
        #pragma unroll
        for (int i = 0; i < TILE_ROWS; i++) {
            line[i] = a + min(row + i, last_row - 1) * g.a_row;
            #pragma unroll
            for (int v = 0; v < TILE_VECTORS; v++) {
                sum[i][v] = (TV)0;
            }
        }
        for (long k = 0; k < g.k; k++) {
            TV x[TILE_VECTORS];
            #pragma unroll
            for (int v = 0; v < TILE_VECTORS; v++) {
                x[v] = VLOAD(0, panel + k * panel_row + v * LANES);
            }
            #pragma unroll
            for (int i = 0; i < TILE_ROWS; i++) {
                const TV y = (TV)LOAD_A(line[i], k * g.a_column);
                #pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++) {
                    sum[i][v] = y * x[v] + sum[i][v];
                }
            }
        }
        const int count = (int)min((long)TILE_ROWS, last_row - row);
#if PLAIN
        if (columns == PANEL && g.c_column == 1) {
            global T *c = RESULT + g.c + outer * g.c_outer + inner * g.c_inner + row * g.c_row + column;
            #pragma unroll
            for (int i = 0; i < TILE_ROWS; i++) {
                #pragma unroll
                for (int v = 0; v < TILE_VECTORS; v++) {
                    if (i < count) {
                        VSTORE(sum[i][v], 0, c + i * g.c_row + v * LANES);
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
        ID(finish_tile)(ARGUMENTS, &g, g.first + batch, row, count, column, columns, values, PANEL);
    }
}
