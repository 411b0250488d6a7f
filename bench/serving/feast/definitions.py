"""What Feast serves beside unskew: the same features, and the component as a Python function."""

import os
from datetime import timedelta
from typing import Any

from feast import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    RequestSource,
    ValueType,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
table = FileSource(name="table", path=os.environ["BENCH_TABLE"], timestamp_field="event_timestamp")
features = FeatureView(
    name="customer_features",
    entities=[customer],
    ttl=timedelta(days=3650),
    schema=[Field(name=f"f{index}", dtype=Float64) for index in range(8)]
    + [Field(name=f"i{index}", dtype=Int64) for index in range(2)],
    source=table,
    online=True,
)
request = RequestSource(name="request", schema=[Field(name="amount", dtype=Float64)])


@on_demand_feature_view(
    sources=[features, request],
    schema=[Field(name="ratio", dtype=Float64), Field(name="score", dtype=Float64)],
    mode="python",
)
def amount_scores(inputs: dict[str, Any]) -> dict[str, Any]:
    """Two scores of two features and a request field."""
    rows = list(zip(inputs["f0"], inputs["i0"], inputs["amount"], strict=True))
    return {
        "ratio": [None if f0 is None else amount / (f0 + 1.0) for f0, _, amount in rows],
        "score": [float(i0 or 0) * 0.5 + amount * 0.25 for _, i0, amount in rows],
    }


plain = FeatureService(name="plain", features=[features])
with_component = FeatureService(name="with_component", features=[features, amount_scores])
