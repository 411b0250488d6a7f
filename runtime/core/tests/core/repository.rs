//! A feature repository to change: the flights of the README's kind, and orders with a batch
//! transformation.

use arrow::datatypes::{DataType as Arrow, Field as ArrowField, Schema};
use unskew_core::component::{Description, Kind};
use unskew_core::definitions::{Definitions, FileText, Problems};
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_core::planner::plan_service;
use unskew_core::project::Project;
use unskew_core::resolve::{Surroundings, resolve};
use unskew_core::types::{DataType, Field, ScalarType};

pub(crate) const SETTINGS: &str = include_str!("flights/unskew.yaml");
pub(crate) const FLIGHTS: &str = include_str!("flights/flights.yaml");
pub(crate) const ORDERS: &str = include_str!("flights/orders.yaml");

/// Definition files, and what they stand on.
pub(crate) struct Repository {
    pub(crate) files: Vec<FileText>,
    pub(crate) surroundings: Surroundings,
}

impl Repository {
    /// Both files.
    pub(crate) fn new() -> Self {
        let files = [("flights.yaml", FLIGHTS), ("orders.yaml", ORDERS)];
        let mut repository = Self {
            files: files
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into(),
            surroundings: Surroundings::default(),
        };
        let timestamp = || ScalarType::Timestamp.arrow();
        let airports = [
            ("iata", Arrow::Utf8View),
            ("event_timestamp", timestamp()),
            ("latitude", Arrow::Float64),
            ("longitude", Arrow::Float32),
            ("city", Arrow::new_list(Arrow::LargeUtf8, true)),
            ("price", Arrow::Decimal128(10, 2)),
        ];
        let daily = [
            ("iata", Arrow::Utf8),
            ("event_timestamp", Arrow::Date32),
            ("created_timestamp", timestamp()),
            ("mean_delay", Arrow::Float64),
            ("late_share", Arrow::Float32),
        ];
        let orders = [
            ("customer_id", Arrow::Int64),
            ("ordered_at", timestamp()),
            ("loaded_at", timestamp()),
            ("amount_in_cents", Arrow::Int32),
            ("gift", Arrow::Boolean),
        ];
        repository.source("airports", &airports);
        repository.source("airport_daily_stats", &daily);
        repository.source("orders", &orders);
        let places = "from_latitude: float64, from_longitude: float64, to_latitude: float64, \
                      to_longitude: float64, mean_delay: float64!, minutes_ahead: int64, \
                      late_after: float64!, at: timestamp";
        repository.component(
            "route",
            Kind::OnDemand,
            places,
            "miles: float64, hour_of_day: int64",
        );
        let order = "amount: int64!, gift: bool, rate: float64, at: timestamp";
        repository.component(
            "clean_orders",
            Kind::Batch,
            order,
            "log_amount: float64, is_gift: bool",
        );
        repository
    }

    /// Replaces a text that occurs in one of the files.
    pub(crate) fn with(mut self, from: &str, to: &str) -> Self {
        let file = self.files.iter_mut().find(|(_, text)| text.contains(from));
        let (_, text) = file.unwrap_or_else(|| panic!("`{from}` occurs nowhere"));
        *text = text.replacen(from, to, 1);
        self
    }

    /// Adds a file.
    pub(crate) fn and(mut self, text: &str) -> Self {
        self.files.push(("more.yaml".to_owned(), text.to_owned()));
        self
    }

    /// Gives a source's files a schema.
    pub(crate) fn source(&mut self, name: &str, columns: &[(&str, Arrow)]) {
        let fields = columns
            .iter()
            .map(|(name, t)| ArrowField::new(*name, t.clone(), true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        self.surroundings
            .sources
            .insert(name.to_owned(), Ok(schema));
    }

    /// Gives a transformation a component; `name: type`, with `!` if it is not nullable.
    pub(crate) fn component(&mut self, name: &str, kind: Kind, inputs: &str, outputs: &str) {
        let fields = |text: &str| {
            let fields = text.split(", ").filter_map(|field| field.split_once(": "));
            fields
                .map(|(name, data_type)| Field {
                    nullable: !data_type.ends_with('!'),
                    ..Field::new(
                        name,
                        data_type.trim_end_matches('!').parse::<DataType>().unwrap(),
                    )
                })
                .collect()
        };
        let description = Description {
            component: name.to_owned(),
            version: "1.0.0".to_owned(),
            function: name.to_owned(),
            documentation: String::new(),
            kind,
            inputs: fields(inputs),
            outputs: fields(outputs),
        };
        let component = (Digest::of(name.as_bytes()), description);
        self.surroundings
            .components
            .insert(name.to_owned(), Ok(component));
    }

    pub(crate) fn resolve(&self) -> Result<Project, Problems> {
        resolve("test", &Definitions::read(&self.files), &self.surroundings)
    }

    pub(crate) fn project(&self) -> Project {
        self.resolve()
            .unwrap_or_else(|problems| panic!("{problems}"))
    }

    pub(crate) fn plan(&self, service: &str) -> FeaturePlan {
        plan_service(&self.project(), service).unwrap_or_else(|error| panic!("{error}"))
    }

    /// All problems, one a line.
    pub(crate) fn problems(&self) -> String {
        match self.resolve() {
            Ok(_) => String::new(),
            Err(problems) => problems.to_string(),
        }
    }
}
