"""Exported folders go to a hub: Hugging Face's, or another that speaks its protocol ($HF_ENDPOINT).

Tested against a stand-in of the protocol, never run against the real one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from raypipe.config import ConfigError
from raypipe.progress import Say

Kind = Literal["model", "dataset"]


def check_push(name: str) -> None:
    """Refuse a repository that cannot be written, before work.

    Raises:
        ConfigError: it has no USER/NAME, this machine has no token, or the hub is switched off.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        if name.count("/") != 1:
            raise HFValidationError("it is no USER/NAME")
        validate_repo_id(name)
    except HFValidationError as error:
        why = str(error).splitlines()[0]
        raise ConfigError(
            f"--push-to-hub {name}: expected a repository USER/NAME of letters, digits, - _ and ., "
            f"found another text ({why}); name yours"
        ) from None
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"--push-to-hub {name}: the hub is switched off here by $HF_HUB_OFFLINE; unset it, or "
            "leave --push-to-hub out and upload the folder elsewhere"
        )
    if get_token() is None:
        raise ConfigError(
            f"--push-to-hub {name}: this machine has no token of the hub; run `hf auth login`, or "
            "set $HF_TOKEN to one that may write"
        )


def push(folder: Path, name: str, kind: Kind, say: Say = print) -> None:
    """Upload all files of a folder as one commit; a repository that is new is private.

    Raises:
        ConfigError: the hub is not there, or refuses; the folder stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(name, repo_type=kind, private=True, exist_ok=True)
        commit = api.upload_folder(
            folder_path=folder, repo_id=name, repo_type=kind, commit_message="Export by raypipe"
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        why = str(error).strip().splitlines()
        raise ConfigError(
            f"--push-to-hub {name}: {api.endpoint} did not take it ({why[0] if why else error!r}); "
            f"{folder} stays: mend that and run `hf upload {name} {folder} --repo-type {kind}`"
        ) from None
    say(f"pushed to {commit.commit_url}; a repository that was new is private")
