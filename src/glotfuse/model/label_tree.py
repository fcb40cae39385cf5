"""Label words as a tree of tokens: words that begin alike share what the LM computes for their beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

ROOT = -1
"""Stands for the prompt's last position as a parent."""


class Step(NamedTuple):
    """One token of a label word and where it is predicted."""

    node: int
    """Index of the node that predicts it, or `ROOT`."""
    token_id: int
    """The predicted token."""


@dataclass(frozen=True)
class LabelTree:
    """What the LM has to read to score all label words.

    A node is a token that another one follows in some label word. Last tokens are only predicted, so label words of
    one token need no node.
    """

    token_ids: list[int]
    """Token of each node; a parent comes before its children."""
    parents: list[int]
    """Index of each node's parent, or `ROOT`."""
    paths: list[list[Step]]
    """For each label word, its tokens and where they are predicted."""

    @classmethod
    def build(cls, label_ids: Sequence[Sequence[int]]) -> LabelTree:
        """Builds the tree of answers' token ids."""
        tree = cls([], [], [])
        found: dict[tuple[int, int], int] = {}
        for ids in label_ids:
            node, path = ROOT, []
            for place, token_id in enumerate(ids):
                path.append(Step(node, token_id))
                if place == len(ids) - 1:
                    break
                if (node, token_id) not in found:
                    found[node, token_id] = len(tree.token_ids)
                    tree.token_ids.append(token_id)
                    tree.parents.append(node)
                node = found[node, token_id]
            tree.paths.append(path)
        return tree

    @property
    def depths(self) -> list[int]:
        """Each node's distance from the first nodes, which have 0."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent == ROOT else depths[parent] + 1)
        return depths

    def visible(self) -> list[list[bool]]:
        """For each node, which nodes it sees: itself and its ancestors."""
        rows: list[list[bool]] = []
        for node, parent in enumerate(self.parents):
            row = [False] * len(self.parents) if parent == ROOT else list(rows[parent])
            row[node] = True
            rows.append(row)
        return rows
