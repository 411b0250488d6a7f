//! Components for tests, written in WebAssembly text against the contract.
//!
//! The offsets in memory are the canonical ABI's of `wit/transform.wit`:
//!
//! ```text
//! result   0 discriminant   4 output or failure
//! output   0 rows   4 columns   12 source-row
//! failure  0 row (discriminant, 4 value)   8 message
//! column   0 discriminant   4 flat, or lists (4 length, 8 validity, 16 offsets, 24 items: flat)
//! flat     0 length   4 validity   12 values (discriminant, 16 lists of the case)
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, Int64Array};
use unskew_core::component::Kind;
use unskew_core::digest::Digest;
use unskew_core::json;
use unskew_core::types::{DataType, Field, ScalarType};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use crate::{Component, Engine, Settings};

/// The default settings, with fewer instances.
pub(crate) fn settings() -> Settings {
    Settings {
        instances: 4,
        ..Settings::default()
    }
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(&settings()).unwrap());

/// An engine that waits less and gives less; long enough that a busy machine still runs a row.
pub(crate) fn impatient() -> Engine {
    waiting(200)
}

/// An engine that waits that many milliseconds.
pub(crate) fn waiting(milliseconds: u64) -> Engine {
    Engine::new(&Settings {
        timeout: Duration::from_millis(milliseconds),
        memory_limit: 8 << 20,
        ..settings()
    })
    .unwrap()
}

pub(crate) const INT64: DataType = DataType::Scalar(ScalarType::Int64);
pub(crate) const FLOAT64: DataType = DataType::Scalar(ScalarType::Float64);
pub(crate) const STRING: DataType = DataType::Scalar(ScalarType::String);

/// A nullable field.
pub(crate) fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type)
}

/// A field that is not nullable.
pub(crate) fn required(name: &str, data_type: DataType) -> Field {
    Field {
        nullable: false,
        ..Field::new(name, data_type)
    }
}

pub(crate) fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// A column as JSON, for comparing.
pub(crate) fn text(column: &dyn Array) -> String {
    let mut text = Vec::new();
    json::write_column(&mut text, column).unwrap();
    String::from_utf8(text).unwrap()
}

pub(crate) fn by_digest(components: &[&Arc<Component>]) -> BTreeMap<Digest, Arc<Component>> {
    components
        .iter()
        .map(|component| (component.digest(), Arc::clone(component)))
        .collect()
}

/// A component to be.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) inputs: Vec<Field>,
    pub(crate) outputs: Vec<Field>,
    /// The body of `run`, with `$rows`, `$columns` and `$count` of the input; gives the address of
    /// the result. `$ok`, `$fail` and `$alloc` help.
    pub(crate) run: String,
    /// More functions and globals.
    pub(crate) items: String,
    /// The first thing that `describe` does.
    pub(crate) describe: String,
    /// Of 64 KiB, at the start.
    pub(crate) pages: u32,
}

impl Guest {
    pub(crate) fn new(kind: Kind, inputs: Vec<Field>, outputs: Vec<Field>, run: &str) -> Self {
        Self {
            name: "guest".to_owned(),
            kind,
            inputs,
            outputs,
            run: run.to_owned(),
            items: String::new(),
            describe: String::new(),
            pages: 2,
        }
    }

    pub(crate) fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// Gives its columns back, whatever they are.
    pub(crate) fn echo(kind: Kind, fields: Vec<Field>) -> Self {
        let source = match kind {
            Kind::OnDemand => "(i32.const 0) (i32.const 0)",
            Kind::Batch => "(call $identity (local.get $rows)) (local.get $rows)",
        };
        let run = format!(
            "(call $ok (local.get $rows) (local.get $columns) (local.get $count) {source})"
        );
        Self::new(kind, fields.clone(), fields, &run)
    }

    /// An int64 that comes back.
    pub(crate) fn identity() -> Self {
        Self::echo(Kind::OnDemand, vec![field("x", INT64)])
    }

    /// `y` of `x`, row by row; `row` gives y of `$x`, in row `$row`, and may set `$failed` to 1.
    /// Nulls stay null.
    pub(crate) fn each(data_type: DataType, row: &str) -> Self {
        let (t, size) = match data_type {
            DataType::Scalar(ScalarType::Float64) => ("f64", 8),
            _ => ("i64", 8),
        };
        let mut guest = Self::new(
            Kind::OnDemand,
            vec![required("x", data_type)],
            vec![required("y", data_type)],
            &format!(
                r#"(local $at i32) (local $row i32)
                (local.set $at (i32.load offset=20 (local.get $columns)))
                (loop $next
                  (if (i32.lt_u (local.get $row) (local.get $rows))
                    (then
                      (call $enter (local.get $row))
                      ({t}.store (local.get $at)
                        (call $each ({t}.load (local.get $at)) (local.get $row)))
                      (if (global.get $failed)
                        (then (return (call $fail (i32.const 1) (local.get $row)))))
                      (local.set $at (i32.add (local.get $at) (i32.const {size})))
                      (local.set $row (i32.add (local.get $row) (i32.const 1)))
                      (br $next))))
                (call $ok (local.get $rows) (local.get $columns) (local.get $count)
                  (i32.const 0) (i32.const 0))"#
            ),
        );
        guest.items = format!("(func $each (param $x {t}) (param $row i32) (result {t}) {row})");
        guest
    }

