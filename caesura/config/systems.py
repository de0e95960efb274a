"""Systems: named presets of policies and engine settings, and what tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from caesura.config import paths
from caesura.config.reject_bool import Rule
from caesura.config.renamed import rename_settings
from caesura.config.schema import NAME, SystemEntry
from caesura.config.validation import validated
from caesura.config.yaml_source import Loc, Source, read_yaml
from caesura.errors import ConfigError, UserError, did_you_mean
from sim.engine.settings import EngineSettings


class PresetFile(BaseModel):
    """What ``configs/systems/NAME.yaml`` may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: str = ""
    origin: str = Field(default="", description="where the rules come from: a paper, a code base")
    extends: str | None = Field(default=None, description="another preset; the keys here override its keys")
    policy: Rule | None = None
    order: Rule | None = None
    engine: EngineSettings = EngineSettings()


@dataclass(frozen=True)
class System:
    """A system with nothing left to look up.

    Attributes:
        name: what tables and figures call it.
        preset: the preset it was made from; empty for one of the user's own.
        summary: one line.
        origin: where its rules come from.
        policy: name of the intercept policy and its parameters.
        order: name of the queue order and its parameters.
        engine: all engine settings.
        router: name of the router and its parameters; None leaves it to the cluster.
    """

    name: str
    preset: str = field(compare=False)
    summary: str = field(compare=False)
    origin: str = field(compare=False)
    policy: dict[str, Any]
    order: dict[str, Any]
    engine: EngineSettings
    router: dict[str, Any] | None = None

    def rules(self) -> dict[str, Any]:
        """Everything that decides what this system does, as plain data; its name and origin are not part of it."""
        router = {} if self.router is None else {"router": self.router}
        return {"policy": self.policy, "order": self.order, "engine": self.engine.model_dump(mode="json"), **router}

    def settings(self) -> dict[str, str]:
        """The rules as flat ``key -> text``, for tables."""
        flat = {"policy": _rule_text(self.policy), "order": _rule_text(self.order)}
        flat |= {} if self.router is None else {"router": _rule_text(self.router)}
        return flat | {f"engine.{key}": _text(value) for key, value in self.engine.model_dump(mode="json").items()}


def preset_names() -> list[str]:
    """Every preset that ships, sorted."""
    return sorted(file.stem for file in paths.systems().glob("*.yaml"))


def load_preset(name: str, base: Path | None = None) -> System:
    """The system that a preset describes; ``name`` may be the path of a preset file, relative to ``base``.

    Raises:
        UserError: no such preset or file, or presets that extend each other in a circle.
        ConfigError: a preset file that does not hold.
    """
    chain = _chain(name, base)
    policy, order = _first(file.policy for file in chain), _first(file.order for file in chain)
    if policy is None:
        raise UserError(f"the preset {name} has no policy, nor has what it extends")
    return System(
        name=Path(name).stem if _is_path(name) else name,
        preset=name,
        summary=_first(file.summary or None for file in chain) or "",
        origin=_first(file.origin or None for file in chain) or "",
        policy=as_rule(policy),
        order=as_rule(order or "fcfs"),
        engine=_merged([file.engine for file in reversed(chain)]),
    )


def resolve(entry: str | SystemEntry, base: Path) -> System:
    """The system that an entry of an experiment describes.

    Raises:
        UserError: an unknown preset.
        ConfigError: a preset file that does not hold.
    """
    if isinstance(entry, str):
        return load_preset(entry, base)
    start = load_preset(entry.preset, base) if entry.preset else None
    policy = entry.policy if entry.policy is not None else (start.policy if start else "")
    order = entry.order if entry.order is not None else (start.order if start else "fcfs")
    return System(
        name=entry.name or (start.name if start else ""),
        preset=entry.preset or "",
        summary=start.summary if start else "",
        origin=start.origin if start else "given in the experiment",
        policy=as_rule(policy),
        order=as_rule(order),
        engine=_merged([start.engine, entry.engine] if start else [entry.engine]),
        router=None if entry.router is None else as_rule(entry.router),
    )


def as_rule(rule: str | dict[str, Any]) -> dict[str, Any]:
    """A policy or an order as ``{"name": ..., parameters}``, whichever way it was written."""
    return {"name": rule} if isinstance(rule, str) else dict(rule)


def differences(systems: Sequence[System]) -> dict[str, list[str]]:
    """The settings in which these systems differ: ``key -> one text per system``. What is alike is not listed."""
    settings = [system.settings() for system in systems]
    keys = list(dict.fromkeys(key for one in settings for key in one))
    rows = {key: [one.get(key, "") for one in settings] for key in keys}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def check_names(systems: Sequence[System], source: Source) -> None:
    """Names are distinct and can name a folder.

    Raises:
        ConfigError: naming the entry.
    """
    seen: dict[str, int] = {}
    faults = []
    for index, system in enumerate(systems):
        at: Loc = ("systems", index)
        if system.name in seen:
            advice = "give one of them another name, as in {preset: vllm, name: vllm-2}"
            faults.append(source.fault(at, f"{system.name!r} is listed already (item {seen[system.name]}); {advice}"))
        elif not NAME.fullmatch(system.name):
            faults.append(source.fault(at, f"{system.name!r} cannot name a folder; give the system a name"))
        seen.setdefault(system.name, index)
    if faults:
        raise ConfigError(faults)


def _chain(name: str, base: Path | None) -> list[PresetFile]:
    """The preset, then what it extends, and so on."""
    chain: list[PresetFile] = []
    seen: list[Path] = []
    while True:
        file = _preset_path(name, base)
        if file in seen:
            circle = " -> ".join(path.stem for path in [*seen, file])
            raise UserError(f"{file}: presets extend each other in a circle: {circle}")
        seen.append(file)
        source = read_yaml(file)
        rename_settings(source)
        preset = validated(PresetFile, source)
        chain.append(preset)
        if preset.extends is None:
            return chain
        name, base = preset.extends, file.parent


def _preset_path(name: str, base: Path | None) -> Path:
    if _is_path(name):
        return ((base or Path()) / name).resolve()
    file = paths.systems() / f"{name}.yaml"
    if not file.is_file():
        raise UserError(f"unknown system {name!r}{did_you_mean(name, preset_names())} (see `caesura systems`)")
    return file


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _first(values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _merged(settings: Sequence[EngineSettings]) -> EngineSettings:
    """Later settings win where they were given explicitly."""
    given: dict[str, Any] = {}
    for one in settings:
        given |= one.model_dump(exclude_unset=True)
    return EngineSettings.model_validate(given)


def _rule_text(rule: dict[str, Any]) -> str:
    parameters = ", ".join(
        f"{key}: {_rule_text(as_rule(value)) if isinstance(value, dict) else _text(value)}"
        for key, value in rule.items()
        if key != "name"
    )
    return f"{rule.get('name', '')} ({parameters})" if parameters else str(rule.get("name", ""))


def _text(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
