"""The first minutes on a GPU: correctness, times and memory of the kernels, the most valuable measurements first.

Run ``python -m benchmarks.gpu A --seconds 470 --out FOLDER`` in the root of a checkout; nothing has to be installed.
"""

from .checkout import find_packages

find_packages()
