"""What a merge to disk will read, write and need, from headers alone; its time by merging a little for real."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from math import prod
from pathlib import Path

from patientdx.checkpoints.layout import lay_out
from patientdx.checkpoints.manifest import sources_of, summary
from patientdx.checkpoints.save import check_space, merged, nearest
from patientdx.checkpoints.staging import StagingFolder
from patientdx.checkpoints.write_plan import WritePlan
from patientdx.checkpoints.writer import FORMAT, ShardFiles
from patientdx.merge.method import method_spec
from patientdx.merge.scratch import BLOCK

TRIED = 1 << 25  # bytes of a tensor that is merged to learn how long the rest takes


@dataclass(frozen=True)
class Estimate:
    """What a merge will take. Bytes, seconds; `str` of it is a table in words.

    reads: bytes of the sources' tensors, each once (angles and the like need a second look, from the page cache).
    memory: of the process itself; mapped files are not in it. seconds: None where they cannot be foretold, `why` says
    from what they follow, or why they do not. finished: the folder holds this very merge already.
    """

    plan: WritePlan
    parameters: int
    reads: int
    writes: int
    free: int
    memory: int
    seconds: float | None
    why: str
    finished: bool

    def __str__(self) -> str:
        recipe, shards = self.plan.recipe, self.plan.shards
        config = recipe.parents[0].config
        dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in self.plan.tensors.values()})
        head = "shares the embedding" if recipe.parents[0].tied else "of its own"
        files = len({header.file for source in sources_of(recipe) for header in source.tensors.values()})
        rows = {
            "merge": summary(self.plan.stated),
            "model": f"{', '.join(config.get('architectures') or ['unknown architecture'])}, {len(recipe.names)} "
            f"tensors, {self.parameters / 1e9:.2f} billion parameters, {', '.join(dtypes)}",
            "vocabulary": f"{config.get('vocab_size', 'unknown')}, output head {head}",
            "reads": f"{_gb(self.reads)} in {_files(files)}",
            "writes": f"{_gb(self.writes)} in {_files(len(shards))} to {self.plan.target}, {_gb(self.free)} free",
            "memory": f"{_gb(self.memory)} of its own; the parents are mapped, not loaded",
            "time": "none, it is there already"
            if self.finished
            else f"{'unknown' if self.seconds is None else _time(self.seconds)}: {self.why}",
        }
        return "\n".join(f"{name:<11}{text}" for name, text in rows.items())


def estimate(plan: WritePlan) -> Estimate:
    """What a merge takes that was laid out by `outline.outline`. Nothing stays written.

    Raises UserError for all that `save.save` would refuse before it begins.
    """
    recipe = plan.recipe
    finished = plan.is_finished()
    free = check_space(plan, StagingFolder(plan.target, plan.key))
    sources = {id(source): source for source in sources_of(recipe)}.values()
    seconds, why = (None, "") if finished else _foretold(plan)
    return Estimate(
        plan,
        parameters=sum(prod(tensor.shape) for tensor in plan.tensors.values()),
        reads=sum(source.tensors[name].nbytes for source in sources for name in recipe.names),
        writes=plan.nbytes,
        free=free,
        memory=_own_memory() + plan.threads * BLOCK * (2 * 8 + 4),
        seconds=seconds,
        why=why,
        finished=finished,
    )


def _foretold(plan: WritePlan) -> tuple[float | None, str]:
    """Seconds for all, from the time that one tensor for each thread takes, and how that was found."""
    recipe = plan.recipe
    method = recipe.method.__name__
    if method_spec(recipe.method).global_counts is not None:
        return None, f"merge={method} may look at whole models before it joins a tensor"
    tried = _some(plan)
    if not tried:
        return None, f"no tensor (of those that merge={method} joins together) has less than {_gb(TRIED)}"
    nbytes = sum(plan.tensors[name].nbytes for name in tried)
    before = time.perf_counter()
    _try(plan, tried)
    took = time.perf_counter() - before
    seconds = took / nbytes * plan.nbytes
    return seconds, f"{_gb(nbytes)} took {took:.2f} s with {plan.threads} threads, checksums and disk included"


def _some(plan: WritePlan) -> list[str]:
    """Names of the largest groups that are small enough to try, one for each thread."""
    sizes = {group: sum(plan.tensors[name].nbytes for name in group) for group in plan.recipe.groups}
    small = sorted((group for group in sizes if sizes[group] <= TRIED), key=lambda group: -sizes[group])
    return [name for group in small[: plan.threads] for name in group]


def _try(plan: WritePlan, names: Sequence[str]) -> None:
    """Merge the named tensors into a folder beside the target, as `save` would, and delete them."""
    tensors = {name: plan.tensors[name] for name in names}
    with tempfile.TemporaryDirectory(dir=nearest(plan.target)) as away:
        shards = lay_out(list(tensors.values()), 1, FORMAT)
        with closing(ShardFiles(Path(away), shards)) as files:
            for _ in merged(plan, tensors, files):
                pass
            with ThreadPoolExecutor(plan.threads) as pool:
                list(pool.map(files.shard_hash, files.shards))
            files.sync()


def _own_memory() -> int:
    """Bytes of anonymous memory that this process has now; 0 where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return 0


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _time(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"
