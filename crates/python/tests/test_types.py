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
    return subprocess.run([sys.executable, "-m", *checker, str(path)], capture_output=True, text=True).stdout


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
    said = checked(checker, sources)
    assert "error" not in said.replace("0 errors", ""), said
    user = tmp_path / "user.py"
    user.write_text(USER)
    said = checked(checker, user)
    lines = [number for number, line in enumerate(USER.splitlines(), 1) if "WRONG" in line]
    assert all(f"user.py:{number}" in said for number in lines), said
    assert said.count("error:") == len(lines), said
