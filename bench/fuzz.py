"""How the library takes bad input: damaged files of every kind, given to what reads them, in processes of their own.

    python bench/fuzz.py [--target NAME]... [--seconds S | --inputs N] [--engine ENGINE]... [--json FILE]
    python bench/fuzz.py --target NAME --replay FILE

An input may be read, or refused by a HandfulError of one sentence.  A finding is anything else: another exception; a
hang; memory above a limit; a file written, or deleted, outside of the folder that was given; a program started, an
address asked, a function that a pickle names.  Three ways to make inputs: `nasty` ones by hand; `hypothesis`, which
damages a valid file by its structure; `atheris`, which damages its bytes and keeps what reaches new code.  Each finding
is saved once, by its shortest input, to be replayed.  S and N hold for each target and engine.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzz_forms import Target

ENGINES = ("nasty", "hypothesis", "atheris")
HANG = 30.0  # seconds for one input
MEMORY = (
    3 * 2**30
)  # bytes more than before the first input: a picture of 178 million pixels, the most allowed, takes 2.9
SENTENCE = 10_000  # characters: what is said of an input is not as long as a large input
ROUND = 200  # inputs between two looks at the time
SEED = 1
LONGEST = 65_536  # bytes of an input that atheris changes
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TRIED, READ, REFUSED = range(3)
OWN_PROGRAMS = ("git",)  # of the provenance of a result: arguments of no input


class Outside(BaseException):
    """Something that no input may bring about; raised before it happens, and no `except Exception` catches it."""


@dataclass
class Finding:
    """What went wrong, where, and the shortest input that it went wrong with."""

    what: str
    where: str
    told: str
    content: bytes


@dataclass
class Hunt:
    """What came of one target and engine."""

    target: str
    engine: str
    tried: int = 0
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    peak_mib: float = 0.0
    findings: list[Finding] = field(default_factory=list)


class Watch:
    """Gives inputs to a target, in a process of its own, and writes down what goes wrong.

    sandbox: its `given` is the target's folder, `elsewhere` the one it works in; only below the first may be written.
    counts: shared with the parent: inputs tried, read, and refused.
    """

    def __init__(self, target: Target, sandbox: Path, counts: Any) -> None:
        self.target, self.counts = target, counts
        self.folder = sandbox / "given"
        self.valid = (self.folder / target.file).read_bytes()
        self.journal = (sandbox / "journal").open("ab", buffering=0)
        self.current = os.open(sandbox / "current", os.O_RDWR | os.O_CREAT)
        self.trace = (sandbox / "trace").open("w")
        self.armed, self.broken, self.stack = False, "", ""
        self.shortest: dict[str, int] = {}
        self.before = peak()
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python tells of everything that it opens, changes, and starts."""
        if not self.armed:
            return
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, int) or not (set(mode or "") & set("wax+") or (flags or 0) & WRITING):
                return
            self.check(path, "opens for writing")
        elif event in CHANGES and (event in ("os.rename", "os.link", "os.symlink") or arguments[-1] in (-1, None)):
            self.check(arguments[0] if event != "os.symlink" else arguments[1], f"{event} of")
            if event in ("os.rename", "os.link"):
                self.check(arguments[1], f"{event} to")
        elif event in PROGRAMS:
            program = arguments[0] if isinstance(arguments[0], str) else str(arguments[1])
            if Path(program).name not in OWN_PROGRAMS:
                self.refuse(f"starts {program}")
        elif event in ("socket.connect", "socket.getaddrinfo"):
            self.refuse(f"asks {arguments[-1] if event == 'socket.connect' else arguments[0]}")
        elif event == "pickle.find_class":
            self.refuse(f"unpickles {'.'.join(map(str, arguments))}")

    def check(self, path: Any, does: str) -> None:
        """Refuse a path outside of the folder that was given."""
        if not isinstance(path, int):
            real = Path(os.path.realpath(os.fsdecode(path)))
            if not real.is_relative_to(self.folder) and str(real) != os.devnull:
                self.refuse(f"{does} {real}")

    def refuse(self, what: str) -> None:
        """Note it, and keep it from happening."""
        self.broken, self.stack = what, "".join(traceback.format_stack(limit=40))
        raise Outside(what)

    def __call__(self, content: bytes) -> None:
        """Give one input."""
        from handful.errors import HandfulError

        os.ftruncate(self.current, 0)
        os.pwrite(self.current, content, 0)
        (self.folder / self.target.file).write_bytes(content)
        self.counts[TRIED] += 1
        self.broken = ""
        faulthandler.dump_traceback_later(HANG, exit=True, file=self.trace)
        self.armed = True
        try:
            self.target.read(self.folder)
            self.counts[READ] += 1
        except HandfulError as error:
            self.counts[REFUSED] += 1
            if fault := not_a_sentence(str(error)):
                self.note(f"an error that is {fault}", error, content)
        except Outside:  # noted where it was raised, since it may be lost on the way
            pass
        except BaseException as error:  # whatever it is, it is a finding
            self.note(f"{type(error).__name__}: {str(error)[:300]}", error, content)
        finally:
            self.armed = False
            faulthandler.cancel_dump_traceback_later()
        if self.broken:
            self.write(self.broken, "", self.stack, content)
        if peak() - self.before > MEMORY:
            self.write(f"{(peak() - self.before) / 2**20:,.0f} MiB of memory", "memory", "", content)
            os._exit(3)  # what it took is not given back

    def note(self, what: str, error: BaseException, content: bytes) -> None:
        """Write down an exception, by the last line of the library that it came through."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "/handful/" in frame.filename] or list(frames)
        where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
        told = "".join(traceback.format_exception(error))[-6000:]
        self.write(what, f"{type(error).__name__} {where}", told, content)

    def write(self, what: str, key: str, told: str, content: bytes) -> None:
        """Write a finding into the journal, unless a shorter input of the same is there."""
        if len(content) < self.shortest.get(key or what, sys.maxsize):
            self.shortest[key or what] = len(content)
            row = {"what": what, "where": key or what, "told": told, "content": content.hex()}
            self.journal.write(json.dumps(row).encode() + b"\n")


def not_a_sentence(text: str) -> str:
    """What a message is instead of one sentence; nothing if it is one."""
    if len(text) > SENTENCE:
        return f"{len(text):,} characters long"
    return "" if text.strip() and len(text.splitlines()) == 1 else "not one line"


def peak() -> int:
    """Bytes of memory that this process has ever held at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def by_hand(watch: Watch, seconds: float, inputs: int) -> None:
    """The valid file, others of its kind, the nasty ones, and, where no number bounds it, each part wrong in turn."""
    form, valid = watch.target.form, watch.valid
    for content in [valid, *form.others(), *form.nasty(valid), *([] if inputs else form.everywhere(valid))]:
        watch(content)


