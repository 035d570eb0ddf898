"""What is missing is named with the line that installs it."""

from importlib.metadata import PackageNotFoundError

import pytest

from exda_primitives import ExDAError, extras


def test_every_extra_is_known() -> None:
    assert extras.install_line("restore") == 'pip install "psutil>=5.9" "pyvips[binary]>=3"'
    assert extras.install_line("umap") == 'pip install "umap-learn>=0.5.7"'


def test_a_package_of_no_extra_is_named_itself() -> None:
    with pytest.raises(ExDAError, match=r'not_there cannot be imported .*; run: pip install "not-there"'):
        extras.require_extra("not_there", "not-there")


def test_without_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", none)
    assert extras.install_line("restore") == 'pip install "exda_primitives[restore]"'
