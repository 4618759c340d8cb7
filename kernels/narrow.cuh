// float32 rounded to 16 bits, to the nearest, ties to even; bits as unsigned short.

__device__ __forceinline__ unsigned short to_bf16(float x) {
  unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;  // NaN
  return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Below 2^-14 fp16 counts in units of 2^-24, the last bit of a float between 0.5 and 1: adding 0.5
// rounds to that. From 65520 on, the carry makes infinity.
__device__ __forceinline__ unsigned short to_fp16(float x) {
  unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  unsigned half;
  if (bits >= 0x47800000)
    half = bits > 0x7f800000 ? 0x7e00 : 0x7c00;  // 65536 and more, infinity, NaN
  else if (bits < 0x38800000)
    half = __float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3f000000;
  else
    half = (bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13;
  return (unsigned short)(sign | half);
}

__device__ __forceinline__ unsigned short narrowed(float x, int bf16) {
  return bf16 ? to_bf16(x) : to_fp16(x);
}

// The part of numbers that block `block` takes, `each` a thread.
__device__ __forceinline__ void narrow_part(
    const float* __restrict__ x, unsigned short* __restrict__ y, long long n, int bf16, int each,
    long long block) {
  int threads = blockDim.x * blockDim.y;
  long long at = block * threads * each + threadIdx.y * blockDim.x + threadIdx.x;
  for (int k = 0; k < each && at < n; ++k, at += threads) y[at] = narrowed(x[at], bf16);
}
