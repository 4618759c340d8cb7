// BatchNorm with the residual and the ReLU after it, and its gradient: two launches each.
//
// x is rows of c channels. In all kernels that pass over it, threadIdx.x takes neighbouring
// channels and threadIdx.y neighbouring rows, so a warp reads one piece of memory, what belongs to
// a channel stays in registers, and nothing is divided.
//
// Sums over rows: each thread adds up short RUNs in T and these in double; the threads of a block
// add up theirs through shared memory, and the block that comes last those of all, always in one
// order. The number of parts depends on the shape alone, so the results do, too. x is taken
// relative to its first row: squares of small differences lose nothing.
#include "common.cuh"

#define RUN 16

// The sum over threadIdx.y of two numbers; threads with threadIdx.y == 0 get the result. blockDim.y
// is a power of two, the block at most 256 threads.
__device__ void add_rows(double& a, double& b) {
  __shared__ double sums[2][256];
  int at = threadIdx.y * blockDim.x + threadIdx.x;
  sums[0][at] = a;
  sums[1][at] = b;
  for (int half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
      sums[0][at] += sums[0][at + half * blockDim.x];
      sums[1][at] += sums[1][at + half * blockDim.x];
    }
  }
  a = sums[0][at];
  b = sums[1][at];
}

// The sums of a and b over all blocks of the grid's x, for the grid's y each. Returns whether this
// thread has them: threads with threadIdx.y == 0 of the block that comes here last; no other block
// may need them. parts (2, gridDim.x, c) takes what each block found; arrived (gridDim.y,) are
// zeros, and again in the end. The fences see to it that the last block reads what the others wrote,
// as in the CUDA programming guide, "memory fence functions".
__device__ bool add_blocks(
    double& a, double& b, double* parts, unsigned* arrived, int channel, int c) {
  __shared__ bool last;
  bool mine = channel < c;
  long long second = (long long)gridDim.x * c;
  add_rows(a, b);
  if (mine && threadIdx.y == 0) {
    long long at = (long long)blockIdx.x * c + channel;
    parts[at] = a;
    parts[second + at] = b;
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    last = atomicAdd(arrived + blockIdx.y, 1u) == gridDim.x - 1;
    if (last) arrived[blockIdx.y] = 0;
  }
  __syncthreads();
  if (!last) return false;
  __threadfence();
  const volatile double* all = parts;  // not from the first-level cache
  a = b = 0;
  for (int part = threadIdx.y; mine && part < gridDim.x; part += blockDim.y) {
    a += all[(long long)part * c + channel];
    b += all[second + (long long)part * c + channel];
  }
  add_rows(a, b);
  return mine && threadIdx.y == 0;
}

// (x - mean) / sqrt(var + eps) * gamma + beta = x * scale + shift. The same bits in every kernel,
// for the gradient finds the sign of the output from x again.
__device__ __forceinline__ double scale_of(double gamma, double var, double eps) {
  return gamma * rsqrt(var + eps);
}
__device__ __forceinline__ double shift_of(double scale, double beta, double mean) {
  return fma(-mean, scale, beta);
}

// mean and var (c,) of x, and the table (2, c): scale and shift. The parts are the blocks of the
// grid's x. per_row: 1 / rows.
//
// Running statistics, where there are any, move towards the batch's by `momentum`, and `tracked`
// counts the batch. With a negative momentum they are the average of all batches; then every block
// reads how many there were, and the caller counts. unbiased: rows / (rows - 1). A batch that would
// make them NaN or infinite does not move them: nobody waits to see that such a step is undone.
template <typename T>
__global__ void __launch_bounds__(256) find_moments(
    const T* __restrict__ x, const T* __restrict__ gamma, const T* __restrict__ beta,
    double* parts, unsigned* arrived, double* __restrict__ mean, double* __restrict__ var,
    double* __restrict__ table, OPTIONAL T* __restrict__ running_mean,
    OPTIONAL T* __restrict__ running_var, OPTIONAL long long* __restrict__ tracked, long long rows,
    int c, int rows_a_part, double per_row, double eps, double momentum, double unbiased) {
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  bool mine = channel < c;
  long long first = (long long)blockIdx.x * rows_a_part;
  long long last = min(rows, first + rows_a_part);
  double total = 0, squares = 0;
  T origin = mine ? x[channel] : (T)0;
  for (long long start = first + threadIdx.y; mine && start < last; start += RUN * blockDim.y) {
    T sum = 0, square = 0;
#pragma unroll 4
    for (int i = 0; i < RUN; ++i) {
      long long row = start + i * blockDim.y;
      T v = row < last ? x[row * c + channel] - origin : (T)0;
      sum += v;
      square += v * v;
    }
    total += sum;
    squares += square;
  }
  if (!add_blocks(total, squares, parts, arrived, channel, c)) return;
  double offset = total * per_row;
  double m = (double)x[channel] + offset;
  double spread = squares * per_row - offset * offset;
  double v = spread < 0 ? 0 : spread;  // rounding; NaN passes
  double scale = scale_of(gamma[channel], v, eps);
  mean[channel] = m;
  var[channel] = v;
  table[channel] = scale;
  table[c + channel] = shift_of(scale, beta[channel], m);
  if (!running_mean) return;
  double move = momentum < 0 ? 1 / (double)(*tracked + 1) : momentum;
  T stay = (T)(1 - move);
  T moved_mean = (T)(stay * running_mean[channel] + move * m);
  T moved_var = (T)(stay * running_var[channel] + move * unbiased * v);
  if (isfinite(moved_mean) && isfinite(moved_var)) {
    running_mean[channel] = moved_mean;
    running_var[channel] = moved_var;
  }
  if (momentum >= 0 && channel == 0) ++*tracked;
}

