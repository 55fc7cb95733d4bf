"""The interactive state of one volume: objects, their prompts, their masks. The only class that front ends know.

    session = Session(load_model("nano", device))
    session.set_volume(read_volume("ct.nrrd"), axis="k", window="auto")
    session.add_prompt("liver", Box(42, 80, 60, 210, 190))
    for result in session.propagate():
        show(result)
    session.add_prompt("liver", Points(57, (120,), (95,), (False,)))    # a correction ...
    for result in session.propagate():                                  # ... and what it has to do with
        show(result)
    session.lock("liver", range(30, 60))
    mask = session.mask("liver")        # (k, j, i) bool

Prompts are checked at this door; a prompt that does not fit raises PromptError and changes nothing. Nor does a call that
is interrupted or runs out of memory: work is done on a copy of the object, which takes its place at the end.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import OptionError, PromptError, UsageError
from MedSAM2Lib.frames import View, logits_to_slice
from MedSAM2Lib.inference.assembly import assembled
from MedSAM2Lib.inference.door import Door
from MedSAM2Lib.inference.drafts import Drafts
from MedSAM2Lib.inference.embeddings import FORWARD, Embeddings
from MedSAM2Lib.inference.history import Changes, Moments
from MedSAM2Lib.inference.ledger import Ledger, Running
from MedSAM2Lib.inference.objects import SegmentedObject
from MedSAM2Lib.inference.options import SessionOptions
from MedSAM2Lib.inference.order import Step, outward
from MedSAM2Lib.inference.propagation import ObjectPass, route
from MedSAM2Lib.inference.segmenter import Segmenter
from MedSAM2Lib.inference.state import Setting, Written, read_state, written_state
from MedSAM2Lib.intensity import apply_window, resolve_window
from MedSAM2Lib.memory.bank import MemoryBank
from MedSAM2Lib.prompt_files import recording_to_json
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine
from MedSAM2Lib.results import PropagationReport, SliceConfidence, SliceResult
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
    said,
    slice_of,
    spoken,
)
from MedSAM2Lib.volume import Volume

__all__ = ["Session", "SessionOptions"]

_ARRAY_AXES = "kji"
_SLICES_AHEAD = 32  # on either side of the one looked at: a correction rarely reaches further, and a laptop is not to glow
# Of the history in a saved state, which an engine's process writes after each propagation: 2 MB are some 20 of 100 slices.
_STEPS_SAVED = 30
_BYTES_SAVED = 2**21


class Session:
    def __init__(self, model: LoadedModel, options: SessionOptions | None = None) -> None:
        self.model = model
        self._options = options or SessionOptions(zoom=model.zoom, depth_prior=model.depth_prior)
        self._network = model.network
        self._volume: Volume | None = None
        self._ledger = Ledger(self._options.history_bytes)
        self._replayed: Generator[SliceResult, None, None] | None = None
        self._written: Written = {}  # of the last state with its history: most of it is in the next one too
        self.last_run: PropagationReport | None = None  # of the last propagation that ended

    @property
    def options(self) -> SessionOptions:
        """May be replaced at any time; it then holds for what is segmented from then on."""
        return self._options

    @options.setter
    def options(self, options: SessionOptions) -> None:
        self._options = options
        if self._volume is not None:
            self._segmenter.options = options

    # ── the volume ────────────────────────────────────────────────────────────────────────────────────────────

    def set_volume(self, volume: Volume, axis: str = "k", window: str = "auto") -> None:
        """Takes a volume to segment slice by slice along an axis; forgets every object of the one before.

        axis    k, j, i, axial, coronal or sagittal: slices are numbered along it
        window  see `intensity.resolve_window`; applied to a copy of each slice, the volume is not changed
        """
        array_axis = volume.geometry.array_axis(axis)
        resolved = resolve_window(window, volume)
        stack = np.moveaxis(volume.array, array_axis, 0)  # (slices, rows, columns), a view
        count, rows, columns = stack.shape
        spacing = [volume.geometry.spacing_along(other) for other in range(3)]

        def read_slice(index: int) -> npt.NDArray[np.uint8]:
            return apply_window(stack[index], resolved)

        batch = self.options.encoder_batch or (1 if self._network.device.type == "cpu" else 8)
        self.embeddings = Embeddings(
            self._network, read_slice, count, byte_budget=self.options.cache_bytes, batch=batch
        )
        along, down, across = spacing.pop(array_axis), *spacing  # mm between slices, rows, columns
        drafting = self._network.volume_draft
        self._segmenter = Segmenter(
            self._network,
            self.embeddings,
            None if drafting is None else Drafts(drafting, read_slice, count, (rows, columns), (along, down, across)),
            count,
            (rows, columns),
            (along, down, across),
            self.options,
        )
        self._door = Door(count, lambda _: (rows, columns))
        self._volume, self._axis, self.window = volume, array_axis, resolved
        self.slice_count = count
        self._looked_at: int | None = None
        self._start_anew({}, [])

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        return self._segmenter.slice_shape

    # ── while nobody waits ────────────────────────────────────────────────────────────────────────────────────

    def look_at(self, slice_index: int) -> None:
        """Says which slice a person looks at: `encode_ahead` begins there."""
        self._checked_volume()
        (self._looked_at,) = self._door.slices([slice_index])

    @torch.inference_mode()
    def encode_ahead(self) -> bool:
        """Encodes one slice that may be asked for soon, and says whether it did: there may be another then.

        The slice looked at first, then those around it, in the views of the objects; before there is one, only where a prompt
        does not decide what is seen. What is encoded so is not encoded again, and nothing is let go for it.
        """
        if self._volume is None or self._looked_at is None:
            return False
        views = dict.fromkeys(target.view for target in self._objects.values())
        if not views and self.options.zoom is None:
            views = {View.whole(*self.slice_shape): None}
        around = outward([self._looked_at], 0, self.slice_count - 1)
        near = [(self._looked_at, FORWARD), *islice(around, 2 * _SLICES_AHEAD)]
        return self.embeddings.encode_next((index, view, direction) for index, direction in near for view in views)

    # ── objects ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def objects(self) -> list[str]:
        """Names, in the order in which they came."""
        return list(self._objects)

    def remove_object(self, name: str) -> None:
        """Forgets an object, its prompts and its locks."""
        self._object(name)
        others = {other: target for other, target in self._objects.items() if other != name}
        self._ledger.take(RemoveObject(name), f"removal of {name}", others)

    def rename_object(self, old: str, new: str) -> None:
        """Gives an object another name; it keeps its place. Raises OptionError where the name is taken."""
        target = self._object(old).copy()
        if new == old:
            return
        self._door.check_name(new)
        if new in self._objects:
            raise OptionError(f"There is an object {new!r} already, so {old!r} cannot be called that too; give another name.")
        target.name = new
        renamed = {(new if name == old else name): (target if name == old else one) for name, one in self._objects.items()}
        self._ledger.take(RenameObject(old, new), f"renaming of {old} to {new}", renamed)

    def reset(self) -> None:
        """Forgets every object; the volume and its image features stay."""
        if self._objects:
            self._ledger.end_propagation()
            self._ledger.take(Reset(), "reset", {})

    # ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────

    @torch.inference_mode()
    def add_prompt(self, name: str, prompt: Prompt) -> SliceResult:
        """The object's mask on the prompt's slice, at once. The first prompt of a name makes the object.

        A box or a mask starts its slice anew; clicks add to what its slice has. On a slice that was propagated to, the
        prompt is a correction: it sees the object's memories, clicks also the mask they correct. Clicks beside the object
        can empty a slice: it then says to later passes that the object is not there. A 3D box limits the object to its
        slices until another box is drawn. On a locked slice a prompt is refused.
        """
        self._checked_volume()
        simple = self._door.checked(prompt)
        known = self._objects.get(name)
        if known is None:
            self._door.check_name(name)
            target = self._segmenter.new_object(name, simple)
        else:
            target = known.copy()
        index = simple.slice_index
        if index in target.locked:
            raise PromptError(f"Slice {index} of {name!r} is locked, so a prompt cannot change it; unlock it first.")
        if isinstance(prompt, Box3D):
            target.keep_within(int(prompt.first), int(prompt.last))
        elif isinstance(simple, Box):  # a plain one says nothing of depth, so what an earlier one said holds no more
            target.limits = None
        kept = spoken(prompt)
        target.takes(kept)
        missed = isinstance(simple, Points) and index in target.records and not target.is_on(index)
        result = self._segmenter.prompt(target, simple)
        target.reach(index)
        target.disturb(index, missed and target.is_on(index))
        self._ledger.take(
            AddPrompt(name, kept), f"{_in_words(prompt)} on slice {index} of {name}", {**self._objects, name: target}
        )
        return result

    def prompts(self, name: str) -> list[Prompt]:
        """What a person said about an object, in order, without what a later box or mask on the same slice replaced."""
        return [said(kept) for kept in self._object(name).spoken]

    def remove_prompt(self, name: str, slice_index: int) -> None:
        """Takes back all that was said on a slice; it becomes empty, and the next propagation segments it again."""
        target = self._object(name).copy()
        if not target.is_prompted(slice_index):
            prompted = ", ".join(map(str, sorted(target.prompted))) or "no slice"
            raise PromptError(f"Slice {slice_index} of {name!r} has no prompt to remove; prompts are on {prompted}.")
        if slice_index in target.locked:
            raise PromptError(f"Slice {slice_index} of {name!r} is locked, so its prompt stays; unlock it first.")
        removed = [kept for kept in target.spoken if slice_of(kept) == slice_index]
        target.spoken = tuple(kept for kept in target.spoken if slice_of(kept) != slice_index)
        if any(isinstance(kept, Box3D) for kept in removed):
            target.limits = None
        target.forget(slice_index)
        target.unreached.add(slice_index)
        target.disturb(slice_index)
        words = f"removal of the prompts on slice {slice_index} of {name}"
        self._ledger.take(RemovePrompt(name, slice_index), words, {**self._objects, name: target})

    # ── locks ─────────────────────────────────────────────────────────────────────────────────────────────────

    @torch.inference_mode()
    def lock(self, name: str, slices: Iterable[int]) -> None:
        """Keeps slices of an object as they are, bit for bit: prompts there are refused, propagation stops at them.

        Their masks, as `mask` shows them, count as approved: passes that leave from them are conditioned on them as on
        prompted slices. Slices that are locked already stay so.
        """
        target = self._object(name).copy()
        new = sorted(set(self._door.slices(slices)) - target.locked)
        if not new:
            return
        shown = self._by_slice(target)
        for index in new:
            self._segmenter.approve(target, index, shown[index])
            target.reach(index)
        target.locked |= frozenset(new)
        self._ledger.take(Lock(name, tuple(new)), f"lock of {_slices_in_words(new)} of {name}", {**self._objects, name: target})

    @torch.inference_mode()
    def unlock(self, name: str, slices: Iterable[int] | None = None) -> None:
        """Lets slices change again; None for all. Slices that are not locked are passed over.

        The next propagation segments those of them again that no person spoke on.
        """
        target = self._object(name).copy()
        asked = target.locked if slices is None else set(self._door.slices(slices))
        freed = sorted(target.locked & asked)
        if not freed:
            return
        target.locked -= frozenset(freed)
        for index in freed:
            self._segmenter.disapprove(target, index)
            if not target.is_prompted(index):
                (target.stale if index in target.records else target.unreached).add(index)
        self._ledger.take(
            Unlock(name, tuple(freed)), f"unlock of {_slices_in_words(freed)} of {name}", {**self._objects, name: target}
        )

    def locked(self, name: str) -> list[int]:
        """The locked slices of an object, ascending."""
        return sorted(self._object(name).locked)

    # ── propagation ───────────────────────────────────────────────────────────────────────────────────────────

    def plan(
        self, objects: Sequence[str] | None = None, first: int | None = None, last: int | None = None, redo: bool = False
    ) -> list[tuple[str, Step]]:
        """What `propagate` would do at most, in order: objects side by side, slices nearest to a prompt first."""
        self._checked_volume()
        names = self.objects if objects is None else list(dict.fromkeys(objects))
        if not names:
            raise UsageError("There is nothing to propagate yet; draw a box (or another prompt) on one slice first.")
        first, last = self._door.range(first, last)
        routes = {name: route(self._object(name), first, last, redo) for name in names}
        longest = max(len(steps) for steps in routes.values())
        return [(name, steps[turn]) for turn in range(longest) for name, steps in routes.items() if turn < len(steps)]

    def propagate(
        self, objects: Sequence[str] | None = None, first: int | None = None, last: int | None = None, redo: bool = False
    ) -> Generator[SliceResult, None, None]:
        """Segments the slices around the prompts, in both directions, and yields each as it is ready.

        objects      names; None for all. Objects share the image features of a slice
        first, last  slices to stay within, inclusive; None for the ends of the volume
        redo         every slice of the range; else, after the first time, only what has to do with prompts since then: the
                     slices between them and the nearest locked or prompted ones, until new and old masks agree

        `last_run` says how many slices were segmented. Stopping the iteration is the way to cancel: what was yielded stays,
        the rest is as before, and the next propagation goes on from there. A direction ends after `stop_after` slices in a
        row without the object; the slices beyond it become empty. While it goes on, a slice that is prompted or locked is
        passed over, as is an object that is removed; an undo, a reset, another propagation or another volume ends it.
        """
        plan = self.plan(objects, first, last, redo)
        step = Propagate(None if objects is None else tuple(objects), first, last, redo)
        return self._propagate(plan, self._ledger, self._ledger.propagation(step))

    def _propagate(
        self, plan: Sequence[tuple[str, Step]], ledger: Ledger, running: Running
    ) -> Generator[SliceResult, None, None]:
        """ledger  the one of the volume that the plan is for: by the first slice the session may have another"""
        routes: dict[str, list[Step]] = {}
        for name, step in plan:
            routes.setdefault(name, []).append(step)
        passes = {name: ObjectPass(self._segmenter, steps, running.step.redo) for name, steps in routes.items()}
        changed: dict[str, SegmentedObject] = {}  # since the last slice that was yielded
        finished = False
        ledger.start(running)
        try:
            for name, _ in plan:
                if not ledger.goes_on(running):
                    return
                if name not in ledger.objects:
                    continue
                if name not in changed:
                    changed[name] = ledger.objects[name].copy()
                with torch.inference_mode():
                    result = passes[name].visit(changed[name])
                if result is not None:
                    ledger.take_up(running, changed, 1)
                    changed = {}
                    yield result
            finished = ledger.goes_on(running)
            if changed and finished:
                ledger.take_up(running, changed, 0)
        finally:
            if ledger.goes_on(running):
                ledger.end(running, finished)
                segmented = {name: one.segmented for name, one in passes.items()}
                planned = {name: one.planned for name, one in passes.items()}
                self.last_run = PropagationReport(segmented, planned, cancelled=not finished)

    # ── steps back and forth ──────────────────────────────────────────────────────────────────────────────────

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back; `undo_label` says which, as "box on slice 42 of liver"."""
        return bool(self._ledger.history.undo_label)

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone step to do again; `redo_label` says which."""
        return bool(self._ledger.history.redo_label)

    @property
    def undo_label(self) -> str:
        """The step that `undo` would take back, in words; empty where there is none."""
        return self._ledger.history.undo_label

    @property
    def redo_label(self) -> str:
        """The step that `redo` would do again, in words; empty where there is none."""
        return self._ledger.history.redo_label

    @property
    def history_bytes(self) -> int:
        """What only steps to undo and undone steps hold of masks and logits."""
        return self._ledger.history.nbytes

    def undo(self) -> Changes:
        """Takes back the last step: a prompt, a propagation as far as it went, a lock, a removal, a reset ...

        Returns the slices whose masks changed, ascending, by object; of an object that went away or came back, all that
        it had. A propagation that is going on ends. Raises UsageError where there is nothing to undo.
        """
        if not self.can_undo:
            raise UsageError("There is nothing to undo; the oldest steps may have been dropped to save memory.")
        return self._ledger.undo()

    def redo(self) -> Changes:
        """Does the step again that was undone last; as `undo`. Any other step forgets what was undone."""
        if not self.can_redo:
            raise UsageError("There is nothing to redo; only what was undone last, with no other step since, can be done again.")
        return self._ledger.redo()

    # ── saving ────────────────────────────────────────────────────────────────────────────────────────────────

    def state(self, history: bool = False) -> dict[str, Any]:
        """All that the session knows of its objects, as a dictionary that `json` can write; `restore` takes it back.

        Image features and memories are not in it: memories are made anew when a pass needs them, from the logits that are.
        The volume is not in it either, only its size, axis and window.

        history  whether the last 30 steps to undo and undone steps are in it, as far as they take no more than 2 MB
        """
        moments = self._ledger.history.recent(self._objects, _STEPS_SAVED, _BYTES_SAVED) if history else None
        return written_state(self._objects, self._setting(), self.recording(), self._written, moments)

    @torch.inference_mode()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state in place of all objects; what can be undone afterwards is what was saved of the history.

        Masks are those that were saved, bit for bit, and later calls give what they would have given. Raises StateError
        where the dictionary is damaged, or of another volume, axis, window or network; the session is then as before.
        """
        self._start_anew(*read_state(state, self._setting(), self._door, self._segmenter))

    def recording(self) -> dict[str, Any]:
        """All steps since `set_volume`, in the format of docs/prompts.md: `medsam2 segment --prompts` replays them."""
        self._checked_volume()
        return recording_to_json(self._ledger.steps, _ARRAY_AXES[self._axis], (self.window.low, self.window.high))

    def perform(self, step: SessionStep) -> Iterator[SliceResult]:
        """One step of a recording, as `prompt_files.read_prompts` reads it; yields the slices that it segments.

        A recording that is performed on the same volume, with the same model and options, gives the same masks.
        """
        match step:
            case AddPrompt(name, prompt):
                yield self.add_prompt(name, said(prompt))
            case Propagate(objects, first, last, redo, results):
                self._replayed = self.propagate(objects, first, last, redo)
                yield from islice(self._replayed, results)
            case GoOn(results):
                if self._replayed is None:
                    raise UsageError("There is no propagation that could go on; a recording has the step that began it before.")
                yield from islice(self._replayed, results)
            case Lock(name, slices):
                self.lock(name, slices)
            case Unlock(name, slices):
                self.unlock(name, slices)
            case RemovePrompt(name, slice_index):
                self.remove_prompt(name, slice_index)
            case RemoveObject(name):
                self.remove_object(name)
            case RenameObject(name, to):
                self.rename_object(name, to)
            case Reset():
                self.reset()
            case Undo():
                self.undo()
            case Redo():
                self.redo()

    def _setting(self) -> Setting:
        self._checked_volume()
        shape, model = (self.slice_count, *self.slice_shape), self.model
        window = self.window.low, self.window.high
        return Setting(shape, _ARRAY_AXES[self._axis], window, model.name, model.sha256)

    def _start_anew(
        self, objects: Mapping[str, SegmentedObject], steps: Sequence[SessionStep], moments: Moments = ([], [])
    ) -> None:
        self._ledger.end_propagation()
        self._ledger = Ledger(self.options.history_bytes, objects, steps, moments)
        self._replayed, self.last_run = None, None

    @property
    def _objects(self) -> Mapping[str, SegmentedObject]:
        return self._ledger.objects

    # ── results ───────────────────────────────────────────────────────────────────────────────────────────────

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """(k, j, i) bool on the volume's grid, a copy; post-processed as the options say, but for locked slices."""
        return np.ascontiguousarray(np.moveaxis(self._by_slice(self._object(name)), 0, self._axis))

    def slice_mask(self, name: str, slice_index: int) -> npt.NDArray[np.bool_]:
        """(rows, columns) bool, a copy: one slice as results yield it, before the pieces of the whole mask are looked at."""
        (index,) = self._door.slices([slice_index])
        record = self._object(name).records.get(index)
        return np.zeros(self.slice_shape, dtype=bool) if record is None else record.mask

    def slice_logits(self, name: str, slice_index: int) -> npt.NDArray[np.float32] | None:
        """(rows, columns): what the network made of one slice, above 0 where it saw the object; None where it has not been."""
        (index,) = self._door.slices([slice_index])
        record = self._object(name).records.get(index)
        return None if record is None else logits_to_slice(record.logits, record.view, *self.slice_shape).numpy()

    def memory(self, name: str) -> MemoryBank:
        """What is remembered of an object, a copy."""
        return self._object(name).tracker.bank.copy()

    def volume_ml(self, name: str) -> float:
        """Millilitres of an object's mask."""
        return int(self.mask(name).sum()) * math.prod(self._segmenter.spacing) / 1000

    def confidence(self, name: str) -> dict[int, SliceConfidence]:
        """By slice index, for every slice that was segmented."""
        records = self._object(name).records
        return {index: records[index].confidence for index in sorted(records)}

    def _by_slice(self, target: SegmentedObject) -> npt.NDArray[np.bool_]:
        """(slices, rows, columns) bool of an object."""
        return assembled(target, self.slice_count, self.slice_shape, self.options.keep_largest)

    # ── the door ──────────────────────────────────────────────────────────────────────────────────────────────

    def _checked_volume(self) -> Volume:
        if self._volume is None:
            raise UsageError("The session has no volume yet; call set_volume first.")
        return self._volume

    def _object(self, name: str) -> SegmentedObject:
        if name not in self._objects:
            known = ", ".join(self._objects) or "none yet"
            raise OptionError(f"There is no object {name!r}; objects are: {known}.")
        return self._objects[name]


def _in_words(prompt: Prompt) -> str:
    if isinstance(prompt, Points):
        return "click" if len(prompt.xs) == 1 else f"{len(prompt.xs)} clicks"
    return {Box: "box", RecistLine: "line", Box3D: "3D box", MaskPrompt: "mask"}[type(prompt)]


def _slices_in_words(slices: Sequence[int]) -> str:
    return f"slice {slices[0]}" if len(slices) == 1 else f"{len(slices)} slices"
