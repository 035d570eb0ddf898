"""Builds the network of a run."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn

from ...errors import ConfigError, ExDAError, some_of
from ...models import ExDA, create
from ...patching import Report, is_patched, new_parameters, patch, plan, unpatch
from ...primitives import ExDAModule
from .config import ModelConfig, PrimitivesConfig, TrainConfig
from .lora import add_lora, lora_parameters
from .order import mixed


class Network(NamedTuple):
    """The network of a run.

    Attributes:
        net: the network.
        report: the report of ``patch``; None if nothing was patched in.
        left_out: name of each layer that gets no LoRA though it is of the asked ones -> the reason.
    """

    net: nn.Module
    report: Report | None
    left_out: Mapping[str, str] = MappingProxyType({})


def build(config: TrainConfig, begun: Path | None = None) -> Network:
    """Builds the network with which a run begins, in train mode, on the CPU; its weights depend only on the seed.

    The primitives are patched in, except into an ``exda_primitives.models.ExDA``, which is built with them. LoRA is
    added to the host's layers afterwards. A host that is frozen (``recipe.train`` is ``"new"``) keeps its buffers, too:
    its BatchNorm layers are in eval mode.

    Args:
        config: configuration of the run.
        begun: file of a run that is resumed. It replaces the checkpoint that the run began with, which need not exist
            any more.

    Raises:
        ConfigError: for an unknown network, arguments that it does not take, primitives that it cannot have or already
            has with other options, and if nothing is left to train.
        CheckpointError: for a checkpoint that cannot be read or does not fit.
        NoMatchError, PatternError: if the primitives find no place.
        ExDAError: for LoRA, if the packages of the extra ``adapt`` are not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed(config.recipe.seed))
        network = _built(config, begun)
        if config.lora is not None:
            # After the primitives: `patch` would not recognise attentions whose layers PEFT has wrapped.
            network = network._replace(left_out=add_lora(network.net, config.lora))
    if config.recipe.train != "all":
        trained = {id(parameter) for parameter in _trained(config, network.net)}
        for parameter in network.net.parameters():
            parameter.requires_grad_(id(parameter) in trained)
    network.net.train()
    if config.recipe.train == "new":
        _keep_buffers(network.net)
    return network


def _keep_buffers(net: nn.Module) -> None:
    """Puts layers that may change buffers of their own in train mode, such as BatchNorm's running statistics, in eval.

    Only layers without parts: the mode of a larger module, as it was written, may decide on more than its buffers.
    """
    for module in net.modules():
        if module._buffers and not module._modules:
            module.eval()


def _trained(config: TrainConfig, net: nn.Module) -> list[nn.Parameter]:
    if config.recipe.train == "new":
        found = [*new_parameters(net), *lora_parameters(net).values()]
        lacks = "no new parameters; set primitives or lora"
    else:
        found = [parameter for parameter in net.parameters() if parameter.ndim == 1]
        lacks = "no parameters of one dimension"
    if not found:
        raise ConfigError(f"recipe.train: found {config.recipe.train!r}, but the network has {lacks}.")
    return found


def _built(config: TrainConfig, begun: Path | None) -> Network:
    model, primitives = config.model, config.primitives
    if model.checkpoint is not None and begun is not None:
        model = replace(model, checkpoint=str(begun))
    net = _created(model, primitives)
    if primitives is None:
        return Network(net, None)
    if isinstance(net, ExDA) and not is_patched(net):
        if primitives.include or primitives.exclude:
            raise ConfigError(
                f"primitives: {model.name} has them in every attention; include and exclude are for a network that is "
                f"patched, such as restormer."
            )
        if model.checkpoint is None:
            net = _created(model, None, config=primitives.options)
    _refuse_others(net, primitives, config.model)
    if not primitives.adds or (isinstance(net, ExDA) and not is_patched(net)):
        return Network(net, None)
    report = patch(net, primitives.options, include=primitives.include, exclude=primitives.exclude)
    return Network(net, report)


def _refuse_others(net: nn.Module, primitives: PrimitivesConfig, model: ModelConfig) -> None:
    """Checks that the primitives that a checkpoint brings are those that the configuration asks for."""
    for name, module in net.named_modules():
        if isinstance(module, ExDAModule) and module.config != primitives.options.resolved(module.channels_per_head):
            raise ConfigError(
                f"primitives: the configuration asks for {primitives.options}, but {name} of "
                f"{model.checkpoint or model.name} has {module.config}. Leave the section out to train what is there, "
                f"or begin with another checkpoint."
            )
    if is_patched(net) and (primitives.include is not None or primitives.exclude is not None):
        # Recognises anew on an unpatched copy, since `plan` skips attentions that are patched already.
        bare = deepcopy(net)
        held = set(unpatch(bare))
        asked = plan(bare, primitives.options, include=primitives.include, exclude=primitives.exclude)
        beside = sorted(held - {name for match in asked.matches for name in (match.name, *match.aliases)})
        if beside:
            raise ConfigError(
                f"primitives: include and exclude leave out {some_of(beside)}, where {model.checkpoint} has them. "
                f"Leave the section out to train what is there, or begin with another checkpoint."
            )


def _created(model: ModelConfig, primitives: PrimitivesConfig | None, **more: object) -> nn.Module:
    if model.checkpoint is not None and primitives is not None:
        # Used only for checkpoints that do not record how they were patched.
        more["config"] = primitives.options
    try:
        return create(model.name, model.checkpoint, **{**model.arguments, **more})
    except ExDAError as error:
        if isinstance(error, ConfigError):
            raise ConfigError(f"model: {error}") from None
        raise
    except Exception as error:
        # The arguments come from a file: a constructor may raise anything.
        raise ConfigError(
            f"model.arguments: {model.name} refuses {model.arguments} ({type(error).__name__}: {error})."
        ) from error
