"""Asks over gRPC with the stubs of the feast package, and with those of health and reflection."""

import sys
import time

import grpc
from feast.protos.feast.serving import GrpcServer_pb2 as listen
from feast.protos.feast.serving import ServingService_pb2 as serving
from feast.protos.feast.serving.GrpcServer_pb2_grpc import GrpcFeatureServerStub
from feast.protos.feast.serving.ServingService_pb2_grpc import ServingServiceStub
from feast.protos.feast.types.Value_pb2 import (
    BoolList,
    BytesList,
    DoubleList,
    FloatList,
    Int32List,
    Int64List,
    RepeatedValue,
    StringList,
    Value,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

address, now = sys.argv[1], int(sys.argv[2])
HOUR = 3600

PRESENT, NULL, NOT_FOUND, OLD = (
    serving.PRESENT,
    serving.NULL_VALUE,
    serving.NOT_FOUND,
    serving.OUTSIDE_MAX_AGE,
)


def equal(found, expected):
    assert found == expected, f"\nfound    {found}\nexpected {expected}"


def repeated(field, values):
    return RepeatedValue(
        val=[Value() if v is None else Value(**{field: v}) for v in values]
    )


def columns(answer):
    assert answer.status
    names = answer.metadata.feature_names.val
    equal(len(names), len(answer.results))
    return dict(zip(names, answer.results))


def refused(call, code, said):
    try:
        call()
        raise AssertionError(f"not refused: {said}")
    except grpc.RpcError as error:
        equal(error.code(), code)
        assert said in error.details(), error.details()


with grpc.insecure_channel(address) as channel:
    stub = ServingServiceStub(channel)
    info = stub.GetFeastServingInfo(serving.GetFeastServingInfoRequest())
    assert info.version, info

    # Join keys as entities, request data as request context; one is an int32 for an int64.
    request = serving.GetOnlineFeaturesRequest(
        features=serving.FeatureList(
            val=[
                "driver_rates:conv_rate_plus_val",
                "zone_rides:rides",
                "driver_hourly_stats:conv_rate",
            ]
        ),
        entities={
            "driver_id": repeated("int32_val", [1001, 1002, 1003]),
            "zone": repeated("string_val", ["north", None, "north"]),
        },
        request_context={"val_to_add": repeated("int64_val", [10, 20, 30])},
    )
    answer = stub.GetOnlineFeatures(request)
    equal(
        list(answer.metadata.feature_names.val)[2:],
        ["rides", "conv_rate", "conv_rate_plus_val"],
    )
    got = columns(answer)
    equal(list(got["driver_id"].values), [Value(int64_val=v) for v in [1001, 1002, 1003]])
    equal(list(got["driver_id"].statuses), [PRESENT] * 3)
    equal(list(got["rides"].values), [Value(int32_val=3), Value(), Value()])
    equal(list(got["rides"].statuses), [PRESENT, NOT_FOUND, NOT_FOUND])
    equal(list(got["conv_rate"].values), [Value(double_val=0.5), Value(), Value()])
    equal(list(got["conv_rate"].statuses), [PRESENT, NULL, OLD])
    equal(
        [(t.seconds, t.nanos) for t in got["conv_rate"].event_timestamps],
        [(now - HOUR, 0), (now - HOUR, 0), (now - 10 * HOUR, 0)],
    )
    equal([t.seconds for t in got["rides"].event_timestamps], [now - HOUR, 0, 0])
    equal([t.seconds for t in got["driver_id"].event_timestamps], [0, 0, 0])
    equal(list(got["conv_rate_plus_val"].values), [Value(double_val=10.5), Value(), Value()])
    equal(list(got["conv_rate_plus_val"].statuses), [PRESENT, NULL, NULL])

    # Request data among the entities, a feature service, full names.
    request = serving.GetOnlineFeaturesRequest(
        feature_service="driver_model",
        entities={
            "driver_id": repeated("int64_val", [1001]),
            "zone": repeated("string_val", ["south"]),
            "val_to_add": repeated("int64_val", [10]),
        },
        full_feature_names=True,
        include_feature_view_version_metadata=True,
    )
    answer = stub.GetOnlineFeatures(request)
    got = columns(answer)
    equal(list(got["zone_rides__rides"].values), [Value(int32_val=4)])
    equal(list(got["driver_rates__conv_rate_plus_val"].values), [Value(double_val=10.5)])
    equal(
        sorted(view.name for view in answer.metadata.feature_view_metadata),
        ["driver_hourly_stats", "zone_rides"],
    )
    # The service of `feast listen` answers the same.
    equal(GrpcFeatureServerStub(channel).GetOnlineFeatures(request), answer)

    # Each type; entities of every type that a key may have.
    every = {
        "a_bytes": Value(bytes_val=b"\x00\xff"),
        "a_string": Value(string_val="Zürich"),
        "an_int32": Value(int32_val=-(2**31)),
        "an_int64": Value(int64_val=-(2**63)),
        "a_double": Value(double_val=0.1),
        "a_float": Value(float_val=0.1),
        "a_bool": Value(bool_val=False),
        "an_instant": Value(unix_timestamp_val=-1),
        "some_bytes": Value(bytes_list_val=BytesList(val=[b"", b"\x01"])),
        "some_strings": Value(string_list_val=StringList(val=["", "x"])),
        "some_int32": Value(int32_list_val=Int32List(val=[1, -1])),
        "some_int64": Value(int64_list_val=Int64List(val=[2**53 + 1])),
        "some_doubles": Value(double_list_val=DoubleList(val=[0.1, float("inf")])),
        "some_floats": Value(float_list_val=FloatList(val=[0.1])),
        "some_bools": Value(bool_list_val=BoolList(val=[True, False])),
        "some_instants": Value(unix_timestamp_list_val=Int64List(val=[0, 1])),
        # A typed list of Feast's holds no null.
        "with_null": Value(list_val=RepeatedValue(val=[Value(int64_val=1), Value()])),
        "no_items": Value(int64_list_val=Int64List()),
    }
    request = serving.GetOnlineFeaturesRequest(
        features=serving.FeatureList(val=[f"every_type:{name}" for name in every]),
        entities={
            "by_bytes": repeated("bytes_val", [b"\x00", b"\x01"]),
            "by_bool": repeated("bool_val", [True, True]),
            "by_int32": repeated("int64_val", [7, 7]),
            "by_instant": repeated("unix_timestamp_val", [now - HOUR, now - HOUR]),
        },
    )
    got = columns(stub.GetOnlineFeatures(request))
    for name, value in every.items():
        equal((name, got[name].values[0]), (name, value))
        equal(list(got[name].statuses), [PRESENT, NOT_FOUND])
    equal(got["by_int32"].values[0], Value(int32_val=7))

    # What is refused, and how.
    def ask(features=("driver_hourly_stats:city",), service=None, **entities):
        kind = (
            {"feature_service": service}
            if service
            else {"features": serving.FeatureList(val=features)}
        )
        return lambda: stub.GetOnlineFeatures(
            serving.GetOnlineFeaturesRequest(entities=entities, **kind)
        )

    invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    one = repeated("int64_val", [1])
    refused(ask(features=(), driver_id=one), invalid, "no features")
    refused(ask(driver=one), invalid, "driver_id")
    refused(ask(driver_id=repeated("string_val", ["x"])), invalid, "driver_id")
    refused(ask(driver_id=repeated("json_val", ["1"])), invalid, "json_val")
    refused(
        ask(driver_id=RepeatedValue(val=[Value(int64_val=1), Value(string_val="x")])),
        invalid,
        "row 1",
    )
    refused(ask(features=("nothing:at_all",), driver_id=one), missing, "nothing")
    refused(ask(service="nothing", driver_id=one), missing, "driver_model")
    refused(
        ask(features=("zone_rides:rides",), driver_id=one, zone=repeated("string_val", [])),
        invalid,
        "zone",
    )

    # A row that is pushed, as values and as texts.
    listener = GrpcFeatureServerStub(channel)

    def pushed(driver, **row):
        answer = listener.Push(
            listen.PushRequest(stream_feature_view="driver_stats", to="online", **row)
        )
        assert answer.status
        got = columns(ask(driver_id=repeated("int64_val", [driver]))())
        return got["city"].values[0].string_val

    at = int(time.time()) - 60
    values = {
        "driver_id": Value(int64_val=3001),
        "conv_rate": Value(double_val=0.5),
        "acc_rate": Value(float_val=0.5),
        "avg_daily_trips": Value(int32_val=1),
        "city": Value(string_val="Chur"),
        "happened_at": Value(unix_timestamp_val=at),
    }
    equal(pushed(3001, typed_features=values), "Chur")
    texts = {
        "driver_id": "3002",
        "conv_rate": "0.5",
        "acc_rate": "0.5",
        "avg_daily_trips": "1",
        "city": "Olten",
        "happened_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)),
    }
    equal(pushed(3002, features=texts), "Olten")
    texts["driver_id"] = "x"
    refused(lambda: pushed(3002, features=texts), invalid, "driver_id")
    refused(lambda: pushed(3002), invalid, "features")
    both = {"features": texts, "typed_features": values}
    refused(lambda: pushed(3002, **both), invalid, "`typed_features`")

    # A row that is written to a view, online alone; what has no value is null.
    def written(view, **row):
        return listener.WriteToOnlineStore(
            listen.WriteToOnlineStoreRequest(feature_view_name=view, **row)
        )

    values |= {"driver_id": Value(int64_val=3003), "conv_rate": Value()}
    assert written("driver_hourly_stats", typed_features=values).status
    features = ("driver_hourly_stats:city", "driver_hourly_stats:conv_rate")
    got = columns(ask(features=features, driver_id=repeated("int64_val", [3003]))())
    equal(list(got["city"].statuses), [PRESENT])
    equal(list(got["conv_rate"].statuses), [NULL])
    refused(lambda: written("nothing", typed_features=values), missing, "nothing")

    # Health and reflection.
    health = health_pb2_grpc.HealthStub(channel)
    for service in ["", "feast.serving.ServingService"]:
        status = health.Check(health_pb2.HealthCheckRequest(service=service)).status
        # `weather` is not materialized, and no feature service needs it.
        equal(status, health_pb2.HealthCheckResponse.SERVING)
    refused(lambda: health.Check(health_pb2.HealthCheckRequest(service="x")), missing, "`x`")
    watched = health.Watch(health_pb2.HealthCheckRequest(service=""))
    equal(next(watched).status, health_pb2.HealthCheckResponse.SERVING)
    watched.cancel()
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    listed = reflection.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    names = {service.name for service in next(listed).list_services_response.service}
    assert {"feast.serving.ServingService", "grpc.health.v1.Health"} <= names, names
print("asked")
