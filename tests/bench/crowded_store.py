"""Fill a SQLite store of MLflow with copies of a compression that was really made there, as rows of its own tables."""

import sqlite3
from pathlib import Path


def crowd(database: Path, runs: int, versions: int) -> tuple[int, int]:
    """Copy the only compression there until there are so many runs and versions; how many there are then.

    The copies lie in the same experiment and under the same registered model, which is the worst case; they are older
    than the original. Artifacts are not copied. The server must not run meanwhile.
    """
    with sqlite3.connect(database) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        sources = [row[0] for row in db.execute("SELECT run_uuid FROM tags WHERE key = 'compression.kind'")]
        db.execute("CREATE TEMP TABLE run_copies (n INTEGER, old TEXT, new TEXT, PRIMARY KEY (old, n))")
        sets = -(-runs // len(sources))
        db.executemany(
            "INSERT INTO run_copies SELECT ?, ?, lower(hex(randomblob(16)))",
            [(n, old) for n in range(sets) for old in sources],
        )
        db.execute("CREATE TEMP TABLE model_copies (n INTEGER, old TEXT, new TEXT, run TEXT, version INTEGER)")
        registered = db.execute(
            "SELECT v.version, substr(v.source, 9), v.run_id FROM model_versions v JOIN tags t ON t.run_uuid = v.run_id"
            " AND t.key = 'compression.kind'"
        ).fetchall()
        last = db.execute("SELECT max(version) FROM model_versions").fetchone()[0]
        made = [(n, *row) for n in range(sets) for row in registered][: max(0, versions - last)]
        db.executemany(
            "INSERT INTO model_copies SELECT ?, ?, 'm-' || lower(hex(randomblob(16))), new, ? FROM run_copies"
            " WHERE n = ? AND old = ?",
            [(n, model, last + i, n, run) for i, (n, _, model, run) in enumerate(made, start=1)],
        )
        db.execute("CREATE TEMP TABLE version_copies AS SELECT c.*, v.version AS old_version FROM model_copies c"
                   " JOIN model_versions v ON v.source = 'models:/' || c.old")  # fmt: skip
        _copy_runs(db)
        _copy_models(db)
        counts = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("runs", "model_versions")]  # noqa: S608
    db.close()
    with sqlite3.connect(database) as db:
        db.execute("ANALYZE")
    db.close()
    return counts[0], counts[1]


def _copy_runs(db: sqlite3.Connection) -> None:
    runs = "JOIN run_copies c ON c.old = t.run_uuid"
    earlier = "(c.n + 1) * 60000"
    _copy(
        db,
        "runs",
        runs,
        run_uuid="c.new",
        start_time=f"t.start_time - {earlier}",
        end_time=f"t.end_time - {earlier}",
        artifact_uri="replace(t.artifact_uri, c.old, c.new)",
    )
    parent = "(SELECT p.new FROM run_copies p WHERE p.old = t.value AND p.n = c.n)"
    key = "WHEN 'compression.key' THEN printf('%016x', c.n)"
    value = f"CASE t.key WHEN 'mlflow.parentRunId' THEN {parent} {key} ELSE t.value END"
    _copy(db, "tags", runs, run_uuid="c.new", value=value)
    for table in ("params", "metrics", "latest_metrics"):
        _copy(db, table, runs, run_uuid="c.new")
    used = "JOIN run_copies c ON c.old = t.destination_id WHERE t.destination_type = 'RUN'"
    _copy(db, "inputs", used, input_uuid="lower(hex(randomblob(16)))", destination_id="c.new")
    used = "JOIN run_copies c ON c.old = t.source_id WHERE t.source_type = 'RUN_INPUT'"
    _copy(db, "inputs", used, input_uuid="lower(hex(randomblob(16)))", source_id="c.new")


def _copy_models(db: sqlite3.Connection) -> None:
    models = "JOIN model_copies c ON c.old = t.model_id"
    _copy(db, "logged_models", models, model_id="c.new", source_run_id="c.run")
    for table in ("logged_model_tags", "logged_model_params"):
        _copy(db, table, models, model_id="c.new")
    _copy(db, "logged_model_metrics", models, model_id="c.new", run_id="c.run")
    made = "JOIN model_copies c ON c.old = t.destination_id WHERE t.source_type = 'RUN_OUTPUT'"
    _copy(db, "inputs", made, input_uuid="lower(hex(randomblob(16)))", source_id="c.run", destination_id="c.new")
    versions = "JOIN version_copies c ON c.old_version = t.version"
    _copy(db, "model_versions", versions, version="c.version", source="'models:/' || c.new", run_id="c.run")
    _copy(db, "model_version_tags", versions, version="c.version")


def _copy(db: sqlite3.Connection, table: str, which: str, **changes: str) -> None:
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changes.get(column, f"t.{column}") for column in columns)
    db.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} t {which}")  # noqa: S608
