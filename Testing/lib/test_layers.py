"""Imports go down the layers of docs/architecture.md, and the rim imports without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import MedSAM2Lib

PACKAGE = Path(MedSAM2Lib.__file__).parent

# The longest matching prefix decides. Modules of one layer may import each other, except where SIBLINGS forbids it.
LAYERS = {
    "errors": 0,
    "geometry": 0,
    "prompts": 0,
    "packed_mask": 0,
    "session_steps": 0,
    "json_fields": 0,
    "depth_prior": 0,
    "volume": 0,
    "atomic": 0,
    "lock": 0,
    "masks": 0,
    "results": 0,
    "simpleitk": 0,
    "resources": 0,
    "version": 0,
    "network.config": 0,
    "intensity": 1,
    "agreement": 1,
    "metrics": 1,
    "volume_io": 1,
    "slice_stack": 1,
    "slice_plane": 1,
    "world_prompts": 1,
    "pieces": 1,
    "postprocess": 1,
    "phantom": 1,
    "drawing": 1,
    "preview": 1,
    "image_sheet": 1,
    "prompt_files": 1,
    "prompt_json": 1,
    "step_json": 1,
    "checkpoints.registry": 1,
    "checkpoints.archive": 1,
    "checkpoints.outline": 1,
    "checkpoints.store": 1,
    "checkpoints.transfer": 1,
    "checkpoints.download": 1,
    "frames": 1,
    "device": 1,
    "network": 2,
    "memory": 2,
    "checkpoints.eight_bits": 2,
    "checkpoints.loading": 3,
    "inference": 4,
    "training": 5,
    "evaluation": 5,
    "report": 5,
    "benchmark": 5,
    "worker": 5,
    "batch": 5,
    "cli": 6,
    "__main__": 6,
}
SIBLINGS = [("network", "memory"), ("memory", "network"), ("training", "evaluation")]
TORCH_FREE = (
    "agreement",
    "errors",
    "geometry",
    "prompts",
    "intensity",
    "metrics",
    "volume_io.read",
    "volume_io.write",
    "postprocess",
    "slice_stack",
    "checkpoints.registry",
    "checkpoints.download",
    "network.config",
    "cli.main",
    "worker.client",
    "batch.processes",
    "batch.cluster",
    "batch.records",
    "batch.table",
    "cli.batch_case",
    "memory.options",
)


def modules() -> list[str]:
    files = PACKAGE.rglob("*.py")
    names = [".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files]
    return sorted(name for name in names if not name.endswith("__init__"))


def layer(module: str) -> int:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:length])) in LAYERS:
            return LAYERS[prefix]
    raise AssertionError(f"{module} has no layer yet: give it one in LAYERS")


def imports_of(module: str) -> set[str]:
    tree = ast.parse((PACKAGE / Path(*module.split(".")).with_suffix(".py")).read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("MedSAM2Lib"):
            base = node.module.removeprefix("MedSAM2Lib").lstrip(".")
            submodules = [".".join(filter(None, (base, alias.name))) for alias in node.names]
            found |= {name for name in submodules if name in modules()} or {base}
    return found - {""}


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_its_own_layer_and_those_below(module: str) -> None:
    too_high = {other for other in imports_of(module) if layer(other) > layer(module)}
    assert not too_high


@pytest.mark.parametrize(("package", "sibling"), SIBLINGS)
def test_siblings_do_not_import_each_other(package: str, sibling: str) -> None:
    importing = {
        module: {other for other in imports_of(module) if other.startswith(sibling + ".")}
        for module in modules()
        if module.startswith(package + ".") and module != "network.config"
    }
    assert not {module: others for module, others in importing.items() if others}


def test_the_rim_imports_nothing_heavy() -> None:
    """A panel opens, and a command says what it does, before any of these is there."""
    heavy = ("torch", "SimpleITK", "scipy", "vtk", "PIL", "matplotlib", "dask")
    program = f"import sys; sys.modules.update(dict.fromkeys({heavy}))\n" + "\n".join(
        f"import MedSAM2Lib.{name}" for name in TORCH_FREE
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_package_files_hold_a_docstring_and_nothing_else() -> None:
    for file in PACKAGE.rglob("__init__.py"):
        assert [type(node) for node in ast.parse(file.read_text(encoding="utf-8")).body] == [ast.Expr], file
