from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.adapters.spec import MAX_LABELS, OPTIONAL, AdapterSpec, BottleneckSpec
from isogloss.core.errors import AdapterConfigError, InvalidLocaleError, IsoglossError

SPEC = AdapterSpec(
    locale="gsw-CH",
    task="intent",
    rank=8,
    targets=("query", "value"),
    labels=("refund", "возврат", "退款"),
    head="xlm-roberta-classification",
    base="xlm-roberta-base",
    base_fingerprint="0123456789abcdef" * 4,
    metrics={"accuracy": 0.5, "macro_f1": 1.0},
    data_digest="ab" * 32,
    training={"epochs": 3, "seed": 7, "learning_rate": 1e-4, "nested": {"a": [1, None, "x"]}},
    created_at="2025-01-31T12:00:00Z",
    parent="cd" * 32,
    pooling="cls",
    prefix_length=5,
    prefix_positions="kept",
    bottleneck=BottleneckSpec(placement="houlsby", size=4, activation="swish", scaling=0.5),
)


def content(**changes: object) -> bytes:
    return json.dumps(json.loads(SPEC.to_json()) | changes).encode()


def refused(raw: bytes, *parts: str) -> None:
    with pytest.raises(AdapterConfigError) as caught:
        AdapterSpec.from_json(raw)
    message = str(caught.value)
    assert message.startswith("isogloss.json: ")
    assert "\n" not in message
    assert len(message) < 400
    for part in parts:
        assert part in message


def test_what_is_written_is_read_back() -> None:
    assert AdapterSpec.from_json(SPEC.to_json()) == SPEC


def test_every_field_has_its_own_value_above() -> None:
    """Else a field that is lost on the way would not be missed."""
    defaults = AdapterSpec(locale="de", task="other", base="b")
    same = {
        f.name for f in fields(AdapterSpec) if getattr(SPEC, f.name) == getattr(defaults, f.name)
    }
    assert same == {"task_type", "kind", "format"}


def test_equal_specs_give_equal_bytes_and_text_stays_readable() -> None:
    again = AdapterSpec.from_json(SPEC.to_json())
    assert again.to_json() == SPEC.to_json()
    text = SPEC.to_json().decode()
    assert "возврат" in text
    assert text.endswith("}\n")
    assert text != replace(SPEC, labels=SPEC.labels[::-1]).to_json().decode()


def test_fields_that_an_adapter_has_no_use_for_are_not_named() -> None:
    """So the file of a version from before there were such adapters keeps its bytes."""
    spec = AdapterSpec(locale="de", task="intent", base="mini")
    named = json.loads(spec.to_json()).keys()
    assert named == {field.name for field in fields(AdapterSpec)} - set(OPTIONAL)
    assert set(OPTIONAL) <= json.loads(SPEC.to_json()).keys()


def test_only_locale_task_and_base_must_be_there() -> None:
    smallest = {"locale": "de", "task": "intent", "base": "mini"}
    spec = AdapterSpec.from_json(json.dumps(smallest).encode())
    assert spec == AdapterSpec(locale="de", task="intent", base="mini")
    assert (spec.task_type, spec.kind) == ("sequence-classification", "lora")
    for name in smallest:
        rest = {key: value for key, value in smallest.items() if key != name}
        refused(json.dumps(rest).encode(), f"{name}: Field required")


