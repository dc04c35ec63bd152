"""The devices for which a plan is made, with the numbers of their makers."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """One kind of device."""

    name: str
    memory: float
    """Bytes."""
    half: float
    """Peak of dense bfloat16 products with float32 sums, in FLOP per second."""
    single: float
    """Peak in float32, in FLOP per second."""
    bandwidth: float
    """Of its memory, in bytes per second."""
    link: float
    """Between devices of one node, per direction, in bytes per second."""
    node_link: float
    """Between nodes, per device and direction, in bytes per second: an assumption."""
    source: str


CARDS = {
    card.name: card
    for card in (
        Card(
            *("h100", 80 * GIB, 989e12, 67e12, 3.35e12, 450e9, 50e9),
            "NVIDIA H100 Tensor Core GPU datasheet, SXM5; NVLink; 400 Gb/s per GPU between nodes",
        ),
        Card(
            *("rtx4090", 24 * GIB, 165e12, 82.6e12, 1.008e12, 32e9, 1.5e9),
            "NVIDIA Ada GPU architecture whitepaper, appendix A; PCIe 4.0 x16; 100 Gb/s per node",
        ),
        Card(
            *("l4", 24 * GIB, 121e12, 30.3e12, 0.3e12, 32e9, 1.5e9),
            "NVIDIA L4 datasheet, half of its sparse peak; PCIe 4.0 x16; 100 Gb/s per node",
        ),
    )
}
DEVICES_PER_NODE = 8
USABLE = 0.92
"""Share of a device's memory that tensors can take; the rest is the driver's and fragmentation."""
TRAIN_EFFICIENCY = 0.4
"""Share of the peak that forward and backward passes are assumed to reach."""
DECODE_EFFICIENCY = 0.6
"""Share of the memory's bandwidth that decoding is assumed to reach."""


def get_card(name: str) -> Card:
    """Return a card by its name.

    Raises:
        ValueError: It is not in the table.
    """
    if name not in CARDS:
        raise ValueError(f"hardware={name!r}: choose among {', '.join(CARDS)}.")
    return CARDS[name]
