// nvcuda::wmma without traffic between lanes: every lane holds whole A and B tiles, and owns those elements e of the
// accumulator with e % 32 == lane. As on the device, which element a lane owns is unspecified.
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace nvcuda {
namespace wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {
    static const bool by_rows = true;
};
struct col_major {
    static const bool by_rows = false;
};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment;
template <int M, int N, int K, class T, class Layout>
struct fragment<matrix_a, M, N, K, T, Layout> {
    static const int rows = M, columns = K, num_elements = M * K;
    T x[num_elements];
};
template <int M, int N, int K, class T, class Layout>
struct fragment<matrix_b, M, N, K, T, Layout> {
    static const int rows = K, columns = N, num_elements = K * N;
    T x[num_elements];
};
template <int M, int N, int K, class T>
struct fragment<accumulator, M, N, K, T, void> {
    static const int num_elements = M * N / 32;
    T x[num_elements];
};

template <class Use, int M, int N, int K, class T, class Layout>
void fill_fragment(fragment<Use, M, N, K, T, Layout>& tile, typename emu_same<T>::type value) {
    for (T& element : tile.x) element = value;
}

template <class Use, int M, int N, int K, class T, class Layout>
void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& tile, const T* from, unsigned stride) {
    for (int i = 0; i < tile.rows; i++)
        for (int j = 0; j < tile.columns; j++)
            tile.x[i * tile.columns + j] = from[Layout::by_rows ? i * stride + j : j * stride + i];
}

template <int N>
size_t emu_owned(int slot, unsigned stride, layout_t layout) {
    unsigned element = slot * 32 + emu_lane(), i = element / N, j = element % N;
    return layout == mem_row_major ? (size_t)i * stride + j : (size_t)j * stride + i;
}

template <int M, int N, int K, class T>
void load_matrix_sync(fragment<accumulator, M, N, K, T>& tile, const T* from, unsigned stride, layout_t layout) {
    for (int slot = 0; slot < tile.num_elements; slot++) tile.x[slot] = from[emu_owned<N>(slot, stride, layout)];
}

template <int M, int N, int K, class T>
void store_matrix_sync(T* to, const fragment<accumulator, M, N, K, T>& tile, unsigned stride, layout_t layout) {
    for (int slot = 0; slot < tile.num_elements; slot++) to[emu_owned<N>(slot, stride, layout)] = tile.x[slot];
}

template <class T>
struct emu_accumulate {
    typedef float type;
};
template <>
struct emu_accumulate<int> {
    typedef int type;
};

template <int M, int N, int K, class T, class LayoutA, class LayoutB, class C, class D>
void mma_sync(fragment<accumulator, M, N, K, D>& d, const fragment<matrix_a, M, N, K, T, LayoutA>& a,
              const fragment<matrix_b, M, N, K, T, LayoutB>& b, const fragment<accumulator, M, N, K, C>& c) {
    typedef typename emu_accumulate<C>::type Sum;
    for (int slot = 0; slot < d.num_elements; slot++) {
        int element = slot * 32 + emu_lane(), i = element / N, j = element % N;
        Sum sum = c.x[slot];
        for (int k = 0; k < K; k++) sum += (Sum)a.x[i * K + k] * (Sum)b.x[k * N + j];
        d.x[slot] = sum;
    }
}

}  // namespace wmma
}  // namespace nvcuda
