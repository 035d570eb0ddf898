"""Every error of the library: what was found, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Sequence


class ExDAError(Exception):
    """Base of all errors that this library raises on purpose."""


class ConfigError(ExDAError, ValueError):
    """An option, or a combination of options, that does not exist or does not fit the module."""


class MixedConfigError(ConfigError):
    """The model has several configurations, where one was asked for; the message says which is where."""


class InputError(ExDAError, ValueError):
    """An attention was given a tensor that it cannot take."""


class NoMatchError(ExDAError, LookupError):
    """The model contains no attention that a registered family recognises."""


class PatternError(ExDAError, LookupError):
    """An ``include``, ``exclude`` or ``families`` entry selects nothing."""


class WrappedModelError(ExDAError, TypeError):
    """The model is wrapped (DataParallel, DDP, FSDP) or scripted: patch what is inside, before wrapping."""


class RootModuleError(ExDAError, TypeError):
    """The model itself is the attention: it has no parent in which it could be replaced."""


class AlreadyPatchedError(ExDAError, RuntimeError):
    """An attention that is to be patched carries another configuration already."""


class NotPatchedError(ExDAError, RuntimeError):
    """The model contains no attention that ``patch`` put there."""


class NotFusedError(ExDAError, RuntimeError):
    """The model contains no block that ``fuse`` put there."""


class VerificationError(ExDAError, RuntimeError):
    """A replacement does not compute what its host computes; nothing was changed."""


class RegistrationError(ExDAError, ValueError):
    """An adapter cannot be registered."""


class CheckpointError(ExDAError, ValueError):
    """A file that is no checkpoint, is damaged, or does not fit the model; nothing was changed."""


class DivergedError(ExDAError, ArithmeticError):
    """Training, or what it trained, gave NaN or infinity."""


class WriteError(ExDAError, OSError):
    """A file could not be written; what was there is still there."""


class ProcessError(ExDAError, RuntimeError):
    """A process that was needed has ended, or memory did."""


class HubError(ExDAError, OSError):
    """A repository or revision that is not there, or a Hub that refuses or cannot be reached."""


class StoppedError(KeyboardInterrupt):
    """A signal has ended the work in good order. Not an ``ExDAError``: whoever goes on after errors must stop too.

    Attributes:
        number: of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message, number)
        self.number = number

    def __str__(self) -> str:
        return str(self.args[0])


class ImageError(ExDAError, ValueError):
    """An image that cannot be read, restored or written as asked; no file was changed."""


class DataError(ExDAError, ValueError):
    """A data set that is not as its layout asks: files are missing, left over, or another number than published."""


def some_of(names: Sequence[str]) -> str:
    """The first five names, and how many there are if more, for a message."""
    return ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")


def condensed(names: Sequence[str]) -> str:
    """All names, for a message: those that differ in their last number as one.

    >>> condensed(["down.0.attn", "down.1.attn", "down.2.attn", "up.0.attn", "up.2.attn", "last"])
    'down.{0..2}.attn, up.{0,2}.attn, last'
    """
    numbers: dict[tuple[str, str], list[int]] = {}
    for name in names:
        parts = name.split(".")
        last = max((i for i, part in enumerate(parts) if part.isdecimal()), default=len(parts))
        place = (".".join(parts[:last]), ".".join(parts[last + 1 :]))
        numbers.setdefault(place, []).extend(map(int, parts[last : last + 1]))
    return ", ".join(
        ".".join(filter(None, (before, _range(held) if held else "", after)))
        for (before, after), held in numbers.items()
    )


def _range(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if len(numbers) == 1:
        return str(first)
    if list(numbers) == list(range(first, last + 1)):
        return f"{{{first}..{last}}}"
    return f"{{{','.join(map(str, numbers))}}}"
