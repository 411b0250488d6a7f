//! What the tests share: a plan with every type, values at the edges of each, and a store and a
//! server that hold them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array,
    Int64Array, ListArray, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field as ArrowField, Int64Type};
use async_trait::async_trait;
use tempfile::TempDir;
use unskew_core::digest::Digest;
use unskew_core::plan::{Binding, FeaturePlan, Lookup, Output, SEMANTICS};
use unskew_core::row;
use unskew_core::time::{self, Mode};
use unskew_core::types::{DataType, Field, ScalarType, UTC};
use unskew_core::view::{JoinKey, Source, View};
use unskew_engine::{Evaluated, Evaluator};
use unskew_online::lookup::Joiner;
use unskew_online::{OnlineSettings, OnlineStore, StoredRow, ViewKey, ViewState};
use unskew_store::{AnswerObserver, RequestRows, StoreError};

use crate::guard::Gate;
use crate::served::{Answers, Served, Service};
use crate::settings::Settings;
use crate::state::State;
use crate::watch::{PlanWatch, Stages, Watch};

pub(crate) const PROJECT: &str = "tests";
pub(crate) const SERVICE: &str = "everything";

/// Numbers that look random and are the same in every run (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<T: Copy>(&mut self, edges: &[T], other: impl FnOnce(u64) -> T) -> T {
        if self.below(2) == 0 {
            edges[self.below(edges.len())]
        } else {
            other(self.next())
        }
    }

    fn text(&mut self) -> String {
        let edges = [
            "",
            "NaN",
            "null",
            "\"\\/\u{0}\u{7f}\n",
            "\u{2028}\u{feff}",
            "e\u{301} \u{10ffff}",
            "𝄞💧",
        ];
        self.pick(&edges, |bits| {
            ["a", "JFK", "ß", "0012", "[1]"][(bits % 5) as usize]
        })
        .repeat(self.below(3))
    }

    /// A column without lists; a tenth of it null.
    fn scalars(&mut self, scalar: ScalarType, rows: usize) -> ArrayRef {
        fn some<T>(
            random: &mut Random,
            rows: usize,
            mut value: impl FnMut(&mut Random) -> T,
        ) -> Vec<Option<T>> {
            (0..rows)
                .map(|_| (random.below(10) > 0).then(|| value(random)))
                .collect()
        }
        const F32: [f32; 9] = [
            0.0,
            -0.0,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN_POSITIVE,
            1e-45,
            0.1,
        ];
        const F64: [f64; 11] = [
            0.0,
            -0.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            0.1,
            1e16,
            9_007_199_254_740_994.0,
        ];
        // Every NaN that comes out of `evaluate` is the usual one.
        let usual_32 = |bits| {
            let value = f32::from_bits(bits as u32);
            if value.is_nan() { f32::NAN } else { value }
        };
        let usual_64 = |bits| {
            let value = f64::from_bits(bits);
            if value.is_nan() { f64::NAN } else { value }
        };
        match scalar {
            ScalarType::Bool => Arc::new(BooleanArray::from(some(self, rows, |r| r.below(2) == 0))),
            ScalarType::Int32 => Arc::new(Int32Array::from(some(self, rows, |r| {
                r.pick(&[0, -1, i32::MIN, i32::MAX], |bits| bits as i32)
            }))),
            ScalarType::Int64 => Arc::new(Int64Array::from(some(self, rows, |r| {
                r.pick(&[0, -1, i64::MIN, i64::MAX, (1 << 53) + 1], |bits| {
                    bits as i64
                })
            }))),
            ScalarType::Float32 => Arc::new(Float32Array::from(some(self, rows, |r| {
                r.pick(&F32, usual_32)
            }))),
            ScalarType::Float64 => Arc::new(Float64Array::from(some(self, rows, |r| {
                r.pick(&F64, usual_64)
            }))),
            ScalarType::String => Arc::new(StringArray::from(some(self, rows, Self::text))),
            ScalarType::Bytes => {
                let values = some(self, rows, |r| {
                    (0..r.below(5)).map(|_| r.next() as u8).collect::<Vec<_>>()
                });
                Arc::new(BinaryArray::from_iter(values))
            }
            ScalarType::Timestamp => {
                let span = time::MAX.abs_diff(time::MIN);
                let edges = [time::MIN, time::MAX, -1, 0, 1, 983_448_000_000_000];
                let values = some(self, rows, |r| {
                    r.pick(&edges, |bits| {
                        time::MIN.saturating_add_unsigned(bits % span)
                    })
                });
                Arc::new(TimestampMicrosecondArray::from(values).with_timezone(UTC))
            }
        }
    }

    pub(crate) fn column(&mut self, data_type: DataType, rows: usize) -> ArrayRef {
        match data_type {
            DataType::Scalar(scalar) => self.scalars(scalar, rows),
            DataType::List(scalar) => {
                let lengths: Vec<usize> = (0..rows).map(|_| self.below(4)).collect();
                let items = self.scalars(scalar, lengths.iter().sum());
                let nulls: Vec<bool> = (0..rows).map(|_| self.below(10) > 0).collect();
                Arc::new(ListArray::new(
                    Arc::new(ArrowField::new("item", scalar.arrow(), true)),
                    OffsetBuffer::from_lengths(lengths),
                    items,
                    Some(NullBuffer::from(nulls)),
                ))
            }
        }
    }
}

