"""The library's errors. Every message says what was found, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class ExDAError(Exception):
    """Base of all errors that this library raises on purpose."""


class ConfigError(ExDAError, ValueError):
    """An option does not exist, does not fit the module, or contradicts another option."""


class MixedConfigError(ConfigError):
    """The model has several configurations where a single one was asked for; the message lists them."""


class InputError(ExDAError, ValueError):
    """An attention got a tensor of a shape or dtype that it cannot take."""


class NoMatchError(ExDAError, LookupError):
    """The model contains no attention that a registered family recognises."""


class PatternError(ExDAError, LookupError):
    """An ``include``, ``exclude`` or ``families`` entry selects nothing."""


class WrappedModelError(ExDAError, TypeError):
    """The model is wrapped (DataParallel, DDP, FSDP) or scripted: patch what is inside, before wrapping."""


class RootModuleError(ExDAError, TypeError):
    """The model itself is the attention: it has no parent in which it could be replaced."""


class AlreadyPatchedError(ExDAError, RuntimeError):
    """A selected attention is patched already, with another configuration."""


class NotPatchedError(ExDAError, RuntimeError):
    """The model contains no attention that ``patch`` put there."""


class NotFusedError(ExDAError, RuntimeError):
    """The model contains no block that ``fuse`` put there."""


class VerificationError(ExDAError, RuntimeError):
    """A replacement does not compute what its host computes; nothing was changed."""


class RegistrationError(ExDAError, ValueError):
    """An adapter cannot be registered."""


class CheckpointError(ExDAError, ValueError):
    """A file is not a checkpoint, is damaged, or does not fit the model; nothing was changed."""


class DivergedError(ExDAError, ArithmeticError):
    """Training, or a network that it produced, gave NaN or infinity."""


class WriteError(ExDAError, OSError):
    """A file could not be written; an existing file is unchanged."""


class ProcessError(ExDAError, RuntimeError):
    """A worker process ended early, or memory ran out."""


class HubError(ExDAError, OSError):
    """A repository or revision does not exist, or the Hub refuses access or cannot be reached."""


class StoppedError(KeyboardInterrupt):
    """A signal ended the work in good order.

    Not an ``ExDAError``: code that catches those and continues has to stop as well.

    Attributes:
        number: the signal's number.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message, number)
        self.number = number

    def __str__(self) -> str:
        return str(self.args[0])


class ImageError(ExDAError, ValueError):
    """An image cannot be read, restored or written as asked; no file was changed."""


class DataError(ExDAError, ValueError):
    """A data set does not follow its layout: files are missing, left over, or not as many as published."""


def some_of(names: Sequence[str]) -> str:
    """Returns the first five names for a message and, if there are more, their number."""
    return ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")


def condensed(names: Sequence[str]) -> str:
    """Returns all names for a message; names that differ only in their last number become one entry.

    >>> condensed(["down.0.attn", "down.1.attn", "down.2.attn", "up.0.attn", "up.2.attn", "last"])
    'down.{0..2}.attn, up.{0,2}.attn, last'
    """
    # (text before the last number, text after it) -> the numbers found there.
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
