"""What comes into the folder of models by other ways than a download, and what goes."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from MedSAM2Lib.checkpoints import store as store_module
from MedSAM2Lib.checkpoints.loading import load_any_model
from MedSAM2Lib.checkpoints.registry import MODELS, Model
from MedSAM2Lib.checkpoints.store import expected_sha256, import_weights, installed_path, remove, store_folder, weights_path
from MedSAM2Lib.errors import CheckpointError, OptionError
from Testing.lib.checkpoints.support import a_checkpoint


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model whose hash was published; its file need be nothing special, for the hash tells."""
    model = replace(MODELS["medsam2"], id="hashed", file_name="hashed.pt", bytes=5, sha256=hashlib.sha256(b"right").hexdigest())
    monkeypatch.setitem(MODELS, "hashed", model)
    return model


@pytest.fixture
def unpublished(monkeypatch: pytest.MonkeyPatch) -> Model:
    model = replace(MODELS["medsam2"], id="sized", file_name="sized.pt", bytes=len(a_checkpoint()), sha256=None)
    monkeypatch.setitem(MODELS, "sized", model)
    return model


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"} if folder.exists() else set()


# ── where ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_folder_is_the_chosen_one_else_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSAM2_MODELS", str(tmp_path / "set"))
    assert store_folder() == tmp_path / "set"
    assert store_folder(tmp_path / "chosen") == tmp_path / "chosen"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")
def test_else_it_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDSAM2_MODELS")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert store_folder() == tmp_path / ".local" / "share" / "medsam2" / "models"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert store_folder() == tmp_path / "data" / "medsam2" / "models"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # which the specification says to ignore
    assert store_folder() == tmp_path / ".local" / "share" / "medsam2" / "models"


def test_asking_where_makes_nothing(store: Path, published: Model) -> None:
    assert installed_path(published) is None
    assert remove(published) == []
    assert not store.exists()


# ── in ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_known_by_its_hash_whatever_it_is_called(published: Model, stick: Path, store: Path) -> None:
    (stick / "copy (2).bin").write_bytes(b"right")
    assert import_weights(stick / "copy (2).bin") == [(published, store / "hashed.pt")]
    assert weights_path("hashed").read_bytes() == b"right"
    assert names(store) == {"hashed.pt"}


def test_what_was_fetched_in_part_goes_when_the_whole_is_imported(published: Model, stick: Path, store: Path) -> None:
    store.mkdir()
    (store / "hashed.pt.part").write_bytes(b"ri")
    (stick / "hashed.pt").write_bytes(b"right")
    import_weights(stick)
    assert names(store) == {"hashed.pt"}


def test_a_stick_gives_all_it_has_and_links_are_left_alone(
    published: Model, unpublished: Model, stick: Path, store: Path, tmp_path: Path
) -> None:
    (stick / "hashed.pt").write_bytes(b"right")
    (stick / "sized.pt").write_bytes(a_checkpoint())
    (stick / "holiday.jpg").write_bytes(b"sea and sun")
    (stick / "folder").mkdir()
    (tmp_path / "secret").write_bytes(a_checkpoint())
    (stick / MODELS["medsam2-ct-lesion"].file_name).symlink_to(tmp_path / "secret")
    assert import_weights(stick) == [(published, store / "hashed.pt"), (unpublished, store / "sized.pt")]
    assert names(store) == {"hashed.pt", "sized.pt", "sized.pt.sha256"}


def test_a_damaged_file_does_not_come_in_and_the_old_one_stays(published: Model, stick: Path, store: Path) -> None:
    (stick / "hashed.pt").write_bytes(b"right")
    import_weights(stick)
    (stick / "hashed.pt").write_bytes(b"wrong")
    with pytest.raises(CheckpointError, match=r"The file of hashed should have the SHA-256 .* as published, but it has"):
        import_weights(stick)
    assert (store / "hashed.pt").read_bytes() == b"right"