    /// `y` of the float64s `a` and `b`: `of` two values on the stack.
    pub(crate) fn two_floats(of: &str) -> Self {
        Self::new(
            Kind::OnDemand,
            vec![required("a", FLOAT64), required("b", FLOAT64)],
            vec![required("y", FLOAT64)],
            &format!(
                r#"(local $a i32) (local $b i32) (local $end i32)
                (local.set $a (i32.load offset=20 (local.get $columns)))
                (local.set $b (i32.load offset=76 (local.get $columns)))
                (local.set $end
                  (i32.add (local.get $a) (i32.mul (local.get $rows) (i32.const 8))))
                (loop $next
                  (if (i32.lt_u (local.get $a) (local.get $end))
                    (then
                      (f64.store (local.get $a)
                        ({of} (f64.load (local.get $a)) (f64.load (local.get $b))))
                      (local.set $a (i32.add (local.get $a) (i32.const 8)))
                      (local.set $b (i32.add (local.get $b) (i32.const 8)))
                      (br $next))))
                (call $ok (local.get $rows) (local.get $columns) (i32.const 1)
                  (i32.const 0) (i32.const 0))"#
            ),
        )
    }

    /// For each row as many rows as its int64 `x` says, 0 where it is negative; each gives x. It
    /// traps where x is more than 100.
    pub(crate) fn repeat() -> Self {
        let mut guest = Self::new(
            Kind::Batch,
            vec![required("x", INT64)],
            vec![required("x", INT64)],
            r#"(local $row i32) (local $left i64) (local $from i32) (local $n i32)
            (local $values i32) (local $source i32)
            (local.set $from (i32.load offset=20 (local.get $columns)))
            (local.set $values (call $alloc (i32.mul (local.get $rows) (i32.const 800))))
            (local.set $source (call $alloc (i32.mul (local.get $rows) (i32.const 400))))
            (loop $rows
              (if (i32.lt_u (local.get $row) (local.get $rows))
                (then
                  (local.set $left (i64.load
                    (i32.add (local.get $from) (i32.mul (local.get $row) (i32.const 8)))))
                  (if (i64.gt_s (local.get $left) (i64.const 100)) (then unreachable))
                  (loop $copies
                    (if (i64.gt_s (local.get $left) (i64.const 0))
                      (then
                        (i64.store
                          (i32.add (local.get $values) (i32.mul (local.get $n) (i32.const 8)))
                          (i64.load (i32.add (local.get $from)
                            (i32.mul (local.get $row) (i32.const 8)))))
                        (i32.store
                          (i32.add (local.get $source) (i32.mul (local.get $n) (i32.const 4)))
                          (local.get $row))
                        (local.set $n (i32.add (local.get $n) (i32.const 1)))
                        (local.set $left (i64.sub (local.get $left) (i64.const 1)))
                        (br $copies))))
                  (local.set $row (i32.add (local.get $row) (i32.const 1)))
                  (br $rows))))
            (i32.store offset=4 (local.get $columns) (local.get $n))
            (i32.store offset=20 (local.get $columns) (local.get $values))
            (i32.store offset=24 (local.get $columns) (local.get $n))
            (call $ok (local.get $n) (local.get $columns) (i32.const 1)
              (local.get $source) (local.get $n))"#,
        );
        guest.pages = 4;
        guest
    }

