"""What `transformers` gives for the sentences of `lm_eval_task`: log-likelihood and greediness, at each exit layer.

    python lm_eval_reference.py MODEL 24,12 > reference.json
"""

import json
import sys
from pathlib import Path

import torch
import transformers

SENTENCES = Path(__file__).resolve().parent / "lm_eval_task" / "sentences.jsonl"


@torch.no_grad()
def score(model, tokenizer, doc, exit_layer):
    context = tokenizer.encode(doc["context"], add_special_tokens=False)
    whole = tokenizer.encode(doc["context"] + doc["continuation"], add_special_tokens=False)
    states = model.model(torch.tensor([whole]), output_hidden_states=True).hidden_states
    # The last of them has passed the final norm already.
    last = exit_layer == model.config.num_hidden_layers
    state = states[-1] if last else model.model.norm(states[exit_layer])
    logprobs = torch.log_softmax(model.lm_head(state)[0].double(), dim=-1)
    places = range(len(context), len(whole))
    greedy = all(int(logprobs[place - 1].argmax()) == whole[place] for place in places)
    return sum(float(logprobs[place - 1, whole[place]]) for place in places), greedy


def main():
    torch.set_num_threads(1)
    folder, exits = sys.argv[1], [int(exit_layer) for exit_layer in sys.argv[2].split(",")]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    docs = [json.loads(line) for line in SENTENCES.read_text().splitlines()]
    print(json.dumps({exit_layer: [score(model, tokenizer, doc, exit_layer) for doc in docs] for exit_layer in exits}))


if __name__ == "__main__":
    main()
