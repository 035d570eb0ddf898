"""Trains restoration networks, patched or not, from a configuration file."""

from .config import DataConfig, ModelConfig, PrimitivesConfig, RecipeConfig, StageConfig, TrainConfig
from .files import read_config
from .plan import Plan, prepare
from .presets import ABLATIONS, RECIPES
from .run import train

__all__ = [
    "ABLATIONS",
    "RECIPES",
    "DataConfig",
    "ModelConfig",
    "Plan",
    "PrimitivesConfig",
    "RecipeConfig",
    "StageConfig",
    "TrainConfig",
    "prepare",
    "read_config",
    "train",
]
