// A stand-in for cuBLAS: matrix products by the OpenBLAS inside NumPy's wheel (column-major, as
// cuBLAS counts). half and bf16 matrices are multiplied in float32. The rest of cuBLAS: build.py.
#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

typedef std::int64_t Int;
template <class T>
using Product = void (*)(int, int, int, Int, Int, Int, T, const T*, Int, const T*, Int, T, T*,
                         Int);
static Product<float> sgemm;
static Product<double> dgemm;
static int math_mode, pointer_mode;
static void* stream;

enum { OK = 0, NOT_SUPPORTED = 15 };
enum Type { R_32F = 0, R_64F = 1, R_16F = 2, R_16BF = 14 };
struct Counts {
  long products, tf32, half;
};
static Counts counts;

static int flag(int operation) { return operation == 0 ? 111 : 112; } // as it is, transposed

static float widen(std::uint16_t bits, int type) {
  if (type == R_16F) {
    _Float16 half;
    std::memcpy(&half, &bits, 2);
    return float(half);
  }
  std::uint32_t wide = std::uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}
static std::uint16_t narrow(float value, int type) {
  std::uint16_t bits;
  if (type == R_16F) {
    _Float16 half = _Float16(value);
    std::memcpy(&bits, &half, 2);
    return bits;
  }
  std::uint32_t wide;
  std::memcpy(&wide, &value, 4);
  if (value != value) return std::uint16_t(wide >> 16 | 0x40);
  return std::uint16_t((wide + 0x7fff + (wide >> 16 & 1)) >> 16); // to the nearest, ties to even
}
static int width(int type) { return type == R_64F ? 8 : type == R_32F ? 4 : 2; }

// a column-major matrix in float32: itself, or a copy
static const float* as_float(const void* a, int type, int rows, int columns, int stride,
                             std::vector<float>& copy) {
  if (type == R_32F) return static_cast<const float*>(a);
  copy.resize(size_t(stride) * columns);
  auto bits = static_cast<const std::uint16_t*>(a);
  for (int j = 0; j < columns; ++j)
    for (int i = 0; i < rows; ++i)
      copy[size_t(j) * stride + i] = widen(bits[size_t(j) * stride + i], type);
  return copy.data();
}

// of runtime.cpp: calls are noted, and queued where a stream is captured
static void (*note)(const char*, size_t);
static bool (*queue)(const std::function<void()>&);

template <class T> static void append(std::string& call, const T& value) {
  call.append(reinterpret_cast<const char*>(&value), sizeof value);
}

