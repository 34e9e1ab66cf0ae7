import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from leaderboards.badges import Badge
from leaderboards.board import Board, board_of
from leaderboards.documents import json_document
from leaderboards.envelope import CAUTION, envelope, envelopes
from leaderboards.paired import holm
from leaderboards.pareto import front_of, pareto_front
from leaderboards.records import Entry
from leaderboards.standings import p_value, points, rank_range, standings
from leaderboards.tables import markdown_page
from leaderboards.training_seeds import families

MakeEntry = Callable[..., Entry]


def test_ties_with_the_best_and_what_is_told_apart(three: Board) -> None:
    best, near, far = standings(three)
    assert [standing.line.entry.name for standing in (best, near, far)] == ["best", "near", "far"]
    assert (best.against, best.difference, best.tied) == ((), 0.0, True)
    assert near.tied
    assert not far.tied
    assert far.against[0].told_apart
    assert (rank_range(best), rank_range(far)) == ("1–2", "3")
    # Holm over the two radii of all three pairs, and so at most six times the p-value of the one test.
    at = far.against[0]
    alone = binomtest(min(at.lost, at.gained), at.lost + at.gained).pvalue
    assert alone <= at.adjusted <= 6 * alone
    assert at.adjusted <= holm([alone, *[1.0] * 5])[0]
    scores = [line.scores for line in three.ranked]
    assert far.difference == pytest.approx(scores[2].mean_certified_accuracy - scores[0].mean_certified_accuracy)


def test_smaller_radii_are_tied_where_accuracies_are_the_same(make_entry: MakeEntry) -> None:
    """As of a certifier that stops once it has the radii asked for."""
    radii = np.random.default_rng(3).random(200) + 0.3
    stopped = np.floor(radii * 2) / 2 + 0.01
    entries = [make_entry("all", np.maximum(radii, stopped)), make_entry("stopped", stopped)]
    _, behind = standings(board_of(entries, ["0", "0.5", "1"]))
    assert behind.line.entry.name == "stopped"
    assert behind.wilcoxon < 0.001
    assert behind.tied


def test_standings_are_in_both_documents(three: Board) -> None:
    document = json.loads(json_document(three))["statistics"]
    assert [item["name"] for item in document["standings"]] == ["best", "near", "far"]
    assert [item["tied_with_best"] for item in document["standings"]] == [True, True, False]
    assert document["standings"][2]["mcnemar"][0]["p_holm_all_pairs_and_radii"] < 0.05
    assert document["simultaneous_band"]["half_width"] == pytest.approx(0.0955, abs=5e-4)
    page = markdown_page(three)
    (line,) = (line for line in page.splitlines() if line.startswith("| 3 | 3 | far"))
    at = document["standings"][2]["mcnemar"][0]
    assert rf"(-{at['lost']} +{at['gained']}) \*" in line
    assert "Holm over all pairs of entries and all radii" in page
    assert "within 9.5 points of the truth at all radii at once" in page


def test_verified_and_unverified_rows_stand_apart(make_entry: MakeEntry) -> None:
    badge = Badge(certifier={}, level=2, kit=1, seed=7)
    board = board_of([make_entry("a"), make_entry("b", conformance=badge), make_entry("c")], [0])
    found = standings(board)
    assert [(standing.line.entry.name, standing.best) for standing in found] == [("b", "b"), ("a", "a"), ("c", "a")]


def test_numbers_for_readers() -> None:
    assert [points(value) for value in (0.0, -0.0001, 0.0123, -0.5)] == ["0.0", "0.0", "+1.2", "-50.0"]
    assert [p_value(value) for value in (1e-9, 0.0123, 1.0)] == ["< 0.0001", "0.012", "1"]


# ---- training seeds


def seeded(entry: Entry, of: str, seed: int) -> Entry:
    return replace(entry, name=f"{of} · seed {seed}", details={"training_seed": {"of": of, "seed": seed}})


def test_families_have_mean_deviation_and_rank(make_entry: MakeEntry) -> None:
    generator = np.random.default_rng(5)
    shares = {"drt": (0.6, 0.7, 0.8), "adp": (0.3, 0.35, 0.4)}
    entries = [
        seeded(make_entry("x", np.where(generator.random(200) < share, 1.0, 0.2)), of, seed)
        for of, all_shares in shares.items()
        for seed, share in enumerate(all_shares)
    ]
    board = board_of([*entries, make_entry("alone", [0.2] * 200)], ["0.1", "0.5"])
    found = families(board)
    assert [(family.name, family.seeds, family.rank) for family in found] == [
        ("drt", (0, 1, 2), 1),
        ("adp", (0, 1, 2), 2),
        ("alone", (), 3),
    ]
    table = board.table().set_index("entry")
    own = [table.loc[f"drt · seed {seed}", "certified@0.5"] for seed in range(3)]
    assert found[0].certified.tolist() == pytest.approx([1.0, np.mean(own)])
    assert found[0].deviation.tolist() == pytest.approx([0.0, np.std(own, ddof=1)])
    assert found[0].mean == pytest.approx((1 + np.mean(own)) / 2)
    assert found[0].mean_deviation == pytest.approx(np.std(own, ddof=1) / 2)
    assert (found[0].rank_interval, found[2].rank_interval) == ((1, 1), (3, 3))
    assert np.isnan(found[2].mean_deviation)
    page = markdown_page(board)
    assert "## Training seeds" in page
    assert f"± {100 * np.std(own, ddof=1):.1f}" in page
    document = json.loads(json_document(board))["statistics"]["training_seeds"]
    assert [item["between_seed_deviation"] is None for item in document] == [False, False, True]


