"""Teachers: which parameters the self-teacher has."""

from lightning_sd.teachers.base import LiveTeacher, TeacherWeights
from lightning_sd.teachers.ema import EMATeacher
from lightning_sd.teachers.frozen import FrozenTeacher
from lightning_sd.teachers.scores import help_score_both, score_both, score_teacher
from lightning_sd.teachers.shadow import Shadow, fingerprint, make_shadow, swap_parameters
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
    "fingerprint",
    "help_score_both",
    "make_shadow",
    "score_both",
    "score_teacher",
    "swap_parameters",
]
