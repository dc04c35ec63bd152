"""Log to Trackio, which stores runs in a local folder."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.logger import _convert_params, _flatten_dict
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_sd.models.extras import require_extra


class TrackioLogger(Logger):
    """Log metrics, settings and tables with Trackio.

    Runs are stored in ``TRACKIO_DIR`` (default: the Hugging Face cache), and
    ``trackio show --project PROJECT`` shows them. Nothing is sent over the network unless
    ``space_id`` is set.

    Args:
        project: Name of the project.
        name: Name of the run. Default: Trackio chooses one.
        space_id: Hugging Face Space to send the run to. Default: none.
        save_dir: Folder for Lightning's own files, such as ``config.yaml``.

    Raises:
        ImportError: Trackio is not installed.
    """

    def __init__(
        self,
        project: str = "lightning_sd",
        name: str | None = None,
        space_id: str | None = None,
        save_dir: str = "out/trackio",
    ) -> None:
        super().__init__()
        require_extra("trackio", "trackio")
        self._project, self._name, self._space_id = project, name, space_id
        self._save_dir = save_dir
        self._run: Any = None

    @property
    def name(self) -> str:
        """Name of the project."""
        return self._project

    @property
    def version(self) -> str | None:
        """Name of the run."""
        return self._name

    @property
    def save_dir(self) -> str:
        """Folder for Lightning's own files."""
        return self._save_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The Trackio run, started on first use."""
        if self._run is None:
            import trackio

            self._run = trackio.init(
                project=self._project,
                name=self._name,
                space_id=self._space_id,
                resume="allow",
                embed=False,
            )
            self._name = self._run.name
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of one step."""
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Store the settings with the run."""
        self.experiment.config.update(_flatten_dict(_convert_params(params)))

    @rank_zero_only
    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int
    ) -> None:
        """Log a table.

        Args:
            name: Name of the table.
            columns: Names of the columns.
            rows: Cells, row by row.
            step: Optimizer step.
        """
        import trackio

        table = trackio.Table(columns=list(columns), data=[list(row) for row in rows])
        self.experiment.log({name: table}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write everything and end the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None
