"""One stage of a recipe as a process of its own: its file, its command, start and stop."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import conf_dir
from slam_potsa.engine.recipe import Launch
from slam_potsa.files import atomic_write

STAGE = "stage.yaml"
MODULE = "slam_potsa.engine.launch"
STOP_SECONDS = 30  # what an interrupted launcher gets to stop its processes


@dataclass(frozen=True)
class Job:
    """What is started: `config` is resolved, with its ckpt_path."""

    name: str
    config: PotsaConfig
    command: list[str]

    @property
    def folder(self) -> Path:
        return Path(self.config.train_config.output_dir)

    def shown(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(self.command)


def make_job(name: str, config: PotsaConfig, launch: Launch) -> Job:
    return Job(name, config, launch_command(config.train_config.output_dir, launch))


def launch_command(folder: str | Path, launch: Launch) -> list[str]:
    """What trains the stage of `folder`; further `key=value` may follow."""
    entry = ["--config-path", str(Path(folder).resolve()), "--config-name", Path(STAGE).stem]
    if launch.launcher == "deepspeed":
        start = ["deepspeed.launcher.runner", "--num_gpus", str(launch.processes), "--module"]
    else:
        start = ["torch.distributed.run", "--standalone"]
        start += ["--nproc_per_node", str(launch.processes), "-m"]
    return [sys.executable, "-m", *start, MODULE, *entry]


def write_job(job: Job) -> Path:
    """`stage.yaml`: everything that the stage's process needs to know, and how to start it."""
    from omegaconf import OmegaConf

    # The hydra section is that of config.yaml: without it Hydra makes folders of its own.
    hydra = OmegaConf.load(conf_dir() / "config.yaml").hydra
    head = {"defaults": ["potsa_schema", "_self_"], "hydra": hydra}
    path = job.folder / STAGE
    where = shlex.quote(str(Path.cwd()))
    comment = f"# Stage {job.name}, resolved. Alone:\n#   cd {where} && {job.shown()}\n"
    text = OmegaConf.to_yaml(OmegaConf.create(head | asdict(job.config)))
    atomic_write(path, comment + text)
    return path


def start(job: Job) -> int:
    """Run the job's command to its end; returns its exit code."""
    process = subprocess.Popen(job.command)
    try:
        return process.wait()
    except BaseException as stopped:
        # Ctrl-C reached the launcher too. Killed at once it would leave its processes training.
        if not isinstance(stopped, KeyboardInterrupt):
            process.terminate()
        _wait_or_end(process)
        raise


def _wait_or_end(process: subprocess.Popen) -> None:
    for stop in (process.terminate, process.kill):
        try:
            process.wait(STOP_SECONDS)
            return
        except subprocess.TimeoutExpired:
            stop()
    process.wait()
