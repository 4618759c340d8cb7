// Many arrays end to end in one.
#include "common.cuh"

// From the first block of array k on, a block takes that.
#define TAKE(k, before)       \
  if (block >= first##k) {    \
    from = a##k, n = n##k;    \
    to += n##before;          \
    first = first##k;         \
  }

// out: the arrays a0 (n0,), a1 (n1,), ... one after the other. Block first_k is the first of array
// k; a block takes `each` * 256 numbers, 256 neighbours at a time. Absent arrays begin behind the
// last block.
template <typename T>
__global__ void __launch_bounds__(256) collect(
    T* __restrict__ out, int each, const T* a0, OPTIONAL const T* a1, OPTIONAL const T* a2,
    OPTIONAL const T* a3, OPTIONAL const T* a4, OPTIONAL const T* a5, OPTIONAL const T* a6,
    OPTIONAL const T* a7, OPTIONAL const T* a8, OPTIONAL const T* a9, OPTIONAL const T* a10,
    OPTIONAL const T* a11, OPTIONAL const T* a12, OPTIONAL const T* a13, OPTIONAL const T* a14,
    OPTIONAL const T* a15, long long n0, long long n1, long long n2, long long n3, long long n4,
    long long n5, long long n6, long long n7, long long n8, long long n9, long long n10,
    long long n11, long long n12, long long n13, long long n14, long long n15, int first1,
    int first2, int first3, int first4, int first5, int first6, int first7, int first8, int first9,
    int first10, int first11, int first12, int first13, int first14, int first15) {
  int block = blockIdx.x, first = 0;
  const T* from = a0;
  long long n = n0, to = 0;
  TAKE(1, 0) TAKE(2, 1) TAKE(3, 2) TAKE(4, 3) TAKE(5, 4) TAKE(6, 5) TAKE(7, 6) TAKE(8, 7)
  TAKE(9, 8) TAKE(10, 9) TAKE(11, 10) TAKE(12, 11) TAKE(13, 12) TAKE(14, 13) TAKE(15, 14)
  long long at = (long long)(block - first) * blockDim.x * each + threadIdx.x;
  for (int i = 0; i < each && at < n; ++i, at += blockDim.x) out[to + at] = from[at];
}
