"""From a file of weights to a network, or to a message that says what is wrong with the file."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.checkpoints import loading
from MedSAM2Lib.checkpoints.loading import LoadedModel, load_model, save_checkpoint
from MedSAM2Lib.checkpoints.registry import MODELS
from MedSAM2Lib.errors import CheckpointError, OptionError
from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import CROP_ZOOM, NETWORKS, network_config
from MedSAM2Lib.network.sam2 import SAM2
from Testing.lib.cli.support import environment

CPU = torch.device("cpu")
KEY = "memory_encoder.fuser.layers.1.gamma"
LARGE = "sam_mask_decoder.merge.0.0.weight"  # weights that are packed
State = dict[str, Tensor]


def load(path: Path, network: str | None = None) -> LoadedModel:
    return load_model(str(path), CPU, network)


@pytest.fixture(scope="module")
def a_network() -> SAM2:
    return random_network(NETWORKS["nano"])


@pytest.fixture
def a_state(a_network: SAM2) -> State:
    return OrderedDict(a_network.state_dict())


@pytest.fixture(scope="module")
def a_whole_file(a_network: SAM2, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "whole.pt"
    save_checkpoint(a_network, "nano", path)
    return path.read_bytes()


@pytest.fixture
def a_path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "weights.pt"
    yield path
    path.unlink(missing_ok=True)  # pytest keeps the folders of three runs


def published(name: str) -> State:
    """A state dictionary in a published checkpoint's layout. All numbers of a tensor are one random number, so that the
    file of the largest network is a small one."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build_network(network_config(name)).state_dict().items()}
    return OrderedDict((key, torch.randn(1, generator=generator).expand(shape)) for key, shape in shapes.items())


# ── approximations ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_crop_halves_the_image_and_zooms(a_path: Path) -> None:
    torch.save({"model": published("medsam2")}, a_path)
    model = load_model(str(a_path), CPU, "medsam2", approximations=["crop", "pooled-memories"])
    assert (model.network.config.image_size, model.zoom) == (256, CROP_ZOOM)
    assert model.network.config.pooled_memories
    assert model.approximations == ("crop", "pooled-memories")


def test_what_sees_a_crop_already_is_not_cropped_again(a_whole_file: bytes, a_path: Path) -> None:
    a_path.write_bytes(a_whole_file)
    with pytest.raises(OptionError, match="sees a crop of the slice as it is"):
        load_model(str(a_path), CPU, approximations=["crop"])
    assert load_model(str(a_path), CPU, approximations=["pooled-memories"]).zoom == MODELS["nano"].zoom


def test_an_unknown_approximation_is_told(a_whole_file: bytes, a_path: Path) -> None:
    a_path.write_bytes(a_whole_file)
    with pytest.raises(OptionError, match="Unknown approximation 'guess': use one of crop, pooled-memories"):
        load_model(str(a_path), CPU, approximations=["guess"])


# ── files that load ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_saved_weights_come_back_in_half_precision(a_network: SAM2, a_state: State, a_path: Path) -> None:
    save_checkpoint(a_network, "nano", a_path)
    model = load(a_path)
    assert all(torch.equal(value, a_state[key].half().float()) for key, value in model.network.state_dict().items())
    assert (model.name, model.path, model.zoom) == ("weights.pt", a_path, MODELS["nano"].zoom)
    assert len(model.sha256) == 64
    assert model.network.config == NETWORKS["nano"]


def test_saved_weights_take_two_bytes_each(a_network: SAM2, a_whole_file: bytes) -> None:
    weights = sum(value.numel() for value in a_network.state_dict().values())
    assert len(a_whole_file) < 2.1 * weights


def test_weights_in_eight_bits_are_near_what_they_were(a_network: SAM2, a_state: State, a_path: Path) -> None:
    save_checkpoint(a_network, "nano", a_path, eight_bits=True)
    packed = torch.load(a_path, weights_only=True)["scales"]
    for key, value in load(a_path).network.state_dict().items():
        if key in packed:
            largest, error = (one.flatten(1).abs().amax(1) for one in (a_state[key], value - a_state[key]))
            assert (error <= largest / 250).all(), key
        else:
            assert torch.equal(value, a_state[key].half().float()), key


def test_eight_bits_take_a_byte_for_each_weight(a_network: SAM2, a_path: Path) -> None:
    save_checkpoint(a_network, "nano", a_path, eight_bits=True)
    assert a_path.stat().st_size < 1.05 * sum(value.numel() for value in a_network.state_dict().values())


