"""What is said of a kind of dendrites: gains with intervals, or that none is known."""

from dendrite_automl.comparison import describe_kind
from dendrite_automl.dendrites.kinds import KINDS


def test_every_kind_has_a_sentence_and_those_of_the_default_spaces_have_figures() -> None:
    said = {kind: describe_kind(kind) for kind in KINDS}
    assert all(sentence.startswith(f"{kind}: ") for kind, sentence in said.items())
    for kind in ("product", "statistics"):
        assert "points (p" in said[kind]
        assert "as many MACs" in said[kind]
        assert "with AdamW" in said[kind]
        assert "with Muon no gain" in said[kind]
    assert "screening" in said["funnel"]
    assert "no gain" in said["perforated"]
    assert "no gain" in describe_kind("my own")
