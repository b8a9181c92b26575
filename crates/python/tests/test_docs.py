"""Every example of the documentation runs."""

import doctest
import importlib
import pkgutil
import re
import shutil

import pytest
from conftest import REPOSITORY

import offramp

PAGES = ["docs/python.md", "crates/python/README.md"]
MODULES = [
    name
    for _, name, _ in pkgutil.iter_modules(offramp.__path__, "offramp.")
    if name not in ("offramp.native", "offramp.lm_eval")
]


@pytest.mark.parametrize("name", ["offramp", *MODULES])
def test_docstrings(name):
    names = {key: getattr(offramp, key) for key in offramp.__all__}
    found = doctest.testmod(importlib.import_module(name), extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0


@pytest.mark.parametrize("page", PAGES)
def test_pages(page, tmp_path, monkeypatch):
    """Blocks of Python run one after another, in a folder with a short recipe."""
    (tmp_path / "recipes").mkdir()
    recipe = (REPOSITORY / "recipes/first-minute.toml").read_text()
    short = re.sub(r"(?m)^steps = 400 .*$", "steps = 6", recipe).replace("every = 100 ", "every = 3 ")
    assert short.count("steps = 6") == 1 and "every = 3 " in short
    (tmp_path / "recipes/first-minute.toml").write_text(short.replace("warmup_steps = 20", "warmup_steps = 2"))
    shutil.copytree(REPOSITORY / "stories", tmp_path / "stories")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(), re.S)
    names = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)  # noqa: S102
    if page == "docs/python.md":
        assert len(blocks) >= 5 and names["found"].step == 6, "the training ran"


def test_every_keyword_is_documented():
    page = (REPOSITORY / "docs/python.md").read_text()
    assert [key for key in offramp.TextOptions.__annotations__ if f"`{key}`" not in page] == []
