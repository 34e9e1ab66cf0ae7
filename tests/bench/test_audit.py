"""`certbench audit`: honest runs stand, planted false certificates fall, and the board says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import torch
from click.testing import Result

from bench.audit_store import write_audits
from bench.auditing import AuditOptions, audit
from bench.keys import digest
from bench.store import Store
from certifiers import ThreatModel
from certifiers.conformance import Effort, distance
from certifiers.smoothing import Smoothing
from ensembles import WeightedAverage, checkpoint
from leaderboards import read_rows, read_run
from leaderboards.audits import AUDIT_SCHEMA, read_audits
from tests.bench.test_exit_codes import certify_with

QUICK = ("--steps", 8, "--restarts", 2, "--samples", 4000)

#: The first entry is certified by what a test says, the others by smoothing; four images.
FOUR = ("every = 18", "every = 100")


@pytest.fixture
def with_radius(
    trained: Path, tmp_path: Path, edited: Any, scripted: Any, certbench: Callable[..., Result]
) -> Callable[[float], Path]:
    """The store of a run whose first entry claims one radius for every image, true or not."""

    def run(radius: float) -> Path:
        scripted(lambda _classifier, x, *_: torch.full((len(x),), radius, dtype=torch.float64), "claims")
        (tmp_path / "tiny.toml").write_text(edited(*certify_with("claims"), FOUR))
        result = certbench("run", tmp_path / "tiny.toml", "--output", trained)
        assert result.exit_code == 0, result.stderr
        return trained

    return run


def entry_of(store: Path, name: str = "single") -> Any:
    return {entry.name: entry for entry in read_run(store / "runs" / "tiny" / "run.json").entries}[name]


def files(store: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.glob(pattern))}


def test_an_honest_run_stands_and_has_tightness_columns(
    with_radius: Callable[[float], Path], certbench: Callable[..., Result]
) -> None:
    store = with_radius(1e-3)
    rows = files(store, "cells/*/rows-*")
    result = certbench("audit", "tiny", "--output", store, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert "UNSOUND" not in result.stdout
    assert "single: 4 of 4 certificates audited, 0 refuted, tightness 0.0" in result.stdout
    assert files(store, "cells/*/rows-*") == rows
    audited = entry_of(store).audit
    assert (audited.certificates, audited.audited, audited.refuted, audited.enclosed) == (4, 4, 0, 4)
    assert 0 < audited.tightness < 0.1
    smoothed = entry_of(store, "three · max-margin · smoothing").audit
    assert smoothed.audited == smoothed.certificates > 0
    assert (smoothed.refuted, smoothed.tightness) == (0, None)
    board = store / "boards" / "tiny"
    table = pd.read_csv(board / "board.csv").set_index("entry")
    assert table.loc["single", ["audited", "refuted"]].tolist() == [4, 0]
    assert table.loc["single", "tightness"] == audited.tightness
    assert table["rank"].notna().all()
    document = json.loads((board / "board.json").read_text())
    assert {entry["name"]: entry["audit"]["unsound"] for entry in document["entries"]} == dict.fromkeys(
        table.index, False
    )
    assert "4 of 4, 0 refuted" in (board / "board.md").read_text()
    page = (board / "board.html").read_text()
    assert ">Tightness</th>" in page
    assert '4 of 4 <span class="ends">0 refuted</span>' in page
    # The same again attacks nothing; more steps do.
    again = certbench("audit", "tiny", "--output", store, *QUICK)
    assert again.exit_code == 0
    assert "\n0 attacked now, " in again.stdout


def test_equal_claims_of_one_classifier_are_attacked_once(
    trained: Path, tmp_path: Path, edited: Any, scripted: Any, certbench: Callable[..., Result]
) -> None:
    for name, radius in (("claims", 1e-3), ("claims-it-too", 1e-3), ("claims-more", 2e-3)):
        scripted(lambda _classifier, x, *_, radius=radius: torch.full((len(x),), radius, dtype=torch.float64), name)
    changes = [
        (
            old,
            new.replace(
                "[certifiers.claims]", "[certifiers.claims]\n[certifiers.claims-it-too]\n[certifiers.claims-more]"
            ),
        )
        for old, new in certify_with("claims")
    ]
    others = '[[entries]]\nname = "{0}"\nensemble = "three"\naggregation = "single"\ncertifier = "{0}"\n\n'
    more = others.format("claims-it-too") + others.format("claims-more")
    before = '[[entries]]\nensemble = "three"\naggregation = ["weighted'
    (tmp_path / "tiny.toml").write_text(edited(*changes, (before, more + before), FOUR))
    assert certbench("run", tmp_path / "tiny.toml", "--output", trained).exit_code == 0
    result = certbench("audit", "tiny", "--output", trained, *QUICK)
    assert result.exit_code == 0, result.stderr
    document = json.loads((trained / "runs" / "tiny" / "run.json").read_text())
    audits = {
        entry["name"]: read_audits(trained / entry["folder"]).sort_values("image_id") for entry in document["entries"]
    }
    first, same, larger = (audits[name] for name in ("single", "claims-it-too", "claims-more"))
    assert len(first) == len(same) == len(larger) == 4
    found = ["image_id", "prediction", "radius", "attack_radius", "answer", "margin", "method", "attack"]
    pd.testing.assert_frame_equal(first[found].reset_index(drop=True), same[found].reset_index(drop=True))
    assert (first["forward_passes"] > 0).all()
    assert (same["forward_passes"] == 0).all()
    assert (larger["forward_passes"] > 0).all()


def test_a_certifier_that_lies_is_found(with_radius: Callable[[float], Path], certbench: Callable[..., Result]) -> None:
    store = with_radius(4.0)
    before = entry_of(store)
    assert (before.rows["verdict"] == "CERTIFIED").all()
    rows = files(store, "cells/*/rows-*")
    result = certbench("audit", "tiny", "--output", store, *QUICK)
    assert result.exit_code == 1
    assert result.stdout.startswith("UNSOUND: 4 certificates are false, of ")
    assert "in l2 is answered " in result.stdout
    assert files(store, "cells/*/rows-*") == rows

    entry = entry_of(store)
    assert (entry.rows["verdict"] == "FALSIFIED").all()
    assert (entry.rows["radius"] == 0).all()
    assert entry.rows["reason"].str.startswith("refuted by an audit: an input at distance ").all()
    assert entry.warnings == ("UNSOUND: 4 of 4 audited certificates refuted",)
    board = json.loads((store / "boards" / "tiny" / "board.json").read_text())
    last = board["entries"][-1]
    assert (last["name"], last["rank"], last["audit"]["refuted"]) == ("single", None, 4)
    assert last["scores"]["mean_certified_accuracy"] == 0
    assert sorted(line["rank"] for line in board["entries"][:-1])[0] == 1
    for name in ("board.md", "board.html"):
        assert "UNSOUND: 4 of 4 audited certificates refuted" in (store / "boards" / "tiny" / name).read_text()
    assert "unsound" in (store / "boards" / "tiny" / "board.tex").read_text()

    # The board stays so without a further audit; and the witnesses refute for whoever replays them.
    assert "UNSOUND" in certbench("board", "tiny", "--output", store).stdout
    cell = store / "cells" / entry.key[:32]
    claims = read_rows(cell).set_index("image_id")
    recipe = {name: value for name, value in entry.details["training"][0].items() if name != "label"}
    member = checkpoint.load(Store(store).checkpoint(digest(recipe))).members[0]
    kept = sorted(cell.glob("witness-*.safetensors"))
    assert len(kept) == 4
    for path in kept:
        tensors = safetensors.torch.load_file(path)
        image = int(path.name.split("-")[1])
        away = float(distance(tensors["image"][None], tensors["witness"][None], ThreatModel("l2").norm))
        assert away <= claims.loc[image, "radius"]
        assert tensors["witness"].dtype == torch.float32
        assert tensors["witness"].min() >= 0
        assert tensors["witness"].max() <= 1
        with torch.no_grad():
            answers = member(torch.stack([tensors["image"], tensors["witness"]])).argmax(1)
        assert answers[0] == claims.loc[image, "prediction"] != answers[1]

    found = certbench("audit", "tiny", "--output", store, "--json", *QUICK)
    assert found.exit_code == 1
    document = json.loads(found.stdout)
    assert "UNSOUND: 4 certificates are false" in found.stderr
    assert (document["refuted"], document["attacked_now"]) == (4, 0)
    first = next(item for item in document["entries"] if item["name"] == "single")["counterexamples"][0]
    assert (store / first["witness"]).is_file()
    assert first["attack_radius"] <= first["radius"]


def test_rows_whose_radii_were_raised_through_the_write_path_are_found(
    copied: Path, certbench: Callable[..., Result]
) -> None:
    """A smoothed entry: one radius in its store is raised far above what its votes allow."""
    store, entry = Store(copied), entry_of(copied, "three · max-margin · smoothing")
    rows = read_rows(store.cell(entry.key))
    raised = rows["image_id"] == rows.loc[rows["verdict"] == "CERTIFIED", "image_id"].iloc[0]
    for path in store.cell(entry.key).glob("rows-*"):
        path.unlink()
    store.write_rows(entry.key, rows.assign(radius=rows["radius"].mask(raised, 4.0)))
    result = certbench("audit", "tiny", "--output", copied, *QUICK)
    assert result.exit_code == 1
    assert result.stdout.startswith("UNSOUND: 1 certificate is false, of ")
    assert "(eot-pgd, p = " in result.stdout
    after = entry_of(copied, "three · max-margin · smoothing")
    assert after.rows.loc[raised, "verdict"].tolist() == ["FALSIFIED"]
    assert (after.rows["verdict"] == "FALSIFIED").sum() == 1
    assert "refuted, at most 0." in after.warnings[0]
    assert "expected" in after.warnings[0]


def test_stopped_audits_resume_and_samples_are_nested(
    with_radius: Callable[[float], Path], reporter: Any, certbench: Callable[..., Result]
) -> None:
    store = with_radius(1e-3)
    manifest = store / "runs" / "tiny" / "run.json"

    def options(images: int | None) -> AuditOptions:
        return AuditOptions(images=images, effort=Effort(steps=4, restarts=1, rounds=1), samples=1000)

    first = audit(manifest, options(1), reporter)
    assert (first.attacked, first.stored, dict(first.problems)) == (3, 0, {})
    assert entry_of(store).audit.audited == 1
    second = audit(manifest, options(2), reporter)
    assert (second.attacked, second.stored) == (3, 3)
    whole = audit(manifest, options(None), reporter)
    assert whole.stored == 6
    assert entry_of(store).audit.audited == 4
    other = audit(
        manifest, AuditOptions(images=1, effort=Effort(steps=5, restarts=1, rounds=1), samples=1000), reporter
    )
    assert (other.attacked, other.stored) == (3, 0)  # other attacks are attacks of their own
    assert certbench("audit", "tiny", "--output", store, "--steps", 0).exit_code == 2


def damaged(store: Path, how: str) -> str:
    entry = entry_of(store)
    cell = store / "cells" / entry.key[:32]
    manifest = store / "runs" / "tiny" / "run.json"
    if how == "no weights":
        shutil.rmtree(store / "ensembles")
        return "No checkpoint at"
    if how == "other key":
        description = json.loads((cell / "cell.json").read_text())
        description["key_fields"]["seed"] += 1
        (cell / "cell.json").write_text(json.dumps(description))
        return "it was altered."
    if how == "unfinished":
        (cell / "cell.json").unlink()
        return "is missing: it is not finished. Run the spec to the end first."
    if how == "other images":
        document = json.loads(manifest.read_text())
        for item in document["entries"]:
            item["images_digest"] = "0" * 64
        manifest.write_text(json.dumps(document))
        return "Audit it with the data that it was made with."
    if how == "other recipe":
        document = json.loads(manifest.read_text())
        recipes = document["entries"][0]["details"]["training"]
        recipes[0], recipes[1] = recipes[1], recipes[0]
        manifest.write_text(json.dumps(document))
        return "its key is about other weights"
    assert how == "folder"
    document = json.loads(manifest.read_text())
    document["entries"][0]["folder"] = document["entries"][1]["folder"]
    manifest.write_text(json.dumps(document))
    return "which is not the folder of its key."


@pytest.mark.parametrize("how", ["no weights", "other key", "unfinished", "other images", "other recipe", "folder"])
def test_what_does_not_fit_together_is_told_and_not_audited(
    copied: Path, certbench: Callable[..., Result], how: str
) -> None:
    message = damaged(copied, how)
    result = certbench("audit", "tiny", "--output", copied, "--images", 1, *QUICK)
    assert result.exit_code == 3
    assert message in result.stderr
    assert "single: not audited: " in result.stderr


@pytest.mark.parametrize("what", ["certifier", "aggregation"])
def test_claims_of_another_version_are_not_attacked(
    copied: Path, certbench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Version 2 may speak about another function: what it would attack nobody has claimed."""
    changed = {"certifier": Smoothing, "aggregation": WeightedAverage}[what]
    monkeypatch.setattr(changed, "version", 2)
    result = certbench("audit", "tiny", "--output", copied, *QUICK, "--images", 1)
    assert result.exit_code == 3
    assert f"not audited: the {what} is " in result.stderr
    assert "other claims would be attacked than were made. Run the spec again." in result.stderr


