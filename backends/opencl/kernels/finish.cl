/* Hands a tile of sums, row by row, to the epilogue. */
static void ID(finish_tile)(
    PARAMS, const Gemm *g, long batch, long row, int rows, long column, int columns, const T *values, int pitch)
{
    if (g->flipped) {
        for (int j = 0; j < columns; j++) {
            const long line = batch * g->n + column + j;
            for (int i = 0; i < rows; i++) {
                ID(finish)(ARGUMENTS, line, row + i, values + i * pitch + j);
            }
        }
        return;
    }
    for (int i = 0; i < rows; i++) {
        const long line = batch * g->m + row + i;
        for (int j = 0; j < columns; j++) {
            ID(finish)(ARGUMENTS, line, column + j, values + i * pitch + j);
        }
    }
}
