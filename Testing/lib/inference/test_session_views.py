"""Looking closer: a session that sees its object through a square around the prompt, and through a wider one when need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.frames import View
from MedSAM2Lib.inference import tracker as tracker_module
from MedSAM2Lib.inference.embeddings import FORWARD, Embeddings
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.memory.bank import Selection
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, SHAPE, Mask, box_around, dice, opened, volume_of

CLOSE = replace(PLAIN, zoom=1.5)
ROWS, COLUMNS = 96, 120
SMALL_BOX = Box(3, 40, 30, 51, 41)


def tower() -> Mask:
    """(16, 96, 120) bool: 12 pixels wide on slices 0..7, suddenly 60 wide on slices 8..15."""
    mask = np.zeros((16, ROWS, COLUMNS), dtype=bool)
    mask[:8, 30:42, 40:52] = True
    mask[8:, 20:70, 30:90] = True
    return mask


def there() -> Mask:
    """(96, 120) bool: a square away from the tower."""
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    mask[80:91, 100:111] = True
    return mask


@pytest.fixture
def a_tower(a_seeing_model: LoadedModel) -> Session:
    return opened(a_seeing_model, volume_of(tower()), CLOSE)


def views_of_slices(session: Session) -> dict[int, View]:
    return {index: record.view for index, record in session._objects["organ"].records.items()}


@pytest.fixture
def view_of() -> Callable[[Session], View]:
    return lambda session: session._objects["organ"].view


@pytest.fixture(autouse=True)
def _memories_seen_through_the_views_of_their_slices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test does: a slice sees no memory that was made through another view than its own."""
    asked: list[View] = []
    mixed: list[tuple[set[View | None], View]] = []
    plain_features, plain_condition = Embeddings.features, tracker_module.condition

    def features(self: Embeddings, slice_index: int, view: View, direction: int = FORWARD) -> object:
        asked.append(view)
        return plain_features(self, slice_index, view, direction)

    def condition(network: object, stride16: object, selection: Selection, slice_count: int) -> object:
        views = {entry.view for entry, _ in selection.maps}
        if views - {asked[-1]}:
            mixed.append((views, asked[-1]))
        return plain_condition(network, stride16, selection, slice_count)  # type: ignore[arg-type]

    monkeypatch.setattr(Embeddings, "features", features)
    monkeypatch.setattr(tracker_module, "condition", condition)
    yield
    assert not mixed


# ── where it looks ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "prompt",
    [SMALL_BOX, Box3D(0, 7, 40, 30, 51, 41), MaskPrompt(3, tower()[3])],
    ids=["box", "box3d", "mask"],
)
def test_a_small_object_is_looked_at_closely(a_tower: Session, view_of: Callable[[Session], View], prompt: Prompt) -> None:
    result = a_tower.add_prompt("organ", prompt)
    assert view_of(a_tower) == View(27, 37, 18, 18)
    assert np.array_equal(result.mask, tower()[3])


def test_a_click_finds_its_own_view(a_seeing_model: LoadedModel, view_of: Callable[[Session], View]) -> None:
    session = opened(a_seeing_model, volume_of(tower()), CLOSE)
    result = session.add_prompt("organ", Points(10, (60.0,), (45.0,), (True,)))
    assert dice(result.mask[None], tower()[10:11]) > 0.98
    assert not view_of(session).cuts(result.mask)


def test_without_zoom_the_view_is_the_whole_slice(a_seeing_model: LoadedModel, view_of: Callable[[Session], View]) -> None:
    session = opened(a_seeing_model, volume_of(tower()), PLAIN)
    session.add_prompt("organ", SMALL_BOX)
    list(session.propagate())
    assert view_of(session) == View.whole(ROWS, COLUMNS)
    assert session.embeddings.encoded == 16


# ── when it looks from further away ───────────────────────────────────────────────────────────────────────────────────


