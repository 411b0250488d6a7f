//! What `apply` refuses: all of it at once, each with file, line, what was found, and what would
//! be valid.

use unskew_core::component::Kind;
use unskew_core::definitions::Definitions;
use unskew_core::resolve::resolve;

use crate::repository::Repository;

/// A text of the repository, what takes its place, and what is wrong then.
pub(crate) type Case<'a> = (&'a str, &'a str, &'a [&'a str]);

pub(crate) fn refused(cases: &[Case<'_>]) {
    for (from, to, expected) in cases {
        let problems = Repository::new().with(from, to).problems();
        let found: Vec<&str> = problems.lines().collect();
        assert_eq!(&found, expected, "{from} -> {to}");
    }
}

#[test]
fn references_to_nothing() {
    refused(&[
        (
            "entities: [airport]\n    source: airports\n",
            "entities: [airprot]\n    source: airprots\n",
            &[
                "flights.yaml:18: no entity `airprot`; there are: airport, customer",
                "flights.yaml:19: no source `airprots`; there are: airports, airport_daily_stats, orders",
            ],
        ),
        (
            "origin:latitude",
            "origin:altitude",
            &["flights.yaml:48: `origin` has no `altitude`; it has: latitude, longitude"],
        ),
        (
            "origin:latitude",
            "orgin:latitude",
            &[
                "flights.yaml:48: no view, alias or on-demand transformation `orgin`; there are: airport, airport_daily, destination, last_order, origin, origin_daily, route",
            ],
        ),
        (
            "origin:latitude",
            "key:orgin",
            &[
                "flights.yaml:48: no join key `orgin`; there are: customer_id, destination, iata, origin",
            ],
        ),
        (
            "transformation: clean_orders",
            "transformation: clean_order",
            &[
                "orders.yaml:14: no transformation `clean_order`; of kind batch there are: clean_orders",
            ],
        ),
        (
            "features: [origin_daily, ",
            r#"features: [origin_dayly, "route:kilometers", "origin:", clean_orders, "#,
            &[
                "flights.yaml:59: `clean_orders` is a batch transformation; its outputs are features of the views that name it",
                "flights.yaml:59: `origin` has no ``; it has: latitude, longitude",
                "flights.yaml:59: `route` has no `kilometers`; it has: miles, hour_of_day",
                "flights.yaml:59: no view, alias or on-demand transformation `origin_dayly`; there are: airport, airport_daily, destination, last_order, origin, origin_daily, route",
            ],
        ),
    ]);
}

#[test]
fn aliases() {
    refused(&[
        (
            "alias_of: airport\n",
            "alias_of: airprot\n",
            &[
                "flights.yaml:34: no feature view `airprot`; there are: airport, airport_daily, last_order",
            ],
        ),
        (
            "alias_of: airport\n",
            "alias_of: destination\n",
            &[
                "flights.yaml:34: `destination` is itself an alias, of `airport`; name a feature view: airport, airport_daily, last_order",
            ],
        ),
        (
            "alias_of: airport\n    join_keys: {iata: origin}",
            "alias_of: airport\n    ttl: 7d\n    online: false\n    join_keys: {icao: origin, iata: event_timestamp}",
            &[
                "flights.yaml:35: an alias has `join_keys` and no `ttl`: its `ttl` is that of view `airport`",
                "flights.yaml:36: an alias has `join_keys` and no `online`: its `online` is that of view `airport`",
                "flights.yaml:37: a join key cannot be called `event_timestamp`, which is reserved",
                "flights.yaml:37: view `airport` has no join key `icao`; it has: iata",
            ],
        ),
        (
            "alias_of: airport\n    join_keys: {iata: origin}",
            "alias_of: airport\n    join_keys: {iata: \"orig in\"}",
            &[
                "flights.yaml:35: `orig in` is no join key name; a name is a letter or `_`, then letters, digits and `_`, at most 100",
            ],
        ),
    ]);
}

#[test]
fn bindings_of_inputs() {
    refused(&[
        (
            "origin:latitude",
            "origin",
            &[
                "flights.yaml:48: `origin` says not where the input of a transformation of kind on_demand comes from; valid: VIEW:FEATURE, TRANSFORMATION:OUTPUT, key:JOIN_KEY, request:FIELD, event_timestamp, {value: CONSTANT}",
            ],
        ),
        (
            "origin:latitude",
            "key:origin",
            &[
                "flights.yaml:48: input `from_latitude` of the component is float64, and `key:origin` is string",
            ],
        ),
        (
            "origin:latitude",
            "event_timestamp",
            &[
                "flights.yaml:48: input `from_latitude` of the component is float64, and `event_timestamp` is timestamp",
            ],
        ),
        (
            "origin:latitude",
            r#""origin:""#,
            &[
                "flights.yaml:48: `origin:` says not where the input of a transformation of kind on_demand comes from; valid: VIEW:FEATURE, TRANSFORMATION:OUTPUT, key:JOIN_KEY, request:FIELD, event_timestamp, {value: CONSTANT}",
            ],
        ),
        ("origin:longitude", "airport_daily:late_share", &[]),
        (
            "at: event_timestamp",
            "at: origin:latitude",
            &[
                "flights.yaml:55: input `at` of the component is timestamp, and `origin:latitude` is float64",
            ],
        ),
        (
            "request:minutes_ahead",
            "request:event_timestamp",
            &[
                "flights.yaml:53: a request field cannot be called `event_timestamp`; bind the input to `event_timestamp` itself",
            ],
        ),
        (
            "request:minutes_ahead",
            r#""request:minutes ahead""#,
            &[
                "flights.yaml:53: `request:minutes ahead` says not where the input of a transformation of kind on_demand comes from; valid: VIEW:FEATURE, TRANSFORMATION:OUTPUT, key:JOIN_KEY, request:FIELD, event_timestamp, {value: CONSTANT}",
            ],
        ),
        (
            "      minutes_ahead: request:minutes_ahead\n",
            "",
            &[
                "flights.yaml:47: input `minutes_ahead` (int64) of the component has no binding; write where it comes from, such as `minutes_ahead: VIEW:FEATURE`",
            ],
        ),
        (
            "      minutes_ahead:",
            "      minutes_behind:",
            &[
                "flights.yaml:47: input `minutes_ahead` (int64) of the component has no binding; write where it comes from, such as `minutes_ahead: VIEW:FEATURE`",
                "flights.yaml:53: the component has no input `minutes_behind`; it has: from_latitude (float64), from_longitude (float64), to_latitude (float64), to_longitude (float64), mean_delay (float64), minutes_ahead (int64), late_after (float64), at (timestamp)",
            ],
        ),
        (
            "default: 0.0",
            "default: soon",
            &[
                r#"flights.yaml:52: "soon" is no float64, the type of input `mean_delay`; only a number that it holds exactly is taken, since nothing may be lost"#,
            ],
        ),
        ("default: 0.0", "default: null", &[]),
        ("default: 0.0", "default: 1", &[]),
        (
            "{value: 15.0}",
            "{value: null}",
            &["flights.yaml:54: null is no value of input `late_after`: it is not nullable"],
        ),
        (
            "{value: 15.0}",
            "{value: true}",
            &[
                "flights.yaml:54: true is no float64, the type of input `late_after`; only a number that it holds exactly is taken, since nothing may be lost",
            ],
        ),
        ("{value: 15.0}", "{value: .nan}", &[]),
    ]);
}

#[test]
fn kinds() {
    refused(&[
        (
            "kind: on_demand",
            "kind: batch",
            &["flights.yaml:44: `route` is declared batch, and its component is of kind on_demand"],
        ),
        (
            "kind: batch",
            "kind: on_demand",
            &[
                "orders.yaml:14: transformation `clean_orders` is of kind on_demand; a view takes one of kind batch: none",
                "orders.yaml:18: `clean_orders` is declared on_demand, and its component is of kind batch",
            ],
        ),
        (
            "transformation: clean_orders",
            "transformation: route",
            &[
                "orders.yaml:14: transformation `route` is of kind on_demand; a view takes one of kind batch: clean_orders",
            ],
        ),
    ]);
}

#[test]
fn names() {
    refused(&[
        (
            "name: route\n",
            "name: request\n",
            &[
                "flights.yaml:43: `request` is reserved; so are request, key, value, event_timestamp",
                "flights.yaml:45: the component was not loaded",
                "flights.yaml:59: no view, alias or on-demand transformation `route`; there are: airport, airport_daily, destination, last_order, origin, origin_daily, request",
            ],
        ),
        (
            "name: destination\n",
            "name: origin\n",
            &[
                "flights.yaml:36: alias `origin` is called like the alias at flights.yaml:33; a name stands for one thing",
                "flights.yaml:50: no view, alias or on-demand transformation `destination`; there are: airport, airport_daily, last_order, origin, origin_daily, route",
                "flights.yaml:51: no view, alias or on-demand transformation `destination`; there are: airport, airport_daily, last_order, origin, origin_daily, route",
                "flights.yaml:59: no view, alias or on-demand transformation `destination`; there are: airport, airport_daily, last_order, origin, origin_daily, route",
            ],
        ),
        (
            "  - name: orders\n    path",
            "  - name: airports\n    path",
            &[
                "orders.yaml:5: source `airports` is called like the source at flights.yaml:7; a name stands for one thing",
                "orders.yaml:13: no source `orders`; there are: airports, airport_daily_stats",
            ],
        ),
        (
            "  - name: customer\n",
            "  - name: airport\n",
            &[
                "orders.yaml:2: entity `airport` is called like the entity at flights.yaml:3; a name stands for one thing",
                "orders.yaml:12: no entity `customer`; there are: airport",
            ],
        ),
        (
            "  - name: orders\n    features",
            "  - name: delay_model\n    features",
            &[
                "orders.yaml:27: feature service `delay_model` is called like the feature service at flights.yaml:57; a name stands for one thing",
            ],
        ),
        (
            "name: origin_daily\n",
            "name: value\n",
            &[
                "flights.yaml:39: `value` is reserved; so are request, key, value, event_timestamp",
                "flights.yaml:52: no view, alias or on-demand transformation `origin_daily`; there are: airport, airport_daily, destination, last_order, origin, route, value",
                "flights.yaml:59: no view, alias or on-demand transformation `origin_daily`; there are: airport, airport_daily, destination, last_order, origin, route, value",
            ],
        ),
        (
            "  - name: customer\n",
            "  - name: kund/in\n",
            &[
                "orders.yaml:2: `kund/in` is no entity name; a name is a letter or `_`, then letters, digits and `_`, at most 100",
                "orders.yaml:3: join key `customer_id` has no `type`, and no view's source gives it one; types are string, int32, int64, bool, bytes, timestamp",
                "orders.yaml:12: no entity `customer`; there are: airport, kund/in",
            ],
        ),
    ]);
}

#[test]
fn services() {
    refused(&[
        (
            r#"features: [origin_daily, "destination:latitude""#,
            r#"features: [origin_daily, origin_daily, "destination:latitude", "origin:latitude", origin"#,
            &[
                "flights.yaml:59: `origin:latitude` is named twice; once is enough",
                "flights.yaml:59: `origin_daily:late_share` is named twice; once is enough",
                "flights.yaml:59: `origin_daily:mean_delay` is named twice; once is enough",
                "flights.yaml:59: two outputs are called `latitude` (destination:latitude and origin:latitude); with `full_feature_names: true` they are called VIEW__FEATURE",
            ],
        ),
        (
            "full_feature_names: false\n    features: [origin_daily",
            "full_feature_names: true\n    features: [origin_daily, origin_daily",
            &[
                "flights.yaml:59: `origin_daily:late_share` is named twice; once is enough",
                "flights.yaml:59: `origin_daily:mean_delay` is named twice; once is enough",
            ],
        ),
        (
            "request:minutes_ahead",
            "request:origin",
            &[
                "flights.yaml:59: `origin` is a join key and a request field; one name stands for one thing within a service",
            ],
        ),
        (
            "request:minutes_ahead",
            "request:miles",
            &[
                "flights.yaml:59: output `miles` (route:miles) is called like a request field; rename one of them, or set `full_feature_names: true`",
            ],
        ),
        (
            "join_keys: {iata: destination}",
            "join_keys: {iata: latitude}",
            &[
                "flights.yaml:59: output `latitude` (destination:latitude) is called like a join key; rename one of them, or set `full_feature_names: true`",
            ],
        ),
    ]);
}

#[test]
fn join_keys() {
    refused(&[
        (
            "{name: iata, type: string}",
            "{name: iata, type: float64}",
            &[
                "flights.yaml:4: a join key cannot be `float64`; types are string, int32, int64, bool, bytes, timestamp",
            ],
        ),
        (
            "{name: iata, type: string}",
            "{name: iata, type: list<string>}",
            &[
                "flights.yaml:4: a join key cannot be `list<string>`; types are string, int32, int64, bool, bytes, timestamp",
            ],
        ),
        (
            "{name: iata, type: string}",
            "{name: iata, type: int64}",
            &[
                "flights.yaml:18: join key `iata` is int64, and in source `airports` it is string",
                "flights.yaml:24: join key `iata` is int64, and in source `airport_daily_stats` it is string",
            ],
        ),
        (
            "{name: iata, type: string}",
            "{name: icao}",
            &[
                "flights.yaml:18: join key `icao`: source `airports` has no column `icao`; it has: iata, event_timestamp, latitude, longitude, city, price",
                "flights.yaml:24: join key `icao`: source `airport_daily_stats` has no column `icao`; it has: iata, event_timestamp, created_timestamp, mean_delay, late_share",
            ],
        ),
        (
            "[{name: iata, type: string}]",
            "[{name: event_timestamp}]",
            &[
                "flights.yaml:4: a join key cannot be called `event_timestamp`, which is reserved",
                "flights.yaml:35: view `airport` has no join key `iata`; it has: event_timestamp",
                "flights.yaml:38: view `airport` has no join key `iata`; it has: event_timestamp",
                "flights.yaml:41: view `airport_daily` has no join key `iata`; it has: event_timestamp",
            ],
        ),
        (
            "{name: iata, type: string}",
            "{name: iata}, {name: iata}",
            &["flights.yaml:4: join key `iata` occurs twice"],
        ),
        (
            "join_keys: [{name: customer_id}]",
            "join_keys: [{name: gift}, {name: total, type: int64}]",
            &[],
        ),
        (
            "join_keys: [{name: customer_id}]",
            "join_keys: [{name: log_amount}]",
            &[
                "orders.yaml:3: join key `log_amount` is float64 in transformation `clean_orders`, which no join key can be; types are string, int32, int64, bool, bytes, timestamp",
            ],
        ),
        (
            "    entities: [customer]\n",
            "    join_keys: {a: b}\n",
            &[
                "orders.yaml:3: join key `customer_id` has no `type`, and no view's source gives it one; types are string, int32, int64, bool, bytes, timestamp",
                "orders.yaml:11: `entities` is missing; write `entities: []` for one row for everybody",
                "orders.yaml:12: `join_keys` belongs to an alias; a view has the join keys of its entities",
            ],
        ),
        (
            "entities: [customer]",
            "entities: [customer, customer]",
            &["orders.yaml:12: entity `customer` occurs twice"],
        ),
    ]);
}

#[test]
fn features() {
    refused(&[
        (
            "{name: longitude, type: float64}",
            "{name: longitude, type: int64}",
            &[
                "flights.yaml:22: feature `longitude` is declared int64, and in source `airports` it is float32",
            ],
        ),
        (
            "{name: longitude, type: float64}",
            "{name: longitude, type: double}",
            &[
                "flights.yaml:22: no such type `double`; types are bool, int32, int64, float32, float64, string, bytes, timestamp and lists of them, such as list<int64>",
            ],
        ),
        (
            "{name: longitude, type: float64}",
            "{name: altitude}",
            &[
                "flights.yaml:22: source `airports` has no column `altitude`; it has: iata, event_timestamp, latitude, longitude, city, price",
            ],
        ),
        (
            "{name: longitude, type: float64}",
            "{name: price}\n      - {name: city}\n      - {name: latitude}\n      - {name: iata}\n      - {name: event_timestamp}\n      - {name: \"my city\"}",
            &[
                "flights.yaml:22: column `price` of source `airports` is Decimal128(10, 2), which no type of a feature holds; write it to the file as another type, or leave it out",
                "flights.yaml:24: feature `latitude` occurs twice",
                "flights.yaml:25: `iata` is a join key of this view, and cannot be its feature too",
                "flights.yaml:26: a feature cannot be called `event_timestamp`, which is reserved",
                "flights.yaml:27: `my city` is no feature name; a name is a letter or `_`, then letters, digits and `_`, at most 100",
                "flights.yaml:27: source `airports` has no column `my city`; it has: iata, event_timestamp, latitude, longitude, city, price",
            ],
        ),
        (
            "    features: [{name: log_amount}, {name: is_gift}]\n",
            "",
            &["orders.yaml:11: a view needs `features`; at least one"],
        ),
        (
            "{name: is_gift}",
            "{name: gift}",
            &[
                "orders.yaml:15: transformation `clean_orders` has no output `gift`; it has: log_amount, is_gift",
            ],
        ),
        (
            "{name: is_gift}",
            "{name: is_gift, type: string}",
            &[
                "orders.yaml:15: feature `is_gift` is declared string, and in transformation `clean_orders` it is bool",
            ],
        ),
    ]);
}

#[test]
fn sources() {
    refused(&[
        (
            "timestamp_field: event_timestamp\n  - name: airport_daily_stats",
            "timestamp_field: latitude\n  - name: airport_daily_stats",
            &[
                "flights.yaml:9: column `latitude` of source `airports` is Float64; a timestamp or a date is wanted",
            ],
        ),
        (
            "timestamp_field: event_timestamp\n  - name: airport_daily_stats",
            "timestamp_field: ts\n    columns: {x: y}\n  - name: airport_daily_stats",
            &[
                "flights.yaml:9: source `airports` has no column `ts`; it has: iata, event_timestamp, latitude, longitude, city, price",
                "flights.yaml:10: source `airports` has no column `y`; it has: iata, event_timestamp, latitude, longitude, city, price",
            ],
        ),
        (
            "    created_timestamp_column: created_timestamp\n    point_in_time: event",
            "    point_in_time: known",
            &[
                "flights.yaml:13: point_in_time `known` needs a `created_timestamp_column`: it says when a row became known",
            ],
        ),
        (
            "created_timestamp_column: loaded_at",
            "created_timestamp_column: gift",
            &[
                "orders.yaml:8: column `gift` of source `orders` is Boolean; a timestamp or a date is wanted",
            ],
        ),
    ]);
}

/// Three on-demand transformations, whose inputs are given.
fn chain(inputs: [&str; 3]) -> Repository {
    let definition = |(name, inputs): (&str, &str)| {
        format!(
            "  - name: {name}\n    kind: on_demand\n    component: {name}\n    inputs: {{x: \"{inputs}\"}}\n"
        )
    };
    let names = ["a", "b", "c"];
    let definitions: String = names.into_iter().zip(inputs).map(definition).collect();
    let mut repository = Repository::new().and(&format!("transformations:\n{definitions}"));
    for name in names {
        repository.component(name, Kind::OnDemand, "x: float64", "y: float64");
    }
    repository
}

#[test]
fn a_cycle_is_named_once() {
    let cases = [
        (
            ["a:y", "request:x", "a:y"],
            "more.yaml:5: a cycle of transformations: a → a",
        ),
        (
            ["b:y", "c:y", "a:y"],
            "more.yaml:5: a cycle of transformations: a → b → c → a",
        ),
        (
            ["b:y", "c:y", "b:y"],
            "more.yaml:9: a cycle of transformations: b → c → b",
        ),
        (["b:y", "c:y", "origin:latitude"], ""),
    ];
    for (inputs, expected) in cases {
        let service =
            "feature_services:\n  - {name: s, features: [a, c], full_feature_names: true}\n";
        let problems = chain(inputs).with(
            "transformations:\n  - name: a",
            &format!("{service}transformations:\n  - name: a"),
        );
        let expected = expected.replace(":5:", ":7:").replace(":9:", ":11:");
        assert_eq!(problems.problems(), expected, "{inputs:?}");
    }
}

#[test]
fn what_refers_to_something_wrong_has_no_problem_of_its_own() {
    // `a` is wrong; `b`, `c` and a service stand on it.
    let repository = chain(["origin:altitude", "a:y", "b:y"])
        .and("feature_services:\n  - {name: s, features: [c]}\n");
    let expected = "more.yaml:5: `origin` has no `altitude`; it has: latitude, longitude";
    assert_eq!(repository.problems(), expected);

    let mut repository = Repository::new();
    let missing = "data/airports.parquet: no such file".to_owned();
    repository
        .surroundings
        .sources
        .insert("airports".into(), Err(missing));
    let expected = "flights.yaml:8: data/airports.parquet: no such file";
    assert_eq!(repository.problems(), expected);
    // Nor have keys and features, whose types that source would give.
    let repository = repository
        .with("{name: iata, type: string}", "{name: iata}")
        .with("{name: latitude, type: float64}", "{name: latitude}");
    assert_eq!(repository.problems(), expected);

    let mut repository = Repository::new();
    let broken = "it does not compile".to_owned();
    repository
        .surroundings
        .components
        .insert("route".into(), Err(broken.clone()));
    repository
        .surroundings
        .components
        .insert("clean_orders".into(), Err(broken));
    let expected = "flights.yaml:45: it does not compile\norders.yaml:19: it does not compile";
    assert_eq!(repository.problems(), expected);
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let repository = Repository::new()
        .with("entities: [airport]", "entities: [airprot]")
        .with(
            "{name: longitude, type: float64}",
            "{name: longitude, type: double}",
        )
        .with("ttl: 7d", "ttl: 7d\n    source: x")
        .with("origin_daily:mean_delay", "origin_daily:delay")
        .with("request:minutes_ahead", "request")
        .with("\"destination:latitude\"", "\"origin_daily:x\"")
        .with("timestamp_field: ordered_at", "timestamp_field: at")
        .with("transformation: clean_orders", "transformation: clean");
    let problems = repository.problems();
    assert!(problems.contains("duplicated key"), "{problems}");
    let repository = repository.with("ttl: 7d\n    source: x", "ttl: 7d");
    let expected = [
        "flights.yaml:18: no entity `airprot`; there are: airport, customer",
        "flights.yaml:22: no such type `double`; types are bool, int32, int64, float32, float64, \
         string, bytes, timestamp and lists of them, such as list<int64>",
        "flights.yaml:52: ",
        "flights.yaml:53: ",
        "flights.yaml:59: ",
        "orders.yaml:7: source `orders` has no column `at`; it has: customer_id, ordered_at, \
         loaded_at, amount_in_cents, gift",
        "orders.yaml:14: no transformation `clean`; of kind batch there are: clean_orders",
    ];
    let problems = repository.problems();
    for (line, problem) in problems.lines().zip(expected) {
        assert!(line.starts_with(problem), "{problems}");
    }
    assert_eq!(problems.lines().count(), expected.len(), "{problems}");
}

#[test]
fn shapes_are_told_of_all_files_at_once() {
    let repository = Repository::new()
        .with("ttl: 7d", "ttl: 7")
        .with("kind: batch", "kind: bach");
    let expected = "flights.yaml:26: found `7`, wanted a duration: 30s, 15m, 6h, 7d, or 0\n\
                    orders.yaml:18: found `bach`, wanted on_demand or batch";
    assert_eq!(repository.problems(), expected);
}

#[test]
fn nothing_that_was_not_loaded_is_taken_for_whole() {
    let repository = Repository::new();
    let definitions = Definitions::read(&repository.files);
    let problems = resolve("test", &definitions, &Default::default()).unwrap_err();
    let expected = "flights.yaml:8: the source was not read\n\
                    flights.yaml:11: the source was not read\n\
                    flights.yaml:45: the component was not loaded\n\
                    orders.yaml:6: the source was not read\n\
                    orders.yaml:19: the component was not loaded";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn an_empty_repository_is_a_project() {
    let project = resolve("test", &Definitions::default(), &Default::default()).unwrap();
    assert_eq!(project.name, "test");
    assert!(project.views.is_empty() && project.services.is_empty());
}

#[test]
fn types_that_are_left_out_are_those_of_source_and_component() {
    let project = Repository::new()
        .with("{name: iata, type: string}", "{name: iata}")
        .with(
            "{name: latitude, type: float64}",
            "{name: latitude}\n      - {name: city}",
        )
        .with("{name: longitude, type: float64}", "{name: longitude}")
        .with(
            "from_longitude: origin:longitude",
            "from_longitude: {value: 0}",
        )
        .project();
    let typed = |view: &str| {
        let view = &project.views[view].value.view;
        let keys = view
            .keys
            .iter()
            .map(|key| format!("{}: {}", key.name, key.data_type));
        let features = view.features.iter();
        let features = features.map(|field| format!("{}: {}", field.name, field.data_type));
        keys.chain(features).collect::<Vec<_>>().join(", ")
    };
    let airport = "iata: string, latitude: float64, city: list<string>, longitude: float32";
    assert_eq!(typed("airport"), airport);
    assert_eq!(
        typed("last_order"),
        "customer_id: int64, log_amount: float64, is_gift: bool"
    );
}

#[test]
fn what_is_left_out_has_its_default() {
    let project = Repository::new().project();
    let airport = &project.views["airport"].value.view;
    assert_eq!((airport.ttl, airport.online), (None, true));
    assert_eq!(
        project.views["airport_daily"].value.view.ttl,
        Some(7 * unskew_core::time::DAY)
    );
    for (zero, without) in [
        ("ttl: 0", None),
        ("ttl: \"0\"", None),
        ("ttl: 0s", None),
        ("ttl: 1s", Some(1_000_000)),
    ] {
        let project = Repository::new().with("ttl: 7d", zero).project();
        assert_eq!(
            project.views["airport_daily"].value.view.ttl, without,
            "{zero}"
        );
    }
    let about = &project.views["airport_daily"].about;
    assert_eq!(about.owner.as_deref(), Some("flights@example.com"));
    assert_eq!(about.tags["team"], "delays");
}

#[test]
fn a_view_may_have_no_entities_or_several() {
    let everybody = Repository::new().with("entities: [customer]", "entities: []");
    let everybody = everybody.with(
        "[{name: customer_id}]",
        "[{name: customer_id, type: int64}]",
    );
    assert!(
        everybody.project().views["last_order"]
            .value
            .view
            .keys
            .is_empty()
    );

    let orders = "{name: customer_id}]";
    let two =
        "{name: customer_id}]\n  - name: currency\n    join_keys: [{name: gift}, {name: total}]";
    let composite = Repository::new()
        .with(orders, two)
        .with("entities: [customer]", "entities: [currency, customer]");
    let view = &composite.project().views["last_order"].value.view;
    let names: Vec<_> = view.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["gift", "total", "customer_id"]);
}

#[test]
fn a_project_reads_back_from_its_json() {
    let project = Repository::new()
        .with("{value: 0.5}", "{value: 0.1}")
        .with(
            "late_after: {value: 15.0}",
            "late_after: {value: 1.7976931348623157e308}",
        )
        .project();
    let json = serde_json::to_string(&project).unwrap();
    assert_eq!(
        serde_json::from_str::<unskew_core::project::Project>(&json).unwrap(),
        project
    );
}
