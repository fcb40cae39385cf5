"""Label words as a tree."""

from __future__ import annotations

from glotfuse.model.label_tree import ROOT, LabelTree


def test_words_that_begin_alike_share_nodes() -> None:
    tree = LabelTree.build([[5, 6, 7], [5, 6], [5, 8, 9], [4]])
    assert tree.token_ids == [5, 6, 8]
    assert tree.parents == [ROOT, 0, 0]
    assert tree.depths == [0, 1, 1]
    assert tree.visible() == [[True, False, False], [True, True, False], [True, False, True]]
    assert tree.paths == [
        [(ROOT, 5), (0, 6), (1, 7)],
        [(ROOT, 5), (0, 6)],
        [(ROOT, 5), (0, 8), (2, 9)],
        [(ROOT, 4)],
    ]


def test_the_same_token_after_different_beginnings_is_another_node() -> None:
    tree = LabelTree.build([[1, 3, 4], [2, 3, 4]])
    assert tree.token_ids == [1, 3, 2, 3]
    assert tree.parents == [ROOT, 0, ROOT, 2]


def test_words_of_one_token_need_no_node() -> None:
    assert LabelTree.build([[1], [2]]).token_ids == []
