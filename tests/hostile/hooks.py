"""What schemathesis is told beside the OpenAPI document."""

import re
from itertools import count
from typing import Any

import schemathesis

# Refusals for what no JSON Schema says: it depends on what is stored, or on many values together.
_CODES = {
    "ANSWER_TOO_LARGE",
    "BODY_TOO_COMPLEX",
    "COLUMNS_MISMATCH",
    "DATASET_TOO_LARGE",
    "DEVICE_UNAVAILABLE",
    "FEATURES_MISMATCH",
    "FIT_TOO_LARGE",
    "IDEMPOTENCY_KEY_REUSED",
    "INVALID_MIXTURE",
    "URL_NOT_ALLOWED",
}
_MESSAGES = re.compile(
    "give exactly one of"
    "|give either covariances or standard_deviations"
    "|correlations go with standard_deviations"
    "|goes with (gold|other formats)"
    "|leave it out, or leave sample out"
    "|must be two different numbers"
    "|must be 0: there is only one feature"
    "|must be names separated by commas"
    "|must hold printable characters only"
    "|features where point 0 has"
    "|there are [0-9]+ weights for [0-9]+ points"
    "|weights are all zero"
    "|the mixture has [0-9]+ features; the dataset has"
    "|as in the mixture to start from"
    "|components need at least as many points"
)
_LONGEST_KEY = 255
_numbers = count()


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Keeps a failure, unless it is about what the document cannot say."""
    del context
    if case.media_type not in (None, "application/json"):
        # Of a CSV or a binary body a schema says nothing: any text is one, points or not.
        if failure.title == "Schema-violating request accepted":
            return "Invalid component: in body" not in failure.message
        if failure.title == "Schema-valid request rejected" and response.status_code == 422:
            return False
    if failure.title == "Schema-valid request rejected" and response.status_code == 422:
        problem = response.json()
        said = [error["message"] for error in problem.get("errors", ())] or [problem["detail"]]
        return problem["code"] not in _CODES and not all(map(_MESSAGES.search, said))
    return True


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Waits for no fit, and uses each idempotency key once: it would get an answer about what is gone."""
    del context, kwargs
    for name, value in list((case.headers or {}).items()):
        if name.lower() == "prefer" and "wait" in str(value):
            case.headers[name] = re.sub(r"\d+", "0", str(value))
        elif name.lower() == "idempotency-key" and re.fullmatch("[ -~]{1,255}", str(value)):
            number = f"{next(_numbers):08d}"
            case.headers[name] = str(value)[: _LONGEST_KEY - len(number)] + number
