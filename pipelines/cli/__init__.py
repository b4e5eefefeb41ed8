"""The command line: one file per verb. Exit status: 0 done, 1 something broke, 2 the request is wrong, 130 Ctrl-C."""

from pipelines.cli import (
    compress,
    dashboard,
    demo,
    deploy,
    inspect,
    lineage,
    promote,
    receive,
    recommend,
    rollback,
    scan,
    sensitivity,
    serve,
    ui,
)
from pipelines.cli.app import app, main

__all__ = [
    "app",
    "compress",
    "dashboard",
    "demo",
    "deploy",
    "inspect",
    "lineage",
    "main",
    "promote",
    "receive",
    "recommend",
    "rollback",
    "scan",
    "sensitivity",
    "serve",
    "ui",
]
