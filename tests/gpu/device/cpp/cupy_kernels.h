// What CuPy's own kernels take from cuda_fp16.h, where it stays out: half as its 16 bits.
#pragma once
#include "language.h"
inline unsigned short __float2half_rn(float x) {
  return emulator::bits_of<unsigned short>(static_cast<_Float16>(x));
}
inline float __half2float(unsigned short bits) {
  return static_cast<float>(emulator::bits_of<_Float16>(bits));
}
#define __half_as_ushort(h) (static_cast<__half_raw>(h)).x
#define __ushort_as_half(bits) half(__half_raw{static_cast<unsigned short>(bits)})
