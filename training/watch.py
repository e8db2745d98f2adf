"""What is seen of a training while it runs: a bar of networks, and scalars for TensorBoard."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lithostream.engine.errors import ConfigError
from lithostream.training.state import Epoch

SCALARS = "tensorboard"


class Watch:
    """Bar on the console and, with a folder, one TensorBoard run per network; never part of the result.

    Parameters
    ----------
    console : Console
    networks : int
        Length of the bar.
    scalars : Path, optional
        Folder for TensorBoard. An epoch that is trained again after a kill is written twice, with equal values.

    Raises
    ------
    ConfigError
        TensorBoard is not installed.
    """

    def __init__(self, console: Console, networks: int, scalars: Path | None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("networks", total=networks)
        self._scalars, self._open = scalars, _writer_class() if scalars else None
        self._writers: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._progress.stop()

    def network_done(self) -> None:
        """Move the bar on."""
        self._close()
        self._progress.update(self._task, advance=1, description="networks")

    def epoch(self, network: str, epoch: Epoch) -> None:
        """Show an epoch, and write its scalars at once: a kill loses none."""
        text = f"networks ({network}, {epoch.phase} epoch {epoch.number}/{epoch.of})"
        self._progress.update(self._task, description=text)
        if self._scalars is None or self._open is None:
            return
        if network not in self._writers:
            self._writers[network] = self._open(self._scalars / network)
        values = {"training_loss": epoch.training_loss, "learning_rate": epoch.learning_rate}
        if epoch.validation_loss is not None:
            values["validation_loss"] = epoch.validation_loss
        for name, value in values.items():
            self._writers[network].add_scalar(f"{epoch.phase}/{name}", value, epoch.number)
        self._writers[network].flush()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"TensorBoard cannot be used: {error}",
            place="fit.tensorboard",
            fix="pip install 'lithostream[train]', or set tensorboard = false",
        ) from error
    return SummaryWriter
