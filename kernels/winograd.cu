// The transforms of Winograd convolutions, F(4x4, 3x3). Plane p of a transformed tile is the matrix
// (tiles, channels) or (c, k) number p; a tile has 6 x 6 of them.
//
// threadIdx.x takes neighbouring channels and threadIdx.y tiles: each number of a tile is read and
// written beside its neighbours'. A thread has a whole tile in its registers, so nothing is shared.
#include "common.cuh"
#include "winograd.cuh"

// v (36, tiles, c) from images (·, h, w, c), of which tile (i, j) begins at pixel (4 i - top, 4 j -
// left); outside they are zero. The blocks from `blocks` on transform windows (3, 3, numbers), where
// they are given, into u (36, numbers).
__global__ void __launch_bounds__(256) winograd_inputs(
    const float* __restrict__ x, float* __restrict__ v, OPTIONAL const float* __restrict__ windows,
    float* __restrict__ u, int tiles, int numbers, int blocks, int h, int w, int c, int rows,
    int across, int top, int left, int rotated) {
  float d[6][6], line[6];
  if (blockIdx.x >= blocks) {
    long long block = (long long)(blockIdx.x - blocks) * gridDim.y + blockIdx.y;
    long long at = block * blockDim.x * blockDim.y + threadIdx.y * blockDim.x + threadIdx.x;
    if (at >= numbers) return;
#pragma unroll
    for (int j = 0; j < 3; ++j) {
      float column[3];
#pragma unroll
      for (int i = 0; i < 3; ++i) {
        int tap = rotated ? 8 - 3 * i - j : 3 * i + j;
        column[i] = windows[(long long)tap * numbers + at];
      }
      transform_window(column, line);
#pragma unroll
      for (int i = 0; i < 6; ++i) d[i][j] = line[i];
    }
#pragma unroll
    for (int i = 0; i < 6; ++i) {
      transform_window(d[i], line);
#pragma unroll
      for (int j = 0; j < 6; ++j) u[(long long)(6 * i + j) * numbers + at] = line[j];
    }
    return;
  }
  int tile = blockIdx.x * blockDim.y + threadIdx.y;
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (tile >= tiles || channel >= c) return;
  int first_column = tile % across * 4 - left, rest = tile / across;
  int first_row = rest % rows * 4 - top;
  const float* image = x + (long long)(rest / rows) * h * w * c + channel;
#pragma unroll
  for (int j = 0; j < 6; ++j) {
    int column = first_column + j;
    float pixels[6];
#pragma unroll
    for (int i = 0; i < 6; ++i) {
      int row = first_row + i;
      bool inside = row >= 0 && row < h && column >= 0 && column < w;
      pixels[i] = inside ? image[((long long)row * w + column) * c] : 0.0f;
    }
    transform_pixels(pixels, line);
#pragma unroll
    for (int i = 0; i < 6; ++i) d[i][j] = line[i];
  }
  long long at = (long long)tile * c + channel, plane = (long long)tiles * c;
#pragma unroll
  for (int i = 0; i < 6; ++i) {
    transform_pixels(d[i], line);
#pragma unroll
    for (int j = 0; j < 6; ++j) v[(6 * i + j) * plane + at] = line[j];
  }
}

// y (·, p, q, k) from m (36, tiles, k): + bias + residual, then ReLU, as in finish.cu.
__global__ void __launch_bounds__(256) winograd_outputs(
    const float* __restrict__ m, OPTIONAL const float* __restrict__ bias,
    OPTIONAL const float* __restrict__ residual, float* __restrict__ y, int tiles, int p, int q,
    int k, int rows, int across, int relu) {
  int tile = blockIdx.x * blockDim.y + threadIdx.y;
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (tile >= tiles || channel >= k) return;
  float d[4][6], line[6];
  long long at = (long long)tile * k + channel, plane = (long long)tiles * k;
#pragma unroll
  for (int j = 0; j < 6; ++j) {
    float column[6];
#pragma unroll
    for (int i = 0; i < 6; ++i) column[i] = m[(6 * i + j) * plane + at];
    transform_outputs(column, line);
#pragma unroll
    for (int i = 0; i < 4; ++i) d[i][j] = line[i];
  }
  int first_column = tile % across * 4, rest = tile / across;
  int first_row = rest % rows * 4;
  long long image = (long long)(rest / rows) * p;
  float plus = bias ? bias[channel] : 0.0f;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (first_row + i >= p) return;
    transform_outputs(d[i], line);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (first_column + j >= q) break;
      long long to = ((image + first_row + i) * q + first_column + j) * k + channel;
      float sum = line[j] + plus;
      if (residual) sum += residual[to];
      y[to] = relu ? rectified(sum) : sum;
    }
  }
}
