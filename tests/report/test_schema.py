"""`schema/verdict-1.json` says what our verdicts are, and the two change together."""

import json
from importlib.resources import files

import jsonschema
import pytest
from tests.report import samples

from rankguard import model
from rankguard.model import Verdict

SCHEMA = json.loads((files("rankguard") / "schema" / "verdict-1.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", sorted(samples.ALL))
def test_samples_are_valid(name):
    data = json.loads(samples.ALL[name]().to_json())

    assert [f"{e.json_path}: {e.message}" for e in VALIDATOR.iter_errors(data)] == []


def properties(schema):
    return set((schema.get("anyOf") or [schema])[0].get("properties", {}))


@pytest.mark.parametrize(
    ("noun", "schema"),
    [
        (Verdict, SCHEMA),
        (model.Culprit, SCHEMA["$defs"]["culprit"]),
        (model.RankOutcome, SCHEMA["$defs"]["rank"]),
        (model.Cause, SCHEMA["$defs"]["cause"]),
        (model.ExceptionInfo, SCHEMA["$defs"]["exception"]),
        (model.Ending, SCHEMA["$defs"]["ending"]),
        (model.Memory, SCHEMA["$defs"]["memory"]),
        (model.Progress, SCHEMA["$defs"]["progress"]),
        (model.Evidence, SCHEMA["$defs"]["cause"]["properties"]["evidence"]["items"]),
        (model.Responsible, SCHEMA["$defs"]["cause"]["properties"]["responsible"]["items"]),
        *(
            (noun, SCHEMA["properties"][field])
            for noun, field in [
                (model.Retry, "retry"),
                (model.OrderBasis, "order"),
                (model.StoppedBy, "stopped_by"),
                (model.MemoryState, "memory"),
                (model.Teardown, "teardown"),
            ]
        ),
        *(
            (noun, SCHEMA["properties"][field]["items"])
            for noun, field in [
                (model.Attempt, "attempts"),
                (model.Moment, "timeline"),
                (model.Reported, "reported"),
                (model.Process, "processes"),
            ]
        ),
        (model.Left, SCHEMA["properties"]["teardown"]["properties"]["left"]["items"]),
        (model.Survivor, SCHEMA["properties"]["teardown"]["properties"]["survivors"]["items"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fields_are_those_of_the_nouns(noun, schema):
    assert set(noun._fields) == properties(schema)


def test_enums_are_those_of_the_nouns():
    definitions = SCHEMA["$defs"]

    assert [f.value for f in model.Family] == definitions["cause"]["properties"]["family"]["enum"]
    assert [c.value for c in model.Confidence] == definitions["confidence"]["enum"]
    assert [p.value for p in model.Phase] == definitions["phase"]["enum"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("outcome",), "broken"),
        (("owner",), "nobody"),
        (("retry", "advice"), "maybe"),
        (("culprit", "cause", "family"), "network"),
        (("culprit", "cause", "confidence"), "sure"),
        (("culprit", "ending", "kind"), "gone"),
        (("ranks", 0, "relation"), "victim"),
        (("started_at",), "2026-11-22 08:14:03"),
        (("culprit", "elapsed_s"), "14.2"),
        (("schema",), "rankguard.verdict/2"),
    ],
)
def test_what_the_contract_does_not_know_is_refused(path, value):
    data = json.loads(samples.oom().to_json())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value

    assert not VALIDATOR.is_valid(data)


def test_a_field_that_is_missing_is_refused():
    data = json.loads(samples.oom().to_json())
    for field in SCHEMA["required"]:
        assert not VALIDATOR.is_valid({key: value for key, value in data.items() if key != field})


def test_fields_and_kinds_may_be_added():
    data = json.loads(samples.oom().to_json())
    data["later"] = data["culprit"]["later"] = 1
    data["culprit"]["cause"]["kind"] = "later"

    assert VALIDATOR.is_valid(data)


def test_only_failures_have_a_culprit():
    data = json.loads(samples.oom().to_json())

    assert not VALIDATOR.is_valid(data | {"outcome": "succeeded"})
