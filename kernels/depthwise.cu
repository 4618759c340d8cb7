// Depthwise convolution: each channel has a window of its own. x (n, h, w, c), taps w (r, s, c), y
// (n, p, q, c).
//
// threadIdx.x takes neighbouring channels and threadIdx.y pixels: a warp reads one piece of memory
// for each tap, and the taps of neighbouring pixels are in the cache. All three gather: a number is
// written by one thread, and sums have a fixed order.
#include "common.cuh"

// y + bias + residual, then ReLU, as in finish.cu.
template <typename T>
__global__ void __launch_bounds__(256) depthwise(
    const T* __restrict__ x, const T* __restrict__ taps, OPTIONAL const T* __restrict__ bias,
    OPTIONAL const T* __restrict__ residual, T* __restrict__ y, int pixels, int h, int w, int c,
    int p, int q, int r, int s, int down, int across, int top, int left, int row_step,
    int column_step, int relu) {
  int pixel = blockIdx.x * blockDim.y + threadIdx.y;
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (pixel >= pixels || channel >= c) return;
  int j = pixel % q, rest = pixel / q;
  int i = rest % p, image = rest / p;
  T sum = 0;
  for (int u = 0; u < r; ++u) {
    int row = i * down + u * row_step - top;
    if (row < 0 || row >= h) continue;
    long long line = ((long long)image * h + row) * w;
    for (int v = 0; v < s; ++v) {
      int column = j * across + v * column_step - left;
      if (column < 0 || column >= w) continue;
      sum += x[(line + column) * c + channel] * taps[(u * s + v) * c + channel];
    }
  }
  long long at = (long long)pixel * c + channel;
  if (bias) sum += bias[channel];
  if (residual) sum += residual[at];
  y[at] = relu ? rectified(sum) : sum;
}

// dx of a pixel: over the outputs that saw it, plus `total`.
template <typename T>
__global__ void __launch_bounds__(256) depthwise_input(
    const T* __restrict__ g, const T* __restrict__ taps, OPTIONAL const T* __restrict__ total,
    T* __restrict__ dx, int pixels, int h, int w, int c, int p, int q, int r, int s, int down,
    int across, int top, int left, int row_step, int column_step) {
  int pixel = blockIdx.x * blockDim.y + threadIdx.y;
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (pixel >= pixels || channel >= c) return;
  int column = pixel % w, rest = pixel / w;
  int row = rest % h, image = rest / h;
  T sum = 0;
  for (int u = 0; u < r; ++u) {
    int i = row + top - u * row_step;  // the output's line, times the stride
    if (i < 0) break;
    if (i % down || i / down >= p) continue;
    long long line = ((long long)image * p + i / down) * q;
    for (int v = 0; v < s; ++v) {
      int j = column + left - v * column_step;
      if (j < 0) break;
      if (j % across || j / across >= q) continue;
      sum += g[(line + j / across) * c + channel] * taps[(u * s + v) * c + channel];
    }
  }
  long long at = (long long)pixel * c + channel;
  dx[at] = total ? sum + total[at] : sum;
}

// parts (parts, r * s, c): the sums over `lines_a_part` lines of outputs, of which there are n * p;
// the parts are the blocks of the grid's x, the taps those of its z. A thread adds up its pixels of
// a line in T and the lines in double, and the threads of a block theirs through shared memory.
template <typename T>
__global__ void __launch_bounds__(256) depthwise_weight(
    const T* __restrict__ x, const T* __restrict__ g, double* __restrict__ parts, int lines,
    int lines_a_part, int h, int w, int c, int p, int q, int s, int down, int across, int top,
    int left, int row_step, int column_step) {
  __shared__ double sums[256];
  int channel = blockIdx.y * blockDim.x + threadIdx.x, tap = blockIdx.z;
  int u = tap / s, v = tap % s;
  int first = blockIdx.x * lines_a_part, last = min(lines, first + lines_a_part);
  double total = 0;
  for (int line = first; channel < c && line < last; ++line) {
    int image = line / p, row = line % p * down + u * row_step - top;
    if (row < 0 || row >= h) continue;
    long long from = ((long long)image * h + row) * w, with = (long long)line * q;
    T sum = 0;
    for (int j = threadIdx.y; j < q; j += blockDim.y) {
      int column = j * across + v * column_step - left;
      if (column < 0 || column >= w) continue;
      sum += x[(from + column) * c + channel] * g[(with + j) * c + channel];
    }
    total += sum;
  }
  int at = threadIdx.y * blockDim.x + threadIdx.x;
  sums[at] = total;
  for (int half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) sums[at] += sums[at + half * blockDim.x];
  }
  if (channel < c && threadIdx.y == 0)
    parts[((long long)blockIdx.x * gridDim.z + tap) * c + channel] = sums[at];
}

// dw (numbers,): the sums of the parts (count, numbers).
template <typename T>
__global__ void __launch_bounds__(256) depthwise_sum(
    const double* __restrict__ parts, T* __restrict__ dw, int count, int numbers) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= numbers) return;
  double total = 0;
  for (int part = 0; part < count; ++part) total += parts[(long long)part * numbers + i];
  dw[i] = (T)total;
}
