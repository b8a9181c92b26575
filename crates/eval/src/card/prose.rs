//! The card's text: how to use the model, its limits, papers to cite.

use super::Card;
use crate::number::grouped;
use offramp_model::{BitLinear, Config, quoted};

/// An exit with more than this many times the full model's perplexity gets a warning.
const OF_LITTLE_USE: f64 = 2.0;

/// Python code if `transformers` loads the folder; in any case the command.
pub(super) fn usage(card: &Card<'_>) -> String {
    let family = card.family();
    let (place, middle) = (card.place, card.config.num_hidden_layers.div_ceil(2));
    // A JSON string is a Python string.
    let literal = serde_json::Value::from(place).to_string();
    let exits = Config::quarters(card.config.num_hidden_layers);
    let exits = exits.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let python = format!(
        r#"In Python (`pip install torch transformers`); `modeling_early_exit.py` beside this card adds `set_exit_layer`:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({literal}, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained({literal})

model.set_exit_layer({middle})
inputs = tokenizer("Once upon a time", return_tensors="pt")
outputs = model.generate(**inputs, max_length=100)
print(tokenizer.decode(outputs[0]))
```

```python
for exit_layer in [{exits}]:
    model.set_exit_layer(exit_layer)
    outputs = model.generate(**inputs, max_length=100)
    print(exit_layer, tokenizer.decode(outputs[0]))
```

Without `trust_remote_code=True` the stock {family} class loads the same folder, at full depth.
"#
    );
    let word = quoted(place);
    let python = match card.config.bit_linear {
        _ if card.gguf.is_some() => format!(
            "The file is the whole model, its tokenizer among it. Programs that are built on llama.cpp load it too, at full \
             depth. For `transformers` it becomes a folder:\n\n\
             ```sh\nofframp quantize {word} --to bf16 --out model-folder\n```\n"
        ),
        None if card.is_float() => python,
        Some(BitLinear { hadamard: false, .. }) => {
            "Stock `transformers` loads the same folder, as its `BitNetForCausalLM` and at full depth.\n".to_owned()
        }
        Some(_) => {
            "Stock `transformers` knows no rotated ternary layers and refuses this folder.\n".to_owned()
        }
        None => "Stock `transformers` does not read these number formats; `offramp quantize --to bf16` makes a folder that \
                  it does.\n"
            .to_owned(),
    };
    format!(
        "## Use\n\nWith offramp:\n\n```sh\nofframp generate {word} --prompt \"Once upon a time\" --exit-layer {middle}\n```\n\n{python}"
    )
}

/// The limits that follow from the numbers.
pub(super) fn limitations(card: &Card<'_>) -> String {
    let config = card.config;
    let learnt = match (&card.facts.dataset, card.training) {
        (Some(dataset), Some(report)) => {
            let learnt = format!("It has learnt from {} tokens of {dataset}", grouped(report.tokens));
            match report.start.as_ref().and_then(|start| start.checkpoint.as_ref()) {
                Some(base) => format!("{learnt}, after what {base} had learnt, and knows nothing else"),
                None => format!("{learnt} and knows nothing else"),
            }
        }
        (Some(dataset), None) => format!("It has learnt from {dataset} and knows nothing else"),
        _ => "It knows what it has learnt from and nothing else".to_owned(),
    };
    let mut lines = vec![
        format!("{learnt}: it continues text of that kind, and takes no instructions."),
        "What it says is made up, may contradict itself, and was not checked for harm.".to_owned(),
        format!("Its context is {} tokens; beyond that it cannot see.", config.context()),
        "An earlier exit is another, worse text, not the same text sooner: the table says how much worse."
            .to_owned(),
    ];
    if let Some((worst, full)) =
        card.measured.validation.as_ref().and_then(|scores| {
            Some((scores.exits.iter().min_by_key(|exit| exit.exit_layer)?, scores.deepest()?))
        })
        && worst.perplexity.is_finite()
        && worst.perplexity > OF_LITTLE_USE * full.perplexity
    {
        lines.push(format!(
            "The first exits are of little use: at exit layer {} perplexity is {:.1}, {:.1} times the full model's.",
            worst.exit_layer,
            worst.perplexity,
            worst.perplexity / full.perplexity
        ));
    }
    if card.measured.speed.is_some() {
        lines.push(
            "Speed is that of one machine and one text at a time; other machines have other ratios."
                .to_owned(),
        );
    }
    let lines: String = lines.iter().map(|line| format!("- {line}\n")).collect();
    format!("## Limitations\n\n{lines}")
}

/// The papers to cite.
pub(super) fn citations(card: &Card<'_>) -> String {
    let mut papers = vec![
        "Elhoushi et al. 2024, *LayerSkip: Enabling Early Exit Inference and Self-Speculative Decoding*, \
         [arXiv:2404.16710](https://arxiv.org/abs/2404.16710): layer dropout and the early-exit loss.",
        "Touvron et al. 2023, *LLaMA: Open and Efficient Foundation Language Models*, \
         [arXiv:2302.13971](https://arxiv.org/abs/2302.13971): the architecture.",
    ];
    if card.facts.dataset.as_deref().is_some_and(|dataset| dataset.to_lowercase().contains("tinystories")) {
        papers.push(
            "Eldan and Li 2023, *TinyStories: How Small Can Language Models Be and Still Speak Coherent English?*, \
             [arXiv:2305.07759](https://arxiv.org/abs/2305.07759): the stories.",
        );
    }
    let papers: String = papers.iter().map(|paper| format!("- {paper}\n")).collect();
    format!("## Citations\n\n{papers}")
}