/// Every type, with a name for a column of it.
pub(crate) fn types() -> Vec<(String, DataType)> {
    ScalarType::ALL
        .into_iter()
        .flat_map(|scalar| {
            [
                (scalar.to_string(), DataType::Scalar(scalar)),
                (format!("{scalar}s"), DataType::List(scalar)),
            ]
        })
        .collect()
}

/// A plan that gives, for the key `id`, a feature of every type, and takes `request_fields`.
pub(crate) fn plan(request_fields: Vec<Field>) -> FeaturePlan {
    let features: Vec<Field> = types()
        .into_iter()
        .map(|(name, data_type)| Field::new(name, data_type))
        .collect();
    let view = View {
        name: "things".to_owned(),
        source: Source {
            name: "things".to_owned(),
            path: "things.parquet".to_owned(),
            timestamp_field: "event_timestamp".to_owned(),
            created_timestamp_column: None,
            point_in_time: Mode::Event,
            late_by: 0,
            columns: BTreeMap::new(),
            partition: None,
        },
        keys: vec![JoinKey {
            name: "id".to_owned(),
            data_type: ScalarType::Int64,
        }],
        features: features.clone(),
        ttl: None,
        online: true,
        batch: None,
    };
    FeaturePlan {
        semantics: SEMANTICS,
        service: Some(SERVICE.to_owned()),
        join_keys: vec![Field::new("id", DataType::Scalar(ScalarType::Int64))],
        request_fields,
        lookups: vec![Lookup {
            name: "things".to_owned(),
            view: Arc::new(view),
            keys: vec![0],
            features: (0..features.len()).collect(),
        }],
        steps: Vec::new(),
        outputs: features
            .into_iter()
            .enumerate()
            .map(|(feature, field)| Output {
                name: field.name,
                data_type: field.data_type,
                binding: Binding::Feature { lookup: 0, feature },
            })
            .collect(),
    }
}

/// Rows that ask for the keys `ids` at 2001-03-01T12:00:00Z.
pub(crate) fn rows_of(ids: impl IntoIterator<Item = i64>) -> RequestRows {
    let ids = Int64Array::from_iter_values(ids);
    let as_of = TimestampMicrosecondArray::from_value(983_448_000_000_000, ids.len());
    RequestRows {
        as_of: as_of.with_timezone(UTC),
        keys: vec![Arc::new(ids)],
        request: Vec::new(),
    }
}

/// An embedded store in a folder that is removed at the end.
pub(crate) struct Store {
    pub(crate) online: Arc<dyn OnlineStore>,
    _folder: TempDir,
}

