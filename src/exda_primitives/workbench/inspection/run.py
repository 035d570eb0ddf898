"""Runs the whole inspection of a model and writes everything that it finds into one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor, nn

from ...errors import ConfigError, ExDAError
from ...extras import install_line
from ...files import write_text
from ...patching.select import Patterns
from ..shared.machine import package_version
from ..shared.packages import has_umap, sklearn
from ..shared.results import Result, begin, write
from .attentions import attentions, has_tokens, those_with_tokens
from .clusters import agreement, check_labels
from .collect import collect, model_input
from .embeddings import READERS, Of, concatenated, stacked
from .images import LabelledImages
from .parts import compact_maps
from .plots import agreements, scatter, sheet, spectra_figure
from .projections import TITLES, Method, project
from .spectra import FREQUENCIES, spectra_of
from .table import markdown
from .token_maps import area

ALL = "all"
"""The name, in place of a block's, of all blocks' features concatenated."""

MOST_COLUMNS = 12
"""Most blocks in the overview of token maps; in a deeper model, every second, third, ... block is shown."""

_FILES = (
    "inspect.json",
    "inspect.md",
    "embeddings.npz",
    "clusters.png",
    "tsne.png",
    "umap.png",
    "tokens.png",
    "tokens",
    "spectra.png",
)

OnProgress = Callable[[str, float], None]
"""Called with the name of the current task, and the share of all work that is done, 0 to 1."""


@dataclass(frozen=True)
class InspectionOptions:
    """What to inspect.

    Attributes:
        blocks: pattern or patterns of attentions' names; all by default.
        of: what to embed; by default the outputs and, if an attention has some, the tokens.
        seeds: seeds of k-means.
        seed: seed of the projections.
    """

    blocks: Patterns = None
    of: Sequence[Of] = ()
    seeds: Sequence[int] = tuple(range(10))
    seed: int = 0


def run(
    model: nn.Module,
    images: LabelledImages,
    out: Path,
    options: InspectionOptions,
    config: Mapping[str, Any],
    command: str,
    on_progress: OnProgress = lambda title, done: None,
) -> tuple[Result, list[str]]:
    """Runs a model on labelled images and writes what its attentions make of them.

    Args:
        model: patched or not.
        images: labelled images.
        out: folder, created if necessary; files appear in it only when all are complete.
        options: what to inspect.
        config: description of model and images, plain data, for the result.
        command: what to type to get the same files.
        on_progress: see ``OnProgress``.

    Returns:
        The result as it is in ``inspect.json``, and one sentence for each part that was left out, with the reason.

    Raises:
        ConfigError: for files that exist already, a folder that cannot be created, and labels that k-means cannot be
            compared with, see ``agreement``.
        ExDAError: whatever the parts raise; no file is then written.
    """
    check_free(out)
    check_labels(images.labels, len(images))
    # Fails early if scikit-learn is missing, not after all images.
    sklearn("cluster")
    # Once for all parts, as recognising the attentions runs a probe of each.
    found = attentions(model, options.blocks)
    tokens = {name: module for name, module in found.items() if has_tokens(module)}
    kinds: Sequence[Of] = options.of or (("outputs", "tokens") if tokens else ("outputs",))
    chosen = {of: those_with_tokens(found, model, options.blocks) if of == "tokens" else found for of in kinds}
    asked = {**config, **_asked(options, kinds)}
    result = begin(out / "inspect.json", "inspect", asked, options.seeds, command, next(model.parameters()).device)

    embedded = {}
    total = len(images) * len(chosen)
    for index, (of, those) in enumerate(chosen.items()):

        def on_image(done: int, of: Of = of, before: int = index * len(images)) -> None:
            on_progress(f"embedding: {of}, image {done} of {len(images)}", 0.7 * (before + done) / total)

        embedded[of] = stacked(collect(model, images, those, READERS[of], on_image))
    out.mkdir(parents=True, exist_ok=True)
    # Left half done, the folder would be refused the next time.
    with TemporaryDirectory(prefix=".inspect-", dir=out) as name:
        partial = Path(name)
        _save(partial / "embeddings.npz", embedded, images)
        on_progress("k-means", 0.7)
        scores, notes = _clustered(embedded, images.labels, options.seeds, result)
        agreements(scores, "k-means against the true degradation").savefig(partial / "clusters.png", dpi=150)
        notes += _projected(partial, embedded, images, options.seed, on_progress)
        shown = {f"{images.labels[i]}: {Path(images.name(i)).stem}": images[i] for i in images.one_of_each()}
        on_progress("spectra", 0.9)
        _spectra(partial, model, shown, found, result)
        if tokens:
            on_progress("token maps", 0.95)
            _tokens(partial, model, shown, tokens, result)
        else:
            notes.append("tokens.png was not drawn: the model has no ExDA attention with global spatial tokens")
        result["notes"] = notes
        write_text(partial / "inspect.md", markdown(result))
        write(partial / "inspect.json", result)
        for path in partial.iterdir():
            path.rename(out / path.name)
    on_progress("done", 1)
    return result, notes


def check_free(out: Path) -> None:
    """Checks that no file would be overwritten.

    Raises:
        ConfigError: for a folder that holds a file of an earlier inspection.
    """
    there = [name for name in _FILES if (out / name).exists()]
    if there:
        raise ConfigError(f"{out / there[0]} exists and is not overwritten; give another folder or remove it.")


def _asked(options: InspectionOptions, kinds: Sequence[Of]) -> dict[str, Any]:
    patterns = [options.blocks] if isinstance(options.blocks, str) else options.blocks
    return {
        "blocks": None if patterns is None else list(patterns),
        "of": list(kinds),
        "projection_seed": options.seed,
        "versions": {name: package_version(name) for name in ("scikit-learn", "umap-learn")},
    }


def _save(path: Path, embedded: Mapping[Of, Mapping[str, Tensor]], images: LabelledImages) -> None:
    arrays: dict[str, Any] = {
        f"{of}/{block}": points.numpy() for of, blocks in embedded.items() for block, points in blocks.items()
    }
    names = [images.name(i) for i in range(len(images))]
    np.savez_compressed(path, labels=np.array(images.labels), names=np.array(names), **arrays)


def _clustered(
    embedded: Mapping[Of, Mapping[str, Tensor]], labels: Sequence[str], seeds: Sequence[int], result: Result
) -> tuple[dict[str, dict[str, list[tuple[float, float]]]], list[str]]:
    """Clusters every block's embeddings and adds the scores to the result's runs.

    Returns:
        What was embedded -> block -> (NMI, ARI) of each seed; and a sentence for each block that was left out.

    Raises:
        ConfigError: if not even all blocks together can be clustered.
    """
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    notes = []
    for of, blocks in embedded.items():
        everything = {ALL: concatenated(blocks)} if len(blocks) > 1 else {}
        for block, points in {**everything, **blocks}.items():
            try:
                scores = agreement(points, labels, seeds)
            except ConfigError as error:
                left_out = f"{of} of {block} were not clustered: {error}"
                # The concatenation of all blocks comes first: if it fails, so would every block.
                if of not in found:
                    raise ConfigError(left_out) from None
                notes.append(left_out)
                continue
            for score in scores:
                of_block = {"measure": "clusters", "of": of, "block": block, "features": points.shape[1]}
                result["runs"].append(of_block | score._asdict())
                found.setdefault(of, {}).setdefault(block, []).append((score.nmi, score.ari))
    return found, notes


def _projected(
    out: Path,
    embedded: Mapping[Of, Mapping[str, Tensor]],
    images: LabelledImages,
    seed: int,
    on_progress: OnProgress,
) -> list[str]:
    """Draws both projections; returns a sentence for each that could not be made."""
    notes = []
    methods: tuple[Method, ...] = ("tsne", "umap")
    for method in methods:
        on_progress(TITLES[method], 0.8 if method == "tsne" else 0.85)
        if method == "umap" and not has_umap():
            notes.append(f"umap.png was not drawn: umap-learn is missing; run: {install_line('umap')}")
            continue
        try:
            planes: dict[str, Tensor] = {
                of: project(concatenated(blocks), method, seed) for of, blocks in embedded.items()
            }
        except ExDAError as error:
            notes.append(f"{method}.png was not drawn: {error}")
            continue
        title = f"{TITLES[method]} of all blocks, {len(images)} images"
        scatter(planes, images.labels, title).savefig(out / f"{method}.png", dpi=150)
    return notes


def _spectra(
    out: Path, model: nn.Module, shown: Mapping[str, Tensor], those: Mapping[str, nn.Module], result: Result
) -> None:
    found = spectra_of(model, shown.values(), those)
    for block, powers in found.items():
        for what, power in powers.items():
            # JSON has no NaN, which marks rings that a small map does not have.
            values = [float(value) if value.isfinite() else None for value in power]
            of_block = {"measure": "spectrum", "block": block, "of": what}
            result["runs"].append(of_block | {"frequencies": list(FREQUENCIES), "power": values})
    title = f"power spectra, mean over channels and {len(shown)} images"
    spectra_figure(found, title).savefig(out / "spectra.png", dpi=150)


def _tokens(
    out: Path, model: nn.Module, shown: Mapping[str, Tensor], those: Mapping[str, nn.Module], result: Result
) -> None:
    found = collect(model, shown.values(), those, compact_maps)
    images = {caption: model_input(model, image) for caption, image in shown.items()}
    (out / "tokens").mkdir()
    for block, maps in found.items():
        single = {
            f"head {head}, token {token}": [each[head, token] for each in maps]
            for head in range(maps[0].shape[0])
            for token in range(maps[0].shape[1])
        }
        sheet(images, single, block).savefig(out / "tokens" / f"{block or 'attention'}.png", dpi=100)
        for caption, each in zip(shown, maps, strict=True):
            of_block = {"measure": "token area", "block": block, "picture": caption}
            result["runs"].append(of_block | {"area": area(each).tolist()})
    names = list(found)
    step = -(-len(names) // MOST_COLUMNS)
    # The mean over heads and tokens is a distribution again, of sum 1, as `sheet` expects.
    overview = {name: [each.mean((0, 1)) for each in found[name]] for name in names[::step]}
    title = "where the tokens look: mean over heads and tokens, and the share of the image"
    sheet(images, overview, title).savefig(out / "tokens.png", dpi=100)
