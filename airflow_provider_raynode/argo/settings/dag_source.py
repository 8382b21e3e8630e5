"""Where a pod has the DAG's files from: its image, a git repository, a ConfigMap."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PrivateAttr

from airflow_provider_raynode.argo.import_path import below_root
from airflow_provider_raynode.argo.run_source import literal_text
from airflow_provider_raynode.argo.settings._merge import Layer
from airflow_provider_raynode.argo.settings._storage import DAG_VOLUME, GIT_SECRET_VOLUME
from airflow_provider_raynode.argo.settings._words import AbsolutePath, DataKey, ObjectName
from airflow_provider_raynode.config._section import Problem, Section
from airflow_provider_raynode.config._values import NonNegativeInteger, Switch, Text, shown
from airflow_provider_raynode.exceptions import ConfigError

DAGS_FOLDER = "/opt/raynode/dags"
_GIT_SECRET = "/etc/raynode-git"
_GIT_INIT = "raynode-git-clone"
# A ConfigMap is an object of at most 1 MiB.
_LARGEST_CONFIG_MAP = 1 << 20

# $1 repository, $2 revision, $3 depth (0: all). Arguments, so that no text of the settings becomes code. A server may
# refuse a depth, or a commit that is no branch's or tag's tip: then all is fetched.
_CLONE = """\
HOME=$(mktemp -d); export HOME GIT_TERMINAL_PROMPT=0
if [ -f $SECRET/ssh-privatekey ]; then
  cp $SECRET/ssh-privatekey "$HOME/key"; chmod 400 "$HOME/key"
  hosts=accept-new
  if [ -f $SECRET/known_hosts ]; then hosts="yes -o UserKnownHostsFile=$SECRET/known_hosts"; fi
  export GIT_SSH_COMMAND="ssh -i $HOME/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=$hosts"
fi
if [ -f $SECRET/password ]; then
  cat > "$HOME/login" <<'END'
echo "username=$(cat $SECRET/username 2>/dev/null || echo git)"
echo "password=$(cat $SECRET/password)"
END
  git config --global credential.helper "!sh $HOME/login"
fi
git config --global --add safe.directory '*'
git init --quiet .
git remote add origin "$1" 2>/dev/null || git remote set-url origin "$1"
depth=''
if [ "$3" -gt 0 ]; then depth="--depth=$3"; fi
if git fetch --quiet $depth origin "$2"; then
  git checkout --quiet --detach FETCH_HEAD
else
  git fetch --quiet --tags origin '+refs/heads/*:refs/remotes/origin/*'
  git remote set-head origin --auto >/dev/null 2>&1 || true
  git checkout --quiet --detach "origin/$2" 2>/dev/null || git checkout --quiet --detach "$2"
