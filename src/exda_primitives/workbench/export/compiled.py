"""Compiles networks for the CPU by AOTInductor, and loads what was compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

from torch import Tensor, nn

from ...errors import ExDAError
from .program import captured, silence_exporters


def check_compiler() -> None:
    """Refuses to compile where there is no C++ compiler, which PyTorch would say after minutes only.

    Raises:
        ExDAError: if none is found.
    """
    # Imported here: torch._inductor takes a second, and only compiling needs it.
    from torch._inductor.cpp_builder import get_cpp_compiler  # noqa: PLC0415

    try:
        get_cpp_compiler()
    except Exception as error:
        raise ExDAError(
            "compiling needs a C++ compiler, and PyTorch finds none: install g++ or clang, or name yours in the "
            "environment variable CXX. Without --compiled, the file holds the network uncompiled."
        ) from error


def write_compiled(model: nn.Module, image: Tensor, file: Path, multiple: int, metadata: Mapping[str, str]) -> None:
    """Writes a package that ``torch._inductor.aoti_load_package`` reads, metadata included.

    Its code uses the vector instructions of this machine's CPU.
    """
    import torch._inductor  # noqa: PLC0415

    with silence_exporters(), torch.no_grad():
        program = captured(model, image, multiple)
        # Through memory, since PyTorch accepts only file names that end in .pt2.
        held = BytesIO()
        torch._inductor.aoti_compile_and_package(
            program, package_path=held, inductor_configs={"aot_inductor.metadata": dict(metadata)}
        )
    file.write_bytes(held.getvalue())


def load_compiled(file: Path) -> Callable[[Tensor], Tensor]:
    """Reads a compiled package and returns what it computes, as a function of an image (B, C, H, W)."""
    import torch._inductor  # noqa: PLC0415

    with silence_exporters():
        loaded: Callable[[Tensor], Tensor] = torch._inductor.aoti_load_package(BytesIO(file.read_bytes()))
    return loaded
