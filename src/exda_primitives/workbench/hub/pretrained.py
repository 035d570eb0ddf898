"""Folders as ``huggingface_hub.PyTorchModelHubMixin`` has them, for networks that know nothing of it."""

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
from ...checkpoints.described import described
from ...checkpoints.exda_file import load_file, read_header
from ...checkpoints.io import write_safetensors
from ...checkpoints.network import inside, parts_of
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
    """The options of ``save_pretrained`` by keyword."""

    license: Required[str]
    whole: bool
    arguments: Mapping[str, Any] | None
    results: Results
    card_data: Mapping[str, Any]


def save_pretrained(model: nn.Module, save_directory: str | PathLike[str], **options: Unpack[SaveOptions]) -> None:
    """Writes a folder that ``from_pretrained`` loads and the Hub takes.

    ``model.safetensors`` (of a patch ``exda.safetensors``) is what ``exda_primitives.save`` writes, and opens with
    whatever opens that. ``config.json`` says the architecture, its arguments, how each attention is configured, and the
    versions. ``README.md`` is the model card; one that is there stays as it is.

    Args:
        model: a network of ``exda_primitives.models`` or with the state dict of one, patched or not; with
            ``whole=False`` any network with ExDA attentions. Wrapped as for ``exda_primitives.save``, but for FSDP.
        save_directory: the folder; made if need be.
        **options: ``license``, the Hub's identifier of the weights' licence (``"apache-2.0"``, ``"other"``), which has
            to be given. ``whole``, by default True: the network; False: the parameters that ExDA added, alone, with the
            fingerprint of their host. ``arguments``: of the network's constructor where its weights do not show them
            (MoCE-IR's ``topk``). ``results``: figures for the card, ``evaluate.json`` of ``exda evaluate``, several, or
            ``huggingface_hub.EvalResult``. ``card_data``: further entries of the card's front matter (``base_model``,
            ``datasets``, ``license_name``).

    Raises:
        ConfigError: for a licence that is none, for arguments that make another network, for results of another
            network, and for a card that is there and says otherwise; nothing was written.
        CheckpointError: for a network that is not known, or weights that are not all finite.
        NotPatchedError: for a patch of a model without ExDA attentions.
        ExDAError: where huggingface_hub is missing.
        OSError: when a file cannot be written.

    Example:
        >>> import tempfile, exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.patch(model)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exda.hub.save_pretrained(model, folder, license="apache-2.0")
        ...     exda.is_patched(exda.hub.from_pretrained(folder))
        True
    """
    folder = Path(save_directory)
    written(model, folder, folder.resolve().name, **options)


def written(
    model: nn.Module, folder: Path, name: str, **options: Unpack[SaveOptions]
) -> tuple[PretrainedConfig, Measured]:
    """``save_pretrained`` under a name for the card; returns what the card was made of."""
    huggingface_hub()
    model = inside(model, "save_pretrained")
    whole = options.get("whole", True)
    config = _config_of(model, whole, options.get("arguments"))
    found = measured(options.get("results", ()), config)
    data = options.get("card_data", {})
    text = card(config, name, options["license"], found, data)
    # All that may be refused was; a folder without it holds no network, rather than half of one.
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
        # As the file says it: hashing all weights once is enough.
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
        pretrained_model_name_or_path: a folder, or the id of a repository where there is no such folder.
        into: the host of a patch, with the weights that the patch was trained on; patched in place. None for a network.
        any_host: load a patch that was trained on a host with other weights, too.
        **remote: ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only`` as in
            ``huggingface_hub.hf_hub_download``; without effect on a folder.

    Returns:
        The network in eval mode, on the CPU in the default dtype; of a patch ``into``, in eval mode, where and in the
        dtype that it was.

    Raises:
        CheckpointError: for a folder or repository without ``config.json``, or of which that and the weights are
            damaged, of a newer version, or do not fit each other; for a patch that does not fit ``into``, which then is
            as it was.
        ConfigError: for a patch without ``into``, and a network with it.
        HubError: for a repository or revision that is not there, and for a Hub that cannot be reached.
        ExDAError: where a repository is asked for and huggingface_hub is missing.
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
            f"{path}: is of a network {config.architecture!r}, which nobody registered here (known are "
            f"{', '.join(known_architectures())}); exda.register_adapter its architecture first."
        )
    identity = identify(weights)
    if identity.architecture.name != config.architecture:
        raise CheckpointError(
            f"{path}: does not fit {weights.name}: it says {config.architecture}, the weights are of "
            f"{identity.architecture.name}. One of the two is from elsewhere."
        )
    _check_attentions(config, identity.held.attentions, path, weights)
    try:
        return create(config.architecture, weights, **(config.arguments or {}))
    except (TypeError, ValueError) as error:
        # With the arguments in the file itself it has been built just now.
        raise CheckpointError(f"{path}: its arguments do not fit {weights.name}: {error}") from error


