// The columns of a convolution, gathered from images, and back.
//
// images  (n, h, w, groups * c)
// columns (groups, n, p, q, r, s, c): for each group and output pixel (p, q), its r x s window
//
// Both kernels only gather: each number is written by one thread, once, and sums have a fixed
// order. Offsets are 64-bit; pixels and pieces are counted in 32 bits.
#include "common.cuh"
#include "narrow.cuh"

// A piece is what lies together in both: a whole line of a window, s * c numbers, where the taps
// are neighbours in the image, else one tap, c numbers. threadIdx.y goes along the pieces, of which
// there are `lines` (r or r * s) for each output pixel, threadIdx.x along the numbers of a piece.
// So a warp reads and writes whole lines of memory, and divides once for a piece, not for each
// number. Positions outside the image are zero: a piece that crosses the border is cut there.
template <typename T, typename To, typename Convert>
__device__ __forceinline__ void gather(
    const T* __restrict__ x, To* __restrict__ columns, int pieces, int lines, int length, int n,
    int h, int w, int c, int p, int q, int s, int groups, int down, int across, int top, int left,
    int row_step, int column_step, Convert convert) {
  int piece = blockIdx.x * blockDim.y + threadIdx.y;
  if (piece >= pieces) return;
  bool whole_line = length != c;  // taps are neighbours, and there is one group
  int line = piece % lines, rest = piece / lines;
  int j = rest % q;
  rest /= q;
  int i = rest % p;
  rest /= p;
  int image = rest % n, group = rest / n;
  int u = whole_line ? line : line / s, v = whole_line ? 0 : line % s;
  int row = i * down + u * row_step - top, column = j * across + v * column_step - left;

  // where the piece begins in its line of the image, and which of its numbers are inside
  long long width = (long long)w * c * groups, start = (long long)column * c * groups + group * c;
  long long first = whole_line ? max(0LL, -start) : (column >= 0 ? 0 : length);
  long long last = whole_line ? min((long long)length, width - start) : (column < w ? length : 0);
  if (row < 0 || row >= h) last = 0;
  long long from = ((long long)image * h + row) * width + start, to = (long long)piece * length;
  for (int k = threadIdx.x; k < length; k += blockDim.x)
    columns[to + k] = k >= first && k < last ? convert(x[from + k]) : (To)0;
}

template <typename T>
__global__ void __launch_bounds__(256) im2col(
    const T* __restrict__ x, T* __restrict__ columns, int pieces, int lines, int length, int n,
    int h, int w, int c, int p, int q, int s, int groups, int down, int across, int top, int left,
    int row_step, int column_step) {
  gather(
      x, columns, pieces, lines, length, n, h, w, c, p, q, s, groups, down, across, top, left,
      row_step, column_step, [](T v) { return v; });
}

// The columns rounded to 16 bits, and by the blocks after those another array, the product's other
// operand: `beside` as `narrow`.
__global__ void __launch_bounds__(256) im2col_narrow(
    const float* __restrict__ x, unsigned short* __restrict__ columns,
    OPTIONAL const float* __restrict__ beside, OPTIONAL unsigned short* __restrict__ narrow,
    long long count, int each, int bf16, int pieces, int lines, int length, int n, int h, int w,
    int c, int p, int q, int s, int groups, int down, int across, int top, int left, int row_step,
    int column_step) {
  long long after = (long long)blockIdx.x - (pieces + blockDim.y - 1) / blockDim.y;
  if (after >= 0)
    narrow_part(beside, narrow, count, bf16, each, after);
  else
    gather(
        x, columns, pieces, lines, length, n, h, w, c, p, q, s, groups, down, across, top, left,
        row_step, column_step, [bf16](float v) { return narrowed(v, bf16); });
}

// A thread for each pixel of the images (threadIdx.y) and channel (threadIdx.x): it adds up, tap by
// tap, the column numbers that were gathered from there, and `total`. A warp reads neighbouring
// channels.
template <typename T>
__global__ void __launch_bounds__(256) col2im(
    const T* __restrict__ columns, OPTIONAL const T* __restrict__ total, T* __restrict__ x,
    int pixels, int n, int h, int w, int c, int p, int q, int r, int s, int groups, int down,
    int across, int top, int left, int row_step, int column_step) {
  int pixel = blockIdx.x * blockDim.y + threadIdx.y;
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (pixel >= pixels || channel >= c * groups) return;
  int column = pixel % w, rest = pixel / w;
  int row = rest % h, image = rest / h;
  int group = groups == 1 ? 0 : channel / c, k = channel - group * c;
  T sum = 0;
  for (int u = 0; u < r; ++u) {
    int i = row + top - u * row_step;  // the first row of the window, times the stride
    if (i < 0) break;
    if (down > 1) {
      if (i % down) continue;
      i /= down;
    }
    if (i >= p) continue;
    for (int v = 0; v < s; ++v) {
      int j = column + left - v * column_step;
      if (j < 0) break;
      if (across > 1) {
        if (j % across) continue;
        j /= across;
      }
      if (j >= q) continue;
      long long window = (((long long)group * n + image) * p + i) * q + j;
      sum += columns[((window * r + u) * s + v) * c + k];
    }
  }
  long long at = (long long)pixel * c * groups + channel;
  x[at] = total ? sum + total[at] : sum;
}
