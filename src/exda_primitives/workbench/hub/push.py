"""Uploads networks and patches to the Hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn
from typing_extensions import Unpack

from ...files import write_text
from ..shared.packages import huggingface_hub
from .card import card
from .download import hub_errors
from .pretrained import CARD, SaveOptions, save_folder


def push_to_hub(
    model: nn.Module,
    repo_id: str,
    *,
    commit_message: str = "Push model using huggingface_hub.",
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
    ignore_patterns: list[str] | str | None = None,
    **options: Unpack[SaveOptions],
) -> str:
    """Uploads what ``save_pretrained`` writes, in one commit, to a repository that is created if necessary.

    Args:
        model: as for ``save_pretrained``.
        repo_id: ``"user/name"``, or ``"name"`` for a repository of the user who is logged in.
        commit_message: message of the commit.
        private: whether a new repository is private; None for the owner's default.
        token: access token of the Hub; None for the one of ``hf auth login``.
        branch: branch to push to; None for the main one.
        create_pr: open a pull request instead of pushing.
        ignore_patterns: files to leave out; ``"README.md"`` keeps the repository's card.
        **options: options of ``save_pretrained``; ``license`` is required.

    Returns:
        The URL of the commit.

    Raises:
        ConfigError, CheckpointError, NotPatchedError, ExDAError: as ``save_pretrained``; nothing is uploaded.
        HubError: if the Hub refuses or cannot be reached.
    """
    library = huggingface_hub()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config, found = save_folder(model, folder, repo_id, **options)
        api = library.HfApi(token=token)
        with hub_errors(f"push_to_hub({repo_id!r}):"):
            # The full id: the user's name is added if only "name" was given.
            repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
        # Written anew: the card quotes the full id.
        write_text(folder / CARD, card(config, repo_id, options["license"], found, options.get("card_data", {})))
        with hub_errors(f"push_to_hub({repo_id!r}):"):
            return str(
                api.upload_folder(
                    repo_id=repo_id,
                    repo_type="model",
                    folder_path=folder,
                    commit_message=commit_message,
                    revision=branch,
                    create_pr=create_pr,
                    ignore_patterns=ignore_patterns,
                )
            )
