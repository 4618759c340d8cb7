// CUDA's built-in functions: warp exchanges, atomics, bits, fast mathematics.
#pragma once

template <class T> inline T max(T a, T b) { return a < b ? b : a; }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class A, class B> inline typename std::common_type<A, B>::type max(A a, B b) {
  typedef typename std::common_type<A, B>::type T;
  return max<T>(static_cast<T>(a), static_cast<T>(b));
}
template <class A, class B> inline typename std::common_type<A, B>::type min(A a, B b) {
  typedef typename std::common_type<A, B>::type T;
  return min<T>(static_cast<T>(a), static_cast<T>(b));
}

namespace emulator {
inline unsigned lane() { return current->linear & 31; }

// every lane of `mask` leaves `value` and takes that of lane `source`
template <class T> inline T exchange(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  if (!(mask >> lane() & 1))
    fail("warp exchange: lane %u calls but is not in mask %08x", lane(), mask);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  *slot(lane()) = bits;
  meet_warp(mask);
  if (!(mask >> (source & 31) & 1))
    fail("warp exchange: reads lane %u, which is not in mask %08x", source & 31, mask);
  bits = *slot(source & 31);
  std::memcpy(&value, &bits, sizeof(T));
  meet_warp(mask);
  return value;
}

template <class To, class From> inline To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

template <class T, class F> inline T update(T* p, F f) {
  pause();
  T before, after;
  __atomic_load(p, &before, __ATOMIC_RELAXED);
  do after = f(before);
  while (
      !__atomic_compare_exchange(p, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}
} // namespace emulator

// `width` splits a warp into groups; a lane whose source lies outside its group keeps its own
// value
template <class T> inline T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
  unsigned l = emulator::lane();
  return emulator::exchange(mask, v, (l & ~(width - 1)) | (source & (width - 1)));
}
template <class T> inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
  unsigned l = emulator::lane(), s = l + by;
  return emulator::exchange(mask, v, s / width == l / width ? s : l);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
  unsigned l = emulator::lane();
  return emulator::exchange(mask, v, l % width >= by ? l - by : l);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
  unsigned l = emulator::lane(), s = l ^ bits;
  return emulator::exchange(mask, v, s / width <= l / width ? s : l);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned votes = 0;
  for (unsigned i = 0; i < 32; ++i)
    if (mask >> i & 1)
      votes |= static_cast<unsigned>(emulator::exchange(mask, predicate, i) != 0) << i;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}
inline unsigned __activemask() { return 0xffffffffu; }

template <class T, class U> inline T atomicAdd(T* p, U v) {
  return emulator::update(p, [=](T o) { return static_cast<T>(o + static_cast<T>(v)); });
}
template <class T, class U> inline T atomicSub(T* p, U v) {
  return emulator::update(p, [=](T o) { return static_cast<T>(o - static_cast<T>(v)); });
}
template <class T, class U> inline T atomicMax(T* p, U v) {
  return emulator::update(p, [=](T o) { return max(o, static_cast<T>(v)); });
}
template <class T, class U> inline T atomicMin(T* p, U v) {
  return emulator::update(p, [=](T o) { return min(o, static_cast<T>(v)); });
}
template <class T, class U> inline T atomicOr(T* p, U v) {
  return emulator::update(p, [=](T o) { return static_cast<T>(o | static_cast<T>(v)); });
}
template <class T, class U> inline T atomicAnd(T* p, U v) {
  return emulator::update(p, [=](T o) { return static_cast<T>(o & static_cast<T>(v)); });
}
template <class T, class U> inline T atomicExch(T* p, U v) {
  return emulator::update(p, [=](T) { return static_cast<T>(v); });
}
template <class T, class U, class V> inline T atomicCAS(T* p, U expected, V v) {
  return emulator::update(
      p, [=](T o) { return o == static_cast<T>(expected) ? static_cast<T>(v) : o; });
}

template <class T> inline T __ldg(const T* p) { return *p; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float rsqrt(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }

inline int __float_as_int(float x) { return emulator::bits_of<int>(x); }
inline float __int_as_float(int x) { return emulator::bits_of<float>(x); }
inline unsigned __float_as_uint(float x) { return emulator::bits_of<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bits_of<float>(x); }
inline long long __double_as_longlong(double x) { return emulator::bits_of<long long>(x); }
inline double __longlong_as_double(long long x) { return emulator::bits_of<double>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
inline int __mulhi(int a, int b) {
  return static_cast<int>(static_cast<std::int64_t>(a) * b >> 32);
}
