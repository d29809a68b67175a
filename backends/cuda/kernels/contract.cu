// Products of matrices over a batch. A problem P names the type of its sums, P::Sum, and tells its extents (p.batches(), p.m(),
// p.n(), p.k()), where a product's matrices begin and how far apart their rows and columns are, in elements (p.a_first(batch),
// p.a_row(), p.a_column(); b likewise), an element as a term of a sum (p.a(offset), p.b(offset)), and what becomes of a
// sum: p.finish(batch, row, column, sum).
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

__device__ inline f32 multiply_add(f32 a, f32 b, f32 c) { return fmaf(a, b, c); }
__device__ inline f64 multiply_add(f64 a, f64 b, f64 c) { return fma(a, b, c); }
__device__ inline u32 multiply_add(u32 a, u32 b, u32 c) { return a * b + c; }
__device__ inline u64 multiply_add(u64 a, u64 b, u64 c) { return a * b + c; }
__device__ inline i32 multiply_add(i32 a, i32 b, i32 c) { return (i32)((u32)a * (u32)b + (u32)c); }
__device__ inline i64 multiply_add(i64 a, i64 b, i64 c) { return (i64)((u64)a * (u64)b + (u64)c); }

// A block of SIDE x SIDE threads computes a tile of TILE x TILE, each thread EACH x EACH of it, DEPTH terms at a time through
// shared memory. Neighbouring threads read along the axis that is contiguous. One block a tile.
template <class P>
__device__ inline void contract_shared(const P& p) {
    const int SIDE = 16, EACH = 4, TILE = SIDE * EACH, DEPTH = 16, THREADS = SIDE * SIDE;
    typedef typename P::Sum Sum;
    __shared__ Sum a_tile[DEPTH][TILE + 1], b_tile[DEPTH][TILE + 1];
    const i64 m = p.m(), n = p.n(), depth = p.k(), tiles = (n + TILE - 1) / TILE;
    const i64 column = blockIdx.x % tiles * TILE, above = blockIdx.x / tiles, bands = (m + TILE - 1) / TILE;
    const i64 row = above % bands * TILE, batch = above / bands;
    const i64 a_first = p.a_first(batch), a_row = p.a_row(), a_column = p.a_column();
    const i64 b_first = p.b_first(batch), b_row = p.b_row(), b_column = p.b_column();
    const int thread = threadIdx.x, x = thread % SIDE, y = thread / SIDE;
    Sum sum[EACH][EACH];
    UNROLL
    for (int i = 0; i < EACH; i++) {
        UNROLL
        for (int j = 0; j < EACH; j++) sum[i][j] = 0;
    }
    for (i64 first = 0; first < depth; first += DEPTH) {
        UNROLL
        for (int part = 0; part < TILE * DEPTH / THREADS; part++) {
            const int place = thread + part * THREADS;
            const int am = a_column == 1 ? place / DEPTH : place % TILE, ak = a_column == 1 ? place % DEPTH : place / TILE;
            const int bn = b_row == 1 ? place / DEPTH : place % TILE, bk = b_row == 1 ? place % DEPTH : place / TILE;
            Sum u = 0, v = 0;
            if (row + am < m && first + ak < depth) u = p.a(a_first + (row + am) * a_row + (first + ak) * a_column);
            if (column + bn < n && first + bk < depth) v = p.b(b_first + (first + bk) * b_row + (column + bn) * b_column);
            a_tile[ak][am] = u;
            b_tile[bk][bn] = v;
        }
        __syncthreads();
        UNROLL
        for (int k = 0; k < DEPTH; k++) {
            Sum u[EACH], v[EACH];
            UNROLL
            for (int i = 0; i < EACH; i++) {
                u[i] = a_tile[k][y + i * SIDE];
                v[i] = b_tile[k][x + i * SIDE];
            }
            UNROLL
            for (int i = 0; i < EACH; i++) {
                UNROLL
                for (int j = 0; j < EACH; j++) sum[i][j] = multiply_add(u[i], v[j], sum[i][j]);
            }
        }
        __syncthreads();
    }
    UNROLL
    for (int i = 0; i < EACH; i++) {
        UNROLL
        for (int j = 0; j < EACH; j++) {
            const i64 at = row + y + i * SIDE, across = column + x + j * SIDE;
            if (at < m && across < n) p.finish(batch, at, across, sum[i][j]);
        }
    }
}

// A thread computes EACH x EACH sums and waits for no other: for the emulator, where waiting costs more than memory.
template <class P>
__device__ inline void contract_alone(const P& p) {
    const int EACH = 4;
    typedef typename P::Sum Sum;
    const i64 m = p.m(), n = p.n(), depth = p.k(), tiles = (n + EACH - 1) / EACH, bands = (m + EACH - 1) / EACH;
    const i64 tile = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (tile >= p.batches() * bands * tiles) return;
    const i64 column = tile % tiles * EACH, row = tile / tiles % bands * EACH, batch = tile / tiles / bands;
    const i64 a_column = p.a_column(), b_row = p.b_row();
    i64 a[EACH], b[EACH];
    Sum sum[EACH][EACH];
    UNROLL
    for (int i = 0; i < EACH; i++) {
        // Beyond the edge, the last row and column once more.
        a[i] = p.a_first(batch) + (row + i < m ? row + i : m - 1) * p.a_row();
        b[i] = p.b_first(batch) + (column + i < n ? column + i : n - 1) * p.b_column();
        UNROLL
        for (int j = 0; j < EACH; j++) sum[i][j] = 0;
    }
    for (i64 k = 0; k < depth; k++) {
        Sum u[EACH], v[EACH];
        UNROLL
        for (int i = 0; i < EACH; i++) {
            u[i] = p.a(a[i] + k * a_column);
            v[i] = p.b(b[i] + k * b_row);
        }
        UNROLL
        for (int i = 0; i < EACH; i++) {
            UNROLL
            for (int j = 0; j < EACH; j++) sum[i][j] = multiply_add(u[i], v[j], sum[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < EACH; i++) {
        UNROLL
        for (int j = 0; j < EACH; j++) {
            if (row + i < m && column + j < n) p.finish(batch, row + i, column + j, sum[i][j]);
        }
    }
}
