"""From what an experiment says about its cluster to replicas with nothing left to look up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from caesura.config.profiles import profile_reference, replica_profile
from caesura.config.schema import Experiment, ReplicaSection
from caesura.config.systems import System, as_rule
from caesura.config.yaml_source import Source
from caesura.errors import ConfigError, UserError
from policies.registry import UnknownPolicy, make_order, make_policy, make_router
from sim.costs.profile import Profile
from sim.engine.settings import EngineSettings
from sim.world.cluster import Link
from sim.world.simulate import ReplicaSpec


@dataclass(frozen=True)
class Group:
    """Replicas that are alike.

    Attributes:
        count: how many.
        profile: costs and capacities of each.
        reference: the profile's name or, for one of the user's own, the absolute path.
        engine: settings that override those of the system.
    """

    count: int
    profile: Profile
    reference: str
    engine: dict[str, Any]


@dataclass(frozen=True)
class ClusterSetup:
    """A cluster, ready to be simulated in any process.

    Attributes:
        groups: its replicas, in the order of their indices.
        router: name and parameters.
        link: copies contexts between replicas; None recomputes them.
    """

    groups: tuple[Group, ...]
    router: dict[str, Any]
    link: Link | None

    @property
    def count(self) -> int:
        """All replicas."""
        return sum(group.count for group in self.groups)

    def under(self, system: System) -> ClusterSetup:
        """The cluster with the router that a system names, or its own."""
        return self if system.router is None else replace(self, router=system.router)

    def specs(self, system: System) -> list[ReplicaSpec]:
        """What the replicas are built from when they run ``system``."""
        specs = []
        for group in self.groups:
            settings = EngineSettings.model_validate(system.engine.model_dump() | group.engine)
            policy, order = partial(make_policy, system.policy), partial(make_order, system.order)
            specs += [ReplicaSpec(group.profile, settings, policy, order)] * group.count
        return specs

    def written(self) -> dict[str, Any]:
        """As an experiment file says it, with nothing left to defaults."""
        groups = [
            {
                "count": group.count,
                "profile": group.reference,
                "kv_capacity": f"{group.profile.kv_capacity_tokens} tokens",
                "host_capacity": f"{group.profile.host_capacity_tokens} tokens",
                **({"engine": group.engine} if group.engine else {}),
            }
            for group in self.groups
        ]
        link = self.link
        copies = {} if link is None else {"bandwidth": f"{link.bytes_per_s:.17g} B/s", "latency": link.latency_s}
        return {"replicas": groups, "router": self.router, **({"kv_transfer": copies} if copies else {})}


def find_cluster(
    experiment: Experiment, source: Source, base: Path, systems: Sequence[System], faults: list[str]
) -> ClusterSetup | None:
    """The cluster of an experiment; None where there is none, or where it does not hold."""
    if experiment.cluster is None:
        for index, system in enumerate(systems):
            if system.router is not None:
                faults.append(source.fault(("systems", index, "router"), "there is no cluster for it to route in"))
        return None
    before = len(faults)
    groups = _groups(experiment, source, base, faults)
    transfer, router = experiment.cluster.kv_transfer, as_rule(experiment.cluster.router)
    link = None if transfer is None else Link(transfer.bandwidth, transfer.latency)
    cluster = ClusterSetup(tuple(groups), router, link)
    stays = _check_routers(cluster, source, systems, faults)
    sizes = {group.profile.kv_bytes_per_token for group in groups}
    if not stays and len(sizes) > 1:
        fault = f"sessions may move between replicas, whose profiles differ in bytes of KV per token ({sorted(sizes)})"
        faults.append(source.fault(("cluster", "replicas"), fault))
    return cluster if len(faults) == before else None


def _groups(experiment: Experiment, source: Source, base: Path, faults: list[str]) -> list[Group]:
    cluster, alike = experiment.cluster, experiment.replica
    assert cluster is not None
    groups = []
    for index, group in enumerate(cluster.replicas):
        profile = group.profile or alike.profile
        kept = {} if group.profile else {"kv_capacity": alike.kv_capacity, "host_capacity": alike.host_capacity}
        given = {"kv_capacity": group.kv_capacity, "host_capacity": group.host_capacity}
        sizes = kept | {name: size for name, size in given.items() if size is not None}
        replica = ReplicaSection(profile=profile).model_copy(update=sizes)
        try:
            found = replica_profile(replica, base)
        except ConfigError as error:
            faults.extend(error.faults)
        except UserError as error:
            faults.append(source.fault(("cluster", "replicas", index, "profile"), str(error)))
        else:
            engine = group.engine.model_dump(mode="json", exclude_unset=True)
            groups.append(Group(group.count, found, profile_reference(profile, base), engine))
    return groups


def _check_routers(cluster: ClusterSetup, source: Source, systems: Sequence[System], faults: list[str]) -> bool:
    """Every router can be made; whether all of them leave sessions where they began."""
    rules = [(("cluster", "router"), cluster.router)]
    places: list[tuple[tuple[str | int, ...], dict[str, Any]]] = [*rules]
    places += [
        (("systems", index, "router"), system.router)
        for index, system in enumerate(systems)
        if system.router is not None
    ]
    stays = True
    for at, rule in places:
        try:
            stays = make_router(rule).stateless and stays
        except UnknownPolicy as error:
            faults.append(source.fault(at, str(error)))
    return stays
