/* A as rows of sums' type, one after the other, where its own elements cannot be read one by one at full speed. */
#define BLOCK 16

kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void ID(dense)(BUFFERS, global T *scratch AND_SIZES, const Gemm g)
{
    const long first_row = get_group_id(0) * BLOCK, batch = get_global_id(2);
    const int rows = (int)min((long)BLOCK, g.m - first_row);
    global const TA *a = FIRST(g) + g.a + batch / g.inner * g.a_outer + batch % g.inner * g.a_inner + first_row * g.a_row;
    global T *to = scratch + (batch * g.m + first_row) * g.k;
    SCALAR_LOOP
    for (long k = 0; k < g.k; k += BLOCK) {
        const int depth = (int)min((long)BLOCK, g.k - k);
        SCALAR_LOOP
        for (int i = 0; i < rows; i++) {
            SCALAR_LOOP
            for (int j = 0; j < depth; j++) {
                to[i * g.k + k + j] = LOAD_A(a, i * g.a_row + (k + j) * g.a_column);
            }
        }
    }
}
