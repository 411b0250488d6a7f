//! When a driver can be with a passenger, and whether to ask them.

use unskew_sdk::prelude::*;

/// A driver, and the ride that they are to be offered.
#[derive(Row)]
pub struct Offer {
    /// The share of offers that the driver accepted lately, 0 to 1; null if there were none.
    pub acceptance_rate: Option<f64>,
    /// How fast the driver gets along, in km/h.
    pub mean_speed: f64,
    /// From the driver to the passenger, in km.
    pub distance: f64,
}

/// What speaks for the driver.
#[derive(Debug, PartialEq, Row)]
pub struct Pickup {
    /// Until the driver is there; null for one who does not move.
    pub minutes: Option<f64>,
    /// Higher for a driver who is likely to accept and near.
    pub score: Option<f64>,
}

/// When the driver can be there, and whether to ask them.
#[transform(on_demand)]
pub fn pickup(offer: Offer) -> Pickup {
    let minutes = (offer.mean_speed > 0.0).then(|| offer.distance / offer.mean_speed * 60.0);
    let score = minutes
        .zip(offer.acceptance_rate)
        .map(|(minutes, rate)| rate / (1.0 + minutes / 10.0));
    Pickup { minutes, score }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer {
            acceptance_rate: Some(0.5),
            mean_speed: 30.0,
            distance: 5.0,
        }
    }

    #[test]
    fn ten_minutes_halve_the_score() {
        let expected = Pickup {
            minutes: Some(10.0),
            score: Some(0.25),
        };
        assert_eq!(pickup(offer()), expected);
    }

    #[test]
    fn what_is_not_known_is_null() {
        let newcomer = Offer {
            acceptance_rate: None,
            ..offer()
        };
        assert_eq!(pickup(newcomer).score, None);
        let parked = Offer {
            mean_speed: 0.0,
            ..offer()
        };
        assert_eq!(pickup(parked).minutes, None);
    }
}
