"""A CycloneDX 1.6 bill of materials (ML-BOM) of the artifacts in a bundle.

The library cyclonedx-python-lib writes the skeleton. It knows neither `modelCard` nor `data`, so
these two are added to its JSON here, and the whole is validated against the schema of the
specification (ECMA-424, 1st edition: CycloneDX 1.6).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mobiledeploy import __version__
from mobiledeploy.core import records, units, untrusted
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import missing
from mobiledeploy.steps.bundle_environment import BundleEnvironment
from mobiledeploy.steps.model_card import BundleCard, CardArtifact, CardMetric, CardSource

_MODEL = "machine-learning-model"


def text(card: BundleCard, environment: BundleEnvironment) -> str:
    """The bill of materials as JSON: the same card and environment give the same text.

    Its serial number comes from its content, and it has no time.

    Raises:
        MissingError: cyclonedx-python-lib is not installed.
    """
    try:
        from cyclonedx.model.bom import Bom, BomMetaData
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output.json import JsonV1Dot6
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError as error:
        raise missing("cyclonedx") from error
    described = Component(
        name="mobiledeploy bundle",
        type=ComponentType.FILE,
        bom_ref="bundle",
        version=_version(card),
    )
    bom = Bom(components=_components(card, environment), metadata=BomMetaData(component=described))
    bom.metadata.tools.components.add(_library("mobiledeploy", __version__, "tool"))
    refs = {component.bom_ref.value: component for component in bom.components}
    models = [refs[_model_ref(artifact)] for artifact in card.artifacts]
    bom.register_dependency(described, models)
    for artifact, model in zip(card.artifacts, models, strict=True):
        sources = dict.fromkeys(_source_ref(source) for source in artifact.sources)
        bom.register_dependency(model, [refs[ref] for ref in sources])
    data = json.loads(JsonV1Dot6(bom).output_as_string())
    # The time of writing, and a random number.
    del data["metadata"]["timestamp"], data["serialNumber"]
    _complete(data, card)
    number = uuid.uuid5(uuid.NAMESPACE_OID, records.sha256(json.dumps(data).encode()))
    result = json.dumps(data | {"serialNumber": number.urn}, indent=1, sort_keys=True)
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(result)
    assert problem is None, problem
    return result


def check(content: bytes, hashes: Sequence[str], where: str) -> None:
    """InputError unless `content` is a bill of materials of exactly the models of these sha256."""
    data = untrusted.parse_json(content, where)
    try:
        is_bom = (data["bomFormat"], data["specVersion"]) == ("CycloneDX", "1.6")
        models = [c for c in data["components"] if c["type"] == _MODEL]
        named = [h["content"] for c in models for h in c["hashes"] if h["alg"] == "SHA-256"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{where} is no bill of materials of CycloneDX 1.6") from error
    if not is_bom:
        raise InputError(f"{where} is no bill of materials of CycloneDX 1.6")
    if sorted(named) != sorted(hashes):
        raise InputError(f"{where} is of other models than those of the bundle")


def _version(card: BundleCard) -> str:
    """A short name of the models' content."""
    joined = "".join(artifact.sha256 for artifact in card.artifacts)
    return records.sha256(joined.encode())[:12]


def _components(card: BundleCard, environment: BundleEnvironment) -> Iterator[Any]:
    from cyclonedx.model.component import Component, ComponentType

    for artifact in card.artifacts:
        yield Component(
            name=f"{artifact.model} {artifact.recipe}",
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=_model_ref(artifact),
            version=artifact.sha256[:12],
            description=f"{artifact.name}: {artifact.recipe_summary}",
            hashes=_hashes(artifact.sha256),
            licenses=_licences(artifact.sources[0]),
            properties=_properties(
                {
                    "path": artifact.name,
                    "format": artifact.format,
                    "recipe": artifact.recipe,
                    "size_bytes": str(artifact.size_bytes),
                    "command": artifact.command,
                    "paper": artifact.paper,
                }
            ),
        )
    for ref, source in _sources(card).items():
        yield Component(
            name=source.name or source.role,
            type=ComponentType.DATA,
            bom_ref=ref,
            description=f"{source.role} of the models",
            # The identity of images is a hash of ours, of their contents and labels.
            hashes=_hashes(source.sha256) if source.role == "weights" else (),
            licenses=_licences(source),
            properties=_properties({"role": source.role, "identity": source.sha256}),
        )
    for name, version in environment.packages.items():
        yield _library(name, version, "package")


