"""Finds what a model has of ExDA: attentions, their configurations, new parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..errors import MixedConfigError, NotPatchedError
from ..primitives import ExDAConfig, ExDAModule
from ..primitives.config import common, whereabouts
from ..surgery.wrappers import is_compiled, unwrap


def attentions(model: nn.Module, *, aliases: bool = False) -> dict[str, ExDAModule]:
    """Returns every ExDA attention, patched in or built in, by its full name.

    Args:
        model: any module; the names in a compiled one are those of the network inside.
        aliases: list a shared attention under each of its names, instead of the first alone.
    """
    inside = model.get_submodule("_orig_mod") if is_compiled(model) else model
    named = inside.named_modules(remove_duplicate=not aliases)
    return {name: module for name, module in named if isinstance(module, ExDAModule)}


def patched_attentions(model: nn.Module, *, aliases: bool = True) -> dict[str, ExDAModule]:
    """Returns those of ``attentions`` that ``patch`` put there."""
    found = attentions(model, aliases=aliases)
    return {name: module for name, module in found.items() if module.replaces_host}


def by_module(named: Mapping[str, ExDAModule]) -> dict[tuple[str, ...], ExDAModule]:
    """Returns all names of a module -> the module, each module once."""
    names: dict[ExDAModule, list[str]] = {}
    for name, module in named.items():
        names.setdefault(module, []).append(name)
    return {tuple(held): module for module, held in names.items()}


def is_patched(model: nn.Module) -> bool:
    """Whether the model holds an attention that ``patch`` put there."""
    return bool(patched_attentions(model))


def configs_of(model: nn.Module) -> dict[str, ExDAConfig]:
    """Returns the configuration of every ExDA attention, patched in or built in.

    Args:
        model: any module; the names in a compiled one are those of the network inside.

    Returns:
        Full name -> configuration, in the model's order; ``tokens`` is a number. A shared module is listed once. Empty
        for a model without ExDA.

    Examples:
        >>> import exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.patch(model, value="none", include="encoder_level1")
        >>> report = exda.patch(model, tokens=0, include="latent")
        >>> [(name, config.tokens, config.value) for name, config in exda.configs_of(model).items()]
        [('encoder_level1.0.attn', 1, 'none'), ('latent.0.attn', 0, 'residual')]
    """
    return {name: module.config for name, module in attentions(model).items()}


def config_of(model: nn.Module) -> ExDAConfig:
    """Returns the one configuration of all patched attentions or, if there are none, of all built-in ones.

    Args:
        model: any module, compiled or not.

    Returns:
        The configuration; ``tokens`` is ``"channels"`` if each attention has C / h tokens and these numbers differ.

    Raises:
        NotPatchedError: for a model without ExDA.
        MixedConfigError: for a model with several configurations; the message lists them. See ``configs_of``.

    Examples:
        >>> import exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.patch(model, tokens=2)
        >>> exda.config_of(model) == exda.ExDAConfig(tokens=2)
        True
    """
    found = patched_attentions(model, aliases=False) or attentions(model)
    if not found:
        raise NotPatchedError(f"{type(model).__name__} holds no ExDA attention: exda.patch(model) first.")
    one = common([(module.config, module.channels_per_head) for module in found.values()])
    if one is not None:
        return one
    lines = whereabouts({name: module.config for name, module in found.items()})
    raise MixedConfigError(
        "\n  ".join(
            [
                f"{type(model).__name__}: its {len(found)} ExDA attentions have {len(lines)} configurations, not one; "
                f"exda.configs_of(model) gives that of each:",
                *lines,
            ]
        )
    )


def new_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters that ExDA added, patched in or built in; a shared one is listed once.

    Give them to the optimizer as a group. All other parameters still collect gradients, which ``clip_grad_norm_`` over
    all parameters counts; ``train_only_new`` freezes them.

    Examples:
        >>> import exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.patch(model)
        >>> sum(p.numel() for p in exda.new_parameters(model)) == report.extra_parameters
        True
    """
    # By id: tensors compare elementwise, so that a parameter cannot be looked up by ``==``.
    return list({id(p): p for module in attentions(model).values() for p in module.new_parameters().values()}.values())


def train_only_new(model: nn.Module) -> list[nn.Parameter]:
    """Freezes every parameter except those that ExDA added, and returns these, for the optimizer.

    Frozen parameters get ``requires_grad=False`` and lose the gradients collected so far; all parameters that ExDA
    added become trainable. So ``torch.nn.utils.clip_grad_norm_`` over all of ``model.parameters()`` clips only what is
    trained. ``model.requires_grad_(True)`` undoes it.

    Buffers are not frozen: in train mode, BatchNorm layers of the host still update their running statistics. To keep
    these, put such layers into eval mode after every ``model.train()``.

    Args:
        model: a model with ExDA attentions, patched in or built in.

    Returns:
        The new parameters, each once.

    Raises:
        NotPatchedError: if there are no new parameters, so that nothing would be left to train; nothing is frozen then.
        WrappedModelError: for DataParallel, DDP, FSDP and script modules: freeze before wrapping.

    Examples:
        >>> import torch, exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.patch(model)
        >>> optimizer = torch.optim.AdamW(exda.train_only_new(model), lr=2e-4)
        >>> model(torch.rand(1, 3, 16, 16)).square().mean().backward()
        >>> {name.split(".attn.")[1] for name, p in model.named_parameters() if p.grad is not None} == {
        ...     name.split(".attn.")[1] for name in report.new_parameters}
        True
    """
    # Refuses DDP and FSDP: their gradient buckets hold what was trainable when the model was wrapped.
    model, _ = unwrap(model, "train_only_new")
    new = new_parameters(model)
    if not new:
        raise NotPatchedError(
            f"{type(model).__name__} holds no parameters that ExDA added, so that nothing would be left to train: "
            f"exda.patch(model) first, with tokens or a value that has parameters."
        )
    ours = {id(parameter) for parameter in new}
    for parameter in model.parameters():
        if id(parameter) in ours:
            parameter.requires_grad_(True)
        else:
            parameter.requires_grad_(False)
            parameter.grad = None
    return new
