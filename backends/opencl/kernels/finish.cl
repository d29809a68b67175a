/* Hands a tile of sums, element by element, to `finish`. Loops along columns of the result stay scalar: vectorising them
   costs more compilation than all else, and they serve few elements. */
#define SCALAR_LOOP _Pragma("clang loop vectorize(disable) unroll(disable)")

static FINISH_ATTRIBUTES void ID(finish_tile)(
    PARAMS, const Gemm *g, long batch, long row, int rows, long column, int columns, const T *values, int pitch)
{
    if (g->flipped) {
        SCALAR_LOOP
        for (int j = 0; j < columns; j++) {
            const long line = batch * g->n + column + j;
            SCALAR_LOOP
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
