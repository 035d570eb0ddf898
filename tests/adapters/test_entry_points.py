"""An installed package registers its adapters without a call by the user."""

import json
import re
import sys
import textwrap

import pytest

from .process import run

PROJECT = """
    [build-system]
    requires = ["setuptools"]
    build-backend = "setuptools.build_meta"

    [project]
    name = "exda-toy"
    version = "1.0"

    [project.entry-points."exda_primitives.adapters"]
    toy = "exda_toy"
    broken = "exda_toy_broken"
    clash = "exda_toy_clash"

    [tool.setuptools]
    py-modules = ["exda_toy", "exda_toy_broken", "exda_toy_clash"]
"""
TOY = """
    import exda_primitives as exda


    class Attention(exda.ExDAAttention):
        def forward(self, x):
            return super().forward(-x)


    class Toy(exda.Family):
        name = "toy"
        replacement = Attention
        layout = exda.ConvLayout(pointwise={"qkv": 3, "project_out": 1}, depthwise={"qkv_dwconv": 3})

        def candidates(self, module):
            return self.layout.find(module)


    exda.register_adapter(Toy())
"""
BROKEN = """
    raise OSError("no such accelerator")
"""
CLASH = """
    import exda_primitives as exda
    from exda_toy import Toy


    class Impostor(Toy):
        name = "mdta"


    exda.register_adapter(Impostor())
"""
SCRIPT = """
    import json, sys, warnings

    import torch
    from torch import nn

    import exda_primitives as exda


    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.ones(2, 1, 1))
            self.qkv = nn.Conv2d(8, 24, 1)
            self.qkv_dwconv = nn.Conv2d(24, 24, 3, padding=1, groups=24)
            self.project_out = nn.Conv2d(8, 8, 1)

        def forward(self, x):
            q, k, v = self.qkv_dwconv(self.qkv(-x)).chunk(3, 1)
            q, k, v = (m.unflatten(1, (2, -1)).flatten(3) for m in (q, k, v))
            q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
            return self.project_out(((q @ k.mT * self.temperature).softmax(-1) @ v).reshape(x.shape))


    loaded_at_import = "exda_toy" in sys.modules
    model, x = nn.Sequential(Host()).eval(), torch.randn(1, 8, 9, 7)
    before = model(x)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = exda.patch(model)
    print(json.dumps({
        "loaded_at_import": loaded_at_import,
        "families": [match.family for match in report.matches],
        "same": torch.allclose(model(x), before, atol=1e-5),
        "warnings": [str(warning.message) for warning in caught],
    }))
"""


OURS_FIRST = """
    import warnings

    import exda_primitives as exda

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import exda_primitives.adapters

        (match,) = exda.plan(exda.models.Restormer(dim=8, num_blocks=[1, 0, 0, 0], num_refinement_blocks=0)).matches[:1]
    print(match.family, *{warning.message.args[0].split("'")[1] for warning in caught})
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Returns a function that runs a script with the package installed."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    files = {
        "pyproject.toml": PROJECT,
        "exda_toy.py": TOY,
        "exda_toy_broken.py": BROKEN,
        "exda_toy_clash.py": CLASH,
        "script.py": SCRIPT,
        "ours_first.py": OURS_FIRST,
    }
    for name, text in files.items():
        (source / name).write_text(textwrap.dedent(text))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    run(sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(source))
    return lambda script: run(sys.executable, str(source / script), PYTHONPATH=str(site), PYTHONSAFEPATH="1")


@pytest.fixture(scope="module")
def printed(installed):
    """What script.py printed, parsed."""
    return json.loads(installed("script.py"))


def test_installed_family_is_used(printed):
    assert printed["families"] == ["toy"]
    assert printed["same"]


def test_installed_adapter_is_loaded_lazily(printed):
    assert not printed["loaded_at_import"]


@pytest.mark.parametrize(
    ("name", "module", "cause"),
    [
        ("broken", "exda_toy_broken", "OSError: no such accelerator"),
        ("clash", "exda_toy_clash", "RegistrationError: .*'mdta' is taken"),
    ],
)
def test_failing_adapter_only_warns(printed, name, module, cause):
    (warning,) = (message for message in printed["warnings"] if f"'{name}'" in message)
    assert re.search(rf"{module}.*could not be loaded and is ignored: {cause}", warning)


def test_own_adapters_come_first_even_if_imported_explicitly(installed):
    assert set(installed("ours_first.py").split()) == {"mdta", "clash", "broken"}
