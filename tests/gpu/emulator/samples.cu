// Kernels to test the emulator itself, with a fault to switch on in each.
typedef long long i64;

template <typename T>
__global__ void axpy(const T* __restrict__ x, T* __restrict__ y, i64 n, T a) {
  i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
#ifdef OUT_OF_BOUNDS
  if (i <= n) y[i] += a * x[i < n ? i : 0];
#else
  if (i < n) y[i] += a * x[i];
#endif
}

// the sum of each row: one block a row, warp shuffles, then shared memory
template <typename T>
__global__ void __launch_bounds__(256)
    row_sums(const T* __restrict__ x, T* __restrict__ sums, int width) {
  __shared__ T parts[32];
  const T* row = x + (i64)blockIdx.x * width;
  T sum = 0;
  for (int i = threadIdx.x; i < width; i += blockDim.x) sum += row[i];
  for (int by = 16; by > 0; by >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, by);
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = sum;
#ifndef MISSING_BARRIER
  __syncthreads();
#endif
  if (threadIdx.x == 0) {
    T total = 0;
#ifdef UNINITIALISED
    int warps = (blockDim.x + 31) / 32 + 1;
#else
    int warps = (blockDim.x + 31) / 32;
#endif
    for (int w = 0; w < warps; ++w) total += parts[w];
    sums[blockIdx.x] = total;
  }
}

// c = a b, in square tiles of dynamic shared memory
__global__ void product(const float* a, const float* b, float* c, int m, int n, int k) {
  extern __shared__ __align__(16) float tiles[];
  const int size = blockDim.x;
  float *left = tiles, *right = tiles + size * size;
  const int row = blockIdx.y * size + threadIdx.y, column = blockIdx.x * size + threadIdx.x;
  float sum = 0;
  for (int start = 0; start < k; start += size) {
    const int i = start + threadIdx.x, j = start + threadIdx.y;
    left[threadIdx.y * size + threadIdx.x] = row < m && i < k ? a[row * k + i] : 0.0f;
    right[threadIdx.y * size + threadIdx.x] = j < k && column < n ? b[j * n + column] : 0.0f;
    __syncthreads();
    for (int i = 0; i < size; ++i)
      sum += left[threadIdx.y * size + i] * right[i * size + threadIdx.x];
#ifndef SECOND_BARRIER_MISSING
    __syncthreads();
#endif
  }
  if (row < m && column < n) c[row * n + column] = sum;
}

__global__ void histogram(const int* bins, int* counts, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&counts[bins[i]], 1);
}

extern "C" __global__ void some_return(int* out) {
  if (threadIdx.x == 3) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void two_barriers(int* out) {
  if (threadIdx.x & 1)
    __syncthreads();
  else
    __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void wrong_mask(int* out) { out[threadIdx.x] = __shfl_sync(0x0000ffffu, 7, 0); }

__global__ void shifts(int* out, int by) { out[threadIdx.x] = (int)threadIdx.x << by; }

// every warp exchange at once: what each lane gets
__global__ void exchanges(int* out, int width) {
  int lane = threadIdx.x, n = blockDim.x;
  out[lane] = __shfl_down_sync(0xffffffffu, lane, 3, width);
  out[n + lane] = __shfl_up_sync(0xffffffffu, lane, 3, width);
  out[2 * n + lane] = __shfl_xor_sync(0xffffffffu, lane, 5, width);
  out[3 * n + lane] = __shfl_sync(0xffffffffu, lane, 2, width);
  out[4 * n + lane] = (int)__ballot_sync(0xffffffffu, lane % 3 == 0);
}
