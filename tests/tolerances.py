"""Every tolerance of the test suite, each with its reason."""

import numpy as np


def relative_rms(a: np.ndarray, exact: np.ndarray) -> float:
    """The root-mean-square error, relative to the exact numbers'."""
    assert a.shape == exact.shape
    return float(np.sqrt(((a - exact) ** 2).sum() / ((exact**2).sum() or 1)))


FLOAT64 = 1e-12  # relative RMS: a few thousand float64 roundings
ROUNDINGS64 = 5e-15  # relative: a dozen float64 roundings, one number at a time
FLOAT32 = 1e-5  # relative RMS: the same in float32

# against PyTorch (benchmarks/reference.py)
TRAJECTORY64 = 1e-9  # relative, ten float64 training steps: roundings grow about tenfold a step
AFTER_STEP32 = 1e-3  # relative: single ReLU flips change early gradients by 1e-2; two of PyTorch's
#                      own convolution back ends differ by up to 1e-4 here
INTEROP = 1e-4  # of the largest logit: float32 here, float64 there, 18 to 152 layers
EXPORTED = 1e-5  # of the largest logit: float32 sums in another order, up to 152 layers of them
PUBLISHED_LOSS = 1e-5  # relative: float32 logits of a trained network agree to 1e-6

# of random draws (tests/nn/test_init.py)
MOMENT = 0.02  # relative error of a mean or a deviation: over 4 standard errors of 55,296 draws

CONV32 = 1e-6  # relative RMS of one float32 convolution: a product of a few hundred terms
FOLDED32 = 3e-6  # relative RMS: a float32 convolution whose weights were rounded once more
PRODUCT32 = 1e-4  # absolute: float32 sums of up to 300 products of standard normal numbers
WINOGRAD32 = 1.5e-6  # relative RMS: the transforms enlarge roundings about three times
WINOGRAD_WEIGHTS32 = 1e-5  # the same for sums over all pixels of a batch
MOMENTS32 = 1e-6  # of the deviation, and relative of the variance: sums of 192 float32 differences
BF16_LOSS = 1e-2  # relative: operands rounded to 8 bits, errors of 0.2 % in a layer

# of gradcheck's own tests
NUMERIC_DERIVATIVE = 1e-9  # relative: rounding 1e-16 over a step of 1e-3, some operations deep

# of the GPU against the CPU (tests/gpu)
GPU_STEPS64 = 1e-9  # relative: losses of ten float64 training steps, as TRAJECTORY64
GPU_STEP32 = 1e-5  # relative: the loss of one float32 step from the same state
