// Operands of products rounded to 16 bits.
#include "common.cuh"
#include "narrow.cuh"

// Two arrays in one launch: the first blocks take x, the others x2.
__global__ void __launch_bounds__(256) narrow(
    const float* __restrict__ x, unsigned short* __restrict__ y, long long n,
    OPTIONAL const float* __restrict__ x2, OPTIONAL unsigned short* __restrict__ y2, long long n2,
    int bf16, int each) {
  long long block = blockIdx.x, first = (n + 256 * each - 1) / (256 * each);
  if (block < first)
    narrow_part(x, y, n, bf16, each, block);
  else
    narrow_part(x2, y2, n2, bf16, each, block - first);
}