def test_a_file_without_a_published_hash_is_pinned_by_the_first(unpublished: Model, stick: Path, store: Path) -> None:
    (stick / "sized.pt").write_bytes(a_checkpoint())
    import_weights(stick / "sized.pt")
    assert expected_sha256(unpublished) == hashlib.sha256(a_checkpoint()).hexdigest()
    (stick / "sized.pt").write_bytes(a_checkpoint(2.0))
    with pytest.raises(CheckpointError, match="as the first one that came"):
        import_weights(stick / "sized.pt")


@pytest.mark.parametrize("content", [b"", b"<html>", b"x" * len(a_checkpoint()), a_checkpoint() + b"x"])
def test_what_is_no_such_checkpoint_is_not_imported_by_its_name(
    unpublished: Model, stick: Path, store: Path, content: bytes
) -> None:
    (stick / "sized.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"should have|is not a whole checkpoint"):
        import_weights(stick)
    assert not names(store)


@pytest.mark.parametrize("name", ["unknown.pt", "..pt", "-rf", "a\nb.pt", "weights;rm.pt"])
def test_an_unknown_file_is_not_imported(stick: Path, store: Path, name: str) -> None:
    (stick / name).write_bytes(b"something")
    with pytest.raises(CheckpointError, match="no published model that this version knows"):
        import_weights(stick / name)
    with pytest.raises(CheckpointError, match="holds none of the files"):
        import_weights(stick)
    assert not names(store)


def test_a_path_that_is_nothing_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="neither"):
        import_weights(tmp_path / "nowhere")


def test_a_copy_that_differs_is_not_kept(published: Model, stick: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a failing disk or stick makes it."""
    (stick / "hashed.pt").write_bytes(b"right")
    monkeypatch.setattr(store_module.shutil, "copyfileobj", lambda source, copy, size: copy.write(b"righ?"))
    with pytest.raises(CheckpointError, match="differs from what was read"):
        import_weights(stick)
    assert not names(store)


def test_no_registered_name_leads_out_of_the_store() -> None:
    assert all(model.file_name == os.path.basename(model.file_name) not in ("", ".", "..") for model in MODELS.values())


# ── use and out ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stored_file_that_was_changed_is_not_loaded(published: Model, store: Path) -> None:
    store.mkdir()
    (store / "hashed.pt").write_bytes(b"wrong")
    with pytest.raises(CheckpointError, match=r"damaged, or another version; get it again with `medsam2 models download hashed`"):
        load_any_model("hashed", torch.device("cpu"))


def test_a_pinned_file_that_was_changed_is_not_loaded(unpublished: Model, stick: Path, store: Path) -> None:
    (stick / "sized.pt").write_bytes(a_checkpoint())
    import_weights(stick)
    (store / "sized.pt").write_bytes(a_checkpoint(2.0))
    with pytest.raises(CheckpointError, match="as the first one that came"):
        load_any_model("sized", torch.device("cpu"))


@pytest.mark.parametrize("content", [b"", b"0" * 64, b"g" * 64 + b"  sized.pt\n", b"\xff" * 70])
def test_a_damaged_pin_is_told(unpublished: Model, store: Path, content: bytes) -> None:
    store.mkdir()
    (store / "sized.pt.sha256").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"sized\.pt\.sha256 .*remove it"):
        expected_sha256(unpublished)


def test_removing_takes_the_weights_and_leaves_the_pin(unpublished: Model, stick: Path, store: Path) -> None:
    (stick / "sized.pt").write_bytes(a_checkpoint())
    import_weights(stick)
    (store / "sized.pt.part").write_bytes(b"half")
    assert remove(unpublished) == [store / "sized.pt", store / "sized.pt.part"]
    assert names(store) == {"sized.pt.sha256"}


def test_the_bundled_model_is_not_removed() -> None:
    with pytest.raises(OptionError, match="nano is part of the installation"):
        remove(MODELS["nano"])


def test_every_model_has_what_a_person_chooses_by() -> None:
    for model in MODELS.values():
        assert model.title
        assert model.purpose
        assert model.licence
        assert model.paper
        assert model.bundled != bool(model.addresses)
        assert all(address.startswith("https://") and model.file_name in address for address in model.addresses)
        assert model.sha256 is None or (len(model.sha256) == 64 and model.bytes is not None)
    assert len({model.file_name for model in MODELS.values()}) == len(MODELS)
