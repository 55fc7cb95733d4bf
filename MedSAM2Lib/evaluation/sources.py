"""Which cases share a source with the volumes a model was trained on: their scores say less, and are reported apart."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from MedSAM2Lib.errors import OptionError, UsageError
from MedSAM2Lib.evaluation.manifest import Case, repositories

__all__ = ["cases_sharing_a_source"]


def cases_sharing_a_source(cases: Sequence[Case], training_manifest: Path) -> frozenset[str]:
    """Ids of the cases whose `origin` names a repository of a training volume, or which a training volume's
    `relation_to_shared_data` names, whatever it says of them.

    The manifest is that of shared/train, or any JSON with a list under `volumes` of records with those keys.
    Raises OptionError for a missing file, UsageError for another one.
    """
    if not training_manifest.is_file():
        raise OptionError(f"{training_manifest} does not exist; give the manifest of the training volumes.")
    try:
        volumes = json.loads(training_manifest.read_text(encoding="utf-8"))["volumes"]
        origins = frozenset[str]().union(*(repositories(volume.get("origin")) for volume in volumes))
        relations = " ".join(str(volume.get("relation_to_shared_data", "")) for volume in volumes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{training_manifest} is not a manifest of training volumes ({error}).") from error
    named = set(re.findall(r"[\w.-]+", relations))
    return frozenset(case.id for case in cases if case.repositories & origins or case.id in named)