def test_equal_families_share_a_rank_and_unfinished_ones_have_none(make_entry: MakeEntry) -> None:
    entries = [seeded(make_entry("x"), of, seed) for of in ("a", "b", "c") for seed in range(3)]
    entries[8] = replace(entries[8], status="failed")
    found = families(board_of(entries, [0]))
    assert [(family.name, family.rank) for family in found] == [("a", 1), ("b", 1)]
    assert families(board_of([make_entry("a"), make_entry("b")], [0])) == ()


def test_what_is_not_verified_or_not_ours_is_ordered_with_nothing_that_is(
    make_entry: MakeEntry, verified: Callable[[Entry], Entry]
) -> None:
    """An unverified entry and a published log, better and faster than all, are in no family, front or envelope."""
    own = [verified(seeded(make_entry("x", [0.6] * 4), "m", seed)) for seed in range(3)]
    own += [verified(at_sigma(make_entry("x", [0.4] * 4), sigma)) for sigma in (0.25, 0.5)]
    better = at_sigma(make_entry("x", [1.0] * 4), 1.0)
    faster = replace(better, rows=better.rows.assign(seconds=1e-9))
    log = replace(faster, name="log", source="Somebody, 2020")
    board = board_of([*own, faster, log], [0, "0.5"])
    assert [family.name for family in families(board)] == ["m", "gaussian 0.25", "gaussian 0.5"]
    assert {line.entry.name for line in front_of(board)} == {f"m · seed {seed}" for seed in range(3)}
    assert [found.sigmas for found in envelopes(board)] == [(0.25, 0.5)]
    # Where nothing is verified, what was computed here is ordered all the same.
    assert [line.entry.name for line in front_of(board_of([faster, log], [0, "0.5"]))] == ["gaussian 1.0"]
    assert front_of(board_of([log], [0, "0.5"])) == ()


# ---- accuracy against time


def test_the_front_is_its_definition() -> None:
    generator = np.random.default_rng(6)
    for _ in range(50):
        accuracy, cost = generator.integers(0, 5, 12) / 5, generator.integers(0, 5, 12)
        expected = [
            not any(
                (accuracy[j] >= accuracy[i] and cost[j] <= cost[i]) and (accuracy[j] > accuracy[i] or cost[j] < cost[i])
                for j in range(12)
            )
            for i in range(12)
        ]
        assert pareto_front(accuracy, cost).tolist() == expected


def test_the_front_of_a_board_leaves_out_what_is_slower_and_no_better(
    make_entry: MakeEntry, make_rows: Callable[..., Any]
) -> None:
    def entry(name: str, radii: tuple[float, ...], seconds: float) -> Entry:
        return make_entry(name, rows=make_rows(radii, seconds=seconds), images=len(radii))

    board = board_of(
        [entry("slow", (1, 1, 1), 9), entry("fast", (1, 0.1, 0.1), 1), entry("silly", (1, 0.1, 0.1), 2)], [0, "0.5"]
    )
    assert [line.entry.name for line in front_of(board)] == ["fast", "slow"]
    assert [line.entry.name for line in front_of(board, 0)] == ["fast"]
    assert json.loads(json_document(board))["statistics"]["pareto_front"] == ["fast", "slow"]
    assert "## Accuracy against time" in markdown_page(board)


# ---- envelopes


def at_sigma(entry: Entry, sigma: float, objective: str = "gaussian") -> Entry:
    details = {
        "certifier": {"name": "smoothing", "version": 1, "parameters": {"sigma": sigma, "n": 100}},
        "aggregation": {"name": "single"},
        "training": [{"label": f"g{sigma}", "objective": {"name": objective, "sigma": sigma}, "start": [f"{sigma}"]}],
    }
    return replace(entry, name=f"{objective} {sigma}", ensemble=f"g{sigma}", details=details)


def test_envelopes_are_the_best_of_each_radius_and_say_what_they_are(make_entry: MakeEntry) -> None:
    small = at_sigma(make_entry("x", (0.4, 0.4, 0.4, None)), 0.25)
    large = at_sigma(make_entry("x", (1.5, 1.0, None, None)), 1.0)
    other = at_sigma(make_entry("x", (0.1, None, None, None)), 0.5, "drt")
    board = board_of([small, large, other], ["0.25", "1"])
    (found,) = envelopes(board)
    assert found.sigmas == (0.25, 1.0)
    assert [share.successes for share in found.shares] == [3, 2]
    assert found.best == (0, 1)
    page = markdown_page(board)
    assert "## Envelopes over sigma (not ranked)" in page
    assert "| 75.0 (0.25) | 50.0 (1) |" in page
    assert json.loads(json_document(board))["statistics"]["envelopes"][0]["caution"] == CAUTION
    # It takes no part in the ranking.
    assert len(board.ranked) == 3


def test_what_differs_in_more_than_sigma_has_no_envelope(make_entry: MakeEntry) -> None:
    one, two = (at_sigma(make_entry("x"), 0.25), at_sigma(make_entry("x"), 0.5, "drt"))
    assert envelopes(board_of([one, two], [0])) == ()
    same = replace(at_sigma(make_entry("x"), 0.25), name="again")
    assert envelopes(board_of([one, same], [0])) == ()
    with pytest.raises(ValueError, match="An envelope needs at least two entries with numbers, got 1 under 'a'"):
        envelope("a", {0.25: board_of([one], [0]).ranked[0]})
