// What follows a convolution: + bias, + residual, ReLU, in one pass over its output.
#include "common.cuh"

// y (rows, c) in place. threadIdx.x takes neighbouring channels and threadIdx.y rows, `each` of
// them, so that a warp reads and writes one piece of memory and a channel's bias stays in a
// register.
template <typename T>
__global__ void __launch_bounds__(256) finish(
    T* __restrict__ y, OPTIONAL const T* __restrict__ bias, OPTIONAL const T* __restrict__ residual,
    long long rows, int c, int each, int relu) {
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (channel >= c) return;
  T plus = bias ? bias[channel] : (T)0;
  long long row = (long long)blockIdx.x * blockDim.y * each + threadIdx.y;
  for (int i = 0; i < each && row < rows; ++i, row += blockDim.y) {
    long long at = row * c + channel;
    T v = y[at] + plus;
    if (residual) v += residual[at];
    y[at] = relu ? rectified(v) : v;
  }
}