def _library(name: str, version: str, role: str) -> Any:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return Component(
        name=name,
        type=ComponentType.LIBRARY,
        bom_ref=f"{role}:{name}",
        version=version,
        purl=PackageURL("pypi", name=name, version=version),
    )


def _hashes(sha256: str) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType

    return (HashType(alg=HashAlgorithm.SHA_256, content=sha256),) if sha256 else ()


def _licences(source: CardSource) -> Any:
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.spdx import is_supported_id

    if is_supported_id(source.licence):
        return (DisjunctiveLicense(id=source.licence),)
    return (DisjunctiveLicense(name=source.licence),)


def _properties(values: Mapping[str, str]) -> Any:
    from cyclonedx.model import Property

    return [Property(name=f"mobiledeploy:{key}", value=v) for key, v in values.items() if v]


def _sources(card: BundleCard) -> dict[str, CardSource]:
    """What the models were made of, each once, by its reference."""
    return {_source_ref(s): s for artifact in card.artifacts for s in artifact.sources}


def _model_ref(artifact: CardArtifact) -> str:
    return f"model:{artifact.name}"


def _source_ref(source: CardSource) -> str:
    return f"{source.role}:{source.sha256 or source.name}"


# What the library does not know


def _complete(data: dict[str, Any], card: BundleCard) -> None:
    """Adds the model cards and the kinds of data to the library's JSON."""
    models = {_model_ref(artifact): artifact for artifact in card.artifacts}
    sources = _sources(card)
    for component in data["components"]:
        ref = component["bom-ref"]
        if ref in models:
            component["modelCard"] = _model_card(models[ref])
        elif ref in sources:
            source = sources[ref]
            kind = "other" if source.role == "weights" else "dataset"
            component["data"] = [{"type": kind, "name": source.name or source.role}]


def _model_card(artifact: CardArtifact) -> dict[str, Any]:
    data_sets = dict.fromkeys(_source_ref(s) for s in artifact.sources if s.role != "weights")
    card: dict[str, Any] = {
        "modelParameters": {
            "task": artifact.task,
            "modelArchitecture": artifact.architecture,
            "datasets": [{"ref": ref} for ref in data_sets],
            "inputs": [
                {"format": f"{end.name}: {end.kind} {end.dtype} {list(end.shape)}"}
                for end in artifact.inputs
            ],
            "outputs": [{"format": f"{end.name}: {list(end.shape)}"} for end in artifact.outputs],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(artifact))},
    }
    if artifact.warnings:
        limits = [units.one_line(warning.text) for warning in artifact.warnings]
        card["considerations"] = {"technicalLimitations": limits}
    return card


def _metrics(artifact: CardArtifact) -> Iterator[dict[str, Any]]:
    for metric in artifact.metrics:
        yield _metric(metric)
    for one in artifact.latencies:
        value: dict[str, Any] = {
            "type": f"{one.kind}: instructions" if one.latency_ns is None else f"{one.kind}: ns",
            "value": repr(one.instructions if one.latency_ns is None else one.latency_ns),
            "slice": one.where,
        }
        if one.interval_ns:
            value["confidenceInterval"] = _interval(one.interval_ns)
        yield value


def _metric(metric: CardMetric) -> dict[str, Any]:
    where = ", ".join(filter(None, (metric.data, f"{metric.images} images", metric.slice)))
    result: dict[str, Any] = {"type": metric.name, "value": repr(metric.value), "slice": where}
    if metric.interval:
        result["confidenceInterval"] = _interval(metric.interval)
    return result


def _interval(ends: tuple[float, float]) -> dict[str, str]:
    return {"lowerBound": repr(ends[0]), "upperBound": repr(ends[1])}
