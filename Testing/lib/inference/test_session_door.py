"""What does not fit is refused with a message that helps, and whatever goes wrong, the session is as before the call."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import OptionError, PromptError, StateError, UsageError
from MedSAM2Lib.inference.embeddings import Embeddings
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine
from MedSAM2Lib.results import SliceResult
from MedSAM2Lib.session_steps import (
    AddPrompt,
    GoOn,
    Lock,
    Propagate,
    Redo,
    RemoveObject,
    RemovePrompt,
    RenameObject,
    Reset,
    SessionStep,
    Undo,
    Unlock,
    slice_of,
    spoken,
)
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, Mask, ellipsoid, known, opened, volume_of

SHAPE = (6, 20, 24)
BOX = Box(2, 5, 6, 14, 13)


def painted(rows: int = 20, columns: int = 24) -> Mask:
    mask = np.zeros((rows, columns), dtype=bool)
    mask[5:9, 6:11] = True
    return mask


@pytest.fixture(scope="module")
def a_small_volume() -> Volume:
    return volume_of(ellipsoid(SHAPE))


@pytest.fixture(params=[None, 1.2], ids=["whole", "close"])
def a_session(request: pytest.FixtureRequest, a_model: LoadedModel, a_small_volume: Volume) -> Session:
    """Two objects, one of them half propagated and corrected; prompts that wait for the next pass."""
    session = opened(a_model, a_small_volume, replace(PLAIN, zoom=request.param))
    session.add_prompt("organ", BOX)
    session.add_prompt("tumour", MaskPrompt(4, painted()))
    for _ in zip(range(5), session.propagate(), strict=False):
        pass
    session.add_prompt("organ", Points(3, (8.0,), (8.0,), (False,)))
    return session


# ── prompts that do not fit ───────────────────────────────────────────────────────────────────────────────────────────

# Each with words that say what was expected, what came, and what to do.
BAD: list[tuple[str, Callable[[], Any], tuple[str, ...]]] = [
    ("slice beyond the last", lambda: replace(BOX, slice_index=6), ("within 0..5", "6 came", "another")),
    ("slice before the first", lambda: Box(-1, 1, 1, 5, 5), ("from 0", "-1 came")),
    ("half a slice", lambda: replace(BOX, slice_index=2.5), ("whole number", "2.5 came")),
    ("box beside", lambda: Box(2, 5, 6, 24, 13), ("within 0..23", "24,13 came", "another slicing axis?")),
    ("box above", lambda: Box(2, 5, -1, 20, 13), ("within 0..19", "5,-1", "the other way round")),
    ("inverted box", lambda: Box(2, 14, 6, 5, 13), ("X0 <= X1", "14,6,5,13 came", "swap")),
    ("NaN box", lambda: Box(2, math.nan, 6, 5, 13), ("finite", "nan")),
    ("infinite box", lambda: Box(2, 0, 6, math.inf, 13), ("finite", "inf")),
    ("click outside", lambda: Points(2, (5.0, 23.6), (5.0, 5.0), (True, True)), ("The point", "within 0..23", "23.6,5 came")),
    ("NaN click", lambda: Points(2, (math.nan,), (5.0,), (True,)), ("finite", "nan")),
    ("no click", lambda: Points(2, (), (), ()), ("at least one", "0, 0, 0 came")),
    ("click without label", lambda: Points(2, (5.0,), (5.0,), ()), ("as many x as y and labels", "1, 1, 0 came")),
    ("mask of another axis", lambda: MaskPrompt(2, painted(24, 20)), ("(20, 24)", "(24, 20)", "another slicing axis?")),
    ("empty mask", lambda: MaskPrompt(2, painted() & False), ("empty", "paint")),
    ("mask of a volume", lambda: MaskPrompt(2, np.ones(SHAPE, dtype=bool)), ("(rows, columns)", "(6, 20, 24)")),
    ("labels as mask", lambda: MaskPrompt(2, painted().astype(np.uint8) * 255), ("bool", "uint8 came", "compare")),
    ("line outside", lambda: RecistLine(2, 5, 5, 30, 5), ("The line", "within 0..23", "30,5 came")),
    ("line without length", lambda: RecistLine(2, 5, 5, 5, 5), ("two different ends", "the same point")),
    ("3D box too deep", lambda: Box3D(1, 6, 5, 6, 14, 13), ("within 0..5", "6 came")),
    ("3D box upside down", lambda: Box3D(4, 1, 5, 6, 14, 13), ("from a first to a last", "4..1 came")),
    ("3D box of half slices", lambda: Box3D(1.5, 4, 5, 6, 14, 13), ("whole number", "1.5 came")),
    ("3D box outside", lambda: Box3D(1, 4, 5, 6, 14, 20), ("within 0..19", "14,20 came")),
    ("a tuple", lambda: (2, 5, 6, 14, 13), ("A prompt is a Box", "a tuple came")),
    ("nothing", lambda: None, ("A prompt is a Box", "a NoneType came")),
]


@pytest.mark.parametrize("name", ["organ", "another"])
@pytest.mark.parametrize(("make", "words"), [pytest.param(make, words, id=name) for name, make, words in BAD])
def test_a_bad_prompt_is_refused_and_changes_nothing(
    a_session: Session, make: Callable[[], Prompt], words: tuple[str, ...], name: str
) -> None:
    before, encoded = known(a_session), a_session.embeddings.encoded
    with pytest.raises(PromptError) as refused:
        a_session.add_prompt(name, make())
    message = str(refused.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert known(a_session) == before
    assert a_session.embeddings.encoded == encoded


def test_an_object_without_a_name_is_refused(a_session: Session) -> None:
    before = known(a_session)
    with pytest.raises(PromptError, match="needs a name"):
        a_session.add_prompt("", BOX)
    assert known(a_session) == before


def test_prompts_on_the_very_edge_fit(a_session: Session) -> None:
    a_session.add_prompt("edge", Box(0, -0.5, -0.5, 23.5, 19.5))
    a_session.add_prompt("edge", Points(5, (-0.5, 23.5), (19.5, -0.5), (True, False)))
    a_session.add_prompt("edge", RecistLine(5, 0, 0, 23, 19))
    a_session.add_prompt("corner", RecistLine(1, -0.5, 3.0, -0.5, 3.2))
    a_session.add_prompt("edge", Box(np.int64(4), 0, 0, 0, 0))  # type: ignore[arg-type]  # indices come from numpy as well


def test_before_a_volume_there_is_nothing_to_prompt(a_model: LoadedModel) -> None:
    session = Session(a_model)
    for call in (lambda: session.add_prompt("organ", BOX), session.propagate, session.plan):
        with pytest.raises(UsageError, match="no volume yet; call set_volume"):
            call()


def test_what_is_not_there_cannot_be_asked_for(a_session: Session) -> None:
    before = known(a_session)
    for call in (a_session.mask, a_session.confidence, a_session.remove_object):
        with pytest.raises(OptionError, match="no object 'kidney'; objects are: organ, tumour"):
            call("kidney")
    assert known(a_session) == before


@pytest.mark.parametrize(("first", "last"), [(-1, 3), (0, 6), (4, 3)])
def test_a_range_that_does_not_fit_is_refused(a_session: Session, first: int, last: int) -> None:
    before = known(a_session)
    with pytest.raises(OptionError, match=rf"within 0:5, but {first}:{last} came"):
        a_session.propagate(first=first, last=last)
    assert known(a_session) == before


@pytest.mark.parametrize(("axis", "window"), [("z", "auto"), ("k", "no such window"), ("k", "10:5")])
def test_a_volume_that_cannot_be_shown_leaves_the_one_before(
    a_session: Session, a_small_volume: Volume, axis: str, window: str
) -> None:
    before, embeddings = known(a_session), a_session.embeddings
    with pytest.raises(OptionError):
        a_session.set_volume(a_small_volume, axis, window)
    assert known(a_session) == before
    assert a_session.embeddings is embeddings


@pytest.mark.parametrize(
    "options",
    [{"zoom": 0.5}, {"zoom": math.nan}, {"zoom": math.inf}, {"stop_after": -1}, {"fill_hole_cells": -1}, {"cache_bytes": -1},
     {"encoder_batch": 0}],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"but .* came"):
        SessionOptions(**options)


# ── work that is cut short ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Fuse:
    """Raises at the n-th call of anything it is put into."""

    left: int
    error: type[BaseException]

    def into(self, patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        plain = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise self.error
            return plain(*args, **options)

        patch.setattr(owner, name, call)


def arm(fuse: Fuse, patch: pytest.MonkeyPatch, session: Session) -> None:
    """Wherever the session works: before each step of the network, and before an answer is noted. Without features from
    before, so that the same work takes the same steps."""
    session.embeddings._kept.clear()
    for step in ("encode_image", "predict", "adopt_mask", "encode_memory", "with_memory"):
        fuse.into(patch, session.model.network, step)
    for step in ("_record", "_to_mask", "logits_through"):
        fuse.into(patch, session._segmenter, step)


PROMPTS: dict[str, tuple[str, Prompt]] = {
    "box on a new object": ("cyst", BOX),
    "click on a new object": ("cyst", Points(1, (8.0,), (8.0,), (True,))),
    "box on a tracked slice": ("organ", replace(BOX, slice_index=1)),
    "click on a prompted slice": ("organ", Points(2, (8.0,), (8.0,), (False,))),
    "click beside the view": ("tumour", Points(5, (23.0,), (19.0,), (True,))),
    "mask on a prompted slice": ("organ", MaskPrompt(2, painted())),
    "3D box": ("organ", Box3D(2, 3, 5, 6, 14, 13)),
}


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize(("name", "prompt"), PROMPTS.values(), ids=PROMPTS)
def test_a_prompt_that_is_cut_short_anywhere_changes_nothing(
    a_session: Session, monkeypatch: pytest.MonkeyPatch, name: str, prompt: Prompt, error: type[BaseException]
) -> None:
    before = known(a_session)
    for step in range(1, steps_of(lambda session: session.add_prompt(name, prompt), a_session, monkeypatch) + 1):
        with monkeypatch.context() as patch:
            arm(Fuse(step, error), patch, a_session)
            with pytest.raises(error):
                a_session.add_prompt(name, prompt)
        assert known(a_session) == before
    a_session.add_prompt(name, prompt)
    assert known(a_session) != before


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_propagation_that_is_cut_short_anywhere_keeps_what_was_yielded(
    a_session: Session, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    objects = a_session._ledger.objects
    steps = steps_of(lambda session: list(session.propagate()), a_session, monkeypatch)
    list(a_session.propagate())
    undisturbed = known(a_session)
    for step in range(1, steps + 1, 5):
        a_session._ledger.objects = objects
        with monkeypatch.context() as patch:
            arm(Fuse(step, error), patch, a_session)
            last_known = until_cut_short(a_session, error)
        for name, target in known(a_session).items():
            assert target["records"] == last_known[name]["records"]
        list(a_session.propagate())  # and it goes on as if nothing had been
        assert known(a_session) == undisturbed


def until_cut_short(session: Session, error: type[BaseException]) -> dict[str, Any]:
    """What was known when the last slice was yielded."""
    last_known = known(session)
    try:
        for _ in session.propagate():
            last_known = known(session)
    except error:
        return last_known
    raise AssertionError("nothing was raised")


def steps_of(work: Callable[[Session], object], session: Session, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many steps of work there are that can be cut short. The session is as before."""
    many = 10_000
    fuse, objects = Fuse(many, MemoryError), session._ledger.objects
    with monkeypatch.context() as patch:
        arm(fuse, patch, session)
        work(session)
    session._ledger.objects = objects
    assert many > fuse.left + 1
    return many - fuse.left


