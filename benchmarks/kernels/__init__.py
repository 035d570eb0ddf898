"""What can be said of the kernels without a GPU: ``python -m benchmarks.kernels``."""