def by_hypothesis(watch: Watch, seconds: float, inputs: int) -> None:
    """As many inputs of the form's strategy, the same in every run; or rounds of them until the time is over."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    strategy, end = watch.target.form.damaged(watch.valid), time.monotonic() + seconds
    for number in range(sys.maxsize):

        @seed(SEED + number)
        @settings(
            max_examples=inputs or ROUND,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def give(content: bytes) -> None:
            if inputs or time.monotonic() < end:
                watch(content)

        give()
        if inputs or time.monotonic() >= end:
            return


def by_atheris(watch: Watch, seconds: float, inputs: int) -> None:
    """Bytes, guided by the code that they reach, beginning with what is valid and what is nasty."""
    import atheris

    form, corpus, end = watch.target.form, watch.folder.parent / "corpus", time.monotonic() + seconds
    corpus.mkdir()
    for number, content in enumerate([watch.valid, *form.others(), *form.nasty(watch.valid)]):
        if len(content) < LONGEST:
            (corpus / str(number)).write_bytes(content)

    def give(content: bytes) -> None:
        if watch.counts[TRIED] >= inputs if inputs else time.monotonic() >= end:
            os._exit(0)  # libFuzzer's own end takes down the process, however it ends
        watch(content)

    unbounded = ["-runs=-1", "-timeout=1000000", "-rss_limit_mb=0"]  # hangs and memory are watched here
    atheris.Setup(["fuzz", *unbounded, f"-seed={SEED}", f"-max_len={LONGEST}", str(corpus)], give)
    atheris.Fuzz()


BY: dict[str, Callable[[Watch, float, int], None]] = dict(zip(ENGINES, (by_hand, by_hypothesis, by_atheris)))


def child(target: Target, engine: str, sandbox: Path, counts: Any, seconds: float, inputs: int) -> None:
    """What the process of one target and engine does."""
    with (sandbox / "output").open("w") as output:  # of the library, and of the engine
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(sandbox / "elsewhere")
    (sandbox / "given" / "tmp").mkdir()
    os.environ.update(
        HANDFUL_CACHE=str(sandbox / "given" / "cache"),
        TMPDIR=str(sandbox / "given" / "tmp"),
        HOME=str(sandbox / "given"),
        TORCHINDUCTOR_CACHE_DIR=str(sandbox / "given" / "torch"),
    )
    os.environ.pop("HANDFUL_DATA", None)
    tempfile.tempdir = None  # as TMPDIR says
    warnings.simplefilter("ignore")
    limit = address_space() + 2 * MEMORY  # so that what asks for far too much is refused it, and not this machine
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    BY[engine](Watch(target, sandbox, counts), seconds, inputs)


def address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def hunt(target: Target, engine: str, kits: Path, seconds: float, inputs: int) -> Hunt:
    """Give inputs to a target in a process of its own."""
    found = Hunt(target.name, engine)
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="handful-fuzz-") as place:
        sandbox, counts = Path(place).resolve(), context.RawArray("Q", 3)
        shutil.copytree(kits / target.kit.__name__, sandbox / "given")
        (sandbox / "elsewhere").mkdir()
        started = time.monotonic()
        process = context.Process(target=child, args=(target, engine, sandbox, counts, seconds, inputs))
        process.start()
        while process.is_alive():
            process.join(0.2)
            found.peak_mib = max(found.peak_mib, resident(process.pid))
        found.seconds = time.monotonic() - started
        found.tried, found.read, found.refused = counts
        rows = [json.loads(line) for line in (sandbox / "journal").read_bytes().splitlines()] if found.tried else []
        shortest = {row["where"]: row for row in sorted(rows, key=lambda row: -len(row["content"]))}
        found.findings = [Finding(**{**row, "content": bytes.fromhex(row["content"])}) for row in shortest.values()]
        if process.exitcode not in (0, 3):
            trace = (sandbox / "trace").read_text() if found.tried else ""
            what = (
                f"a hang of {HANG:.0f} s" if trace.startswith("Timeout") else f"the process ended, {process.exitcode}"
            )
            told = trace or (sandbox / "output").read_text(errors="replace")[-4000:]
            current = (sandbox / "current").read_bytes() if found.tried else b""
            found.findings.append(Finding(what, what, told, current))
        elif os.listdir(sandbox / "elsewhere"):
            left = ", ".join(os.listdir(sandbox / "elsewhere"))
            found.findings.append(Finding(f"left in the working folder: {left}", "left", "", b""))
    return found


def resident(pid: int | None) -> float:
    """MiB that a process holds; 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except (OSError, IndexError):
        return 0.0


