// Dropout: the mask is drawn, not stored.
#include "common.cuh"
#include "philox.cuh"

// y (n,): x * scale where the number's draw is at least p, else 0. A thread for each block of four
// draws, and so for four numbers that lie together: a warp reads and writes 128 neighbours.
template <typename T>
__global__ void __launch_bounds__(256) drop(
    const T* __restrict__ x, T* __restrict__ y, long long n, float p, T scale,
    unsigned long long seed, unsigned long long stream,
    OPTIONAL const unsigned long long* __restrict__ step_at, unsigned long long step) {
  long long block = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (4 * block >= n) return;
  Words words = philox(seed, stream, current(step_at, step), (unsigned)block);
  for (int lane = 0; lane < 4 && 4 * block + lane < n; ++lane) {
    long long i = 4 * block + lane;
    float u = (float)(words.at[lane] >> 8) * 5.9604644775390625e-8f;  // 2^-24: exact
    y[i] = u >= p ? x[i] * scale : (T)0;
  }
}
