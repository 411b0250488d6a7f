"""Asks with Feast's remote online store: what `get_online_features` gives, value by value."""

import sys
import tempfile

import requests
from definitions import feature_store
from feast.errors import FeatureServiceNotFoundException, FeatureViewNotFoundException
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

url, now = sys.argv[1], int(sys.argv[2])
HOUR = 3600

PRESENT, NULL, NOT_FOUND, OLD = (
    FieldStatus.PRESENT,
    FieldStatus.NULL_VALUE,
    FieldStatus.NOT_FOUND,
    FieldStatus.OUTSIDE_MAX_AGE,
)


def equal(found, expected):
    assert found == expected, f"\nfound    {found}\nexpected {expected}"


def statuses(response):
    names = response.proto.metadata.feature_names.val
    return {n: list(r.statuses) for n, r in zip(names, response.proto.results)}


def order(response):
    return list(response.proto.metadata.feature_names.val)


with tempfile.TemporaryDirectory() as folder:
    store = feature_store(url, folder)

    # One view: present, null, expired, unknown, a null key.
    drivers = [1001, 1002, 1003, 4711]
    got = store.get_online_features(
        features=[
            "driver_hourly_stats:conv_rate",
            "driver_hourly_stats:acc_rate",
            "driver_hourly_stats:avg_daily_trips",
            "driver_hourly_stats:city",
        ],
        entity_rows=[{"driver_id": driver} for driver in drivers],
    )
    equal(order(got), ["driver_id", "conv_rate", "acc_rate", "avg_daily_trips", "city"])
    equal(
        got.to_dict(),
        {
            "driver_id": drivers,
            "conv_rate": [0.5, None, None, None],
            # A float of 32 bits is the number that it is.
            "acc_rate": [0.10000000149011612, 0.20000000298023224, None, None],
            "avg_daily_trips": [9007199254740993, 7, None, None],
            "city": ["Zürich \"1\"", "", None, None],
        },
    )
    equal(
        statuses(got),
        {
            "driver_id": [PRESENT] * 4,
            "conv_rate": [PRESENT, NULL, OLD, NOT_FOUND],
            "acc_rate": [PRESENT, PRESENT, OLD, NOT_FOUND],
            "avg_daily_trips": [PRESENT, PRESENT, OLD, NOT_FOUND],
            "city": [PRESENT, PRESENT, OLD, NOT_FOUND],
        },
    )

    # Several views, composite keys, features of two views in turns, an on-demand transformation.
    rows = [
        {"zone": "north", "driver_id": 1001, "val_to_add": 10},
        {"zone": "south", "driver_id": 1001, "val_to_add": 20},
        {"zone": "north", "driver_id": 1002, "val_to_add": 30},
    ]
    got = store.get_online_features(
        features=[
            "driver_rates:conv_rate_plus_val",
            "zone_rides:rides",
            "driver_hourly_stats:conv_rate",
            "zone_rides:surge",
            "zone_rides:last_ride",
            "zone_rides:tags",
            "driver_rates:trips_plus_val",
        ],
        entity_rows=rows,
    )
    equal(
        order(got),
        ["zone", "driver_id", "rides", "surge", "last_ride", "tags"]
        + ["conv_rate", "conv_rate_plus_val", "trips_plus_val"],
    )
    equal(
        got.to_dict(),
        {
            "zone": ["north", "south", "north"],
            "driver_id": [1001, 1001, 1002],
            "rides": [3, 4, None],
            "surge": [1.5, 0.1, None],
            # Whole seconds of a value with microseconds.
            "last_ride": [now - HOUR, now - HOUR, None],
            "tags": [["a", "b"], ["c"], None],
            "conv_rate": [0.5, 0.5, None],
            "conv_rate_plus_val": [10.5, 20.5, None],
            "trips_plus_val": [9007199254741003, 9007199254741013, 37],
        },
    )
    equal(statuses(got)["conv_rate_plus_val"], [PRESENT, PRESENT, NULL])
    equal(statuses(got)["rides"], [PRESENT, PRESENT, NOT_FOUND])

    # A feature service, with short and with full names.
    service = store.get_feature_service("driver_model")
    got = store.get_online_features(features=service, entity_rows=rows[:1])
    equal(
        got.to_dict(),
        {
            "zone": ["north"],
            "driver_id": [1001],
            "conv_rate": [0.5],
            "rides": [3],
            "conv_rate_plus_val": [10.5],
            "trips_plus_val": [9007199254741003],
        },
    )
    got = store.get_online_features(
        features=service, entity_rows=rows[:1], full_feature_names=True
    )
    equal(
        order(got),
        ["zone", "driver_id", "driver_hourly_stats__conv_rate", "zone_rides__rides"]
        + ["driver_rates__conv_rate_plus_val", "driver_rates__trips_plus_val"],
    )

    # A view of which nothing is materialized, and one that is called by another name.
    got = store.get_online_features(
        features=["weather:degrees", "backup_stats:conv_rate"],
        entity_rows=[{"zone": "north", "backup_id": 1001}],
        full_feature_names=True,
    )
    equal(
        got.to_dict(),
        {
            "zone": ["north"],
            "backup_id": [1001],
            "weather__degrees": [None],
            "backup_stats__conv_rate": [0.5],
        },
    )
    equal(statuses(got)["weather__degrees"], [NOT_FOUND])

    # What the client raises.
    try:
        store.get_online_features(features=["nothing:at_all"], entity_rows=rows)
        raise AssertionError("a view that there is not")
    except FeatureViewNotFoundException as error:
        assert "`nothing`" in str(error) and "zone_rides" in str(error), error
    service.name = "other_model"
    try:
        store.get_online_features(features=service, entity_rows=rows)
        raise AssertionError("a service that there is not")
    except FeatureServiceNotFoundException as error:
        assert "driver_model" in str(error), error
    try:
        store.get_online_features(
            features=["driver_hourly_stats:conv_rate"], entity_rows=[{"driver_id": "x"}]
        )
        raise AssertionError("a key of another type")
    except RuntimeError as error:
        assert "422" in str(error) and "driver_id" in str(error), error

    # Another way of reading: one view, all keys at once, values typed by the client's registry.
    view = store.get_feature_view("driver_hourly_stats")
    keys = [
        {"driver_id": 1001},
        {"driver_id": 4711},
    ]
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    online = store._get_provider().online_store
    read = online.online_read(
        config=store.config,
        table=view,
        entity_keys=[
            EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=key["driver_id"])])
            for key in keys
        ],
        requested_features=["conv_rate", "acc_rate"],
    )
    event, features = read[0]
    equal(int(event.timestamp()), now - HOUR)
    equal(features["conv_rate"], Value(double_val=0.5))
    equal(features["acc_rate"], Value(float_val=0.1))
    equal(read[1][1]["conv_rate"], Value())

