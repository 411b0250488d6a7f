"""Pushes and writes with Feast's client, and reads what is there then."""

import sys
import tempfile
from datetime import datetime, timedelta, timezone

import pandas as pd
import requests
from definitions import feature_store
from feast.data_source import PushMode

url = sys.argv[1]


def equal(found, expected):
    assert found == expected, f"\nfound    {found}\nexpected {expected}"


def post(path, body):
    return requests.post(f"{url}{path}", json=body)


def stats(store, driver):
    got = store.get_online_features(
        features=[
            "driver_hourly_stats:conv_rate",
            "driver_hourly_stats:acc_rate",
            "driver_hourly_stats:avg_daily_trips",
            "driver_hourly_stats:city",
        ],
        entity_rows=[{"driver_id": driver}],
    ).to_dict()
    del got["driver_id"]
    return {name: values[0] for name, values in got.items()}


def row(driver, rate, at, **more):
    return {
        "driver_id": [driver],
        "conv_rate": [rate],
        "acc_rate": [0.25],
        "avg_daily_trips": [12],
        "city": ["Bern"],
        "event_timestamp": [at],
        **more,
    }


now = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(seconds=60)
told = {"acc_rate": 0.25, "avg_daily_trips": 12, "city": "Bern"}

with tempfile.TemporaryDirectory() as folder:
    store = feature_store(url, folder)

    # The client's push and write, as pandas has rows; the source calls its timestamps otherwise.
    pushed = pd.DataFrame(row(2001, 0.75, now, created=[now]))
    store.push("driver_stats", pushed, to=PushMode.ONLINE)
    equal(stats(store, 2001), {"conv_rate": 0.75, **told})
    store.write_to_online_store(
        "driver_hourly_stats",
        pd.DataFrame(row(2002, 0.125, now, created=[now])),
    )
    equal(stats(store, 2002), {"conv_rate": 0.125, **told})

    # Newer wins, whoever comes last.
    older = pd.DataFrame(row(2001, 0.5, now - timedelta(minutes=5), created=[now]))
    store.push("driver_stats", older, to=PushMode.ONLINE)
    equal(stats(store, 2001)["conv_rate"], 0.75)

    # Of an on-demand transformation too.
    got = store.get_online_features(
        features=["driver_rates:trips_plus_val"],
        entity_rows=[{"driver_id": 2002, "val_to_add": 1}],
    ).to_dict()
    equal(got, {"driver_id": [2002], "trips_plus_val": [13]})

    # By hand: offline too unless it is said otherwise, with epochs and with texts.
    answer = post(
        "/push",
        {"push_source_name": "driver_stats", "df": row(2003, 0.5, now.isoformat(sep=" "))},
    )
    equal(answer.status_code, 200)
    equal(answer.json()["rows"], 1)
    equal(len(answer.json()["files"]), 1)
    equal(stats(store, 2003), {"conv_rate": 0.5, **told})
    at = int(now.replace(tzinfo=timezone.utc).timestamp())
    body = {
        "push_source_name": "driver_stats",
        "df": row(2004, None, at),
        "to": "online",
        "allow_registry_cache": True,
        "transform_on_write": False,
    }
    answer = post("/push", body)
    equal(answer.status_code, 200)
    equal(answer.json()["files"], [])
    equal(answer.json()["online_only"], 1)
    equal(stats(store, 2004), {"conv_rate": None, **told})
    body["to"] = "offline"
    body["df"] = row(2005, 0.5, at)
    equal(post("/push", body).status_code, 200)
    equal(stats(store, 2005)["conv_rate"], None)

# What is refused, and why.
for path, body, status, said in [
    ("/push", {"df": {}}, 422, "push_source_name"),
    ("/push", {"push_source_name": "driver_stats"}, 422, "df"),
    ("/push", {"push_source_name": "other", "df": row(1, 1, at)}, 404, "PushSourceNotFound"),
    ("/push", {"push_source_name": "driver_stats", "df": row(1, 1, at), "to": "x"}, 422, "offline"),
    ("/push", {"push_source_name": "driver_stats", "df": row("x", 1, at)}, 422, "row 0"),
    ("/push", {"push_source_name": "driver_stats", "df": row(1, 1, at, x=[1])}, 422, "`x`"),
    ("/push", {"push_source_name": "driver_stats", "df": row(1, 1, 32503680000)}, 422, "row 0"),
    ("/push", {"push_source_name": "driver_stats", "df": row(1, 1, at, city=[])}, 422, "city"),
    ("/write-to-online-store", {"df": {}}, 422, "feature_view_name"),
    ("/write-to-online-store", {"feature_view_name": "no", "df": {}}, 404, "FeatureViewNotFound"),
]:
    answer = post(path, body)
    equal(answer.status_code, status)
    assert said in answer.text, answer.text
print("written")