@pytest.mark.parametrize(
    "scales",
    [{KEY: torch.ones(3, dtype=torch.half)}, {"nobody": torch.ones(3, dtype=torch.half)}, {LARGE: 1.0}, torch.ones(3), {}],
    ids=["of no packed weights", "of nothing", "no tensor", "no dictionary", "none"],
)
def test_scales_that_do_not_fit_the_weights_are_refused(a_network: SAM2, a_path: Path, scales: Any) -> None:
    save_checkpoint(a_network, "nano", a_path, eight_bits=True)
    content = torch.load(a_path, weights_only=True)
    torch.save(content | {"scales": scales}, a_path)
    with pytest.raises(CheckpointError, match=r"scales .* do not fit|scales are no dictionary|plain floating-point weights"):
        load(a_path)


def test_a_loaded_network_is_ready_for_inference(a_whole_file: bytes, a_path: Path) -> None:
    a_path.write_bytes(a_whole_file)
    network = load(a_path).network
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
    with torch.inference_mode():
        features = network.encode_image(torch.zeros(1, 3, 128, 128))
    assert features.stride16.shape == (1, 128, 8, 8)


def test_a_network_loads_in_the_precision_that_is_asked_for(a_whole_file: bytes, a_path: Path) -> None:
    a_path.write_bytes(a_whole_file)
    assert load(a_path).precision == "float32"
    assert load_model(str(a_path), CPU, precision="bfloat16").precision == "bfloat16"
    with pytest.raises(OptionError, match=r"float32, bfloat16, but 'float8' came"):
        load_model(str(a_path), CPU, precision="float8")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrapped",
    [lambda state: {"model": state}, dict, lambda state: {"model": state, "epoch": 3, "network": ["of", "another", "program"]}],
    ids=["model", "flat", "with more"],
)
def test_weights_may_be_flat_or_under_model(a_state: State, a_path: Path, wrapped: Callable[[State], Any]) -> None:
    torch.save(wrapped(a_state), a_path)
    assert torch.equal(load(a_path).network.no_mem_embed, a_state["no_mem_embed"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_any_floating_point_type_load(a_state: State, a_path: Path, dtype: torch.dtype) -> None:
    torch.save({key: value.to(dtype) for key, value in a_state.items()}, a_path)
    assert torch.equal(load(a_path).network.no_mem_embed, a_state["no_mem_embed"].to(dtype).float())


def test_files_of_old_torch_versions_load(a_state: State, a_path: Path) -> None:
    torch.save({"model": a_state}, a_path, _use_new_zipfile_serialization=False)
    assert torch.equal(load(a_path).network.no_mem_embed, a_state["no_mem_embed"])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_published_layout_loads(name: str, a_path: Path) -> None:
    state = published(name)
    torch.save({"model": state}, a_path)
    model = load(a_path, network=name)
    assert model.network.config == NETWORKS[name]
    assert all(torch.equal(value, state[key]) for key, value in model.network.state_dict().items())


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("medsam2", "sam2.1-tiny")])
def test_a_layout_that_only_one_network_has_needs_no_name(name: str, a_path: Path) -> None:
    torch.save({"model": published(name)}, a_path)
    assert load(a_path).network.config == NETWORKS[name]


def test_medsam2_and_sam_2_1_tiny_share_a_layout_so_a_name_is_asked_for(a_path: Path) -> None:
    torch.save({"model": published("medsam2")}, a_path)
    with pytest.raises(OptionError, match=r"medsam2 and sam2\.1-tiny; say which with --network"):
        load(a_path)
    assert load(a_path, network="medsam2").network.config.image_size == 512
    assert load(a_path, network="sam2.1-tiny").network.config.image_size == 1024


def test_a_published_file_is_known_by_its_hash(a_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"model": published("medsam2")}, a_path)
    sha256 = load(a_path, network="medsam2").sha256
    known = replace(loading.MODELS["medsam2"], sha256=sha256)
    monkeypatch.setitem(loading.MODELS, "medsam2", known)
    model = load(a_path)
    assert model.name == "medsam2"
    assert model.network.config == NETWORKS["medsam2"]


def test_loading_does_not_load_what_only_compiling_needs(a_whole_file: bytes, a_path: Path) -> None:
    """It would take a second of every command and of every start of the engine."""
    a_path.write_bytes(a_whole_file)
    program = (
        "import sys, torch\n"
        "from MedSAM2Lib.checkpoints.loading import load_model\n"
        "before = {*sys.modules}\n"
        "load_model(sys.argv[1], torch.device('cpu'), 'nano')\n"
        "print(len({*sys.modules} - before))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(a_path)], capture_output=True, text=True, check=True, env=environment()
    )
    assert int(ended.stdout) < 50


