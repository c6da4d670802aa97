"""What the faults come from: each issue and each mistake names faults that there are."""

from __future__ import annotations

import tomllib
from importlib import resources

from nnspec.conformance.faults import catalogue
from nnspec.conformance.requirements import requirements

ORIGINS = tomllib.loads(resources.files("nnspec.conformance.faults").joinpath("origins.toml").read_text("utf-8"))
NAMED = {**ORIGINS["issues"], **ORIGINS["mistakes"]}


def test_every_key_is_a_fault_of_the_catalogue():
    assert {key for keys in NAMED.values() for key in keys} - catalogue().keys() == set()


def test_no_list_is_empty_or_names_a_fault_twice():
    assert [origin for origin, keys in NAMED.items() if not keys or len(set(keys)) < len(keys)] == []


def test_no_issue_is_both_emulated_and_left_out():
    assert ORIGINS["issues"].keys() & ORIGINS["left_out"].keys() == set()


def test_every_issue_that_is_left_out_has_a_reason():
    assert [issue for issue, reason in ORIGINS["left_out"].items() if not reason.endswith(".")] == []


def test_a_fault_tells_where_it_is_known_from_and_what_to_do_instead():
    fault = catalogue()["max_pool2d.padding.never-wins/zeros"]
    assert "elixir-nx/nx#185" in fault.origin
    assert fault.fix == requirements()["max_pool2d.padding.never-wins"].sentence
    assert catalogue()["max_pool2d.padding.never-wins/billion"].origin.startswith("seen in public code: ")
