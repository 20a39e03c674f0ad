"""Which programs the stack runs, and the supervisord configuration that runs them.

Every program goes through `child.py`, so that none outlives the supervisor. Addresses come from the settings; each
program reads the same settings again, so the environment handed on stays what the user set.
"""

import os
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from paramstack_site import child, embedded

# A program that keeps failing is tried again after 1, 2, 3 ... seconds: the last time after about half an hour.
RETRIES = 60
PATIENCE = 8  # seconds to stop in good order before SIGKILL


@dataclass(frozen=True)
class Program:
    name: str
    command: list[str]
    stop: str = "TERM"
    priority: int = 10  # Redis starts first and stops last


def programs(var: Path) -> list[Program]:
    """The programs of this installation: Redis and engine, with its agent, only where no address of another is set."""
    redis = [Program("redis", embedded.command(var), priority=1)] if settings.REDIS_EMBEDDED else []
    engine = [Program("engine", engine_command()), Program("engine_agent", manage("engine_agent"))]
    return [
        *redis,
        Program("web", web_command()),
        # Jobs of the default queue wait for the engine or for Claude: threads suffice, and start sooner.
        Program("worker-default", worker_command("default", "--pool=threads", "--concurrency=4"), stop="QUIT"),
        Program("worker-gpu", worker_command("gpu", "--pool=prefork", "--concurrency=1"), stop="QUIT"),
        Program("beat", [*celery(), "beat", "--loglevel=WARNING", "--pidfile="]),
        Program("ledger_writer", manage("ledger_writer")),
        *(engine if settings.ENGINE_EMBEDDED else ()),
    ]


def python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def manage(*arguments: str) -> list[str]:
    return [sys.executable, str(settings.ROOT / "manage.py"), *arguments]


def celery() -> list[str]:
    return [*python("celery"), "--quiet", "-A", "paramstack_site"]


def web_command() -> list[str]:
    address = ["--host", settings.HOST, "--port", str(settings.PORT)]
    return manage("serve", *address, f"--patience={PATIENCE - 3}")


def engine_command() -> list[str]:
    options = ["--model", str(settings.ENGINE_MODEL), "--port", str(settings.ENGINE_PORT)]
    if settings.ENGINE == "vllm":
        return manage("launch_vllm", *options)
    return [*python("inference.engines.embedded"), *options]


def node(queue: str) -> str:
    """The worker's name on the broker; the port keeps two stacks on one Redis apart."""
    return f"{queue}@paramstack-{settings.PORT}"


def worker_command(queue: str, *options: str) -> list[str]:
    quiet = ["--without-gossip", "--without-mingle", "--loglevel=WARNING"]
    return [*celery(), "worker", "-Q", queue, "-n", node(queue), *options, *quiet]


def environment(var: Path) -> dict[str, str]:
    """What the programs inherit: the user's environment, unbuffered output and few threads for each torch process.

    More OpenMP threads than idle cores make training ten times slower.
    """
    threads = str(max(1, (os.cpu_count() or 1) // 4))
    return {
        **os.environ,
        "PARAMSTACK_VAR": str(var),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "DJANGO_SETTINGS_MODULE": os.environ.get("DJANGO_SETTINGS_MODULE", "paramstack_site.settings.dev"),
    }


def configuration(var: Path) -> str:
    """The text of supervisord.conf."""
    found = programs(var)
    stack = [program for program in found if program.priority > 1]
    sections = [supervisor_section(var), *(program_section(var, program) for program in found)]
    # One group, so that its members stop side by side, and before Redis.
    names = ",".join(program.name for program in stack)
    return "\n\n".join([*sections, f"[group:stack]\nprograms={names}\npriority=10"]) + "\n"


def supervisor_section(var: Path) -> str:
    run = escaped(str(embedded.private(embedded.sockets(var))))
    user = "user=root\n" if os.geteuid() == 0 else ""  # else supervisord warns
    return (
        f"[supervisord]\nnodaemon=true\nsilent=true\numask=077\n{user}"
        f"pidfile={run}/supervisord.pid\nlogfile={escaped(str(log(var, 'supervisor')))}\n"
        f"logfile_maxbytes=1MB\nlogfile_backups=2\nloglevel=info\n\n"
        f"[unix_http_server]\nfile={run}/supervisor.sock\nchmod=0700\n\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface"
    )


def program_section(var: Path, program: Program) -> str:
    command = shlex.join(child.wrap(signal.SIGKILL, program.command))
    return (
        f"[program:{program.name}]\ncommand={escaped(command)}\ndirectory={escaped(str(settings.ROOT))}\n"
        f"priority={program.priority}\nautostart=true\nautorestart=true\nstartsecs=5\nstartretries={RETRIES}\n"
        f"stopsignal={program.stop}\nstopwaitsecs={PATIENCE}\nkillasgroup=true\nredirect_stderr=true\n"
        f"stdout_logfile={escaped(str(log(var, program.name)))}\n"
        "stdout_logfile_maxbytes=5MB\nstdout_logfile_backups=3"
    )


def log(var: Path, name: str) -> Path:
    return var.resolve() / "log" / f"{name}.log"


def escaped(value: str) -> str:
    """A value of supervisord.conf: `%` starts an expansion there."""
    return value.replace("%", "%%")
