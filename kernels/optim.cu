// Optimiser steps over a flat buffer of all parameters: one launch, each number read and written
// once.
//
// A thread takes `each` numbers, a block's width apart, so that a warp reads 32 neighbours. What
// changes from step to step may come from the GPU's memory (`lr_at`, `step_at`), and so may what
// clipping multiplies gradients by (`factor_at`; a negative factor means to leave everything).
#include "common.cuh"

template <typename T>
__global__ void __launch_bounds__(256) sgd(
    T* __restrict__ w, const T* __restrict__ g, OPTIONAL T* __restrict__ m, long long n, int each,
    OPTIONAL const double* __restrict__ lr_at, double lr, T weight_decay, T momentum, T take,
    int nesterov, OPTIONAL const long long* __restrict__ step_at, long long step,
    OPTIONAL const double* __restrict__ factor_at) {
  T rate = (T)current(lr_at, lr), factor = (T)current(factor_at, 1.0);
  if (factor < 0) return;
  bool first = current(step_at, step) == 1;
  long long start = (long long)blockIdx.x * blockDim.x * each + threadIdx.x;
  for (int k = 0; k < each; ++k) {
    long long i = start + (long long)k * blockDim.x;
    if (i >= n) break;
    T d = factor * g[i] + weight_decay * w[i];
    if (m) {
      T kept = first ? d : momentum * m[i] + take * d;
      m[i] = kept;
      d = nesterov ? d + momentum * kept : kept;
    }
    w[i] -= rate * d;
  }
}

// base^exponent by squaring.
__device__ double power(double base, long long exponent) {
  double result = 1;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

// The step size and the divisor of sqrt(v) make up for m and v starting at zero: the first thread
// of each block computes them from the number of the step.
template <typename T>
__global__ void __launch_bounds__(256) adam(
    T* __restrict__ w, const T* __restrict__ g, T* __restrict__ m, T* __restrict__ v, long long n,
    int each, OPTIONAL const double* __restrict__ lr_at, double lr,
    OPTIONAL const long long* __restrict__ step_at, long long step, double beta1, double beta2,
    T eps, double weight_decay, int decoupled, OPTIONAL const double* __restrict__ factor_at) {
  __shared__ double rate_of_step, scale_of_step;
  T factor = (T)current(factor_at, 1.0);
  if (factor < 0) return;  // the whole grid
  lr = current(lr_at, lr);
  if (threadIdx.x == 0) {
    step = current(step_at, step);
    rate_of_step = lr / (1 - power(beta1, step));
    scale_of_step = sqrt(1 - power(beta2, step));
  }
  __syncthreads();
  T rate = (T)rate_of_step, scale = (T)scale_of_step;
  T shrink = decoupled ? (T)(1 - lr * weight_decay) : (T)1;
  T decay = decoupled ? (T)0 : (T)weight_decay;
  T keep = (T)beta2, take1 = (T)(1 - beta1), take2 = (T)(1 - beta2);
  long long start = (long long)blockIdx.x * blockDim.x * each + threadIdx.x;
  for (int k = 0; k < each; ++k) {
    long long i = start + (long long)k * blockDim.x;
    if (i >= n) break;
    T d = factor * g[i] + decay * w[i];
    T mean = m[i] + take1 * (d - m[i]);
    T square = keep * v[i] + take2 * d * d;
    m[i] = mean;
    v[i] = square;
    w[i] = shrink * w[i] - rate * mean / (sqrt(square) / scale + eps);
  }
}
