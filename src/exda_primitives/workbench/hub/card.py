"""The model card: YAML front matter for the Hub, and text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...checkpoints.split import by_config
from ...errors import ConfigError, condensed
from ..shared.packages import huggingface_hub
from ..shared.tables import markdown_table
from .config import LIBRARY, PATCH, PretrainedConfig
from .figures import TASK, Measured


def card(config: PretrainedConfig, name: str, license: str, found: Measured, data: Mapping[str, Any]) -> str:
    """Returns the text of the model card, ``README.md``.

    Args:
        config: what the folder holds.
        name: name of the folder, or the repository's id.
        license: the Hub's identifier of the licence.
        found: measured figures.
        data: further entries of the front matter; they win over the card's own.

    Raises:
        ConfigError: for a licence without a name, and for an entry of ``data`` that an option sets.
    """
    if own := sorted({"license", "eval_results", "model_name"} & data.keys()):
        raise ConfigError(
            f"save_pretrained: card_data has {own[0]!r}, which is set elsewhere: use license= or results=; the model's "
            f"name is the folder's."
        )
    if not license or (license == "other" and not data.get("license_name")):
        raise ConfigError(
            f"save_pretrained: license={license!r} names no licence. Give the Hub's identifier, such as 'mit' or "
            f"'apache-2.0', or 'other' with card_data={{'license_name': ..., 'license_link': ...}}."
        )
    library = huggingface_hub()
    head = {
        "license": license,
        "library_name": LIBRARY,
        "pipeline_tag": TASK,
        "tags": ["image-restoration", *filter(None, [config.architecture]), *(["exda"] if config.attentions else [])],
        "model_name": name.rpartition("/")[2],
        # None, as an empty list would be written as a model-index without results.
        "eval_results": found.entries or None,
    }
    front = library.ModelCardData(**{**head, **data}).to_yaml()
    lines = ["---", front, "---", "", f"# {name}", "", *_what(config), *_use(config, name)]
    if found.lines:
        lines += ["## Measured", "", *found.lines]
    return str(library.ModelCard("\n".join(lines).rstrip() + "\n"))


def _what(config: PretrainedConfig) -> list[str]:
    network = config.architecture or "a network"
    arguments = ", ".join(f"{key}={value!r}" for key, value in (config.arguments or {}).items())
    called = f"`{network}`" + (f" (`{arguments}`)" if arguments else "")
    if config.holds == PATCH:
        first = f"ExDA parameters for {called}: a patch, of use on the host with the weights that it was trained on."
    else:
        first = f"An image restoration network: {called}."
    count = f"{config.parameters:,} parameters in all, {config.added:,} of them added by ExDA; {config.dtype}."
    lines = [first, "", count, ""]
    if config.attentions:
        head = ["attentions", "names", "options"]
        rows = [
            [str(len(names)), condensed(names), ", ".join(f"{key}={value!r}" for key, value in each.as_dict().items())]
            for each, names in by_config(config.attentions).items()
        ]
        built_in = all(each.built_in for each in config.attentions.values())
        title = "## What was built in" if built_in else "## What was patched"
        return [*lines, title, "", *markdown_table(head, rows), ""]
    return [*lines, "Nothing is patched.", ""]


def _use(config: PretrainedConfig, name: str) -> list[str]:
    into = ", into=host" if config.holds == PATCH else ""
    return [
        "## Use",
        "",
        "```python",
        f"from {LIBRARY} import hub",
        "",
        f'model = hub.from_pretrained("{name}"{into})',
        "```",
        "",
        f"Written by {LIBRARY} {config.version}; `config.json` says everything about the weights.",
        "",
    ]
