"""Imports go downwards only: from commands to tools to the library, and in the library from a layer to lower ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

import exda_primitives

ROOT = "exda_primitives"
FOLDER = Path(exda_primitives.__file__).parent

LIBRARY = (
    "errors",
    "files",
    "extras",
    "memory",
    "ops",
    "surgery",
    "primitives",
    "patching",
    "adapters",
    "fusion",
    "checkpoints",
    "models",
    "registration",
    "testing",
    "spandrel",
    "public",
)
"""From the lowest up: each may import those before it, except that ``ops`` may import ``errors`` only."""

SHARED = "workbench.shared"
TOOLS = {
    # It trains on data sets, restores images and scores them.
    "workbench.adaptation": {
        "workbench.data",
        "workbench.evaluation",
        "workbench.restoration",
        "workbench.training",
    },
    # It also times exported files.
    "workbench.bench": {"workbench.export"},
    "workbench.data": set(),
    # Its synthetic weather uses the data sets' degradations.
    "workbench.demo": {"workbench.data"},
    "workbench.diagnostics": set(),
    # It scores data sets, restored as whole images of any size.
    "workbench.evaluation": {"workbench.data", "workbench.restoration"},
    "workbench.export": set(),
    # Model cards quote its scores.
    "workbench.hub": {"workbench.evaluation"},
    # It shows images of a folder with named degradations.
    "workbench.inspection": {"workbench.data"},
    "workbench.restoration": set(),
    # It trains on data sets.
    "workbench.training": {"workbench.data"},
}
"""Each tool, and the other tools that it may import."""

EXCEPTIONS = {
    # Adapters are found by name when the first model is patched.
    ("patching.registry", "adapters"),
    # Choices of configurations are kept on disk, in files written by atomic_write.
    ("ops.triton.config_cache", "files"),
}
"""Modules, each with a higher part that it imports all the same."""


class Import(NamedTuple):
    """An importing module and what it imports, both relative to the package, which is ""."""

    module: str
    imported: str


def part_of(module: str) -> str:
    """Returns the part that a module belongs to: a layer, a tool, ``cli``, or the package itself ("")."""
    first, _, rest = module.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "workbench" and rest else first


def imports_of(module: str, source: str, modules: frozenset[str], is_package: bool = False) -> Iterator[Import]:
    """Yields all imports of the package's own modules, also in functions and by ``import_module``.

    Args:
        module: full name of the importing module.
        source: its source text.
        modules: full names of all modules of the package.
        is_package: whether the module is an ``__init__``.
    """
    above = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        for name in _named_in(node, module, above, modules):
            if name.split(".")[0] == ROOT:
                imported = name.removeprefix(ROOT).strip(".")
                # Tools are attributes of the package, too: exda_primitives.data is exda_primitives.workbench.data.
                tool = f"workbench.{imported}"
                yield Import(module.removeprefix(ROOT).strip("."), tool if part_of(tool) in TOOLS else imported)


def _named_in(node: ast.AST, module: str, above: list[str], modules: frozenset[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        # One dot is the package that contains the module, each further dot the one above.
        base = [*above[: len(above) + 1 - node.level], *filter(None, [node.module])] if node.level else [node.module]
        for alias in node.names:
            # A name imported from the package itself may be a tool.
            whole = ".".join([*map(str, base), alias.name])
            yield whole if whole in modules or base == [ROOT] else ".".join(map(str, base))
    elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
        given = node.args[0]
        parts = given.values if isinstance(given, ast.JoinedStr) else [given]
        text = ""
        for part in parts:
            if isinstance(part, ast.FormattedValue) and ast.unparse(part.value) == "__name__":
                text += module
            elif isinstance(part, ast.Constant):
                text += str(part.value)
            else:
                # The rest of the f-string is known only when it runs.
                break
        yield resolve_name(text.rstrip("."), ".".join(above))


def fault_of(found: Import) -> str | None:
    """Returns why the import is not allowed; None if it is."""
    here, there = part_of(found.module), part_of(found.imported)
    if here in (there, "") or (found.module, there) in EXCEPTIONS:
        return None
    if here in LIBRARY:
        below = {"errors"} if here == "ops" else set(LIBRARY[: LIBRARY.index(here)])
        return None if there in below else f"{here} is below or beside it"
    if here in (*TOOLS, SHARED):
        used = TOOLS.get(here, set()) | ({SHARED} if here in TOOLS else set())
        return None if there in {*used, *LIBRARY, ""} else f"{here} may use {sorted(used)} and the library"
    return None if here == "cli" else f"{here} is in no layer"


def all_modules() -> dict[str, Path]:
    found = {}
    for path in FOLDER.rglob("*.py"):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        found[".".join([ROOT, *(part for part in parts if part != "__init__")])] = path
    return found


def all_imports() -> list[Import]:
    modules = all_modules()
    return [
        found
        for name, path in modules.items()
        for found in imports_of(name, path.read_text(), frozenset(modules), path.name == "__init__.py")
    ]


def test_every_import_goes_downwards() -> None:
    found = all_imports()
    assert len(found) > 500
    assert [(*each, fault) for each in found if (fault := fault_of(each))] == []


def test_tools_form_no_cycle_and_every_rule_is_used() -> None:
    assert set(TopologicalSorter(TOOLS).static_order()) == set(TOOLS)
    found = {(part_of(module), part_of(imported)) for module, imported in all_imports()}
    assert {(tool, used) for tool, others in TOOLS.items() for used in others} <= found
    assert {(module, part_of(imported)) for module, imported in all_imports()} >= EXCEPTIONS


def test_every_module_is_in_a_layer() -> None:
    parts = {part_of(name.removeprefix(ROOT).strip(".")) for name in all_modules()}
    assert parts == {"", "cli", "workbench", SHARED, *LIBRARY, *TOOLS}


@pytest.mark.parametrize(
    ("module", "source", "imported"),
    [
        ("patching.plan", "from ..workbench.data import check", "workbench.data.check"),
        ("patching.plan", "from .. import data", "workbench.data"),
        ("patching.plan", "def f():\n    from ..cli.info import info", "cli.info"),
        ("checkpoints.exda_file", "import exda_primitives.models as m", "models"),
        ("ops.value", 'import_module("exda_primitives.primitives.base")', "primitives.base"),
        ("models.catalog", 'import_module("..cli", __package__)', "cli"),
        ("ops.torch.channel", "from ...memory import keep", "memory"),
        ("primitives.base", 'importlib.import_module(f"exda_primitives.models.{name}")', "models"),
        ("workbench.data.decode", "from ..restoration import images", "workbench.restoration.images"),
        ("workbench.data.decode", "from exda_primitives import training", "workbench.training"),
        ("workbench.restoration.network", "import exda_primitives.cli.names", "cli.names"),
        ("workbench.shared.results", "from ..bench.record import read", "workbench.bench.record"),
        ("errors", "from . import __version__", "__version__"),
    ],
)
def test_imports_upwards_or_sideways_are_faults(module: str, source: str, imported: str) -> None:
    (found,) = imports_of(f"{ROOT}.{module}", source, frozenset(all_modules()))
    assert found == Import(module, imported)
    assert fault_of(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cli.train", "from ..workbench import training"),
        ("workbench.training.data", "from ..data import check"),
        ("workbench.training.data", "from ...errors import DataError"),
        ("workbench.data.images", "from ..shared.files import files_below"),
        ("fusion.fuse", "from ..surgery.swap import swap"),
        ("ops.dispatch", "from ..errors import ConfigError"),
    ],
)
def test_imports_downwards_are_no_faults(module: str, source: str) -> None:
    (found,) = imports_of(f"{ROOT}.{module}", source, frozenset(all_modules()))
    assert fault_of(found) is None
