"""Installs clients as they are, runs each against servers of a given binary, and prints what passed.

    python tests/clients/run.py --offramp target/release/offramp --work clients-work
    python tests/clients/run.py --offramp target/release/offramp --work clients-work openai-3.57 curl hostile

Each client has a virtual environment of its own under the work folder, which the next run uses again. A client that
cannot be installed is skipped, with a line.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import chat_model
import checks
import server

HERE = Path(__file__).resolve().parent
MODEL = HERE.parents[1] / "models" / "tinystories-24"
# What vLLM's benchmark client imports; transformers for the tokenizer.
BENCH = ["aiohttp", "numpy", "tqdm", "pillow", "pybase64", "regex", "pyyaml", "psutil", "pyzmq", "urllib3"]
BENCH += ["transformers", "jinja2"]


@dataclass
class Client:
    scripts: list
    packages: list = field(default_factory=list)
    first: object = None  # what is to be done before, with the job and the environment's python
    minutes: int = 20


def download_vllm(job, python):
    folder = job.work / "vllm-wheel"
    if not list(folder.glob("vllm-*.whl")):
        pip(python, "download", "--no-deps", "--only-binary", ":all:", "--dest", folder, "vllm")


def reference(job, _):
    """transformers' scores, computed once in an environment with torch."""
    target = job.work / "reference.json"
    if not target.exists():
        python = environment(job, "reference", ["torch", "transformers"])
        words = [python, HERE / "lm_eval_reference.py", job.model, "24,12"]
        ran = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, text=True, check=True)
        target.write_text(ran.stdout)


OPENAI = ["openai_completions.py", "openai_errors.py", "openai_chat.py"]
CLIENTS = {
    "curl": Client(["curl_client.py"]),
    "openai-2.54": Client(OPENAI, ["openai==2.54.*"]),
    "openai-3.57": Client(OPENAI, ["openai==3.57.*"]),
    "langchain": Client(["langchain_client.py"], ["langchain-openai"]),
    "guidellm": Client(["guidellm_client.py"], ["guidellm"]),
    "vllm": Client(["vllm_client.py"], BENCH, download_vllm),
    "lm-eval": Client(["lm_eval_client.py"], ["lm-eval[api]", "transformers"], reference),
    "schemathesis": Client(["schemathesis_client.py"], ["schemathesis"], minutes=60),
    "hostile": Client(["hostile.py"], minutes=10),
}


class NotInstalled(Exception):
    pass


def pip(python, *words):
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if line.strip()]
        raise NotInstalled(lines[-1] if lines else f"pip exits with {ran.returncode}")


def environment(job, name, packages):
    """The python of an environment with these packages; this one where there are none."""
    if not packages:
        return sys.executable
    folder = job.work / f"venv-{name}"
    mark, wanted = folder / "installed.txt", "\n".join(packages)
    if not mark.exists() or mark.read_text() != wanted:
        print(f"{name}: installing {' '.join(packages)}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip(folder / "bin" / "python", "install", *packages)
        mark.write_text(wanted)
    return folder / "bin" / "python"


def run_script(job, python, script, minutes):
    """The last line of a script, or what stands for it when there is none."""
    words = [python, HERE / script, "--model", job.model, "--work", job.work]
    for name, running in job.servers.items():
        words += [f"--{name}", running.url]
    if script == "hostile.py":
        words = [python, HERE / script, "--offramp", job.offramp]
    log = job.work / f"{job.client}-{Path(script).stem}.log"
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("w") as file:
        try:
            command = list(map(str, words))
            subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=60 * minutes, env=environment)
        except subprocess.TimeoutExpired:
            print(f"\nit did not end in {minutes} minutes", file=file)
    lines = log.read_text(errors="replace").splitlines()
    for line in lines:
        if line.startswith("FAILED"):
            print(f"{job.client}: {line}", flush=True)
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        ended = f"it did not end: {' '.join(lines[-2:])[:300]}"
        return {"client": script, "version": "-", "passed": 0, "failed": [ended]}


def run_client(job, name):
    job.client, client = name, CLIENTS[name]
    try:
        python = environment(job, name, client.packages)
        if client.first:
            client.first(job, python)
    except (NotInstalled, subprocess.CalledProcessError, OSError) as error:
        print(f"{name}: skipped, it could not be installed: {error}", flush=True)
        return [{"client": name, "version": "skipped", "passed": 0, "failed": []}]
    return [run_script(job, python, script, client.minutes) for script in client.scripts]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", help=f"of {', '.join(CLIENTS)} [default: all]")
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--work", type=Path, required=True, help="where environments and logs are kept")
    parser.add_argument("--model", type=Path, default=MODEL, help="the carried model's folder")
    job = parser.parse_args()
    names = job.clients or list(CLIENTS)
    if unknown := set(names) - set(CLIENTS):
        parser.error(f"unknown clients: {', '.join(sorted(unknown))}")
    job.offramp, job.work, job.model = job.offramp.resolve(), job.work.resolve(), job.model.resolve()
    job.work.mkdir(parents=True, exist_ok=True)
    folder, rows = chat_model.make(job.model, job.work / "chat-model"), []
    tight = ["--max-texts", 1, "--queue", 1, "--api-key", checks.KEY]
    with server.Server(job.offramp) as plain, server.Server(job.offramp, folder) as chat:
        with server.Server(job.offramp, *tight) as crowded, server.Server(job.offramp, "--format", "f32") as exact:
            job.servers = {"plain": plain, "exact": exact, "chat": chat, "tight": crowded}
            for name in names:
                rows += run_client(job, name)
    print("\n| client | version | checks passed | failed |\n|---|---|---|---|")
    for row in rows:
        total = row["passed"] + len(row["failed"])
        print(f"| {row['client']} | {row['version']} | {row['passed']} of {total} | {'; '.join(row['failed'])} |")
    sys.exit(any(row["failed"] for row in rows))


if __name__ == "__main__":
    main()
