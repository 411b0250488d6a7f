//! What a flight's route, its airport's delays and its time say about it.

use unskew_sdk::prelude::*;

/// The mean radius of the earth.
const EARTH_RADIUS_MILES: f64 = 3958.7613;

/// A flight, with what is known of its airports.
#[derive(Row)]
pub struct Flight {
    /// Degrees, north positive.
    pub from_latitude: f64,
    /// Degrees, east positive.
    pub from_longitude: f64,
    /// Degrees, north positive.
    pub to_latitude: f64,
    /// Degrees, east positive.
    pub to_longitude: f64,
    /// The mean delay at the origin, in minutes.
    pub mean_delay: f64,
    /// How long before the departure the prediction is made.
    pub minutes_ahead: i64,
    /// From how many minutes on a flight is late.
    pub late_after: f64,
    /// When the prediction is made.
    pub at: Timestamp,
}

/// Features of a flight.
#[derive(Row)]
pub struct Route {
    /// The distance on the great circle.
    pub miles: f64,
    /// The hour of the departure in UTC, 0 to 23.
    pub hour_of_day: i32,
    /// Whether the mean delay alone makes the flight late.
    pub expected_late: bool,
}

/// The length of a route, the hour of the departure, and whether the flight is expected late.
#[transform(on_demand)]
pub fn route(flight: Flight) -> Route {
    let departure = flight.at + TimeDelta::minutes(flight.minutes_ahead);
    Route {
        miles: miles(
            (flight.from_latitude, flight.from_longitude),
            (flight.to_latitude, flight.to_longitude),
        ),
        hour_of_day: departure.hour(),
        expected_late: flight.mean_delay > flight.late_after,
    }
}

/// The distance of two points, (latitude, longitude) in degrees, by the haversine formula.
fn miles(from: (f64, f64), to: (f64, f64)) -> f64 {
    let half_sine_squared = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
    let haversine = half_sine_squared(to.0 - from.0)
        + from.0.to_radians().cos() * to.0.to_radians().cos() * half_sine_squared(to.1 - from.1);
    2.0 * EARTH_RADIUS_MILES * haversine.sqrt().min(1.0).asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW_YORK: (f64, f64) = (40.6398, -73.7789);
    const LOS_ANGELES: (f64, f64) = (33.9425, -118.4081);

    fn flight() -> Flight {
        Flight {
            from_latitude: NEW_YORK.0,
            from_longitude: NEW_YORK.1,
            to_latitude: LOS_ANGELES.0,
            to_longitude: LOS_ANGELES.1,
            mean_delay: 20.0,
            minutes_ahead: 90,
            late_after: 15.0,
            at: Timestamp::from_civil(2024, 5, 1, 23, 0, 0).unwrap(),
        }
    }

    #[test]
    fn from_new_york_to_los_angeles_it_is_2470_miles() {
        assert!((route(flight()).miles - 2470.0).abs() < 1.0);
    }

    #[test]
    fn the_distance_to_the_same_place_is_0_and_to_the_other_side_half_the_circumference() {
        assert_eq!(miles(NEW_YORK, NEW_YORK), 0.0);
        let half = std::f64::consts::PI * EARTH_RADIUS_MILES;
        assert!((miles((0.0, 0.0), (0.0, 180.0)) - half).abs() < 1e-9);
    }

    #[test]
    fn the_hour_is_that_of_the_departure() {
        assert_eq!(route(flight()).hour_of_day, 0);
    }

    #[test]
    fn late_is_later_than_the_threshold() {
        assert!(route(flight()).expected_late);
        let punctual = Flight {
            mean_delay: 15.0,
            ..flight()
        };
        assert!(!route(punctual).expected_late);
    }
}
