# SPDX-License-Identifier: MIT
"""A Llama that can be left early: the first E layers, then the model's own final norm and LM head.

Every layer stays in the model, whatever the exit: weights, `state_dict()` and `save_pretrained()` are those of a
`LlamaForCausalLM`, which loads the same folder without this file.
"""

from itertools import islice

from torch import nn
from transformers import LlamaForCausalLM


class ExitableLayers(nn.ModuleList):
    """Holds all layers and hands out the first `depth` of them (all for None)."""

    depth = None

    def __iter__(self):
        return islice(super().__iter__(), self.depth)

    def __getitem__(self, index):  # transformers 5 runs over a slice, transformers 4.45 over the list itself
        return nn.ModuleList(list(self)[index]) if isinstance(index, slice) else super().__getitem__(index)


class EarlyExitLlamaForCausalLM(LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.model.layers = ExitableLayers(self.model.layers)

    @property
    def exit_layer(self):
        """How many layers run."""
        return self.model.layers.depth or self.config.num_hidden_layers

    def set_exit_layer(self, exit_layer):
        """Leaves after so many layers from now on; None is all of them. Between calls, not inside a KV cache's life:
        layers that an exit left out have not seen its tokens."""
        layers = self.config.num_hidden_layers
        if exit_layer is not None and exit_layer not in range(1, layers + 1):
            raise ValueError(f"exit_layer is {exit_layer!r}: this model can be left after 1 to {layers} layers")
        self.model.layers.depth = None if exit_layer is None else int(exit_layer)

    def exit_logits(self, input_ids, **kwargs):
        """Logits at every exit up to the one that is set, in one pass: {exit_layer: [batch, tokens, vocab]}."""
        output = self.model(input_ids, output_hidden_states=True, use_cache=False, return_dict=True, **kwargs)
        # The embedding, then each layer's output; the last layer's has been through the norm.
        *hidden, last = output.hidden_states[1:]
        return dict(enumerate(map(self.lm_head, [*map(self.model.norm, hidden), last]), start=1))


# transformers 5 does this by itself; transformers 4.45 would save config.json without this file.
EarlyExitLlamaForCausalLM.register_for_auto_class("AutoModelForCausalLM")
