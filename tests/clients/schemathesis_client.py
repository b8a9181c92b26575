"""Schemathesis against /openapi.json: what it makes up of the schema never gets a 5xx, and every answer keeps it."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import checks

EXAMPLES = 40  # of each operation
# The first is the promise; the others are what /openapi.json itself says.
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]


def run(url, name, work):
    program = Path(sys.executable).parent / "schemathesis"
    words = [program, "run", f"{url}/openapi.json", "--checks", name, "--max-examples", EXAMPLES]
    words += ["--phases", "examples,coverage,fuzzing", "--seed", 1, "--request-timeout", 60]
    words += ["--generation-database", "none"]
    words += ["--no-color", "--workers", 1, "--suppress-health-check", "all"]
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=1800, cwd=work)


def main():
    given = checks.options(__doc__)
    check = checks.Checks("schemathesis", importlib.metadata.version("schemathesis"))
    for name in CHECKS:
        with check(name):
            ran = run(given.plain, name, given.work)
            (given.work / f"schemathesis-{name}.txt").write_text(ran.stdout + ran.stderr)
            counts = re.compile(r"\d+ (generated|passed|failures?|unique)")
            summary = [line for line in ran.stdout.splitlines() if counts.search(line)]
            print("       " + "; ".join(line.strip() for line in summary))
            if ran.returncode:
                failures = ran.stdout.partition("FAILURES")[2] or ran.stdout + ran.stderr
                raise AssertionError(f"it exits with {ran.returncode}: {failures[:2000]}")
    check.finish()


if __name__ == "__main__":
    main()
