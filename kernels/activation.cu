// The exact GELU, element by element: a thread for each number.
#include "common.cuh"

// The normal distribution function, and its derivative.
template <typename T>
__device__ T distribution(T x) { return (T)0.5 * erfc(x * (T)-0.70710678118654752440); }

template <typename T>
__device__ T density(T x) { return (T)0.39894228040143267794 * exp((T)-0.5 * x * x); }

// y (n,) = x * distribution(x)
template <typename T>
__global__ void __launch_bounds__(256) gelu(
    const T* __restrict__ x, T* __restrict__ y, long long n) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] * distribution(x[i]);
}

// dx (n,): g times the derivative of that
template <typename T>
__global__ void __launch_bounds__(256) gelu_gradient(
    const T* __restrict__ g, const T* __restrict__ x, T* __restrict__ dx, long long n) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) dx[i] = g[i] * (distribution(x[i]) + x[i] * density(x[i]));
}