@contextmanager
def valid_folders(targets: Sequence[Target]) -> Iterator[Path]:
    """A folder with the valid folder of each target's kit."""
    with tempfile.TemporaryDirectory(prefix="handful-fuzz-") as place:
        kits, cache = Path(place).resolve(), os.environ.get("HANDFUL_CACHE")
        os.environ["HANDFUL_CACHE"] = str(kits / "cache")
        for kit in dict.fromkeys(target.kit for target in targets):
            (kits / kit.__name__).mkdir()
            kit(kits / kit.__name__)
        yield kits
        os.environ.pop("HANDFUL_CACHE") if cache is None else os.environ.update(HANDFUL_CACHE=cache)


def hunt_all(targets: Sequence[Target], engines: Sequence[str], seconds: float, inputs: int, save: Path) -> list[Hunt]:
    """Every target by every engine, one after the other; prints a table, and each finding with where it is saved."""
    hunts = []
    print(f"{'target':<22} {'engine':<11} {'inputs':>8} {'read':>8} {'refused':>8} {'findings':>8} {'s':>6} {'MiB':>6}")
    with valid_folders(targets) as kits:
        for target in targets:
            for engine in engines:
                found = hunt(target, engine, kits, seconds, inputs)
                hunts.append(found)
                print(
                    f"{found.target:<22} {found.engine:<11} {found.tried:>8,} {found.read:>8,} {found.refused:>8,} "
                    f"{len(found.findings):>8} {found.seconds:>6.0f} {found.peak_mib:>6,.0f}",
                    flush=True,
                )
                for finding in found.findings:
                    tell(target, finding, save)
    return hunts


