"""Checks of one client: each has a name, is counted, and says in one line what was expected and what came.

A client's script takes the URLs of four servers (plain: the carried model; exact: the same in f32; chat: one with a
template; tight: one place and one in the queue, behind a key) and ends with a line of JSON, which `run.py` reads.
"""

import argparse
import contextlib
import json
import sys
import traceback
from pathlib import Path

KEY = "a-key-for-tests"  # of the tight server


def options(about):
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", required=True, help="the URL of a server of the carried model")
    parser.add_argument("--exact", help="the URL of a server of the carried model, in f32")
    parser.add_argument("--chat", help="the URL of a server of a model with a chat template")
    parser.add_argument("--tight", help="the URL of a server with one place, one in the queue, and a key")
    parser.add_argument("--model", type=Path, help="the carried model's folder")
    parser.add_argument("--work", type=Path, default=Path("."), help="where files may be written")
    return parser.parse_args()


class Checks:
    def __init__(self, client, version):
        self.client, self.version, self.passed, self.failed = client, version, 0, []

    @contextlib.contextmanager
    def __call__(self, name):
        try:
            yield
        except Exception as error:
            [*_, where] = traceback.extract_tb(error.__traceback__)
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.failed.append(name)
            print(f"FAILED {name}: {text[:600]} ({Path(where.filename).name}:{where.lineno})", flush=True)
        else:
            self.passed += 1
            print(f"ok     {name}", flush=True)

    def finish(self):
        found = {"client": self.client, "version": self.version, "passed": self.passed, "failed": self.failed}
        print(json.dumps(found), flush=True)
        sys.exit(bool(self.failed))


def equal(got, expected, what):
    assert got == expected, f"{what}: expected {expected!r}, got {got!r}"


def true(condition, what):
    assert condition, what


def raises(kind, call, *arguments, **named):
    """The error of this kind that the call raises."""
    names = "/".join(one.__name__ for one in kind) if isinstance(kind, tuple) else kind.__name__
    try:
        answer = call(*arguments, **named)
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"expected {names}, got {type(error).__name__}: {error}") from error
    raise AssertionError(f"expected {names}, got the answer {answer!r}")
