"""Measures PSNR and SSIM of networks by named protocols, those of the repositories that published the networks."""

from ..data import paired_folders
from .cases import BENCHMARKS, Case, benchmark_files, clean_cases, file_cases
from .metrics import Score, measure
from .protocols import PROTOCOLS, Protocol, protocol_named
from .published import PUBLISHED, Published, published_for
from .run import ImageResult, Summary, check, evaluate, summaries

__all__ = [
    "BENCHMARKS",
    "PROTOCOLS",
    "PUBLISHED",
    "Case",
    "ImageResult",
    "Protocol",
    "Published",
    "Score",
    "Summary",
    "benchmark_files",
    "check",
    "clean_cases",
    "evaluate",
    "file_cases",
    "measure",
    "paired_folders",
    "protocol_named",
    "published_for",
    "summaries",
]