extern "C" {
void blas_connect(decltype(note) to, decltype(queue) by) { note = to, queue = by; }
int blas_begin(const char* openblas) {
  void* library = dlopen(openblas, RTLD_NOW);
  if (!library) return 1;
  sgemm = reinterpret_cast<Product<float>>(dlsym(library, "scipy_cblas_sgemm64_"));
  dgemm = reinterpret_cast<Product<double>>(dlsym(library, "scipy_cblas_dgemm64_"));
  return !sgemm || !dgemm;
}
Counts* blas_counts() { return &counts; }

int cublasCreate_v2(void** handle) { return *handle = &counts, OK; }
int cublasDestroy_v2(void*) { return OK; }
int cublasSetStream_v2(void*, void* s) { return stream = s, OK; }
int cublasGetStream_v2(void*, void** s) { return *s = stream, OK; }
int cublasSetMathMode(void*, int mode) { return math_mode = mode, OK; }
int cublasGetMathMode(void*, int* mode) { return *mode = math_mode, OK; }
int cublasSetPointerMode_v2(void*, int mode) { return pointer_mode = mode, OK; }
int cublasGetPointerMode_v2(void*, int* mode) { return *mode = pointer_mode, OK; }
int cublasSetWorkspace_v2(void*, void*, size_t) { return OK; }
int cublasGetVersion_v2(void*, int* version) { return *version = 130000, OK; }

static int multiply(int ta, int tb, int m, int n, int k, const void* alpha, const void* a,
                    int a_type, int lda, const void* b, int b_type, int ldb, const void* beta,
                    void* c, int c_type, int ldc, int compute);
// C = alpha op(A) op(B) + beta C
int cublasGemmEx(void*, int ta, int tb, int m, int n, int k, const void* alpha, const void* a,
                 int a_type, int lda, const void* b, int b_type, int ldb, const void* beta,
                 void* c, int c_type, int ldc, int compute, int) {
  std::string one(static_cast<const char*>(alpha), c_type == R_64F ? 8 : 4);
  std::string keep(static_cast<const char*>(beta), one.size());
  std::string call = "product " + one + keep;
  for (int number : {ta, tb, m, n, k, a_type, lda, b_type, ldb, c_type, ldc, compute})
    append(call, number);
  append(call, a), append(call, b), append(call, c);
  note(call.data(), call.size());
  auto action = [=] {
    return multiply(ta, tb, m, n, k, one.data(), a, a_type, lda, b, b_type, ldb, keep.data(), c,
                    c_type, ldc, compute);
  };
  counts.products++;
  if (compute == 77) counts.tf32++; // CUBLAS_COMPUTE_32F_FAST_TF32; multiplied in full here
  if (a_type != R_32F && a_type != R_64F) counts.half++;
  return queue([=] { action(); }) ? OK : action();
}
static int multiply(int ta, int tb, int m, int n, int k, const void* alpha, const void* a,
                    int a_type, int lda, const void* b, int b_type, int ldb, const void* beta,
                    void* c, int c_type, int ldc, int compute) {
  if (a_type == R_64F && b_type == R_64F && c_type == R_64F) {
    dgemm(102, flag(ta), flag(tb), m, n, k, *static_cast<const double*>(alpha),
          static_cast<const double*>(a), lda, static_cast<const double*>(b), ldb,
          *static_cast<const double*>(beta), static_cast<double*>(c), ldc);
    return OK;
  }
  for (int type : {a_type, b_type, c_type})
    if (type != R_32F && type != R_16F && type != R_16BF) return NOT_SUPPORTED;
  if (compute != 68 && compute != 77 && compute != 74 && compute != 75) return NOT_SUPPORTED;
  std::vector<float> a_copy, b_copy, c_copy;
  const float* fa = as_float(a, a_type, ta ? k : m, ta ? m : k, lda, a_copy);
  const float* fb = as_float(b, b_type, tb ? n : k, tb ? k : n, ldb, b_copy);
  const float scale = *static_cast<const float*>(beta);
  float* fc = static_cast<float*>(c);
  auto bits = static_cast<std::uint16_t*>(c);
  if (c_type != R_32F) {
    if (scale == 0)
      c_copy.resize(size_t(ldc) * n);
    else
      as_float(c, c_type, m, n, ldc, c_copy);
    fc = c_copy.data();
  }
  sgemm(102, flag(ta), flag(tb), m, n, k, *static_cast<const float*>(alpha), fa, lda, fb, ldb,
        scale, fc, ldc);
  if (c_type != R_32F)
    for (int j = 0; j < n; ++j)
      for (int i = 0; i < m; ++i)
        bits[size_t(j) * ldc + i] = narrow(fc[size_t(j) * ldc + i], c_type);
  return OK;
}
int cublasGemmStridedBatchedEx(void* handle, int ta, int tb, int m, int n, int k,
                               const void* alpha, const void* a, int a_type, int lda,
                               long long a_step, const void* b, int b_type, int ldb,
                               long long b_step, const void* beta, void* c, int c_type, int ldc,
                               long long c_step, int batch, int compute, int how) {
  Counts once = counts;
  for (int i = 0; i < batch; ++i) {
    auto ai = static_cast<const char*>(a) + i * a_step * width(a_type);
    auto bi = static_cast<const char*>(b) + i * b_step * width(b_type);
    auto ci = static_cast<char*>(c) + i * c_step * width(c_type);
    int status = cublasGemmEx(handle, ta, tb, m, n, k, alpha, ai, a_type, lda, bi, b_type, ldb,
                              beta, ci, c_type, ldc, compute, how);
    if (status != OK) return status;
    if (i == 0) once = counts; // one call
  }
  return counts = once, OK;
}

#define PRODUCTS(letter, T, type, compute)                                                       \
  int cublas##letter##gemm_v2(void* h, int ta, int tb, int m, int n, int k, const T* alpha,      \
                              const T* a, int lda, const T* b, int ldb, const T* beta, T* c,     \
                              int ldc) {                                                         \
    return cublasGemmEx(h, ta, tb, m, n, k, alpha, a, type, lda, b, type, ldb, beta, c, type,    \
                        ldc, compute, -1);                                                       \
  }                                                                                              \
  int cublas##letter##gemmStridedBatched(void* h, int ta, int tb, int m, int n, int k,           \
                                         const T* alpha, const T* a, int lda, long long a_step,  \
                                         const T* b, int ldb, long long b_step, const T* beta,   \
                                         T* c, int ldc, long long c_step, int batch) {           \
    return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, alpha, a, type, lda, a_step, b, type,  \
                                      ldb, b_step, beta, c, type, ldc, c_step, batch, compute,   \
                                      -1);                                                       \
  }                                                                                              \
  int cublas##letter##gemmBatched(void* h, int ta, int tb, int m, int n, int k, const T* alpha,  \
                                  const T* const a[], int lda, const T* const b[], int ldb,      \
                                  const T* beta, T* const c[], int ldc, int batch) {             \
    for (int i = 0; i < batch; ++i) {                                                            \
      cublas##letter##gemm_v2(h, ta, tb, m, n, k, alpha, a[i], lda, b[i], ldb, beta, c[i], ldc); \
      counts.products -= i > 0;                                                                  \
    }                                                                                            \
    return OK;                                                                                   \
  }
PRODUCTS(S, float, R_32F, 68)
PRODUCTS(D, double, R_64F, 70)
}
