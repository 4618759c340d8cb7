// The CUDA C++ language for g++: keywords, thread indices, barriers. Put before a kernel's
// source.
//
// A kernel becomes an ordinary function; the engine (fibers.cpp, threads.cpp) calls it once for
// every CUDA thread.
#pragma once
#include <cmath>
#include <math.h> // so that sqrt, exp, fma ... of a float are floats, as in CUDA
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

using std::isfinite;
using std::isinf;
using std::isnan;
using std::ptrdiff_t;
using std::signbit;
using std::size_t;

#if __has_include(<vector_types.h>) // of a CUDA wheel; cuda_fp16.h brings it along
#include <vector_functions.h>
#include <vector_types.h>
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __align__
#else
struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__
#ifndef __restrict__
#define __restrict__ __restrict
#endif
#define MINIRES_EMULATOR 1

// Shared memory lasts as long as a block, and blocks run one after another, so one copy suffices.
// Plain: thread-local, as the engine can find all thread-local memory of a module and poison it.
#if defined(EMULATOR_POISON)
#define __shared__ static thread_local
#else
#define __shared__ static
#endif

namespace emulator {
struct Thread {
  uint3 index, block;
  unsigned linear; // place in its block, 0 to 1023
};
#if defined(EMULATOR_THREADS)
extern thread_local Thread* current;
#else
extern Thread* current;
#endif
extern dim3 grid_size, block_size;
extern unsigned char* dynamic_shared;
void meet_block(int line);          // all threads of the block; `line` tells barriers apart
void meet_warp(unsigned mask);      // the lanes of `mask` in this thread's warp
std::uint64_t* slot(unsigned lane); // where a lane of this thread's warp leaves a value
void pause();                       // others may run here: every atomic operation
void fail(const char* format, ...); // the launch returns this error
} // namespace emulator

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::current->block)
#define blockDim emulator::block_size
#define gridDim emulator::grid_size
#define warpSize 32
// `extern __shared__ T name[];` is rewritten to this
#define EMULATOR_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(emulator::dynamic_shared)
#define __syncthreads() emulator::meet_block(__LINE__)

inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::meet_warp(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

#include "intrinsics.h"
#include "signature.h"
