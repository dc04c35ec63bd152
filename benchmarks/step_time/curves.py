"""Points of the growth curves: ours at each point, TRL's at the ends of each curve.

python -m benchmarks.step_time.run --only curve
"""

from __future__ import annotations

Changes = dict[str, int]
SMALL: Changes = {"prompts": 4, "samples": 4, "completion": 64}
CURVES: dict[str, list[Changes]] = {
    # Equal completion tokens per question at each point, and a longer prompt.
    "samples": [
        {"prompts": 4, "prompt": 512, "teacher_prompt": 640, "samples": g, "completion": 128 // g}
        for g in (1, 2, 4, 8)
    ],
    "completion": [{**SMALL, "completion": r} for r in (32, 64, 128, 256)],
    "teacher_prompt": [
        {**SMALL, "prompts": 2, "teacher_prompt": t} for t in (512, 2048, 4096, 8000)
    ],
    "vocab": [{**SMALL, "vocab": v} for v in (32_000, 64_000, 152_000, 262_144)],
    "layers": [{**SMALL, "layers": n} for n in (2, 4, 8, 16)],
    "prompt": [{**SMALL, "prompt": p, "teacher_prompt": p + 128} for p in (128, 512, 2048)],
}
"""Changes along a curve; otherwise ``random32k``, loss JS, context ``column``."""
