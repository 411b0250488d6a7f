//! What `apply` refuses.

use crate::repository::Repository;

#[test]
fn explore() {
    for (g, from, to) in [
        (
            "references_to_nothing",
            "entities: [airport]\n    source: airports\n",
            "entities: [airprot]\n    source: airprots\n",
        ),
        (
            "references_to_nothing",
            "origin:latitude",
            "origin:altitude",
        ),
        ("references_to_nothing", "origin:latitude", "orgin:latitude"),
        ("references_to_nothing", "origin:latitude", "key:orgin"),
        (
            "references_to_nothing",
            "transformation: clean_orders",
            "transformation: clean_order",
        ),
        (
            "references_to_nothing",
            "features: [origin_daily, ",
            "features: [origin_dayly, \"route:kilometers\", \"origin:\", clean_orders, ",
        ),
        ("aliases", "alias_of: airport\n", "alias_of: airprot\n"),
        ("aliases", "alias_of: airport\n", "alias_of: destination\n"),
        (
            "aliases",
            "alias_of: airport\n    join_keys: {iata: origin}",
            "alias_of: airport\n    ttl: 7d\n    online: false\n    join_keys: {icao: origin, iata: event_timestamp}",
        ),
        (
            "aliases",
            "alias_of: airport\n    join_keys: {iata: origin}",
            "alias_of: airport\n    join_keys: {iata: \"orig in\"}",
        ),
        ("bindings_of_inputs", "origin:latitude", "origin"),
        ("bindings_of_inputs", "origin:latitude", "key:origin"),
        ("bindings_of_inputs", "origin:latitude", "event_timestamp"),
        ("bindings_of_inputs", "origin:latitude", "\"origin:\""),
        (
            "bindings_of_inputs",
            "origin:longitude",
            "airport_daily:late_share",
        ),
        (
            "bindings_of_inputs",
            "at: event_timestamp",
            "at: origin:latitude",
        ),
        (
            "bindings_of_inputs",
            "request:minutes_ahead",
            "request:event_timestamp",
        ),
        (
            "bindings_of_inputs",
            "request:minutes_ahead",
            "\"request:minutes ahead\"",
        ),
        (
            "bindings_of_inputs",
            "      minutes_ahead: request:minutes_ahead\n",
            "",
        ),
        (
            "bindings_of_inputs",
            "      minutes_ahead:",
            "      minutes_behind:",
        ),
        ("bindings_of_inputs", "default: 0.0", "default: soon"),
        ("bindings_of_inputs", "default: 0.0", "default: null"),
        ("bindings_of_inputs", "default: 0.0", "default: 1"),
        ("bindings_of_inputs", "{value: 15.0}", "{value: null}"),
        ("bindings_of_inputs", "{value: 15.0}", "{value: true}"),
        ("bindings_of_inputs", "{value: 15.0}", "{value: .nan}"),
        ("kinds", "kind: on_demand", "kind: batch"),
        ("kinds", "kind: batch", "kind: on_demand"),
        (
            "kinds",
            "transformation: clean_orders",
            "transformation: route",
        ),
        ("names", "name: route\n", "name: request\n"),
        ("names", "name: destination\n", "name: origin\n"),
        (
            "names",
            "  - name: orders\n    path",
            "  - name: airports\n    path",
        ),
        ("names", "  - name: customer\n", "  - name: airport\n"),
        (
            "names",
            "  - name: orders\n    features",
            "  - name: delay_model\n    features",
        ),
        ("names", "name: origin_daily\n", "name: value\n"),
        ("names", "  - name: customer\n", "  - name: kund/in\n"),
        (
            "services",
            "features: [origin_daily, \"destination:latitude\"",
            "features: [origin_daily, origin_daily, \"destination:latitude\", \"origin:latitude\", origin",
        ),
        (
            "services",
            "full_feature_names: false\n    features: [origin_daily",
            "full_feature_names: true\n    features: [origin_daily, origin_daily",
        ),
        ("services", "request:minutes_ahead", "request:origin"),
        ("services", "request:minutes_ahead", "request:miles"),
        (
            "services",
            "join_keys: {iata: destination}",
            "join_keys: {iata: latitude}",
        ),
        (
            "join_keys",
            "{name: iata, type: string}",
            "{name: iata, type: float64}",
        ),
        (
            "join_keys",
            "{name: iata, type: string}",
            "{name: iata, type: list<string>}",
        ),
        (
            "join_keys",
            "{name: iata, type: string}",
            "{name: iata, type: int64}",
        ),
        ("join_keys", "{name: iata, type: string}", "{name: icao}"),
        (
            "join_keys",
            "[{name: iata, type: string}]",
            "[{name: event_timestamp}]",
        ),
        (
            "join_keys",
            "{name: iata, type: string}",
            "{name: iata}, {name: iata}",
        ),
        (
            "join_keys",
            "join_keys: [{name: customer_id}]",
            "join_keys: [{name: gift}, {name: total, type: int64}]",
        ),
        (
            "join_keys",
            "join_keys: [{name: customer_id}]",
            "join_keys: [{name: log_amount}]",
        ),
        (
            "join_keys",
            "    entities: [customer]\n",
            "    join_keys: {a: b}\n",
        ),
        (
            "join_keys",
            "entities: [customer]",
            "entities: [customer, customer]",
        ),
        (
            "features",
            "{name: longitude, type: float64}",
            "{name: longitude, type: int64}",
        ),
        (
            "features",
            "{name: longitude, type: float64}",
            "{name: longitude, type: double}",
        ),
        (
            "features",
            "{name: longitude, type: float64}",
            "{name: altitude}",
        ),
        (
            "features",
            "{name: longitude, type: float64}",
            "{name: price}\n      - {name: city}\n      - {name: latitude}\n      - {name: iata}\n      - {name: event_timestamp}\n      - {name: \"my city\"}",
        ),
        (
            "features",
            "    features: [{name: log_amount}, {name: is_gift}]\n",
            "",
        ),
        ("features", "{name: is_gift}", "{name: gift}"),
        (
            "features",
            "{name: is_gift}",
            "{name: is_gift, type: string}",
        ),
        (
            "sources",
            "timestamp_field: event_timestamp\n  - name: airport_daily_stats",
            "timestamp_field: latitude\n  - name: airport_daily_stats",
        ),
        (
            "sources",
            "timestamp_field: event_timestamp\n  - name: airport_daily_stats",
            "timestamp_field: ts\n    columns: {x: y}\n  - name: airport_daily_stats",
        ),
        (
            "sources",
            "    created_timestamp_column: created_timestamp\n    point_in_time: event",
            "    point_in_time: known",
        ),
        (
            "sources",
            "created_timestamp_column: loaded_at",
            "created_timestamp_column: gift",
        ),
        (
            "inputs_of_batch_transformations",
            "total, default: 0",
            "amount, default: 0",
        ),
        (
            "inputs_of_batch_transformations",
            "gift: gift",
            "gift: total",
        ),
        (
            "inputs_of_batch_transformations",
            "gift: gift",
            "gift: \"request:gift\"",
        ),
        (
            "inputs_of_batch_transformations",
            "gift: gift",
            "gift: event_timestamp",
        ),
        (
            "inputs_of_batch_transformations",
            "amount: {from: total, default: 0}",
            "amount: {from: total, default: 0.5}",
        ),
    ] {
        println!(
            "@@{:?}",
            (g, from, to, Repository::new().with(from, to).problems())
        );
    }
}