def test_features_that_cannot_be_kept_are_made_again(a_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        Fuse(1, MemoryError).into(patch, a_session.model.network, "encode_image")
        with pytest.raises(MemoryError):
            a_session.embeddings.features(0, next(iter(a_session._objects.values())).view)
    assert isinstance(a_session.embeddings, Embeddings)
    list(a_session.propagate())


# ── whatever is asked, in whatever order ──────────────────────────────────────────────────────────────────────────────

coordinates = st.one_of(st.floats(0, 19), st.floats(0, 19), st.floats(-3, 30), st.just(math.nan))
indices = st.one_of(st.integers(0, 5), st.integers(0, 5), st.integers(-1, 7))
lengths = st.floats(0, 4)
labels = st.booleans()


def made(kind: Callable[..., Prompt], *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Callable[[], Prompt]]:
    """A prompt to be: its own checks are part of the door, so it is made when it is used."""
    return st.tuples(*parts).map(lambda values: lambda: kind(*values))


prompts = st.one_of(
    made(Box, indices, coordinates, coordinates, coordinates, coordinates),
    made(lambda k, x, y, w, h: Box(k, x, y, x + w, y + h), indices, coordinates, coordinates, lengths, lengths),
    made(lambda k, x, y, on: Points(k, (x,), (y,), (on,)), indices, coordinates, coordinates, labels),
    made(RecistLine, indices, coordinates, coordinates, coordinates, coordinates),
    made(lambda k: MaskPrompt(k, painted()), indices),
    made(lambda a, b, x, y: Box3D(a, b, x, y, x + 4, y + 4), indices, indices, coordinates, coordinates),
    st.sampled_from([make for _, make, _ in BAD]),
)
names = st.sampled_from(["organ", "organ", "tumour", "tumour", ""])
several = st.lists(indices, max_size=3)
prompting = st.tuples(st.just("prompt"), names, prompts)


@dataclass(frozen=True)
class StepToBe:
    """A step of a recording, made when it is used: its prompt may be one that cannot be."""

    make: Callable[[], SessionStep]
    may_change_locked: bool

    def __call__(self) -> SessionStep:
        return self.make()


def stepped(kind: Callable[..., SessionStep], *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[StepToBe]:
    changes_locked = kind in (Undo, Redo, Unlock, RenameObject, RemoveObject, Reset)
    return st.tuples(*parts).map(lambda values: StepToBe(lambda: kind(*values), changes_locked))


counts = st.none() | st.integers(0, 6)
one_or_all = st.none() | st.tuples(names)
steps = st.one_of(
    stepped(lambda name, make: AddPrompt(name, spoken(make())), names, prompts),
    stepped(Propagate, one_or_all, st.none() | indices, st.none() | indices, st.booleans(), counts),
    stepped(GoOn, counts),
    stepped(Lock, names, several.map(tuple)),
    stepped(Unlock, names, st.none() | several.map(tuple)),
    stepped(RemovePrompt, names, indices),
    stepped(RenameObject, names, names),
    stepped(RemoveObject, names),
    *(stepped(kind) for kind in (Undo, Redo, Reset)),
)
QUESTIONS = ("mask", "slice_mask", "slice_logits", "confidence", "prompts", "locked", "memory", "volume_ml", "plan", "recording")
calls = st.one_of(
    prompting,
    prompting,
    st.tuples(st.just("propagate"), st.none(), st.none() | st.integers(0, 3), st.none() | st.integers(2, 5), st.integers(1, 12)),
    st.tuples(st.just("propagate"), names, indices, indices, st.integers(1, 12)),
    st.tuples(st.just("go on"), st.integers(1, 12)),
    st.tuples(st.just("lock"), names, several),
    st.tuples(st.just("unlock"), names, st.none() | several),
    st.tuples(st.just("remove prompt"), names, indices),
    st.tuples(st.just("rename"), names, st.sampled_from(["organ", "tumour", "cyst", ""])),
    st.tuples(st.sampled_from(["save", "restore", "damaged state"])),
    st.tuples(st.just("volume"), st.sampled_from([("z", "auto"), ("k", "10:5")])),
    st.tuples(st.just("ask"), st.sampled_from(QUESTIONS), names, indices),
    st.tuples(st.sampled_from(["undo", "redo"])),
    st.tuples(st.sampled_from(["undo", "redo"])),
    st.tuples(st.just("remove"), st.just("tumour")),
    st.tuples(st.just("reset")),
    st.tuples(st.just("as a step"), steps),
    st.tuples(st.just("as a step"), steps),
)
MAY_CHANGE_LOCKED = ("undo", "redo", "unlock", "rename", "remove", "reset", "restore")


@dataclass
class Course:
    """What a sequence of calls has to remember.

    running  the propagation that was begun last, if any; it may go on whatever else has been done meanwhile
    saved    the state to go back to
    origin   the objects to which all steps back lead
    """

    running: list[Generator[SliceResult, None, None]]
    saved: dict[str, Any]
    origin: Any


def carry_out(session: Session, call: tuple[Any, ...], course: Course) -> None:
    running = course.running
    match call:
        case ("as a step", step):
            list(session.perform(step()))
        case "volume", (axis, window):
            session.set_volume(volume_of(ellipsoid(SHAPE)), axis, window)
        case "ask", question, name, index:
            before = everything(session)
            try:
                ask(session, question, name, index)
            finally:
                assert everything(session) == before
        case ("save",):
            course.saved = session.state()
        case ("restore",):
            session.restore(course.saved)
            course.origin = course.saved["objects"]
        case "prompt", name, make:
            result = session.add_prompt(name, make())
            assert result.mask.shape == SHAPE[1:]
            assert session.confidence(name)[result.slice_index].prompted
        case "propagate", name, first, last, count:
            running[:] = [session.propagate(None if name is None else [name], first, last, redo=count % 2 == 0)]
            seen = [(result.object, result.slice_index) for result in islice(running[0], count)]
            assert len(set(seen)) == len(seen)
        case "go on", count:
            for results in running:
                assert not any(result.confidence.prompted for result in islice(results, count))
        case "lock", name, slices:
            session.lock(name, slices)
            assert set(slices) <= set(session.locked(name))
        case "unlock", name, slices:
            session.unlock(name, slices)
        case "remove prompt", name, index:
            session.remove_prompt(name, index)
            assert not session.slice_mask(name, index).any()
        case "rename", name, new:
            session.rename_object(name, new)
        case ("damaged state",):
            session.restore({**session.state(), "objects": [{}]})
        case ("undo",):
            session.undo()
        case ("redo",):
            session.redo()
        case "remove", name:
            session.remove_object(name)
        case ("reset",):
            session.reset()


def ask(session: Session, question: str, name: str, index: int) -> None:
    match question:
        case "slice_mask" | "slice_logits":
            getattr(session, question)(name, index)
        case "plan":
            session.plan([name], index)
        case "recording":
            session.recording()
        case _:
            getattr(session, question)(name)


def everything(session: Session) -> tuple[Any, ...]:
    """All that a call could change."""
    ledger = session._ledger
    steps = session.undo_label, session.redo_label, session.history_bytes
    return session.state(), known(session), steps, session.last_run, ledger._running, ledger._epoch, id(session.embeddings)


def check(session: Session) -> None:
    """What holds at all times."""
    for name, target in session._objects.items():
        bank = target.tracker.bank
        tracked = {entry.slice_index for entry, *_ in bank.tracked_entries()}
        pending = set(target.tracker.pending)  # until the next pass, their old memories stay
        approved = {index for index in target.locked if session.slice_mask(name, index).any()}
        said = set(target.prompted) | approved
        assert tracked <= set(target.records)
        assert set(target.prompted) <= {*bank.conditioning} | pending <= said
        assert not tracked & {*bank.conditioning}
        assert set(target.boxes) | set(target.clicks) <= set(target.prompted)
        assert {slice_of(kept) for kept in target.spoken} == set(target.prompted)
        assert all(np.array_equal(target.records[index].mask, painted()) for index in target.painted)
        assert not (target.unreached | target.stale) & target.anchors
        if target.limits is not None:
            assert all(target.limits[0] <= index <= target.limits[1] for index in set(target.records) - target.anchors)
        mask = session.mask(name)
        assert mask.shape == SHAPE
        assert set(np.flatnonzero(mask.any((1, 2)))) <= set(session.confidence(name))


def locked_masks(session: Session) -> dict[tuple[str, int], bytes]:
    return {
        (name, index): session.slice_mask(name, index).tobytes() for name in session.objects for index in session.locked(name)
    }


def undone(session: Session) -> int:
    """Takes everything back; how many steps there were."""
    steps = 0
    while session.can_undo:
        session.undo()
        check(session)
        steps += 1
    return steps


@settings(derandomize=True, deadline=None, database=None, max_examples=40)
@given(st.lists(calls, min_size=2, max_size=10), st.sampled_from([None, 1.2]), st.sampled_from([0, 1]))
def test_any_sequence_of_calls_leaves_a_session_that_holds_together(
    a_model: LoadedModel, a_small_volume: Volume, asked: list[tuple[Any, ...]], zoom: float | None, stop_after: int
) -> None:
    session = opened(a_model, a_small_volume, replace(PLAIN, zoom=zoom, stop_after=stop_after))
    course = Course([], session.state(), session.state()["objects"])
    session.add_prompt("organ", BOX)
    course.running.append(session.propagate())
    for call in asked:
        before, locked = everything(session), locked_masks(session)
        try:
            carry_out(session, call, course)
        except (UsageError, StateError):
            assert call[0] != "go on"
            assert everything(session) == before
        if call[0] not in MAY_CHANGE_LOCKED and not (call[0] == "as a step" and call[1].may_change_locked):
            assert locked.items() <= locked_masks(session).items()
        check(session)
    end = known(session)
    steps = undone(session)
    assert session.state()["objects"] == course.origin
    for _ in range(steps):
        session.redo()
    if steps:
        assert known(session) == end
