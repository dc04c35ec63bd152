import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_sd.data.loader import PlannedLoader
from lightning_sd.data.plan import EvalPlan, TrainPlan
from tests.critique.cache.fakes import number_question

QUESTIONS = [number_question(i) for i in range(23)]


def loader(plan=None, **options):
    return PlannedLoader(QUESTIONS, plan or TrainPlan(23, 4, seed=5), **options)


def ids(batch):
    return [question.id for question in batch]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_an_epoch_without_repeats(world_size):
    plans = [TrainPlan(23, 2, 5, rank, world_size) for rank in range(world_size)]
    epochs = [plan.make_batches(3) for plan in plans]
    assert {len(batches) for batches in epochs} == {len(plans[0])} == {23 // (2 * world_size)}
    seen = [i for batches in epochs for batch in batches for i in batch]
    assert len(set(seen)) == len(seen) == len(plans[0]) * 2 * world_size


def test_a_global_batch_holds_the_same_questions_on_any_number_of_ranks():
    one = TrainPlan(23, 6, seed=5).make_batches(2)
    three = [TrainPlan(23, 2, 5, rank, 3).make_batches(2) for rank in range(3)]
    assert one == [[i for rank in three for i in rank[b]] for b in range(3)]


def test_epochs_and_seeds_are_shuffled_differently():
    orders = {
        str(TrainPlan(23, 4, seed).make_batches(epoch)) for seed in range(3) for epoch in range(3)
    }
    assert len(orders) == 9
    assert TrainPlan(23, 4, shuffle=False).make_batches(0) == TrainPlan(
        23, 4, shuffle=False
    ).make_batches(1)


@pytest.mark.parametrize("world_size", [1, 2])
def test_buckets_hold_questions_of_like_length(world_size):
    lengths = tuple((7 * i) % 101 for i in range(200))

    def spread(plans):
        batches = zip(*(plan.make_batches(1) for plan in plans), strict=True)
        steps = [[lengths[i] for batch in step for i in batch] for step in batches]
        return sum(max(step) - min(step) for step in steps)

    def plans(**options):
        return [TrainPlan(200, 4, 5, rank, world_size, **options) for rank in range(world_size)]

    assert spread(plans(lengths=lengths)) < 0.3 * spread(plans())
    seen = [i for plan in plans(lengths=lengths) for batch in plan.make_batches(1) for i in batch]
    assert sorted(seen) == list(range(200))
    first = plans(lengths=lengths)[0]
    assert first.make_batches(0) != first.make_batches(1)
    # The batches themselves are mixed anew, not only their order.
    assert not {frozenset(b) for b in first.make_batches(0)} & {
        frozenset(b) for b in first.make_batches(1)
    }
    still = plans(lengths=lengths, shuffle=False)[0]
    assert still.make_batches(0) == still.make_batches(1)


def test_too_few_questions_for_a_batch():
    with pytest.raises(ValueError, match=r"batch_size=4: 2 process.*only 7"):
        TrainPlan(7, 4, world_size=2)


@pytest.mark.parametrize("size", [1, 5, 8, 23])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_each_question_once(size, batch_size, world_size):
    plans = [EvalPlan(size, batch_size, rank, world_size) for rank in range(world_size)]
    ranks = [plan.make_batches(0) for plan in plans]
    assert [len(plan) for plan in plans] == [len(batches) for batches in ranks]
    assert sorted(i for batches in ranks for batch in batches for i in batch) == list(range(size))
    assert all(0 < len(batch) <= batch_size for batches in ranks for batch in batches)
    if batch_size > 1 and size >= world_size:
        assert len({len(batches) for batches in ranks}) == 1


def test_each_pass_is_an_epoch():
    one = loader()
    assert len(one) == 5
    epochs = [[ids(batch) for batch in one] for _ in range(3)]
    plan = TrainPlan(23, 4, seed=5)
    assert epochs == [[[str(i) for i in b] for b in plan.make_batches(e)] for e in range(3)]


def test_unused_iterators_change_nothing():
    one, other = loader(), loader()
    iter(one)
    iter(one)
    assert [ids(b) for b in one] == [ids(b) for b in other]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("lengths", [None, tuple(range(23))])
def test_a_repeated_batch_comes_so_many_times_on_end(world_size, lengths):
    for rank in range(world_size):
        once = TrainPlan(23, 2, 5, rank, world_size, lengths=lengths)
        often = TrainPlan(23, 2, 5, rank, world_size, lengths=lengths, repeat=4)
        assert len(often) == 4 * len(once)
        assert often.make_batches(3) == [batch for batch in once.make_batches(3) for _ in range(4)]


@pytest.mark.parametrize("repeat", [1, 4])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("at", [1, 3, 5, 6, 9, 23])
def test_goes_on_where_it_was(workers, at, repeat):
    plan = TrainPlan(23, 4, seed=5, repeat=repeat)

    def take(source, number):
        batches = []
        while len(batches) < number:
            for batch in source:
                batches.append(ids(batch))
                if len(batches) == number:
                    break
        return batches

    unbroken = take(loader(plan), 28)
    first = loader(plan, num_workers=workers)
    assert take(first, at) == unbroken[:at]
    second = loader(plan, num_workers=workers)
    second.load_state_dict(first.state_dict())
    assert take(second, 28 - at) == unbroken[at:]


@pytest.mark.parametrize("repeat", [1, 3])
def test_the_next_batch_can_be_seen_before_it_is_taken(repeat):
    source = loader(TrainPlan(23, 4, seed=5, repeat=repeat), epoch_batches=4)
    peeked, taken = [], []
    for batch in source:
        taken.append(ids(batch))
        following = source.peek()
        if following is None:
            break
        peeked.append(ids(following))
    assert len(taken) == 4
    assert peeked == taken[1:]


def test_goes_on_with_another_number_of_ranks():
    alone = [ids(batch) for batch in loader()]
    first = loader()
    next(iter(first))
    ranks = [loader(TrainPlan(23, 2, 5, rank, world_size=2)) for rank in (0, 1)]
    for rank in ranks:
        rank.load_state_dict(first.state_dict())
    rest = [ids(left) + ids(right) for left, right in zip(*ranks, strict=True)]
    assert rest == alone[1:]


@pytest.mark.parametrize(
    "plan",
    [
        TrainPlan(22, 4, 5),
        TrainPlan(23, 3, 5),
        TrainPlan(23, 4, 6),
        TrainPlan(23, 4, 5, 0, 2),
        TrainPlan(23, 4, 5, repeat=2),
    ],
)
def test_refuses_a_state_of_other_data(plan):
    with pytest.raises(ValueError, match="Resume with the same"):
        loader().load_state_dict(loader(plan).state_dict())


class Recorder(pl.LightningModule):
    """Writes down what it sees; the weights follow the data, so a checkpoint is a real one."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []
        self.at = {}

    def on_train_batch_end(self, *args):
        self.at.setdefault(self.global_step, len(self.seen))

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, ids(batch)))
        return self.weight * sum(int(i) for i in ids(batch))

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001)

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch


def fit(folder, steps, ckpt_path=None, workers=0, every=1, **options):
    module = Recorder()
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            ModelCheckpoint(
                folder,
                "{step}",
                save_top_k=-1,
                every_n_train_steps=every,
                enable_version_counter=False,
            )
        ],
        **options,
    )
    limit = options.get("limit_train_batches")
    trainer.fit(
        module,
        loader(num_workers=workers, epoch_batches=limit),
        PlannedLoader(QUESTIONS, EvalPlan(5, 2)),
        ckpt_path=ckpt_path,
    )
    return module


@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:Checkpoint directory")
@pytest.mark.parametrize(
    ("options", "stops"),
    [
        ({}, range(1, 12)),
        ({"limit_train_batches": 3}, range(1, 8)),
        ({"workers": 2}, [3, 5]),
        ({"val_check_interval": 2}, [1, 2, 3, 4, 5, 7]),
        ({"accumulate_grad_batches": 2}, [1, 2, 3, 4]),
    ],
    ids=["plain", "limited", "workers", "validating", "accumulating"],
)
def test_a_resumed_fit_sees_the_batches_of_an_unbroken_one(tmp_path, options, stops):
    steps = max(stops) + 2
    unbroken = fit(tmp_path, steps, **options)
    for stop in stops:
        resumed = fit(tmp_path / "b", steps, tmp_path / f"step={stop}.ckpt", **options)
        first = unbroken.at[stop]
        assert resumed.seen == unbroken.seen[first:]
        assert resumed.weight == unbroken.weight
