"""Every tolerance of the test suite, each with its reason."""

FLOAT64 = 1e-12  # relative RMS: a few thousand float64 roundings
FLOAT32 = 1e-5  # relative RMS: the same in float32
