"""The feature repository that is served."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from harness.place import BENCH, ROOT

PLAIN, WITH_COMPONENT, WITH_PYTHON = "plain", "with_component", "with_python"
ONE_VIEW, TWENTY_VIEWS = "one_view", "twenty_views"
VIEWS = 20
FLOATS = [f"f{index}" for index in range(8)]
INTEGERS = [f"i{index}" for index in range(2)]
FEATURES = [*FLOATS, *INTEGERS]
FURTHER = [f"t{index}" for index in range(VIEWS)]
OUTPUTS = ["ratio", "score"]
# What an answer of a service has to have.
SERVICES = {
    PLAIN: FEATURES,
    WITH_COMPONENT: [*FEATURES, *OUTPUTS],
    WITH_PYTHON: [*FEATURES, *OUTPUTS],
    ONE_VIEW: FURTHER,
    TWENTY_VIEWS: FURTHER,
}
WITH_AMOUNTS = {WITH_COMPONENT, WITH_PYTHON}
# Longer than any history here is old: what is measured is not to expire.
TTL = "3650d"
# To be raised when `serving_table.py` comes to write other tables.
VERSION = "v1"


def table(work: Path, entities: int, further: int = 0) -> Path:
    """The table, made once and kept."""
    path = work / "data" / f"serving-{entities}-{further}-{VERSION}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"  making {path.name}", flush=True)
        script = [sys.executable, BENCH / "serving_table.py", path]
        sizes = ["--entities", str(entities), "--further", str(further)]
        subprocess.run([*script, *sizes], check=True)
    return path


def make(folder: Path, online_store: dict, definitions: dict) -> None:
    """Writes a repository; its registry begins anew."""
    (folder / "features").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / ".unskew/registry", ignore_errors=True)
    shutil.rmtree(folder / ".unskew/online", ignore_errors=True)
    project = {"project": "bench", "registry": ".unskew/registry", "online_store": online_store}
    # JSON is YAML.
    (folder / "unskew.yaml").write_text(json.dumps(project, indent=2))
    write(folder, definitions)


def write(folder: Path, definitions: dict) -> None:
    """Writes the definitions of a repository."""
    (folder / "features/bench.yaml").write_text(json.dumps(definitions, indent=2))


def command(unskew: Path, folder: Path, *words: str) -> dict:
    """What a command of unskew reports."""
    run = [str(unskew), "--json", *words]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr or done.stdout
        raise SystemExit(f"error: `unskew {' '.join(words)}` failed in {folder}:\n{said}")
    return json.loads(done.stdout)


def materialize(unskew: Path, folder: Path) -> float:
    """Materializes all; the seconds of the whole process."""
    began = time.perf_counter()
    command(unskew, folder, "materialize-incremental", now())
    return time.perf_counter() - began


def now() -> str:
    """This instant, as unskew reads it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def ten(path: Path, description: str = "") -> dict:
    """One view of ten features, and a service of it."""
    return {
        "entities": [{"name": "customer", "join_keys": [{"name": "customer_id", "type": "int64"}]}],
        "sources": [{"name": "table", "path": str(path), "timestamp_field": "event_timestamp"}],
        "feature_views": [view("customer_features", FEATURES)],
        "feature_services": [
            {"name": PLAIN, "features": ["customer_features"], "description": description}
        ],
    }


def all_services(path: Path, python: Path | None, description: str = "") -> dict:
    """All that is served, with the component in Python if there is one."""
    made = ten(path, description)
    inputs = {
        "f0": "customer_features:f0",
        "i0": "customer_features:i0",
        "amount": "request:amount",
    }
    components = {"amount_scores": "transforms/amount_scores"}
    made["feature_services"].append(
        {"name": WITH_COMPONENT, "features": ["customer_features", "amount_scores"]}
    )
    if python is not None:
        components["python_scores"] = python.name
        made["feature_services"].append(
            {"name": WITH_PYTHON, "features": ["customer_features", "python_scores"]}
        )
    made["transformations"] = [
        {"name": name, "kind": "on_demand", "component": component, "inputs": inputs}
        for name, component in components.items()
    ]
    single = [f"v{index}" for index in range(VIEWS)]
    made["feature_views"].append(view("wide", FURTHER))
    made["feature_views"] += [
        view(name, [feature]) for name, feature in zip(single, FURTHER, strict=True)
    ]
    made["feature_services"] += [
        {"name": ONE_VIEW, "features": ["wide"]},
        {"name": TWENTY_VIEWS, "features": single},
    ]
    return made


def view(name: str, features: list[str]) -> dict:
    """A view of the table."""
    return {
        "name": name,
        "entities": ["customer"],
        "source": "table",
        "ttl": TTL,
        "features": [{"name": feature} for feature in features],
    }


def rust_component(folder: Path) -> None:
    """Puts the sources of the component into a repository; `unskew apply` compiles them."""
    shutil.copytree(BENCH / "serving/transforms", folder / "transforms", dirs_exist_ok=True)
    for file in ("Cargo.toml", "Cargo.lock"):
        shutil.copy2(BENCH / "serving" / file, folder / file)


def python_component(work: Path, folder: Path) -> Path:
    """The component in Python, built once, and put into a repository."""
    source = BENCH / "serving/python/amount_scores.py"
    wit = ROOT / "wit"
    digest = hashlib.sha256(source.read_bytes())
    for file in sorted(wit.rglob("*.wit")):
        digest.update(file.read_bytes())
    built = work / f"amount_scores-{digest.hexdigest()[:16]}.wasm"
    if not built.exists():
        print("  building the component in Python", flush=True)
        part = built.with_suffix(".part")
        program = str(Path(sys.executable).with_name("componentize-py"))
        words = ["-d", wit, "-w", "transform", "-q", "componentize", "--stub-wasi"]
        more = ["amount_scores", "-p", source.parent, "-o", part]
        subprocess.run([program, *words, *more], check=True, cwd=work)
        part.replace(built)
    placed = folder / "python_scores.wasm"
    shutil.copy2(built, placed)
    return placed
