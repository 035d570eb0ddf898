"""Synthetic degradations, each a function of clean images and a random generator, with its source in the literature."""

from .blur import motion_blur
from .composition import CDD11, composition
from .haze import haze
from .low_light import low_light
from .noise import gaussian_noise
from .rain import rain
from .registry import DEGRADATIONS, degradation_named, degrade
from .snow import snow
from .tensors import Degradation

__all__ = [
    "CDD11",
    "DEGRADATIONS",
    "Degradation",
    "composition",
    "degradation_named",
    "degrade",
    "gaussian_noise",
    "haze",
    "low_light",
    "motion_blur",
    "rain",
    "snow",
]
