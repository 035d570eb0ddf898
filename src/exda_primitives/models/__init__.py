"""Reference backbones that take the official state dicts strictly."""

from .adair import AdaIR
from .amir import AMIR
from .histoformer import Histoformer
from .promptir import PromptIR
from .restormer import Restormer

__all__ = ["AMIR", "AdaIR", "Histoformer", "PromptIR", "Restormer"]