def _patched(model: nn.Module, config: PretrainedConfig, path: Path, weights: Path, any_host: bool) -> nn.Module:
    contents = read_checkpoint(weights)
    header = read_header(contents)
    held = described(contents.tensors, weights, known=header.attentions)
    _check_attentions(config, held.attentions, path, weights)
    if header.whole or header.host != config.host:
        raise CheckpointError(
            f"{path}: does not fit {weights.name}: it is of a patch for another host than the weights are. One of the "
            f"two is from elsewhere."
        )
    load_file(inside(model, "from_pretrained"), header, held, weights, any_host)
    return model


def _check_attentions(config: PretrainedConfig, held: Mapping[str, Description], path: Path, weights: Path) -> None:
    unlike = [name for name in {**config.attentions, **held} if config.attentions.get(name) != held.get(name)]
    if unlike:
        raise CheckpointError(
            f"{path}: does not fit {weights.name}, of which the attentions {some_of(unlike)} are configured otherwise, "
            f"or are not in one of the two. One of the two is from elsewhere."
        )


def _config_of(model: nn.Module, whole: bool, given: Mapping[str, Any] | None) -> PretrainedConfig:
    parts = parts_of(model)
    if not (whole or parts.attentions):
        raise NotPatchedError(f"{type(model).__name__} holds no ExDA attention: exda.patch(model) first.")
    try:
        identity = identified(model)
    except CheckpointError as error:
        if whole or given:
            raise CheckpointError(
                f"save_pretrained: {error}\n  exda.register_adapter an architecture, for from_pretrained to build it, "
                f"or save the patch alone with whole=False"
            ) from error
        architecture, arguments, attentions = None, None, parts.attentions
    else:
        architecture, arguments = identity.architecture.name, arguments_of(model, identity, given)
        # Without a wrapper's prefix, which `create` leaves out; a patch has the names of the network it was saved from.
        attentions = identity.held.attentions if whole else parts.attentions
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
    """The card that is there has to be of what is written now."""
    if not (folder / FILE).exists():
        return
    held = read_config(folder / FILE)
    if replace(held, version=config.version, host=None) != config.read_back():
        raise ConfigError(
            f"{folder / CARD}: is there and is kept, and describes another model, that of the {FILE} beside it. Remove "
            f"it for a new card, or {FILE} to keep it all the same; or give another folder."
        )


def _check_card(path: Path, text: str, asked: set[str]) -> None:
    """A card that somebody has worked on stays; what was asked for is not to be lost without a word."""
    kind = huggingface_hub().ModelCard
    try:
        held = kind.load(path).data.to_dict()
    except Exception as error:
        # Whatever front matter that was written by hand raises.
        raise ConfigError(f"{path}: cannot be read as a model card ({error}); mend it, or remove it.") from error
    new = kind(text).data.to_dict()
    unlike = [name for name in sorted(asked) if held.get(name) != new.get(name)]
    if unlike:
        raise ConfigError(
            f"{path}: is there and is kept, with {unlike[0]} {held.get(unlike[0])!r}, where {new.get(unlike[0])!r} was "
            f"asked for. Change it there, or remove the file for a new card."
        )
