//! What is wrong with one definition hides nothing of the others, and has no problems in its train.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use unskew_core::definitions::Definitions;
use unskew_core::project::About;
use unskew_core::view::{FOLDER_COLUMN, Partition, STORE_SCHEMES};

use crate::repository::{FLIGHTS, ORDERS, Repository};
use crate::resolve::refused;

/// A problem of a service that refers to nothing, to see that such are still found.
const DANGLING: (&str, &str) = ("features: [last_order]", "features: [last_order, nothing]");

fn dangling(valid: &str) -> String {
    format!(
        "orders.yaml:28: no view, alias or on-demand transformation `nothing`; there are: {valid}"
    )
}

const LOOKUPS: &str =
    "airport, airport_daily, destination, last_order, origin, origin_daily, route";

#[test]
fn a_definition_with_a_wrong_shape_is_left_out_alone() {
    let ttl = |found: &str| format!("{found}, wanted a duration: 30s, 15m, 6h, 7d, or 0");
    let cases = [
        // An entity, of which two views are.
        (
            "join_keys: [{name: iata, type: string}]",
            "join_keys: iata",
            "flights.yaml:4: found `iata`, wanted a list".to_owned(),
            LOOKUPS,
        ),
        // A source, whose view gives a join key its type.
        (
            "columns: {total: amount_in_cents}",
            "columns: total",
            "orders.yaml:9: found `total`, wanted a mapping".to_owned(),
            LOOKUPS,
        ),
        // A view, with an alias, on which a transformation stands.
        (
            "ttl: 7d",
            "ttl: 7",
            ttl("flights.yaml:26: found `7`"),
            "airport, destination, last_order, origin, origin_daily, route",
        ),
        // A view that gives a join key its type.
        (
            "source: orders\n",
            "source: orders\n    ttl: week\n",
            ttl("orders.yaml:14: found `week`"),
            "airport, airport_daily, destination, origin, origin_daily, route",
        ),
        // An alias, to which inputs are bound.
        (
            "join_keys: {iata: destination}",
            "join_keys: destination",
            "flights.yaml:38: found `destination`, wanted a mapping".to_owned(),
            "airport, airport_daily, last_order, origin, origin_daily, route",
        ),
        // A transformation that a service names.
        (
            "on_error: fail",
            "on_error: ignore",
            "flights.yaml:46: found `ignore`, wanted fail or null: what becomes of a row for which \
             a component fails"
                .to_owned(),
            "airport, airport_daily, destination, last_order, origin, origin_daily",
        ),
        // A transformation that a view names.
        (
            "component: transforms/clean_orders.wasm",
            "component: 1",
            "orders.yaml:19: found `1`, wanted text, in quotes".to_owned(),
            LOOKUPS,
        ),
        // A service, to which nothing refers.
        (
            "full_feature_names: false",
            "full_feature_names: no",
            "flights.yaml:58: found `no`, wanted true or false".to_owned(),
            LOOKUPS,
        ),
    ];
    for (from, to, expected, valid) in cases {
        let repository = Repository::new().with(DANGLING.0, DANGLING.1);
        let problems = repository.with(from, to).problems();
        let line = match to.contains("week") {
            true => dangling(valid).replace(":28:", ":29:"),
            false => dangling(valid),
        };
        assert_eq!(problems, format!("{expected}\n{line}"), "{from} -> {to}");
    }
}

#[test]
fn the_others_keep_their_places_and_everything_is_told() {
    let repository = Repository::new()
        .with("name: airports\n", "name: airports\n    late_by: x\n")
        .with("timestamp_field: ordered_at", "timestamp_field: at")
        .with("online: true", "online: maybe\n    ttl: {}")
        .with(
            "timestamp_field: event_timestamp\n    created",
            "timestamp_field: at\n    typ: x\n    created",
        )
        .with("{name: is_gift}", "{name: is_gift, type: int46}");
    assert!(repository.problems().contains("duplicated key"));
    let problems = repository.with("maybe\n    ttl: {}", "maybe").problems();
    let found: Vec<&str> = problems.lines().collect();
    assert_eq!(
        found,
        [
            "flights.yaml:8: found `x`, wanted a duration: 30s, 15m, 6h, 7d, or 0",
            "flights.yaml:13: source `airport_daily_stats` has no column `at`; it has: iata, \
             event_timestamp, created_timestamp, mean_delay, late_share",
            "flights.yaml:14: unknown key `typ`; valid: columns, created_timestamp_column, \
             description, late_by, name, owner, partition, path, point_in_time, tags, timestamp_field",
            "flights.yaml:29: found `maybe`, wanted true or false",
            "orders.yaml:7: source `orders` has no column `at`; it has: customer_id, ordered_at, \
             loaded_at, amount_in_cents, gift",
            "orders.yaml:15: no such type `int46`; types are bool, int32, int64, float32, float64, \
             string, bytes, timestamp and lists of them, such as list<int64>",
        ]
    );
}

