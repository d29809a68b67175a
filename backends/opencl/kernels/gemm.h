/* The numbers of one launch of a matrix product C = A B over a batch of two axes.

   Element (m, k) of A in batch (o, i) lies at a + o * a_outer + i * a_inner + m * a_row + k * a_column, in elements; so for
   B (k, n) and C (m, n). The batch axis of the launch is o * inner + i. `flipped`: the host swapped the operands and C
   is the transpose of the result. `first` is the batch that the launch starts at. */
typedef struct {
    long m, n, k;
    long a, a_outer, a_inner, a_row, a_column;
    long b, b_outer, b_inner, b_row, b_column;
    long c, c_outer, c_inner, c_row, c_column;
    long inner, first, flipped;
    long rows, columns; /* of C, for one work item or group */
    long dense;         /* A lies in scratch memory */
    long panels;        /* where packed panels begin there */
} Gemm;
