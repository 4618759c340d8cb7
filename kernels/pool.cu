// Pooling, and its gradients. Images (n, h, w, c) -> (n, p, q, c).
//
// A thread for each pixel it writes (threadIdx.y) and channel (threadIdx.x): a warp reads and
// writes neighbouring channels, and neighbouring windows find their pixels in the cache. Gradients
// gather too: a pixel looks for the windows that contain it, so its sum has a fixed order.

template <typename T> __device__ __forceinline__ T lowest();
template <> __device__ __forceinline__ float lowest() { return __int_as_float(0xff800000); }
template <> __device__ __forceinline__ double lowest() {
  return __longlong_as_double((long long)0xfff0000000000000ULL);
}

// The first window that contains pixel `at` of a line: windows begin every `stride` pixels, the
// first `padding` in front of the line.
__device__ __forceinline__ int first_window(int at, int padding, int window, int stride) {
  int behind = at + padding - window;  // the last pixel in front of which no such window begins
  return behind < 0 ? 0 : behind / stride + 1;
}

// The largest of each window and its place there, row by row. The first of equals wins; NaN is
// larger than all others.
template <typename T>
__global__ void __launch_bounds__(256) largest(
    const T* __restrict__ x, T* __restrict__ y, int* __restrict__ index, int pixels, int h, int w,
    int c, int p, int q, int r, int s, int down, int across, int top, int left) {
  int pixel = blockIdx.x * blockDim.y + threadIdx.y;
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (pixel >= pixels || channel >= c) return;
  int j = pixel % q, rest = pixel / q;
  int i = rest % p, image = rest / p;
  T best = lowest<T>();
  int place = 0;
  bool first = true;
  for (int u = 0; u < r; ++u) {
    int row = i * down + u - top;
    if (row < 0 || row >= h) continue;
    for (int v = 0; v < s; ++v) {
      int column = j * across + v - left;
      if (column < 0 || column >= w) continue;
      T value = x[(((long long)image * h + row) * w + column) * c + channel];
      if (first || value > best || (value != value && best == best)) {
        best = value;
        place = u * s + v;
      }
      first = false;
    }
  }
  long long at = (long long)pixel * c + channel;
  y[at] = best;
  index[at] = place;
}

// dx of a pixel: the sum of g over the windows that it won.
template <typename T>
__global__ void __launch_bounds__(256) to_winners(
    const T* __restrict__ g, const int* __restrict__ index, T* __restrict__ dx, int pixels, int h,
    int w, int c, int p, int q, int r, int s, int down, int across, int top, int left) {
  int pixel = blockIdx.x * blockDim.y + threadIdx.y;
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (pixel >= pixels || channel >= c) return;
  int column = pixel % w, rest = pixel / w;
  int row = rest % h, image = rest / h;
  int leftmost = first_window(column, left, s, across);
  T sum = 0;
  for (int i = first_window(row, top, r, down); i < p && i * down <= row + top; ++i) {
    for (int j = leftmost; j < q && j * across <= column + left; ++j) {
      long long at = (((long long)image * p + i) * q + j) * c + channel;
      int place = (row + top - i * down) * s + column + left - j * across;
      if (index[at] == place) sum += g[at];
    }
  }
  dx[(long long)pixel * c + channel] = sum;
}

// How many pixels of window i of a line lie inside its `size` pixels.
__device__ __forceinline__ int inside(int i, int stride, int padding, int window, int size) {
  int start = i * stride - padding;
  return min(start + window, size) - max(start, 0);
}

// The mean of each window: the sum of its lines' sums, divided by all its pixels, or with
// `only_inside` by those in the image.
template <typename T>
__global__ void __launch_bounds__(256) average(
    const T* __restrict__ x, T* __restrict__ y, int pixels, int h, int w, int c, int p, int q,
    int r, int s, int down, int across, int top, int left, int only_inside) {
  int pixel = blockIdx.x * blockDim.y + threadIdx.y;
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (pixel >= pixels || channel >= c) return;
  int j = pixel % q, rest = pixel / q;
  int i = rest % p, image = rest / p;
  int first = max(0, left - j * across), last = min(s, w + left - j * across);
  T sum = 0;
  for (int u = max(0, top - i * down); u < min(r, h + top - i * down); ++u) {
    long long line = ((long long)image * h + i * down + u - top) * w + j * across - left;
    T of_line = 0;
    for (int v = first; v < last; ++v) of_line += x[(line + v) * c + channel];
    sum += of_line;
  }
  int count = only_inside ? inside(i, down, top, r, h) * inside(j, across, left, s, w) : r * s;
  y[(long long)pixel * c + channel] = sum / (T)count;
}

// dx of a pixel: the sum of g / count over the windows that contain it.
template <typename T>
__global__ void __launch_bounds__(256) average_gradient(
    const T* __restrict__ g, T* __restrict__ dx, int pixels, int h, int w, int c, int p, int q,
    int r, int s, int down, int across, int top, int left, int only_inside) {
  int pixel = blockIdx.x * blockDim.y + threadIdx.y;
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (pixel >= pixels || channel >= c) return;
  int column = pixel % w, rest = pixel / w;
  int row = rest % h, image = rest / h;
  int leftmost = first_window(column, left, s, across);
  T sum = 0;
  for (int i = first_window(row, top, r, down); i < p && i * down <= row + top; ++i) {
    int high = only_inside ? inside(i, down, top, r, h) : r;
    for (int j = leftmost; j < q && j * across <= column + left; ++j) {
      int wide = only_inside ? inside(j, across, left, s, w) : s;
      sum += g[(((long long)image * p + i) * q + j) * c + channel] / (T)(high * wide);
    }
  }
  dx[(long long)pixel * c + channel] = sum;
}
