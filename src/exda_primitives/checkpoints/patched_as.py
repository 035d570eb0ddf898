"""Patches a model as a state dict says, for the time of loading; keeps the patch only if loading succeeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import nn

from ..errors import AlreadyPatchedError
from ..patching import patch
from ..patching.patch import undo
from ..patching.registry import known_families
from ..primitives.description import Description
from ..surgery.wrappers import canonical
from .network import attentions_of
from .split import by_config


@contextmanager
def patched_as(model: nn.Module, attentions: Mapping[str, Description], source: object) -> Iterator[None]:
    """Patches those of ``attentions`` that are not patched yet; an error within the block undoes it.

    Args:
        model: the model, patched in place.
        attentions: name in the model -> configuration.
        source: where the configurations are from, for messages.

    Raises:
        AlreadyPatchedError: if an attention of the model has another configuration.
        NoMatchError, PatternError, ConfigError: as for ``exda_primitives.patch``.
    """
    there = attentions_of(model, aliases=True)
    for name, description in attentions.items():
        if name in there and not there[name].config.computes_as(
            description.config.resolved(there[name].channels_per_head)
        ):
            raise AlreadyPatchedError(
                f"{source}: {name} was saved with {description.config}, in this model it has {there[name].config}. "
                f"Call exda.unpatch(model) first; loading then patches it as the file says."
            )
    # A file holds canonical names; in the model, wrappers of parts (checkpoint_wrapper) add to them.
    names_there = {canonical(name): name for name, _ in model.named_modules(remove_duplicate=False)}
    with ExitStack() as undoing:
        for config, names in by_config({n: d for n, d in attentions.items() if n not in there}).items():
            include = [literally(names_there.get(name, name)) for name in names]
            # All of them by name: extensions are not looked for otherwise.
            report = patch(model, config, include=include, families=[*known_families()])
            undoing.callback(undo, model, report)
        yield
        # Success: the patches stay.
        undoing.pop_all()


def literally(name: str) -> str:
    """Returns a pattern that matches ``name`` literally: its wildcard characters are escaped."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
