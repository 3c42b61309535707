"""Every command of `nas` with every option and argument, each replaced by malformed values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import click

from benchmarks.fuzz import values
from benchmarks.fuzz.damage import Damage
from benchmarks.fuzz.values import Bad

Options = Mapping[str, str | None]
"""Option -> its value; None for a flag."""


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        kind: What is malformed, such as `study run --trials`.
        arguments: The arguments of `nas`.
        damage: What happens to files before.
        may_pass: Whether the command may accept it.
    """

    kind: str
    arguments: tuple[str, ...]
    damage: tuple[Damage, ...] = ()
    may_pass: bool = False


@dataclass(frozen=True)
class Valid:
    """A valid call of a command: the values of its arguments by name, and options."""

    arguments: Mapping[str, str] = field(default_factory=dict)
    options: Options = field(default_factory=dict)


_SMALL: Options = {"--size": "16", "--count": "12"}
VALID: dict[str, Valid] = {
    "study run": Valid({"config": "tiny.yaml"}),
    "study compare": Valid({"a": "good", "b": "indb"}),
    "study rename": Valid({"old": "good", "new": "renamed"}),
    "study delete": Valid({"name": "good"}, {"--yes": None}),
    "study confirm": Valid({"name": "good"}, {"--epochs": "1", "--seeds": "1"}),
    "study best": Valid({"name": "good"}),
    "study list": Valid(),
    "study show": Valid({"name": "good"}),
    "study export": Valid({"name": "good"}),
    "study effects": Valid({"name": "good"}),
    "study report": Valid({"name": "good"}),
    "paper": Valid({}, {"--estimate": None, "--images": "20", "--epochs": "1", "--size": "32"}),
    "storage serve": Valid({"address": "postgresql://127.0.0.1:1/x"}),
    "profile model": Valid({"arch": "tiny.json"}, {"--seconds": "0.1"}),
    "profile layer": Valid({"words": "conv in=4 out=4 size=8"}, {"--seconds": "0.1"}),
    "profile peaks": Valid(),
    "profile trace": Valid({"arch": "tiny.json"}),
    "profile backends": Valid({"arch": "tiny.json"}, {"--backends": "eager", "--seconds": "0.1"}),
    "profile explain": Valid({"a": "tiny.json", "b": "tiny.json"}, {"--seconds": "0.1"}),
    "profile calibrate": Valid({}, {"--space": "tiny-space.yaml", "--minutes": "0.01"}),
    "profile predict": Valid({"archs": "tiny.json"}),
    "space list": Valid(),
    "space show": Valid({"name": "tiny-space.yaml"}),
    "space sample": Valid({"name": "tiny-space.yaml"}),
    "data preview": Valid({"kind": "faces"}, {"--size": "16", "--rows": "1"}),
    "data export": Valid({"kind": "faces", "directory": "exported"}, _SMALL),
    "data info": Valid({"folder": "celeba/img_align_celeba"}),
    "data cache fill": Valid({"folder": "celeba/img_align_celeba"}, {"--size": "16"}),
    "data cache list": Valid(),
    "data cache clear": Valid(),
    "reconstruct": Valid({"model": "good#2", "images": "celeba/img_align_celeba/000001.jpg"}),
    "bench search": Valid(
        {}, {"--samplers": "random", "--seeds": "1", "--trials": "5", "--no-figures": None}
    ),
    "bench study": Valid({}, {"--name": "replayed"}),
    "bench list": Valid(),
    "target add": Valid({"name": "new"}, {"--host": "192.0.2.1"}),
    "target list": Valid(),
    "target remove": Valid({"name": "here"}),
    "target check": Valid({"name": "here"}, {"--seconds": "1"}),
    "compress": Valid({"trial": "good#2"}, {"--prune": "0.5", "--epochs": "1", "--seeds": "1"}),
    "deploy": Valid(
        {"model": "good#2"},
        {"--backends": "onnxruntime", "--precision": "float32", "--seconds": "0.1"},
    ),
    "export": Valid({"model": "good#2"}, {"--onnx": "tiny.onnx"}),
}
"""A valid and short call of every command; `cases` fails on a command that is not listed."""

