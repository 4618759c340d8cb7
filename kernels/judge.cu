// What a training step measured, and whether it is taken: decided here, so that nobody has to wait.
#include "common.cuh"

// The sum over a block of 256 threads, in all of them, in one order.
__device__ double block_sum(double value) {
  __shared__ double sums[256];
  sums[threadIdx.x] = value;
  for (int half = 128; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  __syncthreads();
  value = sums[0];
  __syncthreads();  // the array may be used again
  return value;
}

// parts (blocks,): the sum of squares of the `each` * 256 numbers of each block.
template <typename T>
__global__ void __launch_bounds__(256) sum_squares(
    const T* __restrict__ g, double* __restrict__ parts, long long n, int each) {
  long long start = (long long)blockIdx.x * blockDim.x * each + threadIdx.x;
  double total = 0;
  for (int k = 0; k < each; ++k) {
    long long i = start + (long long)k * blockDim.x;
    if (i >= n) break;
    total += (double)g[i] * (double)g[i];
  }
  total = block_sum(total);
  if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

// One block. state, from the parts of the sum of the gradients' squares, the batch's mean loss and
// hits (rows,), 1 for a right answer; and scale, the scale of the loss: see judge.py.
template <typename T>
__global__ void __launch_bounds__(256) judge(
    double* __restrict__ state, const double* __restrict__ parts, int count,
    OPTIONAL const T* __restrict__ loss, OPTIONAL const unsigned char* __restrict__ hits, int rows,
    double most, OPTIONAL double* __restrict__ scale, double least, double largest, int patience) {
  double total = 0, right = 0;
  for (int i = threadIdx.x; i < count; i += 256) total += parts[i];
  for (int i = threadIdx.x; i < rows; i += 256) right += hits[i];
  total = block_sum(total);
  right = block_sum(right);
  if (threadIdx.x != 0) return;
  double by = scale ? scale[2] : 1, norm = sqrt(total) / by, value = loss ? (double)*loss : 0;
  bool finite = norm - norm == 0;  // infinity less itself is NaN
  state[3] = value;
  state[4] = norm;
  state[5] += 1;
  bool lost = !finite && (!scale || by <= least);
  if (state[6] == 0 && (lost || value - value != 0)) state[6] = state[5];
  double factor = most / (norm + 1e-6);
  factor = finite && state[6] == 0 ? (factor < 1 ? factor : 1) / by : -1;
  state[0] = factor;
  if (scale) {
    double good = finite ? scale[3] + 1 : 0;
    scale[0] = factor;
    scale[1] = factor >= 0;
    scale[2] = !finite ? max(by / 2, least) : good < patience ? by : min(2 * by, largest);
    scale[3] = good < patience ? good : 0;
  }
  if (state[6] != 0) return;
  state[1] += value * rows;
  state[2] += right;
  if (finite) state[7] += norm;
}
