"""A loss of lightning_sd in a trainer of TRL (1.16), which then holds no logits of whole sequences.

``pip install trl && python examples/trl_trainer.py``
"""

from __future__ import annotations

import torch
from datasets import Dataset
from trl.experimental.gkd import GKDConfig, GKDTrainer

from lightning_sd import ArithmeticTask, PretrainedModel
from lightning_sd.functional import DivergenceSpec, fused_linear_divergence


class FusedGKDTrainer(GKDTrainer):
    """Generalized knowledge distillation; any divergence with all its settings.

    For models whose logits are a linear map of the last hidden state, without a soft cap.
    """

    spec = DivergenceSpec("js", beta=0.5)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Compare the models at the tokens with a label, chunk by chunk."""
        self.teacher_model.eval()
        with torch.no_grad():
            teacher = self.compute_hidden(self.teacher_model, inputs)
        labels = inputs["labels"][:, 1:]  # position i predicts token i + 1
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        total = fused_linear_divergence(
            self.compute_hidden(model, inputs)[:, :-1],
            head.weight,
            teacher[:, :-1],
            self.accelerator.unwrap_model(self.teacher_model).get_output_embeddings().weight,
            self.spec,
            labels=labels,
            bias=head.bias,
            reduction="sum",
        )
        number = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / max(int(number), 1)
        return (loss, {}) if return_outputs else loss

    def compute_hidden(self, model, inputs):
        """Last hidden states, ``[rows, tokens, hidden]``; logits of one position alone."""
        names = ("input_ids", "attention_mask")
        out = model(**{n: inputs[n] for n in names}, output_hidden_states=True, logits_to_keep=1)
        return out.hidden_states[-1]


def main(output_dir: str = "out/trl", max_steps: int = 10) -> FusedGKDTrainer:
    """Distill the lab's solver into a copy with noise in its weights."""
    source = PretrainedModel("package:lightning_sd/lab/solver")
    (student, tokenizer), (teacher, _) = source.load(), source.load()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    rows = [
        {"messages": [*question.messages, {"role": "assistant", "content": question.reference}]}
        for question in ArithmeticTask(train_size=64).questions("train")
    ]
    trainer = FusedGKDTrainer(
        model=student,
        teacher_model=teacher,
        args=GKDConfig(
            output_dir=output_dir,
            max_steps=max_steps,
            per_device_train_batch_size=4,
            max_new_tokens=64,
            learning_rate=1e-3,
            report_to="none",
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    main()
