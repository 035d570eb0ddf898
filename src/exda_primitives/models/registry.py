"""The registry of networks by name: ours, those of installed packages, and those that users register."""

from __future__ import annotations

from ..patching.registry import Registry, definition, load_adapters
from . import adair, amir, exda, histoformer, moceir, promptir, restormer
from .architecture import Architecture


def _same(holder: Architecture, adapter: Architecture) -> bool:
    """Returns whether both are defined by the same code, which may have run twice."""
    made = (holder.build, adapter.build), (holder.infer, adapter.infer)
    return holder.published == adapter.published and all(definition(a) == definition(b) for a, b in made)


ARCHITECTURES: Registry[Architecture] = Registry(_same)
ARCHITECTURES.add_own(
    *(module.ARCHITECTURE for module in (adair, amir, exda, histoformer, moceir, promptir, restormer))
)


def known_architectures() -> dict[str, Architecture]:
    """Returns every architecture by name, in the order of registration."""
    # Installed packages register their architectures in the same module as their families and backbones.
    load_adapters()
    return ARCHITECTURES.known
