/* Hands a tile of sums to where they go: the result, or element by element to the epilogue `finish`. Loops stay scalar where
   they serve few elements: vectorising those costs more compilation than all else. */
#define SCALAR_LOOP _Pragma("clang loop vectorize(disable) unroll(disable)")

static FINISH_ATTRIBUTES void ID(finish_tile)(
    PARAMS, const Gemm *g, long batch, long row, int rows, long column, int columns, const T *values, int pitch)
{
#if PLAIN
    const long place = batch / g->inner * g->c_outer + batch % g->inner * g->c_inner;
    global TC *to = RESULT + g->c + place + row * g->c_row + column * g->c_column;
    SCALAR_LOOP
    for (int i = 0; i < rows; i++) {
        SCALAR_LOOP
        for (int j = 0; j < columns; j++) {
            ID(store)(to + i * g->c_row + j * g->c_column, values + i * pitch + j);
        }
    }
#else
    const long first = g->first + batch;
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < columns; j++) {
            const long m = row + i, n = column + j;
            const long line = g->flipped ? first * g->n + n : first * g->m + m;
            ID(finish)(ARGUMENTS, line, g->flipped ? m : n, values + i * pitch + j);
        }
    }
#endif
}
