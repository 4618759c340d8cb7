// From stored bytes to a normalised batch: gather, crop, flip, cut out.
#include "common.cuh"
#include "philox.cuh"

// Where a coordinate outside 0 … size - 1 lies once mirrored at the outermost pixels.
__device__ inline int mirror(int at, int size) {
  if (at < 0) return -at;
  return at < size ? at : 2 * (size - 1) - at;
}

// y (b, h, w, c): images[indices] through the table (256, c). blockIdx.x is the image of the batch,
// blockIdx.y a stretch of `each` * 256 of its numbers; threads take neighbouring ones, so that
// writes are whole lines of memory. The images' draws are made once a block, by its first thread.
//
// With `draw` each image is shifted by up to `pad` pixels, in black or its mirror image (reflect),
// mirrored (flip, alternate) and cut out (cutout) by the four words of its own Philox block, as in
// augment.py. An index that is out of
// range makes its image NaN: raising an error would have to wait for the GPU.
template <typename T>
__global__ void __launch_bounds__(256) augment(
    const unsigned char* __restrict__ images, const long long* __restrict__ indices,
    const T* __restrict__ table, T* __restrict__ y, long long n, int h, int w, int c, int each,
    int draw, int pad, int reflect, int flip, int alternate, int cutout, unsigned long long seed,
    unsigned long long stream,
    OPTIONAL const unsigned long long* __restrict__ step_at, unsigned long long step) {
  __shared__ int top, left, mirrored, hole_row, hole_column;
  long long index = indices[blockIdx.x];
  bool wrong = index < 0 || index >= n;
  if (threadIdx.x == 0) {
    top = left = mirrored = hole_row = hole_column = 0;
    if (draw) {
      Words words = philox(seed, stream, current(step_at, step), (unsigned)index);
      top = below(words.at[0], 2 * pad + 1) - pad;
      left = below(words.at[1], 2 * pad + 1) - pad;
      mirrored = flip && words.at[2] >> 31;
      if (alternate) {
        Words first = philox(seed, stream, 0, (unsigned)index);
        mirrored = (first.at[2] >> 31) != (current(step_at, step) & 1);
      }
      hole_row = below(words.at[2] << 1, h) - cutout / 2;
      hole_column = below(words.at[3], w) - cutout / 2;
    }
  }
  __syncthreads();
  int size = h * w * c, start = blockIdx.y * each * blockDim.x + threadIdx.x;
  for (int i = 0; i < each; ++i) {
    int at = start + i * blockDim.x;
    if (at >= size) break;
    int channel = at % c, column = at / c % w, row = at / c / w;
    int from_row = top + row, from_column = left + (mirrored ? w - 1 - column : column);
    bool hole = row >= hole_row && row < hole_row + cutout && column >= hole_column &&
                column < hole_column + cutout;
    if (reflect) from_row = mirror(from_row, h), from_column = mirror(from_column, w);
    bool inside = from_row >= 0 && from_row < h && from_column >= 0 && from_column < w;
    T value = wrong ? (T)__int_as_float(0x7fc00000) : (T)0;
    if (!wrong && !hole) {
      long long pixel = (index * h + from_row) * w + from_column;
      value = table[(inside ? images[pixel * c + channel] : 0) * c + channel];
    }
    y[(long long)blockIdx.x * size + at] = value;
  }
}
