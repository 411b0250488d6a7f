//! A digest changes with the meaning, and with nothing else.

use std::collections::BTreeSet;

use arrow::datatypes::DataType as Arrow;
use unskew_core::component::Kind;
use unskew_core::digest::Digest;
use unskew_core::types::ScalarType;

use crate::repository::Repository;

fn view(repository: &Repository, name: &str) -> Digest {
    repository.project().views[name].value.view.digest()
}

/// Changes of the repository, each of which must change the digest, and to another one.
fn assert_all_differ(changes: &[(&str, &str)], digest: impl Fn(&Repository) -> Digest) {
    let mut seen = BTreeSet::from([digest(&Repository::new())]);
    for (from, to) in changes {
        let changed = digest(&Repository::new().with(from, to));
        assert!(
            seen.insert(changed),
            "{from} -> {to} leaves the digest as it was"
        );
    }
}

fn assert_all_equal(changes: &[(&str, &str)], digest: impl Fn(&Repository) -> Digest) {
    for (from, to) in changes {
        let changed = digest(&Repository::new().with(from, to));
        assert_eq!(changed, digest(&Repository::new()), "{from} -> {to}");
    }
}

#[test]
fn a_view_digest_names_all_that_decides_the_meaning_of_a_stored_row() {
    assert_all_differ(
        &[
            ("path: data/airport_daily_stats.parquet", "path: data/other"),
            ("    created_timestamp_column: created_timestamp\n", ""),
            ("point_in_time: event", "point_in_time: known"),
            (
                "# columns: {iata: airport_code}",
                "columns: {mean_delay: late_share}",
            ),
            ("ttl: 7d", "ttl: 8d"),
            ("ttl: 7d", "ttl: 0"),
            ("type: float32}", "type: float64}"),
            ("- {name: late_share, type: float32}", ""),
            (
                "      - {name: late_share, type: float32}",
                "      - {name: late_share}\n      - {name: created_timestamp}",
            ),
        ],
        |repository| view(repository, "airport_daily"),
    );
    // The order of features is the layout of a row.
    let swapped = Repository::new().with(
        "{name: log_amount}, {name: is_gift}",
        "{name: is_gift}, {name: log_amount}",
    );
    assert_ne!(
        view(&swapped, "last_order"),
        view(&Repository::new(), "last_order")
    );
    // A timestamp column, and a key of another type.
    let mut repository = Repository::new();
    let before = view(&repository, "airport");
    repository.source(
        "airports",
        &[
            ("iata", Arrow::Int32),
            ("event_timestamp", ScalarType::Timestamp.arrow()),
            ("seen", ScalarType::Timestamp.arrow()),
            ("latitude", Arrow::Float64),
            ("longitude", Arrow::Float32),
        ],
    );
    repository.source(
        "airport_daily_stats",
        &[
            ("iata", Arrow::Int32),
            ("event_timestamp", Arrow::Date32),
            ("created_timestamp", Arrow::Date32),
            ("mean_delay", Arrow::Float64),
            ("late_share", Arrow::Float32),
        ],
    );
    let repository = repository.with("{name: iata, type: string}", "{name: iata}");
    let with_other_key = view(&repository, "airport");
    assert_ne!(with_other_key, before);
    let repository = repository.with("timestamp_field: event_timestamp", "timestamp_field: seen");
    assert_ne!(view(&repository, "airport"), with_other_key);
}

#[test]
fn a_view_digest_names_the_batch_transformation() {
    assert_all_differ(
        &[
            ("on_error: null", "on_error: fail"),
            ("{value: 0.5}", "{value: 0.25}"),
            ("{value: 0.5}", "{from: total}"),
            ("{from: total, default: 0}", "total"),
            ("{from: total, default: 0}", "{from: total, default: 1}"),
            (
                "{from: total, default: 0}",
                "{from: customer_id, default: 0}",
            ),
            ("gift: gift", "gift: {value: true}"),
        ],
        |repository| view(repository, "last_order"),
    );
    let mut repository = Repository::new();
    let before = view(&repository, "last_order");
    let component = repository
        .surroundings
        .components
        .get_mut("clean_orders")
        .unwrap();
    component.as_mut().unwrap().0 = Digest::of(b"another build");
    assert_ne!(view(&repository, "last_order"), before);
}

