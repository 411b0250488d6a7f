"""Asks a server that wants tokens: with one that may read, and without any."""

import os
import sys
import tempfile

import pandas as pd
from definitions import feature_store
from feast.data_source import PushMode

url, token = sys.argv[1:3]


def rate(store):
    got = store.get_online_features(
        features=["driver_hourly_stats:conv_rate"], entity_rows=[{"driver_id": 1001}]
    )
    return got.to_dict()["conv_rate"]


def refused(ask, *said):
    try:
        ask()
    except Exception as error:
        assert all(word in str(error) for word in said), error
        return
    raise AssertionError(f"not refused, with {said}")


# The client finds its token in a variable that its repository names.
os.environ["UNSKEW_TOKEN"] = token
with tempfile.TemporaryDirectory() as folder:
    store = feature_store(url, folder, auth="{type: oidc, token_env_var: UNSKEW_TOKEN}")
    assert rate(store) == [0.5], rate(store)
    at = pd.Timestamp.now("UTC").tz_localize(None) - pd.Timedelta(seconds=60)
    row = {
        "driver_id": [1001],
        "conv_rate": [0.75],
        "acc_rate": [0.25],
        "avg_daily_trips": [12],
        "city": ["Bern"],
        "event_timestamp": [at],
        "created": [at],
    }
    pushed = pd.DataFrame(row)
    refused(lambda: store.push("driver_stats", pushed, to=PushMode.ONLINE), "403", "`write`")
    os.environ["UNSKEW_TOKEN"] = f"{token}x"
    refused(lambda: rate(store), "401")
    os.environ["UNSKEW_TOKEN"] = token
    assert rate(store) == [0.5], rate(store)

with tempfile.TemporaryDirectory() as folder:
    store = feature_store(url, folder)
    refused(lambda: rate(store), "401", "token")
print("guarded")
