"""The cheapest one-to-one assignment, without a dependency."""

from __future__ import annotations

import math


def cheapest_assignment(costs: list[list[float]]) -> list[tuple[int, int]]:
    """Pairs (row, column), each used at most once, of least total cost; min(rows, columns) of them.

    Rows are added one by one along shortest augmenting paths; potentials keep reduced costs positive.

    References:
        Jonker, Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
        problems", 1987.
    """
    if len(costs) > len(costs[0]):
        flipped = cheapest_assignment([list(column) for column in zip(*costs, strict=True)])
        return sorted((row, column) for column, row in flipped)
    n_rows, n_columns = len(costs), len(costs[0])
    row_of = [-1] * (n_columns + 1)  # the last column is the root of every path
    row_potential, column_potential = [0.0] * n_rows, [0.0] * (n_columns + 1)
    for row in range(n_rows):
        root = n_columns
        row_of[root] = row
        distance, before = [math.inf] * (n_columns + 1), [root] * (n_columns + 1)
        done = [False] * (n_columns + 1)
        current = root
        while row_of[current] >= 0:
            done[current] = True
            at = row_of[current]
            for column in range(n_columns):
                if done[column]:
                    continue
                reduced = costs[at][column] - row_potential[at] - column_potential[column]
                if reduced < distance[column]:
                    distance[column], before[column] = reduced, current
            following = min((c for c in range(n_columns) if not done[c]), key=distance.__getitem__)
            step = distance[following]
            for column in range(n_columns + 1):
                if done[column]:
                    row_potential[row_of[column]] += step
                    column_potential[column] -= step
                else:
                    distance[column] -= step
            current = following
        while current != root:
            row_of[current] = row_of[before[current]]
            current = before[current]
        row_of[root] = -1
    return sorted((row_of[column], column) for column in range(n_columns) if row_of[column] >= 0)
