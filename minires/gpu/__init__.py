"""What `minires device-test` does on a machine with a GPU: is everything right there, and how fast?

`samples` compares every operation and kernel with its reference on the CPU, `suite` runs the tests
of a checkout, `rates` and `works` time kernels against what the GPU can do at most, `step` times
whole training steps, ours and PyTorch's, and `report` puts it all together.
"""

from .report import device_test, lines
from .samples import compare_samples

__all__ = ["compare_samples", "device_test", "lines"]
