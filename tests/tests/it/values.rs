//! The same components, both whole paths (Parquet to training set; Parquet, materialize, store,
//! HTTP), by bits, on random rows of random schemas: one on demand, and for every second schema one
//! that makes the view's rows.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use fastrand::Rng;
use unskew_core::types::{DataType, ScalarType, UTC};
use unskew_server::client::HttpPath;
use unskew_store::Parity;
use unskew_tests::{
    Online, RandomTable, Repository, Server, column, component, list_without_null_items,
    materialize, random_table, with_both_stores,
};

/// A component's inputs or outputs.
type Fields = Vec<(String, DataType)>;

/// A view over a random table, as far as a service needs to know.
struct Things {
    /// Its features.
    features: Fields,
    /// Those of them that are lists of which no item is null.
    without_null_items: BTreeSet<String>,
    /// The bindings of the batch component that makes its rows, as YAML, if one does.
    bindings: Option<String>,
}

impl Things {
    /// The rows are the table's.
    fn of_table(table: &RandomTable) -> Self {
        Self {
            features: table.features.clone(),
            without_null_items: table.without_null_items.clone(),
            bindings: None,
        }
    }

    /// The rows are what `every_row` makes of the table's. Each of its inputs is bound to a column
    /// that fits if there is one, with a default or without, or else to a constant or to null.
    fn of_component(rng: &mut Rng, table: &RandomTable, every_row: &Component) -> Self {
        let timestamp = DataType::Scalar(ScalarType::Timestamp);
        let times = ["event_timestamp", "created_timestamp"].map(|name| (name, timestamp));
        let keys = table.keys.iter();
        let keys = keys.map(|(name, scalar)| (name.as_str(), DataType::Scalar(*scalar)));
        let features = table.features.iter();
        let features = features.map(|(name, data_type)| (name.as_str(), *data_type));
        let columns: Vec<(&str, DataType)> = features.chain(keys).chain(times).collect();

        let mut without_null_items = BTreeSet::new();
        let mut bindings = format!("      {COPIES}: {COPIES}\n");
        for (name, data_type) in &every_row.inputs {
            if name == COPIES {
                continue;
            }
            let fitting = columns.iter().filter(|(_, of)| of.widens_to(*data_type));
            let fitting: Vec<&str> = fitting.map(|(column, _)| *column).collect();
            let column = rng.choice(fitting);
            let constant = match data_type {
                DataType::Scalar(scalar) => constant(*scalar).to_owned(),
                DataType::List(scalar) => format!("[{}]", constant(*scalar)),
            };
            let binding = match (column, rng.bool()) {
                (Some(column), false) => column.to_owned(),
                (Some(column), true) => format!("{{from: {column}, default: {constant}}}"),
                (None, false) => "{value: null}".to_owned(),
                (None, true) => format!("{{value: {constant}}}"),
            };
            if column.is_none_or(|column| table.without_null_items.contains(column)) {
                without_null_items.insert(format!("out_{name}"));
            }
            writeln!(bindings, "      {name}: {binding}").unwrap();
        }
        Self {
            features: every_row.outputs.clone(),
            without_null_items,
            bindings: Some(bindings),
        }
    }
}

/// The column that says how many rows `every_row` makes of a row.
const COPIES: &str = "copies";

/// Definitions of one view over the table, and of a service of all its features and of all that
/// `every_type` makes of them.
fn definitions(
    rng: &mut Rng,
    table: &RandomTable,
    things: &Things,
    mode: &str,
    inputs: &Fields,
) -> String {
    let mut text = String::from("entities:\n  - name: thing\n    join_keys:\n");
    for (name, scalar) in &table.keys {
        writeln!(text, "      - {{name: {name}, type: {scalar}}}").unwrap();
    }
    write!(
        text,
        "sources:\n  - name: history\n    path: data/history.parquet\n    timestamp_field: \
         event_timestamp\n    created_timestamp_column: created_timestamp\n    point_in_time: {mode}\n\
         feature_views:\n  - name: things\n    entities: [thing]\n    source: history\n    ttl: 4d\n"
    )
    .unwrap();
    if things.bindings.is_some() {
        text.push_str("    transformation: rows\n");
    }
    text.push_str("    features:\n");
    for (name, data_type) in &things.features {
        writeln!(text, "      - {{name: {name}, type: '{data_type}'}}").unwrap();
    }
    text.push_str("transformations:\n");
    if let Some(bindings) = &things.bindings {
        text.push_str("  - name: rows\n    kind: batch\n    component: every_row.wasm\n");
        write!(text, "    inputs:\n{bindings}").unwrap();
    }
    text.push_str("  - name: every\n    kind: on_demand\n    component: every_type.wasm\n");
    text.push_str("    inputs:\n");
    for (name, data_type) in inputs {
        let binding = binding(rng, things, name, *data_type);
        writeln!(text, "      {name}: {binding}").unwrap();
    }
    text.push_str("feature_services:\n  - name: all\n    full_feature_names: true\n    features: [things, every]\n");
    text
}

