"""Errors about a missing package give the command that installs it."""

from importlib.metadata import PackageNotFoundError

import pytest

from exda_primitives import ExDAError, extras


def test_install_line_lists_the_packages_of_an_extra() -> None:
    assert extras.install_line("restore") == 'pip install "psutil>=5.9" "pyvips[binary]>=3"'
    assert extras.install_line("umap") == 'pip install "umap-learn>=0.5.7"'


def test_package_of_no_extra_is_named_itself() -> None:
    with pytest.raises(ExDAError, match=r'not_there cannot be imported .*; run: pip install "not-there"'):
        extras.require_extra("not_there", "not-there")


def test_without_metadata_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", none)
    assert extras.install_line("restore") == 'pip install "exda_primitives[restore]"'