_BY_NAME: dict[str, tuple[Bad, ...]] = {
    **dict.fromkeys(("arch", "archs", "architecture", "a", "b"), values.ARCHITECTURES),
    **dict.fromkeys(("--name", "--warm-start", "study name"), values.NAMES),
    **dict.fromkeys(("study old", "study new", "study compare a", "study compare b"), values.NAMES),
    **dict.fromkeys(("--space", "space name"), values.SPACES),
    **dict.fromkeys(("--path", "--celeba", "--folder", "--weights"), values.IN_PATHS),
    **dict.fromkeys(("--out", "--onnx", "directory"), values.OUT_PATHS),
    "--root": values.tolerated(*values.IN_PATHS, *values.OUT_PATHS),  # some do not read it
    "paper --celeba": values.tolerated(*values.IN_PATHS),  # an estimate reads no image
    "paper --folder": values.tolerated(*values.IN_PATHS),
    "paper --attribute": values.tolerated(*values.ATTRIBUTES),
    **dict.fromkeys(("--sampler", "--focus"), values.CHOICES),
    "--fit": values.CHOICES,
    "data folder": values.IN_PATHS,
    "data --size": values.PIXELS,
    "reconstruct model": values.MODELS,
    "deploy model": tuple(one for one in values.MODELS if one.text != "good"),  # a study
    "export model": (*values.MODELS, *values.ARCHITECTURES),
    "deploy --images": values.IN_PATHS,
    "compress trial": values.ARCHITECTURES,
    "--prune": values.SHARES,
    "--distil": values.TEACHERS,
    "--quantize": values.BACKENDS,
    "reconstruct images": values.IN_PATHS,
    "profile backends --images": values.IN_PATHS,
    "--backend": values.CHOICES,
    "--part": values.CHOICES,
    "--precision": values.CHOICES,
    "--against": values.CHOICES,
    "--target": values.TARGETS,
    "--samplers": values.SAMPLERS,
    "--backends": values.BACKENDS,
    "--objectives": values.OBJECTIVES,
    **dict.fromkeys(("--loss", "--recipe", "--curves"), values.PARTS),
    "--by": values.CHOICES,
    "--batch": (*values.INTEGERS, *values.BATCHES),
    "--sweep": values.SWEEPS,
    "--set": values.SETTINGS,
    "--limit": values.LIMITS,
    "--device": values.DEVICES,
    "--trial-timeout": values.TIMES,
    "--trial-memory": values.SIZES,
    "--runner": values.RUNNERS,
    "--address": values.ADDRESSES,
    "--storage": values.STORAGES,
    "address": values.STORAGES,
    "--artefacts": values.STORES,
    "--attribute": values.ATTRIBUTES,
    "--host": values.HOSTS,
    "target add --host": values.SSH_HOSTS,
    "--python": values.INTERPRETERS,
    "--ssh-option": values.SSH_OPTIONS,
    **dict.fromkeys(("target name", "target add name"), values.TARGETS),
    "config": values.CONFIGS,
    "words": values.LAYERS,
    "kind": values.KINDS,
}
"""Malformed values by option, by argument, or by command and argument."""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command of `nas` with its name, such as `study run`."""
    from studies.cli.main import nas

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            yield name, command
            return
        context = click.Context(command)
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from walk(f"{name} {inner}".strip(), found)

    return walk("", nas)


def option_cases() -> Iterator[Case]:
    """Yield the cases of malformed command lines."""
    for name, command in commands():
        valid = VALID[name]
        yield from _unusable_lines(name, valid)
        for parameter in command.params:
            where = _where(parameter)
            for bad in _bad_values(name, parameter):
                arguments = _line(name, command, valid, parameter, bad.text)
                yield Case(f"{name} {where}", arguments, may_pass=bad.may_pass)
    for words in (("",), ("x",), ("stdy",), ("study", "x"), ("x" * 5000,), ("\x1b[2J",)):
        yield Case("command", words)


def _unusable_lines(name: str, valid: Valid) -> Iterator[Case]:
    words = (*name.split(), *_words(valid.arguments), *_spelt(valid.options))
    for extra in ("--no-such", "--" + "x" * 5000, "-?", "--\x1b[2J", "--=", "-\udcff"):
        yield Case(f"{name} (unknown option)", (*words, extra))
    if not {"archs", "words", "images"} & valid.arguments.keys():
        yield Case(f"{name} (one word too many)", (*words, "surplus"))
        yield Case(f"{name} (many words too many)", (*words, *["surplus"] * 3000))
    if valid.arguments and name != "data preview":
        yield Case(f"{name} (no argument)", tuple(name.split()))


def _where(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return str(parameter.name)


def _bad_values(command: str, parameter: click.Parameter) -> tuple[Bad, ...]:
    where, kind = _where(parameter), parameter.type
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return values.FLAGS
    group = command.split(maxsplit=1)[0]
    for key in (f"{command} {where}", f"{group} {where}", where):
        if key in _BY_NAME:
            return _BY_NAME[key]
    if isinstance(kind, click.Choice):
        return values.CHOICES
    if "int" in kind.name:
        return values.INTEGERS
    if "float" in kind.name or "number" in kind.name:
        return values.NUMBERS
    raise KeyError(f"no malformed values for {command} {where}: add them to _BY_NAME")


def _line(
    name: str, command: click.Command, valid: Valid, parameter: click.Parameter, text: str
) -> tuple[str, ...]:
    where = _where(parameter)
    if isinstance(parameter, click.Argument):
        replaced = {**valid.arguments, str(parameter.name): text}
        # `--` lets an argument begin with a dash.
        return (*name.split(), *_spelt(valid.options), "--", *replaced.values())
    aliases = set(parameter.opts)
    options = {key: value for key, value in valid.options.items() if key not in aliases}
    flag = isinstance(parameter, click.Option) and parameter.is_flag
    bad = (f"{where}{text}",) if flag else (where, text)
    return (*name.split(), *_words(valid.arguments), *_spelt(options), *bad)


def _words(arguments: Mapping[str, str]) -> list[str]:
    return list(
        itertools.chain.from_iterable(
            value.split() if key == "words" else [value] for key, value in arguments.items()
        )
    )


def _spelt(options: Options) -> list[str]:
    return [word for key, value in options.items() for word in (key, value) if word is not None]
