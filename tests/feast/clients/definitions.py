"""The Feast repository of the clients: what the server's repository defines, in Feast's words."""

from datetime import timedelta

from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RequestSource,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, Int32, Int64, String, UnixTimestamp
from feast.value_type import ValueType


def feature_store(url, folder, auth="{type: no_auth}"):
    """A Feast repository in `folder` whose online store is the server at `url`."""
    with open(f"{folder}/feature_store.yaml", "w") as file:
        file.write(
            f"""project: test
provider: local
registry: {folder}/registry.db
online_store: {{type: remote, path: "{url}"}}
auth: {auth}
entity_key_serialization_version: 3
"""
        )
    store = FeatureStore(repo_path=folder)
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    zone = Entity(name="zone", join_keys=["zone"], value_type=ValueType.STRING)
    # Files that are not there: the client never reads them.
    batch = FileSource(
        name="driver_stats_batch",
        path=f"{folder}/none.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    stats = FeatureView(
        name="driver_hourly_stats",
        entities=[driver],
        ttl=timedelta(hours=5),
        schema=[
            Field(name="driver_id", dtype=Int64),
            Field(name="conv_rate", dtype=Float64),
            Field(name="acc_rate", dtype=Float32),
            Field(name="avg_daily_trips", dtype=Int64),
            Field(name="city", dtype=String),
        ],
        source=PushSource(name="driver_stats", batch_source=batch),
    )
    rides = FeatureView(
        name="zone_rides",
        entities=[driver, zone],
        schema=[
            Field(name="driver_id", dtype=Int64),
            Field(name="zone", dtype=String),
            Field(name="rides", dtype=Int32),
            Field(name="surge", dtype=Float64),
            Field(name="last_ride", dtype=UnixTimestamp),
            Field(name="tags", dtype=Array(String)),
        ],
        source=FileSource(
            name="rides_batch", path=f"{folder}/none.parquet", timestamp_field="event_timestamp"
        ),
    )
    request = RequestSource(
        name="request", schema=[Field(name="val_to_add", dtype=Int64)]
    )

    @on_demand_feature_view(
        sources=[stats, request],
        schema=[
            Field(name="conv_rate_plus_val", dtype=Float64),
            Field(name="trips_plus_val", dtype=Int64),
        ],
        mode="python",
    )
    def driver_rates(inputs):
        # The server has a component for it. Here it is a name: what it gives would be seen.
        return {
            "conv_rate_plus_val": [-1.0 for _ in inputs["conv_rate"]],
            "trips_plus_val": [-1 for _ in inputs["val_to_add"]],
        }

    model = FeatureService(
        name="driver_model",
        features=[stats[["conv_rate"]], rides[["rides"]], driver_rates],
    )
    store.apply([driver, zone, batch, stats, rides, driver_rates, model])
    return store