#[test]
fn where_names_are_not_known_nothing_dangles() {
    // A file that is no YAML: what refers to it, and `nothing`, may be in it.
    let mut repository = Repository::new()
        .with(DANGLING.0, DANGLING.1)
        .with("timestamp_field: ordered_at", "timestamp_field: at")
        .and("entities: [\n");
    let columns = "orders.yaml:7: source `orders` has no column `at`; it has: customer_id, \
                   ordered_at, loaded_at, amount_in_cents, gift";
    let syntax = "no valid YAML: while parsing a node, did not find expected node content";
    assert_eq!(
        repository.problems(),
        format!("more.yaml:2: {syntax}\n{columns}")
    );
    for without in [0, 1] {
        let mut repository = Repository::new();
        repository.files[without].1 = "entities: [\n".to_owned();
        let name = &repository.files[without].0;
        assert_eq!(repository.problems(), format!("{name}:2: {syntax}"));
    }
    // A definition without a name, and one whose name is no text; only of entities.
    repository.files[2].1 = "entities: [{join_keys: [{name: a, type: bool}]}]\n".to_owned();
    let repository = repository.with("entities: [airport]", "entities: [airprot]");
    let expected = [
        "more.yaml:1: `name` is missing; wanted text",
        columns,
        &dangling(LOOKUPS),
    ];
    assert_eq!(repository.problems(), expected.join("\n"));
    // A list that is none, and a key that is unknown.
    for (from, to, expected) in [
        (
            "sources:\n  - name: orders\n    path: data/orders\n    timestamp_field: ordered_at\n    created_timestamp_column: loaded_at\n    columns: {total: amount_in_cents}\n",
            "sources: {}\n",
            "orders.yaml:4: found an empty mapping, wanted a list",
        ),
        (
            "entities:\n  - name: customer",
            "entites:\n  - name: customer",
            "orders.yaml:1: unknown key `entites`; valid: entities, feature_services, feature_views, sources, transformations",
        ),
        (
            "transformations:\n  - name: route",
            "transformation:\n  - name: route",
            "flights.yaml:42: unknown key `transformation`; valid: entities, feature_services, feature_views, sources, transformations",
        ),
        (
            "entities:\n  - name: customer\n    join_keys: [{name: customer_id}]",
            "entities: [customer]",
            "orders.yaml:1: found `customer`, wanted a mapping with description, join_keys, name, owner, tags",
        ),
    ] {
        assert_eq!(Repository::new().with(from, to).problems(), expected);
    }
}

#[test]
fn what_has_no_json_form_hinders_only_its_definition() {
    let repository = Repository::new()
        .with("{value: 15.0}", "{value: 9223372036854775808}")
        .with("{value: 0.5}", "!rate {value: 0.5}")
        .with("timestamp_field: ordered_at", "timestamp_field: at");
    let expected = [
        "flights.yaml:54: `9223372036854775808` is beyond the integers, which end at \
         9223372036854775807; a float is written 9223372036854775808.0",
        "orders.yaml:7: source `orders` has no column `at`; it has: customer_id, ordered_at, \
         loaded_at, amount_in_cents, gift",
        "orders.yaml:24: tags have no meaning here; leave it out",
    ];
    assert_eq!(repository.problems(), expected.join("\n"));
}