    /// The component's file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        encode(&self.module()).unwrap()
    }

    pub(crate) fn load(&self) -> Arc<Component> {
        self.load_into(&ENGINE)
    }

    pub(crate) fn load_into(&self, engine: &Engine) -> Arc<Component> {
        engine.load(&self.bytes()).unwrap()
    }

    fn module(&self) -> String {
        let Self {
            run,
            items,
            describe,
            pages,
            ..
        } = self;
        let mut data = Data::default();
        let description = self.description(&mut data);
        let message = data.text("the guest says no");
        let slot = data.put(&slot());
        let (heap, data) = (data.end(), data.escaped());
        let interface = crate::engine::INTERFACE;
        format!(
            r#"(module
            (memory (export "memory") {pages})
            (data (i32.const {BASE}) "{data}")
            (global $heap (mut i32) (i32.const {heap}))
            (global $failed (mut i32) (i32.const 0))
            (func $alloc (param $size i32) (result i32) (local $at i32) (local $pages i32)
              (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
              (global.set $heap (i32.add (local.get $at) (local.get $size)))
              (local.set $pages (i32.sub
                (i32.shr_u (i32.add (global.get $heap) (i32.const 65535)) (i32.const 16))
                (memory.size)))
              (if (i32.gt_s (local.get $pages) (i32.const 0))
                (then (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1))
                  (then unreachable))))
              (local.get $at))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
              (call $alloc (local.get 3)))
            (func $enter (param $row i32)
              (i32.store offset=32 (i32.const {slot}) (local.get $row))
              (i32.store offset=36 (i32.const {slot}) (i32.const 1)))
            (func $panic
              (i32.store offset=40 (i32.const {slot}) (i32.const 9))
              (i64.store offset=44 (i32.const {slot}) (i64.const 0x756c61762d646162))
              (i32.store8 offset=52 (i32.const {slot}) (i32.const 101))
              unreachable)
            (func $ok (param $rows i32) (param $columns i32) (param $count i32)
                (param $source i32) (param $sources i32) (result i32) (local $at i32)
              (local.set $at (call $alloc (i32.const 24)))
              (i32.store (local.get $at) (i32.const 0))
              (i32.store offset=4 (local.get $at) (local.get $rows))
              (i32.store offset=8 (local.get $at) (local.get $columns))
              (i32.store offset=12 (local.get $at) (local.get $count))
              (i32.store offset=16 (local.get $at) (local.get $source))
              (i32.store offset=20 (local.get $at) (local.get $sources))
              (local.get $at))
            (func $fail (param $known i32) (param $row i32) (result i32) (local $at i32)
              (local.set $at (call $alloc (i32.const 24)))
              (i32.store (local.get $at) (i32.const 1))
              (i32.store offset=4 (local.get $at) (local.get $known))
              (i32.store offset=8 (local.get $at) (local.get $row))
              (i32.store offset=12 (local.get $at) (i32.const {message_at}))
              (i32.store offset=16 (local.get $at) (i32.const {message_length}))
              (local.get $at))
            (func $identity (param $rows i32) (result i32) (local $at i32) (local $row i32)
              (local.set $at (call $alloc (i32.mul (local.get $rows) (i32.const 4))))
              (loop $next
                (if (i32.lt_u (local.get $row) (local.get $rows))
                  (then
                    (i32.store
                      (i32.add (local.get $at) (i32.mul (local.get $row) (i32.const 4)))
                      (local.get $row))
                    (local.set $row (i32.add (local.get $row) (i32.const 1)))
                    (br $next))))
              (local.get $at))
            {items}
            (func (export "{interface}#describe") (result i32)
              {describe}
              (i32.const {description}))
            (func (export "{interface}#run")
                (param $rows i32) (param $columns i32) (param $count i32) (result i32)
              {run}))"#,
            message_at = message.0,
            message_length = message.1,
        )
    }

    fn description(&self, data: &mut Data) -> u32 {
        let Self {
            name,
            kind,
            inputs,
            outputs,
            ..
        } = self;
        let mut record = Vec::new();
        for text in [name, "0.1.0", "run", "What it does."] {
            push_pair(&mut record, data.text(text));
        }
        record.extend([u8::from(*kind == Kind::Batch), 0, 0, 0]);
        for fields in [inputs, outputs] {
            let mut list = Vec::new();
            for field in fields {
                push_pair(&mut list, data.text(&field.name));
                let scalar = ScalarType::ALL
                    .iter()
                    .position(|&scalar| scalar == field.data_type.scalar())
                    .unwrap() as u8;
                let is_list = matches!(field.data_type, DataType::List(_));
                list.extend([u8::from(is_list), scalar, u8::from(field.nullable), 0]);
                push_pair(&mut list, data.text(&field.description));
            }
            let at = data.put(&list);
            push_pair(&mut record, (at, fields.len() as u32));
        }
        data.put(&record)
    }
}

/// The slot of a panic, as `sdk/rust` has it.
fn slot() -> Vec<u8> {
    let mut slot = crate::trap::MAGIC.to_vec();
    slot.extend([0; 12 + 2_048]);
    slot
}

/// Makes a component of a module in text form that exports what the contract wants.
pub(crate) fn encode(module: &str) -> Result<Vec<u8>, String> {
    let mut module = wat::parse_str(module).map_err(|error| error.to_string())?;
    let mut resolve = Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
    let (package, _) = resolve.push_path(wit).map_err(|e| format!("{e:#}"))?;
    let world = resolve
        .select_world(&[package], Some("transform"))
        .map_err(|error| format!("{error:#}"))?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .map_err(|error| format!("{error:#}"))?;
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| format!("{error:#}"))
}

/// Where a guest's data begin.
const BASE: u32 = 1_024;

#[derive(Default)]
struct Data(Vec<u8>);

impl Data {
    fn put(&mut self, bytes: &[u8]) -> u32 {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        let at = BASE + self.0.len() as u32;
        self.0.extend(bytes);
        at
    }

    fn text(&mut self, text: &str) -> (u32, u32) {
        (self.put(text.as_bytes()), text.len() as u32)
    }

    fn end(&self) -> u32 {
        (BASE + self.0.len() as u32).next_multiple_of(8)
    }

    fn escaped(&self) -> String {
        self.0.iter().map(|byte| format!("\\{byte:02x}")).collect()
    }
}

fn push_pair(out: &mut Vec<u8>, (at, length): (u32, u32)) {
    out.extend(at.to_le_bytes());
    out.extend(length.to_le_bytes());
}
