"""What `raynode argo lint FILE` does."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from os import PathLike
from pathlib import Path

from airflow_provider_raynode.argo.lint.finding import Finding, LintError


def lint_file(path: str | PathLike[str]) -> list[Finding]:
    """Return what is wrong in a file of manifests, in the order of its lines.

    :raises LintError: the file cannot be read, or is not YAML.
    """
    from airflow_provider_raynode.argo.lint import lint_text

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise LintError(f"{path}: cannot be read: {reason}") from error
    return lint_text(text, str(path))


def command(file: str | PathLike[str], as_json: bool = False) -> int:
    """Print what is wrong in a file, and how much in the last line.

    :param as_json: print one JSON object instead, with `findings`, `errors` and `warnings`.
    :return: the exit code: 0 without errors, 1 with errors; warnings do not count.
    :raises LintError: the file cannot be read, or is not YAML.
    """
    findings = lint_file(file)
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    if as_json:
        listed = [asdict(finding) for finding in findings]
        lines = [json.dumps({"findings": listed, "errors": errors, "warnings": warnings}, indent=2, ensure_ascii=False)]
    else:
        lines = [*map(str, findings), f"{file}: {_count(errors, 'error')}, {_count(warnings, 'warning')}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if errors else 0


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
