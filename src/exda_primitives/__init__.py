"""Attention primitives for image restoration that anyone can put into a model they already have.

>>> import exda_primitives as exda
>>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
>>> report = exda.patch(model)
>>> exda.is_patched(model)
True
"""

from . import models
from .checkpoints import load, load_checkpoint, save
from .errors import (
    AlreadyPatchedError,
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    ExDAError,
    ImageError,
    InputError,
    NoMatchError,
    NotFusedError,
    NotPatchedError,
    PatternError,
    RegistrationError,
    RootModuleError,
    VerificationError,
    WrappedModelError,
)
from .fusion import BackendReport, FusionReport, backend_report, fuse, unfuse
from .ops import backend
from .patching import (
    Architecture,
    Backbone,
    ConvFamily,
    ConvLayout,
    Family,
    Match,
    Mismatch,
    NearMiss,
    Report,
    Stage,
    StateShapes,
    Unlike,
    config_of,
    from_host,
    is_patched,
    new_parameters,
    patch,
    patched,
    plan,
    register_adapter,
    unpatch,
)
from .primitives import (
    GST,
    ExDAAttention,
    ExDAConfig,
    ExDACrossAttention,
    ExDAHistogramAttention,
    ExDAModule,
    ExDAXCAttention,
    NonlinearValue,
)

__version__ = "0.1.0"

__all__ = [
    "GST",
    "AlreadyPatchedError",
    "Architecture",
    "Backbone",
    "BackendReport",
    "CheckpointError",
    "ConfigError",
    "ConvFamily",
    "ConvLayout",
    "DataError",
    "DivergedError",
    "ExDAAttention",
    "ExDAConfig",
    "ExDACrossAttention",
    "ExDAError",
    "ExDAHistogramAttention",
    "ExDAModule",
    "ExDAXCAttention",
    "Family",
    "FusionReport",
    "ImageError",
    "InputError",
    "Match",
    "Mismatch",
    "NearMiss",
    "NoMatchError",
    "NonlinearValue",
    "NotFusedError",
    "NotPatchedError",
    "PatternError",
    "RegistrationError",
    "Report",
    "RootModuleError",
    "Stage",
    "StateShapes",
    "Unlike",
    "VerificationError",
    "WrappedModelError",
    "backend",
    "backend_report",
    "config_of",
    "from_host",
    "fuse",
    "is_patched",
    "load",
    "load_checkpoint",
    "models",
    "new_parameters",
    "patch",
    "patched",
    "plan",
    "register_adapter",
    "save",
    "unfuse",
    "unpatch",
]
