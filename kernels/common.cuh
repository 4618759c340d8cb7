// What every .cu file here may use.
//
// The sources are plain CUDA C++17 without any header of CUDA's, for two compilers: NVRTC, and g++
// with the emulator of the tests.

// A pointer that may be null, and then means "without". The launcher reads the signatures, and lets
// None pass only here.
#define OPTIONAL

// A number that changes from step to step: from the GPU's memory where `at` is given, so that a
// recorded sequence of launches sees the new one each time it is replayed, else the argument.
template <typename N>
__device__ __forceinline__ N current(const N* at, N otherwise) {
  return at ? *at : otherwise;
}

// max(v, 0) that passes NaN on.
template <typename T>
__device__ __forceinline__ T rectified(T v) {
  return v <= (T)0 ? (T)0 : v;
}
