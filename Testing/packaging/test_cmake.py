"""What the CMake files list is what is on disk, and an installed extension has every file where the module finds it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).parent / "slicer"
MODULES = Path("lib/Slicer-5.10/qt-scripted-modules")


def listed(cmake_file: str) -> list[str]:
    """The files a CMake file names, with ${MODULE_NAME} put in."""
    text = re.sub(r"#.*", "", (ROOT / cmake_file).read_text(encoding="utf-8")).replace("${MODULE_NAME}", "MedSAM2Slicer")
    return re.findall(r"^\s+([\w./-]+\.(?:py|png|svg|md|pt))$", text, flags=re.MULTILINE)


def on_disk(folder: str, pattern: str) -> list[str]:
    files = (path.relative_to(ROOT) for path in (ROOT / folder).rglob(pattern) if path.is_file())
    return sorted(path.as_posix() for path in files if "__pycache__" not in path.parts)


def test_the_library_list_is_what_is_on_disk() -> None:
    assert listed("MedSAM2Lib/Files.cmake") == on_disk("MedSAM2Lib", "*.py")


def test_the_module_list_is_what_is_on_disk() -> None:
    files = [f"MedSAM2Slicer/{name}" for name in listed("MedSAM2Slicer/CMakeLists.txt")]
    assert sorted(set(files)) == on_disk("MedSAM2Slicer", "*.py")


def test_the_resource_list_is_what_is_on_disk() -> None:
    assert listed("CMakeLists.txt") == on_disk("Resources", "*")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension, configured, built and installed by CMake with stand-ins for Slicer's macros."""
    needed = [tool for tool in ("cmake", "cc", "make") if shutil.which(tool) is None]
    if needed:
        pytest.skip(f"an extension is built with cmake, make and a compiler; missing here: {', '.join(needed)}")
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("install")
    options = [f"-DSlicer_DIR={STAND_IN}", "-DBUILD_TESTING=ON", "-G", "Unix Makefiles"]
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(build), *options],
        ["cmake", "--build", str(build)],
        ["cmake", "--install", str(build), "--prefix", str(prefix)],
    ):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    return prefix / MODULES


def test_every_file_is_installed_where_the_module_finds_it(installed: Path) -> None:
    library_and_resources = on_disk("MedSAM2Lib", "*.py") + on_disk("Resources", "*")
    module = [path.removeprefix("MedSAM2Slicer/") for path in on_disk("MedSAM2Slicer", "*.py")]
    files = sorted(path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file())
    assert files == sorted(library_and_resources + module)


def test_only_the_module_is_a_top_level_script(installed: Path) -> None:
    # Slicer loads every .py of this folder as a module of its own.
    assert [path.name for path in installed.glob("*.py")] == ["MedSAM2Slicer.py"]


def test_the_installed_library_finds_its_model_and_its_icon(installed: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from MedSAM2Lib.resources import resource_path\n"
        "print(resource_path('Models', 'nano.pt'), resource_path('Icons', 'MedSAM2Slicer.png'))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=installed, capture_output=True, text=True, check=False)
    assert result.stdout.split() == [
        str(installed / "Resources" / "Models" / "nano.pt"),
        str(installed / "Resources" / "Icons" / "MedSAM2Slicer.png"),
    ], result.stderr