// y = x * scale + shift (+ residual), then max(., 0) with relu. Each thread keeps one channel's
// scale and shift, and goes through `each` rows.
template <typename T>
__global__ void __launch_bounds__(256) normalise(
    const T* __restrict__ x, const double* __restrict__ scale, const double* __restrict__ shift,
    OPTIONAL const T* __restrict__ residual, T* __restrict__ y, long long rows, int c, int each,
    int relu) {
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (channel >= c) return;
  T by = (T)scale[channel], plus = (T)shift[channel];
  long long row = (long long)blockIdx.x * blockDim.y * each + threadIdx.y;
  for (int i = 0; i < each && row < rows; ++i, row += blockDim.y) {
    long long at = row * c + channel;
    T v = fma(x[at], by, plus);
    if (residual) v += residual[at];
    y[at] = relu ? rectified(v) : v;
  }
}

// dgamma and dbeta (c,): sums of g and of g * (x - mean rounded to T), where g is masked by the sign
// of the output: of `y` when given, which also writes the masked g; else, when `gated`, of x * scale
// + shift. And the table (5, c): a, b, d of dx = a * g + b * x + d, and scale and shift.
// `from_batch`: the statistics depend on x, too.
template <typename T>
__global__ void __launch_bounds__(256) find_gradients(
    const T* __restrict__ g, const T* __restrict__ x, OPTIONAL const T* __restrict__ y,
    OPTIONAL T* __restrict__ masked, const T* __restrict__ gamma, const T* __restrict__ beta,
    const double* __restrict__ mean, const double* __restrict__ var, double* parts,
    unsigned* arrived, T* __restrict__ dgamma, T* __restrict__ dbeta, double* __restrict__ table,
    long long rows, int c, int rows_a_part, double per_row, int gated, int from_batch, double eps) {
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  bool mine = channel < c;
  T origin = 0, by = 0, plus = 0;
  if (mine) {
    double scale = scale_of(gamma[channel], var[channel], eps);
    origin = (T)mean[channel];
    by = (T)scale;
    plus = (T)shift_of(scale, beta[channel], mean[channel]);
  }
  long long first = (long long)blockIdx.x * rows_a_part;
  long long last = min(rows, first + rows_a_part);
  double total = 0, products = 0;
  for (long long start = first + threadIdx.y; mine && start < last; start += RUN * blockDim.y) {
    T sum = 0, product = 0;
#pragma unroll 1
    for (int i = 0; i < RUN; ++i) {
      long long row = start + i * blockDim.y;
      if (row >= last) continue;
      long long at = row * c + channel;
      T d = g[at], v = x[at];
      if (y ? !(y[at] > (T)0) : gated && !(fma(v, by, plus) > (T)0)) d = 0;
      if (masked) masked[at] = d;
      sum += d;
      product += d * (v - origin);
    }
    total += sum;
    products += product;
  }
  if (!add_blocks(total, products, parts, arrived, channel, c)) return;
  double m = mean[channel], inverse_std = rsqrt(var[channel] + eps);
  products += ((double)(T)m - m) * total;  // the sums were taken relative to the rounded mean
  double along = products * inverse_std;   // dgamma
  double scale = scale_of(gamma[channel], var[channel], eps);
  double b = from_batch ? -scale * along * inverse_std * per_row : 0;
  dgamma[channel] = (T)along;
  dbeta[channel] = (T)total;
  table[channel] = scale;
  table[c + channel] = b;
  table[2 * c + channel] = from_batch ? -scale * total * per_row - b * m : 0;
  table[3 * c + channel] = scale;
  table[4 * c + channel] = shift_of(scale, beta[channel], m);
}

// dx = a * g + b * x + d, g masked by the sign of x * scale + shift when `gated`.
template <typename T>
__global__ void __launch_bounds__(256) normalise_gradient(
    const T* __restrict__ g, const T* __restrict__ x, const double* __restrict__ table,
    T* __restrict__ dx, long long rows, int c, int each, int gated) {
  int channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (channel >= c) return;
  T a = (T)table[channel], b = (T)table[c + channel], d = (T)table[2 * c + channel];
  T by = (T)table[3 * c + channel], plus = (T)table[4 * c + channel];
  long long row = (long long)blockIdx.x * blockDim.y * each + threadIdx.y;
  for (int i = 0; i < each && row < rows; ++i, row += blockDim.y) {
    long long at = row * c + channel;
    T v = x[at];
    T dy = gated && !(fma(v, by, plus) > (T)0) ? (T)0 : g[at];
    dx[at] = fma(a, dy, fma(b, v, d));
  }
}
