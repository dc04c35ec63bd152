"""Load models on rank 0 alone in two processes, and compare every rank's shards with the source.

Started by test_rank_zero.py with ``LOCAL_RANK`` 0 and 1: ``python rank_zero_runs.py FOLDER``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.distributed.device_mesh import init_device_mesh

from lightning_sd.models import LoRA, PretrainedModel, rank_zero
from lightning_sd.models.sharding import gather_parameters, shard_model, to_full

CASES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {},
    "bfloat16": {"dtype": "bfloat16"},
    "lora": {"lora": LoRA(r=2)},
    "checkpointing": {"lora": LoRA(r=2), "gradient_checkpointing": True},
    "fewer_layers": {"model_kwargs": {"num_hidden_layers": 1}},
    "not_sent": {},
}
IDS = torch.tensor([[5, 9, 2, 7]])


def count_loads() -> list[str]:
    """Count the models that this rank reads."""
    loads: list[str] = []
    load = transformers.AutoModelForCausalLM.from_pretrained

    def count(name: str, *args: Any, **settings: Any) -> Any:
        loads.append(name)
        return load(name, *args, **settings)

    setattr(transformers.AutoModelForCausalLM, "from_pretrained", count)  # noqa: B010 - for mypy
    return loads


def run(source: PretrainedModel, mesh: Any, loads: list[str]) -> dict[str, Any]:
    """Return what this rank holds after sharding, and what differs from the source."""
    torch.manual_seed(int(os.environ["LOCAL_RANK"]))  # each rank draws adapters of its own
    model, _ = source.load_to_shard()
    number, on_meta = len(loads), [name for name, p in model.named_parameters() if p.is_meta]
    shard_model(model, mesh, "model")
    torch.manual_seed(0)  # those of rank 0
    plain, _ = source.load()
    full = {name: to_full(p.detach()) for name, p in model.named_parameters()}
    wanted = dict(plain.named_parameters())
    buffers = dict(model.named_buffers())
    with torch.no_grad(), gather_parameters(model):
        logits = model(input_ids=IDS).logits
        same_logits = torch.equal(logits, plain(input_ids=IDS).logits)
    return {
        "loads": number,
        "on_meta": len(on_meta),
        "differing": [n for n, p in wanted.items() if not torch.equal(full[n], p)],
        "names": full.keys() == wanted.keys() and len(full) > 5,
        "trained": [n for n, p in model.named_parameters() if p.requires_grad]
        == [n for n, p in wanted.items() if p.requires_grad],
        "buffers": all(torch.equal(buffers[n], b) for n, b in plain.named_buffers()),
        "logits": same_logits,
        "tied": model.get_output_embeddings().weight is model.get_input_embeddings().weight,
    }


def main(folder: Path) -> None:
    rank = int(os.environ["LOCAL_RANK"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    loads, results = count_loads(), {}
    for name, settings in CASES.items():
        loads.clear()
        if name == "not_sent":
            setattr(rank_zero, "_pack", lambda loaded: None)  # noqa: B010 - for mypy
        source = PretrainedModel(str(folder / ("tied" if name == "tied" else "untied")), **settings)
        results[name] = run(source, mesh, loads)
    try:
        PretrainedModel(str(folder / "empty")).load_to_shard()
    except (OSError, RuntimeError) as error:
        results["error"] = {type(error).__name__: str(error)}
    torch.save(results, folder / f"results.{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
