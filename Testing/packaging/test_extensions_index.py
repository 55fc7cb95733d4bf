"""What Slicer's Extensions Index checks of an extension (its scripts/check_description_files.py), without a network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DESCRIPTION = ROOT / "MedSAM2.json"
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
KEYS = {
    "$schema",
    "category",
    "scm_url",
    "scm_revision",
    "scm_type",
    "build_dependencies",
    "build_subdirectory",
    "enabled",
    "tier",
}
# The folders that the extension's own files come from; what a clone holds besides is not counted here.
LARGEST_REPOSITORY = 100 * 2**20


@pytest.fixture
def description() -> dict[str, object]:
    loaded: dict[str, object] = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    return loaded


def setting(name: str) -> str:
    """A variable of the top CMakeLists.txt, as the index reads it."""
    found = re.search(rf'set\s*\(EXTENSION_{name}\s*"([^"]+)"[ ]*\)', CMAKE)
    assert found, f"no EXTENSION_{name}"
    return found[1]


def test_the_description_has_the_keys_of_the_schema_and_no_others(description: dict[str, object]) -> None:
    assert {"$schema", "category", "scm_url"} <= description.keys() <= KEYS
    assert str(description["$schema"]).endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert description["tier"] in range(1, 6)


def test_line_ends_are_those_of_unix() -> None:
    assert b"\r" not in DESCRIPTION.read_bytes()


def test_the_category_is_one_that_slicer_has(description: dict[str, object]) -> None:
    assert description["category"] == "Segmentation"


def test_the_address_is_https_and_its_repository_begins_with_slicer(description: dict[str, object]) -> None:
    address = str(description["scm_url"])
    assert re.fullmatch(r"https://[^/]+/[^/]+/Slicer[^/]+\.git", address)


def test_the_extension_is_named_as_its_project_and_not_slicer() -> None:
    project = re.search(r"project\s*\(\s*([^\s)]+)", CMAKE)
    assert project
    assert project[1] == DESCRIPTION.stem
    assert not DESCRIPTION.stem.lower().startswith("slicer")


def test_icon_and_screenshot_are_files_of_this_repository() -> None:
    for address in (setting("ICONURL"), *setting("SCREENSHOTURLS").split()):
        path = ROOT / address.partition("/main/")[2]
        assert path.is_file(), path
        assert path.read_bytes().startswith(b"\x89PNG")


def test_both_descriptions_and_cmake_agree(description: dict[str, object]) -> None:
    lines = (ROOT / "MedSAM2.s4ext").read_text(encoding="utf-8").splitlines()
    old = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    assert old["scmurl"] == description["scm_url"]
    assert old["depends"].split() == description["build_dependencies"] == setting("DEPENDS").split()
    assert (old["category"], old["tier"]) == (description["category"], str(description["tier"]))
    for key in ("homepage", "contributors", "description", "iconurl", "screenshoturls"):
        assert old[key] == setting(key.upper()), key


def test_every_address_is_of_one_repository(description: dict[str, object]) -> None:
    """The index reads them from three files, each as plain text: change one, and this says which others."""
    name = str(description["scm_url"]).removeprefix("https://github.com/").removesuffix(".git")
    assert setting("HOMEPAGE") == f"https://github.com/{name}"
    pictures = [setting("ICONURL"), *setting("SCREENSHOTURLS").split()]
    assert all(address.startswith(f"https://raw.githubusercontent.com/{name}/main/") for address in pictures)


def test_there_is_a_licence() -> None:
    assert (ROOT / "LICENSE").stat().st_size > 1000


def test_the_repository_stays_far_below_the_limit() -> None:
    kept = ("MedSAM2Lib", "MedSAM2Slicer", "Resources", "Testing", "docs")
    size = sum(path.stat().st_size for folder in kept for path in (ROOT / folder).rglob("*") if path.is_file())
    assert size < LARGEST_REPOSITORY
