"""vLLM's `vllm bench serve`, as its wheel has it, on a machine without vLLM.

    python vllm_bench.py FOLDER --backend openai --base-url http://127.0.0.1:8080 ...

Installing vLLM means CUDA and gigabytes. Its benchmark client needs neither: FOLDER is the unpacked wheel, of which
`vllm/benchmarks` and four modules of `vllm/utils` run as they are. What they import besides (LoRA, pictures, sound) a
benchmark of text never calls; stand-ins take these names. The tokenizer comes from transformers, as in vLLM.
"""

import importlib.abc
import importlib.machinery
import logging
import sys
import types
from pathlib import Path

REAL = ("vllm.benchmarks",)
REAL_MODULES = {f"vllm.utils.{name}" for name in ("argparse_utils", "gc_utils", "network_utils", "import_utils")}


class Nothing:
    """Stands for a class or a function that nobody calls."""

    def __init__(self, *_, **__):
        raise NotImplementedError("a part of vLLM that is not here was called")

    def __class_getitem__(cls, _):
        return cls


class StandIn(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Nothing,), {})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for every module of vLLM that is not among the real ones."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != "vllm" or name.startswith(REAL) or name in REAL_MODULES:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        module.__path__ = [str(self.folder.joinpath(*module.__name__.split(".")))]
        if module.__name__ == "vllm.logger":
            module.init_logger = logger
        elif module.__name__ == "vllm.tokenizers":
            module.get_tokenizer = tokenizer
        elif module.__name__ == "vllm.envs":
            module.VLLM_GC_DEBUG = ""
        elif module.__name__ == "vllm.utils.mistral":
            module.is_mistral_tokenizer = lambda _: False


def logger(name):
    found = logging.getLogger(name)
    for level in ("debug", "info", "warning"):
        setattr(found, f"{level}_once", getattr(found, level))
    return found


def tokenizer(name, *_, **__):
    import transformers

    return transformers.AutoTokenizer.from_pretrained(name)


def main():
    folder = sys.argv.pop(1)
    sys.meta_path.insert(0, Finder(folder))
    from vllm.benchmarks.serve import add_cli_args
    from vllm.benchmarks.serve import main as serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="vllm bench serve")
    add_cli_args(parser)
    serve(parser.parse_args())


if __name__ == "__main__":
    main()