#[test]
fn a_file_that_is_there_twice_has_only_its_names_to_tell() {
    for (file, text, names) in [("flights.yaml", FLIGHTS, 10), ("orders.yaml", ORDERS, 5)] {
        let problems = Repository::new().and(text).problems();
        assert_eq!(problems.lines().count(), names, "{problems}");
        for line in problems.lines() {
            assert!(line.starts_with("more.yaml:"), "{line}");
            let first = format!(" at {file}:");
            assert!(
                line.contains(" is called like the ") && line.contains(&first),
                "{line}"
            );
        }
    }
    // Two of one name, of which it is not known which one is meant.
    let second = "feature_views:\n  - {name: airport, entities: [], source: orders, features: [{name: gift}]}\n";
    let repository = Repository::new().with("\"destination:latitude\"", "\"airport:gift\"");
    assert_eq!(
        repository.and(second).problems(),
        "more.yaml:2: feature view `airport` is called like the feature view at flights.yaml:17; a \
         name stands for one thing"
    );
}

#[test]
fn a_source_in_an_object_store() {
    for scheme in STORE_SCHEMES {
        let path = format!("path: {scheme}://bucket/air ports/*.parquet");
        let repository = Repository::new().with("path: data/airports.parquet", &path);
        assert_eq!(repository.problems(), "");
        let path = &repository.project().sources["airports"].value.path;
        assert_eq!(*path, format!("{scheme}://bucket/air ports/*.parquet"));
    }
    let mut repository = Repository::new().with(
        "path: data/airports.parquet",
        "path: hdfs://bucket/airports",
    );
    let missing = "no such file".to_owned();
    repository
        .surroundings
        .sources
        .insert("airports".into(), Err(missing));
    assert_eq!(
        repository.problems(),
        "flights.yaml:8: `hdfs://`: there is no such object store; a source lies at a path, or at a \
         URL that begins with s3://, s3a://, gs://, az://, abfs://, abfss://"
    );
    refused(&[
        (
            "path: data/orders",
            "path: gs:///orders",
            &["orders.yaml:6: `gs:///orders` names no bucket; write gs://BUCKET/PATH"],
        ),
        (
            "path: data/orders",
            "path: s3://",
            &["orders.yaml:6: `s3://` names no bucket; write s3://BUCKET/PATH"],
        ),
    ]);
}

/// The repository with a column of folders in its source `orders`, and a partition.
fn partitioned(partition: &str) -> Repository {
    let ordered = "timestamp_field: ordered_at";
    let partition = format!("{ordered}\n    partition: {partition}");
    let mut repository = Repository::new().with(ordered, &partition);
    let orders = repository.surroundings.sources.get_mut("orders").unwrap();
    let schema = orders.as_mut().unwrap();
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new("dt", DataType::Utf8, true)));
    *schema = Schema::new(fields);
    repository
}

#[test]
fn folders_by_time_are_a_partition_of_the_source() {
    for (partition, slack) in [
        ("{column: dt, of: ordered_at}", 0),
        ("{column: dt, of: ordered_at, slack: 0}", 0),
        ("{column: dt, of: ordered_at, slack: 6h}", 6 * 3_600_000_000),
    ] {
        let repository = partitioned(partition);
        assert_eq!(repository.problems(), "", "{partition}");
        let source = &repository.project().sources["orders"].value;
        let column = "dt".to_owned();
        assert_eq!(source.partition, Some(Partition { column, slack }));
    }
}

#[test]
fn a_partition_that_cannot_be() {
    for (partition, problem) in [
        (
            "{column: day, of: ordered_at}",
            "orders.yaml:8: no file of source `orders` lies in a folder `day=…`; its columns, those \
             of folders included, are customer_id, ordered_at, loaded_at, amount_in_cents, gift, dt",
        ),
        (
            "{column: dt, of: loaded_at}",
            "orders.yaml:8: `loaded_at` is not the source's timestamp_field; the folders of a \
             partition go by that alone: `ordered_at`. Leave out the partition if they go by another \
             time, such as that of arrival",
        ),
        (
            "{column: dt, of: ordered_at, slack: a day}",
            "orders.yaml:8: found `a day`, wanted a duration: 30s, 15m, 6h, 7d, or 0",
        ),
        (
            "{column: dt}",
            "orders.yaml:8: `of` is missing; wanted text",
        ),
        (
            "{column: dt, of: ordered_at, slak: 1d}",
            "orders.yaml:8: unknown key `slak`; valid: column, of, slack",
        ),
        (
            "dt",
            "orders.yaml:8: found `dt`, wanted a mapping with column, of, slack",
        ),
    ] {
        assert_eq!(partitioned(partition).problems(), problem, "{partition}");
    }
    let problems = partitioned("{column: dt=, of: ordered_at}").problems();
    let problem =
        "orders.yaml:8: `dt=` names no folder; of folders such as `dt=2024-01-01` it is `dt`";
    assert!(problems.contains(problem), "{problems}");
}

