"""Attention primitives for image restoration, for new models and for models that exist already.

Examples:
    >>> import exda_primitives as exda
    >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
    >>> report = exda.patch(model)
    >>> exda.is_patched(model)
    True
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

__version__ = "0.3.0"

# Packages of the workbench that users reach by a short name: ``exda.data`` is ``exda.workbench.data``.
_TOOLS = (
    "adaptation",
    "bench",
    "data",
    "demo",
    "diagnostics",
    "evaluation",
    "export",
    "hub",
    "inspection",
    "restoration",
    "training",
)

if TYPE_CHECKING:
    from .public import *  # noqa: F403
    from .public import __all__ as __all__
    from .workbench import adaptation as adaptation
    from .workbench import bench as bench
    from .workbench import data as data
    from .workbench import demo as demo
    from .workbench import diagnostics as diagnostics
    from .workbench import evaluation as evaluation
    from .workbench import export as export
    from .workbench import hub as hub
    from .workbench import inspection as inspection
    from .workbench import restoration as restoration
    from .workbench import training as training
else:

    def __getattr__(name: str) -> object:
        """Imports a name on first use: everything needs PyTorch, whose import would slow down ``exda --help``."""
        if name in _TOOLS:
            return import_module(f"{__name__}.workbench.{name}")
        # Submodules before public names: one may be asked for while ``public`` is still being imported.
        if not name.startswith("__") and find_spec(f"{__name__}.{name}"):
            return import_module(f"{__name__}.{name}")
        if name == "__all__" or not name.startswith("__"):
            public = import_module(f"{__name__}.public")
            globals().update({each: getattr(public, each) for each in ("__all__", *public.__all__)})
        try:
            return globals()[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module(f"{__name__}.public").__all__})
