// Softmax cross-entropy and its gradient: a warp for each row of k logits.
//
// threadIdx.x is the lane, threadIdx.y the row within the block. Lane l takes the classes l, l +
// 32, ..., so a warp reads neighbours; what all lanes found is joined by exchanges between them, in
// an order that does not depend on anything. The target is labels (n,), or probabilities (n, k); a
// label out of range makes its row NaN: raising an error would have to wait for the GPU.
#include "common.cuh"

#define ALL 0xffffffffu

template <typename T>
__device__ __forceinline__ T warp_sum(T v) {
  for (int distance = 16; distance > 0; distance /= 2) v += __shfl_xor_sync(ALL, v, distance);
  return v;
}

template <typename T>
__device__ __forceinline__ T warp_max(T v) {
  for (int distance = 16; distance > 0; distance /= 2) {
    T other = __shfl_xor_sync(ALL, v, distance);
    v = v < other || other != other ? other : v;
  }
  return v;
}

template <typename T> __device__ __forceinline__ T quiet_nan() {
  return (T)__int_as_float(0x7fc00000);
}

// The target of class j, smoothed and weighted.
template <typename T>
__device__ __forceinline__ T weighted(
    long long row, int j, int k, long long label, const T* target, const T* weight, T smoothing) {
  T given = target ? target[row * k + j] : (T)(j == label);
  T wanted = ((T)1 - smoothing) * given + smoothing / (T)k;
  return weight ? wanted * weight[j] : wanted;
}

// losses (n,) = -sum of target * log_p; log_p (n, k) = logits - log sum e^logits.
template <typename T>
__global__ void __launch_bounds__(256) softmax_loss(
    const T* __restrict__ logits, OPTIONAL const long long* __restrict__ labels,
    OPTIONAL const T* __restrict__ target, OPTIONAL const T* __restrict__ weight,
    T* __restrict__ losses, T* __restrict__ log_p, int n, int k, T smoothing) {
  long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= n) return;  // the whole warp
  const T* x = logits + row * k;
  T top = x[0];
  for (int j = threadIdx.x; j < k; j += 32) top = x[j] > top || x[j] != x[j] ? x[j] : top;
  top = warp_max(top);
  T sum = 0;
  for (int j = threadIdx.x; j < k; j += 32) sum += exp(x[j] - top);
  T log_sum = log(warp_sum(sum));
  long long label = labels ? labels[row] : 0;
  T loss = 0;
  for (int j = threadIdx.x; j < k; j += 32) {
    T value = x[j] - top - log_sum;
    log_p[row * k + j] = value;
    loss -= weighted(row, j, k, label, target, weight, smoothing) * value;
  }
  loss = warp_sum(loss);
  if (threadIdx.x == 0) losses[row] = label < 0 || label >= k ? quiet_nan<T>() : loss;
}

// dlogits (n, k) = g * (p * sum of the target - target); g is (n,), or one number (g_step 0).
template <typename T>
__global__ void __launch_bounds__(256) softmax_loss_gradient(
    const T* __restrict__ log_p, const T* __restrict__ g,
    OPTIONAL const long long* __restrict__ labels, OPTIONAL const T* __restrict__ target,
    OPTIONAL const T* __restrict__ weight, T* __restrict__ dlogits, int n, int k, int g_step,
    T smoothing) {
  long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= n) return;
  long long label = labels ? labels[row] : 0;
  T total = 0;
  for (int j = threadIdx.x; j < k; j += 32)
    total += weighted(row, j, k, label, target, weight, smoothing);
  total = warp_sum(total);
  T slope = label < 0 || label >= k ? quiet_nan<T>() : g[row * g_step];
  for (int j = threadIdx.x; j < k; j += 32) {
    T wanted = weighted(row, j, k, label, target, weight, smoothing);
    dlogits[row * k + j] = slope * (total * exp(log_p[row * k + j]) - wanted);
  }
}

// hits (n,): 1 where the first of the largest logits of a row is its label's, else 0. As in NumPy
// the first NaN is larger than all others.
template <typename T>
__global__ void __launch_bounds__(256) find_hits(
    const T* __restrict__ logits, const long long* __restrict__ labels,
    unsigned char* __restrict__ hits, int n, int k) {
  long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= n) return;
  const T* x = logits + row * k;
  int first = threadIdx.x < k ? threadIdx.x : 0;
  T best = x[first];
  for (int j = threadIdx.x + 32; j < k; j += 32)
    if (x[j] > best || (x[j] != x[j] && best == best)) best = x[j], first = j;
  for (int distance = 16; distance > 0; distance /= 2) {
    T other = __shfl_xor_sync(ALL, best, distance);
    int place = __shfl_xor_sync(ALL, first, distance);
    bool equal = other == best || (other != other && best != best);
    bool larger = other > best || (other != other && best == best);
    if (larger || (equal && place < first)) best = other, first = place;
  }
  if (threadIdx.x == 0) hits[row] = first == labels[row];
}
