// Random bits.
#include "common.cuh"
#include "philox.cuh"

// out (n,): a thread for each block of four words, which lie together.
__global__ void __launch_bounds__(256) random_bits(
    unsigned* __restrict__ out, long long n, unsigned long long seed, unsigned long long stream,
    OPTIONAL const unsigned long long* __restrict__ step_at, unsigned long long step) {
  long long block = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (4 * block >= n) return;
  Words words = philox(seed, stream, current(step_at, step), (unsigned)block);
  for (int lane = 0; lane < 4 && 4 * block + lane < n; ++lane)
    out[4 * block + lane] = words.at[lane];
}
