//! One component, both whole paths (Parquet to training set; Parquet, materialize, store, HTTP), by
//! bits, on random rows of random schemas.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use fastrand::Rng;
use unskew_core::types::{DataType, ScalarType, UTC};
use unskew_server::client::HttpPath;
use unskew_store::Parity;
use unskew_tests::{
    Online, RandomTable, Repository, Server, column, component, materialize, random_table,
    with_both_stores,
};

/// Definitions of one view over the table, and of a service of all its features and of all that
/// `every_type` makes of them.
fn definitions(table: &RandomTable, mode: &str, inputs: &[(String, DataType)]) -> String {
    let mut text = String::from("entities:\n  - name: thing\n    join_keys:\n");
    for (name, scalar) in &table.keys {
        writeln!(text, "      - {{name: {name}, type: {scalar}}}").unwrap();
    }
    write!(
        text,
        "sources:\n  - name: history\n    path: data/history.parquet\n    timestamp_field: \
         event_timestamp\n    created_timestamp_column: created_timestamp\n    point_in_time: {mode}\n\
         feature_views:\n  - name: things\n    entities: [thing]\n    source: history\n    ttl: 4d\n    \
         features:\n"
    )
    .unwrap();
    for (name, data_type) in &table.features {
        writeln!(text, "      - {{name: {name}, type: '{data_type}'}}").unwrap();
    }
    text.push_str("transformations:\n  - name: every\n    kind: on_demand\n    component: every_type.wasm\n    inputs:\n");
    for (name, data_type) in inputs {
        // A feature of the input's type if there is one, else a request field. A default stands for
        // null where the input takes none, so that every row is computed.
        let feature = table.features.iter().find(|(_, of)| of == data_type);
        let from = match feature {
            Some((feature, _)) => format!("things:{feature}"),
            None => format!("request:r_{name}"),
        };
        let nullable = name.starts_with("nullable_");
        match (data_type, name.ends_with("_with_nulls")) {
            _ if nullable => writeln!(text, "      {name}: '{from}'").unwrap(),
            // Of these an item may not be null either.
            (DataType::List(_), false) => writeln!(text, "      {name}: {{value: []}}").unwrap(),
            (DataType::List(_), true) => {
                writeln!(text, "      {name}: {{from: '{from}', default: []}}").unwrap();
            }
            (DataType::Scalar(scalar), _) => {
                let default = match scalar {
                    ScalarType::Bool => "true",
                    ScalarType::Int32 | ScalarType::Int64 => "7",
                    ScalarType::Float32 | ScalarType::Float64 => "0.1",
                    ScalarType::String => "'none'",
                    ScalarType::Bytes => "'AAE='",
                    ScalarType::Timestamp => "'2001-03-01T12:00:00Z'",
                };
                writeln!(text, "      {name}: {{from: '{from}', default: {default}}}").unwrap();
            }
        }
    }
    text.push_str("feature_services:\n  - name: all\n    full_feature_names: true\n    features: [things, every]\n");
    text
}

/// The inputs of the component `every_type`.
fn inputs() -> Vec<(String, DataType)> {
    let engine = unskew_engine::Engine::new(&unskew_engine::Settings::default()).unwrap();
    let bytes = std::fs::read(component("every_type")).unwrap();
    let component = engine.load(&bytes).unwrap();
    let inputs = &component.description().inputs;
    inputs
        .iter()
        .map(|field| (field.name.clone(), field.data_type))
        .collect()
}

/// Random tables through both whole paths: how many rows were compared.
async fn compare(online: Online<'_>, seed: u64, schemas: usize, rows: usize) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let inputs = inputs();
    let mut compared = 0;
    for schema in 0..schemas {
        let table = random_table(&mut rng, 300, rows);
        let mode = if schema % 2 == 0 { "event" } else { "known" };
        let repository = Repository::new(online, &definitions(&table, mode, &inputs));
        std::fs::copy(component("every_type"), repository.path("every_type.wasm")).unwrap();
        repository.write("data/history.parquet", &table.history);
        let store = repository.store();
        store.apply(&()).await.unwrap();
        materialize(&store, 150 * 3_600_000_000).await;

        let mut fields = vec![Field::new(
            "event_timestamp",
            ScalarType::Timestamp.arrow(),
            false,
        )];
        let instants = TimestampMicrosecondArray::from(vec![0; rows]).with_timezone(UTC);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(instants)];
        for ((name, scalar), keys) in table.keys.iter().zip(&table.entities) {
            fields.push(Field::new(name, scalar.arrow(), true));
            columns.push(Arc::clone(keys));
        }
        for (name, data_type) in &inputs {
            fields.push(Field::new(format!("r_{name}"), data_type.arrow(), true));
            columns.push(column(&mut rng, *data_type, rows));
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let entities = repository.write("entities.parquet", &batch);

        let server = Server::start(&store).await;
        let http = HttpPath::new(server.url.clone(), "all".to_owned());
        let request = Parity {
            service: "all".to_owned(),
            as_of: None,
            rows,
            entities: Some(entities),
        };
        for path in [None, Some(&http as &dyn unskew_store::RequestPath)] {
            let report = store.parity(request.clone(), path).await.unwrap();
            assert_eq!(
                report.differences,
                0,
                "seed {seed}, schema {schema}: {:#?}",
                report.first.first()
            );
            compared = if path.is_some() {
                compared + report.rows
            } else {
                compared
            };
        }
        server.stop().await;
        store.teardown().await.unwrap();
    }
    compared
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_random_rows_of_random_schemas_are_equal_by_bits() {
    with_both_stores(async |online| {
        assert_eq!(compare(online, 20_010_301, 20, 500).await, 10_000);
    })
    .await;
}