def test_the_view_widens_where_the_object_grows(a_tower: Session, view_of: Callable[[Session], View]) -> None:
    a_tower.add_prompt("organ", SMALL_BOX)
    narrow = view_of(a_tower)
    masks = {result.slice_index: result.mask for result in a_tower.propagate()}
    views = views_of_slices(a_tower)
    assert max(view.width for view in views.values()) > 3 * narrow.width
    assert all(dice(mask[None], tower()[index : index + 1]) > 0.93 for index, mask in masks.items())
    assert not any(views[index].cuts(mask) for index, mask in masks.items())


def test_an_object_that_moves_is_followed_and_not_seen_smaller(a_seeing_model: LoadedModel) -> None:
    leaning = np.zeros((12, ROWS, COLUMNS), dtype=bool)
    for index in range(12):
        leaning[index, 40:52, 20 + 5 * index : 32 + 5 * index] = True
    session = opened(a_seeing_model, volume_of(leaning), CLOSE)
    session.add_prompt("organ", Box(0, 20, 40, 31, 51))
    list(session.propagate())
    assert dice(session.mask("organ"), leaning) > 0.93
    views = views_of_slices(session).values()
    assert {view.width for view in views} == {views_of_slices(session)[0].width}
    assert len(set(views)) > 3


def test_a_box_that_is_too_small_widens_at_once(a_tower: Session, view_of: Callable[[Session], View]) -> None:
    result = a_tower.add_prompt("organ", Box(10, 50, 40, 60, 50))
    assert dice(result.mask[None], tower()[10:11]) > 0.98
    assert view_of(a_tower).shows((29, 19, 90, 70))


def test_an_object_that_fills_the_slice_ends_in_the_whole_slice(
    a_seeing_model: LoadedModel, view_of: Callable[[Session], View]
) -> None:
    full = np.ones((3, 40, 64), dtype=bool)
    full[0] = False
    session = opened(a_seeing_model, volume_of(full), CLOSE)
    assert session.add_prompt("organ", Box(1, 5, 5, 14, 14)).mask.all()
    assert view_of(session) == View.whole(40, 64)


@pytest.mark.parametrize("index", [3, 5])
@pytest.mark.parametrize(
    "elsewhere",
    [Box(5, 100, 80, 110, 90), Points(5, (105.0,), (85.0,), (True,)), MaskPrompt(5, there())],
    ids=["box", "click", "mask"],
)
def test_a_prompt_beside_the_view_widens_it(
    a_seeing_model: LoadedModel, view_of: Callable[[Session], View], elsewhere: Prompt, index: int
) -> None:
    truth = tower()
    truth[index] |= there()  # here the object is elsewhere as well
    session = opened(a_seeing_model, volume_of(truth), CLOSE)
    session.add_prompt("organ", SMALL_BOX)
    result = session.add_prompt("organ", replace(elsewhere, slice_index=index))  # type: ignore[type-var]
    assert view_of(session).shows((105, 85, 105, 85))
    assert view_of(session).shows((40, 30, 51, 41))
    assert result.mask[85, 105]
    assert result.confidence.presence > 0.9  # also of a mask: it is not lost on the way to the network
    waiting = next(memory for memory in session._objects["organ"].memories() if memory.slice_index == index)
    assert waiting.record is not None
    assert (waiting.record.logits > 0).any()


def test_a_painted_mask_that_touches_the_edge_of_the_view_widens_it(a_tower: Session, view_of: Callable[[Session], View]) -> None:
    a_tower.add_prompt("organ", SMALL_BOX)
    narrow = view_of(a_tower)
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    mask[narrow.row : narrow.row + narrow.height, narrow.column : narrow.column + 4] = True
    result = a_tower.add_prompt("organ", MaskPrompt(5, mask))
    assert view_of(a_tower).width >= 1.5 * narrow.width
    assert not view_of(a_tower).cuts(mask)
    assert np.array_equal(result.mask, mask)


# ── what it remembers ─────────────────────────────────────────────────────────────────────────────────────────────────