def tell(target: Target, finding: Finding, save: Path) -> None:
    """Save the input of a finding, and say how it is seen again."""
    file = save / target.name / sha256(finding.content).hexdigest()[:16]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(finding.content)
    file.with_suffix(".txt").write_text(f"{finding.what}\n{finding.told}", encoding="utf-8", errors="replace")
    print(f"  {finding.what} ({finding.where}), by {len(finding.content):,} bytes:")
    print(f"    python bench/fuzz.py --target {target.name} --replay {file}", flush=True)


def replay(target: Target, content: bytes) -> None:
    """Give one input, in this process, and let whatever comes of it come."""
    with valid_folders([target]) as kits:
        folder = kits / target.kit.__name__
        (folder / target.file).write_bytes(content)
        target.read(folder)
        print("It was read.")


def all_of(hunts: Sequence[Hunt]) -> Hunt:
    """What came of all of them together."""
    whole = Hunt("all", "all")
    for found in hunts:
        whole.tried, whole.read, whole.refused = (
            whole.tried + found.tried,
            whole.read + found.read,
            whole.refused + found.refused,
        )
        whole.seconds += found.seconds
        whole.peak_mib = max(whole.peak_mib, found.peak_mib)
        whole.findings += found.findings
    return whole


def rows_of(hunts: Sequence[Hunt]) -> list[dict[str, Any]]:
    """A flat row for each."""
    from handful.runtime import environment

    machine = environment()
    return [
        {
            "measured": f"{found.target} by {found.engine}",
            "unit": "inputs",
            "repeats": 1,
            **dict.fromkeys(("median", "min", "max"), found.tried),
            "target": found.target,
            "engine": found.engine,
            "read": found.read,
            "refused": found.refused,
            "findings": len(found.findings),
            "seconds": round(found.seconds, 1),
            "peak_mib": round(found.peak_mib),
            **{f"machine_{key}": machine[key] for key in ("cpu", "cores", "torch", "commit")},
        }
        for found in hunts
    ]


def of_the_table(instrumented: bool) -> Sequence[Target]:
    """The targets of the table; instrumented: with a library that tells atheris where it goes."""
    import torch

    torch.set_num_threads(1)
    if not instrumented:
        from fuzz_targets import TARGETS

        return TARGETS
    import atheris

    with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["handful"]):  # it names each module
        from fuzz_targets import TARGETS
    return TARGETS


def main(targets: Sequence[Target] = ()) -> int:
    """targets: instead of those of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", help="can be given again; all if not said")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="can be given again; all if not said")
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument("--seconds", type=float, default=20.0)
    bound.add_argument("--inputs", type=int, default=0)
    parser.add_argument("--replay", type=Path, help="an input that was saved")
    parser.add_argument("--save", type=Path, default=Path("out/fuzz"), help="where the inputs of findings are put")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    engines = options.engine or ENGINES
    for package in ("hypothesis", *(["atheris"] if "atheris" in engines else [])):
        if find_spec(package) is None:
            parser.error(
                f"{package} is not installed: pip install 'handful[fuzz]' brings it; atheris is for Linux alone"
            )
    known = {target.name: target for target in targets or of_the_table("atheris" in engines)}
    for name in options.target or ():
        if name not in known:
            parser.error(f"there is no target {name}; known: {', '.join(known)}")
    chosen = [known[name] for name in options.target or known]
    if options.replay:
        replay(chosen[0], options.replay.read_bytes())
        return 0
    hunts = hunt_all(chosen, engines, options.seconds, options.inputs, options.save)
    whole = all_of(hunts)
    print(
        f"{whole.tried:,} inputs: {whole.read:,} were read, {whole.refused:,} refused by a sentence, "
        f"{len(whole.findings)} findings; {whole.seconds:.0f} s"
    )
    if options.json:
        options.json.write_text(json.dumps(rows_of([*hunts, whole]), indent=1), encoding="utf-8")
    return 1 if whole.findings else 0


if __name__ == "__main__":
    sys.exit(main())
