"""What can be said of the kernels without a GPU: ``python -m benchmarks.kernels``."""

# Which finds the project's packages where they are not installed.
import benchmarks.gpu  # noqa: F401