# ── weights of another network ────────────────────────────────────────────────────────────────────────────────────────



@pytest.mark.parametrize("network", [None, "nano"])
def test_a_missing_key_is_named(a_state: State, a_path: Path, network: str | None) -> None:
    del a_state[KEY]
    torch.save({"model": a_state}, a_path)
    with pytest.raises(CheckpointError, match=rf"Compared with nano it lacks {KEY}\."):
        load(a_path, network)


@pytest.mark.parametrize("network", [None, "nano"])
def test_an_unexpected_key_is_named(a_state: State, a_path: Path, network: str | None) -> None:
    a_state["memory_encoder.extra"] = torch.zeros(2)
    torch.save({"model": a_state}, a_path)
    with pytest.raises(CheckpointError, match=r"Compared with nano it has in excess memory_encoder\.extra\."):
        load(a_path, network)


@pytest.mark.parametrize("network", [None, "nano"])
def test_a_reshaped_key_is_named_with_both_shapes(a_state: State, a_path: Path, network: str | None) -> None:
    a_state[KEY] = torch.zeros(127)
    torch.save({"model": a_state}, a_path)
    with pytest.raises(CheckpointError, match=rf"nano it differs in shape: {KEY} \(127,\) instead of \(128,\)\."):
        load(a_path, network)


@pytest.mark.parametrize("name", ["sam2.1-tiny", "sam2.1-large", "sam2.0-small"])
def test_a_file_that_fits_nothing_is_compared_with_what_is_closest(name: str, a_path: Path) -> None:
    state = published(name)
    del state["no_mem_embed"]
    torch.save({"model": state}, a_path)
    with pytest.raises(CheckpointError, match=r"fits no network. Compared with .* it lacks no_mem_embed\.") as refused:
        load(a_path)
    assert name in str(refused.value) or name == "sam2.1-tiny"  # whose twin is as close


def test_a_foreign_network_is_told_from_ours_in_one_line(a_path: Path) -> None:
    torch.save({f"layer{n}.weight": torch.zeros(3) for n in range(9)}, a_path)
    with pytest.raises(CheckpointError, match=r"lacks .* and \d+ more; has in excess .* and 6 more\.") as refused:
        load(a_path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_file_for_one_network_is_not_loaded_into_another(a_whole_file: bytes, a_path: Path) -> None:
    a_path.write_bytes(a_whole_file)
    with pytest.raises(CheckpointError, match=r"is not for sam2\.0-tiny\. Compared with sam2\.0-tiny it"):
        load(a_path, network="sam2.0-tiny")


def test_a_network_that_does_not_exist_is_refused(a_whole_file: bytes, a_path: Path) -> None:
    a_path.write_bytes(a_whole_file)
    with pytest.raises(OptionError, match="Unknown network 'tiny': use one of nano, medsam2"):
        load(a_path, network="tiny")


def test_a_file_for_a_network_of_the_future_says_so(a_state: State, a_path: Path) -> None:
    torch.save({"model": a_state, "network": "nano-9"}, a_path)
    with pytest.raises(CheckpointError, match="a network 'nano-9' that this version does not know; update"):
        load(a_path)


# ── numbers that are no weights ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(a_state: State, a_path: Path, value: float) -> None:
    a_state[KEY] = torch.full((128,), value)
    torch.save({"model": a_state}, a_path)
    with pytest.raises(CheckpointError, match=rf"NaN or infinite weights \({KEY}\)"):
        load(a_path)


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64])
def test_weights_that_are_no_plain_numbers_are_refused(a_state: State, a_path: Path, kind: torch.dtype) -> None:
    a_state[KEY] = torch.zeros(128, dtype=kind)
    torch.save({"model": a_state}, a_path)
    with pytest.raises(CheckpointError, match=rf"plain floating-point weights, but {KEY} differ"):
        load(a_path)


@pytest.mark.parametrize("value", [torch.zeros(128).to_sparse(), torch.zeros(128, device="meta")], ids=["sparse", "empty"])
def test_tensors_that_plain_weights_have_no_use_for_are_refused_unread(a_state: State, a_path: Path, value: Tensor) -> None:
    a_state[KEY] = value
    torch.save({"model": a_state}, a_path)
    with pytest.raises(CheckpointError, match=r"not a plain file of weights: .*torch\._utils\._rebuild_"):
        load(a_path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {}}, {"model": [1]}, {"weights": 3}, torch.zeros(3), 7, None])
