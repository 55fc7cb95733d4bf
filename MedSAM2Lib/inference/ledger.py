"""What a session knows of its objects, and how it came to know it: every change goes through here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from MedSAM2Lib.inference.history import Changes, History, Moment, Moments, changes
from MedSAM2Lib.inference.objects import SegmentedObject
from MedSAM2Lib.session_steps import GoOn, Propagate, Redo, SessionStep, Undo

__all__ = ["Ledger", "Running"]

_Objects = Mapping[str, SegmentedObject]


@dataclass
class Running:
    """A propagation that goes on: where it stands in the history and in the recording."""

    step: Propagate
    epoch: int
    moment: Moment | None = None  # before what it has done since anything else was done
    entry: int = 0  # its place in the recording
    results: int = 0  # slices since then


class Ledger:
    """objects   by name; replaced, never changed, because the history holds what there was
    steps     all that was done, in order: done again, it leads to the same objects
    moments   of the history, where it does not begin here
    """

    def __init__(
        self, history_bytes: int, objects: _Objects | None = None, steps: Sequence[SessionStep] = (), moments: Moments = ([], [])
    ) -> None:
        self.objects: _Objects = objects or {}
        self.steps = list(steps)
        self.history = History(history_bytes)
        self.history.resume(moments, self.objects)
        self._running: Running | None = None
        self._epoch = 0  # counts what ends a propagation that goes on

    def take(self, step: SessionStep, label: str, objects: _Objects) -> None:
        """What a step led to takes the place of what there was."""
        self.history.begin(label, self.objects)
        self.objects = objects
        self.steps.append(step)
        self.history.end(objects)

    def undo(self) -> Changes:
        """Back to before the last step, which there is. Returns the slices whose masks changed."""
        return self._go(self.history.back(self.objects), Undo())

    def redo(self) -> Changes:
        """On to after the step that was undone last, which there is."""
        return self._go(self.history.forth(self.objects), Redo())

    def _go(self, objects: _Objects, step: SessionStep) -> Changes:
        self.end_propagation()
        before, self.objects = self.objects, objects
        self.steps.append(step)
        return changes(before, objects)

    # ── propagation: one step, as long as nothing else is done meanwhile ──────────────────────────────────────

    def propagation(self, step: Propagate) -> Running:
        """A propagation to be; it may start as long as nothing has ended it by then."""
        return Running(step, self._epoch)

    def start(self, running: Running) -> None:
        """A propagation starts, which ends the one before."""
        if running.epoch == self._epoch:
            self._running = running

    def goes_on(self, running: Running) -> bool:
        return self._running is running

    def end_propagation(self) -> None:
        """Ends the propagation that goes on, and those that have not started."""
        self._epoch += 1
        self._running = None

    def take_up(self, running: Running, changed: _Objects, results: int) -> None:
        """What a propagation did to some objects takes its place, with the number of slices that it has segmented."""
        if running.moment is None or self.history.newest is not running.moment:
            first_time = running.moment is None
            running.moment = self.history.begin("propagation", self.objects)
            running.entry, running.results = len(self.steps), 0
            self.steps.append(replace(running.step, results=0) if first_time else GoOn(0))
        self.objects = {**self.objects, **changed}
        running.results += results
        self._note(running, running.results)

    def end(self, running: Running, finished: bool) -> None:
        """A propagation that went on ends: by itself, or because it was cancelled."""
        self._running = None
        if running.moment is not None:
            self.history.end(self.objects)
            if finished:
                self._note(running, None)

    def _note(self, running: Running, results: int | None) -> None:
        entry = self.steps[running.entry]
        assert isinstance(entry, (Propagate, GoOn))
        self.steps[running.entry] = replace(entry, results=results)
