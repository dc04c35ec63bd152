"""A context and a loss of lightning_sd in a LightningModule of your own.

``python examples/plain_module.py``
"""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_sd import ArithmeticTask, PretrainedModel, ReferenceSolution, Rollout
from lightning_sd.functional import DivergenceSpec, divergence


class PlainModule(LightningModule):
    """Distill the model's own answers, one question at a time, with the live model as teacher."""

    def __init__(self, learning_rate: float = 3e-4):
        super().__init__()
        self.learning_rate = learning_rate
        source = PretrainedModel("package:lightning_sd/lab/solver")
        self.model, self.tokenizer = source.load()
        self.teacher_context = None  # the context, a callback, sets it

    def training_step(self, batch, batch_idx):
        """Sample an answer, let the context write the teacher's prompt, compare."""
        (question,) = batch
        prompt = self.encode(question.messages)
        ids = self.answer(prompt)
        rollout = Rollout(question, tuple(ids.tolist()), self.tokenizer.decode(ids), group=0)
        (view,) = self.teacher_context.views([rollout])
        if view is None:
            return None  # nothing to show: skip the question
        with torch.no_grad():
            teacher = self.score(self.encode(view.messages), ids)
        student = self.score(prompt, ids)
        loss = divergence(student, teacher, ids, DivergenceSpec("forward_kl")).value.mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    @torch.no_grad()
    def answer(self, prompt):
        """Sample one completion, ``[tokens]``."""
        out = self.model.generate(prompt, max_new_tokens=64, do_sample=True)
        return out[0, prompt.shape[1] :]

    def score(self, prompt, ids):
        """Logits of each completion token, ``[tokens, vocab]``."""
        whole = torch.cat([prompt, ids.unsqueeze(0)], 1)
        return self.model(whole).logits[0, prompt.shape[1] - 1 : -1]

    def encode(self, messages):
        """Token ids of a chat prompt, ``[1, tokens]``."""
        return self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_tensors="pt", return_dict=False
        ).to(self.device)

    def configure_optimizers(self):
        """AdamW over all weights."""
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)


def main(max_steps: int = 50) -> PlainModule:
    """Train on questions of the lab."""
    questions = ArithmeticTask(train_size=200).questions("train")
    loader = DataLoader(questions, batch_size=1, shuffle=True, collate_fn=list)
    module = PlainModule()
    trainer = Trainer(
        max_steps=max_steps,
        callbacks=[ReferenceSolution()],
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, loader)
    return module


if __name__ == "__main__":
    main()