def test_what_is_no_dictionary_of_tensors_is_refused(a_path: Path, content: object) -> None:
    torch.save(content, a_path)
    with pytest.raises(CheckpointError, match="must hold a dictionary of tensors"):
        load(a_path)


# ── damaged files ─────────────────────────────────────────────────────────────────────────────────────────────────────


def refused(path: Path, content: bytes) -> str:
    """What is said of a file that cannot be read: one line that names it."""
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "get the file again" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kept", [0, 1, 4, 100, 0.01, 0.5, 0.999, -1])
def test_a_truncated_file_is_refused(a_whole_file: bytes, a_path: Path, kept: float) -> None:
    refused(a_path, a_whole_file[: kept if isinstance(kept, int) else int(kept * len(a_whole_file))])


@pytest.mark.parametrize("kept", [1, 10, 100, 0.5, 0.999, -1])
def test_a_truncated_file_of_an_old_torch_version_is_refused(a_path: Path, kept: float) -> None:
    buffer = io.BytesIO()
    torch.save({"model": {"a": torch.arange(50.0), "b": torch.ones(3)}}, buffer, _use_new_zipfile_serialization=False)
    whole = buffer.getvalue()
    refused(a_path, whole[: kept if isinstance(kept, int) else int(kept * len(whole))])


def test_random_bytes_are_refused(a_path: Path) -> None:
    rng = np.random.default_rng(0)
    for length in [*range(12), *rng.integers(12, 3000, 100)]:
        refused(a_path, rng.bytes(length))


def test_a_small_file_with_any_byte_changed_is_refused_or_read(a_path: Path) -> None:
    """Whatever the damage, no other error than ours comes out."""
    rng = np.random.default_rng(0)
    for old in (True, False):
        buffer = io.BytesIO()
        torch.save({"a": torch.ones(2)}, buffer, _use_new_zipfile_serialization=not old)
        for position in rng.choice(len(buffer.getvalue()), 150, replace=False):
            damaged = bytearray(buffer.getvalue())
            damaged[position] ^= int(rng.integers(1, 256))
            a_path.write_bytes(damaged)
            with pytest.raises(CheckpointError):  # also where it can be read: two numbers are no network
                load(a_path)


def test_a_zip_that_is_no_checkpoint_is_refused(a_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "holiday pictures")
    assert "is not a whole checkpoint" in refused(a_path, buffer.getvalue())


@pytest.mark.parametrize("text", ["", "weights, honestly", "<!DOCTYPE html><html>404</html>", "version https://git-lfs"])
def test_a_text_is_refused(a_path: Path, text: str) -> None:
    refused(a_path, text.encode())


# ── files with code in them ───────────────────────────────────────────────────────────────────────────────────────────


class RunsCode:
    """A pickle that makes a folder when it is opened without care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("way", ["pickle", "torch.save", "old torch.save", "beside good weights"])
def test_code_in_a_file_is_not_run(a_state: State, a_path: Path, tmp_path: Path, way: str) -> None:
    folder = tmp_path / "code-was-run"
    if way == "pickle":
        a_path.write_bytes(pickle.dumps(RunsCode(folder)))
    elif way == "beside good weights":
        torch.save({"model": a_state, "optimizer": RunsCode(folder)}, a_path)
    else:
        torch.save({"model": RunsCode(folder)}, a_path, _use_new_zipfile_serialization=way == "torch.save")
    with pytest.raises(CheckpointError, match="would run code when opened"):
        load(a_path)
    assert not folder.exists()
    pickle.loads(pickle.dumps(RunsCode(folder)))  # the trap itself works
    assert folder.exists()


# ── names that are no files ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"'sam3' is neither a file nor a model: models are nano, medsam2, .*sam2\.1-tiny"):
        load_model("sam3", CPU)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"is a folder; give the \.pt file in it"):
        load_model(str(tmp_path), CPU)


def test_a_model_that_is_not_here_says_where_it_is() -> None:
    with pytest.raises(CheckpointError, match=r"sam2\.1_hiera_large\.pt from .*fbaipublicfiles.*--model FILE"):
        load_model("sam2.1-large", CPU)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(a_whole_file: bytes, a_path: Path) -> None:
    a_path.write_bytes(a_whole_file)
    a_path.chmod(0)
    with pytest.raises(CheckpointError, match=r"cannot be read .* permissions"):
        load(a_path)