@torch.inference_mode()
def assert_memories_are_those_of_their_records(session: Session) -> None:
    """A memory is what the encoder makes of the slice and its answer, through the view that the memory says it is of."""
    network = session.model.network
    target = session._objects["organ"]
    bank = target.tracker.bank
    known = [(True, entry) for entry in bank.conditioning.values()] + [(False, entry) for entry, *_ in bank.tracked_entries()]
    for prompted, entry in known:
        assert entry.view is not None
        record = target.records[entry.slice_index]
        features = session.embeddings.features(entry.slice_index, entry.view, record.direction)
        logits = session._segmenter.logits_through(record, entry.view)
        memory = network.encode_memory(features.stride16, logits, entry.object_score, prompted)
        assert torch.equal(entry.map, memory.to(torch.bfloat16))


def test_memories_of_narrow_views_are_made_anew_for_wide_ones(a_tower: Session) -> None:
    a_tower.add_prompt("organ", SMALL_BOX)
    list(a_tower.propagate())
    target, views = a_tower._objects["organ"], views_of_slices(a_tower)
    widest = views[max(views)]
    assert {entry.view for entry in target.tracker.bank.tracked[1].values()} == {widest}  # type: ignore[attr-defined]
    assert set(views.values()) > {widest}
    assert_memories_are_those_of_their_records(a_tower)


def test_nonsense_that_widens_at_every_step_leaves_no_stale_memory(a_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(a_model, a_volume, CLOSE)
    mask = np.zeros(SHAPE[1:], dtype=bool)
    mask[20:24, 20:24] = True
    session.add_prompt("organ", MaskPrompt(11, mask))
    list(session.propagate())
    assert_memories_are_those_of_their_records(session)


def test_prompts_that_wait_for_a_pass_are_not_mistaken_for_memories(a_tower: Session) -> None:
    """Slice 3 has a memory and, since a click, an answer that waits to become one; meanwhile the view widens."""
    a_tower.add_prompt("organ", SMALL_BOX)
    list(a_tower.propagate(first=0, last=6))
    a_tower.add_prompt("organ", Points(3, (45.0,), (35.0,), (True,)))
    a_tower.add_prompt("organ", Box(12, 30, 20, 89, 69))  # widens
    a_tower.add_prompt("organ", Points(5, (45.0,), (35.0,), (True,)))  # looks at the memory of slice 3
    list(a_tower.propagate())
    assert_memories_are_those_of_their_records(a_tower)


def test_a_click_that_widens_does_not_make_older_memories_look_fresh(a_tower: Session) -> None:
    a_tower.add_prompt("organ", SMALL_BOX)
    list(a_tower.propagate(first=0, last=6))
    a_tower.add_prompt("organ", Points(3, (100.0,), (80.0,), (False,)))  # widens; slice 3 still has its narrow memory
    a_tower.add_prompt("organ", Points(5, (45.0,), (35.0,), (True,)))
    list(a_tower.propagate())
    assert_memories_are_those_of_their_records(a_tower)


def test_prompts_during_a_pass_are_seen_through_the_view_of_the_slices_to_come(a_tower: Session) -> None:
    a_tower.add_prompt("organ", SMALL_BOX)
    results = a_tower.propagate()
    next(results)
    a_tower.add_prompt("organ", Box(5, 40, 30, 51, 41))
    a_tower.add_prompt("organ", Box(12, 30, 20, 89, 69))  # widens, while slice 5 waits
    list(results)
    assert_memories_are_those_of_their_records(a_tower)


def test_the_view_does_not_depend_on_who_else_is_segmented(a_seeing_model: LoadedModel) -> None:
    both, alone = (opened(a_seeing_model, volume_of(tower()), CLOSE) for _ in range(2))
    both.add_prompt("other", box_around(tower()[12], 12))
    for session in (both, alone):
        session.add_prompt("organ", SMALL_BOX)
        list(session.propagate())
    assert np.array_equal(both.mask("organ"), alone.mask("organ"))
    assert both._objects["organ"].view == alone._objects["organ"].view