def test_it_can_not_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        SPEC.task = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("locale", 5),
        ("locale", None),
        ("locale", "de-" + "x" * 300),
        ("task", ""),
        ("task", "Intent"),
        ("task", "../intent"),
        ("task", "intent\n"),
        ("task", "-intent"),
        ("task", "a" * 65),
        ("task_type", "classification"),
        ("kind", "LORA"),
        ("rank", 0),
        ("rank", -4),
        ("rank", "four"),
        ("rank", 1.5),
        ("targets", "query"),
        ("targets", [1]),
        ("labels", "abc"),
        ("labels", [1]),
        ("labels", {"a": 0}),
        ("base", None),
        ("base", "b" * 256),
        ("base_fingerprint", "0" * 63),
        ("base_fingerprint", "A" * 64),
        ("base_fingerprint", "0" * 64 + "\n"),
        ("metrics", {"accuracy": "high"}),
        ("metrics", {"accuracy": None}),
        ("metrics", {"accuracy": float("nan")}),
        ("metrics", {"accuracy": float("inf")}),
        ("training", []),
        ("training", 1),
        ("pooling", "max"),
        ("prefix_length", 0),
        ("prefix_length", 513),
        ("prefix_positions", "anywhere"),
        ("bottleneck", {}),
        ("bottleneck", {"placement": "houlsby"}),
        ("bottleneck", {"placement": "parallel", "size": 4}),
        ("bottleneck", {"placement": "houlsby", "size": 0}),
        ("bottleneck", {"placement": "houlsby", "size": 4097}),
        ("bottleneck", {"placement": "houlsby", "size": 4, "activation": "gelu_new"}),
        ("bottleneck", {"placement": "houlsby", "size": 4, "scaling": "learned"}),
        ("bottleneck", {"placement": "houlsby", "size": 4, "ln_before": True}),
        ("created_at", 5),
        ("parent", 5),
        ("format", 2),
        ("format", "1"),
    ],
)
def test_ill_typed_fields_are_named(field: str, value: object) -> None:
    refused(content(**{field: value}), f"isogloss.json: {field}")


def test_nan_is_no_json() -> None:
    refused(content(training={"schedule": [{"rate": float("nan")}]}), "nan")
    with pytest.raises(ValueError, match="nan"):
        replace(SPEC, metrics={"accuracy": float("nan")}).to_json()


def test_unknown_fields_are_refused() -> None:
    refused(content(surprise=1), "surprise")


def test_too_many_labels() -> None:
    most = [str(number) for number in range(MAX_LABELS)]
    assert len(AdapterSpec.from_json(content(labels=most)).labels) == MAX_LABELS
    refused(content(labels=[*most, "one more"]), "labels", str(MAX_LABELS))


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b'{"locale": "\\ud800"}'],
    ids=["empty", "cut", "list", "null", "string", "bytes", "deep", "surrogate"],
)
def test_what_is_no_spec(raw: bytes) -> None:
    refused(raw)


def test_a_field_that_occurs_deeply_nested() -> None:
    raw = content(training={"a": 1}).replace(b'{"a": 1}', b'{"a":' * 50_000 + b"1" + b"}" * 50_000)
    refused(raw)


@pytest.mark.parametrize(
    ("locale", "canonical"), [("GSW-ch", "gsw-CH"), ("zh_hant", "zh-Hant"), ("DE", "de")]
)
def test_the_canonical_form_is_asked_for(locale: str, canonical: str) -> None:
    refused(content(locale=locale), repr(locale), f"canonical form is {canonical}")


@pytest.mark.parametrize("locale", ["tw-GH", "iw", "en-UK"])
def test_a_locale_that_has_become_an_alias_stays_readable(locale: str) -> None:
    assert AdapterSpec.from_json(content(locale=locale)).locale == locale


@pytest.mark.parametrize("locale", ["", "english", "de-", "-", "d", "../etc", "de\n"])
def test_what_is_no_locale(locale: str) -> None:
    with pytest.raises(InvalidLocaleError) as caught:
        AdapterSpec.from_json(content(locale=locale))
    assert "\n" not in str(caught.value)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=5,
)


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_any_content_is_read_and_written_the_same_or_refused(data: st.DataObject) -> None:
    names = sorted(field.name for field in fields(AdapterSpec))
    changes = data.draw(st.dictionaries(st.sampled_from(names), JSON, max_size=2))
    try:
        spec = AdapterSpec.from_json(content(**changes))
    except IsoglossError as error:
        assert "\n" not in str(error)
        return
    written = spec.to_json()
    assert AdapterSpec.from_json(written).to_json() == written
    json.loads(written, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
