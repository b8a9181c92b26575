"""Models by their names on the hub. What offramp downloads `huggingface_hub` finds, and the other way round."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import offramp
from conftest import REPOSITORY
from mock_hub import COMMIT, MockHub

huggingface_hub = pytest.importorskip("huggingface_hub")

NAME = "org/tiny"
NEEDED = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The model that comes with offramp, as a repository of the hub has it."""
    folder = tmp_path / "repository"
    shutil.copytree(REPOSITORY / "models/tinystories-24", folder)
    return folder


@pytest.fixture
def hub(folder: Path) -> MockHub:
    return MockHub(NAME, folder)


def settings(hub: MockHub, cache: Path, **others: str) -> dict[str, str]:
    own = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
    return own | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} | others


def run(command: Path, hub: MockHub, cache: Path, *arguments: str, **others: str) -> str:
    environment = os.environ | settings(hub, cache, **others)
    ended = subprocess.run([command, *arguments], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def python(hub: MockHub, cache: Path, code: str, **others: str) -> str:
    """Runs code in a process of its own, since `huggingface_hub` reads its settings when it is imported."""
    environment = os.environ | settings(hub, cache, **others)
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


SNAPSHOT = "import huggingface_hub as h; print(h.snapshot_download('org/tiny', local_files_only={local}))"


def test_what_the_command_downloads_python_finds(command: Path, hub: MockHub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    found = run(command, hub, cache, "pull", NAME).strip()
    assert python(hub, cache, SNAPSHOT.format(local=True)) == found
    assert sorted(path.name for path in Path(found).iterdir()) == NEEDED
    scanned = huggingface_hub.scan_cache_dir(cache)
    assert not scanned.warnings
    [repository] = scanned.repos
    [revision] = repository.revisions
    assert (repository.repo_id, revision.commit_hash, revision.refs) == (NAME, COMMIT, {"main"})
    assert repository.size_on_disk == sum(len(hub.files[name]) for name in NEEDED)
    # The rest is all that Python downloads.
    before = hub.downloads()
    python(hub, cache, SNAPSHOT.format(local=False))
    assert hub.downloads() == before
    run(command, hub, cache, "remove", NAME)
    assert not huggingface_hub.scan_cache_dir(cache).repos


def test_what_python_downloads_is_found(command: Path, hub: MockHub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = python(hub, cache, SNAPSHOT.format(local=False))
    asked = len(hub.requests)
    assert folder in run(command, hub, cache, "inspect", NAME)
    assert folder in run(command, hub, cache, "inspect", NAME, HF_HUB_OFFLINE="1")
    assert len(hub.requests) == asked
    assert NAME in run(command, hub, cache, "list")
    # With links switched off, both keep the files themselves.
    bare = tmp_path / "bare"
    folder = python(hub, bare, SNAPSHOT.format(local=False), HF_HUB_DISABLE_SYMLINKS="1")
    assert folder in run(command, hub, bare, "inspect", NAME, HF_HUB_OFFLINE="1")


def test_a_file_that_python_knows_to_be_absent(command: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "generation_config.json").unlink()
    hub = MockHub(NAME, folder)
    cache = tmp_path / "cache"
    run(command, hub, cache, "pull", NAME)
    known = huggingface_hub.try_to_load_from_cache(NAME, "generation_config.json", cache_dir=cache)
    assert known is huggingface_hub.file_download._CACHED_NO_EXIST


def test_both_at_once_download_once(command: Path, folder: Path, tmp_path: Path) -> None:
    hub = MockHub(NAME, folder, pause=1.5)
    cache = tmp_path / "cache"
    code = SNAPSHOT.format(local=False)
    other = threading.Thread(target=python, args=(hub, cache, code))
    other.start()
    run(command, hub, cache, "pull", NAME)
    other.join()
    assert hub.downloads() == 1
    assert python(hub, cache, SNAPSHOT.format(local=True))


def test_from_pretrained_takes_a_name(hub: MockHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings(hub, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    here = offramp.AutoModelForCausalLM.from_pretrained()
    model = offramp.AutoModelForCausalLM.from_pretrained(NAME)
    assert str(model.generate("Once", max_new_tokens=8)) == str(here.generate("Once", max_new_tokens=8))
    with pytest.raises(ValueError, match="org/other"):
        offramp.AutoModelForCausalLM.from_pretrained("org/other")