#[test]
fn join_keys_and_features_keep_what_is_said_about_them() {
    let plain = Repository::new();
    let spoken = Repository::new()
        .with(
            "{name: iata, type: string}",
            "{name: iata, type: string, description: its code, owner: iata.org, tags: {length: \"3\"}}",
        )
        .with(
            "{name: latitude, type: float64}",
            "{name: latitude, type: float64, owner: surveyors, tags: {unit: degrees}}",
        );
    let (plain, spoken) = (plain.project(), spoken.project());
    let about = |project: &unskew_core::project::Project| {
        let [entity, view] = [
            project.entities["airport"].about.members.clone(),
            project.views["airport"].about.members.clone(),
        ];
        (entity, view)
    };
    assert_eq!(about(&plain), Default::default());
    let member =
        |name: &str, description: Option<&str>, owner: &str, (tag, value): (&str, &str)| {
            let about = About {
                description: description.map(str::to_owned),
                owner: Some(owner.to_owned()),
                tags: BTreeMap::from([(tag.to_owned(), value.to_owned())]),
                ..About::default()
            };
            BTreeMap::from([(name.to_owned(), about)])
        };
    assert_eq!(
        about(&spoken),
        (
            member("iata", Some("its code"), "iata.org", ("length", "3")),
            member("latitude", None, "surveyors", ("unit", "degrees")),
        )
    );
    let digest =
        |project: &unskew_core::project::Project| project.views["airport"].value.view.digest();
    assert_eq!(digest(&plain), digest(&spoken));
    let json = serde_json::to_string(&spoken).unwrap();
    let read: unskew_core::project::Project = serde_json::from_str(&json).unwrap();
    assert_eq!(read, spoken);
}

#[test]
fn a_join_key_in_question_is_not_said_to_be_absent() {
    let key = |repository: Repository| repository.with("origin:latitude", "key:orgin");
    for (from, to) in [
        ("join_keys: {iata: origin}", "join_keys: origin"),
        ("join_keys: [{name: customer_id}]", "join_keys: customer_id"),
    ] {
        let problems = key(Repository::new().with(from, to)).problems();
        assert_eq!(problems.lines().count(), 1, "{problems}");
        assert!(!problems.contains("orgin"), "{problems}");
    }
}

#[test]
fn files_in_which_nothing_is_right_are_no_reason_to_fall() {
    let texts = [
        "[]",
        "1",
        "x",
        "{entities: [[]], sources: [1, null, {}], feature_views: {a: b}}",
        "entities: [{name: {}, join_keys: [[]]}]",
        "{\"\": [{name: a}], \"/~\": 1}",
        "entities: [{name: \"\"}, {name: \"\"}]",
        "entities: [!t {name: a}, {name: !t b}]",
    ];
    for text in texts {
        let definitions = Definitions::read(&[("f.yaml".to_owned(), text.to_owned())]);
        assert!(!definitions.problems.0.is_empty(), "{text}");
        assert!(definitions.entities.is_empty() && definitions.sources.is_empty());
        assert!(!Repository::new().and(text).problems().is_empty());
    }
}

#[test]
fn a_column_of_folders_is_of_the_type_that_a_definition_says() {
    let year = "name: by_year\n    source: orders\n    entities: [customer]\n    features: [{name: year, type: int32}]";
    let with_year = |metadata: &[&str]| {
        let mut repository = Repository::new().and(&format!("feature_views:\n  - {year}\n"));
        let orders = repository.surroundings.sources.get_mut("orders").unwrap();
        let schema = orders.as_mut().unwrap();
        let metadata = metadata
            .iter()
            .map(|key| ((*key).to_owned(), String::new()));
        let field = Field::new("year", DataType::Utf8, true).with_metadata(metadata.collect());
        let mut fields = schema.fields().to_vec();
        fields.push(Arc::new(field));
        *schema = Schema::new(fields);
        repository
    };
    assert_eq!(with_year(&[FOLDER_COLUMN]).problems(), "");
    let problems = with_year(&[]).problems();
    let problem = "feature `year` is declared int32, and in source `orders` it is string";
    assert!(problems.contains(problem), "{problems}");
}
