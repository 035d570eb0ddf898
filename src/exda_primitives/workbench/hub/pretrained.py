"""Saves and loads folders like ``huggingface_hub.PyTorchModelHubMixin`` does, for networks without that mixin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor, nn
from typing_extensions import Required, Unpack

from ...checkpoints import save
from ...checkpoints.contents import read_checkpoint
from ...checkpoints.exda_file import load_file, read_header
from ...checkpoints.io import write_safetensors
from ...checkpoints.network import inside, parts_of, state_of
from ...checkpoints.split import split_state_dict
from ...errors import CheckpointError, ConfigError, NotPatchedError, some_of
from ...files import write_text
from ...models.catalog import create, identify
from ...models.registry import known_architectures
from ...patching import new_parameters
from ...primitives.description import Description
from ..shared.packages import huggingface_hub
from .card import card
from .config import FILE, NETWORK, PATCH, PretrainedConfig, read_config
from .download import Remote, folder_of
from .figures import Measured, Results, measured
from .identity import arguments_of, identified

CARD = "README.md"


class SaveOptions(TypedDict, total=False):
    """Keyword options of ``save_pretrained``, which documents them."""

    license: Required[str]
    whole: bool
    arguments: Mapping[str, Any] | None
    results: Results
    card_data: Mapping[str, Any]


def save_pretrained(model: nn.Module, save_directory: str | PathLike[str], **options: Unpack[SaveOptions]) -> None:
    """Writes a folder that ``from_pretrained`` loads and the Hub accepts.

    ``model.safetensors`` (``exda.safetensors`` for a patch) is what ``exda_primitives.save`` writes, and can be loaded
    in the same ways. ``config.json`` holds the architecture, its arguments, the configuration of each attention, and
    the versions. ``README.md`` is the model card; an existing one is kept.

    Args:
        model: a network of ``exda_primitives.models`` or with the state dict of one, patched or not; with
            ``whole=False`` any network with ExDA attentions. May be wrapped as for ``exda_primitives.save``, except in
            FSDP.
        save_directory: the folder; created if necessary.
        **options: ``license`` (required): the Hub's identifier of the weights' licence (``"apache-2.0"``,
            ``"other"``). ``whole``: True (the default) saves the network; False only the parameters that ExDA added,
            with the fingerprint of their host. ``arguments``: constructor arguments that the weights do not show
            (MoCE-IR's ``topk``). ``results``: figures for the card: an ``evaluate.json`` of ``exda evaluate``, or a
            sequence of these and of ``huggingface_hub.EvalResult``. ``card_data``: further entries of the card's front
            matter (``base_model``, ``datasets``, ``license_name``).

    Raises:
        ConfigError: for a licence without a name, arguments that build another network, results of another network,
            and an existing card that contradicts what is saved; nothing is written.
        CheckpointError: for an unknown network, weights that are not all finite, or a network whose state dict holds
            anything but tensors.
        NotPatchedError: for a patch (``whole=False``) of a model without ExDA attentions.
        ExDAError: if huggingface_hub is not installed.
        OSError: if a file cannot be written.

    Examples:
        >>> import tempfile, exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.patch(model)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exda.hub.save_pretrained(model, folder, license="apache-2.0")
        ...     exda.is_patched(exda.hub.from_pretrained(folder))
        True
    """
    folder = Path(save_directory)
    save_folder(model, folder, folder.resolve().name, **options)


def save_folder(
    model: nn.Module, folder: Path, name: str, **options: Unpack[SaveOptions]
) -> tuple[PretrainedConfig, Measured]:
    """Does the work of ``save_pretrained``, with a given name for the card; returns what the card was made of."""
    huggingface_hub()
    model = inside(model, "save_pretrained")
    whole = options.get("whole", True)
    config = _config_of(model, whole, options.get("arguments"))
    found = measured(options.get("results", ()), config)
    data = options.get("card_data", {})
    text = card(config, name, options["license"], found, data)
    # Everything that can be refused is checked before the first write. config.json is removed first and written after
    # the weights, so that a save that is interrupted leaves no folder that loads.
    config.as_json()
    if (folder / CARD).exists():
        _check_described(folder, config)
        _check_card(folder / CARD, text, {"license", *data, *(["model-index"] if found.entries else [])})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).unlink(missing_ok=True)
    weights = folder / config.weights
    if config.attentions:
        save(model, weights, whole=whole)
    else:
        write_safetensors(parts_of(model).host, {"format": "pt"}, weights)
    if config.holds == PATCH:
        # `save` has hashed the host's weights already: its fingerprint is read from the file.
        config = replace(config, host=read_header(read_checkpoint(weights)).host)
    write_text(folder / FILE, config.as_json())
    if not (folder / CARD).exists():
        write_text(folder / CARD, text)
    return config, found


def from_pretrained(
    pretrained_model_name_or_path: str | PathLike[str],
    *,
    into: nn.Module | None = None,
    any_host: bool = False,
    **remote: Unpack[Remote],
) -> nn.Module:
    """Loads what ``save_pretrained`` wrote, from a folder or from a repository on the Hub.

    Args:
        pretrained_model_name_or_path: a folder, or if there is no such folder the id of a repository.
        into: for a patch: its host, with the weights that the patch was trained on; patched in place. For a network:
            None.
        any_host: also load a patch that was trained on a host with other weights.
        **remote: ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only`` as in
            ``huggingface_hub.hf_hub_download``; without effect on a folder.

    Returns:
        For a network: the network in eval mode, on the CPU, in the default dtype. For a patch: ``into`` in eval mode,
        on its device and in its dtype.

    Raises:
        CheckpointError: if ``config.json`` is missing; if it or the weights are damaged, of a newer version, or do not
            fit each other; if a patch does not fit ``into``, which is then unchanged.
        ConfigError: for a patch without ``into``, and a network with it.
        HubError: for a repository or revision that does not exist, and if the Hub cannot be reached.
        ExDAError: if a repository is asked for and huggingface_hub is not installed.
    """
    folder = folder_of(pretrained_model_name_or_path, **remote)
    config = read_config(folder(FILE))
    given = str(pretrained_model_name_or_path)
    if config.holds == PATCH:
        if into is None:
            host = config.architecture or "network"
            raise ConfigError(
                f"from_pretrained({given!r}): holds a patch for a {host}, not the network; give the host that it was "
                f"trained on: from_pretrained({given!r}, into=model)."
            )
        return _patched(into, config, folder(FILE), folder(config.weights), any_host).eval()
    if into is not None:
        raise ConfigError(f"from_pretrained({given!r}): holds a whole network; leave into= out.")
    return _network(config, folder(FILE), folder(config.weights))


def _network(config: PretrainedConfig, path: Path, weights: Path) -> nn.Module:
    assert config.architecture is not None
    if config.architecture not in known_architectures():
        raise CheckpointError(
            f"{path}: describes a network {config.architecture!r}, which nobody registered here (known are "
            f"{', '.join(known_architectures())}); register its architecture with exda.register_adapter first."
        )
    identity = identify(weights)
    if identity.architecture.name != config.architecture:
        raise CheckpointError(
            f"{path}: does not fit {weights.name}: it says {config.architecture}, the weights are of "
            f"{identity.architecture.name}. One of the two files belongs to another folder."
        )
    _check_attentions(config, identity.state.attentions, path, weights)
    try:
        return create(config.architecture, weights, **(config.arguments or {}))
    except (TypeError, ValueError) as error:
        # `identify` has just built it with the arguments that the weights show, so config.json's are at fault.
        raise CheckpointError(f"{path}: its arguments do not fit {weights.name}: {error}") from error


def _patched(model: nn.Module, config: PretrainedConfig, path: Path, weights: Path, any_host: bool) -> nn.Module:
    contents = read_checkpoint(weights)
    header = read_header(contents)
    held = split_state_dict(contents.tensors, weights, known=header.attentions)
    _check_attentions(config, held.attentions, path, weights)
    if header.whole or header.host != config.host:
        raise CheckpointError(
            f"{path}: does not fit {weights.name}: it describes a patch for another host than the weights. "
            f"One of the two files belongs to another folder."
        )
    load_file(inside(model, "from_pretrained"), header, held, weights, any_host)
    return model


def _check_attentions(config: PretrainedConfig, held: Mapping[str, Description], path: Path, weights: Path) -> None:
    differing = [name for name in {**config.attentions, **held} if config.attentions.get(name) != held.get(name)]
    if differing:
        raise CheckpointError(
            f"{path}: does not fit {weights.name}: the attentions {some_of(differing)} are configured otherwise there, "
            f"or are in only one of the two. One of the two files belongs to another folder."
        )


def _config_of(model: nn.Module, whole: bool, given: Mapping[str, Any] | None) -> PretrainedConfig:
    parts = parts_of(model, state_of(model, whole=whole))
    if not (whole or parts.attentions):
        raise NotPatchedError(f"{type(model).__name__} holds no ExDA attention: call exda.patch(model) first.")
    try:
        identity = identified(model)
    except CheckpointError as error:
        if whole or given:
            raise CheckpointError(
                f"save_pretrained: {error}\n  register the architecture with exda.register_adapter, so that "
                f"from_pretrained can build it, or save the patch alone with whole=False"
            ) from error
        architecture, arguments, attentions = None, None, parts.attentions
    else:
        architecture, arguments = identity.architecture.name, arguments_of(model, identity, given)
        # A network's names have no wrapper's prefix, as `create` drops it; a patch keeps the names of its host.
        attentions = identity.state.attentions if whole else parts.attentions
    return PretrainedConfig(
        holds=NETWORK if whole else PATCH,
        architecture=architecture,
        arguments=arguments,
        attentions=attentions,
        parameters=sum(each.numel() for each in model.parameters()),
        added=sum(each.numel() for each in new_parameters(model)),
        dtype=_dtypes(parts.weights),
        host=None,
    )


def _dtypes(tensors: Mapping[str, Tensor]) -> str:
    kinds = {str(each.dtype).removeprefix("torch.") for each in tensors.values() if each.is_floating_point()}
    return ", ".join(sorted(kinds))


def _check_described(folder: Path, config: PretrainedConfig) -> None:
    """Refuses to keep an existing card if the ``config.json`` with it describes another model than ``config``."""
    if not (folder / FILE).exists():
        return
    held = read_config(folder / FILE)
    # Not compared: the library's version, and the host's fingerprint, which is not computed yet.
    if replace(held, version=config.version, host=None) != config.read_back():
        raise ConfigError(
            f"{folder / CARD}: exists and is kept, but describes another model, that of the {FILE} in the folder. "
            f"Remove the card to get a new one, remove {FILE} to keep the card all the same, or give another folder."
        )


def _check_card(path: Path, text: str, asked: set[str]) -> None:
    """Refuses to keep an existing card that contradicts the entries ``asked`` for; a card is never overwritten."""
    kind = huggingface_hub().ModelCard
    try:
        held = kind.load(path).data.to_dict()
    except Exception as error:
        # Front matter that was written by hand can raise anything.
        raise ConfigError(f"{path}: cannot be read as a model card ({error}); correct it, or remove it.") from error
    new = kind(text).data.to_dict()
    differing = [name for name in sorted(asked) if held.get(name) != new.get(name)]
    if differing:
        raise ConfigError(
            f"{path}: exists and is kept, with {differing[0]} {held.get(differing[0])!r}, where "
            f"{new.get(differing[0])!r} was asked for. Change the entry in the card, or remove the file to get a new "
            f"card."
        )
