"""The types hold in strict mode, in the package and for its users."""

import subprocess
import sys
from pathlib import Path

import pytest

import offramp

PACKAGE = Path(offramp.__file__).parent
USER = """
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import offramp

model = offramp.AutoModelForCausalLM.from_pretrained(dtype="int8")
assert_type(model.generate("Once", max_new_tokens=3), offramp.GeneratedText)
assert_type(model.generate(["Once"], temperature=0.5), list[offramp.GeneratedText])
assert_type(model.logits([1, 2], exits=[6]), NDArray[np.float32])
assert_type([item.exit_layer for item in model.stream_generate("Once")], list[int | None])
assert_type(offramp.evaluate(model)[0], offramp.ExitScore)
model.generate("Once", max_new_tokens="3")  # WRONG
model.generate("Once", flavour=1)  # WRONG
"""


def checked(checker: list[str], path: Path) -> str:
    words = [sys.executable, "-m", *checker, *(["--pythonpath", sys.executable] if checker == ["pyright"] else [])]
    ran = subprocess.run([*words, str(path)], capture_output=True, text=True, cwd=path.parent)
    if "error" not in ran.stdout and ran.returncode not in (0, 1):
        pytest.skip(f"{checker[0]} does not run here: {ran.stderr[-200:]}")
    return ran.stdout


@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["pyright"]], ids=["mypy", "pyright"])
def test_types(checker, tmp_path):
    pytest.importorskip(checker[0])
    if checker[0] == "pyright":
        (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    sources = tmp_path / "offramp"
    sources.mkdir()
    for path in [*PACKAGE.glob("*.py"), *PACKAGE.glob("*.pyi")]:
        # lm_eval has no types, and need not be there.
        if path.name != "lm_eval.py":
            (sources / path.name).write_text(path.read_text())
    (sources / "native.so").touch()  # the stub is of something
    said = checked(checker, sources)
    assert "error" not in said.replace("0 errors", ""), said
    user = tmp_path / "user.py"
    user.write_text(USER)
    said = checked(checker, user)
    lines = [number for number, line in enumerate(USER.splitlines(), 1) if "WRONG" in line]
    assert all(f"user.py:{number}" in said for number in lines), said
    wrong = {line.split(":")[1] for line in said.splitlines() if "error:" in line.replace("- error", "error:")}
    assert wrong == {str(number) for number in lines}, said
