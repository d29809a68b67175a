/* The numbers of one launch of a convolution over up to three spatial axes (missing ones have extent 1).

   Positions count through `padded` rows: position q stands for output (q / (high * wide), q / wide % high, q % wide), and so for
   nothing where that is outside the output. Offsets and strides are in elements. */
typedef struct {
    long m, k;                /* output channels of a group; products of an output: channels of a group times window */
    long groups, channels;    /* groups; input channels of one */
    long x, x_image, x_channel, x_axis[3];
    long w, w_row, w_channel, w_axis[3];
    long y, y_image, y_channel, y_axis[3];
    long in[3], out[3], window[3];
    long stride[3], dilation[3], before[3];
    long phase[3];            /* extents of the padded input, of one phase of the strides */
    long plane;               /* elements of a channel of the padded input, all phases */
    long positions;
    long offsets, weights;    /* where these begin in scratch memory; the padded input begins at 0 */
    long dense;               /* the weights lie in scratch memory */
    long rows, columns;       /* output channels and positions of one work item */
} Conv;

/* Loops that stay scalar serve few elements: vectorising them costs more compilation than all else. */
#define SCALAR_LOOP _Pragma("clang loop vectorize(disable) unroll(disable)")
