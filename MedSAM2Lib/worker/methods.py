"""Which of a session's methods, properties and attributes a client may ask for, and what they do to the session.

`set_options` stands for assigning `options`. No torch here.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["METHODS", "STREAMING", "Kind"]


class Kind(Enum):
    """What a call does to a session, and so how the client brings a session back whose engine died."""

    READ = "read"  # changes nothing
    STEP = "step"  # changes the session; can be done again, soon enough, on top of the last state that the client has
    TURN = "turn"  # changes the session, and takes long, or cannot be done again on a restored session: brings the state


METHODS: dict[str, Kind] = {
    "set_volume": Kind.STEP,
    "add_prompt": Kind.STEP,
    "remove_prompt": Kind.STEP,
    "remove_object": Kind.STEP,
    "rename_object": Kind.STEP,
    "reset": Kind.STEP,
    "lock": Kind.STEP,
    "unlock": Kind.STEP,
    "propagate": Kind.TURN,
    "perform": Kind.TURN,
    "restore": Kind.TURN,
    "undo": Kind.TURN,
    "redo": Kind.TURN,
    "set_options": Kind.STEP,
    "look_at": Kind.READ,  # it changes what is encoded ahead, no result
    "plan": Kind.READ,
    "prompts": Kind.READ,
    "locked": Kind.READ,
    "can_undo": Kind.READ,
    "can_redo": Kind.READ,
    "undo_label": Kind.READ,
    "redo_label": Kind.READ,
    "state": Kind.READ,
    "recording": Kind.READ,
    "objects": Kind.READ,
    "options": Kind.READ,
    "window": Kind.READ,
    "slice_count": Kind.READ,
    "slice_shape": Kind.READ,
    "last_run": Kind.READ,
    "history_bytes": Kind.READ,
    "mask": Kind.READ,
    "slice_mask": Kind.READ,
    "slice_logits": Kind.READ,
    "volume_ml": Kind.READ,
    "confidence": Kind.READ,
}
STREAMING = ("propagate", "perform")  # answer slice by slice, and can be cancelled between two
