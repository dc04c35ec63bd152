"""Upload folders to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def push_folder(
    folder: str | Path, repo_id: str, repo_type: Literal["model", "dataset"], *, private: bool
) -> str:
    """Upload a folder; the repository is created if it does not exist.

    Args:
        folder: The folder.
        repo_id: ``USER/NAME``.
        repo_type: Kind of repository.
        private: Create the repository as a private one; an existing one is not changed.

    Returns:
        Address of the repository.

    Raises:
        OSError: There is no login (``hf auth login``), no permission, or no connection.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    url = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
    api.upload_folder(folder_path=str(folder), repo_id=url.repo_id, repo_type=repo_type)
    return str(url)
