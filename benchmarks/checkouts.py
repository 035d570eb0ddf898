"""Imports single files of checkouts of public repositories, whose own requirements may be missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

PACKAGE = "checkout"
"""The package that the imported files belong to, so that they can import their neighbours relatively."""
STUBBED = frozenset(
    {
        "DiffIR.version",
        "basicsr",
        "clip",
        "cv2",
        "fvcore",
        "kornia",
        "ldm",
        "lmdb",
        "mmagic",
        "mmengine",
        "pytorch_lightning",
        "seaborn",
        "torchstat",
        "traiNNer",
        "turtle",
        "utils",
    }
)
"""Packages and modules that the files import and of which their attention classes need nothing but decorators, and
bases that are modules.

``utils`` is a repository's own; ConStyle's is basicsr's under another name. ``DiffIR.version`` is written by DiffIR's
installation.
"""
SAME_NAMES = {"basicsr.archs.arch_util": "timm.layers"}
"""Module of ``STUBBED`` -> installed module with the same functions."""


@contextmanager
def imported(checkout: Path, file: str, search: Sequence[str]) -> Iterator[ModuleType]:
    """Imports a file of a checkout for the duration of a ``with`` statement.

    Args:
        checkout: folder of the repository.
        file: path of the file in it.
        search: folders of the repository that the file's absolute imports start from.
    """
    path = checkout / file
    package = ModuleType(PACKAGE)
    package.__path__ = [str(path.parent)]
    finder, paths = _StubImporter(), [*sys.path]
    sys.modules[PACKAGE] = package
    sys.meta_path.insert(0, finder)
    sys.path[:0] = [str(checkout / folder) for folder in search]
    try:
        yield import_module(f"{PACKAGE}.{path.stem}")
    finally:
        sys.meta_path.remove(finder)
        # The files may have put folders of their own into it.
        sys.path[:] = paths
        for name, module in [*sys.modules.items()]:
            if name.partition(".")[0] == PACKAGE or _is_stubbed(name) or _inside(module, checkout):
                del sys.modules[name]


def commit_of(checkout: Path) -> str:
    """Returns the hash of the commit that is checked out."""
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _is_stubbed(name: str) -> bool:
    return name in STUBBED or name.partition(".")[0] in STUBBED


def _inside(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    # A folder without __init__.py is a package without a file.
    places = [file] if file else [*map(str, getattr(module, "__path__", []))]
    return any(Path(place).is_relative_to(folder) for place in places)


class _Stub(ModuleType):
    """A module that has every attribute; called with a class or function, as a decorator is, it returns that.

    As the base of a class, it is ``nn.Module`` if its name ends like that: LightningModule, mmengine's BaseModule.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Stub(name)

    def __call__(self, *arguments: Any, **_: Any) -> Any:
        return arguments[0] if arguments and callable(arguments[0]) else self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (nn.Module,) if self.__name__.endswith("Module") else ()


class _StubImporter(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not _is_stubbed(fullname):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _Stub(spec.name)
        if spec.name in SAME_NAMES:
            vars(module).update(vars(import_module(SAME_NAMES[spec.name])))
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass
