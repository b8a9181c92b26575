"""transformers' side: the stock Llama class, in this process."""

import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Side:
    """Its plain decoding, and its self-speculation at the exits that the model itself drafts with."""

    def __init__(self, job):
        torch.set_num_threads(job.threads)
        self.tokenizer = AutoTokenizer.from_pretrained(job.model)
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[job.dtype]
        self.model = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype).eval()
        self.new_tokens = job.new_tokens
        self.ways = [way for way in job.ways if " " not in way]

    def decode(self, prompt, way):
        inputs = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        # No stop token: texts of one length compare.
        options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        if way:
            exit_layer, length = map(int, way.split(":"))
            # The early exit reads these where an assistant model would keep its own.
            self.model.generation_config.num_assistant_tokens = length
            self.model.generation_config.num_assistant_tokens_schedule = "constant"
            self.model.generation_config.assistant_confidence_threshold = 0.0
            options["assistant_early_exit"] = exit_layer
        times = []
        for count in (1, self.new_tokens):
            # One token takes no draft: what it takes is the prompt's.
            drafted = options if count > 1 else {k: v for k, v in options.items() if k != "assistant_early_exit"}
            with torch.inference_mode():
                start = time.perf_counter()
                tokens = self.model.generate(**inputs, min_new_tokens=count, max_new_tokens=count, **drafted)
                times.append(time.perf_counter() - start)
        new = tokens[0, inputs["input_ids"].shape[1] :].tolist()
        return (len(new) - 1) / (times[1] - times[0]), new
