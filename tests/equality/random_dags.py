"""Random DAGs from a seed, as the text of DAG files, and a script that compares them with `dag.test()`.

    .venv/bin/python tests/equality/random_dags.py --count 1000 [--seed 7] [--first 0] [--jobs 2]

It prints the seed, and of each DAG that differs its number, the differences and the file. `--seed S --first N --count
1` runs that one again. What a DAG has in it: tasks that fail, skip, are tried again and skip or fail at a later try,
skips of operators (`exit 99`, `skip_if`, a sensor's soft_fail), branches, short circuits, all trigger rules, tasks and
task groups mapped over literals and over tasks' outputs (empty, skipped, failed), groups of several tasks with
upstreams of their own outside, setups and teardowns in and outside groups.

Left out is what docs/argo.md names under "Where Argo differs": rules that an index of a mapped group decides for
itself or Airflow for all of them, a task that Airflow starts early and a branch then skips, and one that had failed by
its upstream before a branch skips it, with tasks below.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER = '''"""Random DAG {number} of seed {seed}."""
from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG, TaskGroup, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowSkipException


def gives_up():
    raise AirflowSkipException


def ends(kind):
    tries = kind.split(" then ")
    now = tries[min(get_current_context()["ti"].try_number, len(tries)) - 1]
    if now == "skip":
        gives_up()
    if now == "fail":
        raise ValueError(kind)


def options(name, rule, *kinds):
    retries = max(each.count(" then ") for each in kinds)
    return dict(task_id=name, trigger_rule=rule, retries=retries, retry_delay=timedelta(0))


def made(name, kind, rule="all_success"):
    if kind == "empty":
        return EmptyOperator(task_id=name, trigger_rule=rule)
    if kind == "exit 99":
        return BashOperator(task_id=name, trigger_rule=rule, bash_command="exit 99")
    if kind == "soft_fail":
        times = dict(poke_interval=0.01, timeout=0.01, soft_fail=True)
        return PythonSensor(task_id=name, trigger_rule=rule, python_callable=lambda: False, **times)
    if kind == "skip_if":
        return task.skip_if(lambda context: True)(task(task_id=name, trigger_rule=rule)(lambda: 1))()
    if kind == "run_if":
        return task.run_if(lambda context: True)(task(task_id=name, trigger_rule=rule)(lambda: 1))()

    def work():
        ends(kind)
        return name

    return task(**options(name, rule, kind))(work)()


def listed(name, kind, rule, length):
    def numbers():
        ends(kind)
        return list(range(length))

    return task(**options(name, rule, kind))(numbers)()


def indexed(name, kinds, rule="all_success"):
    def work(x, y=0):
        ends(kinds[x % len(kinds)])
        return [name, x, y]

    return task(**options(name, rule, *kinds))(work)


def branching(name, rule, chosen):
    return task.branch(task_id=name, trigger_rule=rule)(lambda: chosen)()


def circuit(name, rule, closes, whole):
    return task.short_circuit(task_id=name, trigger_rule=rule, ignore_downstream_trigger_rules=whole)(lambda: closes)()


'''

RULES = (
    *("all_success",) * 8,
    *("none_failed",) * 2,
    *("none_failed_min_one_success",) * 2,
    *("all_done",) * 2,
    *("one_failed", "one_success", "all_failed", "one_done", "none_skipped", "all_skipped"),
    "all_done_min_one_success",
    "always",
)
EARLY_RULES = ("one_success", "one_failed", "one_done")
# In a group that is mapped over an output, Airflow decides the others for all indexes at once.
RULES_BY_INDEX = tuple(
    each
    for each in RULES
    if each not in ("none_failed_min_one_success", "all_done_min_one_success", "always", *EARLY_RULES)
)
KINDS = (
    *("ok",) * 6,
    *("skip",) * 2,
    *("fail",) * 2,
    *("fail then ok", "fail then skip", "fail then skip", "fail then fail", "fail then fail then fail", "empty"),
    *("exit 99", "soft_fail", "skip_if", "run_if"),
)
PLAIN_KINDS = tuple(each for each in KINDS if each not in ("empty", "exit 99", "soft_fail", "skip_if", "run_if"))
SHAPES = (
    *("task",) * 7,
    "list",
    "list",
    "branch",
    "circuit",
    "mapped",
    "mapped",
    "group",
    "group",
    "setup",
    "teardown",
)


@dataclass
class _Unit:
    """What stands for one node between others: a task, a mapped task, a mapped group."""

    name: str
    shape: str
    children: list[str] = field(default_factory=list)
    """Ids of tasks directly below it, which a branch may choose."""
    roots: list[str] = field(default_factory=list)
    """Ids of the tasks that an edge to it leads to."""


class _Dag:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._units: list[_Unit] = []
        self._lines: list[str] = []
        self._late: list[tuple[int, _Unit, str]] = []

    def text(self) -> str:
        for _ in range(self._rng.randint(4, 9)):
            shape = self._rng.choice(SHAPES)
            unit = _Unit(f"{shape}_{len(self._units)}", shape)
            getattr(self, f"_{shape}")(unit)
            self._units.append(unit)
        for place, unit, rule in self._late:
            chosen = [each for each in unit.children if self._rng.random() < 0.5]
            self._lines[place] = f"{unit.name} = branching({unit.name!r}, {rule!r}, {chosen!r})"
        return "".join(f"    {line}\n" for line in self._lines)

    # -- one unit each -----------------------------------------------------------------------------------------------

    def _task(self, unit: _Unit) -> None:
        above = self._above()
        self._write(f"{unit.name} = made({unit.name!r}, {self._rng.choice(KINDS)!r}, {self._rule(above)!r})")
        unit.roots = [unit.name]
        self._edges(above, unit)

    def _list(self, unit: _Unit) -> None:
        above = self._above()
        kind = self._rng.choice(("ok", "ok", "ok", "skip", "fail", "fail then ok", "fail then skip"))
        length = self._rng.choice((0, 0, 1, 2, 3))
        self._write(f"{unit.name} = listed({unit.name!r}, {kind!r}, {self._rule(above)!r}, {length})")
        unit.roots = [unit.name]
        self._edges(above, unit)

    def _branch(self, unit: _Unit) -> None:
        above = self._above()
        self._late.append((len(self._lines), unit, self._rule(above)))
        self._write("")
        unit.roots = [unit.name]
        self._edges(above, unit)

    def _circuit(self, unit: _Unit) -> None:
        above = self._above()
        closes, whole = self._rng.random() < 0.4, self._rng.random() < 0.5
        self._write(f"{unit.name} = circuit({unit.name!r}, {self._rule(above)!r}, {closes}, {whole})")
        unit.roots = [unit.name]
        self._edges(above, unit)

    def _mapped(self, unit: _Unit) -> None:
        kinds = [self._rng.choice(PLAIN_KINDS) for _ in range(self._rng.randint(1, 3))]
        over, sources = self._expansion()
        above = [each for each in self._above(least=0) if each.name not in sources]
        rule = self._rule(above, sources)
        # Airflow may start it before all of a mapped source has ended, and then finds no list.
        if rule in EARLY_RULES and any(each.startswith("mapped") for each in sources):
            rule = "all_success"
        self._write(f"{unit.name} = indexed({unit.name!r}, {kinds!r}, {rule!r}).expand({over})")
        unit.roots = [unit.name]
        self._note_sources(sources, unit)
        self._edges(above, unit)

    def _group(self, unit: _Unit) -> None:
        over, sources = self._expansion()
        rules = RULES_BY_INDEX if sources else tuple(each for each in RULES if each != "always")
        above = [each for each in self._above(least=0) if each.name not in sources]
        self._write("@task_group")
        self._write(f"def {unit.name}(x, y=0):")
        inside: list[str] = []
        setups: set[str] = set()
        for number in range(self._rng.randint(1, 3)):
            name = f"w{number}"
            kinds = [self._rng.choice(PLAIN_KINDS) for _ in range(self._rng.randint(1, 3))]
            before = self._rng.sample(inside, self._rng.randint(0, min(2, len(inside))))
            outside = [each for each in self._above(least=0) if self._rng.random() < 0.3]
            is_below = bool(before or outside or sources or above)
            after_setup = setups.intersection(before) or any(each.shape == "setup" for each in (*outside, *above))
            rule = self._rng.choice(rules) if is_below and not after_setup else "all_success"
            nested = self._rng.random() < 0.2
            made = f"indexed({name!r}, {kinds!r}, {rule!r})(x, y)"
            if nested:
                self._write(f"    with TaskGroup('nested_{number}'):")
            self._write(f"    {'    ' * nested}{name} = {made}")
            if self._rng.random() < 0.15:
                self._write(f"    {name}.as_setup()")
                setups.add(name)
            for each in [*before, *(other.name for other in outside)]:
                self._write(f"    {each} >> {name}")
            task_id = f"{unit.name}.nested_{number}.{name}" if nested else f"{unit.name}.{name}"
            for other in outside:
                other.children.append(task_id)
            if not before:
                unit.roots.append(task_id)
            inside.append(name)
        if self._rng.random() < 0.2:
            self._write(f"    end = indexed('end', ['ok'])(x, y).as_teardown(setups={self._rng.choice(inside)})")
        self._write(f"{unit.name} = {unit.name}.expand({over})")
        self._note_sources(sources, unit)
        self._edges(above, unit)

    def _setup(self, unit: _Unit) -> None:
        above = self._above(least=0)
        kind = self._rng.choice(("ok", "skip", "skip", "fail", "fail then ok", "fail then skip"))
        self._write(f"{unit.name} = made({unit.name!r}, {kind!r}, {self._rule(above)!r}).as_setup()")
        unit.roots = [unit.name]
        self._edges(above, unit)

    def _teardown(self, unit: _Unit) -> None:
        setups = [each.name for each in self._units if each.shape == "setup"]
        if not setups:
            self._task(unit)
            return
        kind = self._rng.choice(("ok", "ok", "fail", "skip"))
        chosen = ", ".join(self._rng.sample(setups, self._rng.randint(1, len(setups))))
        counts = self._rng.random() < 0.4
        self._write(
            f"{unit.name} = made({unit.name!r}, {kind!r}, 'all_done_setup_success')"
            f".as_teardown(setups=[{chosen}], on_failure_fail_dagrun={counts})"
        )
        unit.roots = [unit.name]
        self._edges(self._above(least=0), unit)

    # -- what all have -----------------------------------------------------------------------------------------------

    def _above(self, least: int = 1) -> list[_Unit]:
        """Choose units that lie before the next one."""
        if self._rng.random() < 0.15:
            least = 0
        return self._rng.sample(self._units, min(self._rng.randint(least, 3), len(self._units)))

    def _rule(self, above: list[_Unit], sources: list[str] = ()) -> str:
        # Airflow takes no other rule directly below a setup.
        if (not above and not sources) or any(each.shape == "setup" for each in above):
            return "all_success"
        return self._rng.choice(RULES)

    def _expansion(self) -> tuple[str, list[str]]:
        """Choose what to expand over: the arguments of `.expand`, and the units among them."""
        lists = [each.name for each in self._units if each.shape in ("list", "mapped")]
        if not lists or self._rng.random() < 0.3:
            return f"x={list(range(self._rng.choice((0, 1, 2, 3))))}", []
        if len(lists) > 1 and self._rng.random() < 0.2:
            one, two = self._rng.sample(lists, 2)
            if all(each.startswith("list") for each in (one, two)):
                return f"x={one}, y={two}", [one, two]
        plain = [each for each in lists if each.startswith("list")]
        if not plain or self._rng.random() < 0.2:
            one = self._rng.choice(lists)
            return (f"x={one}", [one]) if one in plain else (f"x=[0, 1], y={one}", [one])
        one = self._rng.choice(plain)
        return f"x={one}", [one]

    def _note_sources(self, sources: list[str], unit: _Unit) -> None:
        for each in self._units:
            if each.name in sources:
                each.children += unit.roots

    def _edges(self, above: list[_Unit], unit: _Unit) -> None:
        for each in above:
            self._write(f"{each.name} >> {unit.name}")
            each.children += [child for child in unit.roots if child not in each.children]

    def _write(self, line: str) -> None:
        self._lines.append(line)


def random_dag(seed: int, number: int) -> str:
    """Return the text of one DAG file; the same for the same seed and number."""
    for attempt in itertools.count():
        body = _Dag(random.Random(f"{seed}/{number}/{attempt}")).text()
        text = f'{HEADER.format(seed=seed, number=number)}with DAG("random_{number}") as dag:\n{body}'
        if _is_valid(text):
            return text
    raise AssertionError


def _is_valid(text: str) -> bool:
    """Whether Airflow takes a DAG file: what must follow a setup, for one, is its own to know."""
    from airflow.sdk.definitions._internal.contextmanager import TaskGroupContext

    values: dict[str, Any] = {"__name__": "random_dag"}
    try:
        exec(compile(text, "random_dag.py", "exec"), values)
        values["dag"].validate()
        values["dag"].check_cycle()
    except Exception:
        TaskGroupContext._context.clear()
        return False
    dag = values["dag"]
    open_kinds = (_may_overtake, _may_fail_as_a_whole, _may_be_turned)
    return not any(may_differ(dag, task) for may_differ in open_kinds for task in dag.tasks)


def _may_overtake(dag: Any, task: Any) -> bool:
    """Whether Airflow may start a task before what skips it has ended; on Argo it waits for all before it."""
    from airflow_provider_raynode.argo.shape import rule_of
    from airflow_provider_raynode.argo.skips import skippers

    is_early = rule_of(task) in EARLY_RULES
    return is_early and len(task.upstream_task_ids) > 1 and bool(skippers(dag, task.task_id))


def _may_fail_as_a_whole(dag: Any, task: Any) -> bool:
    """Whether Airflow may fail a task of a group over an output for all indexes, where each has an outcome of its own.

    It does before the task is expanded, when another of the group has failed by something outside.
    """
    from airflow_provider_raynode.argo.expansion import is_expanded_at_once, mapped_node, source_ids
    from airflow_provider_raynode.argo.shape import scope_of, setups_further_up

    group_id = scope_of(task)
    if group_id is None or is_expanded_at_once(dag, task.task_id):
        return False
    above = {each for each in task.get_flat_relative_ids(upstream=True) if scope_of(dag.task_dict[each]) == group_id}
    inside = above | set(source_ids(mapped_node(dag, group_id)))
    bearing = (set(task.upstream_task_ids) | setups_further_up(task)) - (inside - above)
    outside = any(set(dag.task_dict[each].upstream_task_ids) - inside for each in above | {task.task_id})
    return bool(above) and len(bearing) > 1 and outside


def _may_be_turned(dag: Any, task: Any) -> bool:
    """Whether a branch may skip a task that has failed by its upstream already, when what lies below has seen that."""
    from airflow_provider_raynode.argo.skips import skippers

    others = set(task.upstream_task_ids) - set(skippers(dag, task.task_id))
    return bool(others) and len(others) < len(task.upstream_task_ids) and bool(task.downstream_task_ids)


def main() -> None:
    """Run random DAGs in Airflow and on the simulated Argo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="how many DAGs")
    parser.add_argument("--seed", type=int, default=None, help="a new one by default")
    parser.add_argument("--first", type=int, default=0, help="number of the first DAG")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with an Airflow of its own")
    parser.add_argument("--share", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    if args.jobs > 1 and not args.share:
        sys.exit(_in_shares(seed, args))
    numbers = range(args.first + max(args.share - 1, 0), args.first + args.count, args.jobs)
    print(f"seed {seed}, DAGs {args.first} to {args.first + args.count - 1}", flush=True)
    with tempfile.TemporaryDirectory(prefix="random-dags-") as home:
        begin = time.perf_counter()
        differ = [number for number in compare_many(seed, numbers, Path(home)) if number is not None]
        spent = time.perf_counter() - begin
    print(f"seed {seed}: {len(numbers)} DAGs, {len(differ)} differ: {differ}; {spent / len(numbers):.2f} s each")
    sys.exit(bool(differ))


def _in_shares(seed: int, args: argparse.Namespace) -> int:
    command = [sys.executable, __file__, f"--seed={seed}", f"--count={args.count}", f"--first={args.first}"]
    shares = [subprocess.Popen([*command, f"--jobs={args.jobs}", f"--share={n + 1}"]) for n in range(args.jobs)]
    return max([each.wait() for each in shares])


def compare_many(seed: int, numbers: Iterable[int], home: Path) -> Iterator[int | None]:
    """Compare DAGs in an Airflow home of their own; yield the numbers of those that differ, and print why."""
    (home / "dags").mkdir()
    environment = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
    }
    # Before the first import of Airflow, which reads them once.
    os.environ.update(environment)
    # The simulator lies beside this folder; pytest knows that.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils import db
    from argo_simulator import ForkServer
    from side_by_side import compare, pod_environment
    from workflow import Argo

    db.initdb()
    DagBundlesManager().sync_bundles_to_db()
    env = pod_environment(home / "pods-home")
    with ForkServer(env=env) as server:
        for number in numbers:
            folder = home / str(number)
            folder.mkdir()
            path = folder / f"random_{number}.py"
            path.write_text(random_dag(seed, number))
            c = compare(path, Argo(folder, env, server))
            found = c.found
            if os.environ.get("RD_TIME"):
                print(number, round(c.airflow_s, 2), round(c.argo_s, 2), len(c.airflow.states), flush=True)
            if found:
                print(f"DAG {number} of seed {seed}:", *found, path.read_text(), sep="\n", flush=True)
            yield number if found else None
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
