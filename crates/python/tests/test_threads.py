"""Python threads, signals and forks."""

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import offramp

PROMPTS = [f"Once upon a time there {word}" for word in ("was a dog", "lived a cat", "were two", "was a boy")] * 2


def in_a_process(code: str, **options):
    """Runs code in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, **options
    )


def test_eight_threads_are_each_their_own_text(model):
    alone = [model.generate(prompt, max_new_tokens=32, do_sample=False).text for prompt in PROMPTS]
    found = [None] * len(PROMPTS)

    def write(index):
        found[index] = model.generate(PROMPTS[index], max_new_tokens=32, do_sample=False).text

    threads = [threading.Thread(target=write, args=(index,)) for index in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_the_interpreter_runs_while_a_text_is_made(model):
    ticks, done = 0, threading.Event()

    def write():
        model.generate([PROMPTS[0]] * 8, max_new_tokens=200, temperature=1.0, ignore_eos=True)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        ticks += 1
        time.sleep(0.0005)
    thread.join()
    assert ticks > 20, "the interpreter was held"


def test_a_stream_that_is_left_frees_its_place():
    model = offramp.AutoModelForCausalLM.from_pretrained(max_texts=1)
    stream = model.stream_generate(PROMPTS[0], max_new_tokens=400, ignore_eos=True, temperature=1.0)
    next(stream)
    stream.close()
    # With one place, the next text would wait for the one that nobody reads.
    assert model.generate(PROMPTS[1], max_new_tokens=4, do_sample=False).text


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    "work",
    [
        "model.generate('Once', max_new_tokens=480, temperature=1.0, ignore_eos=True, stop=['zzz'])",
        "offramp.evaluate(model, max_tokens=1 << 40)",
        "offramp.benchmark(model, runs=10_000)",
        "model.logits([5] * 500, exits=list(range(1, 25)) * 4)",
    ],
)
def test_ctrl_c_is_heard(work):
    code = f"""
        import offramp, os, signal, threading, time
        model = offramp.AutoModelForCausalLM.from_pretrained()
        def interrupt():
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            while True:
                {work}
        except KeyboardInterrupt:
            print("interrupted")
    """
    ran = in_a_process(code)
    assert ran.stdout == "interrupted\n" and ran.returncode == 0, ran.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_that_lost_our_threads_is_told_so():
    code = """
        import offramp, os
        model = offramp.AutoModelForCausalLM.from_pretrained()
        model.generate("Once", max_new_tokens=2)
        child = os.fork()
        if child == 0:
            try:
                model.generate("Once", max_new_tokens=2)
            except RuntimeError as error:
                os._exit(7 if "spawn" in str(error) else 1)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        print(model.generate("Once upon a time", max_new_tokens=3, do_sample=False).text)
    """
    ran = in_a_process(code)
    assert ran.stdout == ", there was\n", ran.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_before_the_first_model_computes():
    code = """
        import offramp, os
        child = os.fork()
        if child == 0:
            found = offramp.AutoModelForCausalLM.from_pretrained().generate("Once upon a time", max_new_tokens=3, do_sample=False)
            os._exit(0 if found.text == ", there was" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    ran = in_a_process(code)
    assert ran.returncode == 0, ran.stderr


def test_spawned_processes_compute():
    code = """
        import multiprocessing

        def story(prompt):
            import offramp
            return offramp.AutoModelForCausalLM.from_pretrained().generate(prompt, max_new_tokens=3, do_sample=False).text

        if __name__ == "__main__":
            import offramp
            offramp.demo()
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                print(pool.map(story, ["Once upon a time"] * 2))
    """
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "spawned.py")
        with open(path, "w") as file:
            file.write(textwrap.dedent(code))
        ran = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "[', there was', ', there was']\n", ran.stderr


def test_importing_is_quick():
    code = "import time; start = time.perf_counter(); import numpy; own = time.perf_counter(); import offramp; print(time.perf_counter() - own)"
    assert float(in_a_process(code).stdout) < 5, "no model is read, no thread begun"
