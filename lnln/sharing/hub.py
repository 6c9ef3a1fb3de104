"""A model as the Hugging Face ecosystem shares it: a folder, or the same on the hub.

Such a folder holds `model.safetensors` (weights, settings, origin), `record.json` (how
it was trained), `robustness.csv` (its scores, where it was swept), `config.json` (its
settings and licence, for the hub) and `README.md`, the model card. Nothing in it is
pickled, and nothing in it is ever run: of a method of one's own it holds the module as
a text to read.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from lnln.data.errors import UserError
from lnln.data.files import atomic_path
from lnln.evaluation import sweep as ev
from lnln.models import sources_of
from lnln.sharing.card import card_of
from lnln.sharing.facts import Scored, read_run
from lnln.training.checkpoint import (
    CheckpointError,
    TrainedModel,
    checkpoint_name,
    load_model,
    open_run,
    read_tensors,
    save_model,
    write_json,
)
from lnln.training.settings import Preset

_FILES = (checkpoint_name(), "record.json", "robustness.csv")
_HUB_ERRORS = (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)


class HubError(UserError, RuntimeError):
    """The hub did not take a model; says why."""


class Pretrained(ModelHubMixin):
    """A trained model with its record and scores, to be given to others.

    `from_pretrained` reads a folder or a model of the hub, `save_pretrained` writes a
    folder, `push_to_hub` uploads what `save_pretrained` writes.

    Args:
        trained: the model.
        run: its record, and its scores where it has some.
        licence: of the model, as the hub names it, such as "mit"; None: "mit" for
            simulated data, else left to say.
    """

    def __init__(
        self, trained: TrainedModel, run: Scored, licence: str | None = None
    ) -> None:
        self.trained = trained
        self.run = run
        self.licence = licence
        # The mixin would write what it takes for settings into config.json.
        self._hub_mixin_config = None

    @classmethod
    def of_run(cls, folder: Path | str, licence: str | None = None) -> Pretrained:
        """The model of a run of `lnln train`, with its scores if it was swept.

        Raises:
            CheckpointError: the folder holds no run, or none with one model for all
                metrics.
        """
        run = read_run(folder)
        if run.record["selection"] != "validation":
            raise CheckpointError(
                f"{folder}: selected by {run.record['selection']!r}, so it has a model "
                "for each metric and none to share; train with --selection validation"
            )
        trained = load_model(Path(folder) / checkpoint_name())
        return cls(trained, run, licence)

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """The card, written from the record."""
        return ModelCard(card_of(_without_folders(self.run), self.licence))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the folder that `save_pretrained` writes.

        Args:
            repo_id: as in "user/name"; it is made if it is not there.
            options: of `huggingface_hub.ModelHubMixin.push_to_hub`, such as private.

        Returns:
            Where it is.

        Raises:
            HubError: the hub cannot be reached, or does not know you.
        """
        try:
            return str(super().push_to_hub(repo_id, **options))
        except (*_HUB_ERRORS, ConnectionError) as error:
            raise HubError(
                f"{repo_id}: the hub did not take it ({_line(error)}); log in with "
                "`hf auth login`, and check the name and the network"
            ) from error

    def _save_pretrained(self, save_directory: Path) -> None:
        modules = sources_of(type(self.trained.model))
        shown = _without_folders(self.run)
        preset = shown.record["preset"]
        trained = replace(
            self.trained,
            preset=Preset.from_dict(preset),
            provenance=_Names(self.run.record).hide(self.trained.provenance),
        )
        save_model(save_directory / checkpoint_name(), trained)
        write_json(save_directory / "record.json", shown.record)
        # What the mixin finds here under the name of an argument it hands back.
        config = {**preset, "licence": self.licence}
        write_json(save_directory / "config.json", config)
        if len(shown.scores):
            ev.write_csv(save_directory / "robustness.csv", shown.scores)
        for module in modules:
            shutil.copyfile(module, save_directory / module.name)
        # The mixin leaves a card that is there; of another model it would be wrong.
        with atomic_path(save_directory / "README.md") as draft:
            draft.write_text(str(self.generate_model_card()), encoding="utf-8")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        device: torch.device | str = "cpu",
        licence: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **_: Any,
    ) -> Pretrained:
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    # Its card and its code stay where they are.
                    allow_patterns=list(_FILES),
                )
            )
            _check_known(folder / checkpoint_name(), model_id)
        trained = load_model(folder / checkpoint_name(), device)
        return cls(trained, read_run(folder), licence)


def from_pretrained(
    name: str | Path = "mini",
    device: torch.device | str = "cpu",
    revision: str | None = None,
) -> TrainedModel:
    """A trained model, ready to predict.

    Args:
        name: what `open_run` takes, such as the folder of a run or of
            `Pretrained.save_pretrained`, or "mini"; or, as in "user/name", a model of
            the hub, which is downloaded once.
        device: where to put it; see `resolve_device`.
        revision: branch, tag or commit of a model of the hub.

    Raises:
        CheckpointError: no such model, or a file of it is damaged or missing.
        SettingsError: this machine has no such device.
    """
    if "/" not in str(name) or Path(name).is_absolute() or Path(name).exists():
        return open_run(name, device)
    try:
        found = Pretrained.from_pretrained(name, device=device, revision=revision)
    except (*_HUB_ERRORS, ConnectionError) as error:
        raise CheckpointError(
            f"{name}: no such folder, and no such model on the hub ({_line(error)}); "
            "check the name and the network"
        ) from error
    return found.trained


def _check_known(path: Path, name: str) -> None:
    """A stranger's file must not decide what is imported here."""
    _, header = read_tensors(path)
    module, own, kind = str(header["preset"].get("method", "lnln")).partition(":")
    if own and module not in sys.modules:
        raise CheckpointError(
            f"{name} is a {module}:{kind}, no method of lnln, and code of others is "
            f"never run by itself; read {module}.py there, put it where you work, and "
            f"import {module} before you load the model"
        )


class _Names:
    """Folders of one's own machine, which are nobody else's business, as bare names."""

    def __init__(self, record: dict[str, Any]) -> None:
        reading = record["data"].get("reading", {})
        told = [
            record["data"]["source"],
            record["preset"]["model"]["encoder"]["name"],
            reading.get("encoder"),
            reading.get("transcripts"),
        ]
        names = {text: Path(text).name for text in told if text and _is_path(text)}
        # The longest first, since one may lie in another; "." would be every dot.
        self.names = {
            path: names[path]
            for path in sorted(names, key=len, reverse=True)
            if names[path] not in ("", "..")
        }

    def hide(self, value: Any) -> Any:
        """The same value, in whose texts every folder is gone."""
        if isinstance(value, dict):
            return {k: self.hide(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.hide(v) for v in value]
        if isinstance(value, str):
            for path, name in self.names.items():
                value = value.replace(path, name)
        return value


def _is_path(text: str) -> bool:
    path = Path(text)
    return text.startswith((".", "~")) or path.is_absolute() or path.exists()


def _without_folders(run: Scored) -> Scored:
    return replace(run, record=_Names(run.record).hide(run.record))


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