# The JSON itself.
answer = requests.post(
    f"{url}/get-online-features",
    json={
        "features": ["driver_hourly_stats:city"],
        "entities": {"ignored": [0, 0], "driver_id": [1003, None]},
    },
)
equal(answer.status_code, 200)
equal(answer.headers["content-type"], "application/json")
equal(
    answer.json(),
    {
        "metadata": {"feature_names": ["driver_id", "city"]},
        "results": [
            {
                "values": [1003, None],
                "statuses": ["PRESENT", "PRESENT"],
                "event_timestamps": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"],
            },
            {
                "values": [None, None],
                "statuses": ["OUTSIDE_MAX_AGE", "NOT_FOUND"],
                "event_timestamps": [
                    answer.json()["results"][1]["event_timestamps"][0],
                    "1970-01-01T00:00:00Z",
                ],
            },
        ],
    },
)
for body in [
    {},
    {"features": ["driver_hourly_stats:city"]},
    {"features": [], "entities": {"driver_id": [1]}},
    {"features": "driver_hourly_stats:city", "entities": {"driver_id": [1]}},
    {"features": ["driver_hourly_stats:city"], "entities": {"driver_id": 1}},
    {"features": ["driver_hourly_stats:city"], "entities": {"other": [1]}},
    {"features": ["zone_rides:rides"], "entities": {"driver_id": [1], "zone": []}},
    {"features": ["driver_rates:trips_plus_val"], "entities": {"driver_id": [1]}},
]:
    answer = requests.post(f"{url}/get-online-features", json=body)
    equal(answer.status_code, 422)
    assert answer.json()["detail"][0]["msg"], answer.text
answer = requests.post(f"{url}/get-online-features", data="{")
equal(answer.status_code, 422)
equal(requests.get(f"{url}/health").status_code, 200)
print("read")