fi
""".replace("$SECRET", _GIT_SECRET)


def _below(value: str) -> str:
    path = posixpath.normpath(value)
    if path.startswith(("/", "..")):
        raise ValueError(f"{shown(value)} is not a path below the folder: no / in front, no ..")
    return path


RelativePath = Annotated[Text, AfterValidator(_below)]


def _not_an_option(value: str) -> str:
    if value.startswith("-"):
        raise ValueError(f"{shown(value)} starts with -: git would take it for an option")
    return value


GitWord = Annotated[Text, AfterValidator(_not_an_option)]


class ImageSource(Section):
    """The DAG file is in the image."""

    path: AbsolutePath = Field(
        default=DAGS_FOLDER, description="path in the image: of the DAGs folder, of the DAG file's own, or of the file"
    )


class GitSource(Section):
    """An init container clones a repository into a volume of the pod."""

    repository: GitWord = Field(
        description="URL of the repository; no password in it: that is the business of `secret`"
    )
    revision: GitWord = Field(
        default="HEAD", description="branch, tag or commit; only a commit is the same for every pod"
    )
    path: RelativePath = Field(
        description="path in the repository: of the DAGs folder, of the DAG file's own, or of the file"
    )
    depth: NonNegativeInteger = Field(default=1, description="commits of history that are fetched; 0: all")
    secret: ObjectName | None = Field(
        default=None,
        description="a Secret with `username` and `password`, or with `ssh-privatekey` and, better, `known_hosts`",
    )
    image: Text = Field(default="alpine/git:latest", description="image of the init container: it needs sh and git")

    def problems(self) -> Iterator[Problem]:
        """Yield a password in the URL; it stays out of the message."""
        scheme, found, rest = self.repository.partition("://")
        if found and ":" in rest.partition("/")[0].rpartition("@")[0] and scheme != "ssh":
            yield ("repository",), "holds a password: put it into a Secret and name that in secret"


class ConfigMapSource(Section):
    """The DAG file, and the files that it reads, are keys of a ConfigMap that is mounted."""

    name: ObjectName = Field(description="name of the ConfigMap")
    key: DataKey | None = Field(default=None, description="key of the DAG file; left out: the name of the file")
    files: list[RelativePath] = Field(
        default_factory=list,
        description="further files, relative to the DAG file's folder or to the DAGs folder, such as "
        "`configs/ray_tune.yaml`; the key of one is its path with `__` for each `/`",
    )
    mount_path: AbsolutePath = Field(default=DAGS_FOLDER, description="folder in the pods where the files appear")
    create: Switch = Field(default=True, description="whether the export writes the ConfigMap, from the files here")


def _key_of(path: str) -> str:
    return path.replace("/", "__")


class DagSource(Section):
    """Where a pod has the DAG's files from: exactly one of the keys."""

    image: ImageSource | None = Field(default=None, description="the DAG file is in the image")
    git: GitSource | None = Field(default=None, description="it is cloned from a git repository")
    config_map: ConfigMapSource | None = Field(default=None, description="it is in a ConfigMap")

    _below: PurePosixPath = PrivateAttr(default=PurePosixPath())
    _root: Path | None = PrivateAttr(default=None)
    _key: str | None = PrivateAttr(default=None)

    def placed(self, dag_file: Path, root: Path | None) -> DagSource:
        """Return the source for a DAG file that lies in a DAGs folder, which it keeps its place in."""
        source = self.model_copy()
        source._below, source._root = below_root(dag_file, root), root
        source._key = None if self.config_map is None else self.config_map.key or dag_file.name
        return source

    def problems(self) -> Iterator[Problem]:
        """Yield that not exactly one source is given."""
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            yield (), f"needs exactly one of image, git and config_map; given: {', '.join(given) or 'none'}"

    def pipeline_file(self, dag_file: Path) -> str:
        """Return the path of a DAG file in the pods."""
        if self.config_map is not None:
            source = self.config_map
            return posixpath.normpath(posixpath.join(source.mount_path, self._below, source.key or dag_file.name))
        path = self._path
        if path.endswith(".py"):
            return path
        return posixpath.normpath(posixpath.join(path, "" if self._is_own_folder(path) else self._below, dag_file.name))

    def dags_folder(self, dag_file: Path) -> str:
        """Return the DAGs folder in the pods."""
        folder = posixpath.dirname(self.pipeline_file(dag_file))
        return folder.removesuffix(f"/{self._below}")

    @property
    def _path(self) -> str:
        if self.git is not None:
            return posixpath.normpath(posixpath.join(DAGS_FOLDER, self.git.path))
        return posixpath.normpath(self.image.path) if self.image is not None else DAGS_FOLDER

    def _is_own_folder(self, path: str) -> bool:
        """Whether a folder is the DAG file's own, and not the DAGs folder above it."""
        return self._below != PurePosixPath() and posixpath.basename(path) == self._below.name

    def layer(self) -> Layer:
        """Return what a pod needs for it, as a layer of the settings."""
        if self.git is not None:
            return _git_layer(self.git)
        if self.config_map is None:
            return {}
        return {
            "volumes": {DAG_VOLUME: self._config_map_volume(self.config_map)},
            "volume_mounts": {self.config_map.mount_path: {"name": DAG_VOLUME, "readOnly": True}},
        }

    def config_map_data(self, dag_file: Path) -> dict[str, str]:
        """Return the data of the ConfigMap that the export writes: empty where it writes none.

        :raises ConfigError: a file is missing or no text, or all are too large for a ConfigMap.
        """
        source = self.config_map
        if source is None or not source.create:
            return {}
        data = {source.key or dag_file.name: _text_of(dag_file)}
        data |= {_key_of(path): _text_of(self._file(path, dag_file)) for path in source.files}
        size = sum(len(text.encode()) for text in data.values())
        if size > _LARGEST_CONFIG_MAP:
            raise ConfigError(
                f"dag_source.config_map: the files have {size:,} bytes, a ConfigMap holds {_LARGEST_CONFIG_MAP:,}: "
                "use dag_source.git or put them into the image"
            )
        return data

    def _file(self, path: str, dag_file: Path) -> Path:
        root = dag_file.parent if self._root is None else self._root
        return (root if self._is_of_root(path, dag_file.parent) else dag_file.parent) / path

    def _is_of_root(self, path: str, folder: Path) -> bool:
        return self._root is not None and not (folder / path).exists() and (self._root / path).exists()

    def _config_map_volume(self, source: ConfigMapSource) -> dict[str, Any]:
        folder = Path() if self._root is None else self._root / self._below
        paths = {
            _key_of(each): each if self._is_of_root(each, folder) else str(self._below / each) for each in source.files
        }
        if self._below != PurePosixPath() and self._key is not None:
            paths[self._key] = str(self._below / self._key)
        nested = [{"key": key, "path": path} for key, path in paths.items() if key != path]
        if not nested:
            return {"configMap": {"name": source.name}}
        # Once as it is, and once the files in folders: a key of a ConfigMap holds no slash.
        sources = [{"configMap": {"name": source.name}}, {"configMap": {"name": source.name, "items": nested}}]
        return {"projected": {"sources": sources}}


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"dag_source.config_map: {path}: cannot be read as text ({error}): files are relative to the DAG file"
        ) from error


def _git_layer(git: GitSource) -> Layer:
    mounts = [{"name": DAG_VOLUME, "mountPath": DAGS_FOLDER}]
    volumes: dict[str, Any] = {DAG_VOLUME: {"emptyDir": {}}}
    if git.secret is not None:
        volumes[GIT_SECRET_VOLUME] = {"secret": {"secretName": git.secret}}
        mounts.append({"name": GIT_SECRET_VOLUME, "mountPath": _GIT_SECRET, "readOnly": True})  # type: ignore[dict-item]
    clone = {
        "image": git.image,
        "command": ["sh", "-ec", _CLONE, "clone"],
        "args": [literal_text(git.repository), literal_text(git.revision), str(git.depth)],
        "workingDir": DAGS_FOLDER,
        "volumeMounts": mounts,
    }
    return {
        "volumes": volumes,
        "volume_mounts": {DAGS_FOLDER: {"name": DAG_VOLUME}},
        "init_containers": {_GIT_INIT: clone},
    }
