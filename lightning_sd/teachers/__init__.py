"""Whose weights the self-teacher has: initial policy, live, average, snapshot, trust region."""

from lightning_sd.teachers.base import LiveTeacher, TeacherWeights
from lightning_sd.teachers.ema import EMATeacher
from lightning_sd.teachers.frozen import FrozenTeacher
from lightning_sd.teachers.scores import both_scores, teacher_scores
from lightning_sd.teachers.shadow import Shadow, fingerprint, make_shadow, swapped
from lightning_sd.teachers.snapshot import SnapshotTeacher
from lightning_sd.teachers.trust_region import TrustRegionTeacher

__all__ = [
    "EMATeacher",
    "FrozenTeacher",
    "LiveTeacher",
    "Shadow",
    "SnapshotTeacher",
    "TeacherWeights",
    "TrustRegionTeacher",
    "both_scores",
    "fingerprint",
    "make_shadow",
    "swapped",
    "teacher_scores",
]
