"""What the versions of ``requirements/oldest.txt`` lack: the tests that are skipped there."""

from __future__ import annotations

from fnmatch import fnmatchcase

FAMILY = "transformers 5.0 lacks this family, or cannot build or train it"
CACHE = "transformers 5.0 decodes this family without a cache"
SOUND = "transformers 5.0 has no Qwen2-Audio without its output head"
SKIPPED = {
    ("transformers", "5.1"): {
        "*test_dropout.py::*<jetmoe>": FAMILY,
        "*test_experts.py::*<jetmoe-*": FAMILY,
        "*test_experts.py::*<granitemoe-*": FAMILY,
        "*test_experts.py::*<qwen3_next-*": FAMILY,
        "*test_experts.py::*<jamba>": CACHE,
        "*test_families.py::*<qwen3_5_text>": FAMILY,
        "*test_families.py::*<bamba>": CACHE,
        "*test_families.py::*<gemma4*": FAMILY,
        "*test_families.py::*<minicpm3-*": FAMILY,
        "*test_growing_cache.py::test_a_layer_holds*": "get_mask_sizes takes a tensor",
        "*test_growing_cache.py::test_rows_that_fill*": "get_mask_sizes takes a tensor",
        "*test_growing_cache.py::*<GPT2-*": "the random GPT-2 ends no completion",
        "*test_limits.py::*<gemma4>": FAMILY,
        "*test_limits.py::*<minicpm3>": FAMILY,
        "*test_limits.py::*<gpt_neox>": FAMILY,
        "*test_lora.py::*routers_are_named<jetmoe>": FAMILY,
        "*test_probing.py::*<gemma4_assistant-*": FAMILY,
        "*test_probing.py::*<musicgen*": FAMILY,
        "*test_echo.py::*": SOUND,
        "*test_media.py::test_scores_and_gradients*": SOUND,
        "*test_media.py::test_a_sampled_placeholder*": SOUND,
    },
    ("bitsandbytes", "0.50"): {
        "*test_memory.py::test_an_8_bit_optimizer": "bitsandbytes 0.49 has it on GPUs only",
    },
    ("jsonargparse", "4.46"): {
        "*test_contexts.py::*<hint-abstract>": "an abstract class is refused when it is built",
    },
}
"""Reasons by (package, first version where they may not hold) and pattern of the test's id, in
which ``<`` and ``>`` stand for brackets."""


def find_reason(test: str, versions: dict[str, str]) -> str | None:
    """Return why a test is skipped with the installed versions; None if it is not.

    Args:
        test: Id of the test.
        versions: Installed version by package; absent if it is not installed.
    """
    from packaging.version import Version

    test = test.replace("[", "<").replace("]", ">")
    for (package, bound), reasons in SKIPPED.items():
        if package in versions and Version(versions[package]) < Version(bound):
            for pattern, reason in reasons.items():
                if fnmatchcase(test, pattern):
                    return f"{package} {versions[package]}: {reason}"
    return None
