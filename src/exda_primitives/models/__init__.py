"""Reference networks that load the official state dicts strictly, by class or by name, and ExDA itself."""

from .adair import AdaIR
from .amir import AMIR
from .catalog import Identity, create, identify, list_models
from .exda import ExDA
from .histoformer import Histoformer
from .moceir import MoCEIR
from .promptir import PromptIR
from .restormer import Restormer

__all__ = [
    "AMIR",
    "AdaIR",
    "ExDA",
    "Histoformer",
    "Identity",
    "MoCEIR",
    "PromptIR",
    "Restormer",
    "create",
    "identify",
    "list_models",
]
