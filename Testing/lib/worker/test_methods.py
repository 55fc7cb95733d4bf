from __future__ import annotations

from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.worker.methods import METHODS

STAYS = {
    "memory",  # tensors, for studies in the engine's own process
    "encode_ahead",  # what the engine does when nobody asks for anything
}


def test_every_public_method_and_property_of_a_session_can_be_asked_for() -> None:
    public = {name for name in vars(Session) if not name.startswith("_")}
    assert public - STAYS <= set(METHODS)
