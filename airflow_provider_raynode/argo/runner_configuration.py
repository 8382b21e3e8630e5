"""The `--configuration-file` of the task runner: what is the same for all pods of an installation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from airflow_provider_raynode.config._section import Section, path_of, problems_of
from airflow_provider_raynode.config._values import Text
from airflow_provider_raynode.config._yaml import read_yaml
from airflow_provider_raynode.exceptions import ConfigError


class RunnerConfiguration(Section):
    """What the runner takes from a file in the image; the environment's own settings win."""

    catalog: Text | None = Field(default=None, description="URI of the catalog, `[raynode] catalog`")
    trusted_catalogs: list[Text] = Field(
        default_factory=list, description="further catalogs whose pickles may be loaded, `[raynode] trusted_catalogs`"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = Field(
        default=None, description="`[logging] logging_level`"
    )
    airflow: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="further options of Airflow by section: {secrets: {backend: …}}"
    )

    @classmethod
    def load(cls, path: str | Path | None) -> RunnerConfiguration:
        """Return the configuration in a file; without a file, an empty one.

        :raises ConfigError: the file cannot be read, or something in it is wrong.
        """
        if not path:
            return cls()
        try:
            return cls.model_validate(read_yaml(Path(path).expanduser(), may_be_empty=True))
        except ValidationError as error:
            lines = (f"{path}: {path_of(loc)}: {message}" for loc, message in problems_of(error))
            raise ConfigError("\n".join(lines)) from None

    def options(self) -> dict[str, dict[str, str]]:
        """Return the options of Airflow that this file asks for, by section."""
        found = {section: dict(values) for section, values in self.airflow.items()}
        if self.catalog:
            found.setdefault("raynode", {})["catalog"] = self.catalog
        if self.trusted_catalogs:
            found.setdefault("raynode", {})["trusted_catalogs"] = ",".join(self.trusted_catalogs)
        if self.log_level:
            found.setdefault("logging", {})["logging_level"] = self.log_level
        return found