def test_what_was_found_about_a_smoothed_function_says_nothing_of_the_network(
    trained: Path, tmp_path: Path, edited: Any, scripted: Any, offered: Any, certbench: Callable[..., Result]
) -> None:
    """A proof of the same radius as a smoothed claim is attacked by itself."""
    radius = 1e-3
    scripted(lambda _classifier, x, *_: torch.full((len(x),), radius, dtype=torch.float64), "claims")
    rounded = type("Rounded", (Smoothing,), {"radius_of": lambda self, p_a: radius})
    offered("rounded", rounded)
    changes = [
        (old, new.replace("[certifiers.claims]", "[certifiers.claims]\n[certifiers.rounded]\nsigma = 0.25\nn = 100"))
        for old, new in certify_with("claims")
    ]
    first = '[[entries]]\nname = "rounded"\nensemble = "three"\naggregation = "single"\ncertifier = "rounded"\n\n'
    before = '[[entries]]\nensemble = "three"\n'
    (tmp_path / "tiny.toml").write_text(edited(*changes, (before, first + before), FOUR))
    assert certbench("run", tmp_path / "tiny.toml", "--output", trained).exit_code == 0
    result = certbench("audit", "tiny", "--output", trained, *QUICK)
    document = json.loads((trained / "runs" / "tiny" / "run.json").read_text())
    audits = {
        entry["name"]: found
        for entry in document["entries"]
        if (found := read_audits(trained / entry["folder"])) is not None
    }
    assert result.exit_code in (0, 1)
    smoothed, proofs = audits["rounded"], audits["single"]
    shared = smoothed.merge(proofs, on=["image_id", "prediction", "radius"])
    assert len(shared) > 0
    assert (proofs["forward_passes"] > 0).all()
    assert not set(smoothed["attack"]) & set(proofs["attack"])