/// What an input of `every_type` is bound to: a feature of its type if there is one, else a request
/// field. A default stands for null where the input takes none, so that every row is computed.
fn binding(rng: &mut Rng, things: &Things, name: &str, data_type: DataType) -> String {
    let whole = takes_no_null_items(name, data_type);
    let feature = things.features.iter().find(|(feature, of)| {
        *of == data_type && (!whole || things.without_null_items.contains(feature))
    });
    let from = match feature {
        Some((feature, _)) => format!("things:{feature}"),
        None => format!("request:r_{name}"),
    };
    match data_type {
        _ if name.starts_with("nullable_") => format!("'{from}'"),
        DataType::List(_) if whole && rng.u8(..4) == 0 => "{value: []}".to_owned(),
        DataType::List(_) => format!("{{from: '{from}', default: []}}"),
        DataType::Scalar(scalar) => {
            format!("{{from: '{from}', default: {}}}", constant(scalar))
        }
    }
}

/// Whether no item of the lists that this input of `every_type` takes may be null.
fn takes_no_null_items(name: &str, data_type: DataType) -> bool {
    let may_be_null = name.starts_with("nullable_") || name.ends_with("_with_nulls");
    matches!(data_type, DataType::List(_)) && !may_be_null
}

/// A value of the type, as YAML.
fn constant(scalar: ScalarType) -> &'static str {
    match scalar {
        ScalarType::Bool => "true",
        ScalarType::Int32 | ScalarType::Int64 => "7",
        ScalarType::Float32 | ScalarType::Float64 => "0.1",
        ScalarType::String => "'none'",
        ScalarType::Bytes => "'AAE='",
        ScalarType::Timestamp => "'2001-03-01T12:00:00Z'",
    }
}

/// A component of `tests/components`, and what it takes and gives.
struct Component {
    file: PathBuf,
    inputs: Fields,
    outputs: Fields,
}

impl Component {
    fn new(name: &str) -> Self {
        let file = component(name);
        let engine = unskew_engine::Engine::new(&unskew_engine::Settings::default()).unwrap();
        let component = engine.load(&std::fs::read(&file).unwrap()).unwrap();
        let description = component.description();
        let fields = |fields: &[unskew_core::types::Field]| {
            let fields = fields.iter();
            fields
                .map(|field| (field.name.clone(), field.data_type))
                .collect()
        };
        Self {
            inputs: fields(&description.inputs),
            outputs: fields(&description.outputs),
            file,
        }
    }
}

/// Entity rows: the keys, and a request field for each input of `every_type`.
fn entity_rows(rng: &mut Rng, table: &RandomTable, inputs: &Fields, rows: usize) -> RecordBatch {
    let instants = TimestampMicrosecondArray::from(vec![0; rows]).with_timezone(UTC);
    let mut fields = vec![Field::new(
        "event_timestamp",
        ScalarType::Timestamp.arrow(),
        false,
    )];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(instants)];
    for ((name, scalar), keys) in table.keys.iter().zip(&table.entities) {
        fields.push(Field::new(name, scalar.arrow(), true));
        columns.push(Arc::clone(keys));
    }
    for (name, data_type) in inputs {
        fields.push(Field::new(format!("r_{name}"), data_type.arrow(), true));
        columns.push(match data_type {
            DataType::List(scalar) if takes_no_null_items(name, *data_type) => {
                list_without_null_items(rng, *scalar, rows)
            }
            data_type => column(rng, *data_type, rows),
        });
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The history with a column more, which says how many rows `every_row` makes of each.
fn with_copies(rng: &mut Rng, history: &RecordBatch) -> RecordBatch {
    let int64 = DataType::Scalar(ScalarType::Int64);
    let mut fields = history.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(COPIES, int64.arrow(), true)));
    let mut columns = history.columns().to_vec();
    columns.push(column(rng, int64, history.num_rows()));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Random tables through both whole paths: how many rows were compared.
async fn compare(online: Online<'_>, seed: u64, schemas: usize, rows: usize) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let (every_type, every_row) = (Component::new("every_type"), Component::new("every_row"));
    let mut compared = 0;
    for schema in 0..schemas {
        let table = random_table(&mut rng, 300, rows);
        // Every second one in each mode has its rows made by a component.
        let mode = if schema % 2 == 0 { "event" } else { "known" };
        let things = if schema / 2 % 2 == 1 {
            Things::of_component(&mut rng, &table, &every_row)
        } else {
            Things::of_table(&table)
        };
        let definitions = definitions(&mut rng, &table, &things, mode, &every_type.inputs);
        let repository = Repository::new(online, &definitions);
        std::fs::copy(&every_type.file, repository.path("every_type.wasm")).unwrap();
        std::fs::copy(&every_row.file, repository.path("every_row.wasm")).unwrap();
        let history = with_copies(&mut rng, &table.history);
        repository.write("data/history.parquet", &history);
        let store = repository.store();
        store.apply(&()).await.unwrap();
        let materialized = materialize(&store, 150 * 3_600_000_000).await;
        assert!(materialized[0].rows_written > 0, "{materialized:?}");

        let batch = entity_rows(&mut rng, &table, &every_type.inputs, rows);
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
