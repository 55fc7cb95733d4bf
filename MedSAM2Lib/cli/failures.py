"""What went wrong, said to a person. No torch here."""

from __future__ import annotations

import errno

from MedSAM2Lib.errors import MedSAM2Error, is_out_of_memory

__all__ = ["message_of"]


def message_of(error: BaseException) -> str:
    """An error as a sentence that says what to do; of one that nobody expected, its name and what it says, in one line."""
    if isinstance(error, MedSAM2Error):
        return str(error)
    if is_out_of_memory(error):
        return (
            "not enough memory for this volume and model; close other programs, use a smaller --model, or a crop "
            "of the image (on a GPU, --device cpu)."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full{f' ({error.filename})' if error.filename else ''}; free some space and try again."
    told = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}: {told or 'no message'} (--debug shows where; please report it)."
