"""Measurements of the kernels that need no GPU: ``python -m benchmarks.kernels``."""

# Imported for its effect: it makes the project importable where it is not installed.
import benchmarks.gpu  # noqa: F401
