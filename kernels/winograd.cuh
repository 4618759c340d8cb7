// Made by winograd_cuda.py from the matrices of winograd_schemes.DENSE.

// 6 numbers to 6.
__device__ __forceinline__ void transform_pixels(const float* x, float* y) {
  y[0] = 1.265625f * x[0] + -2.8125f * x[2] + 1.0f * x[4];
  y[1] = -1.6875f * x[1] + -2.25f * x[2] + 0.75f * x[3] + 1.0f * x[4];
  y[2] = 1.6875f * x[1] + -2.25f * x[2] + -0.75f * x[3] + 1.0f * x[4];
  y[3] = -0.84375f * x[1] + -0.5625f * x[2] + 1.5f * x[3] + 1.0f * x[4];
  y[4] = 0.84375f * x[1] + -0.5625f * x[2] + -1.5f * x[3] + 1.0f * x[4];
  y[5] = 1.265625f * x[1] + -2.8125f * x[3] + 1.0f * x[5];
}

// 3 numbers to 6.
__device__ __forceinline__ void transform_window(const float* x, float* y) {
  y[0] = 0.79012346f * x[0];
  y[1] = -0.52674896f * x[0] + -0.39506173f * x[1] + -0.2962963f * x[2];
  y[2] = -0.52674896f * x[0] + 0.39506173f * x[1] + -0.2962963f * x[2];
  y[3] = 0.13168724f * x[0] + 0.19753087f * x[1] + 0.2962963f * x[2];
  y[4] = 0.13168724f * x[0] + -0.19753087f * x[1] + 0.2962963f * x[2];
  y[5] = 1.0f * x[2];
}

// 6 numbers to 4.
__device__ __forceinline__ void transform_outputs(const float* x, float* y) {
  y[0] = 1.0f * x[0] + 1.0f * x[1] + 1.0f * x[2] + 1.0f * x[3] + 1.0f * x[4];
  y[1] = 0.75f * x[1] + -0.75f * x[2] + 1.5f * x[3] + -1.5f * x[4];
  y[2] = 0.5625f * x[1] + 0.5625f * x[2] + 2.25f * x[3] + 2.25f * x[4];
  y[3] = 0.421875f * x[1] + -0.421875f * x[2] + 3.375f * x[3] + -3.375f * x[4] + 1.0f * x[5];
}