def test_files_that_are_no_runs_and_audits_that_were_altered_are_refused(
    copied: Path, certbench: Callable[..., Result]
) -> None:
    unknown = certbench("audit", "tinny", "--output", copied)
    assert unknown.exit_code == 2
    assert "Did you mean 'tiny'?" in unknown.stderr
    (copied / "runs" / "none").mkdir()
    (copied / "runs" / "none" / "run.json").write_text("[]")
    strange = certbench("audit", "none", "--output", copied)
    assert strange.exit_code == 3
    assert "not the description of a run" in strange.stderr
    row = {"image_id": 3, "prediction": 1, "radius": 0.5, "attack_radius": 0.25, "answer": 2, "margin": 0.1}
    row |= {"p_value": 0.0, "method": "apgd", "witness": "", "attack": "{}", "forward_passes": 1, "seconds": 0.1}
    assert list(row) == AUDIT_SCHEMA.names
    key = entry_of(copied).key
    path = write_audits(Store(copied), key, pd.DataFrame([row]))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    altered = certbench("board", "tiny", "--output", copied)
    assert altered.exit_code == 1
    assert "the bytes do not match the digest in the name" in altered.stderr


def test_a_run_without_certificates_is_exit_4(
    trained: Path, tmp_path: Path, edited: Any, scripted: Any, certbench: Callable[..., Result]
) -> None:
    scripted(lambda _classifier, x, *_: torch.zeros(len(x)), "nothing")
    text = edited(*certify_with("nothing"), FOUR)
    (tmp_path / "tiny.toml").write_text(text[: text.rindex("[[entries]]")])
    assert certbench("run", tmp_path / "tiny.toml", "--output", trained).exit_code == 0
    result = certbench("audit", "tiny", "--output", trained, *QUICK)
    assert result.exit_code == 4
    assert result.stderr.endswith("error: Nothing was audited: the run has no certificate.\n")