impl Store {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = OnlineSettings::Embedded {
            path: folder.path().join("online"),
        };
        Self {
            online: unskew_online::connect(&settings).unwrap(),
            _folder: folder,
        }
    }

    /// Holds `columns` as the features of the keys 0, 1, 2 …, from 1970 on.
    pub(crate) async fn fill(&self, plan: &FeaturePlan, columns: &[ArrayRef]) {
        let count = columns[0].len();
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count as i64));
        let rows = (0..count).map(|index| {
            let (mut entity_key, mut value) = (Vec::new(), Vec::new());
            assert!(row::encode_key(&[Arc::clone(&ids)], index, &mut entity_key));
            row::encode(columns, index, 0, None, &mut value);
            StoredRow {
                entity_key,
                value,
                expires_at: None,
            }
        });
        let view = ViewKey::of(PROJECT, &plan.lookups[0].view);
        self.online.put(&view, rows.collect()).await.unwrap();
        let state = ViewState {
            watermark: Some(0),
            pending: Vec::new(),
            ..ViewState::default()
        };
        assert!(self.online.update_state(&view, None, &state).await.unwrap());
    }
}

/// What a `Responder` is, of a plan that was made by hand.
pub(crate) struct ByHand {
    evaluator: Evaluator,
    joiner: Joiner,
    online: Arc<dyn OnlineStore>,
    watch: OnceLock<Arc<PlanWatch>>,
}

impl ByHand {
    pub(crate) fn new(plan: &FeaturePlan, online: &Arc<dyn OnlineStore>) -> Self {
        Self {
            evaluator: Evaluator::new(Arc::new(plan.clone()), &BTreeMap::new()).unwrap(),
            joiner: Joiner::new(plan, PROJECT),
            online: Arc::clone(online),
            watch: OnceLock::new(),
        }
    }

    /// What is counted of its answers, once somebody has asked.
    pub(crate) fn watched(&self) -> Option<&Arc<PlanWatch>> {
        self.watch.get()
    }
}

#[async_trait]
impl Answers for ByHand {
    fn plan(&self) -> &FeaturePlan {
        self.evaluator.plan()
    }

    fn digest(&self) -> Digest {
        self.evaluator.digest()
    }

    fn watch(&self, watch: &Watch) -> Option<Arc<PlanWatch>> {
        Some(Arc::clone(self.watch.get_or_init(|| watch.plan(self))))
    }

    async fn answer(&self, rows: &RequestRows) -> Result<Evaluated, StoreError> {
        let mut stages = self.watch.get().map(|plan| Stages::begin(plan));
        let fetched = || {
            if let Some(stages) = &mut stages {
                stages.fetched();
            }
        };
        let (as_of, keys, request) = (&rows.as_of, &rows.keys, &rows.request);
        let joined = self
            .joiner
            .join_observed(&*self.online, as_of, keys, request, fetched)
            .await?;
        let Some(mut stages) = stages else {
            return Ok(self.evaluator.evaluate(&joined)?);
        };
        stages.joined();
        let evaluated = self.evaluator.evaluate_observed(&joined, &mut stages)?;
        stages.end();
        Ok(evaluated)
    }
}

/// A state of one service, and of one that is not online.
pub(crate) fn state(
    settings: Settings,
    answers: Arc<dyn Answers>,
    online: &Arc<dyn OnlineStore>,
) -> State {
    let offline = Service::NotOnline {
        view: "archive".to_owned(),
    };
    let services = BTreeMap::from([
        (SERVICE.to_owned(), Service::Ready(answers)),
        ("past".to_owned(), offline),
    ]);
    of_services(settings, services, online)
}

/// A state of these services, without a registry.
pub(crate) fn of_services(
    settings: Settings,
    services: BTreeMap<String, Service>,
    online: &Arc<dyn OnlineStore>,
) -> State {
    let online = Arc::clone(online);
    let served = Served::new(PROJECT, services, BTreeMap::new(), online, Vec::new());
    let gate = Arc::new(Gate::open(&settings, PROJECT).unwrap());
    State::new(gate, settings, served, None)
}

/// The first key of each row.
pub(crate) fn ids(rows: &RequestRows) -> &[i64] {
    rows.keys[0].as_primitive::<Int64Type>().values()
}
