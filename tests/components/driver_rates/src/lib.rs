//! What a driver does, with something added.

use unskew_sdk::prelude::*;

/// What is known of a driver, and what to add to it.
#[derive(Row)]
pub struct Driver {
    /// Which share of requests became a ride.
    pub conv_rate: Option<f64>,
    /// Rides on a day.
    pub avg_daily_trips: i64,
    /// Comes with the request.
    pub val_to_add: i64,
}

/// Both, with the value added.
#[derive(Row)]
pub struct Rates {
    /// Null without a rate.
    pub conv_rate_plus_val: Option<f64>,
    /// Rides, and the value.
    pub trips_plus_val: i64,
}

/// Adds the value.
#[transform(on_demand)]
pub fn driver_rates(driver: Driver) -> Rates {
    Rates {
        conv_rate_plus_val: driver.conv_rate.map(|rate| rate + driver.val_to_add as f64),
        trips_plus_val: driver.avg_daily_trips + driver.val_to_add,
    }
}