def test_a_claim_about_something_unknown_is_not_audited(
    trained: Path, tmp_path: Path, edited: Any, scripted: Any, certbench: Callable[..., Result]
) -> None:
    scripted(lambda _classifier, x, *_: torch.full((len(x),), 0.1), "else", target=lambda _self, _classifier: object())
    text = edited(*certify_with("else"), FOUR)
    (tmp_path / "tiny.toml").write_text(text[: text.rindex("[[entries]]")])
    assert certbench("run", tmp_path / "tiny.toml", "--output", trained).exit_code == 0
    result = certbench("audit", "tiny", "--output", trained, *QUICK)
    assert result.exit_code == 3
    assert "its certificates speak about object, which no attack here knows" in result.stderr


def test_the_toolbox_is_optional(copied: Path, certbench: Callable[..., Result], monkeypatch: Any) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("certifiers.conformance.art_attacks.import_module", missing)
    result = certbench("audit", "tiny", "--output", copied, "--art")
    assert result.exit_code == 2
    assert "--art needs adversarial-robustness-toolbox, which cannot be loaded here" in result.stderr
    assert "pip install 'certbench[attacks]'" in result.stderr


def test_only_entries_whose_name_matches_are_audited(
    with_radius: Callable[[float], Path], certbench: Callable[..., Result]
) -> None:
    store = with_radius(1e-3)
    result = certbench("audit", "tiny", "--output", store, "--entry", "sing*", *QUICK)
    assert result.exit_code == 0, result.stderr
    assert [line.split(":")[0] for line in result.stdout.splitlines() if "certificates audited" in line] == ["single"]
    refused = certbench("audit", "tiny", "--output", store, "--entry", "sin", *QUICK)
    assert refused.exit_code == 2
    assert "is named 'sin'; its entries: single, three" in refused.stderr.replace("\n", " ")
    assert "A pattern may have * and ?" in refused.stderr.replace("\n", " ")
