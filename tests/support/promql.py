"""As much of PromQL as the alert rules use, on two scrapes: does a rule fire, also where series are missing."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, Final

import promql_parser as parser
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.registry import Collector

Labels = frozenset[tuple[str, str]]
#: A value for each set of labels.
Vector = dict[Labels, float]
#: What was scraped at one moment: a vector for each name.
Scrape = dict[str, Vector]

_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_SETS: Final[dict[str, Callable[[Vector, Vector], Vector]]] = {
    "and": lambda left, right: {labels: value for labels, value in left.items() if labels in right},
    "or": lambda left, right: right | left,
    "unless": lambda left, right: {labels: value for labels, value in left.items() if labels not in right},
}
#: What becomes of a series within a range: here, of two samples of it.
_CHANGES: Final = {"delta", "deriv", "increase"}


def scraped(job: str, instance: str, *collectors: Collector) -> Scrape:
    """What Prometheus has of a target that answers."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    target = frozenset({("job", job), ("instance", instance)})
    found: Scrape = {"up": {target: 1.0}}
    for family in parse(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[target | frozenset(sample.labels.items())] = sample.value
    return found


def silent(job: str, instance: str) -> Scrape:
    """What it has of a target that does not."""
    return {"up": {frozenset({("job", job), ("instance", instance)}): 0.0}}


def together(*scrapes: Scrape) -> Scrape:
    """Several targets."""
    found: Scrape = {}
    for scrape in scrapes:
        for name, vector in scrape.items():
            found[name] = found.get(name, {}) | vector
    return found


def fires(expression: str, now: Scrape, before: Scrape) -> Vector:
    """What the expression gives: empty where the rule is silent."""
    found = _Evaluation(now, before).of(parser.parse(expression))
    assert isinstance(found, dict)
    return found


class _Evaluation:
    def __init__(self, now: Scrape, before: Scrape) -> None:
        self._now, self._before = now, before

    def of(self, node: Any) -> Vector | float:
        match type(node).__name__:
            case "NumberLiteral":
                return float(node.val)
            case "VectorSelector":
                return self._selected(self._now, node)
            case "AggregateExpr":
                return self._aggregated(node)
            case "Call":
                return self._called(node)
            case "BinaryExpr":
                return self._joined(str(node.op), self.of(node.lhs), self.of(node.rhs))
        raise NotImplementedError(type(node).__name__)

    def _selected(self, scrape: Scrape, node: Any) -> Vector:
        def fits(labels: dict[str, str]) -> bool:
            for matcher in node.matchers.matchers:
                value = labels.get(matcher.name, "")
                if matcher.op == parser.MatchOp.Equal:
                    held = value == matcher.value
                else:
                    assert matcher.op == parser.MatchOp.Re
                    held = re.fullmatch(matcher.value, value) is not None
                if not held:
                    return False
            return True

        return {labels: value for labels, value in scrape.get(node.name, {}).items() if fits(dict(labels))}

    def _aggregated(self, node: Any) -> Vector:
        groups: dict[Labels, list[float]] = {}
        below = self.of(node.expr)
        assert isinstance(below, dict)
        for labels, value in below.items():
            kept: Labels = frozenset()
            if node.modifier is not None:
                assert node.modifier.type == parser.AggModifierType.Without
                kept = frozenset((name, text) for name, text in labels if name not in node.modifier.labels)
            groups.setdefault(kept, []).append(value)
        merge: Callable[[list[float]], float] = {"max": max, "min": min, "sum": sum}[str(node.op)]
        return {labels: merge(values) for labels, values in groups.items()}

    def _called(self, node: Any) -> Vector:
        [argument] = node.args
        if node.func.name == "absent":
            if self.of(argument):
                return {}
            return {frozenset((m.name, m.value) for m in argument.matchers.matchers): 1.0}
        assert node.func.name in _CHANGES
        now, before = (self._selected(s, argument.vector_selector) for s in (self._now, self._before))
        return {labels: value - before[labels] for labels, value in now.items() if labels in before}

    def _joined(self, sign: str, left: Vector | float, right: Vector | float) -> Vector | float:
        if isinstance(left, float) and isinstance(right, float):
            assert sign == "*"
            return left * right
        assert isinstance(left, dict)
        if sign in _SETS:
            assert isinstance(right, dict)
            return _SETS[sign](left, right)
        against = dict.fromkeys(left, right) if isinstance(right, float) else right
        return {labels: v for labels, v in left.items() if labels in against and _COMPARE[sign](v, against[labels])}