#[test]
fn a_view_digest_names_nothing_else() {
    assert_all_equal(
        &[
            ("owner: flights@example.com", "owner: somebody"),
            ("tags: {team: delays}", "tags: {}"),
            (
                "description: \"minutes, may be negative\"",
                "description: minutes",
            ),
            (
                "description: an airport, by its IATA code",
                "description: x",
            ),
            ("online: true", "online: false"),
            ("ttl: 7d", "ttl: 168h"),
            ("point_in_time: event", "late_by: 7d"),
            (
                "point_in_time: event",
                "partition: {column: iata, of: event_timestamp, slack: 1d}",
            ),
            ("mean_delay, type: float64,", "mean_delay,"),
            (
                "# columns: {iata: airport_code}",
                "columns: {iata: iata, unused: late_share}",
            ),
            (
                "name: airport_daily_stats\n    path",
                "name: airport_daily_stats\n    description: x\n    path",
            ),
        ],
        |repository| view(repository, "airport_daily"),
    );
    // Nor does it change with another name of the view, or of its source.
    let renamed = Repository::new()
        .with("name: orders\n    path", "name: sales\n    path")
        .with("source: orders", "source: sales");
    let mut renamed = renamed
        .with("name: last_order", "name: last_sale")
        .with("[last_order]", "[last_sale]");
    let orders = renamed.surroundings.sources.remove("orders").unwrap();
    renamed
        .surroundings
        .sources
        .insert("sales".to_owned(), orders);
    assert_eq!(
        view(&renamed, "last_sale"),
        view(&Repository::new(), "last_order")
    );
}

#[test]
fn a_plan_digest_names_all_that_decides_the_results() {
    let digest = |repository: &Repository| repository.plan("delay_model").digest();
    assert_all_differ(
        &[
            ("ttl: 7d", "ttl: 8d"),
            ("path: data/airports.parquet", "path: other"),
            ("{iata: destination}", "{iata: arrival}"),
            ("on_error: fail", "on_error: null"),
            ("default: 0.0", "default: 1.0"),
            ("default: 0.0", "default: null"),
            ("{value: 15.0}", "{value: 15.5}"),
            ("request:minutes_ahead", "request:minutes"),
            ("request:minutes_ahead", "{value: 5}"),
            (
                "from_latitude: origin:latitude",
                "from_latitude: origin:longitude",
            ),
            ("at: event_timestamp", "at: request:at"),
            ("full_feature_names: false", "full_feature_names: true"),
            (
                "\"route:miles\", \"route:hour_of_day\"",
                "\"route:hour_of_day\", \"route:miles\"",
            ),
            ("\"route:miles\", ", ""),
            (
                "name: delay_model",
                "name: delay_model\n    features: [\"origin:latitude\"]\n  - name: other",
            ),
        ],
        digest,
    );
    let mut repository = Repository::new();
    let before = digest(&repository);
    let component = repository.surroundings.components.get_mut("route").unwrap();
    component.as_mut().unwrap().0 = Digest::of(b"another build");
    assert_ne!(digest(&repository), before);
    // The service's name is in it; the same features without a service are another plan.
    let mut repository = Repository::new();
    repository.component(
        "clean_orders",
        Kind::Batch,
        "amount: int64!, gift: bool, rate: float64, at: timestamp",
        "log_amount: float64, is_gift: bool, more: bool",
    );
    assert_eq!(digest(&repository), before, "another service's component");
}

#[test]
fn a_plan_digest_names_nothing_else() {
    assert_all_equal(
        &[
            ("owner: flights@example.com", "owner: somebody"),
            ("description: an airport, by its IATA code", "tags: {a: b}"),
            ("name: delay_model", "name: delay_model\n    description: x"),
            ("component: transforms/route ", "component: moved.wasm "),
            ("online: true", "online: false"),
            ("name: origin_daily\n", "name: origin_daily\n    owner: x\n"),
        ],
        |repository| repository.plan("delay_model").digest(),
    );
}

/// They name what stores and training sets hold, so they may not change by chance.
#[test]
fn digests_stay_from_version_to_version() {
    let repository = Repository::new();
    let digests = [
        view(&repository, "airport"),
        view(&repository, "last_order"),
        repository.plan("delay_model").digest(),
    ];
    let expected = [
        "3951db50dbb0b02f467d28ac5b6b2bad238d3d70b2370428ad94c8f46a0c1abb",
        "01d0318ecdb57a7ef10e7fbf6dee9893f050d5c760f139b9b0a90cc1999d2b8f",
        "8e77d5afad54ef785287d8a50ba2aa0f09b252f764b9c23f262414d3f392b291",
    ];
    assert_eq!(digests.map(|digest| digest.hex()), expected);
}
